"""The guard of a run's first update: how far it moved the policy, and where that is too far.

A learning rate that suits a model of a million parameters ruins one of a hundred million in one step, and nothing in
the loss shows it. The KL between the policies before and after the update does.

Shapes: ``_P`` prompts, ``_N`` tokens of the looked-at completions, flattened.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from bontune.base.errors import RunStopped
from bontune.config import TrainingSection
from bontune.engines.contract import Samples
from bontune.training.anchor import Anchor
from bontune.training.forward import CausalLM, Rows
from bontune.training.losses import Reference, kl_to_reference
from bontune.training.processes import sum_over_processes
from bontune.training.schedules import learning_rate

NUM_SAMPLES = 8
"""Completions that the KL is measured on, one for each of the first prompts: the mean need not be known closely."""
SMALL_KL = 0.01
"""Nats that a first update may well move the policy by; the rate that the guard proposes aims at it."""


class FirstStep:
    """Stops a run whose first update moves the policy too far."""

    def __init__(self, training: TrainingSection, lm: CausalLM, anchor: Anchor, accelerator: Any) -> None:
        """
        Args:
            training: for the bound ``first_step_kl`` and the rates.
            lm: the policy.
            anchor: at a run's beginning the policy itself, so that it tells where the update started from.
            accelerator: for the mean over processes.
        """
        self.training = training
        self.lm = lm
        self.anchor = anchor
        self.accelerator = accelerator
        self.is_due = training.first_step_kl is not None
        """Whether the update that moves the policy for the first time is still to come."""
        self.measured: tuple[int, float] | None = None
        """The step that was measured, and the nats for each completion by which it moved the policy."""

    def check(self, samples: Samples, temperature: float, step: int) -> None:
        """Measure the first update, after the optimizer has moved the policy and before the anchor follows.

        Raises:
            RunStopped: the policy moved further than ``first_step_kl``; its weights are those from before the update.
        """
        assert self.training.first_step_kl is not None, "nothing is due without a bound"
        self.is_due = False
        num, local = self._measure(samples, temperature)
        total, num = sum_over_processes(self.accelerator, [local, num])
        kl = total / num
        self.measured = (step, kl)
        if kl > self.training.first_step_kl or not math.isfinite(kl):
            self.anchor.restore(dict(self.anchor.weights()), dict(self.anchor.weights()))
            raise RunStopped(self._refusal(kl, step))

    def numbers(self, step: int) -> dict[str, float]:
        """``first_step_kl`` for the row of the step that was measured; nothing for other steps."""
        return {"first_step_kl": self.measured[1]} if self.measured is not None and self.measured[0] == step else {}

    @torch.no_grad()
    def _measure(self, samples: Samples, temperature: float) -> tuple[float, float]:
        """Number of completions, and the sum over them of KL(policy ‖ anchor), exact in each token's distribution."""
        count = min(NUM_SAMPLES, len(samples.prompts))
        chosen = torch.arange(count) * samples.num_samples
        everything = Rows.of(samples)
        rows = everything.select(chosen)
        rows = dataclasses.replace(rows, owner_R=torch.arange(count)).to(self.lm.core.device)
        prompts = samples.prompts[:count]
        lower = self.lm.lower_prefix(samples, range(count))
        rows = self.lm.with_lower(lower, rows)
        hidden_NH = self.lm.hidden_of_tokens(self.lm.encode(prompts, lower), rows)
        with self.anchor.in_place_of_policy():
            before_NH = self.lm.hidden_of_tokens(self.lm.encode(prompts, lower), rows)
        before = Reference(hidden_NH=before_NH, head_parameters=self.anchor.parameters_of(self.lm.head))
        return float(count), kl_to_reference(self.lm, hidden_NH, before, temperature)

    def _refusal(self, kl: float, step: int) -> str:
        training = self.training
        now = learning_rate(step, training)
        rate = f"{now:.2g}" if now == training.lr else f"{now:.2g} on its way to {training.lr:g}"
        proposed = training.lr * math.sqrt(SMALL_KL / kl) if math.isfinite(kl) else training.lr / 100
        return (
            f"The learning rate is too high for this model, try training.lr={float(f'{proposed:.0e}'):g}: the first "
            f"update, with {rate}, moved the policy by {kl:.3g} nats of KL for each completion, where "
            f"training.first_step_kl allows {training.first_step_kl:g},"
        )
