"""Learning rate and KL coefficient as functions of the step alone, so that a checkpoint need not hold them."""

from __future__ import annotations

import math

from bontune.config import KLSection, TrainingSection


def learning_rate(step: int, config: TrainingSection) -> float:
    """Learning rate of update ``step`` (from 1): it rises linearly to ``lr``, then falls to ``lr_end``."""
    if step <= config.warmup:
        return config.lr * step / config.warmup
    if config.decay == "constant":
        return config.lr
    length = max(config.steps - config.warmup, 1)
    return between(config.lr, config.lr_end, (step - 1 - config.warmup) / length, config.decay)


def kl_coefficient(step: int, config: KLSection) -> float:
    """β of update ``step`` (from 1): ``start`` for ``delay`` steps, then on its way to ``end`` for ``steps``."""
    progress = (step - 1 - config.delay) / config.steps
    shape = config.shape
    if shape == "exponential" and min(config.start, config.end) <= 0:
        shape = "linear"  # no exponential leads to or from zero
    return between(config.start, config.end, progress, shape)


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
