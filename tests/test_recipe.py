"""The recipe: defaults, refusals with the key and what is allowed, overrides, and what counts as the same run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bontune import tasks
from bontune.base import settings
from bontune.base.errors import BontuneError
from bontune.base.settings import apply_overrides, known_keys
from bontune.config import RECIPES, Recipe, borrowed_rate, load_recipe, shipped_recipes
from bontune.training.setup import check_objective

DESIGN = """
model: countdown-tiny
task: {name: countdown, split: train}
verifier: {name: oracle}
objective: {name: bon_rl, n: 16, baseline: loo, draw: all}
sampling: {samples: 32, temperature: 1.0, top_p: 1.0, max_new_tokens: 24}
training: {steps: 200, prompts_per_step: 32, lr: 3.0e-4, warmup: 10, checkpoint_every: 50, precision: auto, lora: null}
kl: {start: 1.0, end: 0.075, steps: 200, delay: 10, anchor_ema: 0.01}
eval: {every: 50, k: [1, 4, 16, 32], samples: 64, temperature: 1.0}
seed: 0
run: runs/countdown-bon_rl-n16
"""
"""The recipe as it was designed; numbers of Chow et al., Table 2, where the table has them."""


def merged(tree: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        key: merged(value, other[key]) if isinstance(value, dict) and key in other else other.get(key, value)
        for key, value in tree.items()
    }


def test_defaults_are_the_designed_recipe() -> None:
    """The defaults differ from the designed recipe in the name of the folder only."""
    designed = merged(yaml.safe_load(DESIGN), {"run": "runs/run"})
    whole = Recipe().model_dump(mode="json")
    assert merged(whole, designed) == whole
    assert Recipe.from_dict({}) == Recipe()


def test_countdown_changes_no_key_but_rates_and_folder() -> None:
    """The embedded model is small: it may need other learning rates than the paper's, and nothing else."""
    whole, shipped = Recipe().model_dump(mode="json"), load_recipe("countdown").model_dump(mode="json")
    whole["training"]["lr"], whole["run"] = shipped["training"]["lr"], shipped["run"]
    whole["kl"] |= {key: shipped["kl"][key] for key in ("start", "end")}
    assert shipped == whole


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_validates_loads_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    check_objective(recipe)
    if recipe.task.name in ("countdown", "programs"):  # the others' data is the user's
        assert tasks.load_task(recipe.task.name, **recipe.task.options()).problems(recipe.task.split)
    assert re.match(r"# \S.{20,}\.$", (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0])


def test_yaml_round_trip(tmp_path: Path) -> None:
    recipe = load_recipe("countdown", ["training.lora={r: 4}", "task.seed=3", "eval.split=test"])
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(path)) == recipe
    assert recipe.task.options() == {"seed": 3}
    assert set(known_keys(Recipe)) >= {"training.lora.r", "objective.n", "run", "kl.anchor_ema"}


def test_a_run_folder_is_a_recipe_with_the_folders_present_name(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "recipe.yaml").write_text(load_recipe("countdown", ["run=before"]).to_yaml())
    assert load_recipe(str(tmp_path / "moved")).run == str(tmp_path / "moved")
    assert load_recipe(str(tmp_path / "moved"), ["run=elsewhere"]).run == "elsewhere"
    with pytest.raises(BontuneError, match="No recipe"):
        load_recipe(str(tmp_path))


def test_overrides_read_yaml_and_what_people_mean() -> None:
    recipe = load_recipe(
        "countdown",
        ["training.lr=3e-4", "training.lora={r: 8, targets: [q_proj]}", "eval.k=[1, 2]", "run=2024-01-31", "seed=7"],
    )
    assert recipe.training.lr == 3e-4
    assert recipe.training.lora is not None
    assert (recipe.training.lora.r, recipe.training.lora.alpha, recipe.training.lora.targets) == (8, 32.0, ["q_proj"])
    assert (recipe.eval.k, recipe.run, recipe.seed) == ([1, 2], "2024-01-31", 7)
    assert load_recipe("countdown", ["training.lora={r: 8}", "training.lora=null"]).training.lora is None
    assert load_recipe("countdown", ["run=nan"]).run == "nan"


