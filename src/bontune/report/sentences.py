"""What the numbers of a comparison say, in sentences that hold whichever way they came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bontune.pools.compare import Difference, Outcome
from bontune.report.numbers import (
    FOCUS,
    capitalized,
    in_order,
    percent,
    points,
    signed,
    split_metric,
    subject,
    typographic,
)
from bontune.training.read_log import bounds, finite, mapping

TABLE_KS = (1, 4, 16, 32, 64)
"""The k of pass@k shown in tables (besides the N that was trained for); the figure shows the others."""


READINGS = {
    Outcome.MORE: "better",
    Outcome.FEWER: "worse",
    Outcome.UNCLEAR: "no clear difference",
    Outcome.UNKNOWN: "no interval",
}
"""What a difference is called in tables."""
MARKS = {Outcome.MORE: "better", Outcome.FEWER: "worse"}
"""The style of a clear difference."""


def interval_text(entry: Difference) -> str:
    """The interval, of shares in points, such as ``+4.1 to +9.0``; empty if there is none."""
    if entry.low is None or entry.high is None:
        return ""
    low, high = (signed(end, is_share=entry.is_share) for end in (entry.low, entry.high))
    return f"{low} to {high}"


def sentence(entry: Difference) -> str:
    """The difference as a sentence, with its interval."""
    a, b, size = subject(entry.a), subject(entry.b), f"{100 * abs(entry.value):.1f}"
    if entry.outcome is Outcome.UNKNOWN:
        return (
            f"{capitalized(a)} and {b} differ by {_signed(entry.value)} points; without an interval, maybe by chance."
        )
    span = typographic(interval_text(entry))
    if entry.outcome is Outcome.UNCLEAR:
        return f"No clear difference between {a} and {b}: {_signed(entry.value)} points, 95 % interval {span}."
    comparison = "more" if entry.outcome is Outcome.MORE else "fewer"
    what = "solved" if entry.family == "pass" else f"scored on {entry.metric}"
    return f"{capitalized(a)} {what} {size} percentage points {comparison} than {b} (95 % interval {span})."


def trained_n(summary: Mapping[str, Any]) -> int | None:
    """The N that the models were trained for; None if the summary does not say."""
    n = finite(summary.get("n"))
    return None if n is None else int(n)


def models(summary: Mapping[str, Any]) -> list[str]:
    """The models of a summary, in its order."""
    return [str(name) for name in mapping(summary.get("models"))]


def value(summary: Mapping[str, Any], model: str, metric: str) -> float | None:
    """One number of one model; None if it was not measured."""
    return finite(mapping(mapping(summary.get("models")).get(model)).get(metric))


def interval(summary: Mapping[str, Any], model: str, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of :func:`value`; None if there is none."""
    return bounds(mapping(mapping(summary.get("intervals")).get(model)).get(metric))


def differences(summary: Mapping[str, Any]) -> list[Difference]:
    """The paired differences of a summary; entries without a finite difference are left out."""
    found = []
    for entry in _sequence(summary.get("differences")):
        row = mapping(entry)
        diff = finite(row.get("diff"))
        if diff is not None and "a" in row and "b" in row:
            low, high = bounds([row.get("low"), row.get("high")]) or (None, None)
            metric = str(row.get("metric", ""))
            found.append(Difference(a=str(row["a"]), b=str(row["b"]), metric=metric, value=diff, low=low, high=high))
    return found


def table_metrics(summary: Mapping[str, Any]) -> list[str]:
    """The metrics worth a column: pass@k for :data:`TABLE_KS` and the trained N, and whatever is not pass@k."""
    names = in_order(metric for model in models(summary) for metric in _measured(summary, model))
    wanted = {*TABLE_KS, trained_n(summary)}
    chosen = [name for name in names if split_metric(name)[0] != "pass" or split_metric(name)[1] in wanted]
    return chosen or names


def headline_metric(summary: Mapping[str, Any]) -> str | None:
    """The metric to speak about: one that is compared with an interval, at the trained N if possible, else the first.

    Without differences: pass@N, else pass@k with the largest k that was measured; None if nothing was.
    """
    measured = in_order(metric for model in models(summary) for metric in _measured(summary, model))
    compared = [entry.metric for entry in differences(summary) if entry.metric in measured]
    trained = f"pass@{trained_n(summary)}"
    if trained in (compared or measured):
        return trained
    if compared:
        return compared[0]
    passes = [metric for metric in measured if split_metric(metric)[0] == "pass"]
    return (passes or measured)[-1] if measured else None


def headline(summary: Mapping[str, Any], metric: str | None) -> str:
    """One sentence with every model's number, the Best-of-N-aware one first.

    Such as: With 32 samples, Best-of-N-aware training solved 74.3 % of the problems; the base model 67.7 %, plain RL
    61.6 %.
    """
    named = [
        (name, number) for name in models(summary) if metric and (number := value(summary, name, metric)) is not None
    ]
    if metric is None or not named:
        return "Nothing was measured, so there is nothing to compare."
    named.sort(key=lambda entry: entry[0] != FOCUS)
    family, k = split_metric(metric)
    (first, number), others = named[0], named[1:]
    if family == "pass" and k is not None:
        budget = "one sample" if k == 1 else f"{k} samples"
        start = f"With {budget}, {subject(first)} solved {percent(number)} % of the problems"
    else:
        start = f"On {metric}, {subject(first)} reached {percent(number)} %"
    rest = ", ".join(f"{subject(name)} {percent(number)} %" for name, number in others)
    return f"{start}; {rest}." if rest else f"{start}."


def _measured(summary: Mapping[str, Any], model: str) -> list[str]:
    row = mapping(mapping(summary.get("models")).get(model))
    return [str(metric) for metric in row if finite(row[metric]) is not None]


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, Sequence) else ()


def _signed(diff: float) -> str:
    return typographic(points(diff))
