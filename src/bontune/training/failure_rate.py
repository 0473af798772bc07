"""P_fail, the probability that one sample of a prompt fails, for the closed-form objectives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from bontune.config import Recipe
from bontune.pools.collect import Graded
from bontune.training import checkpoint
from bontune.training.forward import CausalLM
from bontune.training.processes import sum_over_processes

MEMORY = 0.7
"""Weight of the past in a prompt's running average: prompts come back once an epoch, and the policy moves between."""


REACH, WITHIN = 5.0, 0.1
"""``value_lr: auto`` lets the value head's logit move by 5 nats in a tenth of the run's steps."""


class FailureRates:
    """Estimates P_fail of a prompt without looking at the batch that it weighs, and so unbiased up to staleness.

    ``running`` is an average over earlier visits of the prompt, ``value_head`` a model that reads the prompt. The third
    way, ``plugin``, is the share in the batch itself, biased and of little variance: the objective takes it alone.
    """

    def __init__(self, kind: str, lm: CausalLM, *, value_lr: float | Literal["auto"], steps: int) -> None:
        """
        Args:
            kind: ``running`` or ``value_head``.
            lm: the policy, whose hidden state at the prompt's end the value head reads (without gradient into it),
                shifted and scaled to mean 0 and variance 1.
            value_lr: learning rate of the value head; ``auto``: see :func:`rate_that_learns`.
            steps: of the run.
        """
        self.kind = kind
        self.lm = lm
        self.numbers: dict[str, float] = {}
        """How the estimates of the last batch compare with what it showed."""
        self._estimates: list[Tensor] = []
        self.running: dict[str, float] = {}
        self.overall = 0.5
        self.head: nn.Linear | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        if kind == "value_head":
            width = lm.core.config.get_text_config().hidden_size
            self.head = nn.Linear(width, 1).to(lm.core.device)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
            rate = rate_that_learns(steps, width) if value_lr == "auto" else value_lr
            self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=rate, weight_decay=0.0)

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Groups of tensors and plain values that a checkpoint has to keep."""
        values: dict[str, Any] = {"running": self.running, "overall": self.overall}
        if self.head is None or self.optimizer is None:
            return {}, values
        tensors: dict[str, dict[str, Tensor]] = {
            "value_head": dict(self.head.named_parameters()),
            "value_optimizer": dict(checkpoint.optimizer_tensors(self.optimizer, self.head)),
        }
        return tensors, values

    def restore(self, tensors: Mapping[str, dict[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.running, self.overall = dict(values["running"]), float(values["overall"])
        if self.head is not None and self.optimizer is not None:
            self.head.load_state_dict(tensors["value_head"])
            checkpoint.load_optimizer(self.optimizer, self.head, tensors["value_optimizer"])

    def estimate(self, graded: Graded) -> Tensor:
        """P_fail (P,) as it was estimated before this batch."""
        if self.kind == "running":
            rates = [self.running.get(problem.id, self.overall) for problem in graded.problems]
            self._estimates.append(torch.tensor(rates, dtype=torch.float64))
        elif self.head is not None:
            with torch.no_grad():
                self._estimates.append(torch.sigmoid(self._logits(graded)).double().cpu())
        return self._estimates[-1]

    def learn(self, graded: Graded, accelerator: Any) -> None:
        """Learn from a batch that was weighed, in one or several parts; prompts not graded in full teach nothing."""
        failed_P, is_graded_P = 1.0 - graded.rewards_PM.mean(-1), graded.is_graded_P
        if self._estimates:
            self.numbers = self._calibration(torch.cat(self._estimates), graded, failed_P, accelerator)
            self._estimates.clear()
        if self.kind == "running":
            rows = zip(graded.problems, failed_P.tolist(), is_graded_P.tolist(), strict=True)
            everyone = gather_object([(problem.id, failed) for problem, failed, is_graded in rows if is_graded])
            for name, failed in everyone:
                old = self.running.get(name)
                self.running[name] = failed if old is None else MEMORY * old + (1 - MEMORY) * failed
            if everyone:
                mean = sum(failed for _, failed in everyone) / len(everyone)
                self.overall = MEMORY * self.overall + (1 - MEMORY) * mean
        if self.head is not None and self.optimizer is not None:
            logits = self._logits(graded)
            weight_P = is_graded_P.float().to(logits.device) / max(int(is_graded_P.sum()), 1)
            loss = nn.functional.binary_cross_entropy_with_logits(
                logits, failed_P.float().to(logits.device), weight=weight_P, reduction="sum"
            )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if accelerator.num_processes > 1:
                for parameter in self.head.parameters():
                    assert parameter.grad is not None
                    parameter.grad.copy_(accelerator.reduce(parameter.grad, reduction="mean"))
            self.optimizer.step()

    def _logits(self, graded: Graded) -> Tensor:
        assert self.head is not None
        features_PH = self.lm.prompt_features(graded.samples.prompts)
        return self.head(nn.functional.layer_norm(features_PH, features_PH.shape[-1:])).squeeze(-1)

    def _calibration(self, estimate_P: Tensor, graded: Graded, failed_P: Tensor, accelerator: Any) -> dict[str, float]:
        """Compare the estimates with the shares that failed, over all processes.

        Returns:
            ``p_fail``: mean estimate. ``p_fail_skill``: 1 − mean squared error / variance of the shares; 0 is no better
            than one number for all prompts, negative is worse. ``p_fail_met``, of ``running`` alone: share of the
            prompts that were met before.
        """
        seen = graded.is_graded_P
        estimate, failed = estimate_P[seen], failed_P[seen].double().cpu()
        num_met = sum(problem.id in self.running for problem in graded.problems)
        sums = [estimate.sum(), failed.sum(), failed.square().sum(), (estimate - failed).square().sum()]
        local = [len(failed), *(total.item() for total in sums), num_met, len(graded.problems)]
        num, total, mean, square, error, met, prompts = sum_over_processes(accelerator, [float(x) for x in local])
        if not num:
            return {}
        variance = square / num - (mean / num) ** 2
        numbers = {"p_fail": total / num, "p_fail_skill": 1 - error / num / variance if variance > 1e-12 else 0.0}
        return numbers | ({"p_fail_met": met / prompts} if self.kind == "running" else {})


def rate_that_learns(steps: int, width: int) -> float:
    """A learning rate for the value head that lets it learn within a run.

    AdamW moves a weight by about its rate in a step, so the logit moves by the rate times the sum of the features'
    sizes, about 0.8 for each of ``width``. The paper's run gets what its Table 2 has, 1e-5:

    >>> f"{rate_that_learns(steps=2500, width=2304):.1e}"
    '1.1e-05'
    """
    return REACH / (WITHIN * steps * 0.8 * width)


def what_running_amounts_to(recipe: Recipe, num_problems: int) -> str | None:
    """How often ``p_fail=running`` meets a prompt, and what follows; None where the recipe does not ask for it."""
    if recipe.objective.row().p_fail_source(recipe.objective.options()) != "running":
        return None
    visits = recipe.training.steps * recipe.training.prompts_per_step / num_problems
    sentence = f"p_fail=running meets each of the {num_problems} prompts {visits:.3g} times in this run"
    if visits < 2:
        return (
            f"{sentence}: P_fail is about one number for all of them, and the objective amounts to plain RL; take "
            "p_fail=plugin, or objective.name=bon_rl, which needs no P_fail"
        )
    return f"{sentence}; a first visit takes the mean of all prompts"
