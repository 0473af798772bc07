"""Properties that hold for any pool, on generated ones.

1. Permuting the samples of a prompt permutes the advantages; so does permuting prompts.
2. Adding a constant to all rewards changes nothing (loo, loo1); scaling the rewards scales the advantages.
3. A strictly increasing map of the scores changes nothing, bit for bit.
4. N = 1 equals rloo.
5. Constant rewards give exactly zero, whatever the scores.
6. A batch equals its rows one by one; leading axes of any shape are kept.
7. Scores that are the rewards equal scores = None and pkpo.
"""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bontune.objectives import (
    bon_rl,
    bon_rl_variational,
    dr_grpo,
    grpo,
    inference_loo,
    maxrl,
    passk_training,
    pkpo,
    rloo,
)
from oracles import assert_equal_to

settings.register_profile("oracles", derandomize=True, deadline=None, database=None, max_examples=60)
PROFILE = settings.get_profile("oracles")

MANY = st.integers(2, 24)
GRID = st.integers(-12, 12)


@st.composite
def pools(draw: st.DrawFn, smallest: int = 3, min_rows: int = 1, max_rows: int = 1) -> tuple[Tensor, Tensor, int]:
    """Rewards in eighths, integer scores with many ties, and a budget that every baseline allows."""
    m = draw(st.integers(smallest, 24))
    rows = draw(st.integers(min_rows, max_rows))
    rewards = draw(st.lists(GRID, min_size=rows * m, max_size=rows * m))
    scores = draw(st.lists(st.integers(-3, 3), min_size=rows * m, max_size=rows * m))
    n = draw(st.integers(2, m - 1))
    shape = (m,) if max_rows == 1 else (rows, m)
    return torch.tensor(rewards, dtype=torch.float64).reshape(shape) / 8, torch.tensor(scores).reshape(shape), n


BASELINES = st.sampled_from(["loo", "loo1", "none"])
CENTRED = st.sampled_from(["loo", "loo1"])


def others(rewards: Tensor, scores: Tensor, n: int) -> dict[str, Tensor]:
    """The other objectives on the same pool, rewards made fit for each."""
    binary = (rewards > 0).double()
    return {
        "rloo": rloo(rewards),
        "grpo": grpo(rewards),
        "dr_grpo": dr_grpo(rewards),
        "maxrl": maxrl(rewards.abs()),
        "inference_loo": inference_loo(rewards),
        "pkpo": pkpo(rewards, n),
        "passk_training": passk_training(binary, n),
        "bon_rl_variational": bon_rl_variational(rewards, scores, n),
    }


@PROFILE
@given(pool=pools(), baseline=BASELINES, seed=st.integers(0, 2**31))
def test_permutations(pool: tuple[Tensor, Tensor, int], baseline: str, seed: int) -> None:
    rewards, scores, n = pool
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
    permuted = bon_rl(rewards[order], scores[order], n, baseline)
    assert_equal_to(permuted, bon_rl(rewards, scores, n, baseline)[order], atol=1e-11)
    before, after = others(rewards, scores, n), others(rewards[order], scores[order], n)
    for name in before:
        assert_equal_to(after[name], before[name][order], atol=1e-11)


@PROFILE
@given(pool=pools(), baseline=CENTRED, shift=st.floats(-1e3, 1e3))
def test_shifts(pool: tuple[Tensor, Tensor, int], baseline: str, shift: float) -> None:
    rewards, scores, n = pool
    shifted = bon_rl(rewards + shift, scores, n, baseline)
    assert_equal_to(shifted, bon_rl(rewards, scores, n, baseline), atol=1e-10 * len(rewards))


@PROFILE
@given(pool=pools(), baseline=BASELINES, exponent=st.integers(-20, 20), sign=st.sampled_from([1, -1]))
def test_scales(pool: tuple[Tensor, Tensor, int], baseline: str, exponent: int, sign: int) -> None:
    """A negative factor too: the winner is picked by the scores, which stay."""
    rewards, scores, n = pool
    factor = sign * 2.0**exponent
    scaled = bon_rl(factor * rewards, scores, n, baseline)
    assert_equal_to(scaled / factor, bon_rl(rewards, scores, n, baseline), atol=1e-11)


@PROFILE
@given(pool=pools(), baseline=BASELINES)
def test_increasing_maps_of_scores(pool: tuple[Tensor, Tensor, int], baseline: str) -> None:
    rewards, scores, n = pool
    expected = bon_rl(rewards, scores, n, baseline)
    variational = bon_rl_variational(rewards, scores, n)
    for mapped in (
        scores * 7 - 3,
        scores.double().exp(),
        scores.float() ** 3,
        torch.atan(scores.double()),
        scores + 2**50,
    ):
        assert torch.equal(bon_rl(rewards, mapped, n, baseline), expected)
        assert torch.equal(bon_rl_variational(rewards, mapped, n), variational)


@PROFILE
@given(pool=pools())
def test_budget_of_one_is_rloo(pool: tuple[Tensor, Tensor, int]) -> None:
    rewards, scores, _ = pool
    assert_equal_to(bon_rl(rewards, scores, 1), rloo(rewards), atol=1e-11)


@PROFILE
@given(pool=pools(), constant=st.floats(-1e6, 1e6), baseline=CENTRED)
def test_constant_rewards_give_exactly_zero(pool: tuple[Tensor, Tensor, int], constant: float, baseline: str) -> None:
    rewards, scores, n = pool
    same = torch.full_like(rewards, constant)
    assert bool((bon_rl(same, scores, n, baseline) == 0).all())
    for name, advantages in others(same, scores, n).items():
        assert bool((advantages == 0).all()), name


@PROFILE
@given(pool=pools(min_rows=1, max_rows=4), baseline=BASELINES)
def test_batches_equal_rows(pool: tuple[Tensor, Tensor, int], baseline: str) -> None:
    rewards, scores, n = pool
    together = bon_rl(rewards, scores, n, baseline)
    assert together.shape == rewards.shape
    nested = bon_rl(rewards.unsqueeze(1), scores.unsqueeze(1), n, baseline)
    assert torch.equal(nested.squeeze(1), together)
    by_name = others(rewards, scores, n)
    for row in range(len(rewards)):
        assert_equal_to(together[row], bon_rl(rewards[row], scores[row], n, baseline), atol=1e-12)
        for name, alone in others(rewards[row], scores[row], n).items():
            assert_equal_to(by_name[name][row], alone, atol=1e-12)


@PROFILE
@given(pool=pools(), baseline=BASELINES)
def test_rewards_as_their_own_scores(pool: tuple[Tensor, Tensor, int], baseline: str) -> None:
    rewards, _, n = pool
    expected = bon_rl(rewards, rewards, n, baseline)
    assert torch.equal(bon_rl(rewards, None, n, baseline), expected)
    assert torch.equal(pkpo(rewards, n, baseline), expected)
    assert torch.equal(bon_rl_variational(rewards, None, n), bon_rl_variational(rewards, rewards, n))


@PROFILE
@given(pool=pools())
def test_loo_sums_to_zero(pool: tuple[Tensor, Tensor, int]) -> None:
    rewards, scores, n = pool
    assert abs(bon_rl(rewards, scores, n).sum().item()) < 1e-10
