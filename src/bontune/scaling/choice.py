"""Which of several means is the highest, and which others might be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bontune.metrics import Interval
from bontune.objectives.inputs import FloatArray
from bontune.scaling.resampling import LEVEL, interval_of


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
