"""Supervised objectives in the loop: which sequences each trains on, and the weights it gives them.

Weights are in sum form here and become advantages at the end (times S, because the update divides by all columns).
Shapes: ``_P`` prompts, ``_S`` sequences of one prompt, ``_M`` own samples, ``_K`` samples of the anchor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

import bontune.objectives as objectives
from bontune.base.errors import BontuneError
from bontune.config import ObjectiveSection, Recipe
from bontune.engines.contract import Samples
from bontune.engines.seeds import stream
from bontune.training.anchor import Anchor
from bontune.training.forward import CausalLM
from bontune.training.likelihood import sequence_logprobs
from bontune.training.sequences import Columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What weights are made of."""

    columns: Columns
    """What the columns of the tensors are."""
    rewards_PS: Tensor
    """float64."""
    scores_PS: Tensor
    """float64."""
    logprobs_PX: Tensor | None = None
    """log π of the columns that the objective asks for."""
    ref_logprobs_PX: Tensor | None = None
    """log ref of the same."""
    texts: list[list[str]]
    """P × S completions."""
    seed_keys: Sequence[tuple[object, ...]]
    """One for each prompt, for ties that are broken at random."""

    def own(self, values_PS: Tensor) -> Tensor:
        """The columns of own samples."""
        return values_PS[:, : self.columns.own]

    def reference(self, values_PS: Tensor) -> Tensor | None:
        """The columns of the anchor's samples, if there are any."""
        start, number = self.columns.own, self.columns.reference
        return values_PS[:, start : start + number] if number else None

    def log_ratios(self) -> Tensor | None:
        """log π − log ref."""
        if self.logprobs_PX is None or self.ref_logprobs_PX is None:
            return None
        return self.logprobs_PX - self.ref_logprobs_PX


def _sft(o: ObjectiveSection, step: Step) -> Tensor:
    return torch.ones_like(step.rewards_PS)


def _dco(o: ObjectiveSection, step: Step) -> Tensor:
    return objectives.dco(step.logprobs_PX, o.n).weights


def _star(o: ObjectiveSection, step: Step) -> Tensor:
    return objectives.star(step.rewards_PS)


def _rft(o: ObjectiveSection, step: Step) -> Tensor:
    same = torch.tensor([[row.index(text) for text in row] for row in step.texts]) if o.distinct else None
    return objectives.rft(step.rewards_PS, same, **_given(is_normalised=o.normalised))


def _bon_distillation(o: ObjectiveSection, step: Step) -> Tensor:
    return objectives.bon_distillation(step.scores_PS, o.n, step.rewards_PS if o.winners == "correct" else None)


def _bon_sft(o: ObjectiveSection, step: Step) -> Tensor:
    weights = objectives.bon_sft(
        step.own(step.scores_PS),
        step.scores_PS[:, -1],
        o.n,
        **_given(law=o.law, baseline=o.baseline, estimate=o.estimate),
    )
    return torch.cat([weights.own, weights.expert.unsqueeze(-1)], dim=-1)


def _bonbon(o: ObjectiveSection, step: Step) -> Tensor:
    """The mean over the K // N pairs; a sample that is best and worst of a tied group gets both weights."""
    pairs_PG2 = torch.stack(
        [
            objectives.best_and_worst(scores, o.n, torch.Generator().manual_seed(int(stream(*key).integers(2**62))))
            for scores, key in zip(step.scores_PS, step.seed_keys, strict=True)
        ]
    )
    num_prompts, num_pairs, _ = pairs_PG2.shape

    def of_pairs(values_PS: Tensor) -> Tensor:
        return values_PS.gather(-1, pairs_PG2.flatten(1)).view(num_prompts, num_pairs, 2)

    scores_PG2 = of_pairs(step.scores_PS)
    logprobs, ref_logprobs = (
        torch.zeros_like(step.scores_PS) if x is None else x for x in (step.logprobs_PX, step.ref_logprobs_PX)
    )
    found = objectives.bonbon(
        of_pairs(logprobs),
        of_pairs(ref_logprobs),
        o.n,
        has_contrast=scores_PG2[..., 0] > scores_PG2[..., 1],
        **_given(alpha=o.alpha),
    )
    return torch.zeros_like(step.scores_PS).scatter_add(-1, pairs_PG2.flatten(1), found.weights.flatten(1) / num_pairs)


def _vbon(o: ObjectiveSection, step: Step) -> Tensor:
    advantages_PM = objectives.vbon(
        step.own(step.scores_PS), o.n, step.reference(step.scores_PS), step.log_ratios(), **_given(estimate=o.estimate)
    )
    return torch.nn.functional.pad(advantages_PM / step.columns.own, (0, step.columns.reference))


def _bond(o: ObjectiveSection, step: Step) -> Tensor:
    found = objectives.bond(
        step.own(step.scores_PS),
        step.reference(step.scores_PS),
        o.n,
        log_ratios=step.log_ratios(),
        **_given(beta=o.beta, law=o.law, estimate=o.estimate),
    )
    backward = found.advantages / step.columns.own
    if step.columns.reference:
        return torch.cat([backward, found.weights], dim=-1)
    return backward + found.weights


