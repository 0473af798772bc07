"""Findings in words that hold whichever way they came out, and the summary of a suite that they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bontune.base.text import temperature_text
from bontune.metrics import Interval, RewardScale
from bontune.metrics.evaluation import Evaluation
from bontune.pools.compare import Comparison, Difference, Outcome, Sampled, as_told, outcome_of
from bontune.report.numbers import (
    capitalized,
    change_writer,
    ends_text,
    interval_text,
    metric_writer,
    percent,
    points,
    points_unit,
    sorted_metrics,
    split_metric,
    typographic,
)
from bontune.report.style import FOCUS, subject

TABLE_KS = (1, 4, 16, 32, 64)
"""The k of pass@k shown in tables (besides the N that was trained for); the figure shows the others."""
READINGS = {
    Outcome.MORE: "better",
    Outcome.FEWER: "worse",
    Outcome.UNCLEAR: "no clear difference",
    Outcome.UNKNOWN: "no interval",
}
"""How tables call an outcome."""
MARKS = {Outcome.MORE: "better", Outcome.FEWER: "worse", Outcome.UNCLEAR: "", Outcome.UNKNOWN: ""}
"""How an outcome is marked, where it is a clear one."""
_NO_CLAIM = (Outcome.UNCLEAR, Outcome.UNKNOWN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A suite's main arms: what its page, its table in the terminal and ``summary.json`` show."""

    models: Mapping[str, Mapping[str, Interval]]
    """Model → metric → its value, a fraction, with its interval (NaN: none)."""
    differences: Sequence[Difference] = ()
    """Paired differences that claims are about."""
    n: int | Mapping[Any, Any] | None = None
    """N that the models were trained for, or the weight of each of several; None: there is none."""
    samples: int | None = None
    """Samples per problem."""
    problems: int | None = None
    """Problems measured."""
    seeds: int = 1
    """Training runs of each arm."""
    settings: Mapping[str, Any] | None = None
    """The recipe of the arm that stands for the suite."""

    @property
    def trained_n(self) -> int | None:
        """The one N that the models were trained for; None where there are several."""
        return self.n if isinstance(self.n, int) else None

    def curve(self, model: str) -> dict[int, Interval]:
        """k → pass@k of a model."""
        named = {split_metric(metric): interval for metric, interval in self.models[model].items()}
        return {k: interval for (family, k), interval in named.items() if family == "pass" and k is not None}

    def metrics(self) -> list[str]:
        """All metrics that a model has, in order."""
        return sorted_metrics(metric for values in self.models.values() for metric in values)

    def as_tree(self) -> dict[str, Any]:
        """The summary as plain data, for JSON."""
        curves = {model: self.curve(model) for model in self.models}
        return {
            "models": {model: {m: i.value for m, i in values.items()} for model, values in self.models.items()},
            "intervals": {
                model: {m: [i.low, i.high] for m, i in values.items()} for model, values in self.models.items()
            },
            "curves": {
                model: {
                    "k": list(curve),
                    "value": [i.value for i in curve.values()],
                    "low": [i.low for i in curve.values()],
                    "high": [i.high for i in curve.values()],
                }
                for model, curve in curves.items()
            },
            "differences": [
                {"a": d.a, "b": d.b, "metric": d.metric, "diff": d.value, "low": d.low, "high": d.high}
                for d in self.differences
            ],
            "n": self.n,
            "samples": self.samples,
            "problems": self.problems,
            "seeds": list(range(self.seeds)),
            "settings": self.settings,
        }


# ---- a suite ----


def table_metrics(summary: Summary) -> list[str]:
    """The metrics worth a column: pass@k for :data:`TABLE_KS` and the trained N, and whatever is not pass@k."""
    names, shown = summary.metrics(), {*TABLE_KS, summary.trained_n}
    return [name for name in names if split_metric(name)[0] != "pass" or split_metric(name)[1] in shown] or names


def headline_metric(summary: Summary) -> str | None:
    """The metric to speak about: one that is compared with an interval, at the trained N if possible, else the first.

    Without differences: pass@N, else pass@k with the largest k that was measured; None if nothing was.
    """
    measured = summary.metrics()
    compared = [entry.metric for entry in summary.differences if entry.metric in measured]
    trained = f"pass@{summary.trained_n}"
    if trained in (compared or measured):
        return trained
    if compared:
        return compared[0]
    passes = [metric for metric in measured if split_metric(metric)[0] == "pass"]
    return (passes or measured)[-1] if measured else None


