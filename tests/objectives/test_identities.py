"""What the objectives are to one another and to published formulas.

1. r = R: bon_rl and pkpo equal s, sloo and sloo_minus_one of Walder & Karkhanis (arXiv 2505.15201), written here from
   their matrix over sorted rewards; sloo with its baseline weighted k/n instead of k/(n − 1), which is what makes it
   sum to zero (both are unbiased).
2. 0/1 r = R: LOO-1 gives wrong samples exactly 0 and correct ones N C(wrong, N−1)/C(M−1, N−1).
3. passk_training · σ · n/(M − n) · M is the LOO advantage; σ = 0 gives exactly 0.
4. λ_N: the table to 3 decimals, the defining equation, λ_1 = 0, and no overflow for large N.
5. Advantages that are centred sum to zero: loo, rloo, grpo, dr_grpo, maxrl, passk_training, variational loo.
6. N = 1 is plain policy gradient; N = M is inference_loo of the maximum; closed forms at their stated values.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from bontune.objectives import (
    bon_rl,
    bon_rl_variational,
    bon_rlb,
    bon_rlbp,
    dr_grpo,
    grpo,
    inference_loo,
    lambda_n,
    maxrl,
    passk_training,
    pkpo,
    reinforce,
    rloo,
)
from oracles import assert_equal_to

# --- PKPO, from the paper -----------------------------------------------------------------------------------------


def pkpo_s(rewards: list[float], k: int) -> list[float]:
    """s_i = (1/C(n,k)) Σ_j m_ij g_j, g ascending, m_ii = C(i−1, k−1), m_ij = C(j−2, k−2) for j > i (1-based)."""
    n = len(rewards)
    order = sorted(range(n), key=rewards.__getitem__)
    credit = [0.0] * n
    for i, sample in enumerate(order, start=1):
        total = math.comb(i - 1, k - 1) * rewards[sample]
        if k >= 2:
            total += sum(math.comb(j - 2, k - 2) * rewards[order[j - 1]] for j in range(i + 1, n + 1))
        credit[sample] = total / math.comb(n, k)
    return credit


def pkpo_b(rewards: list[float], k: int) -> list[float]:
    """Σ_{j≠i} s_j on the pool without i."""
    return [sum(pkpo_s(rewards[:i] + rewards[i + 1 :], k)) for i in range(len(rewards))]


def pkpo_sloo(rewards: list[float], k: int) -> list[float]:
    n = len(rewards)
    return [s - b / (n - 1) for s, b in zip(pkpo_s(rewards, k), pkpo_b(rewards, k), strict=True)]


def pkpo_sloo_minus_one(rewards: list[float], k: int) -> list[float]:
    n = len(rewards)
    pairs = zip(pkpo_s(rewards, k), pkpo_b(rewards, k - 1), strict=True)
    return [s - b * k / (k - 1) / n for s, b in pairs]


POOLS = [
    [0.3, 1.0, 0.0, -0.5, 0.8, 0.1],
    [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0],
    [2.0, 2.0, -1.0, 0.5, 0.5, 0.5, 3.0, 0.0],
    [0.0, 0.0, 0.0, 1.0],
]


def mean_form(sum_form: list[float]) -> Tensor:
    return len(sum_form) * torch.tensor(sum_form, dtype=torch.float64)


@pytest.mark.parametrize("rewards", POOLS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_pkpo_is_reproduced(rewards: list[float], n: int) -> None:
    m = len(rewards)
    pool = torch.tensor(rewards, dtype=torch.float64)
    for objective in (lambda baseline: pkpo(pool, n, baseline), lambda baseline: bon_rl(pool, pool, n, baseline)):
        if n <= m:
            assert_equal_to(objective("none"), mean_form(pkpo_s(rewards, n)), atol=1e-12)
        if 2 <= n <= m:
            assert_equal_to(objective("loo1"), mean_form(pkpo_sloo_minus_one(rewards, n)), atol=1e-12)
        if n < m:
            pairs = zip(pkpo_s(rewards, n), pkpo_b(rewards, n), strict=True)
            assert_equal_to(objective("loo"), mean_form([s - b / m for s, b in pairs]), atol=1e-12)


def test_published_sloo_is_not_centred() -> None:
    """With the listing's b/(n − 1) the advantages sum to −k/(n − 1)·ρ, ρ the max@k of the pool; ours sum to zero."""
    rewards, k = POOLS[0], 3
    n = len(rewards)
    best = sum(max(subset) for subset in itertools.combinations(rewards, k)) / math.comb(n, k)
    assert sum(pkpo_sloo(rewards, k)) == pytest.approx(-k / (n - 1) * best)
    assert bon_rl(rewards, rewards, k, "loo").sum().item() == pytest.approx(0.0, abs=1e-6)


