"""Reading pools: ours, and any Parquet or JSONL with the two columns that a pool needs."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from bontune.base.errors import BontuneError
from bontune.base.text import cell_text, is_inexact, is_missing, parse_json, repeated
from bontune.pools.pool import SUFFIXES, Pool

REQUIRED = ("problem_id", "reward")
TEXTS = ("prompt", "completion", "messages")
"""The columns that hold nearly all of a pool's bytes."""


def read_pool(path: Path, *, has_texts: bool = True, is_even: bool = True) -> Pool:
    """Read a pool: ours, or any Parquet or JSONL with ``problem_id`` and ``reward``, one row per completion.

    A column that some rows of a JSONL file lack is null there. A JSONL file may be compressed (``.jsonl.gz``).

    Args:
        path: of the file.
        has_texts: whether what was asked and written is read too; of a Parquet file it stays on disk otherwise.
        is_even: refuse problems with different numbers of samples.

    Raises:
        BontuneError: no such file, not a pool, no rows, a reward or score that is no number, a row without a problem,
            a sample or a column that is there twice, or problems with different numbers of samples.
    """
    if path.suffix == ".parquet" and path.is_file():
        columns, settings = _read_columns(path, () if has_texts else TEXTS, is_even)
        if columns is not None:
            ids = [str(row[0]) for row in columns["problem_id"]]
            return _as_held(Pool(problem_ids=ids, columns=columns, settings=settings), path)
    return _as_held(_read_by_row(path, is_even), path)


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
        _require_distinct(schema.names, path)
        table = pq.read_table(path, columns=[name for name in schema.names if name not in without])
    except BontuneError:
        raise
    except (OSError, ValueError) as error:
        raise _no_pool(path, error) from None
    if not set(REQUIRED) <= set(table.column_names) or not len(table):
        return None, {}
    for name in ("reward", "score"):
        if name in table.column_names:
            kind = table.schema.field(name).type
            if not (
                pa.types.is_floating(kind)
                or pa.types.is_integer(kind)
                or pa.types.is_null(kind)
                or pa.types.is_decimal(kind)
            ):
                return None, {}
    if pa.types.is_floating(table.schema.field("reward").type) and pc.any(pc.is_inf(table["reward"])).as_py():
        return None, {}
    names = _plain(table["problem_id"]).dictionary_encode()
    kind = names.type.value_type
    if names.null_count or not (pa.types.is_integer(kind) or pa.types.is_large_string(kind)):
        return None, {}
    codes = names.indices.to_numpy()
    counts = np.bincount(codes)
    few, many = int(counts.argmin()), int(counts.argmax())
    if is_even and counts[few] != counts[many]:
        raise _unequal(path, {str(names.dictionary[i]): int(counts[i]) for i in (few, many)})
    order = codes.argsort(kind="stable")
    try:
        columns = {name: _by_problem(table[name], order, counts) for name in table.column_names}
    except (pa.ArrowException, ValueError) as error:  # such as times that Python cannot hold
        raise _no_pool(path, error) from None
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
        try:
            values = column.take(pa.array(order)).to_pylist()
        except pa.ArrowNotImplementedError:  # some types can be stored, and not taken
            unordered = column.to_pylist()
            values = [unordered[place] for place in order]
    ends = np.cumsum(counts).tolist()
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _plain(column: Any) -> Any:
    """A column in one piece; categories as their values, and texts with room for more than two gigabytes of them.

    Other tools write texts as views, which Arrow can neither take nor sort, and as bytes.
    """
    import pyarrow as pa

    is_category = pa.types.is_dictionary(column.type)
    kind = column.type.value_type if is_category else column.type
    if _is_text(kind):
        try:
            column = column.cast(pa.large_string())
        except pa.ArrowInvalid:  # bytes that are no text
            column = column.cast(pa.large_binary())
    elif is_category:
        column = column.cast(kind)
    return column.combine_chunks()


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kinds = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary")
    return any(getattr(types, f"is_{name}")(kind) for name in kinds)


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
        groups.setdefault(_checked_id(row, f"{path}, row {number}"), []).append(row)
    sizes = {name: len(group) for name, group in groups.items()}
    if is_even and len(set(sizes.values())) > 1:
        raise _unequal(path, sizes)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [[row.get(name) for row in group] for group in groups.values()] for name in names}
    return Pool(problem_ids=list(groups), columns=columns, settings=settings)


