"""The commands as a user meets them: real processes, exit statuses, what is on which stream.

1. `bontune --help` loads no framework;
2. sample → eval → compare works end to end, and the numbers written are the ones that the pool gives;
3. whatever a user can get wrong ends in one sentence on stderr that starts with "error:", status 2 (1 for a run that
   had to stop), and no traceback.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml

from bontune.base.errors import BontuneError
from bontune.cli import app
from bontune.config import Recipe, load_recipe
from bontune.objectives.table import TABLE
from bontune.pools.read import read_pool
from commands import Done, run_in_one, run_many


def run(folder: Path, *arguments: str) -> Done:
    (done,) = run_many(folder, [[*arguments]], columns=120)
    return done


def assert_all_refused(folder: Path, command: list[str], cases: list[tuple[list[str], list[str]]]) -> None:
    for done, (_, phrases) in zip(run_many(folder, [command + case for case, _ in cases]), cases, strict=True):
        assert_refused(done, *phrases)


def ok(done: Done) -> Done:
    assert done.returncode == 0, done.stderr
    return done


def assert_refused(done: Done, *phrases: str, status: int = 2) -> None:
    """One sentence, last on stderr; nothing else there unless the run had begun."""
    assert done.returncode == status, done.stderr
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert errors[0] == lines[-1]
    assert "Traceback" not in done.stderr
    for phrase in phrases:
        assert phrase in errors[0]
    if status == 2:
        assert len(lines) == 1, done.stderr


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Ten sums for the task jsonl, and graders and verifiers of the user's own."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(10)))
    (tmp_path / "mine.py").write_text(
        "def fails(row, completion):\n"
        "    raise RuntimeError('boom')\n"
        "def fails_on_even(row, completion):\n"
        "    if int(row['answer']) % 2 == 0:\n"
        "        raise ValueError('even')\n"
        "    return True\n"
        "def length(problem, completion):\n"
        "    return float(len(completion))\n"
    )
    return path


# ---- what needs no model ----


SLOW = {"torch", "transformers", "accelerate", "scipy", "matplotlib", "pyarrow"}
"""Libraries that take a second or more to load."""
AT_ONCE = [
    ("--help", ["Usage", " quickstart ", " train ", " sample ", " eval ", " recipes ", " tasks "]),
    ("--version", ["bontune "]),
    ("recipes", ["countdown-bon-rl-v"]),
    ("recipes keys training.lora", ["training.lora.r"]),
    ("recipes show countdown objective.n=8", ["n: 8"]),
    ("tasks", ["humaneval"]),
    ("objectives", ["bon_rl"]),
    ("trian countdown", ["'trian'", "'train'"]),
    ("train countdwn", ["'countdwn'", "'countdown'"]),
    ("train countdown --plan model=countdwn-tiny", ["'countdwn-tiny'", "'countdown-tiny'"]),
    ("train countdown trainig.steps=5", ["'trainig'", "'training'"]),
    ("train countdown model=countdwn-tiny", ["'countdwn-tiny'", "'countdown-tiny'"]),
    ("train countdown task.name=countdwn", ["'countdwn'", "'countdown'"]),
    ("train countdown task.sed=1", ["'sed'", "'seed'"]),
    ("train countdown objective.name=bonrl", ["'bonrl'", "'bon_rl'"]),
    ("train countdown objective.baselin=loo", ["'objective.baselin'", "'objective.baseline'"]),
    ("train countdown verifier.name=orcale", ["'orcale'", "'oracle'"]),
    ("train countdown task.name=jsonl task.data=absent.jsonl", ["absent.jsonl"]),
    ("sample countdwn-tiny countdown", ["'countdwn-tiny'", "'countdown-tiny'"]),
    ("sample countdown-tiny countdwn", ["'countdwn'", "'countdown'"]),
    ("sample countdown-tiny countdown sed=1", ["'sed'", "'seed'"]),
    ("sample countdown-tiny countdown --verifier orcale", ["'orcale'", "'oracle'"]),
    ("sample countdown-tiny jsonl data=absent.jsonl", ["absent.jsonl"]),
    ("sweep countdown-tiny countdwn", ["'countdwn'", "'countdown'"]),
    ("answer countdwn-tiny 1+1= --verifier countdown-verifier", ["'countdwn-tiny'", "'countdown-tiny'"]),
    ("export countdwn", ["'countdwn'", "'countdown'"]),
    ("reproduce countdwn", ["'countdwn'", "'countdown'"]),
    ("recipes show countdwn", ["'countdwn'", "'countdown'"]),
    ("tasks show countdwn", ["'countdwn'", "'countdown'"]),
    ("objectives show bonrl", ["'bonrl'", "'bon_rl'"]),
]


def test_names_are_looked_up_before_anything_slow_is_loaded(tmp_path: Path) -> None:
    """One process for all of them: a library that any of them loads is there at the end."""
    commands: list[list[str] | str] = [line.split() for line, _ in AT_ONCE]
    code = f"import sys; print(sorted({SLOW!r} & set(sys.modules)))"
    *results, loaded = run_in_one(tmp_path, [*commands, code], is_fresh=True)
    for (line, phrases), done in zip(AT_ONCE, results, strict=True):
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        assert all(phrase in said for phrase in phrases), f"{line}: {said}"
    assert loaded.stdout.strip() == "[]"


def test_recipes(tmp_path: Path) -> None:
    listed = ok(run(tmp_path, "recipes")).stdout.splitlines()
    assert listed[0].split(maxsplit=1)[0] == "countdown"
    assert listed[0].split(maxsplit=1)[1].startswith("Train the embedded model")
    shown = ok(run(tmp_path, "recipes", "show", "countdown", "objective.n=8", "run=runs/b"))
    assert Recipe.from_dict(yaml.safe_load(shown.stdout)) == load_recipe("countdown", ["objective.n=8", "run=runs/b"])


def test_tasks(tmp_path: Path, rows: Path) -> None:
    listed = ok(run(tmp_path, "tasks")).stdout
    named = {line.split()[0] for line in listed.splitlines()}
    assert named >= {"countdown", "gsm8k", "humaneval", "jsonl", "math", "mbpp"}
    shown = ok(run(tmp_path, "tasks", "show", "jsonl", f"data={rows}", "template=Q: {prompt}", "--split", "all")).stdout
    assert "jsonl, split all: 10 problems (splits: train 9, test 1, all 10)\n" in shown
    assert "Q: 0+1=\n── reference\n1\n" in shown
    assert "500 problems" in ok(run(tmp_path, "tasks", "show", "countdown")).stdout


def test_an_unknown_key_of_a_recipe(tmp_path: Path) -> None:
    assert_refused(run(tmp_path, "train", "countdown", "training.stepz=5"), "'training.stepz'", "'training.steps'")


def test_refused_without_a_model(tmp_path: Path, rows: Path) -> None:
    before = sorted(tmp_path.iterdir())
    cases: list[tuple[list[str], list[str]]] = [
        (["train", "countdwn"], ["No recipe 'countdwn'", "'countdown'"]),
        (["train", "absent.yaml"], ["No recipe 'absent.yaml'"]),
        (["train", "countdown", "training.steps"], ["not an override: write key=value"]),
        (["train", "countdown", "training.steps=many"], ["training.steps: must be a whole number, got 'many'"]),
        (["recipes", "show", "countdown", "eval.k=[]"], ["eval.k: must not be empty"]),
        (["quickstart", "--out", "rows.jsonl/folder"], ["rows.jsonl/folder cannot be made"]),
        (["tasks", "show", "countdwn"], ["'countdwn'", "'countdown'"]),
        (["tasks", "show", "countdown", "--split", "tset"], ["'tset'", "'test'"]),
        (["tasks", "show", "countdown", "sed=1"], ["'sed'", "'seed'"]),
        (["tasks", "show", "jsonl", "hold_out=0.2"], ["needs the option 'data'"]),
        (["tasks", "show", "jsonl", "data=absent.jsonl"], ["no file 'absent.jsonl'"]),
        (["tasks", "show", "jsonl", "data=5"], ["data must be text, or must be a section of keys and values, not 5"]),
        (["tasks", "show", "jsonl", "data=rows.jsonl", "template=5"], ["The template '5' names no column"]),
        (["tasks", "show", "jsonl", "data=rows.jsonl", "hold_out=few"], ["hold_out must be a number", "few"]),
        (["tasks", "show", "jsonl", "data=rows.jsonl", "grader=exat"], ["'exat'", "'exact'"]),
    ]
    assert_all_refused(tmp_path, [], cases)
    assert sorted(tmp_path.iterdir()) == before


# ---- pools, end to end ----


def test_sample_eval_compare(tmp_path: Path) -> None:
    for name, temperature in (("warm.parquet", "1.0"), ("cool.jsonl", "0.5")):
        sampled = ok(
            run(
                tmp_path,
                "sample",
                "countdown-tiny",
                "countdown",
                "-o",
                name,
                "-n",
                "8",
                "--limit",
                "12",
                "-t",
                temperature,
            )
        )
        assert sampled.stdout == f"{name}: 12 problems × 8 samples\n"
    warm, cool = read_pool(tmp_path / "warm.parquet"), read_pool(tmp_path / "cool.jsonl")
    assert warm.problem_ids == cool.problem_ids
    assert len(warm.problem_ids) == 12
    assert {len(row) for row in warm.columns["completion"]} == {8}
    assert warm.settings["temperature"] == 1.0
    assert {x for row in warm.columns["verdict"] for x in row} == {"passed", "failed"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cool.jsonl", "warm.parquet"]

    done = ok(run(tmp_path, "eval", "warm.parquet", "cool.jsonl", "--k", "1,4,8", "--out", "numbers.json"))
    assert done.stderr == ""
    assert "warm.parquet: 12 problems" in done.stdout
    assert "cool.jsonl − warm.parquet, paired" in done.stdout
    assert "pass@k, %" in done.stdout
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert set(numbers["pools"]) == {"warm.parquet", "cool.jsonl"}
    for name, pool in (("warm.parquet", warm), ("cool.jsonl", cool)):
        metrics = numbers["pools"][name]["metrics"]
        rewards = pool.rewards()
        assert metrics["pass@1"]["value"] == pytest.approx(sum(map(sum, rewards)) / 96)
        assert metrics["pass@8"]["value"] == pytest.approx(sum(map(max, rewards)) / 12)
        assert metrics["best@8"] == metrics["pass@8"], "the oracle picks a right one if there is one"
        assert {"majority@4", "distinct", "entropy"} <= set(metrics)
        assert all(m["low"] <= m["value"] <= m["high"] for m in metrics.values())
    by_metric = {row["metric"]: row for row in numbers["differences"]}
    values = {name: pool["metrics"]["pass@4"]["value"] for name, pool in numbers["pools"].items()}
    assert by_metric["pass@4"]["diff"] == pytest.approx(values["cool.jsonl"] - values["warm.parquet"])

    ok(run(tmp_path, "eval", "warm.parquet", "cool.jsonl", "--k", "1,4,8", "--out", "new/numbers.csv"))
    with open(tmp_path / "new" / "numbers.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    written = {(row["pool"], row["minus"], row["metric"]): float(row["value"]) for row in table}
    assert written["warm.parquet", "", "pass@4"] == values["warm.parquet"]
    assert written["cool.jsonl", "warm.parquet", "pass@4"] == by_metric["pass@4"]["diff"]

    again = run(tmp_path, "sample", "countdown-tiny", "countdown", "-o", "warm.parquet")
    assert_refused(again, "warm.parquet is already there: delete it or give another name")


def test_eval_of_other_pools(tmp_path: Path) -> None:
    """Two columns are enough; k defaults to powers of two up to M."""
    foreign = tmp_path / "pool[1].jsonl"
    rewards = {"a": [1, 0, 0, 1], "b": [0, 0, 0, 0]}
    foreign.write_text(
        "".join(json.dumps({"problem_id": p, "reward": r}) + "\n" for p, row in rewards.items() for r in row)
    )
    done = ok(run(tmp_path, "eval", foreign.name, "--out", "numbers.json"))
    assert "pool[1].jsonl: 2 problems" in done.stdout, "brackets are no markup"
    metrics = json.loads((tmp_path / "numbers.json").read_text())["pools"][foreign.name]["metrics"]
    # pass@2 of the first: 1 − C(2,2)/C(4,2) = 5/6, all@2: 1/6
    assert {name: m["value"] for name, m in metrics.items()} == pytest.approx(
        {"pass@1": 1 / 4, "pass@2": 5 / 12, "pass@4": 1 / 2, "all@1": 1 / 4, "all@2": 1 / 12, "all@4": 0.0}
    )


def test_eval_of_a_pool_with_more_samples_of_one_problem(tmp_path: Path) -> None:
    """Each problem counts alike, with its own samples; k ends where the fewest end."""
    rewards = {"a": [1, 0, 0, 1], "b": [0, 1]}
    rows = [{"problem_id": p, "reward": r, "score": i / 8} for p, row in rewards.items() for i, r in enumerate(row)]
    (tmp_path / "uneven.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = ok(run(tmp_path, "eval", "uneven.jsonl", "--out", "numbers.json"))
    assert "warning: uneven.jsonl: problems have 2 to 4 samples; k ends at 2" in done.stderr
    metrics = json.loads((tmp_path / "numbers.json").read_text())["pools"]["uneven.jsonl"]["metrics"]
    found = {name: m["value"] for name, m in metrics.items() if name.startswith(("pass", "best"))}
    # best@2 of a: the pick is the later of two samples, of which 3 of 6 pairs end with the last and none with the first
    assert found == pytest.approx(
        {"pass@1": 1 / 2, "pass@2": (5 / 6 + 1) / 2, "best@1": 1 / 2, "best@2": (1 / 2 + 1) / 2}
    )
    assert_refused(run(tmp_path, "report", "uneven.jsonl"), "2 samples of problem b and 4 of a", "bontune eval")


def test_eval_refuses_in_one_sentence(tmp_path: Path) -> None:
    def pool(name: str, rows: list[dict[str, Any]]) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    a, b = {"problem_id": "a", "reward": 1}, {"problem_id": "b", "reward": 0}
    good, other, lists = (
        pool("good.jsonl", [a, a]),
        pool("other.jsonl", [b, b]),
        pool("lists.jsonl", [a | {"answer": {"x": 1}}] * 2),
    )
    (tmp_path / "file").touch()
    cases: list[tuple[list[str], list[str]]] = [
        (["absent.parquet"], ["no pool at absent.parquet"]),
        ([good, "--k", "4"], ["k = 4 is more than the 2 samples"]),
        ([good, "--k", "one"], ["--k takes numbers like 1,4,16, got 'one'"]),
        ([good, "--k", "0"], ["--k takes numbers from 1 up"]),
        ([good, "--out", "numbers.txt"], [".json or .csv", "numbers.txt"]),
        ([good, "--out", "file/numbers.json"], ["Cannot write", "file/numbers.json"]),
        ([good, other], ["different problems"]),
        ([lists], ["lists.jsonl cannot be evaluated"]),
    ]
    assert_all_refused(tmp_path, ["eval"], cases)


# ---- a grader that raises ----


def test_a_grader_that_always_raises_is_an_error_and_keeps_what_was_drawn(tmp_path: Path, rows: Path) -> None:
    options = [f"data={rows}", "grader=mine.py:fails"]
    length = ["--split", "all", "-n", "2", "--max-new-tokens", "24"]
    done = run(tmp_path, "sample", "countdown-tiny", "jsonl", *options, *length, "-o", "p.jsonl")
    assert_refused(done, "Not one of 20 completions could be graded (RuntimeError: boom (mine.py, line 2))", status=1)
    pool = read_pool(tmp_path / "p.jsonl")
    assert pool.columns["reward"] == [[None, None]] * 10
    assert {x for row in pool.columns["verdict"] for x in row} == {"grader_error"}
    assert {x for row in pool.columns["reason"] for x in row} == {"RuntimeError: boom (mine.py, line 2)"}
    done = run(tmp_path, "eval", "p.jsonl")
    assert_refused(done, "p.jsonl: not one of 20 completions could be graded (RuntimeError: boom (mine.py, line 2))")
    task = f"task={{name: jsonl, data: {rows}, grader: 'mine.py:fails'}}"
    done = run(tmp_path, "train", "countdown", task, "eval.every=0", "run=r", "sampling.samples=17")
    assert_refused(
        done,
        "100% of the completions could not be graded (RuntimeError: boom (mine.py, line 2))",
        "at step 1",
        status=1,
    )
    kept = json.loads((tmp_path / "r" / "stopped_at_step_000001.json").read_text())
    error = {"reward": None, "verdict": "grader_error", "reason": "RuntimeError: boom (mine.py, line 2)"}
    assert all(grade == error for row in kept["grades"] for grade in row)
    assert [len(row) for row in kept["grades"]] == [len(row) for row in kept["texts"]]


def test_a_grader_that_raises_now_and_then_is_counted_said_and_never_correct(tmp_path: Path, rows: Path) -> None:
    task = ["jsonl", f"data={rows}", "grader=mine.py:fails_on_even", "--split", "all"]
    done = ok(run(tmp_path, "sample", "countdown-tiny", *task, "-n", "2", "--max-new-tokens", "24", "-o", "p.jsonl"))
    assert "warning: 10 completions could not be graded, the first: ValueError: even (mine.py, line 5)" in done.stderr
    assert read_pool(tmp_path / "p.jsonl").columns["reward"] == [[1.0, 1.0], [None, None]] * 5
    done = ok(run(tmp_path, "eval", "p.jsonl", "--out", "numbers.json"))
    assert (
        "10 completions could not be graded (ValueError: even (mine.py, line 5)); what cannot be graded counts as wrong"
        in done.stderr
    )
    metrics = json.loads((tmp_path / "numbers.json").read_text())["pools"]["p.jsonl"]["metrics"]
    assert {metrics[name]["value"] for name in ("pass@1", "pass@2", "best@2")} == {0.5}


# ---- what needs a model to go wrong ----


def test_train_refuses_in_one_sentence_and_writes_nothing(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    cases: list[tuple[list[str], list[str]]] = [
        (["objective.n=64"], ["n = 64", "32 samples"]),
        (["objective.n=32"], ["n = 32", "needs n + 1 samples"]),
        (["task={name: jsonl, data: empty.jsonl}"], ["empty.jsonl holds no rows"]),
        (["sampling.max_new_tokens=60"], ["context of 64", "lower max_new_tokens"]),
        (["model=folder"], ["The folder folder contains no model"]),
        (["run=rows.jsonl/run"], ["run folder rows.jsonl/run cannot be made"]),
    ]
    assert_all_refused(tmp_path, ["train", "countdown"], cases)
    assert sorted(tmp_path.iterdir()) == before


def test_sample_refuses_in_one_sentence_and_leaves_nothing(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    cases: list[tuple[list[str], list[str]]] = [
        (["folder", "countdown"], ["The folder folder contains no model"]),
        (["countdown-tiny", "countdown", "--max-new-tokens", "60"], ["context of 64", "lower max_new_tokens"]),
        (["countdown-tiny", "countdown", "-o", "rows.jsonl/pool.parquet"], ["rows.jsonl cannot be made"]),
        (["countdown-tiny", "countdown", "-n", "0"], ["num_samples must be at least 1"]),
        (["countdown-tiny", "countdown", "--verifier", "mine.py:lenght"], ["mine.py:lenght", "'length'"]),
    ]
    assert_all_refused(tmp_path, ["sample"], cases)
    assert sorted(tmp_path.iterdir()) == before


def test_objectives_lists_the_table_and_shows_one(tmp_path: Path) -> None:
    commands = [["objectives"], ["objectives", "show", "bon_rlb"], ["objectives", "show", "bon-rl"]]
    listed, shown, refused = run_many(tmp_path, commands, columns=120)
    assert [line.split()[0] for line in ok(listed).stdout.splitlines()] == list(TABLE)
    assert "Lemma 3" in ok(shown).stdout
    assert "objective.sign=exact  Sign of the weight on wrong samples" in shown.stdout
    assert_refused(refused, "did you mean 'bon_rl'")


def test_a_signal_ends_a_command_that_has_nothing_to_save(tmp_path: Path, rows: Path) -> None:
    """Exit status 128 + the signal's number, without a traceback; a shell takes 130 for Ctrl-C."""
    (tmp_path / "stop.py").write_text(
        "import os, signal\n"
        "def by_ctrl_c(row, completion): os.kill(os.getpid(), signal.SIGINT)\n"
        "def by_sigterm(row, completion): os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    show = ["tasks", "show", "jsonl", f"data={rows}", "--check"]
    answer = ["answer", "countdown-tiny", "1+1=", "-n", "2", "--max-new-tokens", "4"]
    cases = [
        ([*show, "grader=stop.py:by_ctrl_c"], 130),
        ([*show, "grader=stop.py:by_sigterm"], 143),
        ([*answer, "--verifier", "stop.py:by_ctrl_c"], 130),
        ([*answer, "--verifier", "stop.py:by_sigterm"], 143),
    ]
    for done, (_, status) in zip(run_many(tmp_path, [command for command, _ in cases]), cases, strict=True):
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "phrases"),
    [
        ("train countdown --model x", ["no option --model", "here model=x."]),
        ("train countdown --model=x", ["here model=x."]),
        ("train countdown --training.steps 5", ["here training.steps=5."]),
        ("train countdown --learning-rate 1e-5", ["here training.lr=1e-5."]),
        ("train countdown --max_new_tokens=8", ["here sampling.max_new_tokens=8."]),
        ("train countdown --steps", ["here training.steps=VALUE."]),
        ("train countdown --top-k 5", ["no option --top-k", "sampling.top_p"]),
        ("export countdown --model x", ["here model=x."]),
        ("recipes show countdown --seed 1", ["here seed=1."]),
        ("sample countdown-tiny jsonl --data x.jsonl", ["here data=x.jsonl."]),
        ("tasks show countdown --seed 5", ["here seed=5."]),
        ("reproduce countdown --seeds 3", ["here seeds=3."]),
    ],
)
def test_a_setting_that_is_written_as_an_option(
    line: str, phrases: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BontuneError) as caught:
        typer.main.get_command(app)(line.split())
    assert "settings are given as key=value" in str(caught.value) or "top-k" in line
    assert all(phrase in str(caught.value) for phrase in phrases)


def test_an_option_that_is_nearly_there_is_suggested(tmp_path: Path) -> None:
    for done in run_many(
        tmp_path, [["train", "countdown", "--pan"], ["sample", "countdown-tiny", "countdown", "--lmit", "5"]]
    ):
        assert done.returncode == 2
        assert "--plan" in done.stderr or "--limit" in done.stderr
