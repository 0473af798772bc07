"""Contract of objectives for other trainers:

1. advantages are the objective's, in mean form; smaller groups are weighed as such, and count as much;
2. what weighs more than rewarded samples of the policy is refused, with the names that do not;
3. values of k are the estimators of the metrics.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import bontune.objectives as objectives
from bontune.base.errors import BontuneError
from bontune.integrations.groups import GroupObjective, group_objectives, group_values
from bontune.metrics import best_of_k, pass_at_k

M = 6
GENERATOR = torch.Generator().manual_seed(0)
REWARDS = (torch.rand(5, M, generator=GENERATOR) < 0.4).double()
SCORES = torch.rand(5, M, generator=GENERATOR).double()


@pytest.mark.parametrize("name", group_objectives())
def test_advantages_are_the_objectives(name: str) -> None:
    found = GroupObjective.of(name, 3).advantages(REWARDS, SCORES)
    function = objectives.get(name)
    arguments: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(("bon_rl", "bon_rl_variational", "rank"), (SCORES, 3)),
        **dict.fromkeys(("pkpo", "passk_training", "bon_rlb", "bon_rlbp"), (3,)),
    }
    torch.testing.assert_close(found, function(REWARDS, *arguments.get(name, ())))


def test_the_verifiers_score_can_be_the_reward() -> None:
    found = GroupObjective.of("bon_rl", 3, {"reward": "verifier"}).advantages(REWARDS, SCORES)
    torch.testing.assert_close(found, objectives.bon_rl(SCORES, SCORES, 3))


def test_several_budgets() -> None:
    found = GroupObjective.of("bon_rl", {1: 0.5, 4: 0.5}, {"baseline": "loo1"}).advantages(REWARDS, SCORES)
    torch.testing.assert_close(found, objectives.bon_rl(REWARDS, SCORES, {1: 0.5, 4: 0.5}, "loo1"))


def test_a_gap_makes_a_smaller_group_without_bias() -> None:
    """By enumeration: two kinds of sample, each known with a chance that does not depend on its kind."""
    objective, chance, share = GroupObjective.of("bon_rl", 2), 0.3, 0.7
    derivative = {1: 0.0, 0: 0.0}  # of the mean advantage of a kind, summed over all pools and gaps
    weight = 0.0
    for kinds in itertools.product((0, 1), repeat=4):
        for known in itertools.product((True, False), repeat=4):
            if sum(known) < 3:
                continue
            rewards = torch.tensor([[k if seen else float("nan") for k, seen in zip(kinds, known, strict=True)]])
            advantages = objective.advantages(rewards.double())[0]
            probability = 1.0
            for kind, seen in zip(kinds, known, strict=True):
                probability *= (chance if kind else 1 - chance) * (share if seen else 1 - share)
            weight += probability
            for i, kind in enumerate(kinds):
                derivative[kind] += probability * advantages[i].item() / 4
    # d/dθ of P(best of 2 is right), where θ is the logit: the sum over samples of A·(kind − chance).
    found = (derivative[1] * (1 - chance) - derivative[0] * chance) / weight
    assert found == pytest.approx(2 * (1 - chance) * chance * (1 - chance), rel=1e-9)


def test_too_small_a_group_has_no_weight() -> None:
    rewards = REWARDS.clone()
    rewards[0, 1:] = torch.nan
    found = GroupObjective.of("bon_rl", 3).advantages(rewards)
    assert not found[0].any()
    torch.testing.assert_close(found[1:], objectives.bon_rl(REWARDS[1:], REWARDS[1:], 3))


def test_ties_between_winners_follow_from_seed_and_step() -> None:
    objective = GroupObjective.of("bon_rl", 3, {"draw": "winner"}, seed=1)
    ties = SCORES.round()
    first, again, later = (objective.advantages(REWARDS, ties, step=step) for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


@pytest.mark.parametrize(
    ("name", "n", "options", "phrase"),
    [
        ("bon", 4, None, "no objective 'bon'"),
        ("sft", 4, None, "take one of reinforce, rloo"),
        ("vbon", 4, None, "which only `bontune train` has"),
        ("bon_rl", 0, None, "must be a whole number from 1 up"),
        ("bon_rl", 4, {"basline": "loo"}, "Did you mean 'objective.baseline'"),
        ("bon_rlb", 4, {"p_fail": "value_head"}, "take p_fail=plugin"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, n: Any, options: Any, phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        GroupObjective.of(name, n, options)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(BontuneError, match="n = 7 is more than the 6 samples"):
        GroupObjective.of("bon_rl", 7).check(M)


def test_values_are_the_metrics() -> None:
    found = group_values(REWARDS, SCORES, 5)
    assert set(found) == {f"{name}{k}" for name in ("pass@", "best_of_") for k in (1, 2, 4, 5)}
    for k in (1, 2, 4, 5):
        assert found[f"pass@{k}"] == pytest.approx(float(pass_at_k(REWARDS.numpy(), k).mean()))
        assert found[f"best_of_{k}"] == pytest.approx(float(best_of_k(REWARDS.numpy(), SCORES.numpy(), k).mean()))
    assert set(group_values(REWARDS / 2, None, 3)) == {"max@1", "max@2", "max@3", "max@4"}
    assert group_values(REWARDS * torch.nan, None, 3) == {}