def _checked_id(row: Any, place: str) -> str:
    """The problem that a row is of, after a look at what a pool needs."""
    if not isinstance(row, dict):
        raise BontuneError(f"{place} is a {type(row).__name__}; a row must be an object with columns.")
    missing = [name for name in REQUIRED if name not in row]
    if missing:
        raise BontuneError(
            f"{place} has no column {missing[0]!r}; a pool needs {' and '.join(REQUIRED)}, it has {', '.join(row)}."
        )
    for name in ("reward", "score"):
        value = row.get(name)
        if value is not None and (
            not isinstance(value, (int, float, Decimal)) or (name == "reward" and math.isinf(value))
        ):
            raise BontuneError(f"{place}: {name} must be a finite number or null, got {value!r}.")
    problem = row["problem_id"]
    if type(problem) is str:
        return problem
    if is_missing(problem) or is_inexact(problem):
        raise BontuneError(f"{place}: problem_id is {problem!r}, which names no problem; give every row its problem's.")
    return problem_name(problem)


def problem_name(value: Any) -> str:
    """The id of a problem from the cell that holds it; 1, 1.0 and "1" are one problem."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else cell_text(value)
    return str(value) if text is None else text


def _as_held(pool: Pool, path: Path) -> Pool:
    """The pool with numbers of any type as Python's own, and answers as texts, so that 7, 7.0 and "7" are one answer.

    Raises:
        BontuneError: a problem has one sample twice.
    """
    for name, convert in _CONVERTED.items():
        rows = pool.columns.get(name)
        if rows is not None and any(type(value) not in _PLAIN[convert] for row in rows for value in row):
            pool.columns[name] = [[convert(value) for value in row] for row in rows]
    for problem, samples in zip(pool.problem_ids, pool.columns.get("sample", ()), strict=False):
        sample = repeated([s for s in samples if isinstance(s, (int, float)) and not is_missing(s)])
        if sample is not None:
            raise BontuneError(
                f"{path} has sample {sample} of problem {problem} twice: remove one of the rows, or the column sample "
                "if it does not number a problem's samples."
            )
    return pool


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _whole_number(value: Any) -> Any:
    if is_missing(value):
        return None
    is_whole = isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value)
    return int(value) if is_whole else _number(value)


def _text(value: Any) -> Any:
    text = cell_text(value)
    return None if is_missing(value) else value if text is None else text


_CONVERTED = {
    "reward": _number,
    "score": _number,
    "logprob": _number,
    "sample": _whole_number,
    "level": _whole_number,
    "num_tokens": _whole_number,
    "answer": _text,
    "reference": _text,
}
"""What the values of a column are made to be."""
_NOTHING = type(None)
_PLAIN = {_number: (float, int, bool, _NOTHING), _whole_number: (int, _NOTHING), _text: (str, _NOTHING)}
"""Types that stay as they are."""


def read_rows(path: Path) -> tuple[list[Any], dict[str, Any]]:
    """The rows of a file, and the settings that a Parquet file of ours carries."""
    if not path.is_file():
        raise BontuneError(f"There is no pool at {path}.")
    if not is_pool_file(path):
        raise BontuneError(f"A pool ends in .parquet or .jsonl, got {path.name!r}.")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            _require_distinct(pq.read_schema(path).names, path)
            table = pq.read_table(path)
            return table.to_pylist(), json.loads((table.schema.metadata or {}).get(b"bontune", b"{}"))
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        content.decode("utf-8")
    except BontuneError:
        raise
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise _no_pool(path, error) from None
    # Not splitlines: JSON texts may hold separators that it splits at too.
    lines = enumerate(content.split(b"\n"), start=1)
    return [parse_json(line, f"{path}, line {number}") for number, line in lines if line.strip()], {}


def is_pool_file(path: Path) -> bool:
    """Whether a name ends as those of pools do."""
    return path.name.endswith((*SUFFIXES, ".jsonl.gz"))


def _require_distinct(names: Sequence[str], path: Path) -> None:
    name = repeated(names)
    if name is not None:
        raise BontuneError(f"{path} has the column {name!r} twice: remove or rename one.")


def _no_pool(path: Path, error: Exception) -> BontuneError:
    return BontuneError(f"{path} is not a pool: {' '.join(str(error).split())[:200]}")
