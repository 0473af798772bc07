"""Families of training methods, with a colour each, for pictures that show every arm."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from bontune.experiments.suite import BASE, Suite
from bontune.objectives.table import TABLE

ONE_SAMPLE = ("reinforce", "rloo", "grpo", "dr_grpo")
EXACT = ("bon_rl", "rank")
CLOSED = ("bon_rlb", "bon_rlbp", "bon_rl_variational")


class Family(Enum):
    """What a method trains for, and by whose estimator; the value is its name for people."""

    SEVERAL = "several N at once (ours)"
    BEST_OF_N = "one N, exact (ours)"
    PAPER = "one N, the paper's forms"
    VERIFIER = "a verifier that errs"
    PASS_AT_K = "other objectives for many samples"
    ONE_SAMPLE = "one sample"
    IMITATION = "imitation"

    @property
    def colour(self) -> str:
        """Colour, dark enough to be read as text on white; ours is that of Best-of-N RL in every figure."""
        return _COLOURS[self]


_COLOURS = {
    Family.SEVERAL: "#00795a",
    Family.BEST_OF_N: "#0072b2",
    Family.PAPER: "#6f4aa8",
    Family.VERIFIER: "#a83c78",
    Family.PASS_AT_K: "#85661a",
    Family.ONE_SAMPLE: "#c75000",
    Family.IMITATION: "#5b6673",
}


def family_of(suite: Suite, arm: str) -> Family:
    """The family of a trained arm, by its recipe.

    Args:
        suite: has the arm.
        arm: any but the base model.
    """
    assert arm != BASE
    tree = suite.tree(arm)
    objective = tree["objective"]
    name = objective["name"]
    if not TABLE[name].is_policy_gradient:
        return Family.IMITATION
    if tree["verifier"]["name"] != "oracle":
        return Family.VERIFIER
    if not isinstance(objective["n"], int):
        return Family.SEVERAL if name in EXACT else Family.PASS_AT_K
    if name in ONE_SAMPLE or (name in EXACT and objective["n"] == 1):
        return Family.ONE_SAMPLE
    if name in CLOSED or objective.get("draw") == "winner":
        return Family.PAPER
    return Family.BEST_OF_N if name in EXACT else Family.PASS_AT_K


def families_of(suite: Suite, arms: Iterable[str]) -> list[Family]:
    """The families of some arms, each once, in the order of the definition."""
    found = {family_of(suite, arm) for arm in arms if arm != BASE}
    return [family for family in Family if family in found]
