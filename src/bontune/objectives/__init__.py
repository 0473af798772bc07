"""Objectives: pure functions from the rewards and scores of one pool of samples to advantages.

Nothing here knows of models, files or configuration; other frameworks can import this room alone.

>>> from bontune.objectives import bon_rl
>>> bon_rl(rewards=[[1, 0, 0, 0]], scores=[[3.0, 1.0, 2.0, 0.0]], n=2).sum().abs().item() < 1e-12
True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bontune.objectives.table import TABLE, imported

if TYPE_CHECKING:
    from bontune.objectives.best_of_n import bon_rl, bon_rl_variational, lambda_n
    from bontune.objectives.closed_forms import bon_rlb, bon_rlbp
    from bontune.objectives.distillation import BondWeights, best_and_worst, bonbon, bonbon_gap, bond, vbon
    from bontune.objectives.imitation import SequenceLoss, bon_distillation, dco, rft, sft, star, winner_weights
    from bontune.objectives.likelihood import SequenceWeights, best_of_n_log_ratio, bon_sft
    from bontune.objectives.max_at_k import passk_training, pkpo
    from bontune.objectives.policy_gradient import dr_grpo, grpo, inference_loo, maxrl, reinforce, rloo
    from bontune.objectives.ranks import rank
    from bontune.objectives.votes import majority_vote
    from bontune.objectives.winners import WINNER_OBJECTIVES, draw_winners, winner_advantages

_HELPERS = {
    "lambda_n": "best_of_n",
    "SequenceWeights": "likelihood",
    "best_of_n_log_ratio": "likelihood",
    "BondWeights": "distillation",
    "best_and_worst": "distillation",
    "bonbon_gap": "distillation",
    "SequenceLoss": "imitation",
    "winner_weights": "imitation",
    "WINNER_OBJECTIVES": "winners",
    "draw_winners": "winners",
    "winner_advantages": "winners",
}
"""Modules of the names that are no objectives themselves."""


def names() -> list[str]:
    """Return the names of all objectives, as in ``objective.name`` of a recipe.

    >>> "bon_rl" in names()
    True
    """
    return list(TABLE)


def get(name: str) -> Callable[..., Any]:
    """Return the function of the objective with that name.

    Raises:
        ValueError: no objective has that name.

    >>> get("rloo")([1, 0]).tolist()
    [1.0, -1.0]
    """
    if name not in TABLE:
        raise ValueError(f"No objective is named {name!r}; the names are {', '.join(TABLE)}.")
    return TABLE[name].function


def __getattr__(name: str) -> Any:
    """Import a function when it is used: the table of objectives is read without torch, which takes seconds to load."""
    if name in TABLE:
        return TABLE[name].function
    if name in _HELPERS:
        return imported(f"{_HELPERS[name]}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "WINNER_OBJECTIVES",
    "BondWeights",
    "SequenceLoss",
    "SequenceWeights",
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
    "majority_vote",
    "maxrl",
    "names",
    "passk_training",
    "pkpo",
    "rank",
    "reinforce",
    "rft",
    "rloo",
    "sft",
    "star",
    "vbon",
    "winner_advantages",
    "winner_weights",
]
