"""Oracles: what the objectives must equal, by enumeration, brute force and exact integers.

Nothing here calls the package. A policy is a softmax over K outcomes; outcome y has reward R(y) and verifier score
r(y); a pool is a row of M outcome indices. Everything is float64 unless it is a Fraction.

Shapes: ``_K`` outcomes, ``_S`` pools that are enumerated, ``_M`` samples of a pool.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor


class World(NamedTuple):
    """A policy and what its outcomes are worth."""

    logits: Tensor
    rewards: Tensor
    scores: Tensor

    @property
    def policy(self) -> Tensor:
        return self.logits.softmax(-1)

    @property
    def p_fail(self) -> float:
        return self.policy[self.rewards == 0].sum().item()


def world(logits: Sequence[float], rewards: Sequence[float], scores: Sequence[float]) -> World:
    return World(*(torch.tensor(values, dtype=torch.float64) for values in (logits, rewards, scores)))


LOGITS = (0.3, -0.4, 0.9, -1.1, 0.0, 0.5)
# Six outcomes, tied scores with different rewards, and a verifier that prefers a bad outcome.
GRADED = world(LOGITS, (0.3, 1.0, 0.0, -0.5, 0.8, 0.1), (0.0, 1.0, 1.0, 2.0, 2.0, 2.0))
# The same with all scores different, in another order than the rewards.
UNTIED = world(LOGITS, (0.3, 1.0, 0.0, -0.5, 0.8, 0.1), (0.2, -1.0, 3.0, 0.7, 1.5, -0.3))
# 0/1 rewards under a verifier that errs, and 0/1 rewards that are their own verifier.
NOISY = world(LOGITS, (0.0, 1.0, 0.0, 1.0, 0.0, 0.0), (0.0, 2.0, 1.0, 1.0, 2.0, 0.0))
BINARY = world(LOGITS, (0.0, 1.0, 0.0, 1.0, 0.0, 0.0), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0))


def from_counts(counts: Sequence[int], rewards: Sequence[float], scores: Sequence[float]) -> tuple[World, Tensor]:
    """A policy with rational probabilities, and a pool whose frequencies equal it exactly."""
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    pool = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return world(shares.log().tolist(), rewards, scores), pool


# --- enumeration --------------------------------------------------------------------------------------------------


def tuples(num_outcomes: int, m: int) -> Tensor:
    """All K^M ordered pools, (K^M, M)."""
    return torch.cartesian_prod(*[torch.arange(num_outcomes)] * m).reshape(-1, m)


def multisets(num_outcomes: int, m: int) -> tuple[Tensor, Tensor]:
    """All unordered pools (S, M) and how many ordered ones each stands for, (S,)."""
    pools = list(itertools.combinations_with_replacement(range(num_outcomes), m))
    orders = [math.factorial(m) // math.prod(math.factorial(pool.count(y)) for y in set(pool)) for pool in pools]
    return torch.tensor(pools).reshape(-1, m), torch.tensor(orders, dtype=torch.float64)


def gradient_of_pools(advantages_SM: Tensor, pools_SM: Tensor, policy_K: Tensor) -> Tensor:
    """(1/M) Σ_i A_i ∇log π(y_i) in the logits of the softmax, (S, K)."""
    one_hot = torch.nn.functional.one_hot(pools_SM, len(policy_K)).to(torch.float64)
    return (advantages_SM.unsqueeze(-1) * (one_hot - policy_K)).mean(-2)


def expected_gradient(estimator: Callable[[Tensor], Tensor], policy_K: Tensor, m: int, ordered: bool = True) -> Tensor:
    """E over all pools of M samples of the gradient estimate; ``ordered=False`` for estimators blind to the order."""
    if ordered:
        pools = tuples(len(policy_K), m)
        weight = policy_K[pools].prod(-1)
    else:
        pools, orders = multisets(len(policy_K), m)
        weight = policy_K[pools].prod(-1) * orders
    return (weight.unsqueeze(-1) * gradient_of_pools(estimator(pools), pools, policy_K)).sum(0)


def finite_difference(objective: Callable[[Tensor], Tensor], logits: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of objective(policy) in the logits; the error is about 1e-11 at this step."""
    gradient = torch.zeros_like(logits)
    for k in range(len(logits)):
        shift = torch.zeros_like(logits)
        shift[k] = step
        gradient[k] = (objective((logits + shift).softmax(-1)) - objective((logits - shift).softmax(-1))) / (2 * step)
    return gradient


# --- Best-of-N by brute force -------------------------------------------------------------------------------------


def winner_reward(rewards: Tensor, scores: Tensor) -> Tensor:
    """Expected reward of the winner of all samples in the last axis, ties broken uniformly."""
    is_best = (scores == scores.amax(-1, keepdim=True)).to(torch.float64)
    return (rewards * is_best).sum(-1) / is_best.sum(-1)


