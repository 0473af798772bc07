"""Linear rank objectives against enumeration: every weight vector, ties, r ≠ R, several budgets.

1. On every pool of M ≤ 5 samples from six outcomes, advantages equal M W_i minus the baseline, W_i summed over all
   N-subsets with the ranks of ties averaged; loo is M (Ĵ − Ĵ without i), loo1 the same subsets with i ranked last.
2. The exact expectation of (1/M) Σ A_i ∇log π over all pools is the finite-difference gradient of J_α to 1e-8, for six
   weight vectors, negative ones too, with r ≠ R and ties.
3. best_of is bon_rl, mean is RLOO, and with r = R and weights on the last ranks it is the mean of the lowest rewards.
4. Several budgets are the weighted sum of the single ones, to 1e-12; N = 1 takes loo beside loo1. With weights in
   proportion to 1/N, up to M − 1, and 0/1 rewards they are MaxRL, sample by sample.
5. Exact integers agree at M = 64; M = 4096 is finite and shift-invariant in float32 and float64.
6. What cannot be is refused in one sentence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from bontune.objectives import bon_rl, maxrl, pkpo, rank, rloo
from bontune.objectives.ranks import alphas_of, paid_below
from oracles import (
    GRADED,
    NOISY,
    UNTIED,
    World,
    assert_equal_to,
    assert_gradient,
    expected_gradient,
    finite_difference,
    multisets,
    tuples,
)

WORLDS = pytest.mark.parametrize("world", [GRADED, UNTIED, NOISY], ids=["graded", "untied", "noisy"])
ALPHAS = {
    "best": (1.0,),
    "second": (0.0, 1.0),
    "two": (0.5, 0.5),
    "contrast": (2.0, -1.0),
    "last": (0.0, 0.0, 1.0),
    "mixed": (0.7, -0.4, 0.7),
}
CASES = [
    (name, m, n, baseline)
    for name, alphas in ALPHAS.items()
    for m, n in [(2, 2), (3, 2), (4, 3), (5, 3)]
    if len(alphas) <= n
    for baseline in ("loo", "loo1", "none")
    if (m > n if baseline == "loo" else len(alphas) < n if baseline == "loo1" else True)
]
EACH_CASE = pytest.mark.parametrize(("name", "m", "n", "baseline"), CASES)


def paid(rewards: Tensor, scores: Tensor, alphas: Sequence[float]) -> Tensor:
    """Σ_j α_j R(y_(j)) of N samples (..., N); the samples of a tie share their ranks' weights evenly."""
    n = rewards.shape[-1]
    weights = torch.tensor([*alphas, *[0.0] * (n - len(alphas))], dtype=torch.float64)
    above = (scores.unsqueeze(-2) > scores.unsqueeze(-1)).sum(-1)
    tied = (scores.unsqueeze(-2) == scores.unsqueeze(-1)).sum(-1)
    place = torch.arange(n)
    is_own = (place >= above.unsqueeze(-1)) & (place < (above + tied).unsqueeze(-1))
    share = (is_own * weights).sum(-1) / tied
    return (share * rewards).sum(-1)


def value(rewards: Tensor, scores: Tensor, n: int, alphas: Sequence[float]) -> Tensor:
    """Mean over all N-subsets of a pool."""
    subsets = torch.tensor(list(itertools.combinations(range(rewards.shape[-1]), n)))
    return paid(rewards[..., subsets], scores[..., subsets], alphas).mean(-1)


def by_subsets(rewards: Tensor, scores: Tensor, n: int, alphas: Sequence[float], baseline: str) -> Tensor:
    """Advantages by their definition, one left-out sample at a time."""
    m = rewards.shape[-1]
    columns = []
    for i in range(m):
        subsets = torch.tensor([s for s in itertools.combinations(range(m), n) if i in s])
        credit = paid(rewards[..., subsets], scores[..., subsets], alphas).sum(-1) / math.comb(m, n)
        rest = [j for j in range(m) if j != i]
        if baseline == "none":
            columns.append(m * credit)
        elif baseline == "loo":
            whole = value(rewards, scores, n, alphas)
            columns.append(m * (whole - value(rewards[..., rest], scores[..., rest], n, alphas)))
        else:
            sunk, worthless = scores.clone(), rewards.clone()
            sunk[..., i], worthless[..., i] = -99, 0.0
            without = paid(worthless[..., subsets], sunk[..., subsets], alphas).sum(-1) / math.comb(m, n)
            columns.append(m * (credit - without))
    return torch.stack(columns, dim=-1)


