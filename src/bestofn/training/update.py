"""One update of the policy from one batch of samples and their advantages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bestofn.errors import RunStopped
from bestofn.sampling.samples import Poll, Samples
from bestofn.training.anchor import Anchor
from bestofn.training.forward import CausalLM, MicroBatch
from bestofn.training.losses import LossSums, Reference, backward_through_head


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateResult:
    """What an update did (over all processes)."""

    loss: float
    """−(1/PM) Σ A·log π + β·KL."""
    kl: float
    """KL to the anchor per sample, in nats, estimated on the KL share."""
    entropy: float
    """Mean entropy of the next-token distribution over the tokens that were computed, in nats."""
    grad_norm: float
    """Before clipping."""
    share_weighted: float
    """Share of samples with a non-zero advantage."""


class Updater:
    """Accumulates the gradient over micro-batches, checks it, and takes the optimizer's step."""

    def __init__(
        self, lm: CausalLM, optimizer: torch.optim.Optimizer, anchor: Anchor, accelerator: Any, *,
        temperature: float, token_budget: int, kl_share: float, max_grad_norm: float,
    ) -> None:  # fmt: skip
        """
        Args:
            lm: the policy.
            optimizer: its first parameter group is the policy's.
            anchor: the KL reference.
            accelerator: for the device, autocast and the sum over processes.
            temperature: T of the sampling policy.
            token_budget: rows × (prompt + completion) of a micro-batch.
            kl_share: share of each prompt's samples on which the KL is estimated.
            max_grad_norm: gradients are scaled down to it.
        """
        self.lm = lm
        self.optimizer = optimizer
        self.anchor = anchor
        self.accelerator = accelerator
        self.temperature = temperature
        self.token_budget = token_budget
        self.kl_share = kl_share
        self.max_grad_norm = max_grad_norm
        self.parameters: list[Tensor] = optimizer.param_groups[0]["params"]

    def accumulate(
        self, samples: Samples, advantages_PM: Tensor, *, kl_coef: float, num_prompts: int, poll: Poll | None = None
    ) -> LossSums:
        """Add the gradient of the loss over this process's samples to ``.grad``.

        Samples of zero advantage are skipped; the KL is estimated on the first ⌈share·M⌉ samples of every prompt,
        which is unbiased because samples are exchangeable and the choice does not look at them.

        Args:
            samples: P·M completions.
            advantages_PM: mean form.
            kl_coef: β; at 0 the reference is not computed.
            num_prompts: prompts of this update over all processes; the loss is a mean over num_prompts·M samples.
            poll: called before each micro-batch.
        """
        num_samples = samples.num_samples
        advantages_B = advantages_PM.reshape(-1).to(torch.float32)
        num_kl = math.ceil(self.kl_share * num_samples) if kl_coef > 0 else 0
        has_kl_B = torch.arange(len(advantages_B)) % num_samples < num_kl
        sums = LossSums()
        for rows_R in self._micro_batches(samples, ((advantages_B != 0) | has_kl_B).nonzero().squeeze(-1)):
            if poll is not None:
                poll()
            batch = _micro_batch(samples, rows_R)
            weight_R = advantages_B[rows_R] / (num_prompts * num_samples)
            kl_weight_R = has_kl_B[rows_R].to(torch.float32) / (num_prompts * max(num_kl, 1))
            with self.accelerator.autocast():
                sums.add(self._backward(batch.to(self.accelerator.device), samples, rows_R, weight_R, kl_weight_R, kl_coef))
        return sums

    def _backward(
        self, batch: MicroBatch, samples: Samples, rows_R: Tensor, weight_R: Tensor, kl_weight_R: Tensor, kl_coef: float
    ) -> LossSums:
        device = batch.tokens_RT.device
        reference = None
        kl_rows_R = rows_R[kl_weight_R != 0]
        if kl_coef > 0 and len(kl_rows_R):
            kl_batch = _micro_batch(samples, kl_rows_R).to(device)
            with torch.no_grad(), self.anchor.in_place_of_policy():
                hidden_NH = self.lm.hidden(kl_batch)[kl_batch.is_token_RT]
            reference = Reference(hidden_NH=hidden_NH, head_parameters=self.anchor.parameters_of(self.lm.head))
        is_token_RT = batch.is_token_RT
        hidden_NH = self.lm.hidden(batch)[is_token_RT]
        per_token = batch.lengths_R
        grad_NH, sums = backward_through_head(
            self.lm, hidden_NH.detach(), batch.tokens_RT[is_token_RT],
            weight_R.to(device).repeat_interleave(per_token), temperature=self.temperature,
            kl_weight_N=kl_weight_R.to(device).repeat_interleave(per_token), kl_coef=kl_coef, reference=reference,
        )  # fmt: skip
        hidden_NH.backward(grad_NH)
        return sums

    def step(
        self, samples: Samples, advantages_PM: Tensor, *, kl_coef: float, num_prompts: int, poll: Poll | None = None
    ) -> UpdateResult:
        """Accumulate, sum over processes, check, step, and move the anchor.

        Raises:
            RunStopped: the loss or the gradient is not finite; nothing has been changed then.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums = self.accumulate(samples, advantages_PM, kl_coef=kl_coef, num_prompts=num_prompts, poll=poll)
        weighted = float((advantages_PM != 0).sum())
        totals = self._sum([sums.policy, sums.kl, sums.entropy, sums.tokens, weighted, float(advantages_PM.numel())])
        policy, kl, entropy, tokens, weighted, count = totals
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if self.accelerator.num_processes > 1:
            for parameter in self.parameters:  # a process whose samples carry no weight still takes part in the sum
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            grads = [p.grad for p in self.parameters if p.grad is not None]
            for grad in grads:
                grad.copy_(self.accelerator.reduce(grad, reduction="sum"))
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)) if grads else 0.0
        loss = policy + kl_coef * kl
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise RunStopped(f"loss {loss} and gradient norm {grad_norm} are not both finite")
        self.optimizer.step()
        self.anchor.update()
        return UpdateResult(
            loss=loss, kl=kl, entropy=entropy / max(tokens, 1.0), grad_norm=grad_norm, share_weighted=weighted / count
        )

    def _sum(self, values: list[float]) -> list[float]:
        if self.accelerator.num_processes == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        total: list[float] = self.accelerator.reduce(tensor, reduction="sum").tolist()
        return total

    def _micro_batches(self, samples: Samples, rows_B: Tensor) -> Iterator[Tensor]:
        """Rows in order, cut where the padded micro-batch would exceed the token budget."""
        start = prompt = new = 0
        for end, row in enumerate(rows_B.tolist()):
            longer = max(prompt, len(samples.prompts[row // samples.num_samples]))
            wider = max(new, int(samples.lengths_B[row]))
            if end > start and (end - start + 1) * (longer + wider) > self.token_budget:
                yield rows_B[start:end]
                start, longer = end, len(samples.prompts[row // samples.num_samples])
                wider = int(samples.lengths_B[row])
            prompt, new = longer, wider
        if start < len(rows_B):
            yield rows_B[start:]


def _micro_batch(samples: Samples, rows_R: Tensor) -> MicroBatch:
    owners, owner_R = torch.unique(rows_R // samples.num_samples, return_inverse=True)
    lengths_R = samples.lengths_B[rows_R]
    return MicroBatch(
        prompts=[samples.prompts[p] for p in owners.tolist()],
        owner_R=owner_R,
        tokens_RT=samples.tokens_BT[rows_R, : int(lengths_R.max())],
        lengths_R=lengths_R,
    )
