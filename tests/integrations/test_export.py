"""Contract of recipes for other trainers:

1. what both sides have a word for is carried over, read by their own parsers; the rest is said in comments;
2. objectives that run here alone are refused;
3. verl's data hold every problem, and its reward is the task's, from any folder;
4. names with any characters come out of Hydra as they went in, and shipped models keep their names.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from bontune.base.errors import BontuneError
from bontune.config import load_recipe, shipped_recipes
from bontune.integrations.export import export_recipe, hydra
from bontune.integrations.verl_reward import compute_score, write_data
from bontune.models import resolve
from bontune.tasks import load_task
from commands import run_many

CHANGES = ["objective.name=bon_rl", "verifier.name=oracle", "verifier.path=null"]
RECIPES = [name for name in shipped_recipes() if "rlb" not in name and not name.startswith("smollm2")]
"""Those that can be exported: adapters on chosen layers, as smollm2-* have them, are refused."""
LORA = ["training.lora={r: 8}", "engine.name=vllm", "objective.n={1: 0.5, 16: 0.5}", "kl.start=0", "kl.end=0"]


def trl(name: str, *changes: str) -> tuple[dict[str, Any], str]:
    text = export_recipe(load_recipe(name, changes), "trl")
    return yaml.safe_load(text), text


def verl(name: str, *changes: str) -> tuple[list[str], str]:
    text = export_recipe(load_recipe(name, changes), "verl")
    words = shlex.split(text.replace("\\\n", ""), comments=True)
    start = words.index("verl.trainer.main_ppo") + 1
    return words[start:], text


def test_what_trl_has_is_carried_over() -> None:
    found, text = trl("countdown", "objective.baseline=loo1", "training.updates_per_batch=2")
    recipe = load_recipe("countdown")
    rows = found["per_device_train_batch_size"] * found["gradient_accumulation_steps"]
    assert rows == recipe.training.prompts_per_step * recipe.sampling.samples
    assert found["objective_options"]["baseline"] == "loo1"
    assert found["num_iterations"] == 2
    assert found["beta"] == recipe.kl.start
    assert found["beta_end"] == recipe.kl.end
    assert found["max_grad_norm"] * found["max_completion_length"] == pytest.approx(recipe.training.max_grad_norm)
    assert "# kl.share = 0.25: there the KL is estimated on all samples." in text


def test_what_they_have_no_word_for_is_said() -> None:
    changes = ("training.refill={}", "training.importance=token_clip", "verifier.name=majority")
    for target in ("trl", "verl"):
        text = export_recipe(load_recipe("countdown", changes), target)
        notes = [line for line in text.splitlines() if line.startswith("#")]
        for phrase in ("training.refill: not carried over", "training.importance = token_clip", "verifier majority"):
            assert any(phrase in note for note in notes), phrase
    assert "verl's reference stays the first model" in text


@pytest.mark.parametrize("target", ["trl", "verl"])
def test_objectives_that_run_here_alone_are_refused(target: str) -> None:
    with pytest.raises(BontuneError, match="which only `bontune train` has"):
        export_recipe(load_recipe("countdown", ["objective.name=bond"]), target)
    with pytest.raises(BontuneError, match="n = 99 is more than"):
        export_recipe(load_recipe("countdown", ["objective.n=99"]), target)
    with pytest.raises(BontuneError, match="neither TRL's nor verl's settings choose layers"):
        export_recipe(load_recipe("countdown", ["training.lora.layers=1"]), target)


def test_the_command(tmp_path: Path) -> None:
    written, printed, refused = run_many(
        tmp_path,
        [
            ["export", "countdown", "objective.n=8", "--to", "verl", "--out", "train.sh"],
            ["export", "countdown"],
            ["export", "countdown", "--to", "tlr"],
        ],
    )
    assert written.returncode == 0, written.stderr
    assert "+algorithm.bon_n=8" in (tmp_path / "train.sh").read_text()
    assert printed.stdout.startswith("# accelerate launch")
    assert refused.returncode == 2
    assert "error: --to must be trl or verl, got 'tlr'." in refused.stderr


@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed; make test-trl")
@pytest.mark.parametrize("changes", [[], LORA], ids=["", "lora"])
@pytest.mark.parametrize("name", RECIPES)
def test_trls_parser_reads_it(name: str, changes: list[str], tmp_path: Path) -> None:
    from trl import ModelConfig, TrlParser

    from bontune.integrations.trl import BoNGRPOConfig
    from bontune.integrations.trl.script import BoNScriptArguments

    found, text = trl(name, *CHANGES, *changes)
    (tmp_path / "bon.yaml").write_text(text)
    parser = TrlParser((BoNScriptArguments, BoNGRPOConfig, ModelConfig))
    cpu = ["--use_cpu", "--bf16", "false"]
    script, config, model = parser.parse_args_and_config(["--config", str(tmp_path / "bon.yaml"), *cpu])
    assert script.task == found["task"]
    assert config.group_objective().section.n == load_recipe(name, [*CHANGES, *changes]).objective.n
    assert config.max_steps == found["max_steps"]
    assert model.use_peft == ("lora" in "".join(changes) or "lora" in name)


@pytest.mark.skipif(find_spec("verl") is None, reason="verl is not installed; make test-verl")
@pytest.mark.parametrize("changes", [[], LORA], ids=["", "lora"])
@pytest.mark.parametrize("name", RECIPES)
def test_verls_parser_reads_it(name: str, changes: list[str], tmp_path: Path) -> None:
    import verl as package
    from hydra import compose, initialize_config_dir
    from verl.utils.config import omega_conf_to_dataclass
    from verl.utils.import_utils import load_extern_object

    if name == "own":  # the data are the user's
        (tmp_path / "mine.jsonl").write_text(
            "".join(f'{{"prompt": "{i}+1=", "answer": "{i + 1}"}}\n' for i in range(20))
        )
        changes = [*changes, f"task.data={tmp_path / 'mine.jsonl'}"]
    words, _ = verl(name, *CHANGES, *changes)
    folder = Path(package.__file__).parent / "trainer" / "config"
    with initialize_config_dir(config_dir=str(folder), version_base=None):
        config = compose("ppo_trainer", overrides=words)
    recipe = load_recipe(name, [*CHANGES, *changes])
    assert config.actor_rollout_ref.rollout.n == recipe.sampling.samples
    assert config.algorithm.adv_estimator == "bontune_bon_rl"
    assert config.trainer.total_training_steps == recipe.training.steps
    config.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu = 1
    assert omega_conf_to_dataclass(config.actor_rollout_ref.actor).loss_agg_mode == "seq-mean-token-sum-norm"
    assert load_extern_object(config.reward.custom_reward_function.path, "compute_score").__name__ == "compute_score"


ODD = [
    "runs/lr=1e-6",
    "it's",
    "a, b",
    "[x]",
    "~/x",
    "ä",
    "a b",
    "#1",
    "$HOME",
    "${x}",
    "\\\\${x}",
    "{a:b}",
    "x\\",
    "\\'",
    "a\\b",
]
ODD += [
    "true",
    "Null",
    "1e-6",
    "12",
    ".5",
    "-inf",
    "",
    " x ",
    'a"b',
    "C:\\x\\",
    "${oc.env:HOME}\\",
    "x\\\n",
    "!!@^&*()",
    "`x`",
    "🙂",
]


@pytest.mark.parametrize("text", ODD)
def test_any_text_comes_out_of_hydra_as_it_went_in(text: str) -> None:
    quoted = hydra(text)
    assert quoted.startswith("'")
    assert quoted.endswith("'")
    override = pytest.importorskip("hydra.core.override_parser.overrides_parser", reason="Hydra is not installed")
    omegaconf = pytest.importorskip("omegaconf")
    parser = override.OverridesParser.create()
    for form, key in (("a={}", "v"), ("+a=[1,{}]", "v[1]"), ("+a={{k:{}}}", "v.k")):
        value = parser.parse_override(form.format(quoted)).value()
        found = omegaconf.OmegaConf.select(omegaconf.OmegaConf.create({"v": value}), key)
        assert (type(found), found) == (str, text)


@pytest.mark.parametrize(
    "text", ["runs/a", "./a-b_c.d", "../x", "/tmp/x", "Qwen/Qwen3-1.7B", "pkg://a.b", "bontune_bon_rl"]
)
def test_usual_names_are_not_quoted(text: str) -> None:
    assert hydra(text) == text


def test_names_with_odd_characters_pass_the_shell_and_yaml() -> None:
    run = "runs/it's [x], a=1 #2 $HOME ä"
    words, _ = verl("countdown", f"run={run}")
    (word,) = [word for word in words if word.startswith("trainer.default_local_dir=")]
    assert word == "trainer.default_local_dir='" + run.replace("'", "\\'") + "'"
    assert trl("countdown", f"run={run}")[0]["output_dir"] == run


def test_shipped_models_have_their_names_and_no_path_of_this_machine(tmp_path: Path) -> None:
    changes = ("verifier={name: reward_model, path: countdown-verifier}",)
    found, text = trl("countdown", *changes)
    assert (found["model_name_or_path"], found["verifier"]) == ("countdown-tiny", "countdown-verifier")
    words, script = verl("countdown", *changes)
    for written in (text, script):
        assert resolve("countdown-tiny") not in written
        assert resolve("countdown-verifier") not in written
    assert "actor_rollout_ref.model.path='$MODEL'" in words
    line = next(line for line in script.splitlines() if line.startswith("MODEL="))
    command = line.replace("$(python ", f"$({sys.executable} ") + '; printf %s "$MODEL"'
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True).stdout == resolve("countdown-tiny")
    assert trl("countdown", "verifier={name: reward_model, path: countdown-verifier, end: eos}")[0][
        "verifier"
    ].endswith("#eos")


def test_data_and_grader_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.jsonl").write_text('{"prompt": "a", "answer": "x"}\n{"prompt": "b", "answer": "y"}\n')
    (tmp_path / "here" / "mine.py").write_text("def grade(row, text):\n    return text == row['answer']\n")
    monkeypatch.chdir(tmp_path / "here")
    for data in ("a.jsonl", {"train": "a.jsonl"}):
        write_data("jsonl", tmp_path / "data", {"data": data, "grader": "mine.py:grade"})
        row = pq.read_table(tmp_path / "data" / "train.parquet").to_pylist()[0]
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir(tmp_path)
            right = "x" if row["prompt"][0]["content"] == "a" else "y"
            assert compute_score(row["data_source"], right, "", row["extra_info"]) == {"score": 1.0, "graded": 1.0}
            assert compute_score(row["data_source"], "z", "", row["extra_info"]) == {"score": 0.0, "graded": 1.0}


def test_verls_data_hold_every_problem_and_its_reward_is_the_tasks(tmp_path: Path) -> None:
    task = load_task("countdown")
    written = write_data("countdown", tmp_path / "data", {})
    assert [path.stem for path in written] == list(task.splits)
    rows = pq.read_table(tmp_path / "data" / "test.parquet").to_pylist()
    problems = task.problems("test")
    assert [row["extra_info"]["problem_id"] for row in rows] == [problem.id for problem in problems]
    assert rows[0]["prompt"] == [{"role": "user", "content": problems[0].prompt}]
    texts = [task.demonstration(problems[0]), "1+1", ""]
    grades = task.grade([problems[0]], [texts])[0]
    for text, grade in zip(texts, grades, strict=True):
        found = compute_score(rows[0]["data_source"], text, "", rows[0]["extra_info"])
        assert found == {"score": grade.reward, "graded": 1.0}
    assert [grade.reward for grade in grades] == [1.0, 0.0, 0.0]
    with pytest.raises(BontuneError, match="write the data with"):
        compute_score("bontune/countdown", "", "", {})
