"""``bontune verify`` as a user meets it, in process: streams, exit statuses, what is on disk afterwards.

1. fit → score → eval works end to end, for Parquet and JSONL, and the folder is a plain Hugging Face one;
2. a scored pool is the same pool: rows, order, other columns, only the scores differ;
3. a signal keeps the best so far and ends with 143; killed (-9) or stopped while it scores, it goes on from what is
   scored and asks for nothing twice;
4. whatever can be wrong with the input ends in one sentence, status 2, and leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import bontune.cli
import processes
import tiny
from bontune.base.problems import Problem
from bontune.metrics import within_prompt_auc
from bontune.pools.read import read_pool
from bontune.verifiers.reward_model import load_reward_model
from training.run_driver import ENVIRONMENT
from verifier_data import separable_rows

FIT = ("--lr", "5e-3", "--epochs", "8", "--batch-size", "32", "--held-out", "0.2")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def base(in_a_folder: Path) -> str:
    """A causal language model to start from."""
    tiny.model("llama", sharp=1.0).save_pretrained("base")
    tiny.tokenizer().save_pretrained("base")
    return "base"


def write(path: str, rows: list[dict[str, Any]]) -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bontune", *arguments])
    try:
        bontune.cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_fit_score_eval(base: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = separable_rows(60)
    write("a.jsonl", rows[: len(rows) // 2])
    write("b.jsonl", rows[len(rows) // 2 :])
    assert run("verify", "fit", "a.jsonl", "b.jsonl", "-m", base, "-o", "v", *FIT, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "60 problems, 480 completions" in said
    assert "12 held-out problems × 8 samples" in said
    assert "gap@k" in said
    assert "reliability" in said
    assert {"config.json", "model.safetensors", "tokenizer.json", "verifier.json"} <= set(os.listdir("v"))
    facts = json.loads(Path("v/verifier.json").read_text())
    assert (facts["base"], facts["pools"]) == (base, ["a.jsonl", "b.jsonl"])
    assert facts["counts"]["held_out"] == facts["held_out"]["problems"] == 12
    assert facts["held_out"]["metrics"]["auc"]["value"] > 0.95
    assert facts["calibration"]["slope"] > 0

    fresh = separable_rows(12, seed=7)
    write("new.jsonl", fresh)
    assert run("verify", "score", "new.jsonl", "--verifier", "v", "-o", "s.parquet", monkeypatch=monkeypatch) == 0
    assert "within-prompt AUC" in capsys.readouterr().out
    pool = read_pool(Path("s.parquet"))
    verifier = load_reward_model("v", device="cpu")
    problems = [Problem(id=row[0], prompt=row[0], reference="") for row in pool.columns["prompt"]]
    np.testing.assert_allclose(verifier.score(problems, pool.columns["completion"]), pool.scores(), atol=1e-5)
    assert np.nanmean(within_prompt_auc(np.array(pool.rewards()), pool.scores())) > 0.95
    assert pool.settings["verifier"] == "v"

    assert run("eval", "s.parquet", "-o", "m.json", monkeypatch=monkeypatch) == 0
    metrics = json.loads(Path("m.json").read_text())["pools"]["s.parquet"]["metrics"]
    assert {"pass@8", "best@8", "gap@8", "drop@8", "auc"} <= set(metrics)
    assert metrics["gap@8"]["value"] == pytest.approx(metrics["pass@8"]["value"] - metrics["best@8"]["value"], abs=1e-9)


def test_a_scored_pool_is_the_same_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interleaved problems, extra columns, ungraded rows; there and back through Parquet."""
    rows = separable_rows(3, num_samples=4)
    rows = [{**row, "mine": i, "answer": row["completion"][:1]} for i, row in enumerate(rows)]
    rows = rows[::2] + rows[1::2]
    rows[0]["reward"] = None
    write("a.jsonl", rows)
    score = ("verify", "score")
    assert run(*score, "a.jsonl", "--verifier", "majority", "-o", "b.parquet", monkeypatch=monkeypatch) == 0
    assert run(*score, "b.parquet", "--verifier", "oracle", "-o", "c.parquet", monkeypatch=monkeypatch) == 0
    assert run(*score, "c.parquet", "--verifier", "oracle", "-o", "d.jsonl", monkeypatch=monkeypatch) == 0
    last = [json.loads(line) for line in Path("d.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k != "score"} for row in last] == rows
    assert [row["score"] for row in last] == [row["reward"] for row in rows]
    votes = pq.read_table("b.parquet").to_pylist()
    for row, original in zip(votes, rows, strict=True):
        same = [r for r in rows if r["problem_id"] == row["problem_id"] and r["answer"] == row["answer"]]
        graded = [r for r in same if r["reward"] is not None]
        assert row["score"] == (-1 if original["reward"] is None else len(graded))


def test_a_signal_keeps_the_best_so_far(base: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import bontune.verifiers.fit as fit

    evaluate, calls = fit._held_out_loss, []

    def then_a_signal(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 3:  # the one before training, after the first epoch, after the second
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    monkeypatch.setattr(fit, "_held_out_loss", then_a_signal)
    write("a.jsonl", separable_rows(20))
    command = ("verify", "fit", "a.jsonl", "-m", base, "-o", "v", *FIT, "--epochs", "50")
    assert run(*command, monkeypatch=monkeypatch) == 143
    assert "stopped by a signal; the best so far" in capsys.readouterr().out
    assert [row["epoch"] for row in json.loads(Path("v/verifier.json").read_text())["history"]] == [0.0, 1.0, 2.0]
    load_reward_model("v")


STOPPED_ONCE = """
import os, signal
from pathlib import Path

def score(problem, completion):
    with open("asked.txt", "a") as asked:
        asked.write(f"{problem.id} {completion}\\n")
    stop = Path("stop.txt")
    if stop.exists() and problem.id == "p2":
        number = int(stop.read_text())
        stop.unlink()
        os.kill(os.getpid(), number)
    return len(completion)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_scoring_goes_on_where_it_was_stopped(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"problem_id": f"p{i}", "prompt": "q", "completion": f"{i}-{m:03d}" + "x" * (m % 3), "reward": m % 2}
        for i in range(5)
        for m in range(600)
    ]
    write("a.jsonl", rows)
    Path("v.py").write_text(STOPPED_ONCE)
    command = ("verify", "score", "a.jsonl", "--verifier", "v.py:score", "-o", "new/s.jsonl")
    Path("stop.txt").write_text(str(int(number)))
    stopped = processes.run(command, env=ENVIRONMENT)
    assert stopped.returncode == (-9 if number == signal.SIGKILL else 143), stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert os.listdir("new") == ["s.jsonl.partial.jsonl"] or number == signal.SIGKILL
    asked = Path("asked.txt").read_text().splitlines()
    # A problem at a time: that in hand is finished when a signal comes, and lost when the process is killed.
    done = 1200 + (600 if number == signal.SIGTERM else 0)
    assert len(asked) == (1800 if number == signal.SIGTERM else 1201)

    Path("v.py").write_text(STOPPED_ONCE + "# other code")
    assert run(*command, monkeypatch=monkeypatch) == 2, "it would mix scores of two verifiers"
    Path("v.py").write_text(STOPPED_ONCE)
    assert run(*command, monkeypatch=monkeypatch) == 0
    again = Path("asked.txt").read_text().splitlines()[len(asked) :]
    assert again == [f"{row['problem_id']} {row['completion']}" for row in rows[done:]]
    assert os.listdir("new") == ["s.jsonl"]
    scored = [json.loads(line) for line in Path("new/s.jsonl").read_text().splitlines()]
    assert scored == [row | {"score": len(str(row["completion"]))} for row in rows]


def without(column: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != column} for row in separable_rows(4)]


@pytest.mark.parametrize(
    ("rows", "options", "phrase"),
    [
        (without("prompt"), {}, "no column 'prompt'"),
        (without("completion"), {}, "no column 'completion'"),
        (without("reward"), {}, "no column 'reward'"),
        ([row | {"reward": 0.0} for row in separable_rows(4)], {}, "0 of 4 problems have both right and wrong"),
        ([row | {"reward": 3 * row["reward"]} for row in separable_rows(4)], {}, "rewards from 0 to 1"),
        ([row | {"messages": "[1]"} for row in separable_rows(4)], {}, "messages must be a list of turns"),
        (separable_rows(4), {"-m": "nowhere/at/all"}, "no model folder 'nowhere/at/all'"),
        (separable_rows(4), {"-m": "countdown-tinny"}, "did you mean 'countdown-tiny'"),
        (separable_rows(4), {"-o": "a.jsonl/v"}, "cannot be made"),
        (separable_rows(4), {"-o": "taken"}, "already there"),
        (separable_rows(4), {"--held-out": "0"}, "between 0 and 1"),
        (separable_rows(4), {"--epochs": "0"}, "epochs must be at least 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fit_refuses(
    rows: Any, options: dict[str, str], phrase: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write("a.jsonl", rows)
    Path("taken").mkdir()
    Path("taken/file").touch()
    given = [x for pair in ({"-m": "countdown-tiny", "-o": "v"} | options).items() for x in pair]
    assert run("verify", "fit", "a.jsonl", *given, monkeypatch=monkeypatch) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert phrase in lines[-1]
    assert sorted(os.listdir()) == ["a.jsonl", "taken"]


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"--verifier": "countdown-tiny"}, "is not a verifier"),
        ({"--verifier": "majorty"}, "did you mean 'majority'"),
        ({"-o": "s.csv"}, "ends in .parquet or .jsonl"),
        ({"-o": "a.jsonl"}, "already there"),
        ({"-o": "a.jsonl/s.jsonl"}, "cannot be made"),
    ],
)
def test_score_refuses(options: dict[str, str], phrase: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    write("a.jsonl", separable_rows(2))
    given = [x for pair in ({"--verifier": "oracle", "-o": "s.parquet"} | options).items() for x in pair]
    assert run("verify", "score", "a.jsonl", *given, monkeypatch=monkeypatch) == 2
    assert phrase in capsys.readouterr().err.strip().splitlines()[-1]
    assert os.listdir() == ["a.jsonl"]
    assert run("verify", "score", "missing.jsonl", *given, monkeypatch=monkeypatch) == 2
