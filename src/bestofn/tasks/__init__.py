"""Tasks: problems and how to grade what a model writes for them. One by name with :func:`load_task`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from bestofn.errors import BestofnError
from bestofn.tasks.base import Problem, Task
from bestofn.tasks.countdown import Countdown
from bestofn.tasks.jsonl import Jsonl
from bestofn.tasks.rows import RowsTask, nearest, task_from_rows

__all__ = ["Countdown", "Jsonl", "Problem", "RowsTask", "Task", "load_task", "names", "task_from_rows"]

_TASKS: dict[str, Callable[..., Task]] = {"countdown": Countdown, "jsonl": Jsonl}


def names() -> list[str]:
    """The tasks that :func:`load_task` knows.

    Example:
        >>> names()
        ['countdown', 'jsonl']
    """
    return sorted(_TASKS)


def describe() -> dict[str, str]:
    """Each task's name and what it is, in one line."""
    return {name: (inspect.getdoc(_TASKS[name]) or "").splitlines()[0] for name in names()}


def load_task(name: str, **options: Any) -> Task:
    """Build a task from its name and options, as a recipe writes them.

    Raises:
        BestofnError: an unknown task or option (the nearest is named), or one whose value the task refuses.

    Example:
        >>> load_task("countdown").problems("test")[0].prompt
        '11,13,7,1:18='
    """
    if name not in _TASKS:
        raise BestofnError(f"no task {name!r}{nearest(name, names())}; there are {', '.join(names())}")
    parameters = inspect.signature(_TASKS[name]).parameters
    for option in options:
        if option not in parameters:
            raise BestofnError(
                f"task {name} has no option {option!r}{nearest(option, list(parameters))}; "
                f"it has {', '.join(parameters)}"
            )
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in options:
            raise BestofnError(f"task {name} needs the option {parameter.name!r}")
    return _TASKS[name](**options)
