"""What goes into a metric and what comes out: arrays of one kind."""

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
"""Of rewards and of what comes back; nested lists count as arrays."""


def like(given: Kind, result: Tensor) -> Kind:
    """Return the result in the kind of what was given; one number as a NumPy scalar."""
    return result if isinstance(given, Tensor) else result.numpy()[()]


Rewards = Sequence[Sequence[float | None]]
"""P × M rewards; None or NaN where the grader failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardScale:
    """What the rewards of all pools that are looked at together mean."""

    is_binary: bool = True
    """Whether every reward is 0 or 1, and 1 is what counts as solved."""
    solved_at: float | None = 1.0
    """Reward from which on a sample counts as solved; None: rewards are graded, and there is no pass@k."""
    lowest: float = 0.0
    """What a sample counts that could not be graded: the lowest reward that was seen, 0 at most, and never solved."""

    def filled(self, rewards_PM: Rewards) -> list[list[float]]:
        """Return the rewards with a number for every sample.

        >>> RewardScale(lowest=-1.0).filled([[1.0, None], [float("nan"), -1.0]])
        [[1.0, -1.0], [-1.0, -1.0]]
        """
        return [[self.lowest if r is None or math.isnan(r) else float(r) for r in row] for row in rewards_PM]

    def solved(self, rewards: Any) -> FloatArray:
        """1 where a reward counts as solved, else 0; of rewards that have such a limit."""
        assert self.solved_at is not None
        return (np.asarray(rewards, dtype=np.float64) >= self.solved_at).astype(np.float64)


def reward_scale(pools: Iterable[Rewards], solved_at: float | None = None) -> RewardScale:
    """Read the scale off the rewards of all pools together, so that all of them are measured alike.

    A sample that could not be graded counts as the lowest reward that any of the pools holds, and as 0 at most: it is
    never better than a wrong one, and never right where all others are.

    Args:
        pools: the rewards of each.
        solved_at: reward from which on a sample counts as solved; None: 1 for rewards of 0 and 1, the larger of any
            other two values, and nothing for rewards of one or of more than two values.

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
