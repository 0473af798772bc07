"""Supervised weights against the objectives that they state, by enumeration.

1. sft and dco: loss and weights against the enumerated chance that one of N draws is y*, finite differences, and
   exact decimals from log p = −800 to 0.
2. star and rft: the expected update over all pools is the gradient of log s truncated at order M (normalised), of M s
   (not normalised), and of the truncated log of every correct answer (distinct).
3. bon_distillation equals brute force over subsets, its expected update is π_bon − π, drawn winners have the same
   expectation, and on 0/1 rewards w(s) = (1−q^{N−1})/s, or (1−q^N)/s with wrong winners dropped.
4. Batches equal single prompts, dtypes come back, and bad input is refused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import pytest
import torch
from torch import Tensor

from bontune.objectives import bon_distillation, dco, draw_winners, rft, sft, star, winner_weights
from oracles import (
    BINARY,
    GRADED,
    NOISY,
    UNTIED,
    World,
    assert_equal_to,
    assert_gradient,
    best_of_n_objective,
    expected_gradient,
    finite_difference,
    tuples,
)

WORLDS = pytest.mark.parametrize("world", [GRADED, UNTIED, NOISY], ids=["graded", "untied", "noisy"])


def expected_update(weigh: Callable[[Tensor], Tensor], policy: Tensor, m: int) -> Tensor:
    """E Σ_i w_i ∇log π(y_i) over all pools of M samples (sum form)."""
    return expected_gradient(lambda pools: m * weigh(pools), policy, m)


def best_of_n_law(world: World, n: int) -> Tensor:
    return torch.stack([best_of_n_objective(row, world.scores, n)(world.policy) for row in torch.eye(6).double()])


def fails(policy: Tensor) -> Tensor:
    return (policy * (BINARY.rewards == 0)).sum()


def truncated_log(p: Tensor, order: int) -> Tensor:
    return -sum((1 - p) ** k / k for k in range(1, order + 1))


# --- given answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("expert", [0, 3])
def test_dco_is_the_chance_that_n_draws_contain_the_answer(n: int, expert: int) -> None:
    draws = tuples(6, n)
    has_expert = (draws == expert).any(-1).double()

    def objective(policy: Tensor) -> Tensor:
        return (policy[draws].prod(-1) * has_expert).sum().log()

    found = dco(GRADED.policy[expert].log().unsqueeze(0), n)
    assert_equal_to(-found.loss, objective(GRADED.policy).unsqueeze(0), atol=1e-12)
    score = torch.eye(6).double()[expert] - GRADED.policy
    assert_gradient(found.weights * score, finite_difference(objective, GRADED.logits))


@pytest.mark.parametrize("n", [2, 32, 10_000])
@pytest.mark.parametrize(
    "logprob", [-800.0, -600.5, -599.5, -300.0, -40.0, -8.0, -2.0, -0.7, -0.5, -0.1, -1e-3, -1e-9, -1e-15]
)
def test_dco_against_decimals(n: int, logprob: float) -> None:
    with localcontext() as context:
        # Digits enough for p² beside 1, and for (1 − p)^N down to the smallest double.
        context.prec, context.Emin = 400 + int(2 * abs(logprob) / math.log(10)), -(10**6)
        p = Decimal(logprob).exp()
        covered = 1 - (1 - p) ** n
        loss, weight = float(-covered.ln()), float(n * (1 - p) ** (n - 1) * p / covered)
    found = dco([logprob], n)
    assert found.loss.item() == pytest.approx(loss, rel=1e-12, abs=1e-300)
    assert found.weights.item() == pytest.approx(weight, rel=1e-11, abs=1e-300)


def test_dco_at_the_ends() -> None:
    found = dco([-1e300, -1e4, 0.0, 1e-6], n=8)
    assert found.weights.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert found.loss.tolist() == [1e300, 1e4 - math.log(8), 0.0, 0.0]
    assert dco([0.0], n=1).weights.tolist() == [1.0]
    weights = dco(torch.linspace(-30, 0, 1000, dtype=torch.float64), n=64).weights
    assert bool((weights.diff() <= 1e-15).all()), "the likelier, the less weight"
    assert dco([math.log(1.2564 / 1e6)], n=1_000_000).weights.item() == pytest.approx(0.5, abs=1e-4)


def test_dco_for_one_draw_is_sft() -> None:
    logprobs = torch.tensor([[-1e4, -3.0], [-0.1, 0.0]], dtype=torch.float64)
    for found in (sft(logprobs), dco(logprobs, 1)):
        assert torch.equal(found.loss, -logprobs)
        assert torch.equal(found.weights, torch.ones(2, 2, dtype=torch.float64))


def test_the_maximiser_of_dco_is_flatter_than_that_of_sft() -> None:
    """For two answers with shares .9 and .1 SFT ends at p = .9, DCO at N = 4 below."""
    share = torch.tensor([0.9, 0.1], dtype=torch.float64)

    def pull(p: float) -> float:
        logprobs = torch.tensor([p, 1 - p], dtype=torch.float64).log()
        weights = share * dco(logprobs, 4).weights
        return (weights[0] * (1 - p) - weights[1] * p).item()

    assert (share[0] * 0.1 - share[1] * 0.9).item() == pytest.approx(0.0, abs=1e-15)
    assert pull(0.9) < -0.01
    low, high = 0.5, 0.9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if pull(middle) > 0 else (low, middle)
    chance = torch.linspace(0.01, 0.99, 9801, dtype=torch.float64)
    objective = 0.9 * (1 - (1 - chance) ** 4).log() + 0.1 * (1 - chance**4).log()
    assert low == pytest.approx(chance[objective.argmax()].item(), abs=2e-4)


# --- filtered samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 4, 5])
def test_star_and_rft_climb_the_truncated_log(m: int) -> None:
    true = finite_difference(lambda policy: truncated_log(1 - fails(policy), m), BINARY.logits)
    for weigh in (star, rft):
        assert_gradient(
            expected_update(lambda pools, weigh=weigh: weigh(BINARY.rewards[pools]), BINARY.policy, m), true
        )
    every = expected_update(lambda pools: rft(BINARY.rewards[pools], is_normalised=False), BINARY.policy, m)
    assert_gradient(every, m * finite_difference(lambda policy: 1 - fails(policy), BINARY.logits))


@pytest.mark.parametrize("m", [1, 2, 4, 5])
def test_distinct_answers_climb_the_truncated_log_of_each(m: int) -> None:
    correct = BINARY.rewards == 1
    true = finite_difference(lambda policy: truncated_log(policy[correct], m).sum(), BINARY.logits)
    update = expected_update(lambda pools: rft(BINARY.rewards[pools], pools, is_normalised=False), BINARY.policy, m)
    assert_gradient(update, true)


def test_distinct_answers_by_hand() -> None:
    rewards, texts = [1, 0, 1, 1, 1], [4, 4, 5, 4, 6]  # the wrong sample that says 4 hides no correct one
    assert rft(rewards, texts, is_normalised=False).tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]
    assert_equal_to(rft(rewards, texts), torch.tensor([1, 0, 1, 0, 1]).double() / 3, atol=1e-15)
    assert rft([0, 1], [4, 4]).tolist() == [0.0, 1.0]


def test_prompts_without_a_correct_sample_get_nothing() -> None:
    for weigh in (star, rft):
        assert weigh(torch.zeros(2, 3)).abs().max() == 0.0
    assert star([0, 0, 1, 1]).tolist() == [0.0, 0.0, 1.0, 0.0]


# --- Best-of-N distillation ---------------------------------------------------------------------------------------


@WORLDS
@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 1), (3, 2), (4, 3), (5, 2), (5, 5)])
def test_winning_chances_equal_brute_force(world: World, m: int, n: int) -> None:
    scores = world.scores[tuples(6, m)]
    chances = torch.zeros_like(scores)
    for subset in itertools.combinations(range(m), n):
        inside = scores[:, subset]
        is_best = (inside == inside.amax(-1, keepdim=True)).double()
        chances[:, subset] += is_best / is_best.sum(-1, keepdim=True) / math.comb(m, n)
    assert_equal_to(bon_distillation(scores, n), chances, atol=1e-13)


@WORLDS
@pytest.mark.parametrize(("m", "n"), [(2, 1), (2, 2), (4, 2), (5, 3)])
def test_distillation_pulls_to_the_law_of_the_winner(world: World, m: int, n: int) -> None:
    """Σ_y π_bon(y) (e_y − π) = π_bon − π = −∇KL(π_bon‖π); zero for N = 1, where nothing is selected."""
    true = best_of_n_law(world, n) - world.policy
    assert_equal_to(expected_update(lambda pools: bon_distillation(world.scores[pools], n), world.policy, m), true)


@pytest.mark.parametrize(("m", "n"), [(2, 2), (4, 2), (3, 3), (5, 2)])
def test_drawn_winners_have_the_same_expectation(m: int, n: int) -> None:
    """All tie-breaks are enumerated."""
    pools = tuples(6, m)
    grouped = NOISY.scores[pools][:, : m // n * n].reshape(len(pools), m // n, n)
    is_best = (grouped == grouped.amax(-1, keepdim=True)).double()
    chance = is_best / is_best.sum(-1, keepdim=True)
    weights = torch.zeros(len(pools), m, dtype=torch.float64)
    for choice in itertools.product(range(n), repeat=m // n):
        picked = torch.tensor(choice)
        probability = chance[:, torch.arange(m // n), picked].prod(-1, keepdim=True)
        weights += probability * winner_weights((picked + n * torch.arange(m // n)).expand(len(pools), -1), m)
    found = expected_update(lambda pools: weights, NOISY.policy, m)
    assert_gradient(found, best_of_n_law(NOISY, n) - NOISY.policy)


@pytest.mark.parametrize(("m", "n"), [(3, 2), (4, 4), (5, 3)])
def test_prompt_weight_of_distillation_for_binary_rewards(m: int, n: int) -> None:
    q = fails(BINARY.policy)
    solved = finite_difference(lambda policy: 1 - fails(policy), BINARY.logits)
    scores = BINARY.scores
    every = expected_update(lambda pools: bon_distillation(scores[pools], n), BINARY.policy, m)
    assert_gradient(every, (1 - q ** (n - 1)) / (1 - q) * solved)
    correct = expected_update(lambda pools: bon_distillation(scores[pools], n, BINARY.rewards[pools]), BINARY.policy, m)
    assert_gradient(correct, (1 - q**n) / (1 - q) * solved)


def test_drawn_winners_are_one_sample_of_the_chances() -> None:
    """20,000 draws: each share within 5 standard errors of its chance."""
    scores = torch.tensor([0.0, 1.0, 1.0, 2.0]).expand(20_000, -1)
    shares = winner_weights(draw_winners(scores, 3, torch.Generator().manual_seed(0)), 4).mean(0)
    expected = torch.tensor([0.0, 0.5, 0.5, 0.0])  # the one group of 3 is samples 0, 1, 2
    assert_equal_to(shares, expected, atol=5 * math.sqrt(0.25 / 20_000))


# --- the door -----------------------------------------------------------------------------------------------------


def test_batches_equal_single_prompts() -> None:
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randint(0, 2, (2, 3, 6), generator=generator)
    texts = torch.randint(0, 3, (2, 3, 6), generator=generator)
    for weigh in (star, lambda r: bon_distillation(r, 2)):
        together = weigh(rewards)
        for a, b in itertools.product(range(2), range(3)):
            assert_equal_to(together[a, b], weigh(rewards[a, b]), atol=1e-15)
    for a, b in itertools.product(range(2), range(3)):
        assert_equal_to(rft(rewards, texts)[a, b], rft(rewards[a, b], texts[a, b]), atol=1e-15)


def test_dtypes_come_back() -> None:
    for dtype, expected in ((torch.float32, torch.float32), (torch.bool, torch.float64), (torch.int64, torch.float64)):
        rewards = torch.tensor([1, 0, 1]).to(dtype)
        for weights in (star(rewards), rft(rewards), bon_distillation(rewards, 2)):
            assert weights.dtype == expected
    assert dco(torch.tensor([-1.0]), 4).weights.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dco([0.5], 2), "at most 0"),
        (lambda: dco([float("-inf")], 2), "finite"),
        (lambda: dco([-1.0], 0), "at least 1"),
        (lambda: sft([float("nan")]), "NaN"),
        (lambda: star([0.5, 1.0]), "0 or 1"),
        (lambda: rft([1, 0], identities=[1]), "one shape"),
        (lambda: bon_distillation([1.0, 2.0], 3), "more than the 2 samples"),
        (lambda: bon_distillation([1.0, 2.0], 2, rewards=[1]), "same shape"),
        (lambda: winner_weights(torch.tensor([2]), 2), "below M = 2"),
        (lambda: winner_weights(torch.zeros(3, 0, dtype=torch.int64), 2), "below M = 2"),
    ],
)
def test_what_cannot_work_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
