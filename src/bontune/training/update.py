"""One update of the policy from one batch of samples and their advantages."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bontune.base.errors import RunStopped
from bontune.base.signals import Poll
from bontune.engines.contract import Samples
from bontune.training.anchor import Anchor
from bontune.training.forward import CausalLM, Prefix, Rows
from bontune.training.importance import RatioOptions, RatioSums, weigh_by_ratio
from bontune.training.losses import SMALL_CHUNK_ELEMENTS, LossSums, Reference, backward_through_head, drawn_logprobs
from bontune.training.processes import sum_gradients, sum_over_processes

PADDING = 2048
"""Padding that a micro-batch may hold, in tokens; one more forward and backward pass costs about as much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateResult:
    """Numbers of an update, over all processes."""

    kl: float
    """KL to the anchor per sample, in nats, estimated on the KL share."""
    entropy: float
    """Mean entropy of the next-token distribution over the tokens that were computed, in nats."""
    loss: float
    """−(1/PM) Σ A·log π + β·KL."""
    grad_norm: float
    """Norm of the gradient before it is clipped."""
    weighted: float
    """Share of samples with a non-zero advantage."""
    ratio: float | None = None
    """Mean over the computed samples of π(y)/μ(y), the policy over the engine that drew; None: not measured."""
    effective_samples: float | None = None
    """(Σρ)² / (n Σρ²): the share of samples that would tell as much if all ratios were alike."""
    truncated: float | None = None
    """Share of the tokens, or of the sequences, whose ratio was capped or clipped."""
    engine_kl: float | None = None
    """KL(μ‖π) of the engine's distribution to the policy's, in nats per sample."""

    @classmethod
    def mean(cls, results: Sequence[UpdateResult]) -> UpdateResult:
        """The mean of the results of several updates."""
        if len(results) == 1:
            return results[0]
        rows = [dataclasses.asdict(result) for result in results]
        known = [key for key, value in rows[0].items() if value is not None]
        return cls(**{key: sum(row[key] for row in rows) / len(rows) for key in known})


