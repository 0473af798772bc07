"""The budgets k that a pool is evaluated for, as people write them."""

from __future__ import annotations

from bontune.base.errors import BontuneError


def parse_ks(text: str) -> list[int]:
    """Read budgets such as ``1,4,16``.

    Raises:
        BontuneError: no numbers, or one below 1.
    """
    try:
        ks = [int(part) for part in text.split(",")]
    except ValueError:
        raise BontuneError(f"--k takes numbers like 1,4,16, got {text!r}.") from None
    if min(ks) < 1:
        raise BontuneError(f"--k takes numbers from 1 up, got {text!r}.")
    return ks


def check_ks(text: str | None, num_samples: int) -> list[int] | None:
    """Read budgets, each at most the samples at hand; None stays None.

    Raises:
        BontuneError: no numbers, or one out of range.
    """
    if text is None:
        return None
    ks = parse_ks(text)
    if max(ks) > num_samples:
        raise BontuneError(f"--k {max(ks)} is more than the {num_samples} samples per problem.")
    return ks
