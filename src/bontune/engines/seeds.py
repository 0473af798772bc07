"""Counter-based randomness: every draw has its own seed, so there is no state to save, and any draw can be replayed."""

from __future__ import annotations

import functools
import hashlib

import numpy as np


def stream(*key: object) -> np.random.Generator:
    """Return a Philox generator keyed by SHA-256 of the parts, such as (seed, purpose, step, prompt id, sample index).

    The same parts give the same stream on every machine; any other parts give an independent one.

    Args:
        key: integers and strings; their text form and type count, so 1 and "1" differ.

    >>> stream(0, "sample", 3, "train-17", 5).random() == stream(0, "sample", 3, "train-17", 5).random()
    True
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


@functools.lru_cache(maxsize=4)
def order_of(num_items: int, seed: int, epoch: int) -> np.ndarray:
    """Return the data order of an epoch, a permutation of 0..num_items−1 that follows from (seed, epoch) alone."""
    return stream(seed, "order", epoch).permutation(num_items)
