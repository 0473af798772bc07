"""The bootstrap over problems: intervals, and which of several means may be the highest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from bontune.metrics import Interval
from bontune.objectives.inputs import FloatArray

NUM_RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 2**22


def resampled_means(values_PC: Any, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> FloatArray:
    """Means over P problems redrawn with replacement, all columns from the same redrawn problems.

    Equal P, ``num_resamples`` and ``seed`` give the same redrawn problems, so that separate calls stay paired.

    Args:
        values_PC: (P, C) numbers, P ≥ 1.
        num_resamples: R ≥ 1.
        seed: of the redrawing.

    Returns:
        (R, C).

    Raises:
        ValueError: another shape, no problems, or values that are not finite.

    >>> resampled_means([[1.0, 2.0], [1.0, 2.0]], num_resamples=3).tolist()
    [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    """
    values = np.asarray(values_PC, dtype=np.float64)
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(f"values must have shape (problems, columns) with a problem at least, got {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError("values holds NaN or infinite numbers; means need finite ones.")
    rng = np.random.default_rng(seed)
    num_problems = len(values)
    shares = np.full(num_problems, 1 / num_problems)
    chunk = max(1, _CHUNK // num_problems)
    sizes = [min(chunk, num_resamples - start) for start in range(0, num_resamples, chunk)]
    return np.concatenate([rng.multinomial(num_problems, shares, size=size) @ values / num_problems for size in sizes])


def interval_of(value: float, values_R: FloatArray, level: float = LEVEL) -> Interval:
    """The percentile interval of a number from its resamples; NaN resamples are left out.

    >>> interval_of(2.0, np.array([1.0, 2.0, 3.0, np.nan]), level=0.5)
    Interval(value=2.0, low=1.5, high=2.5)
    """
    low, high = bounds(values_R, level)
    return Interval(value=float(value), low=float(low), high=float(high))


def bounds(values_R: FloatArray, level: float = LEVEL) -> FloatArray:
    """Compute both ends of percentile intervals over the first axis: shape (2, …); NaN where nothing is left."""
    kept = values_R[~np.isnan(values_R).reshape(len(values_R), -1).any(-1)]
    if not len(kept):
        return np.full((2, *values_R.shape[1:]), np.nan)
    return cast(FloatArray, np.quantile(kept, [(1 - level) / 2, (1 + level) / 2], axis=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The highest of several means over the same problems."""

    best: int
    """Place of the highest; the first of equals."""
    is_possible_C: tuple[bool, ...]
    """Candidates that may be the highest: the set holds the truly highest with 95 % confidence."""
    shares_C: tuple[float, ...]
    """Share of the resamples in which each candidate is the highest."""
    value: Interval
    """Mean of the highest with its interval; somewhat too high, because it was chosen."""
    reference: int
    """The place of what it is compared with."""
    gain: Interval
    """Mean of the highest minus that of the reference, paired by problem."""

    def possible(self, labels: Sequence[float]) -> list[float]:
        """The labels of those that may be the highest."""
        return [label for label, is_possible in zip(labels, self.is_possible_C, strict=True) if is_possible]

    def label_interval(self, labels: Sequence[float]) -> Interval:
        """The label of the highest with the central 95 % of the resamples' (labels ascend)."""
        reached_C = np.cumsum(self.shares_C)
        ends = [int(np.searchsorted(reached_C, q - 1e-9)) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
        low, high = (float(labels[min(end, len(labels) - 1)]) for end in ends)
        return Interval(value=float(labels[self.best]), low=low, high=high)


def choose(means_C: FloatArray, means_RC: FloatArray, reference: int | None = None) -> Choice:
    """The highest of C means, and those that the data cannot tell from the highest.

    Candidate i stays possible unless some other is higher by more than chance, over all the others at once, allows:

        max_j (m_j − m_i)/s_ji  ≤  95 % quantile over resamples of  max_j ((m*_j − m*_i) − (m_j − m_i))/s_ji

    s_ji being the bootstrap deviation of the difference. This is no test of the highest found, which was chosen for
    being high, but of each candidate's claim to be the truly highest; so the choice needs no further correction.

    Args:
        means_C: (C,) means over problems.
        means_RC: (R, C) the same for resamples of the problems.
        reference: what the highest is compared with; the second highest if it is itself the highest, or if None.

    References:
        Hsu, Multiple Comparisons: Theory and Methods, Chapman & Hall 1996, chapter 4 (comparisons with the best).

    >>> found = choose(np.array([0.2, 0.5]), np.array([[0.1, 0.5], [0.3, 0.5]]))
    >>> found.best, found.is_possible_C, found.shares_C
    (1, (False, True), (0.0, 1.0))
    """
    best = int(means_C.argmax())
    highest_R = means_RC.argmax(-1)
    shares_C = np.bincount(highest_R, minlength=len(means_C)) / len(means_RC)
    if reference is None or reference == best:
        others = np.where(np.arange(len(means_C)) == best, -np.inf, means_C)
        reference = int(others.argmax()) if len(means_C) > 1 else best
    return Choice(
        best=best,
        is_possible_C=tuple(_may_be_highest(i, means_C, means_RC) for i in range(len(means_C))),
        shares_C=tuple(shares_C.tolist()),
        value=interval_of(means_C[best], means_RC[:, best]),
        reference=reference,
        gain=interval_of(means_C[best] - means_C[reference], means_RC[:, best] - means_RC[:, reference]),
    )


def _may_be_highest(i: int, means_C: FloatArray, means_RC: FloatArray) -> bool:
    ahead_C = means_C - means_C[i]
    ahead_RC = means_RC - means_RC[:, i : i + 1]
    deviation_C = ahead_RC.std(0)
    is_fixed_C = deviation_C <= 1e-12  # the same for every choice of problems
    if (ahead_C[is_fixed_C] > 1e-9).any():
        return False
    scale_C = np.where(is_fixed_C, 1.0, deviation_C)
    excess_RC = np.where(is_fixed_C, 0.0, (ahead_RC - ahead_C) / scale_C)
    claim = float(np.where(is_fixed_C, 0.0, ahead_C / scale_C).max())
    return claim <= float(np.quantile(excess_RC.max(-1), LEVEL)) + 1e-9
