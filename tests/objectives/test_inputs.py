"""Bad input is refused with a ValueError that names the argument and what was given; the registry.

1. Every case that a docstring lists under Raises is a ValueError whose message carries the argument and the value.
2. names() lists every objective, get() finds each, an unknown name is answered with the known ones.
3. A row of the table weighs a batch as its function does, with its options; check() finds what it would refuse.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bontune import objectives
from bontune.objectives import (
    bon_rl,
    bon_rl_variational,
    bon_rlb,
    bon_rlbp,
    dr_grpo,
    draw_winners,
    get,
    grpo,
    inference_loo,
    lambda_n,
    maxrl,
    names,
    passk_training,
    pkpo,
    rank,
    reinforce,
    rloo,
    winner_advantages,
)
from bontune.objectives.batch import Batch, Sources
from bontune.objectives.table import TABLE

NAN, INF = float("nan"), float("inf")
FIRST = torch.tensor([0])

# (id, call, what the message must contain)
BAD: list[tuple[str, Callable[[], object], list[str]]] = [
    ("n above M", lambda: bon_rl([1.0, 0.0], [1, 2], 3, "none"), ["n = 3", "2 samples"]),
    ("loo needs one more", lambda: bon_rl([1.0, 0.0], [1, 2], 2), ["n = 2", "2 samples", "n + 1"]),
    ("loo1 needs two", lambda: bon_rl([1.0, 0.0], [1, 2], 1, "loo1"), ["n must", "at least 2", "got 1"]),
    ("n zero", lambda: bon_rl([1.0, 0.0], [1, 2], 0), ["n must", "at least 1", "got 0"]),
    ("n negative", lambda: bon_rl([1.0, 0.0], [1, 2], -2), ["n must", "got -2"]),
    ("n float", lambda: bon_rl([1.0, 0.0, 0.0], [1, 2, 3], 2.0), ["n must", "integer", "2.0"]),
    ("n bool", lambda: bon_rl([1.0, 0.0, 0.0], [1, 2, 3], True), ["n must", "integer", "True"]),
    ("n text", lambda: bon_rl([1.0, 0.0, 0.0], [1, 2, 3], "2"), ["n must", "integer", "'2'"]),
    ("n None", lambda: bon_rl([1.0, 0.0, 0.0], [1, 2, 3], None), ["n must", "integer", "None"]),
    ("unequal shapes", lambda: bon_rl([1.0, 0.0], [1, 2, 3], 1), ["scores", "rewards", "(3,)", "(2,)"]),
    ("broadcastable shapes", lambda: bon_rl([[1.0, 0.0]] * 2, [[1, 2]], 1), ["scores", "(1, 2)", "(2, 2)"]),
    ("NaN reward", lambda: bon_rl([1.0, NAN], [1, 2], 1), ["rewards", "NaN"]),
    ("NaN score", lambda: bon_rl([1.0, 0.0], [1, NAN], 1), ["scores", "NaN"]),
    ("infinite reward", lambda: bon_rl([1.0, INF], [1, 2], 1), ["rewards", "infinite"]),
    ("complex rewards", lambda: bon_rl([1j, 0], [1, 2], 1), ["rewards", "real", "complex"]),
    ("unknown baseline", lambda: bon_rl([1.0, 0.0], [1, 2], 1, "loo2"), ["baseline", "'loo2'"]),
    ("one number", lambda: bon_rl(1.0, 1.0, 1), ["rewards", "(..., M)"]),
    ("text", lambda: bon_rl("abc", None, 1), ["rewards", "str"]),
    ("None", lambda: bon_rl(None, None, 1), ["rewards", "NoneType"]),
    ("ragged", lambda: bon_rl([[1.0, 0.0], [1.0]], None, 1), ["rewards", "list"]),
    ("no samples", lambda: bon_rl([], [], 1), ["rewards", "0 samples"]),
    ("NumPy objects", lambda: bon_rl(np.array([1, None]), None, 1), ["rewards"]),
    ("reinforce NaN", lambda: reinforce([NAN]), ["rewards", "NaN"]),
    ("reinforce infinite", lambda: reinforce([-INF]), ["rewards", "infinite"]),
    ("reinforce one number", lambda: reinforce(3), ["rewards", "(..., M)"]),
    ("rloo one sample", lambda: rloo([1.0]), ["rewards", "1 sample", "at least 2"]),
    ("grpo one sample", lambda: grpo([1.0]), ["rewards", "1 sample", "at least 2"]),
    ("dr_grpo one sample", lambda: dr_grpo([1.0]), ["rewards", "1 sample", "at least 2"]),
    ("maxrl one sample", lambda: maxrl([1.0]), ["rewards", "1 sample", "at least 2"]),
    ("inference_loo one sample", lambda: inference_loo([1.0]), ["rewards", "1 sample", "at least 2"]),
    ("rloo NaN", lambda: rloo([1.0, NAN]), ["rewards", "NaN"]),
    ("grpo NaN", lambda: grpo([1.0, NAN]), ["rewards", "NaN"]),
    ("dr_grpo infinite", lambda: dr_grpo([1.0, INF]), ["rewards", "infinite"]),
    ("maxrl negative", lambda: maxrl([1.0, -2.5]), ["rewards", "-2.5"]),
    ("inference_loo NaN", lambda: inference_loo([1.0, NAN]), ["rewards", "NaN"]),
    ("inference_loo shape", lambda: inference_loo([1.0, 0.0], lambda pool: pool), ["value", "()", "(2,)"]),
    ("pkpo n", lambda: pkpo([1.0, 0.0], 3), ["n = 3", "2 samples"]),
    ("pkpo n = 1", lambda: pkpo([1.0, 0.0], 1), ["n must", "at least 2", "got 1"]),
    ("pkpo baseline", lambda: pkpo([1.0, 0.0], 2, "best"), ["baseline", "'best'"]),
    ("passk not 0/1", lambda: passk_training([0.5, 1.0], 2), ["0 or 1", "0.5", "passk_training"]),
    ("passk n", lambda: passk_training([0.0, 1.0], 3), ["n = 3", "2 samples"]),
    ("passk n zero", lambda: passk_training([0.0, 1.0], 0), ["n must", "got 0"]),
    ("bon_rlb not 0/1", lambda: bon_rlb([0.5, 1.0], 2), ["0 or 1", "0.5", "bon_rlb"]),
    ("bon_rlb n zero", lambda: bon_rlb([0.0, 1.0], 0), ["n must", "got 0"]),
    ("bon_rlb n float", lambda: bon_rlb([0.0, 1.0], 2.5), ["n must", "integer", "2.5"]),
    ("bon_rlb n text", lambda: bon_rlb([0.0, 1.0], "many"), ["n must", "integer", "'many'"]),
    ("bon_rlb n None", lambda: bon_rlb([0.0, 1.0], None), ["n must", "integer", "None"]),
    ("bon_rlb baseline", lambda: bon_rlb([0.0, 1.0], 2, baseline="loo1"), ["baseline", "'loo1'"]),
    ("bon_rlbp baseline", lambda: bon_rlbp([0.0, 1.0], 2, baseline="mean"), ["baseline", "'mean'"]),
    ("bon_rlb sign", lambda: bon_rlb([0.0, 1.0], 2, sign="both"), ["sign", "'both'"]),
    ("bon_rlb p_fail above", lambda: bon_rlb([0.0, 1.0], 2, p_fail=1.5), ["p_fail", "[0, 1]", "1.5"]),
    ("bon_rlb p_fail below", lambda: bon_rlb([0.0, 1.0], 2, p_fail=-0.25), ["p_fail", "[0, 1]", "-0.25"]),
    ("bon_rlb p_fail NaN", lambda: bon_rlb([0.0, 1.0], 2, p_fail=NAN), ["p_fail", "NaN"]),
    ("bon_rlb p_fail shape", lambda: bon_rlb([[0.0, 1.0]], 2, p_fail=[0.1] * 3), ["p_fail", "(1,)", "(3,)"]),
    ("bon_rlb p_fail text", lambda: bon_rlb([0.0, 1.0], 2, p_fail="half"), ["p_fail"]),
    ("bon_rlbp not 0/1", lambda: bon_rlbp([2.0, 1.0], 2), ["0 or 1", "2", "bon_rlbp"]),
    ("bon_rlbp p_fail", lambda: bon_rlbp([0.0, 1.0], 2, p_fail=1.5), ["p_fail", "[0, 1]", "1.5"]),
    ("bon_rlbp p_fail shape", lambda: bon_rlbp([[0.0, 1.0]], 2, p_fail=[0.1] * 3), ["p_fail", "(1,)", "(3,)"]),
    ("variational n", lambda: bon_rl_variational([1.0, 0.0], [1, 2], 3), ["n = 3", "2 samples"]),
    ("variational shapes", lambda: bon_rl_variational([1.0, 0.0], [1], 1), ["scores", "(1,)", "(2,)"]),
    ("variational NaN", lambda: bon_rl_variational([1.0, NAN], [1, 2], 1), ["rewards", "NaN"]),
    ("variational baseline", lambda: bon_rl_variational([1.0, 0.0], [1, 2], 1, "loo1"), ["baseline", "'loo1'"]),
    ("variational baseline None", lambda: bon_rl_variational([1.0, 0.0], [1, 2], 1, None), ["baseline", "None"]),
    ("variational baseline NaN", lambda: bon_rl_variational([1.0, 0.0], [1, 2], 1, NAN), ["baseline", "NaN"]),
    (
        "variational values",
        lambda: bon_rl_variational([[1.0, 0.0]], [[1, 2]], 1, [0.1] * 3),
        ["baseline", "(1,)", "(3,)"],
    ),
    ("variational one sample", lambda: bon_rl_variational([1.0], [1], 1), ["rewards", "1 sample", "at least 2"]),
    ("lambda zero", lambda: lambda_n(0), ["n must", "at least 1", "got 0"]),
    ("lambda float", lambda: lambda_n(2.5), ["n must", "integer", "2.5"]),
    ("lambda text", lambda: lambda_n("two"), ["n must", "integer", "'two'"]),
    ("lambda None", lambda: lambda_n(None), ["n must", "integer", "None"]),
    ("draws n", lambda: draw_winners([1.0, 2.0], 3), ["n = 3", "2 samples"]),
    ("draws NaN", lambda: draw_winners([1.0, NAN], 2), ["scores", "NaN"]),
    ("winners name", lambda: winner_advantages("rloo", [1, 0], [1, 0], 2, FIRST), ["'rloo'", "bon_rlbp"]),
    ("winners not 0/1", lambda: winner_advantages("bon_rlb", [0.5, 0], [1, 0], 2, FIRST), ["0 or 1", "0.5"]),
    ("winners NaN", lambda: winner_advantages("bon_rl", [NAN, 0], [1, 0], 2, FIRST), ["rewards", "NaN"]),
    ("winners shapes", lambda: winner_advantages("bon_rl", [1, 0], [1], 2, FIRST), ["scores", "(1,)", "(2,)"]),
    ("winners baseline", lambda: winner_advantages("bon_rlb", [1, 0], [1, 0], 2, FIRST, baseline="x"), ["baseline"]),
    ("winners sign", lambda: winner_advantages("bon_rlb", [1, 0], [1, 0], 2, FIRST, sign="both"), ["sign", "'both'"]),
    (
        "winners p_fail",
        lambda: winner_advantages("bon_rlb", [1, 0], [1, 0], 2, FIRST, p_fail=2.0),
        ["p_fail", "[0, 1]"],
    ),
    ("winners n", lambda: winner_advantages("bon_rlb", [1, 0], [1, 0], 0, FIRST), ["n must", "got 0"]),
    ("winners n float", lambda: winner_advantages("bon_rl", [1, 0], [1, 0], 1.5, FIRST), ["n must", "integer", "1.5"]),
]


@pytest.mark.parametrize(("call", "parts"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_a_value_error_that_says_what_was_given(call: Callable[[], object], parts: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        call()
    message = str(raised.value)
    for part in parts:
        assert re.search(rf"(?<!\w){re.escape(part)}", message), f"{part!r} is not named in: {message}"


def test_integers_of_other_libraries_are_budgets() -> None:
    rewards, scores = [1.0, 0.0, 0.0], [1, 2, 3]
    for n in (np.int64(2), torch.tensor(2)):
        assert torch.equal(bon_rl(rewards, scores, n), bon_rl(rewards, scores, 2))
        assert torch.equal(bon_rlb(rewards, n), bon_rlb(rewards, 2))
        assert lambda_n(n) == lambda_n(2)


# --- the registry -------------------------------------------------------------------------------------------------

PUBLIC = [
    "reinforce",
    "rloo",
    "grpo",
    "dr_grpo",
    "maxrl",
    "inference_loo",
    "pkpo",
    "passk_training",
    "bon_rl",
    "rank",
    "bon_rlb",
    "bon_rlbp",
    "bon_rl_variational",
]


def test_the_registry_lists_every_objective() -> None:
    of_rewards = [name for name in names() if TABLE[name].is_policy_gradient and not TABLE[name].needs_answers]
    assert sorted(of_rewards) == sorted(PUBLIC)
    for name in names():
        assert get(name) is getattr(objectives, name)
        assert name in objectives.__all__
    names().clear()
    assert names(), "the caller gets a list of its own"


@pytest.mark.parametrize("unknown", ["bonrl", "PKPO", ""])
def test_unknown_names_are_answered_with_the_known(unknown: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(unknown))) as raised:
        get(unknown)
    assert ", ".join(names()) in str(raised.value)


def weighed(name: str, n: int = 2, **options: Any) -> torch.Tensor:
    """The row's advantages of two prompts with four samples each."""
    row = TABLE[name]
    batch = Batch(sources=Sources(own=4), rewards_PS=REWARDS, scores_PS=SCORES)
    return row.advantages(batch, n, row.options(**options))


