"""Attention in which all samples of a prompt read the prompt's keys and values once, together.

A decoded token attends to its prompt and to its own row's earlier tokens. The first part is the same memory for all M
samples of a prompt, so their queries are laid side by side and multiplied with it as one matrix; a copy for each
sample would be read, and held, M times (Juravsky et al., Hydragen, arXiv 2402.05099).

Shapes: ``_B`` rows, ``_P`` prompts, ``_W`` places for the rows of one prompt, ``K`` heads of keys, ``G`` heads of
queries for each, ``L`` tokens of the prompts, ``T`` of the rows, ``D`` size of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "bontune_shared_prompt"
"""Name under which the attention is registered in transformers."""


class Placement:
    """The place of each row in a table with a line for each prompt, where the rows of a prompt stand side by side."""

    def __init__(self, owner_B: Tensor, num_prompts: int) -> None:
        """
        Args:
            owner_B: the prompt of each row, ascending.
            num_prompts: number of prompts; some may have no row.
        """
        self.owner_B, self.num_prompts = owner_B, num_prompts
        self.prompts = self.keep(torch.arange(len(owner_B), device=owner_B.device))
        """Prompts that have rows; None if all have."""

    def keep(self, rows: Tensor) -> Tensor | None:
        """Keep these rows, ascending.

        Returns:
            The prompts that still have rows; None if all have.
        """
        prompts, owner_B, count_P = self.owner_B[rows].unique(return_inverse=True, return_counts=True)
        is_all = len(prompts) == self.num_prompts
        first_P = count_P.cumsum(0) - count_P
        rank_B = torch.arange(len(owner_B), device=owner_B.device) - first_P[owner_B]
        self.owner_B, self.num_prompts, self.width = owner_B, len(prompts), int(count_P.max())
        self.place_B = owner_B * self.width + rank_B
        self.is_full = len(owner_B) == self.num_prompts * self.width
        return None if is_all else prompts

    def spread(self, rows_B: Tensor) -> Tensor:
        """Arrange (B, …) as (P, W, …), with zeros in places without a row."""
        if not self.is_full:
            spread = rows_B.new_zeros(self.num_prompts * self.width, *rows_B.shape[1:])
            rows_B = spread.index_copy_(0, self.place_B, rows_B)
        return rows_B.view(self.num_prompts, self.width, *rows_B.shape[1:])

    def gather(self, spread_PW: Tensor) -> Tensor:
        """Bring (P, W, …) back to (B, …)."""
        flat = spread_PW.flatten(0, 1)
        return flat if self.is_full else flat.index_select(0, self.place_B)


class SharedStates:
    """The prompts' keys and values (P, K, L, D) in a layer."""

    def __init__(self, keys: Tensor, values: Tensor, placement: Placement) -> None:
        self.keys, self.values, self.placement = keys, values, placement
        if placement.prompts is not None:
            self.keep(placement.prompts)

    def keep(self, prompts: Tensor) -> None:
        """Keep these prompts and drop the others."""
        self.keys, self.values = self.keys.index_select(0, prompts), self.values.index_select(0, prompts)

    def times(self, rows_B: Tensor, states: Tensor) -> Tensor:
        """Multiply (B, K, G, x) by the states of its prompts (P, K, x, y); return (B, K, G, y)."""
        spread = self.placement.spread(rows_B).transpose(1, 2)  # (P, W, K, G, x) → (P, K, W, G, x)
        groups = spread.shape[3]
        product = spread.flatten(2, 3) @ states  # (P, K, W·G, x) @ (P, K, x, y): one matrix for all rows of a prompt
        return self.placement.gather(product.unflatten(2, (-1, groups)).transpose(1, 2))


def mark(keys: Tensor, prompts: SharedStates) -> None:
    """Attach the prompts' states to a layer's own keys, where :func:`shared_attention` finds them."""
    keys.prompts = prompts  # type: ignore[attr-defined]


def shared_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute one new token's attention to prompt and completion, with the signature that transformers calls.

    Args:
        module: the model's attention layer.
        query: (B, K·G, 1, D).
        key, value: (B, K, T, D), the rows' own states; the prompts' states are attached to ``key``.
        attention_mask: bool (B, 1, 1, L + T); None: every token is seen.
        scaling: factor of the products; None: 1/√D.
        softcap: bound to which the products are squashed (Gemma 2).
        options: further options; a sliding window is part of the mask, and no other has an effect.

    Returns:
        (B, 1, K·G, D), and no attention weights.

    Raises:
        NotImplementedError: the layer needs a feature that is missing here, such as attention sinks.
    """
    if options.get("s_aux") is not None or options.get("position_bias") is not None:
        raise NotImplementedError("sinks and biases")
    prompts: SharedStates = key.prompts  # type: ignore[attr-defined]
    rows, heads, _, size = query.shape
    query = query.view(rows, key.shape[1], heads // key.shape[1], size)  # (B, K, G, D)
    # Scores (B, K, G, L + T): the prompt's tokens, read once for all its rows, then the row's own tokens.
    scores = torch.cat([prompts.times(query, prompts.keys.transpose(-1, -2)), query @ key.transpose(-1, -2)], dim=-1)
    scores = scores.float() * (size**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    weights = scores.softmax(-1).to(value.dtype)
    before = prompts.keys.shape[-2]
    out = prompts.times(weights[..., :before].contiguous(), prompts.values) + weights[..., before:] @ value
    return out.reshape(rows, 1, heads, -1), None


@torch.no_grad()
def shares_attention(model: Any, decode: Callable[[bool], Tensor]) -> bool:
    """Return whether a model can attend by :func:`shared_attention` and computes the same logits with it.

    Args:
        model: a causal LM.
        decode: returns the logits of some decoded tokens, with shared (True) or copied prompts.
    """
    if not getattr(model, "_can_set_attn_implementation", bool)():
        return False
    copied = decode(False)
    try:
        with sharing(model):
            shared = decode(True)
    except (ValueError, RuntimeError, AttributeError, TypeError, KeyError):  # the model has an attention of its own
        return False
    return torch.allclose(shared, copied, rtol=1e-2, atol=1e-2 * float(copied.abs().max()))


@contextmanager
def sharing(model: Any) -> Iterator[None]:
    """Let the model attend by :func:`shared_attention` while the context lasts."""
    usual = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


AttentionInterface.register(NAME, shared_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
