"""Best-of-N that stops early, against every order in which a pool can be drawn.

1. Reward and draws equal their means over all M! orders: ties, −∞ scores, rounds that do not divide N.
2. At the ends it is best-of-N, and best-of one round.
3. With a verifier that is never wrong, the draws are those of a geometric law cut at N, and what they cost is a sum of
   pass@k: an adaptive N with a price per draw is several N at once.
4. The kind and the leading axes of the rewards come back; what is out of range is a ValueError.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bontune.metrics import adaptive_best_of_n, best_of_k, pass_at_k


def by_all_orders(
    rewards: list[float], scores: list[float], n: int, stop_at: float, round_size: int
) -> tuple[float, float]:
    """Mean reward of the winner, ties uniform, and mean number of draws."""
    paid, drawn = [], []
    for order in itertools.permutations(range(len(rewards))):
        num = 0
        while num < n:
            num = min(num + round_size, n)
            if max(scores[i] for i in order[:num]) >= stop_at:
                break
        best = max(scores[i] for i in order[:num])
        paid.append(np.mean([rewards[i] for i in order[:num] if scores[i] == best]))
        drawn.append(num)
    return float(np.mean(paid)), float(np.mean(drawn))


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[float], list[float], int, float, int]:
    m = draw(st.integers(1, 6))
    rewards = draw(st.lists(st.floats(-2, 2, width=16), min_size=m, max_size=m))
    scores = draw(st.lists(st.sampled_from([-math.inf, 0.0, 1.0, 2.0]), min_size=m, max_size=m))
    stop_at = draw(st.sampled_from([-math.inf, 0.0, 0.5, 1.0, 2.0, 3.0, math.inf]))
    return rewards, scores, draw(st.integers(1, m)), stop_at, draw(st.integers(1, m + 1))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(pools())
def test_it_is_the_mean_over_all_orders(pool: tuple[list[float], list[float], int, float, int]) -> None:
    rewards, scores, n, stop_at, round_size = pool
    found = adaptive_best_of_n(np.array(rewards), scores, n, stop_at, round_size=round_size)
    np.testing.assert_allclose(found, by_all_orders(*pool), rtol=0, atol=1e-12)


def test_at_its_ends_it_is_best_of_n() -> None:
    rng = np.random.default_rng(0)
    rewards, scores = rng.normal(size=(3, 20, 12)), rng.integers(0, 5, size=(3, 20, 12)).astype(float)
    reward, draws = adaptive_best_of_n(rewards, scores, 10, math.inf, round_size=4)
    np.testing.assert_allclose(reward, best_of_k(rewards, scores, 10), rtol=0, atol=1e-12)
    assert reward.shape == (3, 20)
    assert (draws == 10).all()
    reward, draws = adaptive_best_of_n(rewards, scores, 10, 0.0, round_size=4)
    np.testing.assert_allclose(reward, best_of_k(rewards, scores, 4), rtol=0, atol=1e-12)
    assert (draws == 4).all()


def test_a_verifier_that_is_never_wrong() -> None:
    """Until the first success, N at most: (1 − (1 − p)^N) / p draws, over pools of 64 drawn with p = 0.2."""
    rights = (np.random.default_rng(1).random((4000, 64)) < 0.2).astype(float)
    reward, draws = adaptive_best_of_n(rights, rights, 16, 1.0)
    for found, expected in ((reward, 1 - 0.8**16), (draws, (1 - 0.8**16) / 0.2)):
        assert abs(found.mean() - expected) < 4 * found.std() / 4000**0.5


def test_a_price_per_draw_is_several_n_at_once() -> None:
    rights = (np.random.default_rng(2).random((50, 12)) < 0.3).astype(float)
    reward, draws = adaptive_best_of_n(rights, rights, 8, 1.0)
    np.testing.assert_allclose(reward, pass_at_k(rights, 8), rtol=0, atol=1e-12)
    np.testing.assert_allclose(draws, 8 - sum(pass_at_k(rights, k) for k in range(1, 8)), rtol=0, atol=1e-12)


def test_tensors_stay_tensors() -> None:
    rewards = torch.tensor([[1, 0, 0], [0, 0, 1]])
    reward, draws = adaptive_best_of_n(rewards, torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), 2, 3.0)
    assert isinstance(reward, torch.Tensor)
    assert reward.dtype == draws.dtype == torch.float64
    torch.testing.assert_close(reward, torch.tensor([2 / 3, 0.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("n", "stop_at", "round_size", "message"),
    [(4, 0.0, 1, "n = 4 is more than the 3"), (2, 0.0, 0, "1 draw at least"), (2, math.nan, 1, "is a number")],
)
def test_what_is_refused(n: int, stop_at: float, round_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adaptive_best_of_n([1.0, 0.0, 0.0], [1.0, 2.0, 3.0], n, stop_at, round_size=round_size)
