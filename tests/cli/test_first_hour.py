"""What somebody meets in the first hour: streams without Unicode, silence, keys without words, odd numbers."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
import yaml

import processes
import tiny
from bontune.base.errors import BontuneError
from bontune.base.progress import Bar
from bontune.cli import app
from bontune.cli.catalogue import keys_of, list_keys, show_recipe
from bontune.cli.evaluate import evaluate_pools
from bontune.cli.plan import run_plan
from bontune.config import Recipe, load_recipe
from bontune.engines.contract import SamplingOptions
from bontune.models.saving import save_model
from bontune.pools.draw import PoolRequest, draw_pool
from bontune.tasks import load_task
from commands import Done, run_in_one, run_many


def bontune(folder: Path, *arguments: str) -> Done:
    (done,) = run_many(folder, [[*arguments]])
    return done


@pytest.mark.parametrize(
    "arguments",
    [("tasks", "show", "jsonl", "data=rows.jsonl", "--split", "all"), ("train", "countdown", "--plan"), ("recipes",)],
    ids=" ".join,
)
def test_a_stream_without_unicode_gets_escapes_and_no_traceback(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "\\ud83d caf\\u00e9 \\u2026", "answer": "\\ud83d"}\n')
    environment = os.environ | processes.SETTINGS | {"COLUMNS": "80"}
    environment |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}  # read at the start
    command = [sys.executable, "-m", "bontune", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.isascii()


def test_a_lone_half_of_a_character_goes_through_the_whole_way(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "1\\ud83d2=", "answer": "\\ud83d"}\n{"prompt": "3=", "answer": "3"}\n'
    )
    done = bontune(
        tmp_path,
        "sample",
        "countdown-tiny",
        "jsonl",
        "data=rows.jsonl",
        "--split",
        "all",
        "-n",
        "2",
        "--max-new-tokens",
        "8",
        "-o",
        "p.parquet",
    )
    assert done.returncode == 0, done.stderr
    done = bontune(
        tmp_path, "answer", "countdown-tiny", "1\udc80=", "--verifier", "majority", "-n", "2", "--max-new-tokens", "4"
    )
    assert done.returncode == 0, done.stderr


def test_a_model_whose_numbers_are_broken_stops_sampling_and_answering(tmp_path: Path) -> None:
    model = tiny.model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken")
    tiny.tokenizer().save_pretrained(tmp_path / "broken")
    sample = bontune(tmp_path, "sample", "broken", "countdown", "--limit", "2", "-n", "2", "-o", "p.parquet")
    answer = bontune(tmp_path, "answer", "broken", "1+2=", "--verifier", "majority", "-n", "2", "--max-new-tokens", "4")
    for done in (sample, answer):
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: The model's probabilities are not finite")
        assert done.stdout == ""
    assert not (tmp_path / "p.parquet").exists()


def test_work_that_takes_long_says_how_far_it_is_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Bar("sampling") as bar:
        bar.tick()  # nothing has begun
        bar.show(0, 10, lambda: "3 samples/s")
        now[0] = 6.0
        bar.tick()
        bar.tick()
        now[0] = 20.0
        bar.show(2, 10)
        now[0] = 40.0
        bar.tick()
    assert capsys.readouterr().err.splitlines() == [
        "sampling 0/10  3 samples/s",
        "sampling 2/10  3 samples/s  2:40 left",
    ]


def test_every_key_of_a_recipe_has_words(capsys: pytest.CaptureFixture[str]) -> None:
    keys = {key: meaning for key, _, meaning in keys_of(Recipe)}
    assert all(keys.values())
    list_keys("training.lora")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training.lora = null"
    assert "  Rank of the adapters." in lines
    with pytest.raises(BontuneError, match="begins with 'trainig', did you mean 'training"):
        list_keys("trainig")


def test_an_explained_recipe_is_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    show_recipe("countdown", ["objective.n=8"], explain=True)
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == yaml.safe_load(load_recipe("countdown", ["objective.n=8"]).to_yaml())
    lines = text.splitlines()
    before = lines[: lines.index("  n: 8")]
    last_key = max(i for i, line in enumerate(before) if not line.lstrip().startswith("#"))
    assert before[last_key + 1].startswith("  # N, the Best-of-N budget")
    assert max(map(len, lines)) <= 110


def test_a_plan_looks_at_the_model_before_work_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    padded = tiny.tokenizer()
    padded.add_special_tokens({"pad_token": "[PAD]"})
    padded.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tiny.model().save_pretrained(tmp_path / "model")
    padded.save_pretrained(tmp_path / "model")
    overrides = [f"model={tmp_path}/model", "training.lora={targets: [q_prj]}", f"run={tmp_path}/run"]
    run_plan(load_recipe("countdown", overrides))
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for phrase in (
        "stored in float32, trained in float32, written in float32",
        "'<eos>'",
        "'[PAD]' (84), beyond the model's vocabulary of 84; it is masked",
        "yes, but the task has texts only",
        "computed once for all its samples",
        "problem: training.lora.targets: the model has no module 'q_prj', did you mean 'q_proj'?",
        "GiB are free",
    ):
        assert phrase in said, phrase
    assert not (tmp_path / "run").exists()


def draw(tmp_path: Path, verifier: str, **more: object) -> Path:
    out = tmp_path / f"{verifier}{len(more)}.parquet"
    request = PoolRequest(
        model="countdown-tiny",
        task="countdown",
        sampling=SamplingOptions(num_samples=4, max_new_tokens=12),
        limit=12,
        verifier=verifier,
        **more,  # type: ignore[arg-type]
    )
    draw_pool(request, out)
    return out


def test_eval_says_what_a_pool_is_and_what_its_columns_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    oracle, trained = draw(tmp_path, "oracle"), draw(tmp_path, "countdown-verifier")
    evaluate_pools([oracle], "1,4")
    said = capsys.readouterr().out
    assert "countdown-tiny on countdown, test, T = 1, verifier oracle" in " ".join(said.split())
    assert "best@k" not in said, "with the oracle it is pass@k"
    evaluate_pools([trained], "1,4")
    said = capsys.readouterr().out
    for phrase in (
        "best@k: reward of the sample that the verifier picks",
        "gap@k: pass@k (max@k of graded rewards) − best@k",
        "drop@k: highest",
    ):
        assert phrase in said


def test_pools_of_different_problems_are_refused_before_any_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = draw(tmp_path, "oracle"), draw(tmp_path, "oracle", split="validation")
    with pytest.raises(BontuneError, match="problems"):
        evaluate_pools([one, other], "1,4")
    assert capsys.readouterr().out == ""


def test_differences_of_nothing_are_zeros_without_a_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = draw(tmp_path, "oracle")
    same = tmp_path / "same.parquet"
    same.write_bytes(one.read_bytes())
    evaluate_pools([one, same], "1,4")
    said = capsys.readouterr().out.partition("paired")[2]
    assert "+0.0" not in said
    assert "-0.0" not in said


def test_rewards_below_zero_are_no_percentages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"problem_id": str(i), "sample": j, "reward": -1.0 + 0.5 * (i == j) - (i > 2)}
        for i in range(4)
        for j in range(2)
    ]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate_pools([path], "1,2")
    said = capsys.readouterr().out
    assert "%" not in said
    assert "-1.125 [" in said


def test_a_model_that_is_computed_in_another_dtype_is_said_in_one_line(tmp_path: Path) -> None:
    save_model(tiny.model(), tiny.tokenizer(), tmp_path / "half", dtype=torch.float16)
    done = bontune(tmp_path, "sample", "half", "countdown", "--limit", "2", "-n", "2", "-o", "p.parquet")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "float16" in line]
    assert line.startswith("warning: half is stored in float16, which this CPU has no units for")


def test_the_evaluations_of_a_run_fit_80_columns(tmp_path: Path) -> None:
    short = (
        "training.steps=1",
        "training.prompts_per_step=2",
        "eval.problems=4",
        "eval.samples=32",
        "sampling.samples=17",
    )
    assert bontune(tmp_path, "train", "countdown", "run=run", *short).returncode == 0
    done = bontune(tmp_path, "eval", "run")
    assert done.returncode == 0, done.stderr
    assert "…" not in done.stdout
    for name in ("pass@1", "pass@16", "pass@32", "best@32"):
        assert name in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("reward", ["1.0", "0"])
def test_rewards_that_are_all_equal_are_said_to_teach_nothing(tmp_path: Path, reward: str) -> None:
    (tmp_path / "g.py").write_text(f"def same(row, completion): return {reward}\n")
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "{i}+1="}}\n' for i in range(6)))
    task = "task={name: jsonl, data: rows.jsonl, grader: 'g.py:same'}"
    short = ("training.steps=3", "training.prompts_per_step=2", "sampling.samples=17", "eval.every=0", "run=run")
    done = bontune(tmp_path, "train", "countdown", task, *short)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("nothing can be learned from them") == 1


def test_data_in_the_place_of_a_recipe_and_no_data_where_a_task_needs_it(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    with pytest.raises(BontuneError, match=r"holds rows and no recipe: .* task.data="):
        load_recipe(str(tmp_path / "rows.jsonl"))
    with pytest.raises(BontuneError, match=r"Task jsonl needs the option 'data': give data=…, in a recipe task.data=…"):
        load_task("jsonl")


def written(path: Path, reward: Any, num_problems: int = 12) -> Path:
    rows = [
        {"problem_id": str(p), "sample": i, "reward": reward(p, i), "score": (7 * p + 3 * i) % 5}
        for p in range(num_problems)
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_eval_of_a_binary_pool_beside_a_graded_one_and_of_minus_one_and_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = written(tmp_path / "binary.jsonl", lambda p, i: float((p + i) % 3 == 0))
    graded = written(tmp_path / "graded.jsonl", lambda p, i: ((p * i) % 4) / 2)
    out = tmp_path / "found.json"
    evaluate_pools([binary, graded], "1,4", out=out)
    found = {d["metric"]: d for d in json.loads(out.read_text())["differences"]}
    assert {"max@1", "max@4", "best@1", "best@4"} <= set(found)
    assert "max@k, reward" in capsys.readouterr().out
    signed = written(tmp_path / "signed.jsonl", lambda p, i: None if i == 3 else 1 if (p + i) % 3 == 0 else -1)
    wrong = written(tmp_path / "wrong.jsonl", lambda p, i: None if i == 3 else -1)
    evaluate_pools([signed, wrong], "1,4", out=out)
    pools = {Path(name).stem: of["metrics"] for name, of in json.loads(out.read_text())["pools"].items()}
    assert pools["signed"]["pass@1"]["value"] == pytest.approx(0.25)
    assert pools["signed"]["max@1"]["value"] == pytest.approx(-0.5)
    assert (pools["wrong"]["pass@4"]["value"], pools["wrong"]["max@4"]["value"]) == (0, -1)
    said = capsys.readouterr().out
    assert "counts as solved from a reward of 1 on" in said
    assert "pass@k, %" in said


def test_eval_claims_nothing_of_a_few_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (written(tmp_path / f"{v}.jsonl", lambda p, i, v=v: v, num_problems=5) for v in (0, 1))
    out = tmp_path / "found.json"
    evaluate_pools([one, other], "1,4", out=out)
    assert {(d["low"], d["high"]) for d in json.loads(out.read_text())["differences"]} == {(None, None)}
    assert "5 problems are too few to say more, 10 at least are needed." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("word", "option"),
    [
        (["n=4"], "-n/--samples, here -n 4."),
        (["temperature=0.5"], "-t/--temperature, here -t 0.5."),
        (["--n", "4"], "-n/--samples, here -n 4."),
        (["--num_generations=4"], "-n/--samples, here -n 4."),
        (["max_new_tokens=8"], "--max-new-tokens, here --max-new-tokens 8."),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("command", ["sample", "sweep"])
def test_an_option_that_was_taken_for_a_setting_is_named(command: str, word: list[str], option: str) -> None:
    if command == "sweep" and "temperature" in option:
        option = "--temperatures"
        word = ["temperatures=0.5,1"]
    with pytest.raises(BontuneError) as caught:
        typer.main.get_command(app)([command, "countdown-tiny", "countdown", *word])
    assert option in str(caught.value)


def test_a_setting_of_the_task_is_no_option_of_the_command(tmp_path: Path) -> None:
    """`seed` is both; the task's is taken, and the command goes on to look for its data."""
    done = bontune(tmp_path, "sample", "countdown-tinny", "countdown", "seed=1")
    assert "did you mean 'countdown-tiny'" in done.stderr


