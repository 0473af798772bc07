"""Reading pools: ours, and any Parquet or JSONL with the two columns that a pool needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bontune.base.errors import BontuneError
from bontune.pools.pool import SUFFIXES, Pool

REQUIRED = ("problem_id", "reward")
TEXTS = ("prompt", "completion", "messages")
"""The columns that hold nearly all of a pool's bytes."""


def read_pool(path: Path, *, has_texts: bool = True, is_even: bool = True) -> Pool:
    """Read a pool: ours, or any Parquet or JSONL with ``problem_id`` and ``reward``, one row per completion.

    Args:
        path: of the file.
        has_texts: whether what was asked and written is read too; of a Parquet file it stays on disk otherwise.
        is_even: refuse problems with different numbers of samples.

    Raises:
        BontuneError: no such file, not a pool, no rows, a reward or score that is no number, or problems with
            different numbers of samples.
    """
    if path.suffix == ".parquet" and path.is_file():
        columns, settings = _read_columns(path, () if has_texts else TEXTS, is_even)
        if columns is not None:
            return Pool(problem_ids=[str(row[0]) for row in columns["problem_id"]], columns=columns, settings=settings)
    return _read_by_row(path, is_even)


def _read_columns(
    path: Path, without: tuple[str, ...], is_even: bool
) -> tuple[dict[str, list[list[Any]]] | None, dict[str, Any]]:
    """The columns of a Parquet pool, P × M values each, and its settings; None where a row must be looked at.

    Equal texts are one object, so that a million rows take as much memory as there are different texts.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        table = pq.read_table(path, columns=[name for name in schema.names if name not in without])
    except (OSError, ValueError) as error:
        raise BontuneError(f"{path} is not a pool: {' '.join(str(error).split())[:200]}") from None
    if not set(REQUIRED) <= set(table.column_names) or not len(table):
        return None, {}
    for name in ("reward", "score"):
        if name in table.column_names:
            kind = table.schema.field(name).type
            if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
                return None, {}
    if pa.types.is_floating(table.schema.field("reward").type) and pc.any(pc.is_inf(table["reward"])).as_py():
        return None, {}
    names = _plain(table["problem_id"]).dictionary_encode()
    if names.null_count:
        return None, {}
    codes = names.indices.to_numpy()
    counts = np.bincount(codes)
    few, many = int(counts.argmin()), int(counts.argmax())
    if is_even and counts[few] != counts[many]:
        raise _unequal(path, {str(names.dictionary[i]): int(counts[i]) for i in (few, many)})
    order = codes.argsort(kind="stable")
    columns = {name: _by_problem(table[name], order, counts) for name in table.column_names}
    return columns, json.loads((schema.metadata or {}).get(b"bontune", b"{}"))


def _by_problem(column: Any, order: np.ndarray, counts: np.ndarray) -> list[list[Any]]:
    """The values of a column, M of each problem."""
    import pyarrow as pa

    column = _plain(column)
    if pa.types.is_large_string(column.type):
        encoded = column.dictionary_encode()
        different: list[Any] = [*encoded.dictionary.to_pylist(), None]
        places = encoded.indices.fill_null(len(different) - 1).to_numpy()[order].tolist()
        values = [different[place] for place in places]
    else:
        values = column.take(pa.array(order)).to_pylist()
    ends = np.cumsum(counts).tolist()
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _plain(column: Any) -> Any:
    """A column in one piece; categories as their values, and texts with room for more than two gigabytes of them."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return (column.cast(pa.large_string()) if pa.types.is_string(column.type) else column).combine_chunks()


def _unequal(path: Path, sizes: Mapping[str, int]) -> BontuneError:
    few, many = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    return BontuneError(
        f"{path} has {sizes[few]} samples of problem {few} and {sizes[many]} of {many}; a pool must have as many of "
        "each (`bontune eval` takes it as it is)."
    )


def _read_by_row(path: Path, is_even: bool) -> Pool:
    """Read a pool row by row, and say which is wrong."""
    rows, settings = read_rows(path)
    if not rows:
        raise BontuneError(f"{path} holds no rows.")
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BontuneError(f"{path}, row {number} is a {type(row).__name__}; a row must be an object with columns.")
        missing = [name for name in REQUIRED if name not in row]
        if missing:
            raise BontuneError(
                f"{path}, row {number} has no column {missing[0]!r}; a pool needs {' and '.join(REQUIRED)}, "
                f"it has {', '.join(row)}."
            )
        for name in ("reward", "score"):
            value = row.get(name)
            if value is not None and (not isinstance(value, (int, float)) or (name == "reward" and math.isinf(value))):
                raise BontuneError(f"{path}, row {number}: {name} must be a finite number or null, got {value!r}.")
        groups.setdefault(str(row["problem_id"]), []).append(row)
    sizes = {name: len(group) for name, group in groups.items()}
    if is_even and len(set(sizes.values())) > 1:
        raise _unequal(path, sizes)
    columns = {name: [[row.get(name) for row in group] for group in groups.values()] for name in rows[0]}
    return Pool(problem_ids=list(groups), columns=columns, settings=settings)


def read_rows(path: Path) -> tuple[list[Any], dict[str, Any]]:
    """The rows of a file, and the settings that a Parquet file of ours carries."""
    if not path.is_file():
        raise BontuneError(f"There is no pool at {path}.")
    if path.suffix not in SUFFIXES:
        raise BontuneError(f"A pool ends in .parquet or .jsonl, got {path.name!r}.")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(path)
            return table.to_pylist(), json.loads((table.schema.metadata or {}).get(b"bontune", b"{}"))
        # Not splitlines: JSON texts may hold separators that it splits at too.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise BontuneError(f"{path} is not a pool: {' '.join(str(error).split())[:200]}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(json.loads(line))
        except ValueError as error:
            raise BontuneError(f"{path}, line {number} is not JSON: {error}.") from None
    return rows, {}