def best_of_n_objective(rewards_K: Tensor, scores_K: Tensor, n: int) -> Callable[[Tensor], Tensor]:
    """J(policy) = E_{π_bon}[R], over all K^N draws."""
    draws = tuples(len(rewards_K), n)
    worth = winner_reward(rewards_K[draws], scores_K[draws])
    return lambda policy: (policy[draws].prod(-1) * worth).sum()


def variational_law(policy: Tensor, scores_K: Tensor, lam: float) -> Tensor:
    """π_var(y) ∝ π(y) exp(λ Q(y)), Q(y) = P_{y'~π}[r(y) ≥ r(y')]."""
    win_rate = ((scores_K.unsqueeze(-1) >= scores_K).to(torch.float64) * policy).sum(-1)
    tilted = policy * torch.exp(lam * (win_rate - 1))
    return tilted / tilted.sum()


def subset_value(rewards: Tensor, scores: Tensor, n: int) -> Tensor:
    """Mean over all N-subsets of the winner's reward; 0 subsets of size 0 are worth nothing and never asked for."""
    subsets = torch.tensor(list(itertools.combinations(range(rewards.shape[-1]), n)))
    return winner_reward(rewards[..., subsets], scores[..., subsets]).mean(-1)


def subset_credit(rewards: Tensor, scores: Tensor, n: int) -> Tensor:
    """W_i: the winner's reward summed over the N-subsets that contain i, over C(M, N)."""
    m = rewards.shape[-1]
    subsets = torch.tensor(list(itertools.combinations(range(m), n)))
    worth = winner_reward(rewards[..., subsets], scores[..., subsets])
    is_in = torch.stack([(subsets == i).any(-1) for i in range(m)]).to(torch.float64)
    return worth @ is_in.T / len(subsets)


def subset_value_without(rewards: Tensor, scores: Tensor, n: int) -> Tensor:
    """Ĵ_N(all but i), by leaving i out."""
    m = rewards.shape[-1]
    others = [[j for j in range(m) if j != i] for i in range(m)]
    return torch.stack([subset_value(rewards[..., rest], scores[..., rest], n) for rest in others], dim=-1)


def subset_advantages(rewards: Tensor, scores: Tensor, n: int, baseline: str) -> Tensor:
    """Mean-form advantages by definition: M·W_i minus N·Ĵ_N(all but i) or N·Ĵ_{N−1}(all but i)."""
    advantages = rewards.shape[-1] * subset_credit(rewards, scores, n)
    if baseline == "none":
        return advantages
    return advantages - n * subset_value_without(rewards, scores, n if baseline == "loo" else n - 1)


# --- exact integers -----------------------------------------------------------------------------------------------


class ExactPool:
    """The estimator in integers and Fractions (formulas of the value and the credit, no floats anywhere)."""

    def __init__(self, rewards: Sequence[int | float | Fraction], scores: Sequence[int]) -> None:
        self.rewards = [Fraction(reward) for reward in rewards]
        self.scores = list(scores)
        self.groups: dict[int, list[Fraction]] = {}
        for reward, score in sorted(zip(self.rewards, self.scores, strict=True), key=lambda pair: pair[1]):
            self.groups.setdefault(score, []).append(reward)

    def value(self, n: int, without: int | None = None) -> Fraction:
        total, below = Fraction(0), 0
        for score, rewards in self.groups.items():
            size, amount = len(rewards), sum(rewards)
            if without is not None and self.scores[without] == score:
                size, amount = size - 1, amount - self.rewards[without]
            if size:
                total += (math.comb(below + size, n) - math.comb(below, n)) * amount / size
            below += size
        return total / math.comb(below, n)

    def credit(self, n: int, i: int) -> Fraction:
        total, below = Fraction(0), 0
        for score, rewards in self.groups.items():
            size, amount = len(rewards), sum(rewards)
            if score == self.scores[i]:
                pick_i = Fraction(math.comb(below + size, n) - math.comb(below, n), size)
                others = (amount - self.rewards[i]) / (size - 1) if size > 1 else Fraction(0)
                total += pick_i * self.rewards[i] + (math.comb(below + size - 1, n - 1) - pick_i) * others
            elif score > self.scores[i]:
                total += (math.comb(below + size - 1, n - 1) - math.comb(below - 1, n - 1)) * amount / size
            below += size
        return total / math.comb(below, n)

    def advantage(self, n: int, i: int, baseline: str) -> Fraction:
        size = n if baseline == "loo" else n - 1
        return len(self.rewards) * self.credit(n, i) - n * self.value(size, without=i)


# --- assertions ---------------------------------------------------------------------------------------------------


def assert_equal_to(actual: Tensor, expected: Tensor, atol: float = 1e-8) -> None:
    torch.testing.assert_close(actual.to(torch.float64), expected.to(torch.float64), rtol=0.0, atol=atol)


def assert_gradient(actual: Tensor, expected: Tensor, atol: float = 1e-8) -> None:
    """Equal, and large enough that the comparison means something."""
    assert expected.norm() > 1e-3, f"the gradient to compare with is {expected.norm():g}: this world tests nothing"
    assert_equal_to(actual, expected, atol)