def suite_headline(summary: Summary, metric: str | None) -> str:
    """One sentence with every model's number, the Best-of-N-aware one first.

    Such as: With 32 samples, Best-of-N-aware training solved 74.3 % of the problems; the base model 67.7 %, plain RL
    61.6 %.
    """
    named = [(name, values[metric].value) for name, values in summary.models.items() if metric and metric in values]
    if metric is None or not named:
        return "Nothing was measured, so there is nothing to compare."
    named.sort(key=lambda entry: entry[0] != FOCUS)
    family, k = split_metric(metric)
    (first, value), others = named[0], named[1:]
    if family == "pass" and k is not None:
        budget = "one sample" if k == 1 else f"{k} samples"
        start = f"With {budget}, {subject(first)} solved {percent(value)} % of the problems"
    else:
        start = f"On {metric}, {subject(first)} reached {percent(value)} %"
    rest = ", ".join(f"{subject(name)} {percent(value)} %" for name, value in others)
    return f"{start}; {rest}." if rest else f"{start}."


def difference_ends(entry: Difference) -> str:
    """The interval of a difference with its signs, of shares in points: ``+4.1 to +9.0``; empty if there is none."""
    return typographic(ends_text(entry, change_writer(entry.is_share), " to "))


def difference_sentence(entry: Difference) -> str:
    """A difference between two models of a suite, with its interval."""
    a, b, by = subject(entry.a), subject(entry.b), typographic(points(entry.value))
    if entry.outcome is Outcome.UNKNOWN:
        return f"{capitalized(a)} and {b} differ by {by} points; without an interval, maybe by chance."
    ends = difference_ends(entry)
    if entry.outcome is Outcome.UNCLEAR:
        return f"No clear difference between {a} and {b}: {by} points" + (f", 95 % interval {ends}." if ends else ".")
    comparison = "more" if entry.outcome is Outcome.MORE else "fewer"
    what = "solved" if entry.family == "pass" else f"scored on {entry.metric}"
    size = percent(abs(entry.value))
    return f"{capitalized(a)} {what} {size} percentage points {comparison} than {b} (95 % interval {ends})."


# ---- a comparison of models, by budget ----


def comparison_sentences(comparison: Comparison, *, k: int, verifier: str, is_alone: bool = True) -> list[str]:
    """A few sentences for each model: at ``k``, at the smallest budget, and over all of them; then some on chance.

    Args:
        comparison: the differences; of several families of metrics the last is spoken about.
        k: the budget to speak about first.
        verifier: what picks, for the metrics ``best@k``.
        is_alone: there is no other comparison, at another temperature, to tell this one from.
    """
    family = comparison.differences[-1].family
    by_model: dict[str, list[Difference]] = {}
    for difference in comparison.differences:
        if difference.family == family:
            by_model.setdefault(difference.a, []).append(difference)
    where = "" if is_alone else setting_text(comparison.sampled)
    joint = ", at" if comparison.sampled.own_temperatures else " and"
    start = f"{capitalized(where)}{joint}" if where else "At"
    picked = f", picked by {verifier}," if family == "best" else ""
    found = [f"{start} N = {k}{picked} {_at_budget(ds, k)} {_over_budgets(ds)}".strip() for ds in by_model.values()]
    evaluations = comparison.sampled.evaluations
    return found + chance_notes({name: (evaluations[name], values) for name, values in comparison.values.items()})


def setting_text(sampled: Sampled) -> str:
    """How the models were sampled, for a title; empty for pools."""
    if sampled.own_temperatures:
        return "each at its own best temperature"
    return "" if sampled.temperature is None else f"at T = {temperature_text(sampled.temperature)}"


def _at_budget(differences: Sequence[Difference], k: int) -> str:
    """Say how a model compares at ``k`` and at the smallest budget."""
    main, first = next(difference for difference in differences if difference.k == k), differences[0]
    own = ""
    if main.a_temperature is not None and main.b_temperature is not None:
        ours, theirs = temperature_text(main.a_temperature), temperature_text(main.b_temperature)
        own = f", both at T = {ours}" if ours == theirs else f", T = {ours} against {theirs}"
    unit, signed = points_unit(main.is_share), interval_text(main, change_writer(main.is_share))
    if main.outcome is Outcome.UNKNOWN:
        text = f"the difference between {main.a} and {main.b} is {signed}{unit}{own}: {main.why_unknown}"
    elif main.outcome is Outcome.UNCLEAR:
        text = f"there is no clear difference between {main.a} and {main.b} ({signed}{unit}{own})"
    else:
        verb = "solves" if main.is_share else "scores"
        size, span = _size(main), _size_ends(main)
        text = f"{main.a} {verb} {size}{unit} {_direction(main)} than {main.b} {span}{own}"
    if first.k == k or all(difference.outcome in _NO_CLAIM for difference in differences):
        return f"{text}."
    if first.outcome in _NO_CLAIM:
        nothing = "there is no interval" if first.outcome is Outcome.UNKNOWN else "there is no clear difference"
        signed = interval_text(first, change_writer(first.is_share))
        return f"{text}; at N = {first.k} {nothing} ({signed})."
    return f"{text}; at N = {first.k}, {_size(first)} {_direction(first)} {_size_ends(first)}."


