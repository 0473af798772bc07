"""What a verifier is worth and whether its probabilities are true.

1. calibration equals its definition computed by hand, does not depend on the order, and keeps ties together;
2. Platt scaling is the maximum of its likelihood (a grid search finds nothing better) and survives separable scores;
3. drop@k equals max_j best@j − best@k with best@j by enumeration of subsets;
4. an evaluation reports gap, drop, weighted votes and AUC of a verifier, and none of them of the oracle.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bontune.metrics import best_of_k, calibration, drop_at_k, majority_at_k, pass_at_k, platt_scaling, sigmoid
from bontune.metrics.evaluation import evaluate_pool, vote_weights

# ---- calibration ----


def test_calibration_by_hand() -> None:
    rewards = [0, 0, 1, 1, 0, 1]
    probabilities = [0.1, 0.3, 0.4, 0.6, 0.8, 0.9]
    found = calibration(rewards, probabilities, num_bins=3)
    assert [(b.count, round(b.probability, 12), b.reward) for b in found.bins] == [
        (2, 0.2, 0.0),
        (2, 0.5, 1.0),
        (2, 0.85, 0.5),
    ]
    assert found.ece == pytest.approx((0.2 + 0.5 + 0.35) / 3)
    assert found.brier == pytest.approx((0.01 + 0.09 + 0.36 + 0.16 + 0.64 + 0.01) / 6)


probabilities_and_rewards = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0]), st.sampled_from([0.0, 0.5, 1.0])),
    min_size=1,
    max_size=30,
)


@given(probabilities_and_rewards, st.integers(1, 12), st.randoms())
@settings(max_examples=100, deadline=None)
def test_calibration_is_a_partition_that_ignores_the_order(pairs, num_bins, rng):
    found = calibration([r for _, r in pairs], [p for p, _ in pairs], num_bins)
    shuffled = pairs.copy()
    rng.shuffle(shuffled)
    again = calibration([r for _, r in shuffled], [p for p, _ in shuffled], num_bins)
    assert again.ece == pytest.approx(found.ece, abs=1e-12)
    assert [b.count for b in again.bins] == [b.count for b in found.bins]
    assert sum(b.count for b in found.bins) == len(pairs)
    assert len(found.bins) <= num_bins
    means = [b.probability for b in found.bins]
    assert means == sorted(means)
    assert len(set(means)) == len(means)  # equal probabilities share a bin
    overall = abs(np.mean([p for p, _ in pairs]) - np.mean([r for _, r in pairs]))
    assert overall - 1e-12 <= found.ece <= 1  # triangle inequality over the bins
    assert found.brier == pytest.approx(np.mean([(p - r) ** 2 for p, r in pairs]))


def test_a_true_probability_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(20_000)
    rewards = (rng.random(20_000) < probabilities).astype(float)
    assert calibration(rewards, probabilities).ece < 0.02  # √(10/20000)/2 = 0.011 is expected
    assert calibration(rewards, probabilities).brier == pytest.approx(1 / 6, abs=0.005)  # E p(1 − p)
    assert calibration(rewards, np.sqrt(probabilities)).ece > 0.1


@pytest.mark.parametrize(
    ("rewards", "probabilities", "message"),
    [
        ([0, 1], [0.5, 1.5], "probabilities must lie in"),
        ([0, 2], [0.5, 0.5], "rewards must lie in"),
        ([0, 1], [0.5], "same shape"),
        ([0, 1], [0.5, math.nan], "NaN"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "at least one completion"),
    ],
)
def test_calibration_refuses(rewards, probabilities, message) -> None:
    with pytest.raises(ValueError, match=message):
        calibration(rewards, probabilities)


def platt_loss(rewards: np.ndarray, scores: np.ndarray, slope: float, intercept: float) -> float:
    num_correct = rewards.sum()
    targets = np.where(rewards > 0, (num_correct + 1) / (num_correct + 2), 1 / (len(rewards) - num_correct + 2))
    p = 1 / (1 + np.exp(-(slope * scores + intercept)))
    return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_platt_scaling_is_the_maximum_of_its_likelihood(scale) -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(2.0, 1.0, 400)
    rewards = (rng.random(400) < sigmoid(1.5 * scores - 4.0)).astype(float)
    slope, intercept = platt_scaling(rewards, scores * scale)
    assert slope * scale == pytest.approx(1.5, abs=0.4)
    best = platt_loss(rewards, scores, slope * scale, intercept)
    for a, b in itertools.product((-0.02, 0.0, 0.02), repeat=2):
        assert best <= platt_loss(rewards, scores, slope * scale + a, intercept + b) + 1e-9


def test_platt_scaling_of_separable_inverse_and_constant_scores() -> None:
    rewards = np.array([0.0] * 5 + [1.0] * 5)
    slope, intercept = platt_scaling(rewards, rewards * 2 - 1)
    assert sigmoid([slope + intercept]) == pytest.approx(6 / 7)  # Platt's target of the right ones
    assert platt_scaling(rewards, -rewards)[0] < 0
    slope, intercept = platt_scaling([1, 0, 0, 0], [7.0] * 4)
    assert sigmoid([slope * 7.0 + intercept]) == pytest.approx((2 / 3 + 3 / 5) / 4)
    with pytest.raises(ValueError, match="finite"):
        platt_scaling([0, 1], [0.0, math.inf])


# ---- drop ----


def enumerated_best(rewards: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Mean over all k-subsets of the mean reward of those that share the highest score."""
    values = []
    for subset in itertools.combinations(range(len(rewards)), k):
        top = max(scores[i] for i in subset)
        values.append(np.mean([rewards[i] for i in subset if scores[i] == top]))
    return float(np.mean(values))


