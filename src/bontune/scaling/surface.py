"""The law between the measured temperatures: log(−a) and b as polynomials in T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bontune.metrics import Interval
from bontune.objectives.inputs import FloatArray
from bontune.scaling.law import Law, LawVerdict
from bontune.scaling.resampling import interval_of

MAX_DEGREE = 4
FEWEST_TEMPERATURES = 4
_STEP = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimum:
    """T*(N) by the smoothed law."""

    n: int
    """The number of samples, N."""
    temperature: Interval
    """Where the smoothed law is highest, to two decimals, within the measured range. Its interval is for the choice of
    problems only, as if the law held: see ``Surface.error`` for how far it does."""
    value: float
    """pass@N of the smoothed law at that temperature."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Surface:
    """pass@N(T) ≈ exp(−exp(α(T) + b(T) log N)), α = log(−a) and b polynomials in T of one degree."""

    degree: int
    """The one that predicts left-out temperatures best."""
    alpha: tuple[float, ...]
    """Coefficients of α in (T − centre)/scale, constant first."""
    b: tuple[float, ...]
    """The same of b."""
    centre: float
    """Middle of the measured temperatures."""
    scale: float
    """Half the range of the temperatures."""
    error: float
    """Mean |measured − predicted| pass@N at temperatures left out of the fit, the first and last apart."""
    worst_error: float
    """The largest of them."""
    errors_by_degree: dict[int, float]
    """``error`` for every degree that was tried."""
    optima: tuple[Optimum, ...]
    """The best temperature for each N, T*(N)."""

    def pass_at(self, temperatures: Any, ns: Any) -> FloatArray:
        """What it says for each temperature and N: (T, N)."""
        powers_TD = _powers(temperatures, self.degree, self.centre, self.scale)
        lines_T2 = powers_TD @ np.array([self.alpha, self.b]).T
        return _passes(lines_T2, ns)


def fit_surface(
    temperatures: Sequence[float], laws: Sequence[Law], means_TN: FloatArray, ns: Sequence[int]
) -> Surface | None:
    """Smooth the laws across temperatures, by least squares, all temperatures alike.

    The degree, 1 to 4, is chosen by leaving out one inner temperature at a time and predicting its measured pass@N.

    Args:
        temperatures: ascending.
        laws: one each.
        means_TN: measured pass@N.
        ns: the N.

    Returns:
        None if the law could be fitted at fewer than four temperatures.
    """
    kept = [t for t, law in enumerate(laws) if law.verdict is not LawVerdict.NOT_FITTED]
    if len(kept) < FEWEST_TEMPERATURES:
        return None
    t_T = np.array([temperatures[t] for t in kept])
    lines_T2 = np.array([laws[t].line for t in kept])
    centre, scale = (t_T[0] + t_T[-1]) / 2, (t_T[-1] - t_T[0]) / 2
    measured_TN = means_TN[kept]
    errors = {
        degree: _left_out_errors(_powers(t_T, degree, centre, scale), lines_T2, measured_TN, ns)
        for degree in range(1, min(MAX_DEGREE, len(kept) - 2) + 1)
    }
    degree = min(errors, key=lambda d: float(errors[d].mean()))
    solve_DT = np.linalg.pinv(_powers(t_T, degree, centre, scale))
    coefficients_D2 = solve_DT @ lines_T2
    lines_RT2 = np.stack([laws[t].lines_R for t in kept], axis=1)
    fine_F: FloatArray = np.round(np.arange(t_T[0], t_T[-1] + _STEP / 2, _STEP), 10).astype(np.float64)
    powers_FD = _powers(fine_F, degree, centre, scale)
    lines_F2, lines_RF2 = powers_FD @ coefficients_D2, powers_FD @ (solve_DT @ lines_RT2)
    return Surface(
        degree=degree,
        alpha=tuple(coefficients_D2[:, 0].tolist()),
        b=tuple(coefficients_D2[:, 1].tolist()),
        centre=float(centre),
        scale=float(scale),
        error=float(errors[degree].mean()),
        worst_error=float(errors[degree].max()),
        errors_by_degree={d: float(e.mean()) for d, e in errors.items()},
        optima=tuple(_optimum(n, fine_F, lines_F2, lines_RF2) for n in ns),
    )


def _optimum(n: int, fine_F: FloatArray, lines_F2: FloatArray, lines_RF2: FloatArray) -> Optimum:
    """The lowest α + b log N, which is the highest pass@N."""
    height_F = lines_F2 @ np.array([1.0, np.log(n)])
    height_RF = lines_RF2 @ np.array([1.0, np.log(n)])
    is_known_R = ~np.isnan(height_RF).any(-1)
    best = int(height_F.argmin())
    return Optimum(
        n=n,
        temperature=interval_of(fine_F[best], fine_F[height_RF[is_known_R].argmin(-1)]),
        value=float(np.exp(-np.exp(height_F[best]))),
    )


def _left_out_errors(
    powers_TD: FloatArray, lines_T2: FloatArray, measured_TN: FloatArray, ns: Sequence[int]
) -> FloatArray:
    """|measured − predicted| at each inner temperature, fitted without it."""
    errors = []
    for t in range(1, len(powers_TD) - 1):
        others = np.arange(len(powers_TD)) != t
        coefficients_D2 = np.linalg.pinv(powers_TD[others]) @ lines_T2[others]
        errors.append(np.abs(measured_TN[t] - _passes(powers_TD[t : t + 1] @ coefficients_D2, ns)[0]))
    return np.array(errors)


def _powers(temperatures: Any, degree: int, centre: float, scale: float) -> FloatArray:
    z_T = (np.asarray(temperatures, dtype=np.float64).reshape(-1) - centre) / scale
    return z_T[:, None] ** np.arange(degree + 1)


def _passes(lines_T2: FloatArray, ns: Any) -> FloatArray:
    log_n_N = np.log(np.asarray(ns, dtype=np.float64))
    result: FloatArray = np.exp(-np.exp(lines_T2[:, :1] + lines_T2[:, 1:] * log_n_N))
    return result
