"""Verifiers by name: from a recipe's section, and from one word of a command line."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from bontune.base.errors import BontuneError
from bontune.base.functions import load_function
from bontune.verifiers.base import Verifier
from bontune.verifiers.simple import FunctionVerifier, Majority, Oracle

NAMES = ("oracle", "majority", "reward_model", "endpoint", "python")


def load_verifier(
    name: str = "oracle",
    *,
    path: str | None = None,
    function: str | None = None,
    url: str | None = None,
    model: str | None = None,
    prompt: str | None = None,
    device: str | None = None,
) -> Verifier:
    """The verifier that a recipe's section ``verifier`` describes.

    Args:
        name: one of ``NAMES``.
        path: of a ``reward_model``: a shipped name, a folder, or a hub id.
        function: of ``python``: ``module:function`` or ``file.py:function``.
        url, model, prompt: of an ``endpoint``: the server's address up to ``/v1``, the model's name there (None: its
            only one), and what to ask it (a template or a file with one; None: the judge's own).
        device: where a reward model computes; None: the first GPU, or the CPU.

    Raises:
        BontuneError: no such verifier, an option that is missing or belongs to another, or one that cannot be loaded.

    Example:
        >>> load_verifier("majority").name
        'majority'
    """
    given = {"path": path, "function": function, "url": url, "model": model, "prompt": prompt}
    check_options(name, given)
    if name == "python":
        return FunctionVerifier(load_function(str(function), what="verifier"), name=str(function))
    if name == "reward_model":
        from bontune.verifiers.reward_model import load_reward_model

        return load_reward_model(str(path), device=device)
    if name == "endpoint":
        from bontune.verifiers.judge import Judge

        return Judge(str(url), model, prompt)
    simple: dict[str, Callable[[], Verifier]] = {"oracle": Oracle, "majority": Majority}
    return simple[name]()


def check_options(name: str, given: dict[str, str | None]) -> None:
    """Whether a verifier has the options it needs and no others.

    Raises:
        BontuneError: it does not, or there is no such verifier.
    """
    needed = {"reward_model": ("path",), "endpoint": ("url",), "python": ("function",)}.get(name, ())
    allowed = (*needed, "model", "prompt") if name == "endpoint" else needed
    examples = {
        "path": "a shipped name, a folder or a hub id",
        "function": "file.py:function",
        "url": "a server's address such as http://localhost:8000/v1",
    }
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise BontuneError(f"No verifier is named {name!r}{hint}; there are {', '.join(NAMES)}.")
    for option in needed:
        if not given.get(option):
            raise BontuneError(f"verifier.name is {name!r} but verifier.{option} is missing: give {examples[option]}.")
    for option, value in given.items():
        if value is not None and option not in allowed:
            owners = {"path": "reward_model", "function": "python"}.get(option, "endpoint")
            raise BontuneError(f"verifier.{option} is for verifier.name={owners}; {name} has no use for it.")


def verifier_from_text(spec: str, *, device: str | None = None) -> Verifier:
    """The verifier that one word on a command line means.

    Args:
        spec: ``oracle``, ``majority``, ``file.py:function`` or ``module:function``, ``http://host:8000/v1`` with or
            without ``#model``, else a reward model: a shipped name, a folder, or a
            hub id.
        device: where a reward model computes.

    Raises:
        BontuneError: nothing of the kind can be loaded.

    Example:
        >>> verifier_from_text("oracle").name
        'oracle'
    """
    if spec in ("oracle", "majority"):
        return load_verifier(spec)
    if spec.startswith(("http://", "https://")):
        url, _, model = spec.partition("#")
        return load_verifier("endpoint", url=url, model=model or None)
    if ":" in spec:
        return load_verifier("python", function=spec)
    near = get_close_matches(spec, ("oracle", "majority"), n=1, cutoff=0.7)
    if near and not Path(spec).is_dir():
        raise BontuneError(f"No verifier {spec!r}, did you mean {near[0]!r}?")
    return load_verifier("reward_model", path=spec, device=device)