@pytest.mark.parametrize("seed", range(6))
def test_drop_is_the_way_down_from_the_peak_by_enumeration(seed) -> None:
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, 2, (3, 7)).astype(float)
    scores = rng.integers(0, 5, (3, 7)) - (1.5 * rewards if seed % 2 else -0.5 * rewards)
    for k in range(1, 8):
        budgets = [j for j in (1, 2, 4) if j <= k] + [k]
        curve = {j: np.mean([enumerated_best(r, s, j) for r, s in zip(rewards, scores, strict=True)]) for j in budgets}
        drop = drop_at_k(rewards, scores, k)
        assert drop.mean() == pytest.approx(max(curve.values()) - curve[k], abs=1e-12)
        assert drop.mean() >= -1e-15
        np.testing.assert_allclose(drop_at_k(rewards, rewards, k), 0, atol=1e-12)  # the oracle never falls
    assert float(drop_at_k(np.array([1, 0]), [0.1, 0.9], 2)) == 0.5  # one prompt alone: from ½ to 0


# ---- evaluation ----


def test_evaluation_of_a_verifier() -> None:
    rng = np.random.default_rng(3)
    rewards = (rng.random((5, 8)) < 0.4).astype(float)
    rewards[0], rewards[1, :2] = 0.0, (0.0, 1.0)  # one problem without a right sample
    scores = rng.normal(size=(5, 8)) + rewards
    answers = [["right" if r else str(rng.integers(3)) for r in row] for row in rewards]
    found = evaluate_pool(list("abcde"), rewards, [1, 4], scores_PM=scores, answers_PM=answers, is_full=True)
    np.testing.assert_allclose(found.values["gap@4"], pass_at_k(rewards, 4) - best_of_k(rewards, scores, 4), atol=1e-12)
    np.testing.assert_array_equal(found.values["drop@4"], drop_at_k(rewards, scores, 4))
    np.testing.assert_array_equal(
        found.values["weighted@4"], majority_at_k(answers, rewards, 4, 1 / (1 + np.exp(-scores)))
    )
    assert math.isnan(found.values["auc"][0])
    pairs = [
        np.mean([(a > b) + (a == b) / 2 for a in s[r == 1] for b in s[r == 0]])
        for r, s in zip(rewards[1:], scores[1:], strict=True)
    ]
    assert found.means()["auc"] == pytest.approx(np.mean(pairs))
    assert found.intervals()["auc"].value == pytest.approx(np.mean(pairs))
    assert found.difference(found, "auc").value == 0


