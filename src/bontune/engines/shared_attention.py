"""Attention that reads a prompt's keys and values once for all the samples that continue it.

A decoded token attends to its prompt and to what its own row has written. The first part is the same memory for all M
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
"""Under this name transformers finds the attention."""


class Placement:
    """Where the rows of each prompt stand when they are laid side by side, prompt by prompt."""

    def __init__(self, owner_B: Tensor, num_prompts: int) -> None:
        """
        Args:
            owner_B: the prompt of each row, ascending.
            num_prompts: of which some may have no row.
        """
        self.owner_B, self.num_prompts = owner_B, num_prompts
        self.prompts = self.keep(torch.arange(len(owner_B), device=owner_B.device))
        """The prompts that have rows; None: all have."""

    def keep(self, rows: Tensor) -> Tensor | None:
        """Keep these rows, ascending.

        Returns:
            The prompts that still have rows; None: all have.
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
        """(B, …) to (P, W, …), with zeros in places without a row."""
        if not self.is_full:
            spread = rows_B.new_zeros(self.num_prompts * self.width, *rows_B.shape[1:])
            rows_B = spread.index_copy_(0, self.place_B, rows_B)
        return rows_B.view(self.num_prompts, self.width, *rows_B.shape[1:])

    def gather(self, spread_PW: Tensor) -> Tensor:
        """(P, W, …) back to (B, …)."""
        flat = spread_PW.flatten(0, 1)
        return flat if self.is_full else flat.index_select(0, self.place_B)


class SharedStates:
    """A layer's keys and values (P, K, L, D) of the prompts."""

    def __init__(self, keys: Tensor, values: Tensor, placement: Placement) -> None:
        self.keys, self.values, self.placement = keys, values, placement
        if placement.prompts is not None:
            self.keep(placement.prompts)

    def keep(self, prompts: Tensor) -> None:
        """Keep these prompts and drop the others."""
        self.keys, self.values = self.keys.index_select(0, prompts), self.values.index_select(0, prompts)

    def times(self, rows_B: Tensor, states: Tensor) -> Tensor:
        """(B, K, G, x) times its prompt's states (P, K, x, y): (B, K, G, y)."""
        spread = self.placement.spread(rows_B).transpose(1, 2)  # (P, K, W, G, x)
        groups = spread.shape[3]
        product = spread.flatten(2, 3) @ states
        return self.placement.gather(product.unflatten(2, (-1, groups)).transpose(1, 2))


def mark(keys: Tensor, prompts: SharedStates) -> None:
    """Name the prompts' states that come before a layer's own keys, for :func:`shared_attention` to find."""
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
    """One new token's attention to prompt and completion, as transformers calls it.

    Args:
        module: the model's attention layer.
        query: (B, K·G, 1, D).
        key, value: (B, K, T, D), the row's own, marked with the prompts'.
        attention_mask: bool (B, 1, 1, L + T); None: everything is seen.
        scaling: of the products; None: 1/√D.
        softcap: products are bent to ±softcap (Gemma 2).
        options: the mask knows the window; others are not served.

    Returns:
        (B, 1, K·G, D), and no weights.

    Raises:
        NotImplementedError: the layer asks for what is not done here, such as attention sinks.
    """
    if options.get("s_aux") is not None or options.get("position_bias") is not None:
        raise NotImplementedError("sinks and biases")
    prompts: SharedStates = key.prompts  # type: ignore[attr-defined]
    rows, heads, _, size = query.shape
    query = query.view(rows, key.shape[1], heads // key.shape[1], size)
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
    """Whether a model attends by :func:`shared_attention` and computes the same with it.

    Args:
        model: a causal LM.
        decode: returns logits of some decoded tokens, with shared prompts or with copied ones.
    """
    if not getattr(model, "_can_set_attn_implementation", bool)():
        return False
    copied = decode(False)
    try:
        with sharing(model):
            shared = decode(True)
    except (
        ValueError,
        RuntimeError,
        AttributeError,
        TypeError,
        KeyError,
    ):  # an edge: attention of the model's own kind
        return False
    return torch.allclose(shared, copied, rtol=1e-2, atol=1e-2 * float(copied.abs().max()))


@contextmanager
def sharing(model: Any) -> Iterator[None]:
    """Within it the model attends by :func:`shared_attention`."""
    usual = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


AttentionInterface.register(NAME, shared_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
