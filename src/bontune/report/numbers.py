"""How numbers, intervals, metrics and durations are written in every table, figure and page, so that they agree."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

NOT_MEASURED = "–"
Writer: TypeAlias = Callable[[float | None], str]
"""How a number is written, without its unit: :func:`percent`, :func:`points`, :func:`number`, :func:`change`."""
_METRIC = re.compile(r"(?P<family>.+)@(?P<k>[0-9]{1,9})")


class Measured(Protocol):
    """A number with its interval, such as an ``Interval`` or a ``Difference``; NaN and None: there is none."""

    @property
    def value(self) -> float:
        """The number itself; NaN: there is none."""

    @property
    def low(self) -> float | None:
        """Lower end of the number's interval; None: it has none."""

    @property
    def high(self) -> float | None:
        """Upper end of the number's interval; None: it has none."""


# ---- numbers ----


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in percent, without the sign: 0.7431 is ``74.3``."""
    return NOT_MEASURED if fraction is None else f"{100 * fraction:.{digits}f}"


def points(fraction: float | None) -> str:
    """A difference of fractions in percentage points, signed with ASCII signs (any terminal can print them).

    >>> points(0.0664), points(-0.01), points(-0.00001)
    ('+6.6', '-1.0', '0.0')
    """
    if fraction is None:
        return NOT_MEASURED
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def number(value: float | None) -> str:
    """A number that is no fraction, to four significant digits."""
    return NOT_MEASURED if value is None else f"{value:.4g}"


def change(difference: float | None) -> str:
    """A difference of such numbers, with its sign.

    >>> change(-0.0664), change(0.0)
    ('-0.0664', '0')
    """
    if difference is None:
        return NOT_MEASURED
    difference = round(difference, 12)
    return f"{difference:+.4g}" if difference else "0"


def decimals(digits: int) -> Writer:
    """A writer of numbers with so many decimals."""
    return lambda value: NOT_MEASURED if value is None else f"{value:.{digits}f}"


def metric_writer(is_share: bool) -> Writer:
    """The writer of a metric: of a share :func:`percent`, of a graded reward :func:`number`."""
    return percent if is_share else number


def change_writer(is_share: bool) -> Writer:
    """The writer of a difference of metrics: of shares :func:`points`, of graded rewards :func:`change`."""
    return points if is_share else change


def ends_text(measured: Measured, write: Writer, between: str = ", ") -> str:
    """The ends of an interval; empty where there is none, or where it is not wider than the number is written.

    >>> from bontune.metrics import Interval
    >>> ends_text(Interval(value=0.61, low=0.58, high=0.65), percent, "–")
    '58.0–65.0'
    >>> ends_text(Interval(value=1.0, low=1.0, high=1.0), percent)
    ''
    """
    if measured.low is None or measured.high is None or measured.low != measured.low:
        return ""
    value, low, high = write(measured.value), write(measured.low), write(measured.high)
    return "" if value == low == high else f"{low}{between}{high}"


def interval_text(measured: Measured, write: Writer, between: str = ", ") -> str:
    """A number with its interval.

    >>> from bontune.metrics import Interval
    >>> interval_text(Interval(value=0.067, low=0.041, high=0.093), points)
    '+6.7 [+4.1, +9.3]'
    """
    ends = ends_text(measured, write, between)
    return f"{write(measured.value)} [{ends}]" if ends else write(measured.value)


# ---- metrics ----


def unit_of(is_share: bool) -> str:
    """The unit of a column of metrics, for its header: ``%`` of shares, ``reward`` of graded rewards."""
    return "%" if is_share else "reward"


def family_unit(family: str, is_share: bool) -> str:
    """The unit of a family of metrics: as :func:`unit_of`, and ``points`` of ``above``, which is a difference."""
    return "points" if family == "above" else unit_of(is_share)


def family_writer(family: str, is_share: bool) -> Writer:
    """The writer of a family of metrics, to its unit."""
    return points if family == "above" else metric_writer(is_share)


def with_unit(metric: str, *, is_share: bool) -> str:
    """A metric as the header of a column; without a unit where it has no budget, and is no reward."""
    return f"{metric}, {unit_of(is_share)}" if "@" in metric else metric


def points_unit(is_share: bool) -> str:
    """The unit of a difference behind its number: `` points``, or nothing where rewards are graded."""
    return " points" if is_share else ""


def split_metric(name: str) -> tuple[str, int | None]:
    """A metric's family and k: ``pass@16`` is ``("pass", 16)``, ``length`` is ``("length", None)``."""
    match = _METRIC.fullmatch(name)
    return (match["family"], int(match["k"])) if match else (name, None)


def sorted_metrics(names: Iterable[str]) -> list[str]:
    """Metric names without repetition: families as they first appear, k ascending within each."""
    unique = list(dict.fromkeys(names))
    families = list(dict.fromkeys(split_metric(name)[0] for name in unique))
    return sorted(unique, key=lambda name: (families.index(split_metric(name)[0]), split_metric(name)[1] or 0))


def budget_for(ks: Iterable[int], n: int | None) -> int:
    """The k to speak about: the N that was trained for, else the largest below it; without an N the largest.

    >>> budget_for([1, 4, 16, 32], 16), budget_for([4, 32], 16), budget_for([4, 32], 2), budget_for([1, 32], None)
    (16, 4, 4, 32)
    """
    budgets = list(ks)
    return max((k for k in budgets if n is None or k <= n), default=min(budgets))


# ---- words around numbers ----


def counted(count: int, noun: str) -> str:
    """``1 problem``, ``500 problems``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``42 s``, ``3 min 30 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s".removesuffix(" 0 s")
    return f"{whole // 3600} h {whole % 3600 // 60} min".removesuffix(" 0 min")


def capitalized(sentence: str) -> str:
    """The sentence with its first letter in upper case, the rest untouched."""
    return sentence[:1].upper() + sentence[1:]


def typographic(text: str) -> str:
    """Signed numbers with a true minus, for pages and figures."""
    return re.sub(r"(?<![\w.])-(?=[0-9])", "−", text)


def unbroken(text: str) -> str:
    """Numbers kept on one line with their unit: for pages, where lines break by themselves."""
    return re.sub(r"(?<=[0-9]) (?=%|s\b|min\b|h\b|points\b)", "\N{NO-BREAK SPACE}", text)