@pytest.mark.parametrize(
    ("given", "layers"), [("20-22", [20, 21, 22]), ("7", [7]), ("[3, 1, 3]", [1, 3]), ("null", None), ("0-0", [0])]
)
def test_layers_are_a_range_a_number_or_a_list(given: str, layers: list[int] | None) -> None:
    recipe = load_recipe("countdown", [f"training.lora.layers={given}"])
    assert recipe.training.lora is not None
    assert recipe.training.lora.layers == layers
    assert Recipe.from_dict(recipe.model_dump()) == recipe


def test_overrides_leave_the_given_tree_alone_and_reach_any_depth() -> None:
    tree: dict[str, Any] = {"a": {"b": 1}, "c": 2}
    assert apply_overrides(tree, ["a.d=x=y", "c.e.f=[1]", "g="]) == {
        "a": {"b": 1, "d": "x=y"},
        "c": {"e": {"f": [1]}},
        "g": None,
    }
    assert tree == {"a": {"b": 1}, "c": 2}


@pytest.mark.parametrize(
    ("override", "phrases"),
    [
        ("training.stepz=5", ["no key 'training.stepz'", "Did you mean 'training.steps'?"]),
        ("lr=1e-3", ["no key 'lr'", "'training.lr'"]),
        ("trainig.steps=5", ["no key 'trainig'", "'training'"]),
        ("training.lora.rr=5", ["no key 'training.lora.rr'", "'training.lora.r'"]),
        ("training.lora.layers=29-20", ["training.lora.layers", "'29-20' contains no layer; write the lower"]),
        ("training.lora.layers=[]", ["training.lora.layers", "[] contains no layer"]),
        ("training.lora.layers=0-99999999999", ["training.lora.layers", "more layers than any model has"]),
        ("training.lora.layers=-3", ["training.lora.layers", "a range such as 20-29"]),
        ("training.lora.layers=upper", ["training.lora.layers", "a list of layers or one number, got 'upper'"]),
        ("training.lora.layers=[1, -2]", ["training.lora.layers[1]", "must be at least 0, got -2"]),
        ("training.lora=5", ["training.lora: must be a section of keys and values, got 5"]),
        ("training=5", ["training: must be a section", "got 5"]),
        ("training.steps=0", ["training.steps: must be above 0, got 0"]),
        ("training.steps=1.5", ["training.steps: must be a whole number, got 1.5"]),
        ("training.lr=-1", ["training.lr: must be above 0, got -1"]),
        ("training.lr=.inf", ["training.lr: must be a finite number"]),
        ("kl.end=.nan", ["kl.end: must be a finite number"]),
        ("training.lr=fast", ["training.lr: must be a number, got 'fast'"]),
        ("training.keep_checkpoints=1", ["training.keep_checkpoints: must be at least 2"]),
        ("training.gradient_checkpointing=maybe", ["must be true or false, or must be 'auto', got 'maybe'"]),
        ("training.track=tensorboard", ["training.track: must be a list such as [tensorboard]"]),
        (
            "training.track=[tensorbord]",
            ["training.track[0]: must be 'tensorboard', 'wandb' or 'trackio', got 'tensorbord'"],
        ),
        ("sampling.temperature=0", ["sampling.temperature: must be above 0"]),
        ("sampling.top_p=1.1", ["sampling.top_p: must be at most 1"]),
        ("eval.k=[]", ["eval.k: must not be empty"]),
        ("eval.k=[4, 0]", ["eval.k[1]: must be above 0, got 0"]),
        ("eval.k=[128]", ["eval.k asks for 128 of eval.samples = 64"]),
        (
            "verifier.name=orcale",
            ["No verifier is named 'orcale', did you mean 'oracle'?; the names are oracle, majority"],
        ),
        ("verifier.name=python", ["verifier.function is missing"]),
        ("training.steps", ["'training.steps' is not an override: write key=value"]),
        ("=5", ["'=5' is not an override"]),
        ("", ["'' is not an override"]),
        ("training..steps=5", ["is not an override"]),
        ("training.steps = 5", ["is not an override", "without spaces around the equals sign"]),
        ("training.steps=", ["training.steps: must be a whole number, got nothing"]),
        ("training.steps=true", ["training.steps: must be a whole number, got 'true'"]),
        ("objective.baseline=lo", ["objective.baseline: must be 'loo', 'loo1' or 'none', got 'lo'"]),
        ("task={name: jsonl, data: x", ["begins with { and has no } at its end", "quotes"]),
        ("eval.k=[1, 4", ["begins with [ and has no ] at its end"]),
        ('model="x', ['begins with " and has no " at its end']),
        ('task={name: jsonl, data: "x}', ["task={name: jsonl", "is not valid YAML"]),
        ("objective.n={1:0.5,4:0.5}", ["objective.n={1:0.5,4:0.5}: put a space behind each colon"]),
        ("learning_rate=1e-5", ["no key 'learning_rate'", "'training.lr'"]),
        ("objective.learning_rate=1e-5", ["no key 'objective.learning_rate'", "'training.lr'"]),
        ("sampling.num_generations=8", ["'sampling.samples'"]),
        ("eval.num_samples=8", ["'eval.samples'"]),
        ("verifier.batch_size=8", ["'verifier.refit.batch_size'"]),
        ("batch_size=8", ["'training.prompts_per_step'", "counts prompts"]),
        ("num_train_epochs=2", ["'training.steps'", "E epochs are E × problems / training.prompts_per_step"]),
        ("gradient_accumulation_steps=2", ["training.token_budget"]),
        ("training.lora_r=8", ["'training.lora.r'"]),
        ("beta=0.1", ["'kl.start'", "kl.end"]),
        ("rollout.n=8", ["no key 'rollout'", "'objective.n'"]),
        ("warmup_ratio=0.1", ["'training.warmup'", "counts steps"]),
    ],
)
def test_refusals_are_one_sentence_with_key_value_and_rule(override: str, phrases: list[str]) -> None:
    with pytest.raises(BontuneError) as caught:
        load_recipe("countdown", [override])
    message = str(caught.value)
    assert "\n" not in message
    assert "Section" not in message
    for phrase in phrases:
        assert phrase in message