REWARDS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
SCORES = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_row_weighs_as_its_function_does(name: str) -> None:
    taken = inspect.signature(get(name)).parameters
    given = {key: value for key, value in {"scores": SCORES, "n": 2}.items() if key in taken}
    assert torch.equal(weighed(name), get(name)(REWARDS, **given))


def test_options_reach_the_function() -> None:
    assert torch.equal(weighed("bon_rl", baseline="loo1"), bon_rl(REWARDS, SCORES, 2, "loo1"))
    assert torch.equal(weighed("pkpo", baseline="none"), pkpo(REWARDS, 2, "none"))
    assert torch.equal(weighed("bon_rlb", sign="published"), bon_rlb(REWARDS, 2, sign="published"))
    for name, function in (("bon_rlb", bon_rlb), ("bon_rlbp", bon_rlbp)):
        assert torch.equal(weighed(name, baseline="none"), function(REWARDS, 2, baseline="none"))
    for options in ({"weights": "top_m", "m": 1}, {"weights": "cvar", "share": 0.5}, {"weights": [0.0, 1.0]}):
        assert torch.equal(weighed("rank", **options), rank(REWARDS, SCORES, 2, **options))
    assert torch.equal(weighed("rank", baseline="none"), rank(REWARDS, SCORES, 2, baseline="none"))
    row = TABLE["bon_rlb"]
    batch = Batch(sources=Sources(own=4), rewards_PS=REWARDS, scores_PS=SCORES, p_fail_P=torch.tensor([0.5, 0.25]))
    assert torch.equal(row.advantages(batch, 2, row.options()), bon_rlb(REWARDS, 2, p_fail=[0.5, 0.25]))


