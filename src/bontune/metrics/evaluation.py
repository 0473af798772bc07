"""Every metric of a pool for every k, per problem and with intervals."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

import bontune.metrics as metrics
from bontune.metrics import Interval, RewardScale, reward_scale

V = TypeVar("V")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The metrics of one pool."""

    problem_ids: list[str]
    """P problems, in order."""
    values: dict[str, np.ndarray]
    """Metric → (P,) its value for each problem; NaN where it is undefined (``auc`` of a problem with one class)."""
    why_no_chance: str = ""
    """Why there is no chance level, as the end of a sentence; empty if there is one, or if none was asked for."""

    def intervals(self) -> dict[str, Interval]:
        """Return the mean over the problems that have a value, with its 95 % bootstrap interval."""
        defined = [values[~np.isnan(values)] for values in self.values.values()]
        return dict(zip(self.values, metrics.bootstrap_intervals(defined), strict=True))

    def means(self) -> dict[str, float]:
        """Return the mean over the problems that have a value."""
        return {name: float(np.nanmean(values)) for name, values in self.values.items()}

    def difference(self, other: Evaluation, name: str) -> Interval:
        """Return mean(self − other), paired by problem, over the problems that have a value in both.

        Raises:
            ValueError: the evaluations are of different problems, or no problem has a value in both.
        """
        return metrics.paired_difference(*self.paired(other, name))

    def paired(self, other: Evaluation, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of both in the same order, for the problems that have a value in both.

        Raises:
            ValueError: the evaluations are of different problems.
        """
        if set(self.problem_ids) != set(other.problem_ids):
            raise ValueError("The two evaluations are of different problems; a paired difference needs the same ones.")
        place = {problem: i for i, problem in enumerate(other.problem_ids)}
        theirs = other.values[name][[place[problem] for problem in self.problem_ids]]
        has_both = ~np.isnan(self.values[name]) & ~np.isnan(theirs)
        return self.values[name][has_both], theirs[has_both]


def evaluate_pool(
    problem_ids: Sequence[str],
    rewards_PM: Sequence[Sequence[float | None]],
    ks: Sequence[int],
    *,
    scores_PM: Sequence[Sequence[float]] | None = None,
    answers_PM: Sequence[Sequence[Any]] | None = None,
    is_full: bool = False,
    scale: RewardScale | None = None,
) -> Evaluation:
    """Compute pass@k, max@k of graded rewards, best@k under the scores, the verifier's losses, votes and diversity.

    A verifier gets ``best@k``; ``gap@k``, pass@k (max@k) minus best@k; ``drop@k``, how far best@k is below its peak
    (see :func:`bontune.metrics.drop_at_k`); ``weighted@k``, the vote in which each sample weighs :func:`vote_weights`;
    and ``auc`` within prompts. Where the scores equal the rewards, only best@k is computed.

    Args:
        problem_ids: P ids.
        rewards_PM: P × M, None or NaN for an ungraded sample; M may differ from problem to problem, because
            every metric belongs to one problem.
        ks: budgets, each ≤ the smallest M.
        scores_PM: the verifier's scores.
        answers_PM: answers in normal form; None: diversity and votes are not computed.
        is_full: whether to compute all@k, majority@k and weighted@k as well; votes are the slowest metrics.
        scale: scale of the rewards of all pools that are compared; None: derived from these rewards, and only rewards
            of 0 and 1 have pass@k.

    Raises:
        ValueError: a k above M.
    """
    if scale is None:
        scale = reward_scale([rewards_PM])
        scale = scale if scale.is_binary else dataclasses.replace(scale, solved_at=None)
    if len({len(row) for row in rewards_PM}) > 1:
        return _of_unequal(problem_ids, rewards_PM, ks, scores_PM, answers_PM, is_full=is_full, scale=scale)
    rewards = np.asarray(scale.filled(rewards_PM), dtype=np.float64)
    solved = None if scale.solved_at is None else scale.solved(rewards)
    values: dict[str, np.ndarray] = {}
    if solved is not None:
        values |= {f"pass@{k}": metrics.pass_at_k(solved, k) for k in ks}
    if not scale.is_binary:
        values |= {f"max@{k}": metrics.max_at_k(rewards, k) for k in ks}
    if is_full and solved is not None:
        values |= {f"all@{k}": metrics.pass_hat_k(solved, k) for k in ks}
    if scores_PM is not None:
        scores = np.asarray(scores_PM, dtype=np.float64)
        values |= {f"best@{k}": metrics.best_of_k(rewards, scores, k) for k in ks}
        if not np.array_equal(np.where(np.isneginf(scores), rewards, scores), rewards):
            values |= _of_verifier(rewards, solved, scores, ks)
            if is_full and answers_PM is not None:
                weights = vote_weights(scores)
                values |= {f"weighted@{k}": metrics.majority_at_k(answers_PM, rewards, k, weights) for k in ks}
    if answers_PM is not None:
        if is_full:
            values |= {f"majority@{k}": metrics.majority_at_k(answers_PM, rewards, k) for k in ks}
        values["distinct"] = np.asarray(metrics.distinct_answers(answers_PM), dtype=np.float64)
        values["entropy"] = np.asarray(metrics.answer_entropy(answers_PM), dtype=np.float64)
    return Evaluation(problem_ids=list(problem_ids), values=values)


def _of_unequal(
    problem_ids: Sequence[str],
    rewards_PM: Sequence[Sequence[float | None]],
    ks: Sequence[int],
    scores_PM: Sequence[Sequence[float]] | None,
    answers_PM: Sequence[Sequence[Any]] | None,
    *,
    is_full: bool,
    scale: RewardScale,
) -> Evaluation:
    """Compute the metrics of problems with different numbers of samples, in groups of equal size, without drop@k."""
    places: dict[int, list[int]] = {}
    for p, row in enumerate(rewards_PM):
        places.setdefault(len(row), []).append(p)
    values: dict[str, np.ndarray] = {}
    for group in places.values():
        part = evaluate_pool(
            [problem_ids[p] for p in group],
            [rewards_PM[p] for p in group],
            ks,
            scores_PM=None if scores_PM is None else [scores_PM[p] for p in group],
            answers_PM=None if answers_PM is None else [answers_PM[p] for p in group],
            is_full=is_full,
            scale=scale,
        )
        for name, values_G in part.values.items():
            if not name.startswith("drop@"):  # its peak is chosen over all problems
                values.setdefault(name, np.full(len(problem_ids), np.nan))[group] = values_G
    # A group whose scores happen to equal its rewards has no gap@k: it is 0 there.
    for name, values_P in values.items():
        if name.startswith("gap@"):
            values_P[np.isnan(values_P)] = 0.0
    return Evaluation(problem_ids=list(problem_ids), values=values)


def _of_verifier(
    rewards: np.ndarray, solved: np.ndarray | None, scores: np.ndarray, ks: Sequence[int]
) -> dict[str, np.ndarray]:
    """Compute the metrics of a verifier that is not the oracle."""
    values = {f"gap@{k}": metrics.oracle_gap(rewards, scores, k) for k in ks}
    values |= {f"drop@{k}": metrics.drop_at_k(rewards, scores, k) for k in ks}
    if solved is not None:
        auc = metrics.within_prompt_auc(solved, scores)
        if not np.isnan(auc).all():
            values["auc"] = auc
    return values


MEANINGS = {
    "pass": "share of problems that at least one of k samples solves",
    "chance": "pass@k of the same samples by the references of other problems: what guessing solves",
    "above": "pass@k − chance@k, in points",
    "max": "highest reward among k samples",
    "all": "share of problems that each of k samples solves (pass^k)",
    "best": "reward of the sample that the verifier picks among k",
    "gap": "pass@k (max@k of graded rewards) − best@k: what a verifier that is never wrong would add",
    "drop": "highest best@j up to k, minus best@k: what more samples cost, because the verifier is fooled",
    "majority": "reward of the answer that most of k samples give",
    "weighted": "reward of the answer with most votes, each of k samples weighed by the verifier's probability",
    "auc": "how often the verifier ranks a right sample above a wrong one of the same problem",
    "distinct": "different answers of a problem",
    "entropy": "spread of a problem's answers, in nats",
}
"""Meaning of each family of metrics, for all commands and pages."""


def vote_weights(scores_PM: np.ndarray) -> np.ndarray:
    """Return the weight of each sample in a weighted vote, a probability.

    Scores that all lie in [0, 1] are probabilities; any others are log-odds, as a trained verifier's are. A
    sample without a score (−∞) has weight 0.

    >>> vote_weights(np.array([0.25, 1.0])).tolist(), vote_weights(np.array([-np.inf, 0.0, -800.0])).tolist()
    ([0.25, 1.0], [0.0, 0.5, 0.0])
    """
    finite = scores_PM[np.isfinite(scores_PM)]
    if bool(((finite >= 0) & (finite <= 1)).all()):
        return np.asarray(np.clip(scores_PM, 0.0, 1.0))
    return np.asarray(metrics.sigmoid(scores_PM))


def under_shared_names(rows: Sequence[Mapping[str, V]]) -> list[dict[str, V]]:
    """Return metrics by name, with one name for the same metric in every row.

    Graded rewards that happen to be only 0 and 1 have pass@k where the other rows have max@k, which it equals.

    >>> under_shared_names([{"pass@1": 0.0, "best@1": 0.0}, {"max@1": 0.5}])
    [{'max@1': 0.0, 'best@1': 0.0}, {'max@1': 0.5}]
    """
    has_max = [any(name.startswith("max@") for name in row) for row in rows]
    if not any(has_max):
        return [dict(row) for row in rows]
    return [
        dict(row) if has else {re.sub("^pass@", "max@", name): value for name, value in row.items()}
        for row, has in zip(rows, has_max, strict=True)
    ]


def share_families(names: Iterable[str]) -> set[str]:
    """Return the families of metrics that are shares of problems; with graded rewards, only pass, all and chance.

    >>> sorted(share_families(["pass@1", "max@1", "best@1"])), sorted(share_families(["pass@1", "best@1"]))
    (['pass'], ['best', 'pass'])
    """
    families = {name.partition("@")[0] for name in names if "@" in name}
    return families & {"pass", "all", "chance", "above"} if "max" in families else families


def as_json(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Return intervals as plain data."""
    return {name: {"value": i.value, "low": i.low, "high": i.high} for name, i in intervals.items()}
