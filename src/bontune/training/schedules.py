"""Learning rate and KL coefficient as functions of the step alone, so that a checkpoint need not hold them."""

from __future__ import annotations

from bontune.config import KLSection, TrainingSection
from bontune.config.sections import between


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
