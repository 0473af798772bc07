"""The bootstrap over problems that everything here shares."""

from __future__ import annotations

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
