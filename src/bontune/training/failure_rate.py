"""P_fail, the probability that one sample of a prompt fails, for the closed-form objectives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from bontune.pools.collect import Graded
from bontune.training import checkpoint
from bontune.training.forward import CausalLM

MEMORY = 0.7
"""Weight of the past in a prompt's running average: prompts come back once an epoch, and the policy moves between."""


class FailureRates:
    """Estimates P_fail of a prompt in one of three ways.

    ``plugin`` takes the share in the batch itself (biased, of little variance), ``running`` an average over earlier
    visits of the prompt, ``value_head`` a model that reads the prompt. The last two do not look at the batch that they
    weigh, so they are unbiased up to staleness.
    """

    def __init__(self, kind: str, lm: CausalLM, *, value_lr: float) -> None:
        """
        Args:
            kind: ``plugin``, ``running`` or ``value_head``.
            lm: the policy, whose hidden state at the prompt's end the value head reads (without gradient into it).
            value_lr: learning rate of the value head; Table 2 has 1e-5.
        """
        self.kind = kind
        self.lm = lm
        self.running: dict[str, float] = {}
        self.overall = 0.5
        self.head: nn.Linear | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        if kind == "value_head":
            self.head = nn.Linear(lm.core.config.get_text_config().hidden_size, 1).to(lm.core.device)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
            self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=value_lr, weight_decay=0.0)

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Groups of tensors and plain values that a checkpoint has to keep."""
        values: dict[str, Any] = {"running": self.running, "overall": self.overall}
        if self.head is None or self.optimizer is None:
            return {}, values
        tensors: dict[str, dict[str, Tensor]] = {
            "value_head": dict(self.head.named_parameters()),
            "value_optimizer": checkpoint.optimizer_tensors(self.optimizer, self.head),
        }
        return tensors, values

    def restore(self, tensors: Mapping[str, dict[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.running, self.overall = dict(values["running"]), float(values["overall"])
        if self.head is not None and self.optimizer is not None:
            self.head.load_state_dict(tensors["value_head"])
            checkpoint.load_optimizer(self.optimizer, self.head, tensors["value_optimizer"])

    def estimate(self, graded: Graded) -> Tensor | None:
        """P_fail (P,) as it was estimated before this batch; None: the objective uses the share in the batch."""
        if self.kind == "running":
            rates = [self.running.get(problem.id, self.overall) for problem in graded.problems]
            return torch.tensor(rates, dtype=torch.float64)
        if self.head is not None:
            with torch.no_grad():
                logits = self.head(self.lm.prompt_features(graded.samples.prompts)).squeeze(-1)
            return torch.sigmoid(logits).double().cpu()
        return None

    def learn(self, graded: Graded, accelerator: Any) -> None:
        """Learn from a batch that was weighed; prompts that were not graded in full teach nothing."""
        failed_P, is_graded_P = 1.0 - graded.rewards_PM.mean(-1), graded.is_graded_P
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
            logits = self.head(self.lm.prompt_features(graded.samples.prompts)).squeeze(-1)
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
