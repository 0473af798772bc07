"""Problems sorted by difficulty without deceiving oneself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bontune.objectives.inputs import FloatArray

FEWEST_FOR_FIFTHS = 250
_THIRDS = ("easiest third", "middle third", "hardest third")
_FIFTHS = ("easiest fifth", "second fifth", "middle fifth", "fourth fifth", "hardest fifth")


def split_by_difficulty(
    rewards_TPM: Sequence[FloatArray], levels_P: Sequence[int | float | str | None] | None
) -> tuple[dict[str, list[int]], bool]:
    """Groups of like difficulty, from easy to hard.

    By the task's levels where every problem has one and they differ. Else by the pass rate of samples 0, 2, 4, … at all
    temperatures: thirds, or fifths of 250 problems and more; equally hard problems stay together, so that a group may
    be empty. Then only samples 1, 3, 5, … may be measured: among the same samples the "hardest" problems would be those
    with bad luck too, and what is said of them would be wrong.

    Args:
        rewards_TPM: (P, M) for each temperature; M may differ.
        levels_P: or None.

    Returns:
        Group name → places of its problems; and whether the groups are levels.

    >>> split_by_difficulty([np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])], [2, 5, 2])
    ({'level 2': [0, 2], 'level 5': [1]}, True)
    """
    if levels_P is not None:
        known = [level for level in levels_P if level is not None]
        if len(known) == len(levels_P) and len(set(known)) > 1:
            places_L = {
                level: [p for p, at in enumerate(known) if at == level]
                for level in sorted(set(known), key=lambda level: (isinstance(level, str), level))
            }
            return {f"level {level}": places for level, places in places_L.items()}, True
    rate_P = np.mean([rewards_PM[:, ::2].mean(-1) for rewards_PM in rewards_TPM], axis=0).round(12)
    names = _FIFTHS if len(rate_P) >= FEWEST_FOR_FIFTHS else _THIRDS
    _, kind_P, counts = np.unique(-rate_P, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2  # the rank of equally hard problems
    group_P = np.minimum((middle * len(names) / len(rate_P)).astype(np.int64), len(names) - 1)[kind_P]
    return {name: np.flatnonzero(group_P == g).tolist() for g, name in enumerate(names)}, False