def test_pkpo_defaults_to_sloo_minus_one() -> None:
    rewards = torch.tensor(POOLS[0], dtype=torch.float64)
    assert_equal_to(pkpo(rewards, 3), mean_form(pkpo_sloo_minus_one(POOLS[0], 3)), atol=1e-12)


# --- 0/1 rewards --------------------------------------------------------------------------------------------------

BINARY_CASES = [
    (m, c, n) for m in (2, 5, 8, 33) for c in range(0, m + 1, max(1, m // 6)) for n in (2, 3, 7, 32) if n <= m
]


def binary_pool(m: int, correct: int) -> Tensor:
    order = torch.randperm(m, generator=torch.Generator().manual_seed(m + correct))
    return (torch.arange(m) < correct).double()[order]


@pytest.mark.parametrize(("m", "correct", "n"), BINARY_CASES)
def test_loo1_never_touches_wrong_samples(m: int, correct: int, n: int) -> None:
    rewards = binary_pool(m, correct)
    advantages = bon_rl(rewards, rewards, n, "loo1")
    gain = n * math.comb(m - correct, n - 1) / math.comb(m - 1, n - 1)
    assert bool((advantages[rewards == 0] == 0).all()), "exactly 0, not nearly"
    assert_equal_to(advantages[rewards == 1], torch.full((correct,), gain, dtype=torch.float64), atol=1e-12)


def test_loo1_with_m_equal_n_fires_on_a_single_correct_sample_only() -> None:
    fires = [bool((pkpo(binary_pool(6, correct), 6) != 0).any()) for correct in range(7)]
    assert fires == [False, True, False, False, False, False, False]


@pytest.mark.parametrize(("m", "correct", "n"), [case for case in BINARY_CASES if case[2] < case[0]])
def test_passk_training_is_loo_over_sigma(m: int, correct: int, n: int) -> None:
    rewards = binary_pool(m, correct)
    rho = 1 - math.comb(m - correct, n) / math.comb(m, n)
    sigma = math.sqrt(rho * (1 - rho))
    advantages = passk_training(rewards, n)
    if sigma == 0:
        assert bool((advantages == 0).all())
        return
    assert_equal_to(advantages * sigma * n / (m - n) * m, bon_rl(rewards, rewards, n, "loo"), atol=1e-11)


@pytest.mark.parametrize(("m", "correct", "n"), [(5, 2, 2), (8, 1, 3), (8, 5, 2)])
def test_passk_training_formula(m: int, correct: int, n: int) -> None:
    rho = 1 - math.comb(m - correct, n) / math.comb(m, n)
    sigma = math.sqrt(rho * (1 - rho))
    others = math.comb(m - correct - 1, n - 1) / math.comb(m - 1, n - 1)
    rewards = binary_pool(m, correct)
    correct_and_wrong = torch.tensor([1 - rho, 1 - rho - others], dtype=torch.float64) / sigma
    expected = correct_and_wrong[(rewards == 0).long()]
    assert_equal_to(passk_training(rewards, n), expected, atol=1e-12)


def test_closed_forms_at_their_stated_values() -> None:
    """N = 4, p = 1/2: N p^{N−1} = 1/2; over 1 − p: 1; N p^N/(1 − p) = 1/2."""
    assert bon_rlbp([1.0, 0.0], 4, p_fail=0.5, baseline="none").tolist() == [0.5, 0.0]
    assert bon_rlb([1.0, 0.0], 4, p_fail=0.5, baseline="none").tolist() == [1.0, 0.5]
    assert bon_rlb([1.0, 0.0], 4, p_fail=0.5, sign="published", baseline="none").tolist() == [1.0, -0.5]


# --- λ_N ----------------------------------------------------------------------------------------------------------

TABLE = {2: 2.289, 4: 4.917, 8: 9.055, 16: 17.032, 32: 33.016, 64: 65.008, 128: 129.004}


@pytest.mark.parametrize(("n", "expected"), TABLE.items())
def test_lambda_table(n: int, expected: float) -> None:
    assert round(lambda_n(n), 3) == expected


@pytest.mark.parametrize("n", [2, 3, 5, 10, 100, 500])
def test_lambda_solves_its_equation(n: int) -> None:
    lam = lambda_n(n)
    kl = ((lam - 1) * math.exp(lam) + 1) / math.expm1(lam) - math.log(math.expm1(lam) / lam)
    assert kl == pytest.approx(math.log(n) - (n - 1) / n, abs=1e-12)


def test_lambda_at_the_ends() -> None:
    assert lambda_n(1) == 0.0
    assert lambda_n(4096) == pytest.approx(4097, abs=0.01)
    assert lambda_n(10**6) == pytest.approx(10**6 + 1, rel=1e-3)
    values = [lambda_n(n) for n in range(1, 300)]
    assert values == sorted(values)


# --- sums and special cases ---------------------------------------------------------------------------------------

CENTRED = {
    "loo": lambda rewards, scores: bon_rl(rewards, scores, 3),
    "rloo": lambda rewards, scores: rloo(rewards),
    "grpo": lambda rewards, scores: grpo(rewards),
    "dr_grpo": lambda rewards, scores: dr_grpo(rewards),
    "maxrl": lambda rewards, scores: maxrl(rewards),
    "passk_training": lambda rewards, scores: passk_training(rewards, 3),
    "variational": lambda rewards, scores: bon_rl_variational(rewards, scores, 3),
}


@pytest.mark.parametrize("name", CENTRED)
@pytest.mark.parametrize("m", [4, 7, 64])
def test_centred_advantages_sum_to_zero(name: str, m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    rewards = torch.randint(0, 2, (50, m), generator=generator).double()
    scores = torch.randint(0, 4, (50, m), generator=generator)
    advantages = CENTRED[name](rewards, scores)
    assert bool((advantages != 0).any())
    assert_equal_to(advantages.sum(-1), torch.zeros(50), atol=1e-10)


def test_budget_of_one_is_plain_policy_gradient() -> None:
    rewards = torch.tensor(POOLS[2], dtype=torch.float64)
    scores = torch.tensor([3, 1, 1, 0, 2, 2, 5, 0])
    assert_equal_to(bon_rl(rewards, scores, 1, "loo"), rloo(rewards), atol=1e-12)
    assert_equal_to(pkpo(rewards, 1, "loo"), rloo(rewards), atol=1e-12)
    assert_equal_to(bon_rl(rewards, scores, 1, "none"), reinforce(rewards), atol=1e-12)
    assert_equal_to(bon_rl_variational(rewards, scores, 1), rloo(rewards), atol=1e-12)
    assert_equal_to(bon_rlbp([1.0, 0.0], 1, p_fail=0.3, baseline="none"), reinforce([1.0, 0.0]), atol=1e-12)
    assert_equal_to(bon_rlbp([1.0, 0.0], 1, p_fail=0.3), rloo([1.0, 0.0]), atol=1e-12)


def test_budget_of_all_samples_is_inference_loo() -> None:
    """f(all) − f(all but i) with f = max is LOO-1 at N = M."""
    rewards = torch.tensor(POOLS[2], dtype=torch.float64)
    assert_equal_to(inference_loo(rewards), bon_rl(rewards, rewards, len(rewards), "loo1"), atol=1e-12)
    assert_equal_to(inference_loo(rewards, lambda pool: pool.mean(-1)), rloo(rewards), atol=1e-12)


def test_grpo_formula() -> None:
    """R = (0, 1, 1, 1): mean 3/4, sample variance (9/16 + 3/16)/3 = 1/4, σ = 1/2."""
    expected = torch.tensor([-0.75, 0.25, 0.25, 0.25]) / (0.5 + 1e-4)
    assert_equal_to(grpo(torch.tensor([0, 1, 1, 1])), expected, atol=1e-7)
    assert_equal_to(grpo(torch.tensor([0, 1, 1, 1]), epsilon=1.0), expected * 0.5001 / 1.5, atol=1e-7)


def test_maxrl_skips_groups_without_success() -> None:
    assert maxrl([[0, 0, 0, 0], [1, 0, 0, 0]]).tolist() == [[0.0] * 4, [3.0, -1.0, -1.0, -1.0]]
