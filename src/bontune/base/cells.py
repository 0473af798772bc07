"""A cell of a table, whatever tool wrote it: whether it is empty, and the text that stands for it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TypeVar

_Name = TypeVar("_Name", bound=Hashable)
_OWN = (str, int, float, bool, type(None))
LARGEST_WHOLE_FLOAT = 2**53
"""From here on a float stands for several whole numbers: which one was meant is lost."""


def python_value(value: Any) -> Any:
    """The value as Python's own, where it is a scalar of NumPy or a tensor of one number.

    Example:
        >>> import numpy as np
        >>> python_value(np.int64(3)), python_value("3")
        (3, '3')
    """
    if type(value) in _OWN:
        return value
    if type(value).__name__ == "datetime64":  # in nanoseconds it is a whole number to NumPy
        value = value.astype("datetime64[us]")
    if type(value).__name__ in ("float16", "float32"):  # 0.1, not 0.10000000149011612
        return float(str(value))
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, and what pandas writes for a gap.

    Example:
        >>> is_missing(None), is_missing(float("nan")), is_missing(""), is_missing(0)
        (True, True, False, False)
    """
    value = python_value(value)
    if isinstance(value, float):
        return value != value
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def cell_text(value: Any) -> str | None:
    """The text of a cell; None if it is missing or neither a text, nor a number, nor a date.

    A whole number is written as one, also where a column of floats or decimals holds it; a time of midnight is a date,
    which some readers of JSON make of each date.

    Example:
        >>> [cell_text(value) for value in (2.0, 0.5, Decimal("1.50"), datetime(2024, 5, 1), True, [1])]
        ['2', '0.5', '1.5', '2024-05-01', 'True', None]
    """
    value = python_value(value)
    if is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_WHOLE_FLOAT:
        return str(int(value))
    if isinstance(value, Decimal) and value.is_finite():
        text = f"{value:f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
    if isinstance(value, datetime):
        is_date = value.timetz() == time()
        return value.date().isoformat() if is_date else value.isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, (str, int, float, Decimal)) else None


def is_inexact(value: Any) -> bool:
    """Whether a number was rounded to a float that stands for several whole numbers.

    Example:
        >>> is_inexact(2.0**53), is_inexact(2**53), is_inexact(0.1)
        (True, False, False)
    """
    value = python_value(value)
    return isinstance(value, float) and LARGEST_WHOLE_FLOAT <= abs(value) < float("inf")


def repeated(names: Sequence[_Name]) -> _Name | None:
    """The first name that occurs twice; None if all are distinct.

    Example:
        >>> repeated(["a", "b", "a"]), repeated(["a"])
        ('a', None)
    """
    seen: set[_Name] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
