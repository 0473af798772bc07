"""The law of one temperature: pass@N ≈ exp(a N^b), fitted and put to the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from bontune.metrics import Interval
from bontune.objectives.inputs import FloatArray
from bontune.scaling.resampling import NUM_RESAMPLES, bounds, interval_of, resampled_means

MAX_DEVIATION = 0.02
"""A law that is nowhere farther from what was measured than this share of the problems holds for our purposes."""
_FEWEST_TO_TEST = 3


class LawVerdict(str, Enum):
    """Whether the law describes what was measured."""

    HOLDS = "holds"
    """It is nowhere farther off than the tolerance."""
    FAILS = "fails"
    """It is farther off at some N, and the choice of problems does not explain it."""
    UNCLEAR = "unclear"
    """It is farther off at some N, but so it might be by the choice of problems."""
    UNTESTED = "untested"
    """Two N determine it; nothing is left to test it with."""
    NOT_FITTED = "not fitted"
    """Fewer than two N with pass@N strictly between 0 and 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """pass@N ≈ exp(a N^b) at one temperature."""

    a: Interval
    """log pass@1 of the law, below 0; NaN if not fitted. 95 % interval, like b's."""
    b: Interval
    """Slope: how fast −log pass@N falls with log N, below 0; NaN if not fitted."""
    r_squared: float
    """R² on the log-log scale, with the fit's weights; NaN where it has no meaning."""
    deviation: float
    """Largest |measured − law| in pass@N; NaN if not fitted."""
    deviation_at: int
    """The N at which it is; 0 if not fitted."""
    verdict: LawVerdict
    """Whether the law holds."""
    left_out: tuple[int, ...]
    """N with pass@N exactly 0 or 1, where log(−log pass@N) does not exist."""
    line: tuple[float, float]
    """(log(−a), b): what is fitted and smoothed across temperatures."""
    lines_R: FloatArray
    """(R, 2) the same for each resample of the problems."""

    def pass_at(self, ns: Any) -> FloatArray:
        """What the law says for each N."""
        return np.exp(self.a.value * np.asarray(ns, dtype=np.float64) ** self.b.value)


