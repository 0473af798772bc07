"""Every metric of a pool for every k, per problem and with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import bestofn.metrics as metrics
from bestofn.metrics import Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Metrics of one pool."""

    problem_ids: list[str]
    """P problems, in order."""
    values: dict[str, np.ndarray]
    """Metric → (P,) its value for each problem."""

    def intervals(self) -> dict[str, Interval]:
        """Mean over problems with its 95 % bootstrap interval."""
        return {name: metrics.bootstrap_interval(values) for name, values in self.values.items()}

    def means(self) -> dict[str, float]:
        """Mean over problems."""
        return {name: float(np.mean(values)) for name, values in self.values.items()}

    def difference(self, other: Evaluation, name: str) -> Interval:
        """mean(self − other), paired by problem; both must hold the same problems.

        Raises:
            ValueError: they do not.
        """
        if set(self.problem_ids) != set(other.problem_ids):
            raise ValueError("The two evaluations are of different problems; a paired difference needs the same ones.")
        place = {problem: i for i, problem in enumerate(other.problem_ids)}
        theirs = other.values[name][[place[problem] for problem in self.problem_ids]]
        return metrics.paired_difference(self.values[name], theirs)


def evaluate_pool(
    problem_ids: Sequence[str],
    rewards_PM: Sequence[Sequence[float]],
    ks: Sequence[int],
    *,
    scores_PM: Sequence[Sequence[float]] | None = None,
    answers_PM: Sequence[Sequence[Any]] | None = None,
    vote: bool = False,
) -> Evaluation:
    """Compute pass@k (max@k for graded rewards), best@k under the scores, votes and diversity.

    Args:
        problem_ids: P ids.
        rewards_PM: P × M.
        ks: budgets, each ≤ M.
        scores_PM: the verifier's; best@k and the gap to the oracle are left out without them.
        answers_PM: answers in normal form; diversity and votes are left out without them.
        vote: compute majority@k too (the slowest of the metrics).

    Raises:
        ValueError: a k above M.
    """
    rewards = np.asarray(rewards_PM, dtype=np.float64)
    is_binary = bool(np.isin(rewards, (0.0, 1.0)).all())
    name, metric = ("pass", metrics.pass_at_k) if is_binary else ("max", metrics.max_at_k)
    values: dict[str, np.ndarray] = {f"{name}@{k}": metric(rewards, k) for k in ks}
    if scores_PM is not None:
        scores = np.asarray(scores_PM, dtype=np.float64)
        values |= {f"best@{k}": metrics.best_of_k(rewards, scores, k) for k in ks}
    if answers_PM is not None:
        if vote:
            values |= {f"majority@{k}": metrics.majority_at_k(answers_PM, rewards, k) for k in ks}
        values["distinct"] = np.asarray(metrics.distinct_answers(answers_PM), dtype=np.float64)
        values["entropy"] = np.asarray(metrics.answer_entropy(answers_PM), dtype=np.float64)
    return Evaluation(problem_ids=list(problem_ids), values=values)


def as_points(interval: Interval) -> str:
    """A share as percent with its interval: ``61.6 [58.1–65.0]``."""
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}–{100 * interval.high:.1f}]"


def as_json(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Intervals as plain data."""
    return {name: {"value": i.value, "low": i.low, "high": i.high} for name, i in intervals.items()}
