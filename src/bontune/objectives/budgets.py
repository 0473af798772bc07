"""Budgets: one N, or weights p_N on several N at once.

"Most of our traffic takes one answer, some takes sixteen" is ``{1: 0.5, 16: 0.5}``: the objective Σ_N p_N J_N.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Budgets = int | Mapping[int, float]
"""One budget N, or a weight for each of several; the weights sum to one."""
TOLERANCE = 1e-3
"""Allowed distance of a sum of weights from one, so that thirds can be written with three digits."""


def check_budget(n: Any, num_samples: int | None, *, smallest: int = 1, spare: int = 0, what: str = "n") -> int:
    """Check a budget N against the number of samples M; None allows any budget.

    Raises:
        ValueError: n is no integer, is below ``smallest``, or n + ``spare`` exceeds M.
    """
    if isinstance(n, bool) or not (isinstance(n, int) or hasattr(n, "__index__")):
        hint = f": name it, as in {what}=4, because a second argument without a name is the scores" if n is None else ""
        raise ValueError(f"{what} must be an integer, got {n!r}{hint}.")
    n = int(n.__index__())
    if n < smallest:
        raise ValueError(f"{what} must be at least {smallest}, got {n}.")
    if num_samples is not None and n + spare > num_samples:
        extra = f" (this estimator needs {what} + {spare} samples)" if spare else ""
        raise ValueError(
            f"{what} = {n} is more than the {num_samples} samples per prompt allow{extra}: draw more or lower it."
        )
    return n


def as_budgets(n: Any, num_samples: int | None = None, *, spare: int = 0) -> dict[int, float]:
    """Return the budgets with their weights; one N has weight 1.

    Args:
        n: N, or a mapping from N to its weight.
        num_samples: M; None: any budget is allowed.
        spare: samples that are needed beyond N.

    Raises:
        ValueError: a budget below 1 or above M − ``spare``, no budget, a weight that is negative or not finite, or
            weights that do not sum to one.

    >>> as_budgets(16), as_budgets({1: 0.5, 16: 0.5}, 32)
    ({16: 1.0}, {1: 0.5, 16: 0.5})
    """
    if not isinstance(n, Mapping):
        return {check_budget(n, num_samples, spare=spare): 1.0}
    try:
        weights = {budget: float(weight) for budget, weight in n.items()}
    except (TypeError, ValueError):
        raise ValueError(f"n = {dict(n)} gives a budget a weight that is not a number.") from None
    weights = {check_budget(budget, num_samples, spare=spare): weight for budget, weight in weights.items()}
    check_weights(weights)
    return weights


def check_weights(weights: Mapping[int, float]) -> None:
    """Check the weights of several budgets.

    Raises:
        ValueError: no weights, a weight that is negative or not finite, or weights that do not sum to one.
    """
    if not weights:
        raise ValueError("n names no budget: give one N, or weights such as {1: 0.5, 16: 0.5}.")
    for budget, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"n gives the budget {budget} the weight {weight:g}; weights are 0 or more.")
    total = sum(weights.values())
    if abs(total - 1) > TOLERANCE:
        written = ", ".join(f"{budget}: {weight:g}" for budget, weight in weights.items())
        raise ValueError(f"n = {{{written}}} has weights that sum to {total:g}; they must sum to 1.")


def largest_budget(n: Budgets) -> int:
    """Return the largest of the budgets.

    >>> largest_budget(4), largest_budget({1: 0.5, 16: 0.5})
    (4, 16)
    """
    return max(n) if isinstance(n, Mapping) else n


def budgets_at(n: int | Mapping[Any, Any], progress: float = 1.0) -> Budgets:
    """Return the budgets at a share ``progress`` of the training, from ``objective.n`` of a recipe or of its file.

    >>> budgets_at({"1": [1.0, 0.25], "16": [0.0, 0.75]}), budgets_at({1: 0.5, 16: 0.5}, 0.3)
    ({1: 0.25, 16: 0.75}, {1: 0.5, 16: 0.5})
    """
    if not isinstance(n, Mapping):
        return n
    return {
        int(budget): (1 - progress) * w[0] + progress * w[1] if isinstance(w, (list, tuple)) else float(w)
        for budget, w in n.items()
    }


def check_schedule(n: int | Mapping[Any, Any]) -> None:
    """Check the budgets of a recipe, whose weights may move from a first to a last value.

    Raises:
        ValueError: as :func:`check_weights` at either end, or a budget that ends with weight 0.
    """
    for progress in (0.0, 1.0):
        if isinstance(weights := budgets_at(n, progress), Mapping):
            check_weights(weights)
            for budget, weight in weights.items():
                if not weight and progress == 1.0:
                    raise ValueError(f"n ends with weight 0 for the budget {budget}: leave it out, or end above 0.")


def in_words(n: Budgets) -> str:
    """Write the budgets as a phrase.

    >>> in_words(16), in_words({1: 0.5, 16: 0.5})
    ('16', '1 (50 %) and 16 (50 %)')
    """
    if not isinstance(n, Mapping):
        return f"{n}"
    *others, last = (f"{budget} ({100 * weight:.3g} %)" for budget, weight in sorted(n.items()))
    return f"{', '.join(others)} and {last}" if others else last
