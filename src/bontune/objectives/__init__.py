"""Objectives: pure functions from the rewards and scores of one pool of samples to advantages.

Nothing here knows of models, files or configuration; other frameworks can import this room alone.

>>> from bontune.objectives import bon_rl
>>> bon_rl(rewards=[[1, 0, 0, 0]], scores=[[3.0, 1.0, 2.0, 0.0]], n=2).sum().abs().item() < 1e-12
True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bontune.objectives.best_of_n import bon_rl, bon_rl_variational, bon_rlb, bon_rlbp, lambda_n
from bontune.objectives.bon_likelihood import SequenceWeights, best_of_n_log_ratio, bon_sft
from bontune.objectives.distillation import BondWeights, best_and_worst, bonbon, bonbon_gap, bond, vbon
from bontune.objectives.imitation import SequenceLoss, bon_distillation, dco, rft, sft, star, winner_weights
from bontune.objectives.max_at_k import passk_training, pkpo
from bontune.objectives.policy_gradient import dr_grpo, grpo, inference_loo, maxrl, reinforce, rloo
from bontune.objectives.winners import WINNER_OBJECTIVES, draw_winners, winner_advantages

_REGISTRY: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        reinforce,
        rloo,
        grpo,
        dr_grpo,
        maxrl,
        inference_loo,
        pkpo,
        passk_training,
        bon_rl,
        bon_rlb,
        bon_rlbp,
        bon_rl_variational,
    )
}


def names() -> list[str]:
    """The names of all objectives.

    >>> "bon_rl" in names()
    True
    """
    return list(_REGISTRY)


def get(name: str) -> Callable[..., Tensor]:
    """The objective of that name, as a function.

    Raises:
        ValueError: no objective has that name.

    >>> get("rloo")([1, 0]).tolist()
    [1.0, -1.0]
    """
    if name not in _REGISTRY:
        raise ValueError(f"No objective is named {name!r}; there are {', '.join(_REGISTRY)}.")
    return _REGISTRY[name]


def advantages(name: str, rewards: Any, scores: Any = None, n: int | None = None, **options: Any) -> Tensor:
    """Call an objective by name with whatever of (rewards, scores, n, options) it takes.

    Args:
        name: one of :func:`names`.
        rewards, scores: (..., M).
        n: Best-of-N budget; objectives that train for one sample ignore it.
        options: ``baseline``, ``p_fail``, ``sign``…; an option that is None, or that the objective has no use for, is
            left out.

    Returns:
        (..., M) advantages, mean form.
    """
    import inspect

    function = get(name)
    given: dict[str, Any] = {"scores": scores, "n": n, **options}
    taken = inspect.signature(function).parameters
    required = {key for key, parameter in taken.items() if parameter.default is parameter.empty}
    return function(rewards, **{k: v for k, v in given.items() if k in taken and (v is not None or k in required)})


__all__ = [
    "WINNER_OBJECTIVES",
    "BondWeights",
    "SequenceLoss",
    "SequenceWeights",
    "advantages",
    "best_and_worst",
    "best_of_n_log_ratio",
    "bon_distillation",
    "bon_rl",
    "bon_rl_variational",
    "bon_rlb",
    "bon_rlbp",
    "bon_sft",
    "bonbon",
    "bonbon_gap",
    "bond",
    "dco",
    "dr_grpo",
    "draw_winners",
    "get",
    "grpo",
    "inference_loo",
    "lambda_n",
    "maxrl",
    "names",
    "passk_training",
    "pkpo",
    "reinforce",
    "rft",
    "rloo",
    "sft",
    "star",
    "vbon",
    "winner_advantages",
    "winner_weights",
]
