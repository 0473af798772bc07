"""The table of verifiers: their names, their options, and the functions that make them.

Recipes, their checks, the commands and the documentation read this table. To add a verifier, write its module, and one
row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError, did_you_mean, nearest
from bontune.base.problems import Problem
from bontune.base.user_code import code_digest, load_function
from bontune.models import weights_digest
from bontune.verifiers.base import FunctionVerifier, Majority, Oracle, Verifier
from bontune.verifiers.input_format import ENDS

EXAMPLES = {
    "path": "a shipped name, a folder or a hub id",
    "function": "file.py:function",
    "url": "a server's address such as http://localhost:8000/v1",
}
"""Example of a value for each required option."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifierRow:
    """One row of the table."""

    name: str
    """Name, as in ``verifier.name`` of a recipe."""
    summary: str
    """Sentence that says what the score is."""
    make: Callable[..., Verifier]
    """Function that makes the verifier from its options."""
    needs: tuple[str, ...] = ()
    """Required options."""
    takes: tuple[str, ...] = ()
    """Further options."""


def _reward_model(path: str, end: str | None = None, device: str | None = None) -> Verifier:
    from bontune.verifiers.reward_model import load_reward_model

    return load_reward_model(path, device=device, end=end)


def _judge(url: str, model: str | None = None, prompt: str | None = None) -> Verifier:
    from bontune.verifiers.judge import Judge

    return Judge(url, model, prompt)


def _python(function: str) -> Verifier:
    return FunctionVerifier(load_function(function, what="verifier"), name=function)


ROWS = (
    VerifierRow(name="oracle", summary="The score is the reward itself.", make=Oracle),
    VerifierRow(name="majority", summary="The score is the number of samples with the same answer.", make=Majority),
    VerifierRow(
        name="reward_model",
        summary="A trained model gives the score.",
        make=_reward_model,
        needs=("path",),
        takes=("end",),
    ),
    VerifierRow(
        name="endpoint",
        summary="A language model behind a server judges.",
        make=_judge,
        needs=("url",),
        takes=("model", "prompt"),
    ),
    VerifierRow(name="python", summary="Your own function gives the score.", make=_python, needs=("function",)),
)
TABLE = {row.name: row for row in ROWS}


def load_verifier(name: str = "oracle", *, device: str | None = None, **options: str | None) -> Verifier:
    """Make the verifier that a recipe's section ``verifier`` describes.

    Args:
        name: a name of :data:`TABLE`.
        device: device of a reward model; None: the first GPU, or the CPU.
        options: ``path`` of a ``reward_model``: a shipped name, a folder, or a hub id, and its ``end``, ``eos`` or
            ``none``: the end of the texts that it was trained on (None: it is detected); ``function`` of
            ``python``: ``module:function`` or ``file.py:function``; ``url``, ``model`` and ``prompt`` of an
            ``endpoint``: the server's address up to ``/v1``, the model's name there (None: its only one), and the
            prompt (a template or a file with one; None: the judge's own).

    Raises:
        BontuneError: there is no such verifier, an option is missing or belongs to another, or it cannot be loaded.

    Example:
        >>> load_verifier("majority").name
        'majority'
    """
    check_verifier_options(name, options)
    values = {option: value for option, value in options.items() if value is not None}
    return TABLE[name].make(**values, **({"device": device} if name == "reward_model" else {}))


def check_verifier_options(name: str, options: dict[str, str | None]) -> None:
    """Check that a verifier has the options it needs and no others.

    Raises:
        BontuneError: an option is missing or belongs to another verifier, or there is no such verifier.
    """
    if name not in TABLE:
        hint = did_you_mean(name, TABLE, 0.5)
        raise BontuneError(f"No verifier is named {name!r}{hint}; the names are {', '.join(TABLE)}.")
    row = TABLE[name]
    for option in row.needs:
        if not options.get(option):
            raise BontuneError(f"verifier.name is {name!r} but verifier.{option} is missing: give {EXAMPLES[option]}.")
    for option, value in options.items():
        if value is not None and option not in row.needs + row.takes:
            owners = [other.name for other in ROWS if option in other.needs + other.takes]
            if not owners:
                raise BontuneError(f"No verifier has an option {option!r}.")
            raise BontuneError(f"verifier.{option} belongs to verifier.name={owners[0]}; {name} does not take it.")


def verifier_digest(name: str, **options: str | None) -> str:
    """Hash the contents that a verifier's options name: a model's weights, a function's code, a prompt's file.

    Args:
        name, options: as for :func:`load_verifier`.
    """
    path, function, prompt = (options.get(option) for option in ("path", "function", "prompt"))
    parts = [weights_digest(path)] if path else []
    parts += [code_digest(function)] if function else []
    parts += [weights_digest(prompt)] if prompt and Path(prompt).is_file() else []
    parts += [end] if (end := options.get("end")) else []
    return "-".join(parts)


def options_from_text(spec: str) -> tuple[str, dict[str, str | None]]:
    """Return a verifier's name and options from the one word on a command line; see :func:`verifier_from_text`.

    Raises:
        BontuneError: the word is a misspelt name of a verifier.
    """
    plain = [row.name for row in ROWS if not row.needs + row.takes]
    if spec in plain:
        return spec, {}
    if spec.startswith(("http://", "https://")):
        url, _, model = spec.partition("#")
        return "endpoint", {"url": url, "model": model or None}
    if ":" in spec:
        return "python", {"function": spec}
    near = nearest(spec, plain, cutoff=0.7)
    if near and not Path(spec).is_dir():
        raise BontuneError(f"There is no verifier {spec!r}, did you mean {near!r}?")
    path, _, end = spec.rpartition("#")
    if path and end in ENDS and not Path(spec).exists():
        return "reward_model", {"path": path, "end": end}
    return "reward_model", {"path": spec}


def verifier_from_text(spec: str, *, device: str | None = None) -> Verifier:
    """Make the verifier that one word on a command line names.

    Args:
        spec: a verifier without options, such as ``oracle`` or ``majority``; ``file.py:function`` or
            ``module:function``; ``http://host:8000/v1`` with or without ``#model``; else a reward model: a shipped
            name, a folder, or a hub id, with or without ``#eos`` or ``#none``, the end of its texts.
        device: device of a reward model.

    Raises:
        BontuneError: the verifier cannot be loaded.

    Example:
        >>> verifier_from_text("oracle").name
        'oracle'
    """
    name, options = options_from_text(spec)
    return load_verifier(name, device=device, **options)


def as_verifier(verifier: Verifier | Callable[[Problem, str], float] | tuple[Any, Any]) -> Verifier:
    """Return a verifier as it is; wrap a function, or a loaded classifier with its tokenizer.

    Args:
        verifier: a verifier; a function (problem, completion) -> float; or a pair (model, tokenizer), which is a
            :class:`bontune.verifiers.RewardModel` with default options.

    Raises:
        BontuneError: ``verifier`` is none of these.
    """
    if isinstance(verifier, Verifier):
        return verifier
    if isinstance(verifier, tuple) and len(verifier) == 2 and hasattr(verifier[0], "config"):
        from bontune.verifiers.reward_model import RewardModel

        return RewardModel(*verifier)
    if hasattr(verifier, "config") and hasattr(verifier, "state_dict"):
        raise BontuneError("A reward model needs its tokenizer: give both as verifier=(model, tokenizer).")
    if not callable(verifier):
        raise BontuneError(
            "A verifier has a method score, or is a function (problem, completion), or a pair (model, tokenizer); got "
            f"{verifier!r}."
        )
    return FunctionVerifier(verifier, name=getattr(verifier, "__name__", "python"))