class Updater:
    """Accumulates the gradient over micro-batches, checks it, and takes the optimizer's step."""

    def __init__(
        self,
        lm: CausalLM,
        optimizer: torch.optim.Optimizer,
        anchor: Anchor,
        accelerator: Any,
        *,
        temperature: float,
        token_budget: int,
        kl_share: float,
        max_grad_norm: float,
        ratios: RatioOptions | None = None,
        measures_ratios: bool = False,
    ) -> None:
        """
        Args:
            lm: the policy.
            optimizer: its first parameter group is the policy's.
            anchor: the KL reference.
            accelerator: for the device, autocast and the sum over processes.
            temperature: T of the sampling policy.
            token_budget: tokens of a micro-batch: rows × (prompt + completion).
            kl_share: share of each prompt's samples on which the KL is estimated.
            max_grad_norm: gradients are scaled down to it.
            ratios: what is done with the ratios of the policy to the engine that drew; None: nothing.
            measures_ratios: measure them even if nothing is done with them.
        """
        self.lm = lm
        self.optimizer = optimizer
        self.anchor = anchor
        self.accelerator = accelerator
        self.temperature = temperature
        self.token_budget = token_budget
        self.kl_share = kl_share
        self.max_grad_norm = max_grad_norm
        self.ratios = ratios or RatioOptions()
        self.measures_ratios = measures_ratios or self.ratios.are_used
        self.parameters: list[Tensor] = optimizer.param_groups[0]["params"]

    def accumulate(
        self,
        samples: Samples,
        advantages_PM: Tensor,
        *,
        kl_coef: float,
        num_prompts: int,
        has_kl_P: Tensor | None = None,
        poll: Poll | None = None,
    ) -> LossSums:
        """Add the gradient of the loss over this process's samples to ``.grad``.

        Samples of zero advantage are skipped; the KL is estimated on the first ⌈share·M⌉ samples of every prompt,
        which is unbiased because samples are exchangeable and the choice does not look at them.

        Args:
            samples: P·M completions.
            advantages_PM: mean form.
            kl_coef: β; at 0 the reference is not computed.
            num_prompts: prompts of this update over all processes; the loss is a mean over num_prompts·M samples.
            has_kl_P: the prompts on which the KL is estimated, num_prompts of them over all processes; None: all.
            poll: called before each micro-batch.
        """
        # B = P·M: row b is sample b % M of prompt b // M.
        num_samples = samples.num_samples
        advantages_B = advantages_PM.reshape(-1).to(torch.float32)
        num_kl = math.ceil(self.kl_share * num_samples) if kl_coef > 0 else 0
        has_kl_B = torch.arange(len(advantages_B)) % num_samples < num_kl
        if has_kl_P is not None:
            has_kl_B &= has_kl_P.repeat_interleave(num_samples)
        # A row that carries neither weight nor KL is not computed; P_fail and the metrics have seen it all the same.
        is_needed_B = (advantages_B != 0) | has_kl_B
        everything = Rows.of(samples)
        weight_B = advantages_B / (num_prompts * num_samples)
        kl_weight_B = has_kl_B.to(torch.float32) / (num_prompts * max(num_kl, 1))
        sums = LossSums()
        for prompts, buckets in self._micro_batches(samples, is_needed_B, everything.owner_R):
            # The prompts' graph is cut at a leaf: all rows leave their gradients there, and one backward pass takes
            # them through the prompts.
            with self.accelerator.autocast():
                encoded = [samples.prompts[p] for p in prompts.tolist()]
                lower = self.lm.lower_prefix(samples, prompts.tolist())
                prefix = self.lm.encode(encoded, lower)
                leaf = prefix.as_leaf()
                ref_prefix = self._reference_prefix(encoded, lower) if num_kl else None
                for rows_B in buckets:
                    if poll is not None:
                        poll()
                    rows = everything.select(rows_B)
                    # From the number of a prompt in the batch to its place among the prompts of this group.
                    rows = dataclasses.replace(rows, owner_R=torch.searchsorted(prompts, rows.owner_R))
                    rows = self.lm.with_lower(lower, rows)
                    drawn_RT = samples.logprobs_BT[rows_B, : rows.tokens_RT.shape[1]]
                    weights = weight_B[rows_B], kl_weight_B[rows_B]
                    sums.add(self._backward(leaf, ref_prefix, rows, drawn_RT, *weights, kl_coef))
            prefix.backward_from(leaf)
        return sums

    def _reference_prefix(self, encoded: list[list[int]], lower: Prefix | None) -> Prefix:
        with torch.no_grad(), self.anchor.in_place_of_policy():
            return self.lm.encode(encoded, lower)

    def _backward(
        self,
        leaf: Prefix,
        ref_prefix: Prefix | None,
        rows: Rows,
        drawn_RT: Tensor,
        weight_R: Tensor,
        kl_weight_R: Tensor,
        kl_coef: float,
    ) -> LossSums:
        """Take the loss of some rows backwards, through the model's body to the prompts' leaf."""
        device = leaf.ids.device
        reference = None
        has_kl_R = kl_weight_R != 0
        if ref_prefix is not None and bool(has_kl_R.any()):
            kl_rows = rows.select(has_kl_R.nonzero().squeeze(-1)).to(device)
            with torch.no_grad(), self.anchor.in_place_of_policy():
                hidden_NH = self.lm.hidden_of_tokens(ref_prefix, kl_rows)
            reference = Reference(hidden_NH=hidden_NH, head_parameters=self.anchor.parameters_of(self.lm.head))
        rows, per_token = rows.to(device), rows.lengths_R.to(device)
        is_token_RT = rows.is_token_RT
        hidden_NH = self.lm.hidden_of_tokens(leaf, rows)
        targets_N = rows.tokens_RT[is_token_RT]
        weight_N = weight_R.to(device).repeat_interleave(per_token)
        ratios = None
        if self.measures_ratios:
            now_N = drawn_logprobs(self.lm, hidden_NH.detach(), targets_N, self.temperature)
            drawn_N = drawn_RT.to(device)[is_token_RT]
            weight_N, ratios = weigh_by_ratio(weight_N, now_N, drawn_N, rows.lengths_R, self.ratios)
        is_small = self.lm.lower is not None and not hidden_NH.is_cuda
        grad_NH, sums = backward_through_head(
            self.lm,
            hidden_NH.detach(),
            targets_N,
            weight_N,
            temperature=self.temperature,
            kl_weight_N=kl_weight_R.to(device).repeat_interleave(per_token),
            kl_coef=kl_coef,
            reference=reference,
            chunk_elements=SMALL_CHUNK_ELEMENTS if is_small else None,
        )
        if hidden_NH.requires_grad:  # not where the output layer alone is trained
            hidden_NH.backward(grad_NH)
        if ratios is not None:
            sums.ratios.add(ratios)
        return sums

    def step(
        self,
        samples: Samples,
        advantages_PM: Tensor,
        *,
        kl_coef: float,
        check: Callable[[], None] | None = None,
        **options: Any,
    ) -> UpdateResult:
        """Accumulate, sum over processes, step, and move the anchor; see :meth:`accumulate`.

        Args:
            check: looks at the policy before the anchor follows it, in a step in which a sample carries weight.

        Raises:
            RunStopped: the loss or the gradient is not finite; nothing has been changed then. Or from ``check``.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums = self.accumulate(samples, advantages_PM, kl_coef=kl_coef, **options)
        weighted = float((advantages_PM != 0).sum())
        local = [sums.policy, sums.kl, sums.entropy, sums.tokens, weighted, float(advantages_PM.numel())]
        policy, kl, entropy, tokens, weighted, count, *ratios = sum_over_processes(
            self.accelerator, [*local, *sums.ratios.values()]
        )
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if self.accelerator.num_processes > 1:
            for parameter in self.parameters:  # a process whose samples carry no weight still takes part in the sum
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            grads = [p.grad for p in self.parameters if p.grad is not None]
            sum_gradients(self.accelerator, grads)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)) if grads else 0.0
        loss = policy + kl_coef * kl
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise RunStopped(f"The update is broken: loss {loss} and gradient norm {grad_norm} are not both finite")
        self.optimizer.step()
        if check is not None and weighted > 0:
            check()
        self.anchor.update()
        return UpdateResult(
            kl=kl,
            entropy=entropy / max(tokens, 1.0),
            loss=loss,
            grad_norm=grad_norm,
            weighted=weighted / count,
            **(RatioSums.of(ratios).numbers() if self.measures_ratios else {}),
        )

    def _micro_batches(
        self, samples: Samples, is_needed_B: Tensor, owner_B: Tensor
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Prompts that are computed together, and their rows, as many at a time as fit the budget."""
        for prompts in self._prompt_groups(samples, is_needed_B):
            chosen = (is_needed_B & torch.isin(owner_B, prompts)).nonzero().squeeze(-1)
            longest = max(len(samples.prompts[p]) for p in prompts.tolist())
            yield prompts, [chosen[bucket] for bucket in self._buckets(samples.lengths_B[chosen], longest)]

    def _prompt_groups(self, samples: Samples, is_needed_B: Tensor) -> Iterator[Tensor]:
        """Group the prompts that have any sample to train on, as many at a time as fit the budget together.

        Above frozen layers the prompts' graph is most of the memory. There, those of one micro-batch are taken.
        """
        num_rows_P = is_needed_B.view(-1, samples.num_samples).sum(-1).tolist()
        group: list[int] = []
        longest = 0
        for p in [p for p, num_rows in enumerate(num_rows_P) if num_rows]:
            longest_with = max(longest, len(samples.prompts[p]))
            size = (len(group) + 1) * longest_with
            if self.lm.lower is not None:
                num_rows = sum(num_rows_P[q] for q in [*group, p])
                size = max(size, num_rows * (longest_with + samples.tokens_BT.shape[1]))
            if group and size > self.token_budget:
                yield torch.tensor(group)
                group, longest_with = [], len(samples.prompts[p])
            group.append(p)
            longest = longest_with
        if group:
            yield torch.tensor(group)

    def _buckets(self, lengths_R: Tensor, num_prompt: int) -> Iterator[Tensor]:
        """Group rows by ascending length; a group ends where the budget is full or padding would cost another pass."""
        order = lengths_R.argsort(stable=True)
        start = wasted = 0
        for end in range(1, len(order) + 1):
            if end < len(order):
                width = int(lengths_R[order[end]])
                grown = width - int(lengths_R[order[end - 1]])
                wasted += grown * (end - start)
                if wasted <= PADDING and (end - start + 1) * (num_prompt + width) <= self.token_budget:
                    continue
            yield order[start:end]
            start, wasted = end, 0
