"""Key-value caches for decoding: rows of a prompt's cache, with room for the tokens to come."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


@torch.no_grad()
def shares_prompts(model: Any) -> bool:
    """Whether what a model keeps of a prompt is keys and values alone, which each of its samples can take over.

    Recurrent and hybrid layers (Mamba, RWKV, linear attention) keep a state of another kind.
    """
    try:
        out = model(input_ids=torch.zeros(1, 2, dtype=torch.int64, device=model.device), use_cache=True)
    except (ValueError, RuntimeError, AttributeError):  # an edge: some families fail to make their cache by themselves
        return False
    cache: Any = getattr(out, "past_key_values", None)
    kinds = (DynamicLayer, DynamicSlidingWindowLayer)
    return type(cache) is DynamicCache and all(type(layer) in kinds for layer in cache.layers)


def select_cache(cache: Any, indices: Tensor) -> Any:
    """Return a new cache with these rows; the given one stays as it is, and gradients flow through both."""
    selected = copy.copy(cache)
    selected.layers = [copy.copy(layer) for layer in cache.layers]
    selected.batch_select_indices(indices)
    return selected


def select_cache_with_room(cache: Any, indices: Tensor, num_tokens: int) -> Any:
    """Return a new cache with these rows, to which ``num_tokens`` more are appended without copying the old ones.

    Layers with a cache of their own kind (a sliding window, a recurrent state) are left as they are.
    """
    selected = copy.copy(cache)
    selected.layers = []
    for layer in cache.layers:
        if type(layer) is DynamicLayer and layer.is_initialized:
            selected.layers.append(_RoomyLayer(layer, indices, num_tokens))
        else:
            selected.layers.append(copy.copy(layer))
            selected.layers[-1].batch_select_indices(indices)
    return selected


class _RoomyLayer(DynamicLayer):
    """A layer that writes into storage set aside at the start; ``keys`` and ``values`` are views of the used part."""

    def __init__(self, layer: Any, indices: Tensor, num_tokens: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self._stored = [_with_room(x, indices, num_tokens) for x in (layer.keys, layer.values)]
        self._show(layer.keys.shape[-2])

    def _show(self, length: int) -> None:
        self.keys, self.values = (stored[..., :length, :] for stored in self._stored)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens, and return all."""
        length = self.keys.shape[-2]
        end = length + key_states.shape[-2]
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[..., length:end, :] = new
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows and drop the others, with as much room as before."""
        length = self.keys.shape[-2]
        room = self._stored[0].shape[-2] - length
        self._stored = [_with_room(x, indices, room) for x in (self.keys, self.values)]
        self._show(length)


def _with_room(states: Tensor, indices: Tensor, num_tokens: int) -> Tensor:
    """Copy rows of states (rows, heads, length, size) into storage with unset places for ``num_tokens`` more."""
    _, heads, length, size = states.shape
    stored = states.new_empty(len(indices), heads, length + num_tokens, size)
    torch.index_select(states, 0, indices, out=stored[..., :length, :])
    return stored
