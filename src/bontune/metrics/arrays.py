"""The arrays that metrics take and return, and the scale on which rewards are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bontune.objectives.inputs import FloatArray

Values: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]
Kind = TypeVar("Kind", Tensor, NDArray[Any])
"""Type of the rewards and of the result; nested lists count as arrays."""


def as_kind(rewards: Kind, result: Tensor) -> Kind:
    """Return the result as a tensor if the rewards are one, else as a NumPy array or scalar."""
    return result if isinstance(rewards, Tensor) else result.numpy()[()]


Rewards = Sequence[Sequence[float | None]]
"""P × M rewards; None or NaN where the grader failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardScale:
    """The meaning of the rewards of all pools that are compared."""

    is_binary: bool = True
    """Whether every reward is 0 or 1, and 1 counts as solved."""
    solved_at: float | None = 1.0
    """Smallest reward that counts as solved; None: rewards are graded, and there is no pass@k."""
    lowest: float = 0.0
    """Reward of an ungraded sample: the lowest reward of the pools, at most 0, and never solved."""

    def filled(self, rewards_PM: Rewards) -> list[list[float]]:
        """Return the rewards with ``lowest`` for each ungraded sample.

        >>> RewardScale(lowest=-1.0).filled([[1.0, None], [float("nan"), -1.0]])
        [[1.0, -1.0], [-1.0, -1.0]]
        """
        return [[self.lowest if r is None or math.isnan(r) else float(r) for r in row] for row in rewards_PM]

    def solved(self, rewards: Any) -> FloatArray:
        """Return 1 where a reward counts as solved, else 0; ``solved_at`` must not be None."""
        assert self.solved_at is not None
        return (np.asarray(rewards, dtype=np.float64) >= self.solved_at).astype(np.float64)


def reward_scale(pools: Iterable[Rewards], solved_at: float | None = None) -> RewardScale:
    """Derive the scale from the rewards of all pools together, so that all of them are measured alike.

    An ungraded sample counts as the lowest reward in any of the pools, and at most as 0: it is never better than a
    wrong one, and never right where all others are.

    Args:
        pools: the rewards of each pool.
        solved_at: smallest reward that counts as solved; None: 1 for rewards of 0 and 1, the larger of any
            other two values, and none for rewards of one or of more than two values.

    >>> reward_scale([[[-1.0, 1.0, None]]])
    RewardScale(is_binary=False, solved_at=1.0, lowest=-1.0)
    >>> reward_scale([[[0.0, 1.0]], [[0.0, 0.5]]]).solved_at is None  # graded, all of them
    True
    """
    seen: set[float] = set()
    for rewards_PM in pools:
        values = np.array([r for row in rewards_PM for r in row], dtype=np.float64)
        seen.update(np.unique(values[~np.isnan(values)]).tolist())
    is_binary = seen <= {0.0, 1.0} and (solved_at is None or 0.0 < solved_at <= 1.0)
    if solved_at is None and (is_binary or len(seen) == 2):
        solved_at = 1.0 if is_binary else max(seen)
    unsolved = [] if solved_at is None else [math.nextafter(solved_at, -math.inf)]
    return RewardScale(is_binary=is_binary, solved_at=solved_at, lowest=min([0.0, *seen, *unsolved]))