def objective(world: World, n: int, alphas: Sequence[float]):
    draws = tuples(len(world.logits), n)
    worth = paid(world.rewards[draws], world.scores[draws], alphas)
    return lambda policy: (policy[draws].prod(-1) * worth).sum()


@WORLDS
@EACH_CASE
def test_advantages_equal_brute_force(world: World, name: str, m: int, n: int, baseline: str) -> None:
    pools = multisets(len(world.logits), m)[0]
    rewards, scores = world.rewards[pools], world.scores[pools]
    found = rank(rewards, scores, n, ALPHAS[name], baseline=baseline)
    assert_equal_to(found, by_subsets(rewards, scores, n, ALPHAS[name], baseline), atol=1e-12)
    if baseline == "loo":
        assert_equal_to(found.sum(-1), torch.zeros(len(rewards)), atol=1e-12)


@WORLDS
@EACH_CASE
def test_expectation_is_the_gradient(world: World, name: str, m: int, n: int, baseline: str) -> None:
    true = finite_difference(objective(world, n, ALPHAS[name]), world.logits)
    estimate = expected_gradient(
        lambda pools: rank(world.rewards[pools], world.scores[pools], n, ALPHAS[name], baseline=baseline),
        world.policy,
        m,
    )
    assert_gradient(estimate, true)


@WORLDS
def test_named_weights_are_the_objectives_that_they_name(world: World) -> None:
    pools = tuples(len(world.logits), 5)
    rewards, scores = world.rewards[pools], world.scores[pools]
    assert torch.equal(rank(rewards, scores, 3), bon_rl(rewards, scores, 3))
    assert_equal_to(rank(rewards, scores, 4, "mean"), rloo(rewards), atol=1e-12)
    assert_equal_to(rank(rewards, scores, 3, "top_m", m=3), rloo(rewards), atol=1e-12)
    assert_equal_to(rank(rewards, scores, 4, "top_m", m=1), bon_rl(rewards, scores, 4), atol=1e-12)
    assert torch.equal(rank(rewards, scores, 3, torch.tensor([0.5, 0.5])), rank(rewards, scores, 3, "top_m", m=2))
    assert torch.equal(rank(rewards, scores, 3, np.array([0.5, 0.5])), rank(rewards, scores, 3, "top_m", m=2))
    lowest = rank(rewards, rewards, 4, "cvar", share=0.25)
    assert_equal_to(lowest, -bon_rl(-rewards, -rewards, 4), atol=1e-12)  # the least is minus the best of minus


@WORLDS
@pytest.mark.parametrize("baseline", ["loo", "loo1", "none"])
@pytest.mark.parametrize("n", [{1: 0.5, 3: 0.5}, {1: 0.2, 2: 0.3, 4: 0.5}, {2: 1.0}, {1: 0.0, 4: 1.0}])
def test_several_budgets_are_their_weighted_sum(world: World, baseline: str, n: dict[int, float]) -> None:
    pools = tuples(len(world.logits), 5)
    rewards, scores = world.rewards[pools], world.scores[pools]
    single = {k: "loo" if baseline == "loo1" and k == 1 else baseline for k in n}
    expected = sum(weight * bon_rl(rewards, scores, k, single[k]) for k, weight in n.items())
    assert_equal_to(bon_rl(rewards, scores, n, baseline), expected, atol=1e-12)
    if baseline != "none":
        assert_equal_to(pkpo(rewards, n, baseline), bon_rl(rewards, rewards, n, baseline), atol=1e-12)


@pytest.mark.parametrize("m", [2, 3, 5, 32])
def test_maxrl_is_every_budget_at_once(m: int) -> None:
    harmonic = sum(1 / n for n in range(1, m))
    every = {n: 1 / n / harmonic for n in range(1, m)}
    rewards = (torch.arange(m) < torch.arange(m + 1).unsqueeze(-1)).double()  # every number of right samples
    assert_equal_to(harmonic * bon_rl(rewards, None, every), maxrl(rewards), atol=1e-11)


