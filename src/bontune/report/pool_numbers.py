"""The numbers of a pool's page: what was evaluated, by k, by level, between pools; as curves, tables and CSV rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

import bontune.metrics as metrics
from bontune.base.errors import BontuneError
from bontune.metrics import Interval
from bontune.metrics.evaluation import Evaluation, evaluate_pool, share_families
from bontune.pools import compare
from bontune.pools.compare import Difference
from bontune.pools.pool import Pool
from bontune.report.findings import TABLE_KS
from bontune.report.page import Cell, Grid, Line, fraction_cell, number_cell
from bontune.report.wording import split_metric, unit_of

Row: TypeAlias = dict[str, Any]

FAMILIES = ("pass", "max", "best", "majority", "weighted")
"""Families of metrics that say what selection yields, in the order of figures and tables."""
LABELS = {
    "pass": "some sample is right",
    "max": "the highest reward of k",
    "best": "the verifier's choice",
    "majority": "the most frequent answer",
    "weighted": "the vote weighted by the verifier",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedPool:
    """One pool with its metrics."""

    name: str
    """Name of the pool on the page."""
    pool: Pool
    """The pool itself."""
    evaluation: Evaluation
    """Every metric of every problem."""
    intervals: Mapping[str, Interval]
    """Metric → mean with its interval."""

    @property
    def num_samples(self) -> int:
        """Samples per problem, M."""
        return len(self.pool.columns["reward"][0])

    @property
    def families(self) -> list[str]:
        """The families that say something: best@k only under a verifier that errs."""
        present = {split_metric(metric)[0] for metric in self.intervals}
        if "gap" not in present:
            present -= {"best", "weighted"}
        return [family for family in FAMILIES if family in present]

    @property
    def ks(self) -> list[int]:
        """The budgets k, ascending."""
        return sorted({k for metric in self.intervals if (k := split_metric(metric)[1]) is not None})

    @property
    def base(self) -> str:
        """``pass``, or ``max`` where nothing says which rewards count as solved."""
        return "pass" if "pass" in self.families else "max"

    def points(self, family: str) -> dict[int, Interval]:
        """k → the metric of a family."""
        return {k: self.intervals[f"{family}@{k}"] for k in self.ks if f"{family}@{k}" in self.intervals}

    def is_share(self, family: str) -> bool:
        """Whether a family of metrics is a share of problems, which is written in percent."""
        return family in share_families(self.intervals)


def measure(
    name: str, pool: Pool, ks: Sequence[int] | None = None, scale: metrics.RewardScale | None = None
) -> EvaluatedPool:
    """Evaluate a pool; budgets are powers of two by default.

    Args:
        name: what the page calls it.
        pool: any.
        ks: budgets.
        scale: of all pools of the page; None: of this one alone.

    Raises:
        BontuneError: a k beyond the samples, or what cannot be evaluated (such as answers that cannot be compared).
    """
    num_samples = len(pool.columns["reward"][0])
    budgets = metrics.default_ks(num_samples) if ks is None else sorted(set(ks))
    if max(budgets) > num_samples:
        raise BontuneError(f"k = {max(budgets)} is more than the {num_samples} samples per problem of {name}.")
    try:
        evaluation = evaluate_pool(
            pool.problem_ids,
            pool.columns["reward"],
            budgets,
            scores_PM=pool.scores(),
            answers_PM=pool.answers(),
            is_full=True,
            scale=metrics.reward_scale([pool.columns["reward"]]) if scale is None else scale,
        )
    except ValueError as error:
        raise BontuneError(f"{name} cannot be evaluated: {error}") from None
    return EvaluatedPool(name=name, pool=pool, evaluation=evaluation, intervals=evaluation.intervals())


def number_grid(measured: EvaluatedPool) -> Grid:
    """k down, metrics across."""
    families = [*measured.families, *(f for f in ("all", "gap", "drop") if measured.points(f))]
    points = {family: measured.points(family) for family in families}
    rows = [
        Line(name=str(k), cells=[_cell(measured, f, points[f][k].value, _span(points[f][k])) for f in families])
        for k in measured.ks
    ]
    rest = [f"{m} {i.value:.2f} [{i.low:.2f}–{i.high:.2f}]" for m, i in measured.intervals.items() if "@" not in m]
    caption = f"{measured.name}: with 95 % intervals." if measured.name else "With 95 % intervals."
    if rest:
        caption += f" Over all samples of a problem: {', '.join(rest)}."
    columns = ["k", *(f"{family}@k, {unit_of(measured.is_share(family))}" for family in families)]
    return Grid(caption=caption, columns=columns, rows=rows)


def _cell(measured: EvaluatedPool, family: str, value: float, span: tuple[float, float]) -> Cell:
    return (fraction_cell if measured.is_share(family) else number_cell)(value, span)


def level_rows(measured: EvaluatedPool) -> list[Row]:
    """The metrics of selection by the task's level; empty without levels."""
    known = measured.pool.levels()
    distinct = {level for level in known if level is not None}
    if len(distinct) < 2:
        return []
    first, last = measured.ks[0], measured.ks[-1]
    chosen = [f"{measured.base}@{first}", *(f"{family}@{last}" for family in measured.families if last > first)]
    rows = []
    for level in sorted(distinct, key=lambda level: (isinstance(level, str), level)):
        members = np.array([value == level for value in known])
        for metric in chosen:
            interval = metrics.bootstrap_interval(measured.evaluation.values[metric][members])
            rows.append(
                {
                    "pool": measured.name,
                    "level": level,
                    "problems": int(members.sum()),
                    "metric": metric,
                    "value": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return rows


def level_grid(measured: EvaluatedPool) -> Grid | None:
    """The same as a table; None without levels."""
    lines: dict[Any, list[Cell]] = {}
    columns: dict[str, None] = {}
    for row in level_rows(measured):
        family = split_metric(row["metric"])[0]
        columns[f"{row['metric']}, {unit_of(measured.is_share(family))}"] = None
        cells = lines.setdefault(row["level"], [Cell(text=str(row["problems"]))])
        cells.append(_cell(measured, family, row["value"], (row["low"], row["high"])))
    if not lines:
        return None
    caption = f"{measured.name}: by the task's level of difficulty, with 95 % intervals."
    rows = [Line(name=str(level), cells=cells) for level, cells in lines.items()]
    return Grid(caption=caption, columns=["Level", "Problems", *columns], rows=rows)


def families_of(measured: Sequence[EvaluatedPool]) -> list[str]:
    """Families that say something of one pool at least: beside a verifier that errs, an oracle's best@k does."""
    return [family for family in FAMILIES if any(family in one.families for one in measured)]


def main_family(measured: Sequence[EvaluatedPool]) -> str:
    """What pools are compared in first: best@k if all have a verifier and one of them errs, else pass@k or max@k."""
    has_best = "best" in families_of(measured) and all(one.points("best") for one in measured)
    return "best" if has_best else measured[0].base


def are_of_same_problems(pools: Sequence[EvaluatedPool]) -> bool:
    """Whether paired differences exist."""
    return all(set(other.evaluation.problem_ids) == set(pools[0].evaluation.problem_ids) for other in pools[1:])


def differences(pools: Sequence[EvaluatedPool]) -> list[Difference]:
    """Each pool against the first, paired by problem, in every metric of selection that both have."""
    metrics = [f"{family}@{k}" for family in families_of(pools) for k in pools[0].points(family)]
    return compare.differences({pool.name: pool.evaluation for pool in pools}, metrics)


def shown_differences(found: Sequence[Difference]) -> list[Difference]:
    """Choose the differences that are worth a row: at the budgets of tables, and at the largest."""
    largest = max((split_metric(d.metric)[1] or 0 for d in found), default=0)
    return [d for d in found if split_metric(d.metric)[1] in {*TABLE_KS, largest}]


def curve_rows(pools: Sequence[EvaluatedPool]) -> list[Row]:
    """List every metric of every pool as rows of a CSV file."""
    rows = []
    for measured in pools:
        for metric, interval in measured.intervals.items():
            family, k = split_metric(metric)
            rows.append(
                {
                    "pool": measured.name,
                    "metric": family,
                    "k": k,
                    "value": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return rows


def difference_rows(found: Sequence[Difference]) -> list[Row]:
    """List differences as rows of a CSV file."""
    return [
        {
            "pool": entry.a,
            "minus": entry.b,
            "metric": entry.metric,
            "diff": entry.value,
            "low": math.nan if entry.low is None else entry.low,
            "high": math.nan if entry.high is None else entry.high,
        }
        for entry in found
    ]


def problem_rows(pools: Sequence[EvaluatedPool]) -> Iterator[Row]:
    """A row for each problem of each pool, for CSV: every metric, empty where a pool does not have it."""
    names = list(dict.fromkeys(metric for measured in pools for metric in measured.evaluation.values))
    for measured in pools:
        levels = measured.pool.levels()
        values = measured.evaluation.values
        for place, problem in enumerate(measured.evaluation.problem_ids):
            yield {
                "pool": measured.name,
                "problem_id": problem,
                "level": levels[place],
                "samples": measured.num_samples,
                **{name: float(values[name][place]) if name in values else math.nan for name in names},
            }


def _span(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high
