"""Samples of another policy: ratios of the policy that is trained to the behaviour policy, and what they do to weights.

The engine μ drew the samples and π is trained: μ rounds otherwise (an inference engine), or π has moved on (several
updates on one batch). Every sample keeps its advantage, which was made from its whole group; only the advantage is
multiplied, by ρ = π/μ of its own tokens. A sample is never taken out of a group whose advantages are made: that would
break their sum. The exact correction would multiply the ratios of every subset of N samples, whose variance makes it
useless. This first-order one is exact for plain RL; for Best-of-N, whose advantages depend on the other samples of the
pool, most of the bias stays, of the order of max|ρ − 1| (docs/estimators.md, "Samples of another policy").

Shapes: ``_N`` tokens of some rows, flattened; ``_R`` rows.

References:
    First-order weights for max@k: arXiv 2510.23393, Section 3. Clipping: Schulman et al., arXiv 1707.06347, Eq. 7.
    Ratios of whole sequences: Zheng et al., arXiv 2507.18071 (there the mean over tokens, here the product).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bontune.base.errors import RunStopped


@dataclass(frozen=True, kw_only=True, slots=True)
class RatioOptions:
    """What is done with the ratios."""

    importance: Literal["none", "token_clip", "sequence_truncate"] = "none"
    """Multiply advantages by min(ρ, cap), of each token or of the sequence."""
    cap: float = 2.0
    """Largest weight c ≥ 1."""
    clip: Literal["none", "token", "sequence"] = "none"
    """Multiply by ρ where the proximal objective min(ρA, clip(ρ, 1 − ε, 1 + ε)A) has a slope, and by 0 where not."""
    clip_range: float = 0.2
    """ε of the clipping."""

    @property
    def are_used(self) -> bool:
        """Whether ratios change anything."""
        return self.importance != "none" or self.clip != "none"

    @property
    def are_of_sequences(self) -> bool:
        """Whether one ratio stands for all tokens of a sequence."""
        return self.importance == "sequence_truncate" or self.clip == "sequence"


@dataclass(kw_only=True, slots=True)
class RatioSums:
    """Sums over the samples whose ratios are known, to be added over micro-batches and processes."""

    samples: float = 0.0
    """Number of samples."""
    ratio: float = 0.0
    """Sum of the sequences' ratios."""
    ratio_squared: float = 0.0
    """Sum of their squares."""
    kl: float = 0.0
    """Σ over tokens of ρ_t − 1 − log ρ_t, whose mean is KL(μ‖π); it is never negative."""
    pieces: float = 0.0
    """Number of tokens or sequences that have a ratio of their own."""
    truncated: float = 0.0
    """Those of them that were capped or clipped."""

    @classmethod
    def of(cls, values: Sequence[float]) -> RatioSums:
        """Sums from their :meth:`values`."""
        return cls(**dict(zip(cls.__slots__, values, strict=True)))

    def values(self) -> list[float]:
        """All sums, in order."""
        return [getattr(self, name) for name in self.__slots__]

    def add(self, other: RatioSums) -> None:
        """Add other sums to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def numbers(self) -> dict[str, float]:
        """For ``metrics.jsonl``: mean ratio, effective sample size as a share, share truncated, KL(μ‖π) per sample."""
        samples = max(self.samples, 1.0)
        return {
            "ratio": self.ratio / samples,
            "effective_samples": self.ratio**2 / max(samples * self.ratio_squared, 1e-300),
            "truncated": self.truncated / max(self.pieces, 1.0),
            "engine_kl": self.kl / samples,
        }


@torch.no_grad()
def weigh_by_ratio(
    weight_N: Tensor, now_N: Tensor, drawn_N: Tensor, lengths_R: Tensor, options: RatioOptions
) -> tuple[Tensor, RatioSums]:
    """Multiply weights by what the ratios make of them.

    Args:
        weight_N: each token's weight, its sample's advantage up to a positive factor.
        now_N: log π of each token, under the policy that is trained.
        drawn_N: log μ of each token, as the engine reported it.
        lengths_R: number of tokens of each row; they sum to N.
        options: what is done with the ratios.

    Returns:
        Weights (N,), and the sums.

    Raises:
        RunStopped: a ratio is not finite.
    """
    row_N = torch.arange(len(lengths_R), device=now_N.device).repeat_interleave(lengths_R)
    log_ratio_N = now_N.double() - drawn_N.double()
    sequence_R = torch.zeros(len(lengths_R), dtype=torch.float64, device=now_N.device)
    sequence_R.index_add_(0, row_N, log_ratio_N)
    ratio_R = sequence_R.exp()
    if not bool(ratio_R.isfinite().all()):
        raise RunStopped(
            "a sample's probability under the policy and under the engine that drew it have no finite ratio: engine "
            "and trainer compute different things"
        )
    ratio_N = ratio_R[row_N] if options.are_of_sequences else log_ratio_N.exp()
    factor_N, is_truncated_N = torch.ones_like(ratio_N), torch.zeros_like(ratio_N, dtype=torch.bool)
    if options.importance != "none":
        factor_N, is_truncated_N = ratio_N.clamp(max=options.cap), ratio_N > options.cap
    elif options.clip != "none":
        is_up_N, is_down_N = ratio_N > 1 + options.clip_range, ratio_N < 1 - options.clip_range
        is_truncated_N = (is_up_N & (weight_N > 0)) | (is_down_N & (weight_N < 0))
        factor_N = torch.where(is_truncated_N, 0.0, ratio_N)
    if options.are_of_sequences:
        first_R = lengths_R.cumsum(0) - lengths_R
        truncated, pieces = float(is_truncated_N[first_R].sum()), float(len(lengths_R))
    else:
        truncated, pieces = float(is_truncated_N.sum()), float(len(ratio_N))
    sums = RatioSums(
        samples=float(len(lengths_R)),
        ratio=float(ratio_R.sum()),
        ratio_squared=float(ratio_R.square().sum()),
        kl=float((log_ratio_N.exp() - 1 - log_ratio_N).sum()),
        pieces=pieces,
        truncated=truncated,
    )
    return (weight_N * factor_N).to(weight_N.dtype), sums
