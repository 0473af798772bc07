"""Training for a majority vote against enumeration.

1. On every pool of M ≤ 5 samples from six outcomes with abstainers, ties and answers of mixed rewards, advantages equal
   M (Ĵ − Ĵ without i), Ĵ the mean over all N-subsets of the reward of a uniformly drawn holder of a uniformly drawn
   winner.
2. The exact expectation of (1/M) Σ A_i ∇log π over all pools is the finite-difference gradient of the vote's value.
3. With two answers and an odd N it is the closed form N C(N−1, ⌊N/2⌋) (s q)^⌊N/2⌋ on ∇s.
4. N = 1 is RLOO; several budgets are the weighted sum; M = 64 agrees with the metric; nothing weighs where all agree.
5. What cannot be is refused in one sentence.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from bontune.metrics import majority_at_k
from bontune.objectives import majority_vote, rloo
from oracles import LOGITS, assert_gradient, expected_gradient, finite_difference, multisets, tuples

ANSWERS = ("a", "b", "a", None, "c", "b")
"""Of six outcomes; the holders of "a" have different rewards."""
REWARDS = (1.0, 0.0, 0.5, 0.7, 0.0, 0.0)
CASES = [(2, 1), (3, 1), (3, 2), (4, 2), (4, 3), (5, 3)]


def elected(answers: Sequence[str | None], rewards: Sequence[float]) -> float:
    """Expected reward of one vote among all of these."""
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    winners = [answer for answer, count in votes.items() if count == max(votes.values())]
    of_winner = [[r for a, r in zip(answers, rewards, strict=True) if a == winner] for winner in winners]
    return sum(sum(values) / len(values) for values in of_winner) / len(winners)


def value_of(pool: Sequence[int], n: int) -> float:
    """Mean over all N-subsets of a pool of outcomes."""
    subsets = list(itertools.combinations(pool, n))
    return sum(elected([ANSWERS[y] for y in s], [REWARDS[y] for y in s]) for s in subsets) / len(subsets)


def advantages_of(pools_SM: Tensor, n: object) -> Tensor:
    answers = [[ANSWERS[y] for y in pool] for pool in pools_SM.tolist()]
    return majority_vote(torch.tensor(REWARDS, dtype=torch.float64)[pools_SM], answers, n)


@pytest.mark.parametrize(("m", "n"), CASES)
def test_a_sample_earns_what_it_adds(m: int, n: int) -> None:
    pools, _ = multisets(len(ANSWERS), m)
    for pool, row in zip(pools.tolist(), advantages_of(pools, n).tolist(), strict=True):
        whole = value_of(pool, n)
        expected = [m * (whole - value_of(pool[:i] + pool[i + 1 :], n)) for i in range(m)]
        assert row == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("m", "n"), CASES)
def test_it_is_the_gradient_of_the_vote(m: int, n: int) -> None:
    draws = tuples(len(ANSWERS), n)
    worth = torch.tensor([value_of(draw, n) for draw in draws.tolist()], dtype=torch.float64)
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    ours = expected_gradient(lambda pools: advantages_of(pools, n), logits.softmax(-1), m, ordered=False)
    assert_gradient(ours, finite_difference(lambda policy: (policy[draws].prod(-1) * worth).sum(), logits))


@pytest.mark.parametrize("n", [1, 3, 5])
def test_two_answers_have_a_closed_form(n: int) -> None:
    share = 0.37
    policy, m = torch.tensor([share, 1 - share], dtype=torch.float64), n + 2
    ours = expected_gradient(lambda pools: majority_vote((pools == 0).double(), pools, n), policy, m, ordered=False)
    slope = n * math.comb(n - 1, n // 2) * (share * (1 - share)) ** (n // 2)
    of_logit = share * (1 - share)
    torch.testing.assert_close(ours, slope * of_logit * torch.tensor([1.0, -1.0], dtype=torch.float64))


def test_one_sample_is_rloo() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.3, 0.9, 0.0, 0.3]], dtype=torch.float64)
    answers = [["a", "b", None, "a", "c"], ["d", "e", "f", "d", "e"]]
    torch.testing.assert_close(majority_vote(rewards, answers, 1), rloo(rewards))


def test_several_budgets_are_summed() -> None:
    rewards, answers = [1.0, 0.0, 0.0, 1.0, 0.0], ["a", "b", None, "a", "c"]
    parts = [majority_vote(rewards, answers, n) for n in (1, 3)]
    torch.testing.assert_close(majority_vote(rewards, answers, {1: 0.25, 3: 0.75}), 0.25 * parts[0] + 0.75 * parts[1])


def test_a_pool_of_many() -> None:
    """Against the metric, and no weight where all samples say the same."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(-1, 5, (3, 64), generator=generator)
    rewards = (numbers == 2).double()
    answers = [[None if a < 0 else str(a) for a in row] for row in numbers.tolist()]
    ours = majority_vote(rewards, numbers, 15)
    torch.testing.assert_close(ours, majority_vote(rewards, answers, 15), rtol=0, atol=1e-12)
    for p in range(3):
        rest = [
            majority_at_k(answers[p][:i] + answers[p][i + 1 :], torch.cat([rewards[p, :i], rewards[p, i + 1 :]]), 15)
            for i in range(64)
        ]
        whole = majority_at_k(answers[p], rewards[p], 15)
        torch.testing.assert_close(ours[p], 64 * (whole - torch.stack(rest)), rtol=0, atol=1e-9)
    assert majority_vote([1.0] * 8, ["a"] * 8, 3).eq(0).all()
    assert majority_vote([0.0] * 8, list("abcdefgh"), 3).eq(0).all()


@pytest.mark.parametrize(
    ("answers", "n", "what"),
    [
        (["a", "b", "a"], 3, "n = 3 is more than the 3 samples"),
        (["a", "b"], 1, "need the same shape"),
        (["a", float("nan"), "b"], 1, "answers contains NaN"),
        (["a", {}, "b"], 1, "must be hashable"),
    ],
)
def test_what_cannot_be_is_refused(answers: list[object], n: int, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        majority_vote([1.0, 0.0, 1.0], answers, n)
