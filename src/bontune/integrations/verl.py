"""Advantage estimators of verl for the objectives; verl finds them by the entry point ``verl.plugins``.

    python -m verl.trainer.main_ppo algorithm.adv_estimator=bontune_bon_rl +algorithm.bon_n=16 \
        actor_rollout_ref.rollout.n=32 actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm …

Keys of ``algorithm``: ``bon_n``, the budget or a weight for each of several; ``bon_options``, the objective's options;
``bon_verifier``, the key under which the reward function returns what Best-of-N selects by; ``bon_seed``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bontune.base.errors import BontuneError
from bontune.integrations.groups import GroupObjective, group_objectives

PREFIX = "bontune_"
"""Prefix of the objectives' names, because verl has its own ``grpo`` and ``rloo``."""


def estimate_advantages(
    name: str,
    token_level_rewards: Tensor,
    response_mask: Tensor,
    *,
    index: Sequence[Any] | None = None,
    config: Any = None,
    non_tensor_batch: Mapping[str, Any] | None = None,
    batch: Any = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Return the advantages of a batch in verl's form.

    Args:
        name: name of the objective.
        token_level_rewards: (rows, tokens); a row's sum is the reward of the response.
        response_mask: (rows, tokens), 1 on the response.
        index: each row's prompt, verl's ``uid``; groups may have different sizes, and every prompt counts alike.
        config: verl's section ``algorithm``.
        non_tensor_batch: results of the reward function beside the reward, if verl passes them on.
        batch: not used; verl passes it together with ``non_tensor_batch``.

    Returns:
        Advantages and, equal to them, returns (rows, tokens), for ``loss_agg_mode=seq-mean-token-sum-norm`` (or another
        that takes the mean over responses of sums over tokens).

    Raises:
        BontuneError: an invalid option, or a verifier whose scores verl does not pass on.
    """
    if index is None:
        raise BontuneError(f"{PREFIX}{name} needs groups of responses, and verl passed no uid that identifies them.")
    objective = _objective(name, config)
    groups: dict[Any, list[int]] = {}
    for row, prompt in enumerate(index):
        groups.setdefault(prompt, []).append(row)
    largest = max(map(len, groups.values()))
    objective.check(largest)
    # Groups as a table (prompts, largest group) of row numbers; −1 pads smaller groups.
    places = torch.full((len(groups), largest), -1)
    for place, rows in enumerate(groups.values()):
        places[place, : len(rows)] = torch.tensor(rows)
    rewards = token_level_rewards.sum(-1).double().cpu()
    scores = _scores(config, non_tensor_batch)

    def grouped(values: Tensor) -> Tensor:
        return torch.where(places < 0, torch.nan, values[places])

    weights_PM = objective.advantages(grouped(rewards), None if scores is None else grouped(scores), step=_step(groups))
    # verl takes the mean over rows; here every prompt counts as much as one with the largest group.
    share = len(rewards) / places.numel()
    advantages = torch.zeros(len(rewards), dtype=torch.float64)
    advantages[places[places >= 0]] = weights_PM[places >= 0] * share
    by_token = advantages.to(token_level_rewards).unsqueeze(-1) * response_mask
    return by_token, by_token


def register() -> list[str]:
    """Register an estimator in verl for each objective that needs only rewarded samples; return their names."""
    from verl.trainer.ppo.core_algos import register_adv_est

    names = []
    for name in group_objectives():
        register_adv_est(PREFIX + name)(_estimator(name))
        names.append(PREFIX + name)
    return names


@functools.cache
def _estimator(name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    # verl passes an argument only if the estimator has a parameter of that name.
    def estimator(
        token_level_rewards: Tensor,
        response_mask: Tensor,
        index: Any = None,
        config: Any = None,
        non_tensor_batch: Any = None,
        batch: Any = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        arguments = {"index": index, "config": config, "non_tensor_batch": non_tensor_batch, "batch": batch}
        return estimate_advantages(name, token_level_rewards, response_mask, **arguments, **options)

    estimator.__name__ = PREFIX + name
    return estimator


def _objective(name: str, config: Any) -> GroupObjective:
    n, options = (_plain(_key(config, key)) for key in ("bon_n", "bon_options"))
    if isinstance(n, Mapping):
        n = {int(key): value for key, value in n.items()}
        if any(isinstance(weight, (list, tuple)) for weight in n.values()):
            raise BontuneError(
                "algorithm.bon_n must have constant weights: verl does not report the training's progress."
            )
    return _read(name, json.dumps(n), json.dumps(options), int(_key(config, "bon_seed") or 0))


@functools.lru_cache(maxsize=16)
def _read(name: str, n: str, options: str, seed: int) -> GroupObjective:
    budget = json.loads(n)
    if isinstance(budget, dict):
        budget = {int(key): weight for key, weight in budget.items()}
    return GroupObjective.of(name, 16 if budget is None else budget, json.loads(options), seed)


def _scores(config: Any, others: Mapping[str, Any] | None) -> Tensor | None:
    """Return the verifier's score of each row; None: Best-of-N selects by the reward."""
    key = _key(config, "bon_verifier")
    if key is None:
        return None
    if others is None:
        raise BontuneError(
            f"algorithm.bon_verifier={key}: this verl passes only the reward to estimators, not what the reward "
            "function returned beside it (proposed in its pull request 7473); without the key the reward selects."
        )
    if key not in others:
        raise BontuneError(f"algorithm.bon_verifier={key}: the reward function returned {sorted(others)}, not {key}.")
    return torch.tensor([float("nan") if value is None else float(value) for value in others[key]], dtype=torch.float64)


def _key(config: Any, key: str) -> Any:
    return None if config is None else config.get(key, None)


def _plain(value: Any) -> Any:
    """Convert Hydra's containers to plain ones."""
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _step(groups: Mapping[Any, Any]) -> int:
    """Return a number that differs from batch to batch, for random choices: verl makes new uids for each batch."""
    from hashlib import sha256

    return int.from_bytes(sha256(repr(list(groups)).encode()).digest()[:6], "little")
