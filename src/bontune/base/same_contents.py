"""Settings that name files are compared by what the files hold: a data set is the same under another path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from bontune.base.overrides import flat

_TASK = r"(?:task_options|(?:eval\.)?task)\."
_NAMING = {
    rf"{_TASK}(?:data|test_data|hub)(?:\..*)?": "the problems",
    rf"{_TASK}grader": "the grader's code",
    "model": "the weights of the model",
    r"verifier(?:\.(?:path|function|prompt))?": "what the verifier names",
}
"""Settings that name files, and how the hashes of what the files hold are called."""
_SAME_AS = {"the model's weights": "the weights of the model"}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The dotted names of settings in which two differ, but for names of files that hold the same.

    Args:
        one: settings of a pool or a run, with the hashes of the contents that they name.
        other: those of another.

    Example:
        >>> same = {"contents": {"the problems": "1f"}}
        >>> differing({"task_options": {"data": "a.jsonl"}, **same}, {"task_options": {"data": "b.jsonl"}, **same})
        []
        >>> differing({"task_options": {"data": "a.jsonl"}}, {"task_options": {"data": "b.jsonl"}})
        ['task_options.data']
    """
    ours, theirs = flat(one), flat(other)
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return [name for name in names if not _is_same(name, ours, theirs)]


def _is_same(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two names stand for the same, as far as the hashes tell."""
    called = next((called for naming, called in _NAMING.items() if re.fullmatch(naming, name)), None)
    if called is None or _hashes(called, ours) != _hashes(called, theirs) or not _hashes(called, ours):
        return False
    return called == "the problems" or _last_part(ours.get(name)) == _last_part(theirs.get(name))


def _hashes(called: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The hashes of this kind that are known; one for training and one for evaluation may be."""
    found = {name.removeprefix("contents."): value for name, value in settings.items()}
    found = {_SAME_AS.get(name, name): value for name, value in found.items()}
    return {name: value for name, value in found.items() if name.startswith(called) and str(value or "").strip("-")}


def _last_part(value: Any) -> str:
    """The function in ``file.py:function``, or the last part of a path.

    One file may hold several functions; and of a model its weights are hashed, not all that its folder holds.
    """
    source, colon, function = str(value).rpartition(":")
    return function if source and colon else PurePath(str(value)).name
