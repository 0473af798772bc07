"""How names and numbers are written in every table, figure and page: one place, so that they agree."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bontune.metrics import RewardScale

LABELS = {"base": "base model", "rloo": "plain RL", "rl": "plain RL", "bon_rl": "Best-of-N RL"}
SUBJECTS = {"base": "the base model", "rloo": "plain RL", "rl": "plain RL", "bon_rl": "Best-of-N-aware training"}
FOCUS = "bon_rl"
"""The model that sentences start with."""

NOT_MEASURED = "–"
_METRIC = re.compile(r"(?P<family>.+)@(?P<k>[0-9]{1,9})")


def label(name: str) -> str:
    """What a model is called in tables and figures."""
    return LABELS.get(name, name)


def heading(name: str) -> str:
    """The label at the start of a line; a name without a label of its own stays as it is."""
    return capitalized(LABELS[name]) if name in LABELS else name


def subject(name: str) -> str:
    """What a model is called inside a sentence."""
    return SUBJECTS.get(name, name)


def capitalized(sentence: str) -> str:
    """The sentence with its first letter in upper case, the rest untouched."""
    return sentence[:1].upper() + sentence[1:]


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in percent, without the sign: 0.7431 is ``74.3``."""
    return NOT_MEASURED if fraction is None else f"{100 * fraction:.{digits}f}"


def points(fraction: float) -> str:
    """A difference of fractions in percentage points, signed with ASCII signs (any terminal can print them).

    >>> points(0.0664), points(-0.01), points(-0.00001)
    ('+6.6', '-1.0', '0.0')
    """
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def number(value: float | None) -> str:
    """A number that is no fraction, to four significant digits."""
    return NOT_MEASURED if value is None else f"{value:.4g}"


def written(value: float | None, *, is_share: bool) -> str:
    """A metric: a share in percent, a graded reward as the number that it is; neither with its unit."""
    return percent(value) if is_share else number(value)


def signed(difference: float, *, is_share: bool) -> str:
    """A difference of metrics with its sign: of shares in percentage points, of graded rewards as a number.

    >>> signed(0.0664, is_share=True), signed(-0.0664, is_share=False), signed(0.0, is_share=False)
    ('+6.6', '-0.0664', '0')
    """
    if is_share:
        return points(difference)
    difference = round(difference, 12)
    return f"{difference:+.4g}" if difference else "0"


def unit_of(is_share: bool) -> str:
    """What a column of metrics holds, for its header: ``%`` of shares, ``reward`` of graded rewards."""
    return "%" if is_share else "reward"


def budget_for(ks: Iterable[int], n: int | None) -> int:
    """The k to speak about: the N that was trained for, else the largest below it; without an N the largest.

    >>> budget_for([1, 4, 16, 32], 16), budget_for([4, 32], 16), budget_for([4, 32], 2), budget_for([1, 32], None)
    (16, 4, 4, 32)
    """
    known = list(ks)
    return max((k for k in known if n is None or k <= n), default=min(known))


def with_unit(metric: str, *, is_share: bool) -> str:
    """A metric as the header of a column; without a unit where it has no budget, and is no reward."""
    return f"{metric}, {unit_of(is_share)}" if "@" in metric else metric


def of_points(is_share: bool) -> str:
    """The unit of a difference behind its number: `` points``, or nothing where rewards are graded."""
    return " points" if is_share else ""


def scale_note(scale: RewardScale) -> str:
    """Say what counts as solved, and what is not in percent; empty for rewards of 0 and 1.

    >>> scale_note(RewardScale(is_binary=False, solved_at=1.0, lowest=-1.0))
    'A sample counts as solved from a reward of 1 on; max@k and best@k are rewards. One not graded counts as -1.'
    """
    if scale.is_binary:
        return ""
    ungraded = f" One not graded counts as {scale.lowest:g}." if scale.lowest < 0 else ""
    if scale.solved_at is None:
        return f"Rewards are graded: max@k and best@k are rewards, and there is no pass@k.{ungraded}"
    return f"A sample counts as solved from a reward of {scale.solved_at:g} on; max@k and best@k are rewards.{ungraded}"


def typographic(text: str) -> str:
    """Signed numbers with a true minus, for pages and figures."""
    return re.sub(r"(?<![\w.])-(?=[0-9])", "−", text)


def unbroken(text: str) -> str:
    """Numbers kept on one line with their unit: for pages, where lines break by themselves."""
    return re.sub(r"(?<=[0-9]) (?=%|s\b|min\b|h\b|points\b)", "\N{NO-BREAK SPACE}", text)


def split_metric(name: str) -> tuple[str, int | None]:
    """A metric's family and k: ``pass@16`` is ``("pass", 16)``, ``length`` is ``("length", None)``."""
    match = _METRIC.fullmatch(name)
    return (match["family"], int(match["k"])) if match else (name, None)


def in_order(names: Iterable[str]) -> list[str]:
    """Metric names without repetition: families as they first appear, k ascending within each."""
    unique = list(dict.fromkeys(names))
    families = list(dict.fromkeys(split_metric(name)[0] for name in unique))
    return sorted(unique, key=lambda name: (families.index(split_metric(name)[0]), split_metric(name)[1] or 0))


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
