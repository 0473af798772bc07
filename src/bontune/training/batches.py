"""Several updates on one batch of samples: what a recipe asks for, and which prompts each update takes."""

from __future__ import annotations

from bontune.base.errors import BontuneError
from bontune.config import Recipe
from bontune.engines.seeds import stream
from bontune.training.importance import RatioOptions


def ratio_options(recipe: Recipe) -> RatioOptions:
    """What a recipe does with the ratios of the policy to the behaviour policy.

    Raises:
        BontuneError: the recipe asks for what makes no sense together.
    """
    training, objective = recipe.training, recipe.objective
    num, parts = training.updates_per_batch, training.minibatches
    if parts > num:
        raise BontuneError(
            f"training.minibatches = {parts} parts of a batch, of which training.updates_per_batch = {num} would use "
            f"only {num}: raise the one or lower the other."
        )
    if training.importance != "none" and training.clip not in ("auto", "none"):
        raise BontuneError(
            "training.clip weighs by the ratio itself: give training.importance or training.clip, not both."
        )
    clip = training.clip
    if clip == "auto":
        clip = "token" if num > 1 and training.importance == "none" else "none"
    options = RatioOptions(
        importance=training.importance, cap=training.importance_cap, clip=clip, clip_range=training.clip_range
    )
    if num > 1 or options.are_used:
        key = "training.updates_per_batch" if num > 1 else "training.importance and training.clip"
        if not objective.row().is_policy_gradient:
            raise BontuneError(f"{key} need a policy gradient, and {objective.name} imitates given answers.")
        if objective.row().trains_on_winners(objective.options()):
            raise BontuneError(
                f"{key} compare the policy with the behaviour policy, and a winner (objective.draw: winner) is drawn "
                "by Best-of-N, whose probabilities nobody knows: take draw=all."
            )
    return options


def prompts_of_updates(recipe: Recipe, num_prompts: int, step: int, process: int) -> list[list[int]]:
    """Numbers of the prompts that each update of a step takes; together they pass over the batch again and again.

    Args:
        recipe: says how many updates and parts.
        num_prompts: prompts of this process in the batch.
        step: of the training.
        process: its number; the order of every pass follows from seed, step and process.
    """
    num, parts = recipe.training.updates_per_batch, recipe.training.minibatches
    if parts == 1:
        return [list(range(num_prompts))] * num
    found: list[list[int]] = []
    while len(found) < num:
        order = stream(recipe.seed, "minibatches", step, process, len(found)).permutation(num_prompts).tolist()
        found += [sorted(order[part::parts]) for part in range(parts)]
    return found[:num]