def fit_law(
    values_PN: Any,
    ns: Sequence[int],
    *,
    tolerance: float = MAX_DEVIATION,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Law:
    """Fit the law to pass@N of one pool.

        log(−log pass@N) = log(−a) + b log N,   least squares with weights 1/Var,

    Var being the bootstrap variance of the left side over problems. pass@N for different N come from the same samples
    and are strongly correlated: the weights ignore that, which costs precision but no bias, and the intervals, from
    refitting each resample of the problems with the same weights, do not.

    A mean over problems need not obey the law: ``verdict`` says whether it does. For low pass@1 and steep b none can:
    no mixture of solve rates has pass@N = exp(−1.5 N^−0.5) at N = 1, 2, 4, …, 32 (least squares leave 0.0004; for
    exp(−4 N^−0.7), 0.04).

    Args:
        values_PN: (P, N) pass@N of each problem.
        ns: the N, ascending.
        tolerance: in pass@N; what the law may be off before it is said to fail.
        num_resamples, seed: of the bootstrap.

    References:
        Chow et al., Inference-Aware Fine-Tuning for Best-of-N Sampling in LLMs, arXiv 2412.15287, co-scaling.

    >>> ns = [1, 2, 4, 8]
    >>> law = fit_law(np.exp(-2.0 * np.array([ns, ns]) ** -0.5), ns)
    >>> round(law.a.value, 6), round(law.b.value, 6), law.verdict.value
    (-2.0, -0.5, 'holds')
    """
    values = np.asarray(values_PN, dtype=np.float64)
    means_RN = resampled_means(values, num_resamples, seed)
    return fit_laws(values.mean(0)[None], means_RN[:, None], ns, tolerance=tolerance)[0]


def fit_laws(
    means_TN: FloatArray, means_RTN: FloatArray, ns: Sequence[int], *, tolerance: float = MAX_DEVIATION
) -> tuple[Law, ...]:
    """Fit the law for each temperature, from means over problems and their common resamples; see :func:`fit_law`."""
    return tuple(_fit(means_TN[t], means_RTN[:, t], ns, tolerance) for t in range(len(means_TN)))


def loglog(passes: FloatArray) -> FloatArray:
    """log(−log pass), NaN where pass is 0 or 1 (or beyond, by rounding)."""
    is_inside = (passes > 0) & (passes < 1)
    with np.errstate(divide="ignore"):  # 1 − 1e-17 is 1
        return np.where(is_inside, np.log(-np.log(np.where(is_inside, passes, 0.5))), np.nan)


def _fit(means_N: FloatArray, means_RN: FloatArray, ns: Sequence[int], tolerance: float) -> Law:
    y_N, y_RN = loglog(means_N), loglog(means_RN)
    is_usable_N = ~np.isnan(y_N)
    left_out = tuple(n for n, is_usable in zip(ns, is_usable_N, strict=True) if not is_usable)
    if is_usable_N.sum() < 2:
        return _not_fitted(left_out, len(means_RN))
    x_N = np.log(np.asarray(ns, dtype=np.float64))
    weights_N = np.where(is_usable_N, _weights(y_RN), 0.0)
    line = weighted_line(y_N[None], x_N, weights_N)[0]
    lines_R = weighted_line(y_RN, x_N, weights_N)
    fitted_N, fitted_RN = _predict(line[None], x_N)[0], _predict(lines_R, x_N)
    residual_N = np.where(is_usable_N, means_N - fitted_N, 0.0)
    worst = int(np.abs(residual_N).argmax())
    low_N, high_N = bounds(means_RN - fitted_RN)
    is_beyond_N = (np.abs(residual_N) > tolerance) & ((low_N > 0) | (high_N < 0)) & is_usable_N
    if is_usable_N.sum() < _FEWEST_TO_TEST:
        verdict = LawVerdict.UNTESTED
    elif is_beyond_N.any():
        verdict = LawVerdict.FAILS
    else:
        verdict = LawVerdict.HOLDS if abs(residual_N[worst]) <= tolerance else LawVerdict.UNCLEAR
    return Law(
        a=interval_of(-np.exp(line[0]), -np.exp(lines_R[:, 0])),
        b=interval_of(line[1], lines_R[:, 1]),
        r_squared=_r_squared(y_N, line[0] + line[1] * x_N, weights_N),
        deviation=float(abs(residual_N[worst])),
        deviation_at=int(ns[worst]),
        verdict=verdict,
        left_out=left_out,
        line=(float(line[0]), float(line[1])),
        lines_R=lines_R,
    )


def _not_fitted(left_out: tuple[int, ...], num_resamples: int) -> Law:
    nothing = Interval(value=np.nan, low=np.nan, high=np.nan)
    return Law(
        a=nothing,
        b=nothing,
        r_squared=np.nan,
        deviation=np.nan,
        deviation_at=0,
        verdict=LawVerdict.NOT_FITTED,
        left_out=left_out,
        line=(np.nan, np.nan),
        lines_R=np.full((num_resamples, 2), np.nan),
    )


def weighted_line(y_RN: FloatArray, x_N: FloatArray, weights_N: FloatArray) -> FloatArray:
    """Intercept and slope of each row, (R, 2); NaN entries count nothing, rows with fewer than two others give NaN."""
    is_there = ~np.isnan(y_RN)
    w_RN = np.where(is_there, weights_N, 0.0)
    y_RN = np.where(is_there, y_RN, 0.0)
    is_enough_R = (w_RN > 0).sum(-1) >= 2
    total_R = np.where(is_enough_R, w_RN.sum(-1), np.nan)
    mean_x_R, mean_y_R = (w_RN * x_N).sum(-1) / total_R, (w_RN * y_RN).sum(-1) / total_R
    apart_RN = x_N - mean_x_R[:, None]
    slope_R = (w_RN * apart_RN * y_RN).sum(-1) / (w_RN * apart_RN**2).sum(-1)
    return np.stack([mean_y_R - slope_R * mean_x_R, slope_R], axis=-1)


def _weights(y_RN: FloatArray) -> FloatArray:
    """1/Var over the resamples, by column; equal where nothing varies (one problem, or all alike)."""
    counts_N = (~np.isnan(y_RN)).sum(0)
    mean_N = np.nansum(y_RN, axis=0) / np.maximum(counts_N, 1)
    variance_N = np.nansum((y_RN - mean_N) ** 2, axis=0) / np.maximum(counts_N, 1)
    largest = float(variance_N.max())
    if largest <= 1e-24:  # rounding
        return np.ones_like(variance_N)
    return largest / np.maximum(variance_N, 1e-6 * largest)


def _predict(lines_R: FloatArray, x_N: FloatArray) -> FloatArray:
    return np.exp(-np.exp(lines_R[:, :1] + lines_R[:, 1:] * x_N))


def _r_squared(y_N: FloatArray, fitted_N: FloatArray, weights_N: FloatArray) -> float:
    y_N = np.where(weights_N > 0, y_N, 0.0)
    mean = (weights_N * y_N).sum() / weights_N.sum()
    spread = (weights_N * (y_N - mean) ** 2).sum()
    return float(1 - (weights_N * (y_N - fitted_N) ** 2).sum() / spread) if spread > 1e-20 else float("nan")
