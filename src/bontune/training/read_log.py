"""Reading what a run wrote: ``metrics.jsonl``, also while it is being written or after a crash."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bontune.base.errors import BontuneError
from bontune.metrics.evaluation import under_shared_names

METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
LOCK = ".lock"
"""File that a training holds locked in its folder; the system lets go of it when the process ends, however."""

Row = dict[str, Any]
Floats = NDArray[np.float64]


def read_metrics(path: str | os.PathLike[str]) -> list[Row]:
    """Read the rows of a ``metrics.jsonl``, in file order.

    The last line may be torn (a crash, or a run that is writing right now): it is left out.

    Raises:
        BontuneError: the file cannot be read, or a line that is not the last is damaged.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise BontuneError(f"cannot read the metrics {path}: {error.strerror}.") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    rows: list[Row] = []
    for position, (number, line) in enumerate(numbered):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif position < len(numbered) - 1:
            raise BontuneError(f"{path}, line {number} is not a JSON object; remove that line to read the rest.")
    return rows


def read_json(path: str | os.PathLike[str]) -> Row | None:
    """The JSON object in a file; None if the file is missing, torn or holds something else."""
    try:
        return _parse(Path(path).read_bytes())
    except OSError:
        return None


def rows_of_kind(rows: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """Rows of one kind (``step`` or ``eval``) by ascending step; of several rows with the same step, the last."""
    latest: dict[float, Mapping[str, Any]] = {}
    for row in rows:
        step = finite(row.get("step"))
        if row.get("kind") == kind and step is not None:
            latest[step] = row
    return [latest[step] for step in sorted(latest)]


def evaluations_of(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The rows of evaluations by ascending step, with the same name for the same metric in all of them.

    See :func:`bontune.metrics.evaluation.under_shared_names`.
    """
    found = [dict(row) for row in rows_of_kind(rows, "eval")]
    for part in ("metrics", "intervals", "gains"):
        having = [row for row in found if part in row]
        for row, named in zip(having, under_shared_names([mapping(row[part]) for row in having]), strict=True):
            row[part] = named
    return found


def series(rows: Iterable[Mapping[str, Any]], field: str) -> tuple[Floats, Floats]:
    """Steps and values of one field of the step rows; rows without a finite value are left out."""
    points = [(finite(row["step"]), finite(row.get(field))) for row in rows_of_kind(rows, "step")]
    kept = [(step, value) for step, value in points if step is not None and value is not None]
    return np.array([step for step, _ in kept], dtype=float), np.array([value for _, value in kept], dtype=float)


def finite(value: object) -> float | None:
    """The value as a float; None for anything that is not a finite real number (NaN, None, text, bool)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: a missing part of a summary is a part with nothing in it."""
    return value if isinstance(value, Mapping) else {}


def bounds(value: object) -> tuple[float, float] | None:
    """An interval ``[low, high]`` of two finite numbers; None for anything else."""
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != 2:
        return None
    low, high = finite(value[0]), finite(value[1])
    return None if low is None or high is None else (min(low, high), max(low, high))


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """Read the samples that a run has shown at its evaluations, in order; none if it has no such file."""
    path = folder / SAMPLES
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
