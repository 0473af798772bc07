"""Suites: the shipped ones can be run, overrides do what they say, and each mistake is told in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bontune.base.errors import BontuneError
from bontune.config import load_recipe
from bontune.experiments.suite import BASE, load_suite, shipped_suites
from bontune.objectives.budgets import largest_budget
from bontune.training.setup import check_objective

SMALL: dict[str, Any] = {
    "title": "Small",
    "base": "countdown",
    "metric": "pass@8",
    "seeds": 3,
    "evaluations": 4,
    "recipe": {"training": {"steps": 10}},
    "measuring": {"samples": 16, "ks": [1, 4, 8], "temperatures": [0.6, 1.0], "other_verifiers": {"votes": "majority"}},
    "arms": {
        "base": {"label": "base model"},
        "ours": {"label": "ours", "recipe": {"objective": {"n": 4}}, "lr": [1e-3, 2e-3], "select": "pass@4"},
        "rl": {"label": "RL", "recipe": {"objective": {"name": "rloo", "n": 1}}, "seeds": 2},
        "kept": {"label": "RL by pass@8", "like": "rl", "select": "pass@8"},
        "half": {"label": "half", "recipe": {"training": {"steps": 5}}},
    },
    "claims": [{"id": "more", "claim": "More.", "a": "ours", "b": "rl", "metric": "votes:best@8"}],
}


def load(folder: Path, *overrides: str, **changes: Any) -> Any:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False))
    return load_suite(str(path), overrides)


@pytest.mark.parametrize("name", shipped_suites())
def test_every_run_of_a_shipped_suite_can_begin(name: str) -> None:
    suite = load_suite(name)
    for arm in suite.trained():
        for lr in suite.rates(arm):
            recipe = suite.run_recipe(arm, lr, 1, "runs/x")
            check_objective(recipe)
            assert (recipe.training.lr, recipe.seed, recipe.run) == (lr, 1, "runs/x")
            assert recipe.eval.every * suite.evaluations >= recipe.training.steps
            assert recipe.eval.split == suite.measuring.validation != suite.measuring.test
            assert recipe.eval.keep
            assert recipe.sampling.samples >= largest_budget(recipe.objective.n_at())
    assert len({claim.id for claim in suite.claims}) == len(suite.claims)
    assert suite.measuring.samples >= 2 * max(k for k in suite.measuring.ks if suite.metric.endswith(f"@{k}"))


@pytest.mark.parametrize("size", ["cores", "gpu", "gpus"])
def test_word_problems_can_begin_in_every_size(size: str) -> None:
    suite = load_suite("wordproblems", [f"size={size}"])
    recipes = [suite.run_recipe(arm, suite.rates(arm)[0], 0, "runs/x") for arm in suite.trained()]
    for recipe in recipes:
        check_objective(recipe)
    generations = {r.training.steps * r.training.prompts_per_step * r.sampling.samples for r in recipes}
    assert len(generations) == 1, "equal for all arms"
    for name in ("smollm2-bon", "smollm2-rl"):
        alone = load_recipe(name, [f"size={size}"])
        assert {alone.training.steps * alone.training.prompts_per_step * alone.sampling.samples} == generations
        assert alone.kl.steps == alone.training.steps == recipes[0].kl.steps


def test_the_weights_of_an_arm_replace_those_of_its_base(tmp_path: Path) -> None:
    arm = {"label": "other weights", "recipe": {"objective": {"n": {1: 0.5, 16: 0.5}}}}
    suite = {
        "title": "Small",
        "base": "countdown-every-n",
        "metric": "pass@16",
        "arms": {"base": {"label": "b"}, "a": arm},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    found = load_suite(str(tmp_path / "suite.yaml")).run_recipe("a", 1e-3, 0, "runs/a").objective
    assert (found.n, found.options().baseline) == ({1: 0.5, 16: 0.5}, "loo1")


def test_arms_differ_in_what_they_say_alone(tmp_path: Path) -> None:
    suite = load(tmp_path)
    base, ours, rl = (suite.tree(name) for name in (BASE, "ours", "rl"))
    assert base["training"]["steps"] == ours["training"]["steps"] == 10
    assert ours == base | {"objective": base["objective"] | {"n": 4}}
    assert rl == base | {"objective": {"name": "rloo", "n": 1, "reward": "environment"}}
    assert suite.tree("kept") == rl
    assert suite.tree("half")["training"] == base["training"] | {"steps": 5}
    assert list(suite.trained()) == ["ours", "rl", "half"]
    assert suite.rates("ours") == [1e-3, 2e-3]
    assert suite.rates("rl") == [base["training"]["lr"]]
    assert [suite.num_seeds(name) for name in suite.arms] == [1, 3, 2, 2, 3]
    assert suite.selections("rl") == ["pass@1", "pass@8"]
    assert suite.own_metrics() == ["pass@8", "votes:best@8"]


def test_a_runs_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, "measuring.validation_problems=7").run_recipe("rl", 0.004, 2, "r")
    assert (recipe.training.lr, recipe.seed, recipe.run) == (0.004, 2, "r")
    section = recipe.eval
    assert (section.every, section.split, section.problems) == (3, "validation", 7)
    assert (section.samples, section.k, section.temperature) == (16, [1, 4, 8], 1.0)
    assert section.keep == ["pass@1", "pass@8"]
    assert recipe.training.checkpoint_every == 3
    seldom = load(tmp_path, "evaluations=0").run_recipe("rl", 0.004, 2, "r")
    assert seldom.eval.every == 10


def test_overrides(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        "seeds=2",
        "recipe.training.steps=6",
        "measuring.ks=[1,4,8,16]",
        "arms.ours.lr=[5e-4]",
        "measuring.harder={hard: true}",
        "arms.rl.recipe.objective.name=grpo",
        "claims=[]",
    )
    assert (suite.seeds, suite.num_seeds("ours"), suite.claims) == (2, 2, [])
    assert suite.tree("ours")["training"]["steps"] == 6
    assert suite.tree("half")["training"]["steps"] == 5
    assert suite.measuring.ks == [1, 4, 8, 16]
    assert suite.rates("ours") == [5e-4]
    assert suite.measuring.harder == {"hard": True}
    assert suite.tree("rl")["objective"]["name"] == "grpo"


CLAIM = {"id": "c", "claim": "C.", "a": "ours", "b": "rl", "metric": "pass@8"}
LADDER = {"id": "c", "claim": "C.", "kind": "generations", "b": "ours", "metric": "pass@8"}
ARMS = SMALL["arms"]


@pytest.mark.parametrize(
    ("changes", "overrides", "phrases"),
    [
        ({}, ["sedes=2"], ["no key 'sedes'", "Did you mean 'seeds'?"]),
        ({}, ["measuring.temperature=[1.0]"], ["'measuring.temperature'", "'measuring.temperatures'"]),
        ({}, ["seeds=0"], ["seeds", "above", "got 0"]),
        ({}, ["seeds"], ["'seeds' is not an override: write key=value"]),
        ({}, ["recipe.training.stepz=3"], ["no key 'training.stepz'", "'training.steps'"]),
        ({}, ["arms.rl.recipe.objective.nn=3"], ["'objective.nn'"]),
        ({}, ["metric=pass@3"], ["'pass@3'", "pass@1", "best@8"]),
        ({}, ["arms.rl.select=votes:best@8"], ["'votes:best@8'"]),
        ({}, ["measuring.temperatures=[0.5]"], ["measuring.temperatures needs 1.0"]),
        ({}, ["measuring.samples=4"], ["measuring.ks asks for 8 of measuring.samples = 4"]),
        ({}, ["measuring.ks=[]"], ["measuring.ks", "must not be empty"]),
        ({"claims": [CLAIM | {"a": "urs"}]}, [], ["claim c names the arm 'urs'", "base, ours, rl, kept, half"]),
        ({"claims": [CLAIM | {"b": "urs"}]}, [], ["claim c names the arm 'urs'"]),
        ({"claims": [CLAIM | {"metric": "pass@9"}]}, [], ["'pass@9'"]),
        ({"claims": [CLAIM | {"metric": "rough:best@8"}]}, [], ["'rough:best@8'"]),
        ({"claims": [CLAIM | {"metric": "own:best@8"}]}, [], ["claim c is about a run's own verifier", "`against`"]),
        (
            {"claims": [CLAIM | {"metric": "own:best@8", "against": "own:base:best@8"}]},
            [],
            ["claim c is about a run's own verifier", "at_one_temperature: true"],
        ),
        ({"claims": [CLAIM | {"against": "own:best@9"}]}, [], ["'own:best@9'"]),
        ({"claims": [LADDER]}, [], ["claim c is about generations: it needs a ladder"]),
        ({"claims": [LADDER | {"ladder": {"urs": 0.5}}]}, [], ["claim c names the arm 'urs'"]),
        ({"claims": [LADDER | {"ladder": {"rl": 1.0, "half": 0.5}}]}, [], ["must rise, got [1.0, 0.5]"]),
        (
            {"claims": [LADDER | {"ladder": {"half": 0.5}}]},
            ["recipe.training.steps=20"],
            ["half has 0.5 of ours's generations, but by the recipes it has 0.25"],
        ),
        ({"arms": {name: arm for name, arm in ARMS.items() if name != BASE}}, [], ["has an arm 'base'"]),
        ({}, ["arms.base.lr=[1e-3]"], ["arms.base is the model before training"]),
        ({}, ["arms.kept.like=urs"], ["arms.kept.like must name an arm with runs of its own"]),
        ({}, ["arms.kept.like=kept"], ["arms.kept.like must name"]),
        ({}, ["arms.kept.like=base"], ["arms.kept.like must name"]),
        ({}, ["arms.kept.lr=[1e-3]"], ["replaces recipe and lr"]),
        ({"arms": ARMS | {"a/b": {"label": "x"}}}, [], ["The arm 'a/b'", "letters, digits"]),
        ({"base": "countdwn"}, [], ["No recipe 'countdwn'", "'countdown'"]),
        ({"learned": ["urs"]}, [], ["'urs'"]),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, Any], overrides: list[str], phrases: list[str]) -> None:
    with pytest.raises(BontuneError) as refused:
        load(tmp_path, *overrides, **changes)
    said = str(refused.value)
    assert "\n" not in said
    for phrase in phrases:
        assert phrase in said


def test_a_true_ladder_is_taken(tmp_path: Path) -> None:
    ladder = {"half": 0.5, "rl": 1.0}
    assert load(tmp_path, claims=[LADDER | {"ladder": ladder}]).claims[0].ladder == ladder


def test_no_such_suite(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match=r"No suite 'countdwon'.* Did you mean 'countdown'\?"):
        load_suite("countdwon")
    with pytest.raises(BontuneError, match="neither a file nor one of"):
        load_suite(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "phrase"), [(b"a: [1", "is not valid YAML"), (b"\xff", "is not valid YAML"), (b"- a", "keys and values")]
)
def test_broken_files(tmp_path: Path, text: bytes, phrase: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(text)
    with pytest.raises(BontuneError, match=phrase) as refused:
        load_suite(str(path))
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)
