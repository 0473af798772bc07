"""Everything that a run goes on from, as one checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bontune.config import Recipe, TrainingSection
from bontune.training import setup
from bontune.training.anchor import Anchor
from bontune.training.checkpoint import Checkpoint, Identity, load_optimizer, optimizer_tensors
from bontune.training.evaluation import BestSteps
from bontune.training.failure_rate import FailureRates
from bontune.training.forward import CausalLM
from bontune.training.refill import Refill
from bontune.training.refit import Refit
from bontune.training.schedules import learning_rate
from bontune.training.sharding import Sharding


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """The parts of a run that change from step to step."""

    model: torch.nn.Module
    """The policy."""
    optimizer: torch.optim.Optimizer
    """The policy's optimizer."""
    anchor: Anchor
    """The KL reference."""
    failure_rates: FailureRates
    """What is known of P_fail."""
    refill: Refill
    """How many further prompts were drawn."""
    refit: Refit
    """The verifier, and the samples that it learns from."""
    best: BestSteps
    """The best evaluations so far."""
    identity: Identity
    """What decides the run."""

    @classmethod
    def at_start(
        cls,
        recipe: Recipe,
        model: torch.nn.Module,
        lm: CausalLM,
        identity: Identity,
        refit: Refit,
        accelerator: Any,
        sharding: Sharding | None,
    ) -> RunState:
        """The state before the first step, for a model and its parts as they are now."""
        p_fail = getattr(recipe.objective.options(), "p_fail", "plugin")
        return cls(
            model=model,
            optimizer=setup.make_optimizer(recipe, model),
            anchor=Anchor(model, recipe.kl.anchor_ema, sharding),
            failure_rates=FailureRates(p_fail, lm, value_lr=recipe.training.value_lr, steps=recipe.training.steps),
            refill=Refill(recipe, accelerator.num_processes, accelerator.process_index),
            refit=refit,
            best=BestSteps(recipe),
            identity=identity,
        )

    def checkpoint(self, step: int, *, is_wanted: bool = True) -> Checkpoint:
        """The state after a step; where it is not wanted, this process only helps to put the tensors together."""
        value_tensors, value_state = self.failure_rates.state()
        verifier_tensors, verifier_state = self.refit.state()
        tensors = {
            "policy": _on_cpu(self.anchor.policy_weights(), is_wanted),
            "anchor": _on_cpu(self.anchor.weights(), is_wanted),
            "optimizer": _on_cpu(optimizer_tensors(self.optimizer, self.model), is_wanted),
            **value_tensors,
            **verifier_tensors,
        }
        state = {"step": step, "refilled": self.refill.num_drawn} | value_state | verifier_state | self.best.state()
        return Checkpoint(tensors=tensors, state=state, identity=self.identity)

    def summary(self, recipe: Recipe, step: int, drawn: int) -> dict[str, Any]:
        """What is said of a finished run; ``drawn``: sequences that an engine drew for a prompt."""
        found = {
            "objective": recipe.objective.name,
            "n": recipe.objective.n,
            "steps": step,
            "best": self.best.own,
            "generations": (step * recipe.training.prompts_per_step + self.refill.num_drawn) * drawn,
        }
        return found | ({"kept": self.best.kept} if self.best.kept else {})

    def restore(self, saved: Checkpoint) -> int:
        """Put back what a checkpoint holds; returns its step."""
        self.anchor.restore(saved.tensors["policy"], saved.tensors["anchor"])
        load_optimizer(self.optimizer, self.model, saved.tensors["optimizer"])
        self.failure_rates.restore(saved.tensors, saved.state)
        self.refill.num_drawn = int(saved.state.get("refilled", 0))
        self.refit.restore(saved.tensors, saved.state)
        self.best.restore(saved.state)
        return int(saved.state["step"])


def _on_cpu(tensors: Iterable[tuple[str, Tensor]], is_wanted: bool) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors if is_wanted}


def how_it_goes_on(step: int, planned: int, training: TrainingSection) -> str:
    """Say how a run goes on behind a step, which was to have ``planned`` steps."""
    if planned < training.steps:
        rate = learning_rate(step + 1, training)
        return (
            f"finished with {planned} steps, going on to {training.steps}; schedules are those of {training.steps} "
            f"steps, so that the learning rate goes on at {rate:.2g}"
        )
    if step == training.steps:
        return f"already finished: all {step} steps are done; training.steps=… gives it more"
    return f"continuing after step {step}"
