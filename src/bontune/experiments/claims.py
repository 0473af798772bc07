"""The claims of a suite: what the paper says, what was measured, whether it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bontune.experiments.results import OWN, Results
from bontune.experiments.suite import Claim
from bontune.metrics import Interval
from bontune.objectives.inputs import FloatArray
from bontune.pools.over_runs import mean_over_runs
from bontune.report.numbers import split_metric

NUM_RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A claim with its numbers: points, or a ratio for ``generations``."""

    claim: Claim
    """The claim, as the suite states it."""
    own: Interval | None
    """Each arm at its own best temperature, or both at T = 1 where the claim says so; None: not measured yet."""
    at_1: Interval | None
    """The difference or ratio at T = 1."""
    num_seeds: tuple[int, int]
    """Number of training runs of either side."""
    temperatures: tuple[float | None, float | None]
    """Each side's own best temperature."""

    @property
    def holds(self) -> bool | None:
        """Whether the interval, each arm at its own best T, lies on the claimed side; None: not known.

        That is so where it is not measured yet, or too few problems tell. Of a difference: above minus the margin
        (below it for ``sign`` −1). Of ``generations``: below 1.
        """
        if self.own is None or math.isnan(self.own.low):
            return None
        if self.claim.kind == "generations":
            return self.own.high < 1.0
        if self.claim.sign > 0:
            return self.own.low > -self.claim.margin
        return self.own.high < self.claim.margin

    @property
    def state(self) -> str:
        """Whether the claim holds, in words."""
        if self.holds is None:
            return "not measured yet" if self.own is None else "cannot be told"
        return "holds" if self.holds else "does not hold"

    @property
    def reaches_goal(self) -> bool | None:
        """Whether the measured value is at least the goal (at most, where less is claimed); None: no goal or number."""
        if self.own is None or self.claim.goal is None:
            return None
        is_less = self.claim.kind == "generations" or self.claim.sign < 0
        return self.own.value <= self.claim.goal if is_less else self.own.value >= self.claim.goal

    def row(self) -> dict[str, Any]:
        """The claim and its numbers as a row of ``claims.json``."""
        claim = self.claim
        return {
            "id": claim.id,
            "claim": claim.claim,
            "paper": claim.paper,
            **_numbers(self.own),
            "holds": self.holds,
            "unit": "ratio" if claim.kind == "generations" else "points",
            "metric": claim.metric,
            "paper_on": claim.paper_on,
            "goal": claim.goal,
            "reaches_goal": self.reaches_goal,
            "at_temperature_1": _numbers(self.at_1),
            "seeds": list(self.num_seeds),
            "own_temperatures": list(self.temperatures),
        }


def judge(results: Results) -> list[Judged]:
    """All claims of the suite, in order."""
    return [_judge(results, claim) for claim in results.suite.claims]


def _judge(results: Results, claim: Claim) -> Judged:
    a = next(iter(claim.ladder)) if claim.kind == "generations" else claim.a
    measure = {"difference": _difference, "every_k": _smallest_gain, "generations": _generations}[claim.kind]
    where = 1.0 if claim.at_one_temperature else OWN
    sides = (a, claim.metric), (a, claim.against) if claim.against else (claim.b, claim.metric)
    levels = [results.level(arm, metric, "test", where) for arm, metric in sides]
    seeds = [0 if level is None else level.num_seeds for level in levels]
    temperatures = [None if level is None else level.temperature for level in levels]
    found = [measure(results, claim, temperature) for temperature in (where, 1.0)]
    own, at_1 = (interval and results.told(interval) for interval in found)
    return Judged(
        claim=claim, own=own, at_1=at_1, num_seeds=(seeds[0], seeds[1]), temperatures=(temperatures[0], temperatures[1])
    )


def _difference(results: Results, claim: Claim, temperature: float | str) -> Interval | None:
    if claim.against:
        of_runs = [results.values(claim.a, metric, "test", temperature) for metric in (claim.metric, claim.against)]
        found = None if of_runs[0] is None or of_runs[1] is None else mean_over_runs(of_runs[0] - of_runs[1])
    else:
        found = results.difference(claim.a, claim.b, claim.metric, "test", temperature)
    return found and Interval(value=100 * found.value, low=100 * found.low, high=100 * found.high)


