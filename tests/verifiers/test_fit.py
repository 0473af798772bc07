"""Training a verifier.

1. examples: duplicates merged, each problem weighs 1 and its classes ½ each, one-class problems left out and counted,
   ungraded completions never taken for wrong, no problem both trained on and held out;
2. the loss is the definition's, whatever the pieces it is computed in;
3. on data that can be learnt the held-out AUC passes 0.95 in seconds; the same seed gives the same bits;
4. the best evaluation's weights are kept, through early stopping and through signals.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

import tiny
from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.base.problems import Problem
from bontune.metrics import within_prompt_auc
from bontune.verifiers import RewardModel
from bontune.verifiers.examples import Examples, make_examples
from bontune.verifiers.fit import FitOptions, FitProgress, fit
from verifier_data import separable_rows

Data = tuple[list[Problem], list[list[str]], list[list[float | None]]]
FAST = FitOptions(epochs=6, batch_size=32, lr=3e-3)


def problem(name: str, prompt: str | None = None) -> Problem:
    return Problem(id=name, prompt=prompt or f"{name}=", reference="")


def separable(num_problems: int = 40, seed: int = 0) -> Data:
    rows = separable_rows(num_problems, num_samples=8, seed=seed)
    groups = [rows[i : i + 8] for i in range(0, len(rows), 8)]
    problems = [problem(group[0]["problem_id"], group[0]["prompt"]) for group in groups]
    return problems, [[row["completion"] for row in g] for g in groups], [[row["reward"] for row in g] for g in groups]


def model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(tiny.CHARACTERS) + 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "num_labels": 1,
    }
    return LlamaForSequenceClassification(LlamaConfig(**shape, pad_token_id=None, bos_token_id=None, eos_token_id=1))


def examples(data: Data, held_out: float = 0.2, seed: int = 0) -> Examples:
    return make_examples(*data, held_out=held_out, seed=seed)


# ---- examples ----


def test_weights_by_hand() -> None:
    data: Data = (
        [problem("a"), problem("b"), problem("c"), problem("d"), problem("a")],
        [["x", "x", "y", "z"], ["x", "y"], ["x", "y"], ["x", "y"], ["y", "w"]],
        [[1.0, 1.0, 0.0, None], [1.0, 1.0], [0.25, 0.0], [math.nan, 0.0], [0.0, 1.0]],
    )
    made = examples(data, held_out=0.5)
    expected = {
        ("a", "x"): (1 / 3, 0.0),  # two of three right draws
        ("a", "w"): (1 / 6, 0.0),
        ("a", "y"): (0.0, 0.5),  # drawn twice, in two pools; z was not graded
        ("c", "x"): (0.5, 0.75 / 1.75 / 2),  # a quarter right
        ("c", "y"): (0.0, 1 / 1.75 / 2),
    }
    found = {(e.problem.id, e.completion): (e.weight_right, e.weight_wrong) for e in made.train + made.held_out}
    assert found.keys() == expected.keys()
    for key, weights in expected.items():
        assert found[key] == pytest.approx(weights), key
    counts = (made.num_problems, made.num_one_class, made.num_completions, made.num_distinct, made.num_ungraded)
    assert counts == (4, 2, 10, 8, 2)


@pytest.mark.parametrize("seed", range(5))
def test_problems_are_held_out_whole_and_weigh_the_same(seed: int) -> None:
    rng = Random(seed)
    num = rng.randint(2, 30)
    data: Data = ([problem(str(i)) for i in range(num)], [], [])
    for i in range(num):
        data[1].append([rng.choice("abcdef") for _ in range(7)])
        others = [0.0, 0.5, 1.0] if i == 0 else [0.0, 0.5, 1.0, None]
        data[2].append([0.0, 1.0, *(rng.choice(others) for _ in range(5))])
    made = examples(data, held_out=0.3, seed=seed)
    train, held_out = ({e.problem.id for e in part} for part in (made.train, made.held_out))
    assert not train & held_out
    assert held_out == made.held_out_ids
    assert len(held_out) == min(max(1, round(0.3 * num)), num - 1)
    sums: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for e in made.train + made.held_out:
        sums[e.problem.id] += (e.weight_right, e.weight_wrong)
    for total in sums.values():
        np.testing.assert_allclose(total, 0.5)
    shuffled = list(zip(*data, strict=True))
    rng.shuffle(shuffled)
    again = examples(tuple(map(list, zip(*shuffled, strict=True))), held_out=0.3, seed=seed)  # type: ignore[arg-type]
    assert again.held_out_ids == made.held_out_ids, "the lot depends on seed and id alone"


def test_prompts_that_differ_under_one_id_stay_apart() -> None:
    problems = [problem("a", "1"), problem("a", "2"), problem("b")]
    data: Data = (problems, [["x"], ["x"], ["x", "y"]], [[1.0], [0.0], [0.0, 1.0]])
    made = examples(data, held_out=0.5)
    texts = {e.problem.prompt + e.completion for e in made.train + made.held_out if e.problem.id == "a"}
    assert texts == {"1x", "2x"}


@pytest.mark.parametrize(
    ("rewards", "held_out", "phrase"),
    [
        ([[1.0, 1.0], [0.0, 0.0]], 0.5, "0 of 2 problems have both"),
        ([[1.0, 0.0], [0.0, 0.0]], 0.5, "1 of 2 problems"),
        ([[1.0, 0.0], [2.0, 0.0]], 0.5, "problem b has 2"),
        ([[1.0, 0.0], [0.0, 1.0]], 1.0, "between 0 and 1"),
        ([[None, None], [0.0, 1.0]], 0.5, "1 of 2 problems"),
    ],
)
def test_pools_that_teach_nothing(rewards: Any, held_out: float, phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        examples(([problem("a"), problem("b")], [["x", "y"], ["x", "y"]], rewards), held_out=held_out)


# ---- training ----


def test_the_held_out_loss_is_the_definition() -> None:
    made = examples(separable(6))
    untrained = model()
    fitted = fit(untrained, tiny.tokenizer(), made, FitOptions(epochs=1, lr=1e-9, token_budget=20))
    verifier = RewardModel(model(), tiny.tokenizer(), device="cpu")
    problems = {e.problem.id: e.problem for e in made.held_out}
    losses = []
    for name in problems:
        mine = [e for e in made.held_out if e.problem.id == name]
        scores = verifier.score([problems[name]], [[e.completion for e in mine]])[0]
        losses.append(
            sum(
                e.weight_right * math.log1p(math.exp(-s)) + e.weight_wrong * math.log1p(math.exp(s))
                for e, s in zip(mine, scores, strict=True)
            )
        )
    assert fitted.history[0]["held_out_loss"] == pytest.approx(np.mean(losses), abs=1e-6)


def test_learns_what_can_be_learnt_and_repeats_bit_by_bit() -> None:
    data = separable()
    made = examples(data)
    trained = [model(), model()]
    fitted = [fit(m, tiny.tokenizer(), made, FAST) for m in trained]
    assert fitted[0].history == fitted[1].history
    for name, tensor in trained[0].state_dict().items():
        assert torch.equal(tensor, trained[1].state_dict()[name]), name
    assert fitted[0].best["held_out_loss"] < 0.3 < fitted[0].history[0]["held_out_loss"]
    problems, texts, rewards = separable(seed=1)
    scores = RewardModel(trained[0], tiny.tokenizer(), device="cpu").score(problems, texts)
    assert np.nanmean(within_prompt_auc(np.array(rewards, dtype=float), scores)) > 0.95


def test_the_best_evaluation_is_kept_and_patience_ends_it() -> None:
    """Rewards by the toss of a coin: training fits them, and the held-out loss only rises."""
    problems, texts, rewards = separable(12)
    rng = Random(5)
    noise: Data = (problems, texts, [[float(rng.random() < 0.5) for _ in row] for row in rewards])
    made, trained = examples(noise), model()
    fitted = fit(trained, tiny.tokenizer(), made, FitOptions(epochs=60, batch_size=16, lr=1e-2, patience=2))
    losses = [row["held_out_loss"] for row in fitted.history]
    assert fitted.best == fitted.history[losses.index(min(losses))]
    assert len(losses) == losses.index(min(losses)) + 1 + 2, "two looks beyond the best, then no more"
    after = fit(trained, tiny.tokenizer(), made, FitOptions(epochs=1, lr=1e-9)).history[0]["held_out_loss"]
    assert after == pytest.approx(min(losses), abs=1e-6)


def interrupting(at: int) -> Callable[[], None]:
    calls = iter(range(10**9))

    def poll() -> None:
        if next(calls) == at:
            raise Interrupted("SIGTERM")

    return poll


def test_a_signal_keeps_the_best_so_far() -> None:
    made, trained = examples(separable()), model()
    seen: list[FitProgress] = []
    steps_per_epoch = -(-len(made.train) // FAST.batch_size)
    fitted = fit(trained, tiny.tokenizer(), made, FAST, poll=interrupting(2 * steps_per_epoch + 1), show=seen.append)
    assert fitted.was_stopped
    assert [row["epoch"] for row in fitted.history] == [0.0, 1.0, 2.0]
    assert (seen[-1].step, seen[-1].total) == (2 * steps_per_epoch + 1, 6 * steps_per_epoch)
    after = fit(trained, tiny.tokenizer(), made, FitOptions(epochs=1, lr=1e-9)).history[0]["held_out_loss"]
    assert after == pytest.approx(fitted.best["held_out_loss"], abs=1e-6)
    with pytest.raises(Interrupted):  # before there is anything to keep
        fit(model(), tiny.tokenizer(), made, FAST, poll=interrupting(1))


def test_a_loss_that_is_not_finite_stops_it() -> None:
    broken = model()
    with torch.no_grad():
        broken.score.weight.fill_(math.nan)
    with pytest.raises(RunStopped, match="not finite"):
        fit(broken, tiny.tokenizer(), examples(separable(6)), FAST)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"patience": 0}, {"lr": math.nan}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(BontuneError, match=next(iter(options))):
        FitOptions(**options)
