"""Objectives that train for one sample, and their group-normalised variants (see docs/estimators.md).

Each function maps rewards (..., M) of one prompt's samples to advantages (..., M) in mean form, so that
∇J ≈ (1/M) Σ_i A_i ∇log π(y_i|x) with log π summed over tokens. s = P_π(R = 1), q = 1 − s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bontune.objectives.inputs import as_advantages, as_rewards


def reinforce(rewards: Any) -> Tensor:
    """Policy gradient without a baseline.   A_i = R_i

    Optimises E_π[R]. Unbiased for every M ≥ 1, with the largest variance.

    Args:
        rewards: (..., M), float, int or bool.

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: NaN or infinite rewards, or no sample axis.

    References:
        Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992.

    >>> reinforce([0, 1, 1, 0]).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    return as_advantages(as_rewards(rewards).clone(), rewards)


def rloo(rewards: Any) -> Tensor:
    """REINFORCE with a leave-one-out baseline.   A_i = R_i − mean_{j≠i} R_j

    Optimises E_π[R] (w(s) = 1). Unbiased for M ≥ 2: the baseline is independent of y_i. Σ_i A_i = 0.

    Args:
        rewards: (..., M ≥ 2).

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: fewer than two samples, NaN or infinite rewards.

    References:
        Ahmadian et al., "Back to Basics: Revisiting REINFORCE Style Optimization", arXiv 2402.14740.

    >>> rloo([0, 1, 1, 1]).round(decimals=4).tolist()
    [-1.0, 0.3333, 0.3333, 0.3333]
    """
    return as_advantages(minus_others(as_rewards(rewards, min_samples=2)), rewards)


def grpo(rewards: Any, epsilon: float = 1e-4) -> Tensor:
    """Group-relative advantages.   A_i = (R_i − R̄) / (σ + ε), σ the sample standard deviation (divisor M − 1)

    For 0/1 rewards it optimises 2 arcsin √s (w(s) = 1/√(s q)) up to the bias of normalising by the same samples.

    Args:
        rewards: (..., M ≥ 2).
        epsilon: ε, added to σ.

    Returns:
        (..., M) advantages, mean form; exactly zero where all rewards of a prompt are equal.

    Raises:
        ValueError: fewer than two samples, NaN or infinite rewards.

    References:
        Shao et al., "DeepSeekMath", arXiv 2402.03300, §4.1.
    """
    centred = _centred(as_rewards(rewards, min_samples=2))
    sigma = (centred.square().sum(-1, keepdim=True) / (centred.shape[-1] - 1)).sqrt()
    return as_advantages(centred / (sigma + epsilon), rewards)


def dr_grpo(rewards: Any) -> Tensor:
    """GRPO without the division by σ.   A_i = R_i − R̄

    Optimises E_π[R] times (M − 1)/M: the direction is unbiased, the scale is that much short of :func:`rloo`.

    Args:
        rewards: (..., M ≥ 2).

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: fewer than two samples, NaN or infinite rewards.

    References:
        Liu et al., "Understanding R1-Zero-Like Training: A Critical Perspective", arXiv 2503.20783.
    """
    return as_advantages(_centred(as_rewards(rewards, min_samples=2)), rewards)


def maxrl(rewards: Any) -> Tensor:
    """Maximum-likelihood RL.   A_i = (R_i − R̄) / R̄, zero where every sample of the prompt failed

    For 0/1 rewards w(s) = (1 − q^{M−1})/s: it is unbiased for the truncation of log s at order M − 1, Σ_{k<M} −q^k/k
    (subtracting the mean costs one order: without it the first M terms would be met). A_i equals Σ_{N<M} A_i(N)/N, the
    sum of :func:`bontune.objectives.bon_rl`'s ``loo`` advantages over every budget: it trains for all N at once.

    Args:
        rewards: (..., M ≥ 2), none negative.

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: negative, NaN or infinite rewards, or fewer than two samples.

    References:
        Tajwar et al., "Maximum Likelihood Reinforcement Learning", arXiv 2602.02710.
    """
    samples = as_rewards(rewards, min_samples=2)
    if bool((samples < 0).any()):
        raise ValueError(f"maxrl divides by the mean reward and needs rewards >= 0, got {samples.min().item():g}.")
    mean = samples.mean(-1, keepdim=True)
    has_success = mean > 0
    advantages = _centred(samples) / torch.where(has_success, mean, 1.0)
    return as_advantages(torch.where(has_success, advantages, 0.0), rewards)


def inference_loo(rewards: Any, value: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Leave-one-out credit for any function of the whole pool.   A_i = M · (f(R_1..R_M) − f(all but i))

    Unbiased for ∇E[f] over M i.i.d. samples, whatever f: f(all but i) does not depend on y_i. With the default
    f = max and 0/1 rewards it is pass@M (w(s) = M q^{M−1}).

    Args:
        rewards: (..., M ≥ 2), or any numbers that ``value`` reads, such as numbered answers for a majority vote.
        value: f, which maps (..., m) to (...) for m = M and m = M − 1; None: the maximum.

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: fewer than two samples, NaN or infinite input, or ``value`` returns the wrong shape.

    References:
        Tang et al., "Optimizing Language Models for Inference Time Objectives using RL", arXiv 2503.19595, §3.
    """
    samples = as_rewards(rewards, min_samples=2)
    m = samples.shape[-1]
    value = value if value is not None else (lambda pool: pool.amax(-1))
    whole = value(samples)
    if whole.shape != samples.shape[:-1]:
        raise ValueError(f"value must map (..., m) to {tuple(samples.shape[:-1])}, got {tuple(whole.shape)}.")
    others = torch.arange(m).expand(m, m)[~torch.eye(m, dtype=torch.bool)].view(m, m - 1).to(samples.device)
    without = value(samples[..., others])
    return as_advantages(m * (whole.unsqueeze(-1) - without).to(torch.float64), rewards)


def minus_others(values: Tensor) -> Tensor:
    """Return v_i − mean_{j≠i} v_j of float64 values (..., M ≥ 2), exactly zero where all are equal."""
    m = values.shape[-1]
    return _centred(values) * (m / (m - 1))


def _centred(values: Tensor) -> Tensor:
    """Return v_i − v̄, exactly zero where all values are equal: the mean of M equal floats need not equal them."""
    shifted = values - values[..., :1]
    return shifted - shifted.mean(-1, keepdim=True)