def _smallest_gain(results: Results, claim: Claim, temperature: float | str) -> Interval | None:
    """The smallest difference over all k, resampling problems and runs; which k it is may change between resamples."""
    family, most = split_metric(claim.metric)
    metrics = [f"{family}@{k}" for k in results.suite.measuring.ks if k <= (most or 0)]
    pairs = [tuple(results.values(arm, m, "test", temperature) for arm in (claim.a, claim.b)) for m in metrics]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(known) < len(metrics):
        return None
    rng = np.random.default_rng(0)
    num_problems, num_runs = known[0][0].shape[1], [len(values) for values in known[0]]
    resampled = []
    for _ in range(NUM_RESAMPLES):
        problems = rng.integers(num_problems, size=num_problems)
        runs = [rng.integers(num, size=num) for num in num_runs]  # the same for every k: it is one model
        drawn = [[values[rows][:, problems].mean() for values, rows in zip(pair, runs, strict=True)] for pair in known]
        resampled.append(100 * min(a - b for a, b in drawn))
    low, high = np.quantile(resampled, [0.025, 0.975])
    value = 100 * min(float(a.mean() - b.mean()) for a, b in known)
    return Interval(value=value, low=float(low), high=float(high))


def _generations(results: Results, claim: Claim, temperature: float | str) -> Interval | None:
    """The share of generations at which the ladder reaches the rival's end, resampling problems and runs."""
    rungs = {arm: results.values(arm, claim.metric, "test", temperature) for arm in claim.ladder}
    rival = results.values(claim.b, claim.metric, "test", temperature)
    base = results.values("base", claim.metric, "test", temperature)
    if rival is None or base is None or any(values is None for values in rungs.values()):
        return None
    ladder = [(share, values) for share, values in zip(claim.ladder.values(), rungs.values(), strict=True)]
    rng = np.random.default_rng(0)
    reached = [(share, float(v.mean())) for share, v in ladder if v is not None]
    value = _crossing(reached, float(base.mean()), float(rival.mean()))
    resampled = []
    for _ in range(NUM_RESAMPLES):
        problems: Any = rng.integers(base.shape[1], size=base.shape[1])
        means = [(share, _resampled(v, problems, rng)) for share, v in ladder if v is not None]
        resampled.append(_crossing(means, _resampled(base, problems, rng), _resampled(rival, problems, rng)))
    low, high = np.quantile(resampled, [0.025, 0.975], method="nearest")
    return Interval(value=value, low=float(low), high=float(high))


def _resampled(values_SP: FloatArray, problems: Any, rng: np.random.Generator) -> float:
    runs = rng.integers(len(values_SP), size=len(values_SP))
    return float(values_SP[runs][:, problems].mean())


def _crossing(ladder: list[tuple[float, float]], start: float, target: float) -> float:
    """The share of generations at which a rising line through the rungs, from the base model on, reaches the target.

    Linear between rungs. Infinite if no rung reaches it, and if the base model is there already: the rival has gained
    nothing then, and to get there sooner says nothing.

    >>> _crossing([(0.25, 0.70), (1.0, 0.76)], 0.66, 0.68)
    0.125
    >>> _crossing([(0.25, 0.70), (1.0, 0.76)], 0.66, 0.80)
    inf
    """
    if start >= target:
        return math.inf
    share, reached = 0.0, start
    for next_share, next_reached in ladder:
        if next_reached >= target:
            return round(share + (next_share - share) * (target - reached) / (next_reached - reached), 10)
        share, reached = next_share, next_reached
    return math.inf


def _numbers(interval: Interval | None) -> dict[str, float | None]:
    """Round to three decimals; None for what is not measured or infinite, which JSON cannot say."""
    named = (
        {"measured": None, "low": None, "high": None}
        if interval is None
        else {"measured": interval.value, "low": interval.low, "high": interval.high}
    )
    return {name: None if x is None or not math.isfinite(x) else round(x, 3) for name, x in named.items()}