def test_the_oracle_gets_no_rows_that_say_nothing() -> None:
    rewards = [[1.0, 0.0, 0.0, 1.0]]
    for scores in (rewards, [[1.0, 0.0, -math.inf, 1.0]]):  # −∞: what could not be graded
        found = evaluate_pool(["a"], rewards, [1, 2], scores_PM=scores, answers_PM=[list("abcd")], is_full=True)
        families = {name.partition("@")[0] for name in found.values}
        assert families == {"pass", "all", "best", "majority", "distinct", "entropy"}


def test_an_evaluation_without_two_classes_or_with_graded_rewards_has_no_auc() -> None:
    assert "auc" not in evaluate_pool(["a"], [[0.0, 0.0]], [1], scores_PM=[[0.3, 0.1]]).values
    graded = evaluate_pool(["a"], [[0.5, 0.0]], [1, 2], scores_PM=[[0.3, 0.1]]).values
    assert "auc" not in graded
    assert graded["gap@2"][0] == 0


def test_vote_weights_are_probabilities() -> None:
    np.testing.assert_array_equal(vote_weights(np.array([[0.0, 0.5, 1.0]])), [[0.0, 0.5, 1.0]])
    np.testing.assert_allclose(vote_weights(np.array([[-2.0, 0.5]])), [[1 / (1 + np.exp(2)), 1 / (1 + np.exp(-0.5))]])
    np.testing.assert_array_equal(vote_weights(np.array([[0.5, -np.inf]])), [[0.5, 0.0]])
    assert np.isfinite(vote_weights(np.array([[np.inf, -np.inf, -800.0]]))).all()


def test_problems_with_different_numbers_of_samples_are_evaluated_each_by_itself() -> None:
    rng = np.random.default_rng(5)
    sizes = [4, 8, 4, 16, 8, 4]
    rewards = [(rng.random(m) < 0.5).astype(float).tolist() for m in sizes]
    scores = [rng.normal(size=m).tolist() for m in sizes]
    answers = [[str(rng.integers(3)) for _ in range(m)] for m in sizes]
    ids = [f"p{p}" for p in range(len(sizes))]
    whole = evaluate_pool(ids, rewards, [1, 2, 4], scores_PM=scores, answers_PM=answers, is_full=True)
    assert whole.problem_ids == ids
    for p, name in enumerate(ids):
        alone = evaluate_pool(
            [name], [rewards[p]], [1, 2, 4], scores_PM=[scores[p]], answers_PM=[answers[p]], is_full=True
        )
        assert set(alone.values) - set(whole.values) == {"drop@1", "drop@2", "drop@4"}
        for metric in whole.values.keys() & alone.values.keys():
            value = alone.values[metric]
            np.testing.assert_allclose(whole.values[metric][p], value[0], err_msg=metric)
    with pytest.raises(ValueError, match="k = 8"):
        evaluate_pool(ids, rewards, [8], scores_PM=scores)


def test_different_numbers_of_samples_of_graded_rewards_are_all_graded() -> None:
    found = evaluate_pool(["a", "b"], [[1.0, 0.0], [0.5, 0.0, 1.0]], [1, 2], scores_PM=[[1.0, 2.0], [1.0, 2.0, 3.0]])
    assert {name.partition("@")[0] for name in found.values} == {"max", "best", "gap"}
    np.testing.assert_allclose(found.values["max@2"], [1.0, (0.5 + 1 + 1) / 3])
