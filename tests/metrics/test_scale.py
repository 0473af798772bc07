"""What counts as solved, and what a sample counts that could not be graded: never better than a wrong one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from bontune.metrics import max_at_k, pass_at_k, reward_scale
from bontune.metrics.evaluation import evaluate_pool, share_families, under_shared_names
from bontune.pools.pool import Pool

NAN = math.nan


@pytest.mark.parametrize(
    ("rewards", "lowest", "solved_at", "is_binary"),
    [
        ([[-1, -1, -1, None]], -1, None, False),
        ([[-1, 1, NAN]], -1, 1, False),
        ([[-3.5, -2.5, None]], -3.5, -2.5, False),
        ([[1, 1, None]], 0, 1, True),
        ([[0, None]], 0, 1, True),
        ([[0.5, 0.75, None]], 0, 0.75, False),
        ([[0.25, 0.5, 1, None]], 0, None, False),
        ([[2, None]], 0, None, False),
        ([[True, False]], 0, 1, True),
    ],
)
def test_the_scale_of_a_pool(
    rewards: list[list[float | None]], lowest: float, solved_at: float | None, is_binary: bool
) -> None:
    scale = reward_scale([rewards])
    assert (scale.lowest, scale.solved_at, scale.is_binary) == (lowest, solved_at, is_binary)
    pool = Pool(problem_ids=["a"], columns={"reward": rewards}, settings={})  # type: ignore[arg-type]
    known = [r for r in rewards[0] if r is not None and not math.isnan(r)]
    assert pool.rewards() == [[*known, *[lowest] * (len(rewards[0]) - len(known))]]


def test_what_could_not_be_graded_never_beats_a_wrong_one() -> None:
    wrong = evaluate_pool(["a"], [[-1, -1, -1, None]], [1, 2, 4]).values
    assert {name: v[0] for name, v in wrong.items()} == {"max@1": -1, "max@2": -1, "max@4": -1}
    votes = evaluate_pool(
        ["a"], [[-1.0, 1.0, None]], [1], scores_PM=[[1.0, 2.0, 3.0]], answers_PM=[["x", "y", "y"]], is_full=True
    ).values
    assert (votes["best@1"][0], votes["max@1"][0]) == pytest.approx((-1 / 3, -1 / 3))
    assert votes["majority@1"][0] == pytest.approx((-1 + 0 + 0) / 3), "y is worth (1 − 1)/2"


def test_pass_at_k_of_rewards_of_two_values_counts_the_larger() -> None:
    rng = np.random.default_rng(0)
    solved = rng.random((12, 8)) < 0.3
    rewards = np.where(solved, 1.0, -1.0)
    found = evaluate_pool(
        [str(i) for i in range(12)], rewards.tolist(), [1, 4], scale=reward_scale([rewards.tolist()]), is_full=True
    ).values
    for k in (1, 4):
        np.testing.assert_array_equal(found[f"pass@{k}"], pass_at_k(solved.astype(float), k))
        np.testing.assert_array_equal(found[f"max@{k}"], max_at_k(rewards, k))
        np.testing.assert_allclose(found[f"max@{k}"], 2 * found[f"pass@{k}"] - 1, atol=1e-12)


def test_pools_that_are_compared_share_one_limit() -> None:
    pools: list[Sequence[Sequence[float | None]]] = [[[0, 1]], [[0, 0.5]], [[None, 1]]]
    scale = reward_scale(pools)
    assert (scale.solved_at, scale.is_binary) == (None, False)
    assert {n for pool in pools for n in evaluate_pool(["a"], pool, [2], scale=scale).values} == {"max@2"}
    two = reward_scale([[[-1, -1]], [[1, 1]], [[None, 1]]])
    assert [evaluate_pool(["a"], [[r, 1]], [1], scale=two).values["pass@1"][0] for r in (-1, None, 1)] == [0.5, 0.5, 1]


@pytest.mark.parametrize("solved_at", [0.5, 1.0, 0.0, -7.0])
def test_a_limit_of_ones_own_never_counts_what_could_not_be_graded(solved_at: float) -> None:
    rewards = [[0.25, 0.5, 0.75, None]]
    scale = reward_scale([rewards], solved_at)
    assert scale.lowest < solved_at
    found = evaluate_pool(["a"], rewards, [1], scale=scale).values["pass@1"][0]
    assert found == sum(r is not None and r >= solved_at for r in rewards[0]) / 4


def test_names_and_units() -> None:
    rows = under_shared_names([{"pass@4": 1.0, "best@4": 1.0}, {"max@4": 0.5}, {"pass@4": 0.0, "max@4": -1.0}])
    assert rows == [{"max@4": 1.0, "best@4": 1.0}, {"max@4": 0.5}, {"pass@4": 0.0, "max@4": -1.0}]
    assert under_shared_names([{"pass@4": 1.0}]) == [{"pass@4": 1.0}]
    assert share_families(["max@1", "best@1", "pass@1", "all@1", "auc"]) == {"pass", "all"}
    assert share_families(["pass@1", "best@1", "gap@1"]) == {"pass", "best", "gap"}
