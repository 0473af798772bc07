"""Rows from what people hold them in: lists, generators, data frames, Arrow tables, data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bontune.base.errors import BontuneError
from bontune.base.text import repeated

_INSTEAD = "give a list of dictionaries, a data frame, a pyarrow table or a data set"


def rows_in(table: Any, where: str) -> tuple[list[Any], bool]:
    """The rows of a table, and whether it has typed columns, which may have rounded large numbers.

    Frames are known by their methods, so that no package of frames is imported. Gaps of a pandas frame are None.

    Args:
        table: rows, or an object that has them.
        where: what the messages call it.

    Raises:
        BontuneError: no table, or one that names a column twice.
    """
    if hasattr(table, "collect_schema") and not hasattr(table, "to_dicts"):  # polars, lazy
        raise BontuneError(f"{where}: a lazy frame has no rows yet; give frame.collect()")
    names = _names(table)
    if names is not None and (name := repeated(names)) is not None:
        raise BontuneError(f"{where}: the column {name!r} occurs twice; remove or rename one")
    if hasattr(table, "to_dicts"):  # polars
        return list(table.to_dicts()), True
    if hasattr(table, "notna") and hasattr(table, "columns"):  # pandas
        return list(table.astype(object).where(table.notna(), None).to_dict("records")), True
    if hasattr(table, "to_pylist") and hasattr(table, "schema"):  # pyarrow
        return list(table.to_pylist()), True
    if isinstance(table, (str, bytes, Mapping)) or not isinstance(table, Iterable) or hasattr(table, "dtype"):
        raise BontuneError(f"{where}: rows cannot be read from an object of type {type(table).__name__}; {_INSTEAD}")
    return list(table), hasattr(table, "features")  # a data set's rows are as its columns hold them


def _names(table: Any) -> list[Any] | None:
    """The names of the columns of a pandas frame or an Arrow table; None of anything else."""
    found = getattr(table, "column_names", None) or getattr(table, "columns", None)
    return list(found) if found is not None and hasattr(found, "__iter__") else None
