"""Text that comes in and goes out: Unicode, JSON, cells of tables, CSV, and docstrings shown to people."""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import sys
import textwrap
from collections.abc import Hashable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypeVar

from bontune.base.errors import BontuneError


def readable(text: str) -> str:
    """Replace lone surrogates (halves of characters), which no file can store, by U+FFFD.

    Example:
        >>> ascii(readable("a" + chr(0xD83D)))
        "'a\\\\ufffd'"
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def never_fail_to_print() -> None:
    """Let standard output and error write characters that their encoding lacks as escapes, such as ``\\u2026``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_unicode_output() -> bool:
    """Return whether standard output can write every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


_Name = TypeVar("_Name", bound=Hashable)
_OWN = (str, int, float, bool, type(None))
LARGEST_WHOLE_FLOAT = 2**53
"""From here on a float stands for several whole numbers: which one was meant is lost."""


def python_value(value: Any) -> Any:
    """Convert a NumPy scalar or a tensor of one number to Python's own value; return anything else as it is.

    Example:
        >>> import numpy as np
        >>> python_value(np.int64(3)), python_value("3")
        (3, '3')
    """
    if type(value) in _OWN:
        return value
    if type(value).__name__ == "datetime64":  # NumPy's item() returns nanoseconds as an integer
        value = value.astype("datetime64[us]")
    if type(value).__name__ in ("float16", "float32"):  # 0.1, not 0.10000000149011612
        return float(str(value))
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def is_missing(value: Any) -> bool:
    """Return whether a cell is empty: None, NaN, or what pandas writes for a gap.

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
    """Return a cell as text; None if it is empty or neither a text, nor a number, nor a date.

    Whole numbers in a column of floats or decimals are written without a fraction. A time of midnight is written as a
    date, because some readers of JSON turn every date into one.

    Example:
        >>> [cell_text(value) for value in (2.0, Fraction(1, 2), Decimal("1.50"), datetime(2024, 5, 1), True, [1])]
        ['2', '1/2', '1.5', '2024-05-01', 'True', None]
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
    return str(value) if isinstance(value, (str, int, float, Decimal, Fraction)) else None


def is_inexact(value: Any) -> bool:
    """Return whether a number may have been rounded to a float that stands for several whole numbers.

    Example:
        >>> is_inexact(2.0**53), is_inexact(2**53), is_inexact(0.1)
        (True, False, False)
    """
    value = python_value(value)
    return isinstance(value, float) and LARGEST_WHOLE_FLOAT <= abs(value) < float("inf")


def repeated(names: Sequence[_Name]) -> _Name | None:
    """Return the first name that occurs twice; None if all names are distinct.

    Example:
        >>> repeated(["a", "b", "a"]), repeated(["a"])
        ('a', None)
    """
    seen: set[_Name] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def parse_json(content: bytes, place: str) -> Any:
    """Parse JSON in UTF-8, with or without a byte order mark.

    Args:
        content: the JSON.
        place: where it comes from, for messages, such as ``file, line 3``.

    Raises:
        BontuneError: it is not JSON, not UTF-8, nested too deep for Python, or an object has a key twice.
    """
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        line = f" in line {error.lineno}" if error.lineno > 1 else ""
        raise BontuneError(f"{place} is not JSON{line}: {error.msg} at column {error.colno}.") from error
    except UnicodeDecodeError as error:
        raise BontuneError(f"{place} is not UTF-8: byte {error.start + 1}.") from error
    except _RepeatedKey as error:
        raise BontuneError(f"{place}: the key {error.args[0]!r} occurs twice in one object; remove one.") from None
    except (ValueError, RecursionError) as error:
        raise BontuneError(f"{place} contains JSON that Python cannot read: {error}.") from error


class _RepeatedKey(ValueError):
    """An object has this key twice."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs, and refuse a repeated key, which Python would settle silently by the last one."""
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise _RepeatedKey(repeated([key for key, _ in pairs]))
    return tree


_ROLE = re.compile(r":\w+:`~?([^`<]+)(?: <[^`]*>)?`")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=\S)([^*\n]+?)(?<=\S)\1(?![\w*])")


def without_markup(text: str) -> str:
    """Return a docstring as plain text for a terminal.

    Example:
        >>> without_markup("*Not* the case of :func:`bontune.objectives.rank` with ``n=2``.")
        'Not the case of bontune.objectives.rank with n=2.'
    """
    return _EMPHASIS.sub(r"\2", _ROLE.sub(r"\1", text).replace("``", ""))


def field_docstrings(cls: type) -> dict[str, str]:
    """Read the docstring under each field of a class from its source, as one line; Python itself drops these.

    Example:
        >>> from bontune.base.problems import Problem
        >>> field_docstrings(Problem)["id"]
        'Unique in its task; seeds, pools and paired comparisons identify the problem by it.'
    """
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def temperature_text(temperature: float) -> str:
    """A temperature as text, with one decimal at least.

    >>> temperature_text(1.0), temperature_text(0.85)
    ('1.0', '0.85')
    """
    text = f"{temperature:g}"
    return text if "." in text or "e" in text else f"{text}.0"
