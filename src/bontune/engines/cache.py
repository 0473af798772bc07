"""Key-value caches for decoding: a prompt's states for all its rows, with room for new tokens."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from bontune.engines.shared_attention import Placement, SharedStates, mark

KINDS = (DynamicLayer, DynamicSlidingWindowLayer)


@torch.no_grad()
def shares_prompts(model: Any) -> bool:
    """Return whether a model keeps only keys and values of a prompt, which each of its samples can start from.

    Recurrent and hybrid layers (Mamba, RWKV, linear attention) keep another kind of state.
    """
    try:
        out = model(input_ids=torch.zeros(1, 2, dtype=torch.int64, device=model.device), use_cache=True)
    except (ValueError, RuntimeError, AttributeError):  # some families cannot make their cache themselves
        return False
    cache = cache_of(out)
    return type(cache) is DynamicCache and all(type(layer) in KINDS for layer in cache.layers)


def cache_of(output: Any) -> Any:
    """Return a model output's cache: ``cache`` from transformers 5.24 on, ``past_key_values`` before."""
    return output.cache if hasattr(output, "cache") else getattr(output, "past_key_values", None)


def with_cache(model: Any, cache: Any) -> dict[str, Any]:
    """Return the keyword argument that passes a cache to a model, under the name in its ``forward``."""
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {_name_in(type(core).forward): cache}


@lru_cache(maxsize=64)
def _name_in(forward: Callable[..., Any]) -> str:
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def select_cache(cache: Any, indices: Tensor) -> Any:
    """Return a new cache with these rows; the original does not change, and gradients flow through both."""
    selected = copy.copy(cache)
    selected.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in selected.layers:
        if layer.is_initialized:  # not by ``keys[indices]``, whose gradient several threads add up in any order
            layer.keys, layer.values = (states.index_select(0, indices) for states in (layer.keys, layer.values))
    return selected


def decoding_cache(cache: Any, owner_B: Tensor, num_tokens: int, *, num_prompts: int, is_shared: bool) -> DecodingCache:
    """Return a cache of B rows with room for ``num_tokens`` more tokens in place; the original does not change.

    Args:
        cache: the cache of P prompts.
        owner_B: the prompt that each row continues.
        num_tokens: length of the longest completion.
        num_prompts: P.
        is_shared: whether a prompt's states are stored once for all its rows, for ``shared_attention``, or copied.
    """
    placement = Placement(owner_B, num_prompts) if is_shared else None
    decoding = DecodingCache(placement)
    decoding.layers = [
        _RoomyLayer(layer, owner_B, num_tokens, placement) if layer.is_initialized else copy.copy(layer)
        for layer in cache.layers
    ]
    return decoding


class DecodingCache(DynamicCache):
    """The cache of a batch of rows: the states of their prompts are read, the rows' own states are appended."""

    def __init__(self, placement: Placement | None) -> None:
        super().__init__()
        self.placement = placement

    def keep(self, rows: Tensor) -> None:
        """Keep these rows; remove the others, and prompts without rows."""
        prompts = None if self.placement is None else self.placement.keep(rows)
        for layer in self.layers:
            if isinstance(layer, _RoomyLayer):
                layer.select(rows, prompts)


class _RoomyLayer(DynamicLayer):
    """A layer that writes into storage allocated at the start; ``keys`` and ``values`` are views of the used part.

    A sliding window is not cut: the mask hides what lies before it.
    """

    def __init__(self, layer: Any, owner_B: Tensor, num_tokens: int, placement: Placement | None) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.keys.dtype, layer.keys.device, True
        self.is_sliding = layer.is_sliding
        self.num_seen = layer.get_seq_length()
        self.num_dropped = self.num_seen - layer.keys.shape[-2]
        self._prompts: SharedStates | None = None
        length = layer.keys.shape[-2]
        if placement is not None:
            self._prompts, length = SharedStates(layer.keys, layer.values, placement), 0
        self._stored = [_with_room(x[..., :length, :], owner_B, num_tokens) for x in (layer.keys, layer.values)]
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (stored[..., :length, :] for stored in self._stored)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append states of new tokens; return all, or the rows' own with the shared prompts' states attached."""
        length = self.keys.shape[-2]
        end = length + key_states.shape[-2]
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[..., length:end, :] = new
        self.num_seen += end - length
        self._show(end)
        if self._prompts is not None:
            mark(self.keys, self._prompts)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return the number of tokens seen."""
        return self.num_seen

    def get_mask_sizes(self, query: int | Tensor) -> tuple[int, int]:
        """Return the number of states that the next tokens can see, their own included, and the position of the first.

        Args:
            query: the number of next tokens; earlier versions of transformers pass their positions.
        """
        num_tokens = query if isinstance(query, int) else len(query)
        return self.num_seen - self.num_dropped + num_tokens, self.num_dropped

    def select(self, rows: Tensor, prompts: Tensor | None) -> None:
        """Keep these rows, with as much room as before, and these prompts; None keeps all prompts."""
        length = self.keys.shape[-2]
        room = self._stored[0].shape[-2] - length
        self._stored = [_with_room(x, rows, room) for x in (self.keys, self.values)]
        self._show(length)
        if self._prompts is not None and prompts is not None:
            self._prompts.keep(prompts)


def _with_room(states: Tensor, indices: Tensor, num_tokens: int) -> Tensor:
    """Copy rows of states (rows, heads, length, size) into storage with unset places for ``num_tokens`` more."""
    _, heads, length, size = states.shape
    stored = states.new_empty(len(indices), heads, length + num_tokens, size)
    if length:
        torch.index_select(states, 0, indices, out=stored[..., :length, :])
    return stored
