"""Means over prompts with bootstrap intervals, and paired differences."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from bontune.metrics.arrays import Values
from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import FloatArray, as_samples


def default_ks(num_samples: int) -> list[int]:
    """Return the budgets to report for a pool: 1, 2, 4, … up to ``num_samples``, an integer ≥ 1.

    >>> default_ks(12)
    [1, 2, 4, 8]
    """
    return [2**i for i in range(check_budget(num_samples, sys.maxsize, what="num_samples").bit_length())]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean over prompts with its bootstrap interval."""

    value: float
    """Mean over the prompts."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


def bootstrap_interval(values_P: Values, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0) -> Interval:
    """Bootstrap the mean over prompts by percentiles: the (1 ∓ level)/2 quantiles of means of P redrawn prompts.

    The interval covers the choice of prompts, not that of their samples. It is somewhat narrow for few prompts and has
    width 0 for P = 1.

    Args:
        values_P: (P,) one finite number per prompt.
        level: nominal coverage, 0 < level < 1.
        num_resamples, seed: number of resamples, ≥ 1, and their seed; memory does not grow with the number.

    Raises:
        ValueError if values_P is not one-dimensional, empty, NaN or infinite; level or num_resamples out of range.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, Chapman & Hall 1993, chapter 13.

    >>> bootstrap_interval([1.0, 1.0, 1.0])
    Interval(value=1.0, low=1.0, high=1.0)
    """
    return bootstrap_intervals([_as_prompts(values_P, "values_P")], level, num_resamples, seed)[0]


def bootstrap_intervals(
    values_KP: Sequence[Values], level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> list[Interval]:
    """Return :func:`bootstrap_interval` of each of K means, much faster; their numbers of prompts may differ.

    Prompts are redrawn once for all rows of one length, since each row's resampling begins with the same seed.

    >>> bootstrap_intervals([[1.0, 1.0, 1.0]])
    [Interval(value=1.0, low=1.0, high=1.0)]
    """
    num_resamples = check_budget(num_resamples, sys.maxsize, what="num_resamples")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level!r}.")
    rows = [_as_prompts(row, "values_KP") for row in values_KP]
    distinct = {row.tobytes(): row for row in rows}  # some rows are equal, such as pass@1 and best@1
    intervals: dict[bytes, Interval] = {}
    for num_prompts in {len(row) for row in rows}:
        group = {key: row for key, row in distinct.items() if len(row) == num_prompts}
        means_KR = _resampled_means(list(group.values()), num_resamples, np.random.default_rng(seed))
        for (key, row), means_R in zip(group.items(), means_KR, strict=True):
            low, high = np.quantile(means_R, [(1 - level) / 2, (1 + level) / 2])
            intervals[key] = Interval(value=float(row.mean()), low=float(low), high=float(high))
    return [intervals[row.tobytes()] for row in rows]


def _resampled_means(rows: Sequence[FloatArray], num_resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return (K, R) means of rows of one length over redrawn prompts, the same prompts for all rows."""
    num_prompts = len(rows[0])
    chunk = max(1, 2**20 // num_prompts)  # 8 MiB of indices at a time
    block = max(1, 2**15 // num_prompts)  # indices that fit a core's cache together with their values
    means_KR = np.empty((len(rows), num_resamples))
    for start in range(0, num_resamples, chunk):
        prompts_RP = rng.integers(num_prompts, size=(min(chunk, num_resamples - start), num_prompts))
        for at in range(0, len(prompts_RP), block):
            part = prompts_RP[at : at + block]
            for row, means_R in zip(rows, means_KR, strict=True):
                means_R[start + at : start + at + len(part)] = row[part].mean(-1)
    return means_KR


def paired_difference(
    a_P: Values, b_P: Values, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the bootstrap interval of mean(a − b) for two runs on the same prompts, in the same order.

    Each resample takes the same prompts from both, so that their difficulty cancels: where two
    :func:`bootstrap_interval` overlap, the difference can still be clear. Other arguments, References: see there.

    Raises:
        ValueError if a_P and b_P differ in length; otherwise as :func:`bootstrap_interval`.

    >>> paired_difference([1.0, 0.5, 0.0], [0.5, 0.0, -0.5])
    Interval(value=0.5, low=0.5, high=0.5)
    """
    a, b = _as_prompts(a_P, "a_P"), _as_prompts(b_P, "b_P")
    if a.shape != b.shape:
        raise ValueError(f"a_P and b_P must hold the same prompts in the same order, got {len(a)} and {len(b)} values.")
    return bootstrap_interval(a - b, level, num_resamples, seed)


def simultaneous_band(
    values_KP: Values, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> list[Interval]:
    """Return intervals for K means over the same prompts that cover all means at once with probability ``level``.

        value_k ± c · se_k,   c = the quantile over resamples of max_k |value*_k − value_k| / se_k

    The same prompts are redrawn for all K, such as the differences of two models at every k of pass@k. Of twenty
    separate intervals, one misses by chance; this band as a whole misses in one case of twenty.

    Args:
        values_KP: (K, P), finite.
        level: nominal coverage of all K together, 0 < level < 1.
        num_resamples, seed: of the resampling.

    Returns:
        K intervals; of width 0 where all prompts have the same value.

    Raises:
        ValueError if values_KP is not two-dimensional, empty, NaN or infinite, or level is out of range.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Montiel Olea and Plagborg-Møller, Simultaneous
        confidence bands, Journal of Applied Econometrics 34 (2019).

    >>> [i.value for i in simultaneous_band([[1.0, 0.0], [1.0, 1.0]])]
    [0.5, 1.0]
    """
    rows = [_as_prompts(row, "values_KP") for row in values_KP]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError("values_KP needs one row of P numbers for each of K means, shape (K, P) with K >= 1.")
    values = np.stack(rows)
    num_prompts = values.shape[1]
    rng = np.random.default_rng(seed)
    means = np.stack([values[:, rng.integers(num_prompts, size=num_prompts)].mean(1) for _ in range(num_resamples)])
    half = furthest_error(values.mean(1), means, level) * means.std(0)
    return [
        Interval(value=float(v), low=float(v - h), high=float(v + h)) for v, h in zip(values.mean(1), half, strict=True)
    ]


def furthest_error(values_K: FloatArray, resampled_BK: FloatArray, level: float = 0.95) -> float:
    """Return the quantile over resamples of the largest error among K values, each in its own standard errors.

    Raises:
        ValueError: level is out of range.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level!r}.")
    errors = resampled_BK.std(0)
    varies = errors > 1e-12
    if not varies.any():
        return 0.0
    return float(np.quantile((np.abs(resampled_BK - values_K)[:, varies] / errors[varies]).max(1), level))


def _as_prompts(values: Any, name: str) -> FloatArray:
    """Return one finite number per prompt, float64 of shape (P,)."""
    values_P = as_samples(values, name, min_samples=0).to("cpu", torch.float64).numpy()
    if values_P.ndim != 1 or len(values_P) == 0:
        raise ValueError(f"{name} needs one number per prompt, shape (P,) with P >= 1, got shape {values_P.shape}.")
    if np.isinf(values_P).any():
        raise ValueError(f"{name} contains an infinite value; a mean over prompts needs finite numbers.")
    return cast(FloatArray, values_P)