def _over_budgets(differences: Sequence[Difference]) -> str:
    """Say where a model is ahead and where behind, by the band; empty if :func:`_at_budget` has said all there is."""
    if len(differences) < 3 or all(difference.outcome_of_all is Outcome.UNKNOWN for difference in differences):
        return ""
    outcomes = [(d.k, d.outcome_of_all) for d in differences]
    return f"Over all N at once: {ranges(outcomes, is_graded=not differences[0].is_share)}."


def ranges(outcomes: Sequence[tuple[int, Outcome]], *, is_graded: bool = False) -> str:
    """``clearly more up to N = 4; no clear difference at N = 8; clearly fewer from N = 16 on``.

    Args:
        outcomes: (k, outcome of a difference by a band over all k), k ascending.
        is_graded: say "less" for "fewer".
    """
    runs: list[tuple[Outcome, list[int]]] = []
    for k, outcome in outcomes:
        if not runs or runs[-1][0] is not outcome:
            runs.append((outcome, []))
        runs[-1][1].append(k)
    parts = []
    for place, (outcome, ks) in enumerate(runs):
        is_unclear = outcome in _NO_CLAIM
        less = "less" if is_graded and outcome is Outcome.FEWER else outcome.value
        name = "no interval" if outcome is Outcome.UNKNOWN else "no clear difference"
        name = name if is_unclear else f"clearly {less}"
        if len(runs) == 1:
            where = "at any N" if is_unclear else "at every N"
        elif len(ks) == 1:
            where = f"at N = {ks[0]}"
        elif place == 0:
            where = f"up to N = {ks[-1]}"
        elif place == len(runs) - 1:
            where = f"from N = {ks[0]} on"
        else:
            where = f"from N = {ks[0]} to {ks[-1]}"
        parts.append(f"{name} {where}")
    return "; ".join(parts)


def _direction(difference: Difference) -> str:
    is_less = difference.outcome is Outcome.FEWER and not difference.is_share
    return "less" if is_less else difference.outcome.value


def _size(difference: Difference) -> str:
    return metric_writer(difference.is_share)(abs(difference.value))


def _size_ends(difference: Difference) -> str:
    """The interval of :func:`_size`; only for differences that exclude 0."""
    low, high = sorted((abs(difference.low or 0.0), abs(difference.high or 0.0)))
    write = metric_writer(difference.is_share)
    return f"[{write(low)}, {write(high)}]"


# ---- chance ----

LEAST_CHANCE = 0.0005
"""A chance level below that at every k is 0.0 % as it is written, and is not shown."""


def has_chance(intervals: Mapping[str, Interval]) -> bool:
    """Whether there is a chance level that is worth showing."""
    return any(split_metric(name)[0] == "chance" and i.value >= LEAST_CHANCE for name, i in intervals.items())


def chance_notes(pools: Mapping[str, tuple[Evaluation, Mapping[str, Interval]]]) -> list[str]:
    """Say of pools why there is no chance level, that it is nearly 0, or where pass@k is not clearly above it.

    Args:
        pools: name → its evaluation, and metric → mean with its interval.

    Returns:
        A sentence for each pool of which there is something to say; one for all where it is the same.
    """
    notes = {name: _chance_note(*pool) for name, pool in pools.items()}
    if len({*notes.values()}) == 1:
        return [note for note in list(notes.values())[:1] if note]
    return [f"{name}: {note}" for name, note in notes.items() if note]


def _chance_note(evaluation: Evaluation, intervals: Mapping[str, Interval]) -> str:
    """One sentence; empty where pass@k is clearly above chance at every k, or has no interval."""
    if evaluation.why_no_chance:
        return f"There is no chance level: {evaluation.why_no_chance}."
    ks = [k for name in intervals if (k := split_metric(name)[1]) is not None and name.startswith("chance@")]
    if ks and not has_chance(intervals):
        return "Guessing solves less than 0.05 % of the problems at every k."
    for k in sorted(ks, reverse=True):
        above = as_told(intervals[f"above@{k}"], len(evaluation.problem_ids))
        if outcome_of(above.low, above.high) in (Outcome.UNCLEAR, Outcome.FEWER):
            solved, guessed = percent(intervals[f"pass@{k}"].value), percent(intervals[f"chance@{k}"].value)
            start = f"Of the {solved} % solved at k = {k}, {guessed} points are what guessing finds"
            if above.value < 0:
                start = f"At k = {k}, {solved} % are solved, and guessing solves {guessed} %"
            return f"{start}: pass@{k} is not clearly above chance ({interval_text(above, points)} points)."
    return ""


# ---- rewards ----


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
