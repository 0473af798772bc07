"""HTTP to OpenAI-compatible servers: many requests at a time, each retried until it holds what was asked for.

One event loop in a thread of its own serves all requests, so callers stay synchronous (and may themselves run inside an
event loop), grading never blocks a request, and every request has a deadline over its whole length.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import email.utils
import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from bontune.base.errors import BontuneError, RunStopped

if TYPE_CHECKING:
    import httpx2

API_KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable that holds a server's key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """The address of a server, and the name of the model to use there."""

    url: str
    """The URL without a slash at its end; it usually ends in ``/v1``."""
    model: str | None
    """The model's name at the server; None: the only one there."""

    @classmethod
    def parse(cls, text: str, model: str | None = None) -> Address:
        """Read ``http://host:8000/v1#model``, or several addresses separated by commas.

        Raises:
            BontuneError: not an http address, two names, or a password in it (addresses are written into pools).

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
            raise BontuneError(f"{where!r} is not the address of a server: {error}.") from None
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


MOST_FAILURES = 2
"""Failed connections in a row, or requests without an answer, after which a server is dropped if another remains."""


@dataclass
class Server:
    """One of several servers that hold the same model."""

    url: str
    """Address to which requests are sent."""
    num_busy: int = 0
    """Requests in progress."""
    num_answers: int = 0
    """Requests that the server has answered."""
    num_failures: int = 0
    """Connections that failed in a row, and requests during which the server answered no other."""
    reason: str = ""
    """Reason why the server was dropped; empty while it is used."""


class Servers:
    """Servers of the same model; each request goes to the least busy one."""

    def __init__(self, urls: Sequence[str]) -> None:
        """
        Args:
            urls: the servers' addresses.
        """
        self.all = [Server(url) for url in urls]

    @property
    def answering(self) -> list[Server]:
        """Return the servers that have not been dropped."""
        return [server for server in self.all if not server.reason]

    @contextmanager
    def least_busy(self) -> Iterator[Server]:
        """Give the server with the fewest requests in progress, and count one more while the context lasts."""
        server = min(self.answering, key=lambda server: server.num_busy)
        server.num_busy += 1
        try:
            yield server
        finally:
            server.num_busy -= 1

    def answered(self, server: Server) -> None:
        """Record that a request was answered."""
        server.num_answers += 1
        server.num_failures = 0

    def failed(self, server: Server, reason: str) -> None:
        """Record that a connection failed, or that a silent server did not answer a request in time.

        A server that fails repeatedly is dropped, except the last one.
        """
        server.num_failures += 1
        if server.num_failures >= MOST_FAILURES and len(self.answering) > 1:
            server.reason = reason

    def left_out(self) -> list[str]:
        """Return a sentence for each server that was dropped."""
        return [f"{server.url} was left out ({server.reason})" for server in self.all if server.reason]


Reply = TypeVar("Reply")
RETRIED_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
FINAL_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
"""Error codes, with status 429, of an account without credit: waiting does not help."""
LONGEST_RETRY_AFTER_S = 600.0
LONGEST_REPLY_BYTES = 256 * 2**20
CONNECT_TIMEOUT_S = 10.0


class Refused(BontuneError):
    """A server understood a request and refuses it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        """The reply's HTTP status."""


class BadReply(Exception):
    """A reply lacks what was requested; another try may succeed."""


