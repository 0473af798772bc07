"""From a graded batch to advantages: computes what the objective's row in the table asks for, and weighs by it.

Shapes: ``_P`` prompts, ``_S`` sequences of one prompt, ``_X`` those of the first source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from bontune.config import Recipe
from bontune.engines.contract import Samples
from bontune.engines.seeds import stream
from bontune.objectives.batch import Batch
from bontune.objectives.votes import numbered
from bontune.training.anchor import Anchor
from bontune.training.forward import CausalLM, Rows
from bontune.training.losses import drawn_logprobs


class Advantages:
    """Weighs the sequences of a step by the recipe's objective."""

    def __init__(
        self, recipe: Recipe, lm: CausalLM, anchor: Anchor, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        """
        Args:
            recipe: names the objective and its options.
            lm: the policy.
            anchor: the reference of objectives that compare with one.
            autocast: makes the context in which the model computes.
        """
        self.objective = recipe.objective.row()
        self.options = recipe.objective.options()
        self.section, self.num_steps = recipe.objective, recipe.training.steps
        self.sources = self.objective.sources_per_prompt(self.options, recipe.sampling.samples)
        self.lm = lm
        self.anchor = anchor
        self.autocast = autocast
        self.temperature = recipe.sampling.temperature
        self.token_budget = recipe.training.token_budget

    def advantages(
        self,
        samples: Samples,
        rewards_PS: Tensor,
        scores_PS: Tensor,
        p_fail_P: Tensor | None,
        *,
        answers_PS: Sequence[Sequence[str | None]],
        step: int,
        keys_P: Sequence[tuple[object, ...]],
    ) -> Tensor:
        """Advantages (P, S) in mean form.

        Args:
            samples: the sequences.
            rewards_PS, scores_PS: float64.
            p_fail_P: estimate of P_fail from before this batch, or None.
            answers_PS: in normal form; None: no answer.
            step: of the training, from 1; weights of several budgets may follow a schedule.
            keys_P: a seed key for each prompt, for ties that are broken at random.

        Raises:
            ValueError: rewards, answers or log-probabilities that the objective cannot take.
        """
        needs_answers = self.objective.needs_answers
        if needs_answers and step == 1 and all(answer is None for row in answers_PS for answer in row):
            raise ValueError(
                "no sample of the first step has an answer, and the objective needs the grader to read one"
            )
        logprobs_PX = ref_logprobs_PX = None
        if self.objective.logprobs != "none":
            logprobs_PX = self._logprobs(samples)
        if self.objective.logprobs == "ratio":
            with self.anchor.in_place_of_policy():
                ref_logprobs_PX = self._logprobs(samples)
        batch = Batch(
            sources=self.sources,
            rewards_PS=rewards_PS,
            scores_PS=scores_PS,
            p_fail_P=p_fail_P,
            logprobs_PX=logprobs_PX,
            ref_logprobs_PX=ref_logprobs_PX,
            same_as_PS=torch.tensor([[row.index(text) for text in row] for row in samples.texts]),
            answers_PS=torch.tensor([numbered(row) for row in answers_PS]) if needs_answers else None,
            generator_of=lambda p: torch.Generator().manual_seed(int(stream(*keys_P[p]).integers(2**62))),
        )
        n = self.section.n_at((step - 1) / max(self.num_steps - 1, 1))
        return self.objective.advantages(batch, n, self.options)

    def _logprobs(self, samples: Samples) -> Tensor:
        """log π of the first source's sequences, computed alike for policy and anchor: equal weights, ratio 0."""
        rows_PX = torch.arange(len(samples.lengths_B)).view(-1, self.sources.total)[:, : self.sources.measured]
        with self.autocast():
            sums = sequence_logprobs(
                self.lm, samples, rows_PX.flatten(), temperature=self.temperature, token_budget=self.token_budget
            )
        return sums.view(rows_PX.shape)


@torch.no_grad()
def sequence_logprobs(
    lm: CausalLM, samples: Samples, rows_B: Tensor, *, temperature: float, token_budget: int
) -> Tensor:
    """Compute log π_T(y|x), summed over tokens, under the model as it is now.

    Args:
        lm: the model; inside :meth:`bontune.training.anchor.Anchor.in_place_of_policy` the anchor.
        samples: completions.
        rows_B: indices of those that are asked for.
        temperature: T.
        token_budget: tokens of a micro-batch; bounds memory, not results.

    Returns:
        float64, one number for each of ``rows_B``, on the CPU.
    """
    longest = max(map(len, samples.prompts)) + samples.tokens_BT.shape[1]
    sums = [_of_rows(lm, samples, rows_R, temperature) for rows_R in rows_B.split(max(1, token_budget // longest))]
    return torch.cat(sums)


def _of_rows(lm: CausalLM, samples: Samples, rows_R: Tensor, temperature: float) -> Tensor:
    rows = Rows.of(samples).select(rows_R)
    owners, owner_R = torch.unique(rows.owner_R, return_inverse=True)
    lower = lm.lower_prefix(samples, owners.tolist())
    prefix = lm.encode([samples.prompts[p] for p in owners.tolist()], lower)
    rows = lm.with_lower(lower, dataclasses.replace(rows, owner_R=owner_R).to(prefix.ids.device))
    is_token_RT = rows.is_token_RT
    hidden_NH, targets_N = lm.hidden_of_tokens(prefix, rows), rows.tokens_RT[is_token_RT]
    drawn_N = drawn_logprobs(lm, hidden_NH, targets_N, temperature)
    drawn_RT = torch.zeros(is_token_RT.shape, dtype=torch.float64)
    drawn_RT[is_token_RT.cpu()] = drawn_N.cpu().double()
    return drawn_RT.sum(-1)
