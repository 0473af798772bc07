"""The verifiers that ship: small, offline, good but not perfect, and trained on no validation or test problem.

Their numbers on validation problems are in their READMEs; here on 60 of them, with margins of three standard errors.
"""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import islice
from pathlib import Path

import build_countdown_verifier as build
import numpy as np
import pytest
from countdown_problems import held_out_keys

from bontune.base.errors import BontuneError
from bontune.engines.contract import SamplingOptions
from bontune.engines.transformers import TransformersEngine
from bontune.metrics import best_of_k, pass_at_k, within_prompt_auc
from bontune.models import load_model
from bontune.pools.collect import collect, score_all
from bontune.tasks.countdown import Countdown, evaluate
from bontune.verifiers import load_verifier, verifier_from_text

NAMES = ["countdown-verifier", "countdown-verifier-rough"]


@pytest.mark.parametrize("name", NAMES)
def test_ships_as_a_plain_folder_under_a_megabyte(name: str) -> None:
    folder = Path(str(files("bontune.models"))) / name.replace("-", "_")
    names = {file.name for file in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "verifier.json", "README.md"} <= names
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000
    assert "auto_map" not in json.loads((folder / "config.json").read_text())


def test_are_good_but_not_perfect_and_one_is_worse() -> None:
    task, verifiers = Countdown(), [load_verifier("reward_model", path=name, device="cpu") for name in NAMES]
    model, tokenizer = load_model("countdown-tiny")
    problems = task.problems("validation")[:60]
    options = SamplingOptions(num_samples=32, max_new_tokens=24)
    parts = list(collect(TransformersEngine(model, tokenizer), task, verifiers[0], problems, options, key=(1,)))
    rewards = np.array([row for part in parts for row in part.rewards_PM.tolist()])
    good = np.array([row for part in parts for row in part.scores])
    rough = np.array(
        [row for part in parts for row in score_all(verifiers[1], part.problems, part.samples.texts, part.grades)]
    )
    assert 0.78 < np.nanmean(within_prompt_auc(rewards, good)) < 0.97
    assert 0.72 < np.nanmean(within_prompt_auc(rewards, rough)) < 0.92
    best, roughly = best_of_k(rewards, good, 32).mean(), best_of_k(rewards, rough, 32).mean()
    assert pass_at_k(rewards, 1).mean() + 0.05 < roughly < best < pass_at_k(rewards, 32).mean() - 0.05


def test_is_no_model_that_writes() -> None:
    with pytest.raises(BontuneError, match="is a verifier"):
        load_model("countdown-verifier")
    assert verifier_from_text("countdown-verifier").name == "countdown-verifier"


def test_its_exercises_are_true_and_none_is_held_out() -> None:
    tokenizer = build.build_tokenizer()
    keys, missing = held_out_keys(), []
    for ids, labels in islice(build.exercises(tokenizer), 500):
        prompt, _, expression = tokenizer.decode(ids).partition("=")
        numbers, _, target = prompt.partition(":")
        value = evaluate(expression).value
        assert sorted(map(int, numbers.split(","))) == sorted(evaluate(expression).numbers)
        for wanted in (value, int(target)):
            assert (tuple(sorted(map(int, numbers.split(",")))), wanted) not in keys
        label = tokenizer.decode([labels[-1]])
        expected = str(int(target) - value + build.NOTHING_MISSING)
        assert label == (expected if 0 <= int(expected) < 100 else "<unk>")
        missing.append(int(target) - value)
        assert len(ids) == len(labels)
    assert 0.2 < np.mean(np.array(missing) == 0) < 0.4


def test_the_calculator_learns_and_repeats_bit_by_bit(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = build.build_tokenizer()
    models = [build.build_model(tokenizer, seed=0) for _ in range(2)]
    for model in models:
        build.train_calculator(model, tokenizer, steps=25, batch_size=32, lr=3e-3, seed=0)
    losses = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
    assert losses[0] == losses[2] > losses[1] == losses[3]
    for name, tensor in models[0].state_dict().items():
        assert tensor.equal(models[1].state_dict()[name]), name