def _given(**options: Any) -> dict[str, Any]:
    """Without those that are left to the objective."""
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One supervised objective."""

    weigh: Callable[[ObjectiveSection, Step], Tensor]
    """Weights (P, S), sum form."""
    sequences: tuple[Literal["own", "reference", "demonstrated"], ...]
    """What it trains on or compares with."""
    logprobs: Literal["none", "policy", "ratio"] = "none"
    """What it needs of the sequences of the first kind: nothing, log π, or log π and log ref."""
    options: tuple[str, ...] = ()
    """Those of ``OPTIONS`` that it has a use for."""


KINDS: dict[str, Kind] = {
    "sft": Kind(weigh=_sft, sequences=("demonstrated",)),
    "dco": Kind(weigh=_dco, sequences=("demonstrated",), logprobs="policy"),
    "star": Kind(weigh=_star, sequences=("own",)),
    "rft": Kind(weigh=_rft, sequences=("own",), options=("distinct", "normalised")),
    "bon_distillation": Kind(weigh=_bon_distillation, sequences=("own",), options=("winners",)),
    "bon_sft": Kind(weigh=_bon_sft, sequences=("own", "demonstrated"), options=("law", "estimate")),
    "bonbon": Kind(weigh=_bonbon, sequences=("reference",), logprobs="ratio", options=("alpha",)),
    "vbon": Kind(
        weigh=_vbon, sequences=("own", "reference"), logprobs="ratio", options=("estimate", "reference_samples")
    ),
    "bond": Kind(
        weigh=_bond,
        sequences=("own", "reference"),
        logprobs="ratio",
        options=("beta", "law", "estimate", "reference_samples"),
    ),
}
"""The supervised objectives by name."""

OPTIONS = ("law", "estimate", "alpha", "beta", "distinct", "normalised", "winners", "reference_samples")
"""Keys of ``objective`` that only supervised objectives have a use for; null is each objective's own default."""


def columns_of(recipe: Recipe) -> Columns:
    """The sequences that a step of this recipe has for each prompt."""
    kind, num_samples = KINDS.get(recipe.objective.name), recipe.sampling.samples
    if kind is None:
        return Columns(own=num_samples)
    num_reference = recipe.objective.reference_samples
    return Columns(
        own=num_samples if "own" in kind.sequences else 0,
        reference=(num_samples if num_reference is None else num_reference) if "reference" in kind.sequences else 0,
        demonstrated=1 if "demonstrated" in kind.sequences else 0,
    )


def check_options(objective: ObjectiveSection) -> None:
    """Refuse what is set although the objective, supervised or not, has no use for it.

    Raises:
        BontuneError: there is such a key.
    """
    kind = KINDS.get(objective.name)
    for option in OPTIONS:
        users = [name for name, other in KINDS.items() if option in other.options]
        if getattr(objective, option) is not None and objective.name not in users:
            raise BontuneError(f"objective.{option} is for {', '.join(users)}; {objective.name} has no use for it.")
    if kind is None:
        return
    if objective.draw != "all":
        raise BontuneError(
            f"objective.draw=winner is for the paper's closed forms; {objective.name} has its own draws."
        )
    if objective.reward != "environment":
        raise BontuneError(
            f"objective.reward=verifier is for policy gradients; {objective.name} takes rewards and scores apart."
        )


def check(recipe: Recipe) -> None:
    """Weigh one prompt of zeros: whatever the objective would refuse during the run, it refuses now.

    Raises:
        ValueError: there is something.
    """
    columns = columns_of(recipe)
    zeros = torch.zeros(1, columns.total, dtype=torch.float64)
    some = zeros[:, : columns.measured]
    kind = KINDS[recipe.objective.name]
    kind.weigh(
        recipe.objective,
        Step(
            columns=columns,
            rewards_PS=zeros,
            scores_PS=zeros,
            texts=[[""] * columns.total],
            seed_keys=[(0,)],
            logprobs_PX=some - 1 if kind.logprobs != "none" else None,
            ref_logprobs_PX=some - 1 if kind.logprobs == "ratio" else None,
        ),
    )


class Supervised:
    """The weights of a step's sequences."""

    def __init__(self, recipe: Recipe, lm: CausalLM, anchor: Anchor) -> None:
        """
        Args:
            recipe: its objective is one of ``KINDS``.
            lm: the policy.
            anchor: the reference.
        """
        self.objective = recipe.objective
        self.kind = KINDS[recipe.objective.name]
        self.columns = columns_of(recipe)
        self.lm = lm
        self.anchor = anchor
        self.temperature = recipe.sampling.temperature
        self.token_budget = recipe.training.token_budget

    def advantages(
        self, samples: Samples, rewards_PS: Tensor, scores_PS: Tensor, seed_keys: Sequence[tuple[object, ...]]
    ) -> Tensor:
        """Weights (P, S) times S.

        Args:
            samples: the sequences.
            rewards_PS, scores_PS: float64.
            seed_keys: one for each prompt, for ties that are broken at random.

        Raises:
            ValueError: rewards or log-probabilities that the objective cannot take.
        """
        logprobs_PX = self._logprobs(samples) if self.kind.logprobs != "none" else None
        ref_logprobs_PX = None
        if self.kind.logprobs == "ratio":
            with self.anchor.in_place_of_policy():
                ref_logprobs_PX = self._logprobs(samples)
        step = Step(
            columns=self.columns,
            rewards_PS=rewards_PS,
            scores_PS=scores_PS,
            logprobs_PX=logprobs_PX,
            ref_logprobs_PX=ref_logprobs_PX,
            texts=samples.texts,
            seed_keys=seed_keys,
        )
        return self.kind.weigh(self.objective, step) * self.columns.total

    def _logprobs(self, samples: Samples) -> Tensor:
        """Of the columns of the first kind, by the same computation for policy and anchor: equal weights, ratio 0."""
        rows_PX = torch.arange(len(samples.lengths_B)).view(-1, self.columns.total)[:, : self.columns.measured]
        sums = sequence_logprobs(
            self.lm, samples, rows_PX.flatten(), temperature=self.temperature, token_budget=self.token_budget
        )
        return sums.view(rows_PX.shape)
