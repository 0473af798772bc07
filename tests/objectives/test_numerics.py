"""Precision, dtypes and sizes.

1. Up to M = 4096, for N from 1 to M, nothing is NaN or infinite, and entries equal an implementation in exact integers.
2. Rewards and scores may be float64, float32, float16, bfloat16, any integer, bool, NumPy or lists; the arithmetic is
   float64 whatever came in, the result has the rewards' floating dtype, or float64 for integers and bools.
3. Scores are compared in their own dtype: large integers, close doubles, ±inf.
4. The inputs are left as they were, and no gradient flows through them.
5. At P_fail = 0 and 1 (all wrong, all correct) everything stays finite.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bontune import objectives
from bontune.objectives import bon_rl, bon_rl_variational, passk_training, pkpo, rloo
from oracles import ExactPool, assert_equal_to

EXACT_CASES = [
    (m, n, baseline)
    for m in (512, 1000, 4096)
    for n in (1, 2, 16, m // 4, m // 2, m - 1, m)
    for baseline in ("loo", "loo1")
    if n + (baseline == "loo") <= m and n >= 1 + (baseline == "loo1")
]


def large_pool(m: int, num_scores: int) -> tuple[list[float], list[int]]:
    """Rewards in eighths (exact in every float type used) and tied scores that are only loosely related to them."""
    draw = random.Random(m)
    rewards = [draw.randrange(-8, 9) / 8 for _ in range(m)]
    return rewards, [int(4 * reward) + draw.randrange(num_scores) for reward in rewards]


@pytest.mark.parametrize(("m", "n", "baseline"), EXACT_CASES)
def test_large_pools_equal_exact_integers(m: int, n: int, baseline: str) -> None:
    rewards, scores = large_pool(m, 24)
    advantages = bon_rl(torch.tensor(rewards, dtype=torch.float64), scores, n, baseline)
    assert bool(advantages.isfinite().all())
    exact = ExactPool(rewards, scores)
    by_score = sorted(range(m), key=scores.__getitem__)
    entries = sorted({0, 1, m // 3, by_score[0], by_score[m // 2], by_score[-1]})
    expected = torch.tensor([float(exact.advantage(n, i, baseline)) for i in entries], dtype=torch.float64)
    assert_equal_to(advantages[entries], expected, atol=1e-9 * max(1.0, expected.abs().max().item()))


@pytest.mark.parametrize("n", [2, 64, 500, 511])
@pytest.mark.parametrize("baseline", ["loo", "loo1"])
def test_large_pools_without_ties_equal_exact_integers(n: int, baseline: str) -> None:
    rewards, _ = large_pool(512, 1)
    scores = random.Random(7).sample(range(10_000), 512)
    advantages = bon_rl(torch.tensor(rewards, dtype=torch.float64), scores, n, baseline)
    exact = ExactPool(rewards, scores)
    entries = [int(i) for i in advantages.abs().argsort(descending=True)[:4]] + [0, 255, 511]
    expected = torch.tensor([float(exact.advantage(n, i, baseline)) for i in entries], dtype=torch.float64)
    assert_equal_to(advantages[entries], expected, atol=1e-9 * max(1.0, expected.abs().max().item()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("m", [2, 3, 64, 1023, 4096])
def test_every_budget_is_finite(m: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(m)
    rewards = torch.randint(0, 2, (2, m), generator=generator).to(dtype)
    scores = torch.randn(2, m, generator=generator).to(dtype)
    for n in sorted({1, 2, min(3, m), m // 2, m - 1, m}):
        results = [
            bon_rl(rewards, scores, n, "none"),
            bon_rl_variational(rewards, scores, n),
            passk_training(rewards, n),
        ]
        if n < m:
            results.append(bon_rl(rewards, scores, n, "loo"))
        if n > 1:
            results += [bon_rl(rewards, scores, n, "loo1"), pkpo(rewards, n)]
        for advantages in results:
            assert advantages.dtype == dtype
            assert bool(advantages.isfinite().all())


def test_a_single_success_among_4096() -> None:
    """Its W is N/M and the rest alone are worth 0, so its advantage is N under every baseline."""
    rewards = torch.zeros(4096, dtype=torch.float64)
    rewards[1234] = 1.0
    for n in (2, 100, 4000):
        assert bon_rl(rewards, rewards, n, "none")[1234].item() == pytest.approx(n, rel=1e-12)
        assert bon_rl(rewards, rewards, n, "loo1")[1234].item() == pytest.approx(n, rel=1e-12)
        loo = bon_rl(rewards, rewards, n, "loo")
        assert loo[1234].item() == pytest.approx(n, rel=1e-9)
        assert loo.sum().item() == pytest.approx(0.0, abs=1e-7)


# --- dtypes and containers ----------------------------------------------------------------------------------------

CALLS: dict[str, Callable[..., Tensor]] = {
    "reinforce": lambda rewards, scores: objectives.reinforce(rewards),
    "rloo": lambda rewards, scores: objectives.rloo(rewards),
    "grpo": lambda rewards, scores: objectives.grpo(rewards),
    "dr_grpo": lambda rewards, scores: objectives.dr_grpo(rewards),
    "maxrl": lambda rewards, scores: objectives.maxrl(rewards),
    "inference_loo": lambda rewards, scores: objectives.inference_loo(rewards),
    "pkpo": lambda rewards, scores: objectives.pkpo(rewards, 2),
    "passk_training": lambda rewards, scores: objectives.passk_training(rewards, 2),
    "bon_rl": lambda rewards, scores: objectives.bon_rl(rewards, scores, 2),
    "bon_rl loo1": lambda rewards, scores: objectives.bon_rl(rewards, scores, 2, "loo1"),
    "bon_rl none": lambda rewards, scores: objectives.bon_rl(rewards, scores, 2, "none"),
    "bon_rlb": lambda rewards, scores: objectives.bon_rlb(rewards, 2),
    "bon_rlbp": lambda rewards, scores: objectives.bon_rlbp(rewards, 2),
    "bon_rl_variational": lambda rewards, scores: objectives.bon_rl_variational(rewards, scores, 2),
    "winner bon_rl": lambda rewards, scores: objectives.winner_advantages(
        "bon_rl", rewards, scores, 2, torch.tensor([[0, 3], [1, 2]])
    ),
}
REWARDS = [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1]]
SCORES = [[2, 1, 1, 0, 2], [0, 3, 3, 1, 2]]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTEGERS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
def test_reward_dtypes(name: str, dtype: torch.dtype) -> None:
    expected = CALLS[name](torch.tensor(REWARDS, dtype=torch.float64), torch.tensor(SCORES))
    advantages = CALLS[name](torch.tensor(REWARDS, dtype=dtype), torch.tensor(SCORES))
    assert advantages.dtype == (dtype if dtype in FLOATS else torch.float64)
    assert torch.equal(advantages, expected.to(advantages.dtype))


@pytest.mark.parametrize("name", ["bon_rl", "bon_rl loo1", "bon_rl_variational", "winner bon_rl"])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS[:-1], ids=str)
def test_score_dtypes(name: str, dtype: torch.dtype) -> None:
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    expected = CALLS[name](rewards, torch.tensor(SCORES, dtype=torch.float64))
    assert torch.equal(CALLS[name](rewards, torch.tensor(SCORES, dtype=dtype)), expected)


def test_bool_scores() -> None:
    rewards, verdicts = (
        torch.tensor([0.5, 1.0, 0.0, 0.25], dtype=torch.float64),
        torch.tensor([True, False, True, False]),
    )
    assert torch.equal(bon_rl(rewards, verdicts, 2), bon_rl(rewards, verdicts.double(), 2))


@pytest.mark.parametrize("name", CALLS)
def test_containers(name: str) -> None:
    expected = CALLS[name](torch.tensor(REWARDS), torch.tensor(SCORES))
    for rewards, scores in (
        (REWARDS, SCORES),
        (np.array(REWARDS), np.array(SCORES)),
        (np.array(REWARDS, dtype=np.float64), np.array(SCORES, dtype=np.float32)),
        (tuple(map(tuple, REWARDS)), SCORES),
        (torch.tensor(REWARDS).T.contiguous().T, torch.tensor(SCORES).T.contiguous().T),
    ):
        advantages = CALLS[name](rewards, scores)
        assert isinstance(advantages, Tensor)
        assert torch.equal(advantages, expected)


def test_reversed_numpy_views() -> None:
    rewards, scores = np.array([1.0, 0.0, 0.5]), np.array([1, 3, 2])
    assert torch.equal(bon_rl(rewards[::-1], scores[::-1], 2), bon_rl(rewards[::-1].copy(), scores[::-1].copy(), 2))


def test_small_integers_do_not_wrap() -> None:
    rewards = np.array([127, 127, 127, -128], dtype=np.int8)
    assert rloo(rewards).tolist() == [85.0, 85.0, 85.0, -255.0]
    assert_equal_to(bon_rl(rewards, rewards, 2), bon_rl(rewards.astype(np.float64), rewards, 2), atol=0.0)


@pytest.mark.parametrize(
    "scores",
    [
        torch.tensor([2**60, 2**60 + 1, 2**60 - 1]),
        torch.tensor([1.0, 1.0 + 1e-12, 1.0 - 1e-12], dtype=torch.float64),
        np.array([0.0, np.inf, -np.inf]),
        [1.0, 1.0 + 1e-12, 1.0 - 1e-12],
    ],
    ids=["large integers", "close doubles", "infinities", "close Python floats"],
)
def test_scores_are_compared_in_their_own_dtype(scores: object) -> None:
    rewards = torch.tensor([0.25, 1.0, 0.5], dtype=torch.float64)
    assert torch.equal(bon_rl(rewards, scores, 2), bon_rl(rewards, [1, 2, 0], 2))


def test_python_floats_are_doubles() -> None:
    """A list and the NumPy array of the same numbers are the same rewards."""
    rewards = [0.1, 0.7, 1e300]
    assert_equal_to(objectives.reinforce(rewards), objectives.reinforce(np.array(rewards)), atol=0.0)


def test_inputs_are_left_alone_and_carry_no_gradient() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0], requires_grad=True)
    scores = torch.tensor([0.5, 2.0, 0.1, 0.5], requires_grad=True)
    before = rewards.detach().clone(), scores.detach().clone()
    for name, call in CALLS.items():
        if name != "winner bon_rl":
            advantages = call(rewards, scores)
            assert not advantages.requires_grad
            advantages.mul_(100)  # the caller may scale in place: the result shares no memory with the rewards
            assert torch.equal(rewards.detach(), before[0]), name
            assert torch.equal(scores.detach(), before[1]), name


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_all_wrong_and_all_correct_are_finite(name: str, reward: float) -> None:
    rewards = torch.full((2, 5), reward, dtype=torch.float64)
    assert bool(CALLS[name](rewards, torch.tensor(SCORES)).isfinite().all())


@pytest.mark.parametrize("name", [name for name in CALLS if not name.startswith("winner")])
def test_no_prompts_give_no_advantages(name: str) -> None:
    assert CALLS[name](torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
