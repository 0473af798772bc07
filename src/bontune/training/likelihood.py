"""log π of whole completions without a gradient, for weights that depend on it.

Shapes: ``_B`` completions, ``_R`` those of a micro-batch, ``_T`` tokens, ``_N`` tokens flattened; ``H`` hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bontune.engines.contract import Samples
from bontune.training.forward import CausalLM, Rows
from bontune.training.losses import CHUNK_ELEMENTS, GPU_CHUNK_ELEMENTS


@torch.no_grad()
def sequence_logprobs(
    lm: CausalLM, samples: Samples, rows_B: Tensor, *, temperature: float, token_budget: int
) -> Tensor:
    """log π_T(y|x), summed over tokens, under the model as it is now.

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
    owners, owner_R = torch.unique(rows_R // samples.num_samples, return_inverse=True)
    prefix = lm.encode([samples.prompts[p] for p in owners.tolist()])
    lengths_R = samples.lengths_B[rows_R]
    tokens_RT = samples.tokens_BT[rows_R, : int(lengths_R.max())]
    rows = Rows(owner_R=owner_R, tokens_RT=tokens_RT, lengths_R=lengths_R).to(prefix.ids.device)
    is_token_RT = rows.is_token_RT
    hidden_NH = lm.hidden(prefix, rows)[is_token_RT]
    size = max(1, (GPU_CHUNK_ELEMENTS if hidden_NH.is_cuda else CHUNK_ELEMENTS) // lm.head.weight.shape[0])
    drawn_N = torch.cat(
        [
            torch.log_softmax(lm.logits(hidden) / temperature, dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
            for hidden, targets in zip(hidden_NH.split(size), rows.tokens_RT[is_token_RT].split(size), strict=True)
        ]
    )
    drawn_RT = torch.zeros(tokens_RT.shape, dtype=torch.float64)
    drawn_RT[is_token_RT.cpu()] = drawn_N.cpu().double()
    return drawn_RT.sum(-1)
