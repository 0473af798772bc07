"""Copies of a model with other parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn


def copy_with(model: Any, parameters: Mapping[int, nn.Parameter]) -> Any:
    """A copy of a model with these parameters in place of its own; buffers are shared, tied layers stay tied.

    Args:
        model: it is not changed.
        parameters: a parameter for the ``id`` of each of the model's.
    """
    return copy.deepcopy(model, {**parameters, **{id(buffer): buffer for buffer in model.buffers()}})


def linear_only(model: nn.Module) -> set[int]:
    """The ``id`` of each parameter that linear layers alone have, not an embedding that is tied to one as well."""
    linear: set[int] = set()
    other: set[int] = set()
    for module in model.modules():
        (linear if isinstance(module, nn.Linear) else other).update(id(p) for p in module.parameters(recurse=False))
    return linear - other
