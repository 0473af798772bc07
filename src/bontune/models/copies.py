"""Copies of a model with other parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def copy_with(model: Any, parameters: Mapping[int, nn.Parameter]) -> Any:
    """A copy of a model with these parameters in place of its own; buffers are shared, tied layers stay tied.

    Args:
        model: it is not changed.
        parameters: a parameter for the ``id`` of each of the model's.
    """
    shared = {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, {**left_states(model), **parameters, **shared})


def left_states(model: nn.Module) -> dict[int, Tensor]:
    """Tensors that the last forward pass left in a model's modules, without their graph, by ``id``.

    Some recurrent layers (RecurrentGemma's) keep their state as an attribute; with a graph it could not be copied.
    """
    left = (value for module in model.modules() for value in vars(module).values())
    return {id(value): value.detach() for value in left if isinstance(value, Tensor) and value.grad_fn is not None}


def linear_only(model: nn.Module) -> set[int]:
    """The ``id`` of each parameter that linear layers alone have, not an embedding that is tied to one as well."""
    linear: set[int] = set()
    other: set[int] = set()
    for module in model.modules():
        (linear if isinstance(module, nn.Linear) else other).update(id(p) for p in module.parameters(recurse=False))
    return linear - other
