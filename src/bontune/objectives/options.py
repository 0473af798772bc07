"""The options of the objectives, one class for each set of keys; the fields are keys of a recipe's ``objective``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class NoOptions:
    """The objective has no options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BonRlOptions:
    """Options of ``bon_rl`` and ``bon_rl_variational``."""

    baseline: Literal["loo", "loo1", "none"] = "loo"
    """Variance reduction: leave one sample out, leave one out at N − 1, or none."""
    draw: Literal["all", "winner"] = "all"
    """``all`` samples carry credit, or only the ``winner`` of every N samples, as in the paper."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankOptions:
    """Options of the objective ``rank``; each field is a key of the recipe's section ``objective``."""

    weights: Literal["best_of", "top_m", "cvar", "mean"] | list[float] = "best_of"
    """Which ranks among the N are paid: the best, the best ``m``, the worst ``share``, all alike, or a weight for each
    rank from the best on."""
    m: int = 4
    """Number of the best samples that ``top_m`` pays."""
    share: float = 0.25
    """Share of the N samples that ``cvar`` pays, the worst ones."""
    baseline: Literal["loo", "loo1", "none"] = "loo"
    """Variance reduction: leave one sample out, rank one sample last, or none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BonRlbpOptions:
    """Options of the objective ``bon_rlbp``; each field is a key of the recipe's section ``objective``."""

    baseline: Literal["loo", "none"] = "loo"
    """Variance reduction: the mean of the other samples' weights (for ``draw: winner`` a value that follows from
    P_fail), or none."""
    draw: Literal["all", "winner"] = "all"
    """``all`` samples carry credit, or only the ``winner`` of every N samples, as in the paper."""
    p_fail: Literal["plugin", "running", "value_head"] = "plugin"
    """P_fail comes from this batch, from a running average per prompt, or from a value head on the prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BonRlbOptions:
    """Options of the objective ``bon_rlb``; each field is a key of the recipe's section ``objective``."""

    baseline: Literal["loo", "none"] = "loo"
    """Variance reduction: the mean of the other samples' weights (for ``draw: winner`` a value that follows from
    P_fail), or none."""
    draw: Literal["all", "winner"] = "all"
    """``all`` samples carry credit, or only the ``winner`` of every N samples, as in the paper."""
    p_fail: Literal["plugin", "running", "value_head"] = "plugin"
    """P_fail comes from this batch, from a running average per prompt, or from a value head on the prompt."""
    sign: Literal["exact", "published"] = "exact"
    """Sign of the weight on wrong samples: the exact gradient's, or the one that the paper prints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PkpoOptions:
    """Options of the objective ``pkpo``; each field is a key of the recipe's section ``objective``."""

    baseline: Literal["loo", "loo1", "none"] = "loo1"
    """Variance reduction; ``loo1`` is the estimator of the paper that introduced PKPO."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RftOptions:
    """Options of the objective ``rft``; each field is a key of the recipe's section ``objective``."""

    distinct: bool = False
    """Whether only the first of several equal correct texts is kept."""
    normalised: bool = True
    """Whether the kept samples of a prompt weigh one over their number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BonDistillationOptions:
    """Options of the objective ``bon_distillation``; each field is a key of the recipe's section ``objective``."""

    winners: Literal["all", "correct"] = "all"
    """Whether all Best-of-N winners are trained on, or only the correct ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BonSftOptions:
    """Options of the objective ``bon_sft``; each field is a key of the recipe's section ``objective``."""

    baseline: Literal["loo", "none"] = "loo"
    """Variance reduction: leave one sample out, or none."""
    law: Literal["exact", "no_ties", "variational"] = "variational"
    """The law of Best-of-N whose likelihood is maximised; the paper's variational one trains better than the exact one,
    which imitates the choice among right answers (docs/paper.md)."""
    estimate: Literal["loo", "plugin"] = "loo"
    """Whether a sample is left out when its own place in that law is estimated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BonbonOptions:
    """Options of the objective ``bonbon``; each field is a key of the recipe's section ``objective``."""

    alpha: float = 0.005
    """Share of SFT on winners in the loss, in [0, 1]."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class VbonOptions:
    """Options of the objective ``vbon``; each field is a key of the recipe's section ``objective``."""

    estimate: Literal["plugin", "harmonic"] = "plugin"
    """Estimator of the log-quantile of a score."""
    reference_samples: int | None = None
    """K, samples of the anchor to compare with; 0: the policy's own samples; null: as many as ``sampling.samples``."""

    def __post_init__(self) -> None:
        if self.reference_samples is not None and self.reference_samples < 0:
            raise ValueError(f"reference_samples must be 0 or more, or null, got {self.reference_samples}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class BondOptions:
    """Options of the objective ``bond``; each field is a key of the recipe's section ``objective``."""

    beta: float = 0.5
    """Share of the backward KL divergence, in [0, 1]."""
    law: Literal["exact", "no_ties"] = "exact"
    """The law of Best-of-N that is the target."""
    estimate: Literal["plugin", "harmonic"] = "plugin"
    """Estimator of the log-quantile of a score."""
    reference_samples: int | None = None
    """K, samples of the anchor to compare with; 0: the policy's own samples; null: as many as ``sampling.samples``."""

    def __post_init__(self) -> None:
        if self.reference_samples is not None and self.reference_samples < 0:
            raise ValueError(f"reference_samples must be 0 or more, or null, got {self.reference_samples}.")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must lie in [0, 1], got {self.beta}.")
