"""Checks and conversions at the beginning and end of every objective."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FloatArray: TypeAlias = NDArray[np.float64]


def as_samples(values: Any, name: str, min_samples: int = 1) -> Tensor:
    """Turn an array into a tensor of shape (..., M) and check it: real numbers, no NaN, at least ``min_samples``.

    Args:
        values: torch tensor, NumPy array or nested sequence; float, int or bool.
        name: name of the argument in messages.
        min_samples: smallest M that is allowed.

    Raises:
        ValueError: not an array of real numbers, no sample axis, too few samples, or NaN.
    """
    try:
        # torch reads lists as float32, in which different scores may become equal; NumPy reads them exactly.
        samples = (values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))).detach()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be an array of numbers of shape (..., M), got {type(values).__name__}."
        ) from error
    if samples.is_complex():
        raise ValueError(f"{name} must be real numbers, got dtype {samples.dtype}.")
    if samples.ndim == 0:
        raise ValueError(f"{name} must have shape (..., M) with the samples of one prompt last, got a single number.")
    if samples.shape[-1] < min_samples:
        raise ValueError(f"{name} has {samples.shape[-1]} samples per prompt, needs at least {min_samples}.")
    if samples.is_floating_point() and bool(samples.isnan().any()):
        raise ValueError(f"{name} contains NaN; every entry needs a number (drop or re-grade samples that have none).")
    return samples


def as_rewards(rewards: Any, min_samples: int = 1) -> Tensor:
    """Convert rewards to float64 of shape (..., M), because sums over subsets of float32 or int8 rewards are not exact.

    Raises:
        ValueError: see :func:`as_samples`; also if a reward is infinite.
    """
    samples = as_samples(rewards, "rewards", min_samples).to(torch.float64)
    if bool(samples.isinf().any()):
        raise ValueError("rewards contains an infinite value; an average over samples needs finite rewards.")
    return samples


def as_binary_rewards(rewards: Any, objective: str, min_samples: int = 1) -> Tensor:
    """Convert rewards as :func:`as_rewards` does, and check that every reward is 0 or 1."""
    samples = as_rewards(rewards, min_samples)
    if not bool(((samples == 0) | (samples == 1)).all()):
        worst = samples[(samples != 0) & (samples != 1)].flatten()[0].item()
        raise ValueError(f"{objective} is derived for rewards of 0 or 1, got {worst:g}; for graded rewards use bon_rl.")
    return samples


def as_scores(scores: Any, rewards: Tensor) -> Tensor:
    """Check verifier scores of the rewards' shape; they keep their dtype, as they are only compared; ±inf is valid."""
    samples = as_samples(scores, "scores")
    if samples.shape != rewards.shape:
        raise ValueError(
            f"scores and rewards need the same shape, got {tuple(samples.shape)} and {tuple(rewards.shape)}."
        )
    return samples.to(rewards.device)


def as_advantages(advantages: Tensor, rewards: Any) -> Tensor:
    """Convert advantages to the rewards' floating dtype; for integer and bool rewards they stay in float64."""
    if not isinstance(rewards, Tensor):
        rewards = torch.from_numpy(np.array(rewards))
    return advantages.to(rewards.dtype if rewards.is_floating_point() else torch.float64)


def as_per_prompt(values: Any, rewards: Tensor, name: str) -> Tensor:
    """Return one finite value per prompt as float64 of shape (..., 1); see :func:`per_prompt`.

    Raises:
        ValueError: not numbers, NaN or infinite values, or a shape that does not fit the rewards'.
    """
    numbers = per_prompt(values, rewards, name)
    if bool(numbers.isinf().any()):
        raise ValueError(f"{name} contains an infinite value; it needs one finite number per prompt.")
    return numbers.to(torch.float64)


def per_prompt(values: Any, samples: Tensor, name: str) -> Tensor:
    """Return one value per prompt in its own dtype and shape (..., 1), from a number or an array (...) or (..., 1).

    Raises:
        ValueError: not numbers, NaN, or a shape that does not fit the samples'.
    """
    numbers = as_samples(torch.atleast_1d(values) if isinstance(values, Tensor) else np.atleast_1d(values), name)
    numbers, leading = numbers.to(samples.device), samples.shape[:-1]
    if numbers.shape == (*leading, 1):
        return numbers
    if numbers.numel() == 1:
        return numbers.reshape(()).expand(*leading, 1)
    if numbers.shape == leading:
        return numbers.unsqueeze(-1)
    raise ValueError(f"{name} needs one value per prompt, shape {tuple(leading)}, got {tuple(numbers.shape)}.")


def as_failure_rate(p_fail: Any, rewards: Tensor, clip: tuple[float, float]) -> Tensor:
    """Return P_fail per prompt, shape (..., 1), clipped; None gives the plug-in estimate, the share of wrong samples.

    Args:
        p_fail: None, a number, or an array of the rewards' leading shape (...) or (..., 1).
        rewards: (..., M) float64, 0 or 1.
        clip: lower and upper bound; the paper's Table 2 has [0.01, 0.99].
    """
    if p_fail is None:
        estimate = 1.0 - rewards.mean(-1, keepdim=True)
    else:
        estimate = as_per_prompt(p_fail, rewards, "p_fail")
        outside = estimate[(estimate < 0) | (estimate > 1)]
        if outside.numel():
            raise ValueError(
                f"p_fail is the probability that one sample fails and must lie in [0, 1], got {outside[0]:g}."
            )
    return estimate.clamp(*clip)