@WORLDS
def test_several_budgets_are_unbiased(world: World) -> None:
    parts = [(weight, objective(world, n, (1.0,))) for n, weight in ((1, 0.5), (3, 0.5))]
    true = finite_difference(lambda policy: sum(weight * part(policy) for weight, part in parts), world.logits)
    for baseline in ("loo", "loo1", "none"):
        estimate = expected_gradient(
            lambda pools, baseline=baseline: bon_rl(
                world.rewards[pools], world.scores[pools], {1: 0.5, 3: 0.5}, baseline
            ),
            world.policy,
            4,
        )
        assert_gradient(estimate, true)


@pytest.mark.parametrize(("m", "n"), [(64, 16), (64, 63), (33, 32)])
@pytest.mark.parametrize("weights", ["top_m", "cvar", "mean", [0.0, 0.25, 0.5, 0.25]])
def test_weights_of_places_are_exact(m: int, n: int, weights: str | list[float]) -> None:
    alphas = alphas_of(weights, n)
    total, found = Fraction(0), paid_below(m, n, alphas)
    for below in range(m):
        for j, alpha in enumerate(alphas, start=1):
            total += Fraction(alpha) * math.comb(m - 1 - below, j - 1) * math.comb(below, n - j) / math.comb(m, n)
        assert found[below + 1].item() == pytest.approx(float(total), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [{1: 0.5, 16: 0.5}, 2048, 4095])
@pytest.mark.parametrize("weights", ["best_of", "top_m"])
def test_large_pools(dtype: torch.dtype, n: int | dict[int, float], weights: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(2, 4096, generator=generator, dtype=torch.float64).to(dtype)
    scores = torch.randint(0, 1000, (2, 4096), generator=generator)
    found = rank(rewards, scores, n, weights, m=1)
    assert found.dtype is dtype
    assert bool(found.isfinite().all())
    assert_equal_to(found.double().mean(-1), torch.zeros(2, dtype=torch.float64), atol=1e-5)
    shifted = rank((rewards + 1).double(), scores, n, weights, m=1)
    assert_equal_to(found.double(), shifted, atol=1e-3 if dtype is torch.float32 else 1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": {1: 0.5, 4: 0.6}}, r"n = \{1: 0.5, 4: 0.6\} has weights that sum to 1.1; they must sum to 1"),
        ({"n": {1: 0.5, 64: 0.5}}, r"n = 64 is more than the 8 samples per prompt allow"),
        ({"n": {1: -0.5, 4: 1.5}}, r"the budget 1 the weight -0.5; weights are 0 or more"),
        ({"n": {1: math.nan, 4: 1.0}}, r"the budget 1 the weight nan"),
        ({"n": {}}, "n names no budget"),
        ({"n": {1: 0.5, 4: None}}, r"n = \{1: 0.5, 4: None\} gives a budget a weight that is not a number"),
        ({"n": {"1": 0.5, 4: 0.5}}, "n must be an integer, got '1'"),
        ({"n": 4, "weights": ["a", "b"]}, r"weights must be best_of, .* or numbers, got \['a', 'b'\]"),
        ({"n": 4, "weights": None}, "or numbers, got None"),
        ({"n": 4, "weights": "top_m", "m": 2.5}, "m is a whole number from 1 to 4, got 2.5"),
        ({"n": {0: 0.5, 4: 0.5}}, "n must be at least 1, got 0"),
        ({"n": {1.5: 0.5, 4: 0.5}}, "n must be an integer, got 1.5"),
        ({"n": 4, "weights": [0.5, 0.4]}, "weights sum to 0.9; those of a rank objective must sum to 1"),
        ({"n": 2, "weights": [0.5, 0.25, 0.25]}, "weights pay rank 3, but only n = 2 samples are ranked"),
        ({"n": 4, "weights": []}, "weights sum to 0; "),
        ({"n": 4, "weights": "best"}, "weights must be best_of, top_m, cvar, mean or numbers, got 'best'"),
        ({"n": 4, "weights": "top_m", "m": 5}, "m is a whole number from 1 to 4, got 5"),
        ({"n": 4, "weights": "cvar", "share": 0.0}, r"share lies in \(0, 1\], got 0"),
        ({"n": 4, "weights": "mean", "baseline": "loo1"}, "loo1 ranks a sample last among n = 4, and these weights"),
        ({"n": 1, "baseline": "loo1"}, "n must be at least 2, got 1"),
        ({"n": 8, "baseline": "loo"}, r"n = 8 is more than the 8 samples per prompt allow"),
        ({"n": 4, "baseline": "mean"}, "baseline must be 'loo', 'loo1' or 'none', got 'mean'"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank([0.0] * 8, [0.0] * 8, **arguments)
