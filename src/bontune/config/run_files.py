"""The files that a run's recipe names, found from any folder: their names are those of the folder where it began."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bontune.base.files import replace_file
from bontune.models import is_shipped

STARTED_IN = ".started_in"
"""File in a run's folder that holds the folder in which the run was begun."""
_TASKS = ((), ("eval",))
_OF_TASK = ("data", "test_data", "hub", "grader")
_OF_VERIFIER = ("path", "function", "prompt")


def note_start(tree: Mapping[str, Any], run: Path) -> None:
    """Write down in which folder a run begins, if its recipe names files in it.

    Raises:
        OSError: it cannot be written.
    """
    if _found_in([Path.cwd()], tree) != tree:
        replace_file(run / STARTED_IN, os.getcwd())


def found_from_here(tree: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """A run's recipe with the names of its files as they are called from the current folder.

    A name is looked up where the run was begun, which its own folder's name tells or else a note in it; what is not
    there stays as it is written.

    Args:
        tree: the recipe as the run has written it.
        run: the folder of the run.
    """
    starts = _starts(tree, run)
    return dict(tree) if not starts or starts[0] == Path.cwd() else _found_in(starts, tree)


def _found_in(starts: list[Path], tree: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with the names of files that are in one of these folders, in full."""

    def found(value: Any) -> Any:
        return _found(value, starts)

    made = _changed(tree, ("model",), found)
    for section in _TASKS:
        for key in _OF_TASK:
            made = _changed(made, (*section, "task", key), found)
    for key in _OF_VERIFIER:
        made = _changed(made, ("verifier", key), found)
    return made


def _starts(tree: Mapping[str, Any], run: Path) -> list[Path]:
    """Folders in which the run may have been begun, the likeliest first."""
    starts = []
    here, called = Path(os.path.abspath(run)), Path(str(tree.get("run", ""))).parts
    if called and here.parts[-len(called) :] == called and not Path(*called).is_absolute():
        starts.append(here.parents[len(called) - 1])
    note = run / STARTED_IN
    if note.is_file():
        starts.append(Path(note.read_text(encoding="utf-8", errors="replace")))
    return starts


def _changed(tree: Mapping[str, Any], keys: tuple[str, ...], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The tree with a changed value at a place, if there is something."""
    key, *further = keys
    value = tree.get(key)
    if further:
        return {**tree, key: _changed(value, tuple(further), change)} if isinstance(value, Mapping) else dict(tree)
    return dict(tree) if value is None else {**tree, key: change(value)}


def _found(value: Any, starts: list[Path]) -> Any:
    """The name of a file or a folder as it is called from here; any other value as it is."""
    if isinstance(value, Mapping):
        return {key: _found(item, starts) for key, item in value.items()}
    if not isinstance(value, str) or not value or "\n" in value:
        return value
    source, colon, function = value.rpartition(":") if value.partition(":")[0].endswith(".py") else (value, "", "")
    path = Path(source).expanduser()
    if path.is_absolute() or is_shipped(source):
        return value
    for start in starts:
        try:
            if (start / path).exists():
                return f"{start / path}{colon}{function}"
        except OSError:  # a text that is too long for a name
            return value
    return value
