"""Tasks: problems and how to grade what a model writes for them. One by name with :func:`load_task`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bontune.base.errors import BontuneError, did_you_mean, nearest
from bontune.base.problems import Problem
from bontune.base.settings import ours
from bontune.tasks.base import AnswerKeys, Task
from bontune.tasks.countdown import Countdown
from bontune.tasks.gsm8k import Gsm8k
from bontune.tasks.humaneval import HumanEval
from bontune.tasks.jsonl import Jsonl
from bontune.tasks.math import Math
from bontune.tasks.mbpp import Mbpp
from bontune.tasks.programs import Programs
from bontune.tasks.rows import RowsTask, task_from_rows
from bontune.tasks.svamp import Svamp
from bontune.tasks.ways import WayKeys

__all__ = [
    "Countdown",
    "Gsm8k",
    "HumanEval",
    "Jsonl",
    "Math",
    "Mbpp",
    "Problem",
    "Programs",
    "RowsTask",
    "Svamp",
    "Task",
    "load_task",
    "names",
    "task_from_rows",
]


@dataclass(frozen=True, slots=True)
class _Row:
    make: Callable[..., Task]
    usual_length: int = 512
    """Tokens that are room enough for a completion: 512 where answers are reasoned out or are programs."""


_TABLE = {
    "countdown": _Row(Countdown, usual_length=24),
    "gsm8k": _Row(Gsm8k),
    "humaneval": _Row(HumanEval),
    "jsonl": _Row(Jsonl),
    "math": _Row(Math),
    "mbpp": _Row(Mbpp),
    "programs": _Row(Programs, usual_length=32),
    "svamp": _Row(Svamp, usual_length=64),
}
_ARGUMENT = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
"""Matches one argument in a docstring's list of arguments."""


def names() -> list[str]:
    """The tasks that :func:`load_task` knows.

    Example:
        >>> "math" in names()
        True
    """
    return sorted(_TABLE)


def describe() -> dict[str, str]:
    """Each task's name and what it is, in one line."""
    return {name: (inspect.getdoc(_TABLE[name].make) or "").splitlines()[0] for name in names()}


def usual_length(name: str) -> int:
    """Tokens that are room enough for a completion of this task, or of one that is not in the table."""
    return _TABLE.get(name, _Row(Jsonl)).usual_length


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """An option of a task."""

    name: str
    """Name, as a recipe writes it."""
    default: str
    """Its default as text; empty: it must be given."""
    summary: str
    """One line that says what the option does."""


def options(name: str) -> list[Option]:
    """The options of a task, in order.

    Example:
        >>> [(option.name, option.default) for option in options("countdown")]
        [('seed', '0'), ('hard', 'False'), ('data', 'None'), ('thoughts', 'auto')]
    """
    factory = _factory(name)
    summaries = {
        found[1]: " ".join(found[2].split()) for found in _ARGUMENT.finditer(inspect.cleandoc(factory.__doc__ or ""))
    }
    return [
        Option(
            name=parameter.name,
            default="" if parameter.default is parameter.empty else str(parameter.default),
            summary=summaries.get(parameter.name, ""),
        )
        for parameter in inspect.signature(factory).parameters.values()
    ]


def load_task(name: str, **options: Any) -> Task:
    """Build a task from its name and options, as a recipe writes them.

    Raises:
        BontuneError: an unknown task or option (the nearest is named), or one whose value the task refuses.

    Example:
        >>> load_task("countdown").problems("test")[0].prompt
        '11,13,7,1:18='
    """
    check_options(name, options)
    return _factory(name)(**options)


def answer_keys(name: str, options: Mapping[str, Any]) -> AnswerKeys | WayKeys | None:
    """How a task compares answers with references; None if it does not, or is not in the table.

    Example:
        >>> answer_keys("jsonl", {"grader": "last_number"}).reference("so it is 7.0"), answer_keys("mbpp", {})
        ('7', None)
    """
    keys = getattr(_TABLE[name].make, "answer_keys", None) if name in _TABLE else None
    return None if keys is None else keys(options)


def check_options(name: str, options: Iterable[str]) -> None:
    """Check that there is such a task, and that it has the options that are given and needs no others.

    Raises:
        BontuneError: not so; the nearest name is named.
    """
    parameters = inspect.signature(_factory(name)).parameters
    for option in options:
        if option not in parameters:
            meant = _meant(option, list(parameters))
            raise BontuneError(f"Task {name} has no option {option!r}{meant}; it has {', '.join(parameters)}.")
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in options:
            given = f"give {parameter.name}=…, in a recipe task.{parameter.name}=…"
            raise BontuneError(f"Task {name} needs the option {parameter.name!r}: {given}.")


def _meant(option: str, known: list[str]) -> str:
    """What may have been meant by an unknown option: one that is like it, or one that other trainers call so."""
    near, theirs = nearest(option, known), ours(option)
    if near is None and theirs is not None and theirs.key is not None:
        section, _, leaf = theirs.key.rpartition(".")
        if section != "task":
            return f" (in a recipe {theirs.key} means that)"
        near = leaf if leaf in known else None
    return f", did you mean {near!r}?" if near else ""


def _factory(name: str) -> Callable[..., Task]:
    if name not in _TABLE:
        raise BontuneError(f"No task {name!r}{did_you_mean(name, names())}; there are {', '.join(names())}.")
    return _TABLE[name].make
