"""Stopping early, studied on pools whose answer is known.

1. Each score to stop at draws as many samples as its budget on the pool it was chosen on, to within one score's step.
2. Under a verifier that tells right from wrong it beats a fixed number of draws; under one that says nothing it does
   not, and where each problem has a scale of its own no number of draws below N is said to do as well.
3. Rewards do not move the scores of a budget; what is measured is what ``adaptive_best_of_n`` says.
"""

from __future__ import annotations

import numpy as np

from bontune.metrics import adaptive_best_of_n, best_of_k
from bontune.scaling import PoolArrays, study_stopping


def drawn(seed: int, noise: float) -> PoolArrays:
    """200 problems of very different difficulty, 32 samples; scores are log-odds of a right answer, plus noise."""
    rng = np.random.default_rng(seed)
    rate_P1 = rng.beta(0.4, 1.2, size=(200, 1))
    rights_PM = (rng.random((200, 32)) < rate_P1).astype(float)
    return PoolArrays(rewards_PM=rights_PM, scores_PM=3 * rights_PM + noise * rng.normal(size=rights_PM.shape))


def test_budgets_are_met() -> None:
    pool = drawn(0, noise=1.0)
    study = study_stopping(pool, pool, n=16, round_size=2)
    assert [point.budget for point in study.points] == [4, 8]
    for point in study.points:
        assert point.budget - 0.1 < point.draws.value <= point.budget
        reward, draws = adaptive_best_of_n(pool.rewards_PM, pool.scores_PM, 16, point.stop_at, round_size=2)
        assert point.reward.value == reward.mean()
        assert point.draws.value == draws.mean()
        less, more = (best_of_k(pool.rewards_PM, pool.scores_PM, point.budget - i).mean() for i in (1, 0))
        assert less <= point.fixed.value <= more + 1e-12
        assert np.isclose(point.gain.value, point.reward.value - point.fixed.value)
        assert np.isclose(point.loss.value, point.reward.value - study.full.value)


def test_a_good_verifier_saves_draws_on_other_problems_too() -> None:
    study = study_stopping(drawn(0, noise=0.5), drawn(1, noise=0.5), n=16)
    assert all(point.gain.low > 0 for point in study.points if point.budget > 2)
    assert study.cheapest is not None
    assert study.cheapest.draws.value < 12
    assert study.cheapest.loss.low > -0.02


def test_a_verifier_that_says_nothing_gains_nothing() -> None:
    """Whichever sample it takes is right as often, so that stopping early is worth as much as any number of draws."""
    rng = np.random.default_rng(2)
    pool = PoolArrays(rewards_PM=drawn(2, 0).rewards_PM, scores_PM=rng.normal(size=(200, 32)))
    study = study_stopping(pool, pool, n=16)
    assert all(point.gain.low < 0 < point.gain.high for point in study.points)


def test_scores_that_compare_only_answers_to_one_prompt_save_nothing() -> None:
    """The right answer scores highest in its problem, but each problem has a scale of its own."""
    rewards_PM = np.zeros((40, 32))
    rewards_PM[:, 0] = 1.0
    wrong_PM = np.random.default_rng(4).random((40, 32))
    pool = PoolArrays(
        rewards_PM=rewards_PM, scores_PM=100.0 * np.arange(40)[:, None] + np.where(rewards_PM > 0, 2.0, wrong_PM)
    )
    study = study_stopping(pool, pool, n=16)
    assert study.full.value == 0.5
    assert study.cheapest is None


def test_rewards_do_not_choose_a_budgets_score() -> None:
    pool = drawn(3, noise=1.0)
    other = PoolArrays(rewards_PM=1 - pool.rewards_PM, scores_PM=pool.scores_PM)
    ours, theirs = study_stopping(pool, pool, n=16), study_stopping(other, other, n=16)
    assert [point.stop_at for point in ours.points] == [point.stop_at for point in theirs.points]
    assert theirs.cheapest is None or theirs.cheapest.loss.low >= -0.01
