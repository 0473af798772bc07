"""Log-probabilities of whole completions, without a gradient, for weights that depend on them.

Shapes: ``_B`` completions, ``_R`` those of a micro-batch, ``_T`` tokens, ``_N`` tokens flattened; ``H`` hidden.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from bontune.engines.contract import Samples
from bontune.training.forward import CausalLM, Rows
from bontune.training.losses import drawn_logprobs


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
    prefix = lm.encode([samples.prompts[p] for p in owners.tolist()])
    rows = dataclasses.replace(rows, owner_R=owner_R).to(prefix.ids.device)
    is_token_RT = rows.is_token_RT
    hidden_NH, targets_N = lm.hidden_of_tokens(prefix, rows), rows.tokens_RT[is_token_RT]
    drawn_N = drawn_logprobs(lm, hidden_NH, targets_N, temperature)
    drawn_RT = torch.zeros(is_token_RT.shape, dtype=torch.float64)
    drawn_RT[is_token_RT.cpu()] = drawn_N.cpu().double()
    return drawn_RT.sum(-1)
