"""Several training runs of either side: means and differences with intervals over problems and over runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm as normal
from scipy.stats import t as student

from bontune.metrics import Interval
from bontune.metrics.arrays import Values
from bontune.metrics.intervals import furthest_error
from bontune.objectives.inputs import FloatArray


def mean_over_runs(values_SP: Values, level: float = 0.95) -> Interval:
    """Mean over S training runs (seeds) and P prompts, with an interval over both; see :func:`difference_over_runs`.

    >>> mean_over_runs([[1.0, 0.0], [1.0, 0.0]]).value
    0.5
    """
    values = _as_runs(values_SP, "values_SP")
    return _welch_interval(values.mean(0), [values.mean(1)], level)


def difference_over_runs(a_SP: Values, b_SP: Values, level: float = 0.95) -> Interval:
    """mean(a) − mean(b), paired by prompt, with an interval over prompts and over training runs.

    Prompts and runs are both samples: of prompts that could have been asked and of trainings with other seeds. The
    variance of the difference is estimated as the sum of three parts: that of the mean over prompts (of differences
    between the runs' means, so that a prompt's difficulty cancels), and that of the mean over runs of either side.
    What a run does to single prompts counts in both, which errs on the wide side. Student's t has the degrees of
    freedom of Welch and Satterthwaite. A side with one run, such as a model that is not trained, adds no variance of
    runs: for a trained one the interval is then over prompts alone.

    Args:
        a_SP: (S, P) one number per run and prompt.
        b_SP: (S′, P) the same prompts in the same order; the number of runs may differ.
        level: nominal coverage, 0 < level < 1.

    Raises:
        ValueError: shapes that do not fit, or a value that is not finite.

    References:
        Welch, The generalization of "Student's" problem, Biometrika 34 (1947).

    >>> difference_over_runs([[1.0, 0.5], [1.0, 0.5]], [[0.5, 0.0]])
    Interval(value=0.5, low=0.5, high=0.5)
    """
    a, b = _as_runs(a_SP, "a_SP"), _as_runs(b_SP, "b_SP")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a_SP and b_SP must hold the same prompts, got {a.shape[1]} and {b.shape[1]} of them.")
    return _welch_interval(a.mean(0) - b.mean(0), [a.mean(1), b.mean(1)], level)


def band_over_runs(
    a_KSP: Sequence[Values], b_KSP: Sequence[Values], level: float = 0.95, num_resamples: int = 2_000
) -> list[Interval]:
    """mean(a) − mean(b) for K metrics, with a band that holds for all K at once, over prompts and training runs.

    Each metric's own interval (:func:`difference_over_runs`, which knows that a handful of runs is few) is widened by
    one factor for all K: that by which the largest of K resampled errors is beyond a single one's, where prompts and
    the runs of either side are redrawn, the same for all K. With K = 1 it is that interval.

    Args:
        a_KSP: for each metric (S, P), one number per run and prompt.
        b_KSP: for each metric (S′, P), the same prompts.
        level: nominal coverage of all K together.
        num_resamples: of the bootstrap.

    Raises:
        ValueError: as :func:`difference_over_runs`.

    References:
        :func:`bontune.metrics.simultaneous_band`.
    """
    a, b = (np.stack([_as_runs(values, "values") for values in side]) for side in (a_KSP, b_KSP))
    if a.shape[::2] != b.shape[::2]:
        raise ValueError(f"Both sides need the same metrics and prompts, got {a.shape[::2]} and {b.shape[::2]}.")
    rng = np.random.default_rng(0)

    def resampled() -> FloatArray:
        problems = rng.integers(a.shape[2], size=a.shape[2])
        sides = [side[:, rng.integers(side.shape[1], size=side.shape[1])] for side in (a, b)]
        ours, theirs = (side.mean(1)[:, problems].mean(1) for side in sides)
        return np.asarray(ours - theirs)

    single = [difference_over_runs(ours, theirs, level) for ours, theirs in zip(a, b, strict=True)]
    values_K, means_BK = np.array([i.value for i in single]), np.stack([resampled() for _ in range(num_resamples)])
    factor = max(1.0, furthest_error(values_K, means_BK, level) / float(normal.ppf((1 + level) / 2)))
    return [
        Interval(value=i.value, low=i.value - factor * (i.value - i.low), high=i.value + factor * (i.high - i.value))
        for i in single
    ]


def _welch_interval(over_prompts: FloatArray, over_runs: list[FloatArray], level: float) -> Interval:
    """The mean of the first, with the variances of both kinds added."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level!r}.")
    samples = [over_prompts, *over_runs]
    parts = [(float(x.var(ddof=1)) / len(x), len(x) - 1) for x in samples if len(x) > 1]
    variance = sum(part for part, _ in parts)
    value = float(over_prompts.mean())
    # Rounding leaves about 1e-33 where all values are equal; its degrees of freedom mean nothing.
    if variance < 1e-24:
        return Interval(value=value, low=value, high=value)
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    half = float(student.ppf((1 + level) / 2, freedom)) * variance**0.5
    return Interval(value=value, low=value - half, high=value + half)


def _as_runs(values: Values, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} needs one number per run and prompt, shape (S, P), got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a value that is not finite.")
    return array
