"""The chance level as people see it: ``eval``, ``compare`` and ``report`` of pools that the shipped model drew.

The rows ask for the last number of a Countdown expression, a number from 1 to 13: easy to guess. Countdown itself is
not, and programs have no references to guess.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bontune.grading.answers.numbers import last_number
from bontune.metrics import chance_at_k
from bontune.pools.read import read_pool
from bontune.tasks import Countdown
from commands import Done, run_in_one

KS = ("1", "2", "4", "8")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Done]]:
    """The folder, and what the commands printed."""
    folder = tmp_path_factory.mktemp("chance")
    problems = Countdown().problems("test")[:30]
    rows = [{"prompt": problem.prompt, "answer": str(last_number(problem.reference))} for problem in problems]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    draw = ["-n", "8", "--max-new-tokens", "24"]
    last = ["jsonl", 'data={"test": "rows.jsonl"}', "grader=last_number", *draw]
    drawn = [
        ["sample", "countdown-tiny", "countdown", *draw, "--limit", "20", "-o", "countdown.parquet"],
        ["sample", "countdown-tiny", *last, "-o", "numbers.parquet"],
        ["sample", "countdown-tiny", *last, "--seed", "1", "-o", "again.parquet"],
    ]
    assert [done.returncode for done in run_in_one(folder, drawn)] == [0, 0, 0]
    table = pq.read_table(folder / "countdown.parquet")
    settings = json.loads(table.schema.metadata[b"bontune"]) | {"task": "programs"}
    pq.write_table(table.replace_schema_metadata({"bontune": json.dumps(settings)}), folder / "programs.parquet")
    commands = [
        ["eval", "numbers.parquet", "-o", "numbers.json"],
        ["eval", "numbers.parquet", "-o", "numbers.csv"],
        ["eval", "countdown.parquet", "-o", "countdown.json"],
        ["eval", "programs.parquet"],
        ["compare", "numbers.parquet", "again.parquet", "--out", "compared"],
        ["report", "numbers.parquet", "--out", "one.html"],
        ["report", "numbers.parquet", "again.parquet", "--out", "two.html"],
    ]
    results = run_in_one(folder, commands)
    assert [done.returncode for done in results] == [0] * len(commands), [done.stderr for done in results]
    return folder, results


def expected(path: Path) -> dict[str, float]:
    """chance@k from the completions: each graded by the last number of every other problem."""
    pool = read_pool(path)
    references = [last_number(row[0]) for row in pool.columns["reference"]]
    found = [[last_number(text) for text in row] for row in pool.columns["completion"]]
    counts = np.array([[row.count(reference) for reference in references] for row in found])
    return {f"chance@{k}": float(chance_at_k(counts, 8, int(k)).mean()) for k in KS}


def test_eval_shows_the_level_beside_pass_and_writes_it(shown: tuple[Path, list[Done]]) -> None:
    folder, (done, *_) = shown
    levels = expected(folder / "numbers.parquet")
    assert levels["chance@8"] > 0.1
    metrics = json.loads((folder / "numbers.json").read_text())["pools"]["numbers.parquet"]["metrics"]
    rows = {row["metric"]: row for row in csv.DictReader((folder / "numbers.csv").open())}
    for name, level in levels.items():
        above, passed = name.replace("chance", "above"), name.replace("chance", "pass")
        assert metrics[name]["value"] == pytest.approx(level, abs=1e-12)
        assert metrics[above]["value"] == pytest.approx(metrics[passed]["value"] - level, abs=1e-12)
        assert metrics[name]["low"] < level < metrics[name]["high"]
        assert float(rows[name]["value"]) == metrics[name]["value"]
        assert f"{100 * level:.1f} [" in done.stdout
    assert re.search(r"k +pass@k, % +chance@k, % +above@k, points", done.stdout)
    assert "chance@k: pass@k of the same samples" in done.stdout


def test_a_level_of_nothing_is_one_sentence_and_programs_have_none(shown: tuple[Path, list[Done]]) -> None:
    folder, results = shown
    assert "Guessing solves less than 0.05 % of the problems at every k." in results[2].stdout
    assert not re.search("chance@|above@", results[2].stdout)
    metrics = json.loads((folder / "countdown.json").read_text())["pools"]["countdown.parquet"]["metrics"]
    assert metrics["chance@8"]["value"] < 0.0005
    told = " ".join(results[3].stdout.split())
    assert "There is no chance level: the grader of the task programs is not known to compare answers with" in told


def test_compare_says_what_lies_above_chance(shown: tuple[Path, list[Done]]) -> None:
    folder, results = shown
    assert "pass@k − chance@k" in results[4].stdout
    (found,) = json.loads((folder / "compared" / "comparison.json").read_text())["comparisons"]
    for name in ("numbers", "again"):
        curve = found["curves"]["chance"][f"{name}.parquet"]
        assert curve["value"] == pytest.approx(list(expected(folder / f"{name}.parquet").values()), abs=1e-12)
        assert f"({100 * curve['value'][-1]:.1f})" in results[4].stdout


def test_pages_have_the_curve_the_columns_and_what_they_mean(shown: tuple[Path, list[Done]]) -> None:
    folder, _ = shown
    level = f"{100 * expected(folder / 'numbers.parquet')['chance@8']:.1f}"
    for name, pools in (("one", 1), ("two", 2)):
        page = (folder / f"{name}.html").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
        assert f"(chance {level} %, dashed)" in page
        assert page.count(">chance@k, %<") == page.count(">above@k, points<") == pools
        assert "chance@k: pass@k of the same samples by the references of other problems" in page
    header = (folder / "one_csv" / "problems.csv").read_text().splitlines()[0]
    assert "pass@8" in header
    assert "chance" not in header, "a problem has a part in the level, and no level of its own"
    assert "chance,8," in (folder / "one_csv" / "curves.csv").read_text()
