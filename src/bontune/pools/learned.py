"""What a model learned: how its answers to a problem spread, before and after, on easy and on hard problems.

A model that is used by best-of-N need not put its right answer first; it should have one among N different answers.
Whether training did that shows in the mass by rank (:func:`bontune.metrics.answer_distribution`), not in pass@1.

Groups go by the first model's pass rate on each problem, from its samples 0, 2, 4, …; measured, for every model, are
samples 1, 3, 5, … only. Grouped and measured by the same samples, the first model would seem better on the easy and
worse on the hard problems than it is, and every other model would seem to have changed the other way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bontune.base.errors import BontuneError
from bontune.metrics import AnswerDistribution, answer_distribution, bootstrap_interval, paired_difference
from bontune.objectives.inputs import FloatArray
from bontune.pools.pool import Pool

NUM_RESAMPLES = 2000
"""Resamples of problems for each interval: 3 models, 4 groups and 23 metrics take some seconds."""
NUM_RANKS = 6
"""Ranks kept apart; all further answers are one group more."""
METRICS = ("correct", "best", "top", "entropy", "distinct", "distinct_correct", "coverage", "answered", "chosen")
"""Beside the mass by rank; ``chosen`` where every pool has scores other than its rewards. What they are:
:class:`bontune.metrics.AnswerDistribution`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerMetrics:
    """One model's answers to the problems, in the order of the first model's."""

    columns: dict[str, FloatArray]
    """Metric → (P,) values."""
    num_drawn: int
    """Samples that the numbers of different answers are for."""
    num_samples: int
    """Samples measured, per problem."""


def learned_rows(pools: Mapping[str, Pool], *, easy_from: float = 0.25, num_drawn: int = 16) -> list[dict[str, Any]]:
    """Each metric of each model in each group of problems, with 95 % intervals, and paired differences to the first.

    Groups: ``easy`` problems, of which the first model solves at least ``easy_from`` of its samples 0, 2, 4, …;
    ``hard``, fewer but not none; ``unsolved``, none; ``all``. A group without problems has no rows. Pools with more
    samples than the smallest are cut to as many, as most of the metrics depend on how many there are.

    Args:
        pools: model → its pool, two samples or more; the first is what the others are compared with. The same
            problems in each, in any order, with answers in the column ``answer``.
        easy_from: pass rate of an easy problem, above 0 and at most 1.
        num_drawn: samples to count different answers in; all that are measured, if they are fewer.

    Returns:
        Rows of ``model``, ``group``, ``easy_from``, ``metric``, ``num_problems``, ``num_samples`` (measured per
        problem), ``num_drawn``, ``value``, ``low``, ``high``, and ``difference``, ``difference_low``,
        ``difference_high`` to the first model (None for itself). Metrics: :data:`METRICS`; ``rank_1`` … ``rank_6`` and
        ``rank_rest``, the mass at each rank by frequency and on all further answers; ``rank_1_correct`` …, the part of
        it that is rewarded.

    Raises:
        BontuneError: no pool, one without answers or of one sample, other problems in one than in another, or
            ``easy_from`` or ``num_drawn`` out of range.
    """
    if not pools:
        raise BontuneError("there is nothing to compare: give at least one pool.")
    if not 0 < easy_from <= 1:
        raise BontuneError(f"easy_from must be above 0 and at most 1, not {easy_from:g}.")
    if num_drawn < 1:
        raise BontuneError(f"num_drawn must be at least 1, not {num_drawn}.")
    first = next(iter(pools))
    places = {name: _places(name, pool, first, pools[first]) for name, pool in pools.items()}
    num_samples = min(len(row) for pool in pools.values() for row in pool.columns["reward"])
    if num_samples < 2:
        raise BontuneError("every pool needs two samples per problem: half of them tell easy problems from hard ones.")
    has_scores = all(pool.scores() not in (None, pool.rewards()) for pool in pools.values())
    measured = {name: _measure(pool, places[name], num_samples, num_drawn, has_scores) for name, pool in pools.items()}
    rate_P = np.array(pools[first].rewards())[:, :num_samples:2].mean(-1)
    return [
        {"model": name, "group": group, "easy_from": easy_from, **row}
        for name in pools
        for group, members in _groups(rate_P, easy_from).items()
        for row in _rows(measured[name], members, measured[first] if name != first else None)
    ]