def test_a_task_without_its_data_shows_its_options(tmp_path: Path) -> None:
    done = bontune(tmp_path, "tasks", "show", "jsonl")
    assert done.returncode == 0, done.stderr
    assert "data (must be given)" in done.stdout
    assert "hold_out=0.1" in done.stdout
    assert "To see a problem, give data=…." in done.stdout


def test_an_error_breaks_between_words_on_a_terminal_alone(tmp_path: Path) -> None:
    message = bontune(tmp_path, "train", "countdown", "training.learning_rat=5").stderr
    assert message.count("\n") == 1
    assert len(message) > 80
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "60", "HF_HUB_OFFLINE": "1", "TERM": "xterm"}
    command = [sys.executable, "-m", "bontune", "train", "countdown", "training.learning_rat=5"]
    assert subprocess.run(command, cwd=tmp_path, env=environment, stderr=theirs, check=False).returncode == 2
    os.close(theirs)
    lines = os.read(ours, 10_000).decode().splitlines()
    assert max(map(len, lines)) <= 60
    assert " ".join(line.strip() for line in lines) == message.strip()


def test_a_file_that_is_missing_is_said_before_a_library_is_loaded(tmp_path: Path) -> None:
    code = "import sys; print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    commands = [["eval", "absent.parquet"], ["report", "absent.parquet"], ["adaptive", "absent.parquet"], code]
    *results, loaded = run_in_one(tmp_path, commands, is_fresh=True)
    for done in results:
        assert (done.returncode, done.stderr) == (2, "error: There is no pool at absent.parquet.\n")
    assert loaded.stdout == "[]\n"


def test_scores_that_are_all_missing_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "unscored.jsonl", lambda p, i: float((p + i) % 3 == 0))
    rows = [json.loads(line) | {"score": None} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate_pools([path], "1,4")
    assert "the verifier scored no completion" in " ".join(capsys.readouterr().err.split())