@pytest.mark.parametrize("name", [name for name in PUBLIC if TABLE[name].takes_budgets])
def test_several_budgets_are_the_weighted_sum_through_the_table(name: str) -> None:
    row = TABLE[name]
    options = row.options(baseline="loo") if hasattr(row.options(), "baseline") else row.options()
    batch = Batch(sources=Sources(own=4), rewards_PS=REWARDS, scores_PS=SCORES)
    one, three = (row.advantages(batch, n, options) for n in (1, 3))
    torch.testing.assert_close(row.advantages(batch, {1: 0.25, 3: 0.75}, options), 0.25 * one + 0.75 * three)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_row_checks_itself(name: str) -> None:
    row = TABLE[name]
    row.check(4, row.options(), 32)
    assert row.summary.endswith(".")
    assert row.source
    if "n" in inspect.signature(row.function).parameters and name not in (
        "bon_rlb",
        "bon_rlbp",
        "bon_sft",
        "dco",
        "vbon",
    ):
        with pytest.raises(ValueError, match="33"):
            row.check(33, row.options(), 32)


@pytest.mark.parametrize("name", ["bon_rl", "bon_rl_variational", "rank"])
def test_without_scores_the_reward_itself_selects(name: str) -> None:
    objective = get(name)
    for scores in ({}, {"scores": None}):
        assert torch.equal(objective(REWARDS, n=2, **scores), objective(REWARDS, REWARDS, 2))
    for given in ((), (2,)):
        with pytest.raises(ValueError, match=r"^n must be an integer, got None: name it, as in n=4"):
            objective(REWARDS, *given)


def test_without_scores_the_reward_itself_picks_the_winners() -> None:
    winners = objectives.draw_winners(REWARDS, 2, torch.Generator().manual_seed(0))
    for name in objectives.WINNER_OBJECTIVES:
        alone = objectives.winner_advantages(name, REWARDS, n=2, winners=winners)
        assert torch.equal(alone, objectives.winner_advantages(name, REWARDS, REWARDS, 2, winners))
    with pytest.raises(ValueError, match="winners are missing"):
        objectives.winner_advantages("bon_rl", REWARDS, n=2)


def test_without_scores_of_a_reference_the_pool_is_its_own() -> None:
    assert torch.equal(objectives.bond(SCORES, n=2).advantages, objectives.bond(SCORES, None, 2).advantages)
    with pytest.raises(ValueError, match="n must be an integer, got None: name it"):
        objectives.bond(SCORES, 2)