def _groups(rate_P: FloatArray, easy_from: float) -> dict[str, np.ndarray]:
    """Places of the problems of each group that has some."""
    is_easy, is_unsolved = rate_P >= easy_from - 1e-9, rate_P <= 0
    members = {
        "easy": np.flatnonzero(is_easy),
        "hard": np.flatnonzero(~is_easy & ~is_unsolved),
        "unsolved": np.flatnonzero(is_unsolved),
        "all": np.arange(len(rate_P)),
    }
    return {group: places for group, places in members.items() if len(places)}


def _places(name: str, pool: Pool, first: str, first_pool: Pool) -> list[int]:
    """Find the first pool's problems in this one."""
    if "answer" not in pool.columns or all(answer is None for row in pool.columns["answer"] for answer in row):
        raise BontuneError(
            f"the pool of {name} holds no answers: its task has no normal form of an answer, so different answers "
            "cannot be counted."
        )
    where = {problem_id: place for place, problem_id in enumerate(pool.problem_ids)}
    missing = [problem_id for problem_id in first_pool.problem_ids if problem_id not in where]
    if missing or len(where) != len(first_pool.problem_ids):
        which = f"{missing[0]} is in the first only" if missing else f"{name} has more"
        raise BontuneError(
            f"the pools of {first} and {name} hold different problems ({which}): sample both on the same ones."
        )
    return [where[problem_id] for problem_id in first_pool.problem_ids]


def _measure(pool: Pool, places: Sequence[int], num_samples: int, num_drawn: int, has_scores: bool) -> AnswerMetrics:
    """Samples 1, 3, 5, … of the first ``num_samples``."""
    answers = [pool.columns["answer"][place][1:num_samples:2] for place in places]
    rewards = np.array(pool.rewards())[places, 1:num_samples:2]
    scores = np.array(pool.scores())[places, 1:num_samples:2] if has_scores else None
    num_drawn = min(num_drawn, rewards.shape[-1])
    distribution = answer_distribution(answers, rewards, scores, num_drawn=num_drawn, num_ranks=NUM_RANKS)
    return AnswerMetrics(columns=_columns(distribution), num_drawn=num_drawn, num_samples=distribution.num_samples)


def _columns(distribution: AnswerDistribution) -> dict[str, FloatArray]:
    values = {name: getattr(distribution, f"{name}_P") for name in METRICS}
    columns = {name: value for name, value in values.items() if value is not None}
    for place, rank in enumerate(rank_names()):
        columns[f"rank_{rank}"] = distribution.ranked_PR[:, place]
        columns[f"rank_{rank}_correct"] = distribution.ranked_correct_PR[:, place]
    return columns


def rank_names() -> list[str]:
    """The ranks as the metrics' names write them.

    >>> rank_names()
    ['1', '2', '3', '4', '5', '6', 'rest']
    """
    return [*(str(rank) for rank in range(1, NUM_RANKS + 1)), "rest"]


def _rows(measured: AnswerMetrics, members: np.ndarray, reference: AnswerMetrics | None) -> list[dict[str, Any]]:
    rows = []
    for metric, values_P in measured.columns.items():
        interval = bootstrap_interval(values_P[members], num_resamples=NUM_RESAMPLES)
        row: dict[str, Any] = {
            "metric": metric,
            "num_problems": len(members),
            "num_samples": measured.num_samples,
            "num_drawn": measured.num_drawn,
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "difference": None,
            "difference_low": None,
            "difference_high": None,
        }
        if reference is not None:
            to_first = paired_difference(
                values_P[members], reference.columns[metric][members], num_resamples=NUM_RESAMPLES
            )
            row |= {"difference": to_first.value, "difference_low": to_first.low, "difference_high": to_first.high}
        rows.append(row)
    return rows
