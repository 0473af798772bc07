"""What an adaptive N saves: drawing ends when the verifier is content, and N is only the most that is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bontune.metrics import Interval, adaptive_best_of_n, best_of_k, bootstrap_interval, paired_difference
from bontune.objectives.inputs import FloatArray

MARGIN = 0.01
"""Reward by which stopping early may be worse than always drawing N where it is said to do as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolArrays:
    """Rewards and scores of a pool."""

    rewards_PM: FloatArray
    """What each sample is worth."""
    scores_PM: FloatArray
    """The verifier's scores; −∞ where it had none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoppingPoint:
    """One score to stop at, measured."""

    budget: int
    """k: the draws per problem, on average, that the score was chosen for."""
    stop_at: float
    """The score that ends the drawing; ∞: none does."""
    draws: Interval
    """Draws per problem."""
    reward: Interval
    """Reward of the answer that is picked."""
    fixed: Interval
    """The reward where every problem gets that many draws: best@k, between the two whole numbers next to the draws."""
    gain: Interval
    """``reward`` − ``fixed``, paired by problem."""
    loss: Interval
    """``reward`` − best@N, paired by problem."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoppingStudy:
    """Stopping early against a fixed number of draws."""

    n: int
    """N, the most that is drawn."""
    round_size: int
    """Completions that are drawn for a problem before the verifier looks at their scores."""
    num_problems: int
    """Problems that were measured."""
    full: Interval
    """Reward of the answer that is picked where all N are always drawn: best@N."""
    points: list[StoppingPoint]
    """The scores to stop at that were measured, one for each budget, by rising budget."""
    cheapest: StoppingPoint | None
    """The fewest draws that are not worse than N draws by more than :data:`MARGIN`, on the problems that the scores
    were chosen on; None where only N draws are."""


def study_stopping(
    chosen_on: PoolArrays, measured_on: PoolArrays, *, n: int, round_size: int = 1, ks: Sequence[int] | None = None
) -> StoppingStudy:
    """For every budget k, the score to stop at that draws k samples on average, and what that is worth.

    Args:
        chosen_on: the pool in which the scores to stop at are looked for. A score depends on rewards in
            :attr:`StoppingStudy.cheapest` alone.
        measured_on: the pool that is reported; it may be the same.
        n: N, at most the samples of a problem in either pool.
        round_size: draws per round.
        ks: budgets; None: 1, 2, 4, … between the size of a round and N.

    Raises:
        ValueError: as :func:`bontune.metrics.adaptive_best_of_n`.
    """
    thresholds = _thresholds(chosen_on, n, round_size)
    shown = [2**i for i in range(n.bit_length())] if ks is None else list(ks)
    cheapest = next(
        (k for k, stop_at in thresholds.items() if _measured(chosen_on, k, stop_at, n, round_size).loss.low >= -MARGIN),
        None,
    )
    measured = {
        k: _measured(measured_on, k, stop_at, n, round_size)
        for k, stop_at in thresholds.items()
        if k in shown or k == cheapest
    }
    return StoppingStudy(
        n=n,
        round_size=round_size,
        num_problems=len(measured_on.rewards_PM),
        full=bootstrap_interval(best_of_k(measured_on.rewards_PM, measured_on.scores_PM, n)),
        points=[point for k, point in measured.items() if k in shown],
        cheapest=None if cheapest is None else measured[cheapest],
    )


def _thresholds(pool: PoolArrays, n: int, round_size: int) -> dict[int, float]:
    """For each budget k above a round and below N, the highest score of the pool that k draws do with, on average.

    The number of draws rises with the score to stop at, so that bisection finds it; budgets of which none is cheap
    enough are left out.
    """
    scores_PM = pool.scores_PM
    candidates = np.unique(scores_PM[np.isfinite(scores_PM)])
    worthless_PM = np.zeros_like(scores_PM)
    found = {}
    for k in range(round_size + 1, n):
        low, high = -1, len(candidates) - 1  # candidates[low] is cheap enough, those above high are not
        while low < high:
            middle = (low + high + 1) // 2
            _, draws_P = adaptive_best_of_n(
                worthless_PM, scores_PM, n, float(candidates[middle]), round_size=round_size
            )
            low, high = (middle, high) if draws_P.mean() <= k else (low, middle - 1)
        if low >= 0:
            found[k] = float(candidates[low])
    return found


def _measured(pool: PoolArrays, k: int, stop_at: float, n: int, round_size: int) -> StoppingPoint:
    rewards_P, draws_P = adaptive_best_of_n(pool.rewards_PM, pool.scores_PM, n, stop_at, round_size=round_size)
    fixed_P = _best_of_mean(pool, float(draws_P.mean()), n)
    return StoppingPoint(
        budget=k,
        stop_at=stop_at,
        draws=bootstrap_interval(draws_P),
        reward=bootstrap_interval(rewards_P),
        fixed=bootstrap_interval(fixed_P),
        gain=paired_difference(rewards_P, fixed_P),
        loss=paired_difference(rewards_P, best_of_k(pool.rewards_PM, pool.scores_PM, n)),
    )


def _best_of_mean(pool: PoolArrays, draws: float, n: int) -> FloatArray:
    """(P,) best@k of a mean number of draws: some problems get one draw more than others, by lot."""
    fewer = min(int(draws), n)
    more = min(fewer + 1, n)
    fewer_P, more_P = (best_of_k(pool.rewards_PM, pool.scores_PM, k) for k in (fewer, more))
    return np.asarray(fewer_P + (draws - fewer) * (more_P - fewer_P))
