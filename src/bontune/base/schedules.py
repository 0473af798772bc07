"""A number on its way from one value to another."""

from __future__ import annotations

import math


def between(start: float, end: float, progress: float, shape: str) -> float:
    """The value at a share ``progress`` of the way from start to end; it stays within the two.

    >>> between(1.0, 0.0, 0.25, "linear"), round(between(1.0, 0.01, 0.5, "exponential"), 6)
    (0.75, 0.1)
    """
    progress = min(max(progress, 0.0), 1.0)
    if shape == "exponential":
        return start * (end / start) ** progress
    if shape == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return start + (end - start) * progress
