"""Calibration of a verifier's probabilities: reliability in bins, summary numbers, and Platt scaling.

Shapes: ``_B`` completions of all prompts, flattened. Everything here is NumPy in float64.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from bontune.metrics.arrays import Values
from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import FloatArray, as_rewards, as_scores


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityBin:
    """Completions of similar probability."""

    count: int
    """Number of samples in the bin."""
    probability: float
    """Mean probability of the samples."""
    reward: float
    """Mean reward of the samples: the share of correct ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The distance of probabilities from rewards."""

    ece: float
    """Expected calibration error: mean |probability − reward| of the bins, by their counts; 0 is best. Biased up:
    a perfect verifier gets about √(bins / completions)/2."""
    brier: float
    """Mean (probability − reward)²; 0 is best, and ¼ results from ½ for every sample."""
    bins: tuple[ReliabilityBin, ...]
    """Bins from the least to the most probable."""


def calibration(rewards: Values, probabilities: Values, num_bins: int = 10) -> Calibration:
    """Measure the reliability of probabilities in bins of equal mass.

        ECE = Σ_b |b|/B · |mean probability of b − mean reward of b|,   Brier = mean (probability − reward)²

    Equal probabilities share a bin (by their middle rank), so that the order of the completions does not matter; empty
    bins are dropped.

    Args:
        rewards: (..., M) in [0, 1].
        probabilities: (..., M) in [0, 1].
        num_bins: ≥ 1.

    Raises:
        ValueError: values outside [0, 1], NaN, unequal shapes or no values.

    References:
        Nguyen and O'Connor, Posterior Calibration and Exploratory Analysis, arXiv 1508.05154 (equal mass); Brier,
        Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 78(1), 1950.

    >>> found = calibration([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], num_bins=2)
    >>> found.ece, found.brier  # |0.25 − 0.5|/2 + |0.75 − 1|/2
    (0.25, 0.1875)
    """
    num_bins = check_budget(num_bins, sys.maxsize, what="num_bins")
    rewards_B, probabilities_B = _flat(rewards, probabilities)
    for name, values in (("rewards", rewards_B), ("probabilities", probabilities_B)):
        if (outside := values[(values < 0) | (values > 1)]).size:
            raise ValueError(f"{name} must lie in [0, 1] for calibration, got {outside[0]:g}.")
    _, kind_B, counts = np.unique(probabilities_B, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    bin_B = np.minimum((middle * num_bins / len(rewards_B)).astype(np.int64), num_bins - 1)[kind_B]
    bins = tuple(
        ReliabilityBin(
            count=int(is_in.sum()),
            probability=float(probabilities_B[is_in].mean()),
            reward=float(rewards_B[is_in].mean()),
        )
        for is_in in (bin_B == b for b in np.unique(bin_B))
    )
    return Calibration(
        ece=sum(b.count * abs(b.probability - b.reward) for b in bins) / len(rewards_B),
        brier=float(np.square(probabilities_B - rewards_B).mean()),
        bins=bins,
    )


def sigmoid(scores: Values) -> FloatArray:
    """Return 1 / (1 + e^−score) without overflow; ±inf gives 1 and 0.

    >>> sigmoid([-np.inf, 0.0, 800.0]).tolist()
    [0.0, 0.5, 1.0]
    """
    values = np.asarray(scores, dtype=np.float64)
    small = np.exp(-np.abs(values))
    result: FloatArray = np.where(values >= 0, 1.0, small) / (1.0 + small)
    return result


def platt_scaling(rewards: Values, scores: Values, num_iterations: int = 100) -> tuple[float, float]:
    """Fit the slope and intercept with which sigmoid(slope · score + intercept) fits the rewards best.

    They maximise the likelihood with Platt's targets instead of 0 and 1, so that a maximum exists for separable scores
    too.

    Args:
        rewards: (..., M) in [0, 1].
        scores: (..., M), finite.
        num_iterations: largest number of Newton steps.

    Returns:
        (slope, intercept). The slope is negative for scores that rank the wrong way round.

    Raises:
        ValueError: NaN or infinite scores, unequal shapes or no values.

    References:
        Platt, Probabilistic Outputs for Support Vector Machines, 1999; Lin, Lin and Weng, A Note on Platt's
        Probabilistic Outputs, Machine Learning 68(3), 2007.

    >>> slope, intercept = platt_scaling([0, 1, 0, 1], [3.0, 3.0, 3.0, 3.0])
    >>> float(sigmoid(slope * 3.0 + intercept).round(6))
    0.5
    """
    rewards_B, scores_B = _flat(rewards, scores)
    if not np.isfinite(scores_B).all():
        raise ValueError("scores must be finite to be calibrated.")
    num_correct = rewards_B.sum()
    high, low = (num_correct + 1) / (num_correct + 2), 1 / (len(rewards_B) - num_correct + 2)
    targets_B = low + (high - low) * rewards_B
    center, scale = scores_B.mean(), max(float(scores_B.std()), 1e-12)
    design = np.stack([(scores_B - center) / scale, np.ones_like(scores_B)], axis=1)

    def loss(weights: FloatArray) -> float:
        logits = design @ weights
        return float((np.logaddexp(0.0, logits) - targets_B * logits).sum())

    weights = np.zeros(2)
    for _ in range(num_iterations):
        probabilities_B = sigmoid(design @ weights)
        gradient = design.T @ (probabilities_B - targets_B)
        curvature = (design.T * (probabilities_B * (1 - probabilities_B))) @ design + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while size > 1e-6 and loss(weights - size * step) > loss(weights):
            size /= 2
        weights = weights - size * step
        if np.abs(step).max() < 1e-10:
            break
    slope = float(weights[0]) / scale
    return slope, float(weights[1]) - slope * float(center)


def _flat(rewards: Any, values: Any) -> tuple[FloatArray, FloatArray]:
    rewards_PM = as_rewards(rewards)
    values_PM = as_scores(values, rewards_PM)
    if not rewards_PM.numel():
        raise ValueError("calibration needs at least one completion.")
    return rewards_PM.double().cpu().numpy().ravel(), values_PM.double().cpu().numpy().ravel()
