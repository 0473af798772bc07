"""Where a server is."""

from __future__ import annotations

from dataclasses import dataclass

from bontune.base.errors import BontuneError

API_KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable that holds a server's key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a server is, and which of its models is meant."""

    url: str
    """Without a slash at the end, mostly ending in ``/v1``."""
    model: str | None
    """The model's name at the server; None: the only one there."""

    @classmethod
    def parse(cls, text: str, model: str | None = None) -> Address:
        """Read ``http://host:8000/v1#model``; of several servers, their addresses with commas between.

        Raises:
            BontuneError: no http address, two names, or one that holds a password (addresses are written into pools).

        Example:
            >>> Address.parse("http://127.0.0.1:8000/v1/#org/name")
            Address(url='http://127.0.0.1:8000/v1', model='org/name')
        """
        import httpx2

        if "," in text:
            several = [cls.parse(part.strip(), model) for part in text.split(",") if part.strip()]
            names = {address.model for address in several if address.model}
            if len(names) > 1:
                raise BontuneError(f"Several servers must hold one model, not {', '.join(sorted(names))}.")
            return cls(url=",".join(dict.fromkeys(a.url for a in several)), model=names.pop() if names else None)
        where, _, named = text.partition("#")
        try:
            url = httpx2.URL(where)
        except httpx2.InvalidURL as error:
            raise BontuneError(f"{where!r} is no address of a server: {error}.") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise BontuneError(f"A server's address looks like http://127.0.0.1:8000/v1, got {where!r}.")
        if url.userinfo or url.query:
            raise BontuneError(
                f"The address of {url.host} must hold no password and nothing after a question mark: put the server's "
                f"key into the environment variable {API_KEY_VARIABLE}."
            )
        if named and model and named != model:
            raise BontuneError(f"Two names for one model: #{named} in the address and {model}; give one.")
        return cls(url=where.rstrip("/"), model=model or named or None)
