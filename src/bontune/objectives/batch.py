"""The batch that an objective gets, and the advantages (or weights of a loss) that each row of the table makes of it.

Shapes: ``_P`` prompts, ``_S`` sequences of one prompt: the policy's own samples first, then the anchor's, then the
task's demonstration; ``_X`` the first kind of sequence that there is; ``_G`` groups of N
samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from bontune.objectives.best_of_n import bon_rl, bon_rl_variational
from bontune.objectives.budgets import Budgets, as_budgets
from bontune.objectives.closed_forms import bon_rlb, bon_rlbp
from bontune.objectives.distillation import best_and_worst, bonbon, bond, vbon
from bontune.objectives.imitation import bon_distillation, dco, rft
from bontune.objectives.likelihood import bon_sft
from bontune.objectives.max_at_k import passk_training, pkpo
from bontune.objectives.options import (
    BonbonOptions,
    BonDistillationOptions,
    BondOptions,
    BonRlbOptions,
    BonRlbpOptions,
    BonRlOptions,
    BonSftOptions,
    NoOptions,
    PkpoOptions,
    RankOptions,
    RftOptions,
    VbonOptions,
)
from bontune.objectives.ranks import rank
from bontune.objectives.votes import majority_vote
from bontune.objectives.winners import draw_winners, winner_advantages

Source = Literal["own", "reference", "demonstrated"]
"""Writer of a sequence: the policy, the anchor, or the task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """How many sequences of each source a prompt has in a batch, in this order."""

    own: int = 0
    """Samples of the policy."""
    reference: int = 0
    """Samples of the anchor."""
    demonstrated: int = 0
    """The task's own answer: 0 or 1."""

    @property
    def total(self) -> int:
        """S, the number of all sequences of a prompt."""
        return self.own + self.reference + self.demonstrated

    @property
    def drawn(self) -> int:
        """The number of sequences that an engine has to draw."""
        return self.own + self.reference

    @property
    def measured(self) -> int:
        """The number of sequences of the first source, which the KL and the metrics of a step are about."""
        return self.own or self.reference or self.demonstrated

    def kl_share(self, share: float) -> float:
        """The share of all sequences that equals ``share`` of the measured ones, rounded up as the updater rounds."""
        return (math.ceil(share * self.measured) - 0.5) / self.total


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Everything that an objective may weigh the sequences of P prompts by."""

    sources: Sources
    """How many sequences of each source the last axis of the tensors holds."""
    rewards_PS: Tensor
    """float64, what each sequence is worth."""
    scores_PS: Tensor
    """float64, what the verifier thinks of each sequence."""
    p_fail_P: Tensor | None = None
    """Estimated probability that one sample fails; None: the objective takes the share in the batch."""
    logprobs_PX: Tensor | None = None
    """log π of the sequences of the first source, where the table says that the objective needs it."""
    ref_logprobs_PX: Tensor | None = None
    """log of the anchor's probability of the same sequences."""
    same_as_PS: Tensor | None = None
    """int64, for each sequence the first one of its prompt with an equal text."""
    answers_PS: Tensor | None = None
    """int64, a number for each different answer of a prompt; −1: no answer."""
    generator_of: Callable[[int], torch.Generator] = field(default=lambda p: torch.Generator())
    """Makes the generator for random choices within prompt p; which process holds the prompt makes no difference."""

    def own(self, values_PS: Tensor) -> Tensor:
        """The part of the last axis that holds the policy's own samples."""
        return values_PS[:, : self.sources.own]

    def reference(self, values_PS: Tensor) -> Tensor | None:
        """The part of the last axis that holds the anchor's samples, if there are any."""
        start, number = self.sources.own, self.sources.reference
        return values_PS[:, start : start + number] if number else None

    def log_ratios(self) -> Tensor | None:
        """log π − log of the anchor's probability, where both are known."""
        if self.logprobs_PX is None or self.ref_logprobs_PX is None:
            return None
        return self.logprobs_PX - self.ref_logprobs_PX


def winners_of(name: str, batch: Batch, n: int, **options: Any) -> Tensor:
    winners = torch.stack([draw_winners(scores, n, batch.generator_of(p)) for p, scores in enumerate(batch.scores_PS)])
    return winner_advantages(name, batch.rewards_PS, batch.scores_PS, n, winners, batch.p_fail_P, **options)


def each_budget(weigh: Callable[[Batch, int, Any], Tensor]) -> Callable[[Batch, Budgets, Any], Tensor]:
    """Weigh by each of several budgets in turn, and sum with their weights."""

    def weigh_all(batch: Batch, n: Budgets, o: Any) -> Tensor:
        parts = [weight * weigh(batch, budget, o) for budget, weight in as_budgets(n).items()]
        return torch.stack(parts).sum(0)

    return weigh_all


def weigh_pkpo(batch: Batch, n: Budgets, o: PkpoOptions) -> Tensor:
    return pkpo(batch.rewards_PS, n, o.baseline)