def test_words_of_other_trainers_lead_to_keys_that_there_are() -> None:
    keys = {*known_keys(Recipe), *(f"task.{option.name}" for option in tasks.options("jsonl"))}
    words = [word for _, _, group in settings.OTHER_WORDS for word in group.split()]
    assert len(words) == len(set(words)) > 200
    assert {key for key, _, _ in settings.OTHER_WORDS} - {None} <= keys
    assert all(note.endswith(".") for key, note, _ in settings.OTHER_WORDS if note or key is None)
    for word in words:
        for section in ("", "training.", "sampling.", "eval.", "kl.", "objective."):
            if section + word in keys:
                continue
            with pytest.raises(BontuneError) as caught:
                load_recipe("countdown", [f"{section}{word}=1"])
            assert "Did you mean" in str(caught.value) or settings.ours(word).note in str(caught.value)  # type: ignore[union-attr]


def test_braces_and_quotes_may_stand_alone_in_texts() -> None:
    for key in ("template", "prompt", "answer", "stop"):
        for text in ("{", "[", '"', "'", "{question"):
            assert apply_overrides({}, [f"task.{key}={text}"]) == {"task": {key: text}}


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("training: {steps: 5")
    (tmp_path / "twice.yaml").write_text("training:\n  steps: 5\n  lr: 1\n  steps: 6\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "date.yaml").write_text("run: 2024-01-31\n")
    for name, phrase in [
        ("broken.yaml", "is not valid YAML"),
        ("twice.yaml", "the key 'steps' occurs twice in the section that starts in line 2"),
        ("list.yaml", "must contain keys and values, got list"),
        ("bytes.yaml", "is not valid YAML"),
        ("date.yaml", "run: must be text"),
        ("absent.yaml", "neither a file nor one of"),
    ]:
        with pytest.raises(BontuneError, match=phrase) as caught:
            load_recipe(str(tmp_path / name), ["seed=1"])
        assert "\n" not in str(caught.value)
    with pytest.raises(BontuneError, match="Did you mean 'countdown'"):
        load_recipe("countdwon")


@pytest.mark.parametrize(
    ("override", "phrase"),
    [
        ("objective.n=64", r"n = 64.*32 samples"),
        ("objective.n=32", r"n = 32 .*needs n \+ 1"),
        ("objective.name=bonrl", "'bonrl'.*mean 'bon_rl'"),
        ("objective={name: rloo, draw: winner}", r"draw is for bon_rl, .*; rloo has no use for it"),
        ("objective={name: rloo, p_fail: running}", "p_fail is for bon_rlb, bon_rlbp; rloo has no use for it"),
        ("objective={name: bon_rlbp, sign: published}", "sign is for bon_rlb; bon_rlbp has no use for it"),
        ("objective={name: passk_training, n: 33}", r"n = 33.*32 samples"),
        ("objective.n={1: 0.5, 64: 0.5}", r"n = 64 is more than the 32 samples per prompt allow"),
        (
            "objective={name: dco, n: {1: 0.5, 16: 0.5}}",
            r"takes one n, not several with weights; pkpo, .* take several",
        ),
        ("objective={name: bon_rl, n: 1, baseline: loo1}", r"loo1 compares with the best of n − 1 samples"),
        ("objective={name: rank, weights: mean, n: 4, baseline: loo1}", r"these weights pay the last: take loo"),
        ("objective={name: rank, weights: [0.5, 0.4], n: 4}", r"weights sum to 0.9; .* must sum to 1"),
        ("objective={name: rank, weights: top_m, m: 8, n: 4}", r"m is a whole number from 1 to 4, got 8"),
    ],
)
def test_what_an_objective_refuses_is_known_before_the_run(override: str, phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase) as caught:
        check_objective(load_recipe("countdown", [override]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("n", "phrase"),
    [
        ("{1: 0.5, 16: 0.6}", r"n = \{1: 0.5, 16: 0.6\} has weights that sum to 1.1; they must sum to 1"),
        ("{1: [0.5, 0], 16: [0.5, 1]}", r"n ends with weight 0 for the budget 1: leave it out, or end above 0"),
        ("{1: [1, 0.5], 16: [0.5, 0.5]}", r"weights that sum to 1.5"),
        ("{1: 0.5, 16: [0.5, 0.5, 0.5]}", r"a weight for each of several as in \{1: 0.5, 16: 0.5\}"),
        ("{0: 0.5, 16: 0.5}", r"must be a whole number from 1 up, or"),
        ("{}", r"n names no budget"),
        ("many", r"must be a whole number from 1 up, or .* got many"),
    ],
)
def test_budgets_that_cannot_be_are_refused(n: str, phrase: str) -> None:
    with pytest.raises(BontuneError, match=rf"objective\.n: .*{phrase}") as caught:
        load_recipe("countdown", [f"objective.n={n}"])
    assert "\n" not in str(caught.value)


def test_what_decides_nothing_is_no_part_of_the_fingerprint() -> None:
    """Results of recipes from before a key was there stay valid: at its old meaning it changes nothing."""
    plain = load_recipe("countdown")
    assert load_recipe("countdown", ["training.value_lr=0.5"]).fingerprint() == plain.fingerprint()
    rates = [
        load_recipe("countdown", ["objective={name: bon_rlb, p_fail: value_head}", f"training.value_lr={rate}"])
        for rate in ("0.5", "auto")
    ]
    assert rates[0].fingerprint() != rates[1].fingerprint()
    baselines = [
        load_recipe("countdown", ["objective.name=bon_rlb", f"objective.baseline={name}"]) for name in ("loo", "none")
    ]
    assert baselines[0].fingerprint() != baselines[1].fingerprint()
    assert "objective.baseline" not in baselines[1].deciding()


def test_an_objectives_keys_are_its_own() -> None:
    """The default of another objective means nothing and is left out; anything else is refused."""
    assert load_recipe("countdown", ["objective.name=rloo"]).objective.model_dump() == {
        "name": "rloo",
        "n": 16,
        "reward": "environment",
    }
    assert load_recipe("countdown", ["objective={name: bond, beta: null}"]).objective.options().beta == 0.5
    with pytest.raises(BontuneError, match=r"baseline is for .*; rloo has no use for it"):
        load_recipe("countdown", ["objective={name: rloo, baseline: none}"])
    with pytest.raises(BontuneError, match=r"no key 'objective.baselin'. Did you mean 'objective.baseline'"):
        load_recipe("countdown", ["objective.baselin=loo"])


def test_fingerprint_follows_what_changes_results_and_nothing_else() -> None:
    base = load_recipe("countdown").fingerprint()
    for same in (
        "run=x",
        "training.checkpoint_every=1",
        "training.keep_checkpoints=9",
        "training.track=[tensorboard]",
        "training.token_budget=9",
        "sampling.token_budget=9",
    ):
        assert load_recipe("countdown", [same]).fingerprint() == base
    others = {
        load_recipe("countdown", [other]).fingerprint()
        for other in (
            "seed=1",
            "training.steps=201",
            "training.lr=1e-3",
            "objective.n=8",
            "kl.end=0",
            "task.seed=1",
            "sampling.samples=40",
            "model=x",
            "verifier.name=majority",
            "training.lora={r: 4}",
        )
    }
    assert len(others) == 10
    assert base not in others


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a #1", "a #1"),
        ("###", "###"),
        ("### Q {prompt}", "### Q {prompt}"),
        ("{prompt}", "{prompt}"),
        ("Q: {prompt}\\nA:", "Q: {prompt}\nA:"),
        ("\\n", "\n"),
        ('"\\n"', "\n"),
        ("'#'", "#"),
        ("2024-01-31", "2024-01-31"),
        ("007", "007"),
        ("null", None),
        ("", None),
        ("[a, b]", ["a", "b"]),
        ("{train: a.jsonl}", {"train": "a.jsonl"}),
        ("[/INST]", "[/INST]"),
        ("[END]", "[END]"),
        ("5", "5"),
        ("true", "true"),
    ],
)
def test_values_on_a_command_line_are_what_people_mean(text: str, value: object) -> None:
    assert apply_overrides({}, [f"task.stop={text}"]) == {"task": {"stop": value}}