class _Retry(Exception):
    """A try failed, and another may succeed."""

    def __init__(self, reason: str, pause_s: float = 0.0, status: int = 0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s
        """Seconds that the server asks to wait."""
        self.status = status
        """The reply's HTTP status; 0 if there was none."""


class _NoServer(Exception):
    """No server answers at an address."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"No server answers at {url} ({reason}): start it, or correct the address.")
        self.reason = reason


class Endpoint:
    """A server, or several that serve the same model. Requests run in the background; :meth:`close` ends them."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        concurrency: int = 32,
        timeout_s: float = 600.0,
        num_tries: int = 8,
    ) -> None:
        """
        Args:
            url: the address, see :meth:`Address.parse`.
            api_key: None: the environment variable ``OPENAI_API_KEY``. It is sent to this server only, never written.
            concurrency: requests at the same time, to each server.
            timeout_s: seconds for a whole request, from its first byte to the last byte of the reply.
            num_tries: tries for each request, the first included.

        Raises:
            BontuneError: an option outside its range.
        """
        rules = (
            (concurrency >= 1, "Concurrency must be at least 1", concurrency),
            (timeout_s > 0, "The timeout must be more than 0 seconds", timeout_s),
            (num_tries >= 1, "The number of tries must be at least 1", num_tries),
        )
        for holds, rule, value in rules:
            if not holds:
                raise BontuneError(f"{rule}, got {value!r}.")
        self.url = Address.parse(url).url
        self.servers = Servers(self.url.split(","))
        self.concurrency = concurrency * len(self.servers.all)
        self.timeout_s = timeout_s
        self.num_tries = num_tries
        self.num_retries = 0
        self.kinds: set[str] = set()
        """Owners of the models that the servers list, such as "vllm"; filled by :meth:`models`."""
        self._key = (os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key).strip()
        if not all("!" <= character <= "~" for character in self._key):
            raise BontuneError("The API key contains characters that no key has: set it again.")
        self._start = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: httpx2.AsyncClient | None = None
        self._slots: asyncio.Semaphore | None = None

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def models(self, *, timeout_s: float = 20.0) -> list[str] | None:
        """Ask for the names of the server's models; this also tests whether there is a server.

        Servers that do not answer are dropped, unless none remains. Of several servers, only common names count.

        Returns:
            The names; None if the server answers but lists none.

        Raises:
            BontuneError: no server answers, the server refuses the key, or several have no model in common.
        """
        results: list[list[str] | None] = []
        for server in self.servers.answering:
            try:
                results.append(self._models_of(server.url, timeout_s))
            except _NoServer as error:
                if len(self.servers.answering) == 1:
                    raise BontuneError(str(error)) from None
                server.reason = error.reason
        lists = [names for names in results if names is not None]
        if not lists:
            return None
        common = [name for name in lists[0] if all(name in names for names in lists)]
        if lists[0] and not common:
            raise BontuneError(f"The servers {self.url} list no model in common; they must serve the same one.")
        return common

    def _models_of(self, url: str, timeout_s: float) -> list[str] | None:
        def names(reply: Any) -> list[str]:
            ids = [str(model["id"]) for model in reply["data"]]
            self.kinds |= {str(model.get("owned_by")) for model in reply["data"]}
            return ids

        try:
            return self.submit(self._once("GET", url, "/models", None, names, timeout_s)).result()
        except _Retry as retry:
            if isinstance(retry.__cause__, (_connection_errors(), asyncio.TimeoutError)):
                raise _NoServer(url, str(retry)) from None
            return None
        except Refused as refusal:
            if refusal.status in (401, 403):
                raise
            return None

    def only_model(self) -> str:
        """Return the name of the server's model, if it has exactly one.

        Raises:
            BontuneError: the server has none or several, does not say, or does not answer.
        """
        names = self.models()
        if names is not None and len(names) == 1:
            return names[0]
        if not names:
            raise BontuneError(
                f"The server {self.url} does not say which models it has: name one, as in {self.url}#name."
            )
        shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
        raise BontuneError(f"The server {self.url} has {len(names)} models, name one as in {self.url}#name: {shown}.")

    def submit(self, work: Coroutine[Any, Any, Reply]) -> concurrent.futures.Future[Reply]:
        """Run a coroutine in this endpoint's event loop."""
        with self._start:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def post(self, path: str, body: dict[str, Any], read: Callable[[Any], Reply], what: str) -> Reply:
        """Send a request, and repeat it until it succeeds. Await this in the endpoint's loop (:meth:`submit`).

        Args:
            path: below the address, such as ``/chat/completions``.
            body: the request.
            read: turns the reply's JSON into the result; raises :class:`BadReply` (or a ``LookupError``,
                ``TypeError`` or ``ValueError``) if the result is not in it, which counts as a failed try.
            what: name of the request in messages, such as "problem 17".

        Raises:
            Refused: the server refuses the request.
            RunStopped: all tries failed.
        """
        if self._slots is None:
            self._slots = asyncio.Semaphore(self.concurrency)
        reason = ""
        for number in range(self.num_tries):
            async with self._slots:
                with self.servers.least_busy() as server:
                    num_answers = server.num_answers
                    try:
                        reply = await self._once("POST", server.url, path, body, read, self.timeout_s, what)
                    except _Retry as retry:
                        reason, asked_s = str(retry), retry.pause_s
                        is_out_of_time = isinstance(retry.__cause__, asyncio.TimeoutError)
                        is_silent = is_out_of_time and server.num_answers == num_answers  # not merely busy with others
                        if is_silent or isinstance(retry.__cause__, _connection_errors()):
                            self.servers.failed(server, reason)
                    else:
                        self.servers.answered(server)
                        return reply
            if asked_s > LONGEST_RETRY_AFTER_S:
                raise RunStopped(f"The server {self.url} asks to wait {asked_s:.0f} s ({reason}; {what}).")
            if number + 1 < self.num_tries:
                self.num_retries += 1
                await asyncio.sleep(max(asked_s, _pause_s(number)))
        raise RunStopped(
            f"The server {self.url} gave no usable answer to {what} in {self.num_tries} tries; the last one: {reason}."
        )

    def status_of(self, path: str, body: dict[str, Any]) -> int:
        """Try once; return the reply's HTTP status, 0 if there was none and 200 if the reply could be read."""

        async def ask() -> int:
            with self.servers.least_busy() as server:
                try:
                    await self._once("POST", server.url, path, body, lambda reply: reply, self.timeout_s)
                except (_Retry, Refused) as error:
                    return error.status
                return 200

        return self.submit(ask()).result()

    def close(self) -> None:
        """End all requests and the thread; safe to call twice."""
        with self._start:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._shut(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    async def _shut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
        self._client = self._slots = None

    async def _once(
        self,
        method: str,
        url: str,
        path: str,
        body: dict[str, Any] | None,
        read: Callable[[Any], Reply],
        timeout_s: float,
        what: str = "",
    ) -> Reply:
        """Send a request once.

        Raises:
            _Retry: it failed, and another try may succeed.
            Refused: the server refuses it.
        """
        import httpx2

        try:
            # httpx's own limits are for single reads: a byte a minute would pass them forever.
            status, headers, content = await asyncio.wait_for(self._exchange(method, url + path, body), timeout_s)
        except asyncio.TimeoutError as error:
            raise _Retry(f"no answer within {timeout_s:g} s") from error
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise _Retry(self._clean(f"{type(error).__name__}: {error}".rstrip(": "))) from error
        if (status in RETRIED_STATUSES or status >= 500) and not _is_final(content):
            pause_s = _retry_after_s(headers.get("retry-after"))
            raise _Retry(f"status {status}{self._message(content)}", pause_s, status)
        if status >= 300:
            about = f" {what}" if what else ""
            raise Refused(
                f"The server refuses{about}: {method} {url}{path} → status {status}{self._message(content)}", status
            )
        try:
            return read(json.loads(content))
        except BadReply as error:
            raise _Retry(self._clean(str(error))) from error
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise _Retry(f"a reply that is not of this API{self._message(content)}") from error

    async def _exchange(self, method: str, url: str, body: dict[str, Any] | None) -> tuple[int, httpx2.Headers, bytes]:
        request = self._opened().build_request(method, url, json=body)
        response = await self._opened().send(request, stream=True)
        try:
            parts, size = [], 0
            async for part in response.aiter_bytes():
                parts.append(part)
                size += len(part)
                if size > LONGEST_REPLY_BYTES:
                    raise OSError(f"a reply of more than {LONGEST_REPLY_BYTES} bytes")
            return response.status_code, response.headers, b"".join(parts)
        finally:
            await response.aclose()

    def _opened(self) -> httpx2.AsyncClient:
        import httpx2

        if self._client is None:
            hosts = {httpx2.URL(server.url).host for server in self.servers.all}
            is_local = hosts <= {"localhost", "127.0.0.1", "::1"}
            self._client = httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=self.concurrency),
                trust_env=not is_local,  # a proxy of the environment cannot reach this machine's own servers
            )
        return self._client

    def _message(self, content: bytes) -> str:
        """Return the server's error message in a line, without the key, which some servers repeat."""
        text = content[:10_000].decode("utf-8", "replace")
        try:
            message: Any = json.loads(content)
            for name in ("error", "message", "detail"):
                if isinstance(message, dict) and message.get(name):
                    message = message[name]
            text = message if isinstance(message, str) else json.dumps(message)
        except (ValueError, RecursionError):
            pass
        if text.lstrip().startswith("<"):
            text = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
        # A terminal would obey control characters.
        text = " ".join("".join(c if c.isprintable() else " " for c in self._clean(text)).split())
        return f": {text[:300]}{'…' if len(text) > 300 else ''}" if text else ""

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _connection_errors() -> type[Exception]:
    import httpx2

    return httpx2.TransportError


def _is_final(content: bytes) -> bool:
    """Return whether an error's body says that the account has no credit left."""
    try:
        error = json.loads(content)["error"]
        return bool(FINAL_CODES & {error.get("code"), error.get("type")})
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False


def _pause_s(number: int) -> float:
    """Return the pause after try ``number``: doubled each time, with jitter so that requests do not return together."""
    return random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**number)


def _retry_after_s(value: str | None) -> float:
    """Read the seconds or the date of a Retry-After header; 0 if there is none or it cannot be read."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return seconds if 0 <= seconds < float("inf") else 0.0


HUB_TIMEOUT_S = 5.0
"""Seconds within which the Hugging Face hub must answer; its own client would try for most of a minute."""


def why_unreachable() -> str | None:
    """Return why the Hugging Face hub cannot be reached; None if it answers, or if the user works offline.

    The environment's proxies are used.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None  # it answered
    except (OSError, ValueError) as error:
        return f"{constants.ENDPOINT} cannot be reached ({getattr(error, 'reason', error)})"
    return None
