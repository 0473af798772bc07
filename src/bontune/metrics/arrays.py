"""What goes into a metric and what comes out: arrays of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

FloatArray: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]
Kind = TypeVar("Kind", Tensor, NDArray[Any])
"""Of rewards and of what comes back; nested lists count as arrays."""


def like(given: Kind, result: Tensor) -> Kind:
    """The result in the kind of what was given; one number as a NumPy scalar."""
    return result if isinstance(given, Tensor) else result.numpy()[()]