@each_budget
def weigh_passk_training(batch: Batch, n: int, o: NoOptions) -> Tensor:
    return passk_training(batch.rewards_PS, n)


def weigh_bon_rl(batch: Batch, n: Budgets, o: BonRlOptions) -> Tensor:
    if o.draw == "winner":
        return each_budget(lambda batch, n, o: winners_of("bon_rl", batch, n))(batch, n, o)
    return bon_rl(batch.rewards_PS, batch.scores_PS, n, o.baseline)


def weigh_rank(batch: Batch, n: Budgets, o: RankOptions) -> Tensor:
    return rank(batch.rewards_PS, batch.scores_PS, n, o.weights, m=o.m, share=o.share, baseline=o.baseline)


def weigh_majority_vote(batch: Batch, n: Budgets, o: NoOptions) -> Tensor:
    if batch.answers_PS is None:
        raise ValueError("it needs the answers of the samples.")
    return majority_vote(batch.rewards_PS, batch.answers_PS, n)


@each_budget
def weigh_bon_rl_variational(batch: Batch, n: int, o: BonRlOptions) -> Tensor:
    if o.draw == "winner":
        return winners_of("bon_rl_variational", batch, n)
    return bon_rl_variational(batch.rewards_PS, batch.scores_PS, n, o.baseline)


@each_budget
def weigh_bon_rlb(batch: Batch, n: int, o: BonRlbOptions) -> Tensor:
    if o.draw == "winner":
        return winners_of("bon_rlb", batch, n, sign=o.sign, baseline=o.baseline)
    return bon_rlb(batch.rewards_PS, n, batch.p_fail_P, o.sign, o.baseline)


@each_budget
def weigh_bon_rlbp(batch: Batch, n: int, o: BonRlbpOptions) -> Tensor:
    if o.draw == "winner":
        return winners_of("bon_rlbp", batch, n, baseline=o.baseline)
    return bon_rlbp(batch.rewards_PS, n, batch.p_fail_P, o.baseline)


def weigh_sft(batch: Batch, n: Budgets, o: NoOptions) -> Tensor:
    return torch.ones_like(batch.rewards_PS)


def weigh_dco(batch: Batch, n: int, o: NoOptions) -> Tensor:
    return dco(batch.logprobs_PX, n).weights


def weigh_rft(batch: Batch, n: int, o: RftOptions) -> Tensor:
    return rft(batch.rewards_PS, batch.same_as_PS if o.distinct else None, is_normalised=o.normalised)


def weigh_bon_distillation(batch: Batch, n: int, o: BonDistillationOptions) -> Tensor:
    return bon_distillation(batch.scores_PS, n, batch.rewards_PS if o.winners == "correct" else None)


def weigh_bon_sft(batch: Batch, n: int, o: BonSftOptions) -> Tensor:
    own, expert = batch.own(batch.scores_PS), batch.scores_PS[:, -1]
    weights = bon_sft(own, expert, n, law=o.law, baseline=o.baseline, estimate=o.estimate)
    return torch.cat([weights.own, weights.expert.unsqueeze(-1)], dim=-1)


def weigh_bonbon(batch: Batch, n: int, o: BonbonOptions) -> Tensor:
    """The mean over the K // N pairs; a sample that is best and worst of a tied group gets both weights."""
    scores_PS = batch.scores_PS
    pairs_PG2 = torch.stack([best_and_worst(scores, n, batch.generator_of(p)) for p, scores in enumerate(scores_PS)])
    num_prompts, num_pairs, _ = pairs_PG2.shape

    def of_pairs(values_PS: Tensor | None) -> Tensor:
        values_PS = torch.zeros_like(scores_PS) if values_PS is None else values_PS
        return values_PS.gather(-1, pairs_PG2.flatten(1)).view(num_prompts, num_pairs, 2)

    has_contrast = of_pairs(scores_PS)[..., 0] > of_pairs(scores_PS)[..., 1]
    found = bonbon(
        of_pairs(batch.logprobs_PX), of_pairs(batch.ref_logprobs_PX), n, has_contrast=has_contrast, alpha=o.alpha
    )
    return torch.zeros_like(scores_PS).scatter_add(-1, pairs_PG2.flatten(1), found.weights.flatten(1) / num_pairs)


def weigh_vbon(batch: Batch, n: int, o: VbonOptions) -> Tensor:
    advantages_PM = vbon(
        batch.own(batch.scores_PS), n, batch.reference(batch.scores_PS), batch.log_ratios(), o.estimate
    )
    return torch.nn.functional.pad(advantages_PM / batch.sources.own, (0, batch.sources.reference))


def weigh_bond(batch: Batch, n: int, o: BondOptions) -> Tensor:
    found = bond(
        batch.own(batch.scores_PS),
        batch.reference(batch.scores_PS),
        n,
        log_ratios=batch.log_ratios(),
        beta=o.beta,
        law=o.law,
        estimate=o.estimate,
    )
    backward = found.advantages / batch.sources.own
    return torch.cat([backward, found.weights], dim=-1) if batch.sources.reference else backward + found.weights