@pytest.mark.parametrize(("text", "value"), [("3e-4", 3e-4), ("0", 0), ("0.5", 0.5), ("true", True), ("[4]", [4])])
def test_other_values_are_numbers_and_lists(text: str, value: object) -> None:
    assert apply_overrides({}, [f"task.limit={text}"]) == {"task": {"limit": value}}


def test_a_borrowed_rate_is_said() -> None:
    mine = ["model=tiny-gemma2", "task={name: jsonl, data: mine.jsonl}"]
    said = borrowed_rate("countdown", mine)
    assert said is not None
    assert "training.lr = 0.0006 is what countdown takes for countdown-tiny on countdown" in said
    assert "recipe own" in said
    assert borrowed_rate("countdown", [*mine, "training.lr=3e-6"]) is None
    assert borrowed_rate("countdown", [*mine, "training={lr: 3.0e-6}"]) is None
    assert borrowed_rate("countdown", mine[:1]) is None
    assert borrowed_rate("countdown", mine[1:]) is None
    assert borrowed_rate("own", ["model=tiny-gemma2", "task.data=mine.jsonl"]) is None


def test_a_recipe_has_sizes(tmp_path: Path) -> None:
    path = tmp_path / "sized.yaml"
    path.write_text("training: {steps: 7}\nsizes:\n  cores: {}\n  gpu: {training: {lr: 1.0e-5}, kl: {steps: 9}}\n")
    first, gpu = load_recipe(str(path)), load_recipe(str(path), ["size=gpu", "kl.steps=5"])
    assert first == load_recipe(str(path), ["size=cores"])
    assert (first.training.steps, first.training.lr, first.kl.steps) == (7, Recipe().training.lr, Recipe().kl.steps)
    assert (gpu.training.steps, gpu.training.lr, gpu.kl.steps) == (7, 1e-5, 5), "an override wins over the size"
    with pytest.raises(BontuneError, match=r"no size 'gpuu', did you mean 'gpu'\?; there are cores, gpu"):
        load_recipe(str(path), ["size=gpuu"])
    with pytest.raises(BontuneError, match="no key 'size'"):
        load_recipe("countdown", ["size=gpu"])
    for sizes in ("3", "{}", "{a: 1}"):
        path.write_text(f"sizes: {sizes}\n")
        with pytest.raises(BontuneError, match="sizes takes names with the keys"):
            load_recipe(str(path))
