"""Values as the JSON files of a data set hold them, where the package ``datasets`` has changed them.

It reads JSON with Arrow, which makes times of a column of dates, and floats of whole numbers beyond 64 bits, so that
two different numbers may become one.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

from bontune.base.errors import BontuneError
from bontune.base.text import is_inexact, parse_json

Splits: TypeAlias = "dict[str, list[dict[str, Any]]]"


def as_written(splits: Splits, builder_of: Callable[[], Any], download: Callable[[list[str]], list[str]]) -> Splits:
    """The same rows, with the values of their files in every column that holds a time or a rounded number.

    Args:
        splits: rows as the package gives them.
        builder_of: makes the package's builder of the data set, which knows its files; called only where a value has
            been changed.
        download: local paths of files by their addresses.

    Returns:
        The rows; those of files that are no JSON, or cannot be found, as they were.
    """
    changed = {name for rows in splits.values() for row in rows for name, value in row.items() if _is_changed(value)}
    files = _files(builder_of, download) if changed else {}
    return {split: _restored(rows, changed, files.get(split, ())) for split, rows in splits.items()}


def _is_changed(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_changed(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(_is_changed(item) for item in value)
    return isinstance(value, date) or is_inexact(value)


def _files(builder_of: Callable[[], Any], download: Callable[[list[str]], list[str]]) -> dict[str, list[str]]:
    """Split → its JSON files, with ``all`` for all of them; empty where the data are no JSON."""
    try:
        builder = builder_of()
        if not type(builder).__module__.endswith("json.json") or builder.config.field is not None:
            return {}
        files = {
            str(split): download([str(file) for file in found]) for split, found in builder.config.data_files.items()
        }
    except Exception:  # an edge: the hub, its files and its cache fail in many types; the rows are there without it
        return {}
    return {"all": [file for found in files.values() for file in found], **files}


def _restored(rows: list[dict[str, Any]], changed: set[str], files: Sequence[str]) -> list[dict[str, Any]]:
    try:
        written = [row for file in files for row in _objects(Path(file))]
    except (OSError, BontuneError):
        return rows
    if len(written) != len(rows) or not all(isinstance(row, dict) for row in written):
        return rows
    return [
        {**row, **{name: original[name] for name in row if name in changed and name in original}}
        for row, original in zip(rows, written, strict=True)
    ]


def _objects(path: Path) -> list[Any]:
    """The objects of a file of JSON lines, or of a JSON list."""
    content = path.read_bytes()
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    if content.lstrip().startswith(b"["):
        return list(parse_json(content, str(path)))
    return [parse_json(line, str(path)) for line in content.split(b"\n") if line.strip()]
