"""The chance level of pools, against the tasks' own graders let loose on every pair of problems."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bontune.base.problems import Problem
from bontune.cli import app
from bontune.metrics import chance_at_k, reward_scale
from bontune.metrics.evaluation import Evaluation, evaluate_pool
from bontune.pools.chance import with_chance
from bontune.pools.pool import Pool
from bontune.tasks import Countdown, Gsm8k, Math, Task, load_task

KS = [1, 2, 4]


def pool_of(task: Task, problems: Sequence[Problem], completions: Sequence[list[str]], **options: Any) -> Pool:
    """The pool of these completions, as the task grades them."""
    graded = task.grade(problems, completions)
    columns = {
        "reward": [[grade.reward for grade in row] for row in graded],
        "answer": [[grade.answer for grade in row] for row in graded],
        "reference": [[problem.reference] * len(row) for problem, row in zip(problems, graded, strict=True)],
    }
    settings = {"task": task.name, "task_options": options}
    return Pool(problem_ids=[problem.id for problem in problems], columns=columns, settings=settings)


def evaluation_of(pool: Pool, solved_at: float | None = None) -> Evaluation:
    scale = reward_scale([pool.columns["reward"]], solved_at)
    return with_chance(evaluate_pool(pool.problem_ids, pool.columns["reward"], KS, scale=scale), pool, scale)


def check_by_grading(task: Task, problems: Sequence[Problem], completions: Sequence[list[str]], **options: Any) -> None:
    """Every completion graded for every problem gives the counts; the level must be theirs, and not 0."""
    counts = np.array(
        [
            [sum(grade.reward for grade in task.grade([problem], [texts])[0]) for problem in problems]
            for texts in completions
        ]
    )
    found = evaluation_of(pool_of(task, problems, completions, **options))
    assert found.why_no_chance == ""
    for k in KS:
        level = chance_at_k(counts, len(completions[0]), k).mean()
        assert level > 0
        assert found.values[f"chance@{k}"].mean() == pytest.approx(level, abs=1e-12)
        assert found.values[f"above@{k}"].mean() == pytest.approx(found.values[f"pass@{k}"].mean() - level, abs=1e-12)


def numbers(count: int) -> list[Problem]:
    return [Problem(id=str(i), prompt=f"{i}?", reference=str(i % 4), row={}) for i in range(count)]


def rotated(texts: Sequence[str], count: int, size: int = 4) -> list[list[str]]:
    """Some of the texts for each of so many problems."""
    endless = itertools.cycle(texts)
    return [list(itertools.islice(endless, size)) for _ in range(count)]


def test_countdown_takes_the_numbers_of_another_problem() -> None:
    """Problems whose numbers and targets agree but for the id, or in part: 3+4 solves the first and the third."""
    task = Countdown()
    made = [([3, 4], 7, "3+4"), ([3, 4], 12, "3*4"), ([4, 3], 7, "4+3"), ([3, 4, 5], 12, "3+4+5"), ([2, 5], 7, "2+5")]
    problems = [
        Problem(id=str(i), prompt="", reference=solution, row={"numbers": given, "target": target})
        for i, (given, target, solution) in enumerate(made)
    ]
    texts = ["3+4", "4*3", "3+4+5", "5+(4+3)", "(", "7", "2+5", "4+3"]
    check_by_grading(task, problems, rotated(texts, len(problems)))


def test_gsm8k_takes_equal_numbers() -> None:
    texts = ["#### 1", "so it is \\boxed{2.0}", "The answer is 3/1.", "I do not know", "#### 0", "#### $1", "#### 17"]
    check_by_grading(Gsm8k(), numbers(9), rotated(texts, 9))


@pytest.mark.parametrize("grader", ["exact", "last_number"])
def test_rows_by_the_shipped_graders(grader: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "answer": f"it  is {i % 3}"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = {"data": str(tmp_path / "rows.jsonl"), "grader": grader}
    task = load_task("jsonl", **options)
    texts = ["it is 1", " it is  2", "2 and 0.0", "nothing", "", "it is 0", "it is 1.00"]
    check_by_grading(task, task.problems("all"), rotated(texts, 8), **options)


def test_mathematics_by_normal_forms() -> None:
    references = [r"\frac{1}{2}", "0.5", r"\{1, 2\}", "x = 3", r"\text{Evelyn}", r"\sqrt{2}"]
    problems = [Problem(id=str(i), prompt="", reference=r, row={}) for i, r in enumerate(references)]
    texts = [r"\boxed{1/2}", r"\boxed{2, 1}", r"\boxed{3}", r"\boxed{evelyn}", "no box", r"\boxed{\frac{2}{\sqrt{2}}}"]
    check_by_grading(Math(), problems, rotated(texts, len(problems)))


def luck(**changes: Any) -> Pool:
    """A pool of last numbers with a level of chance, changed in its settings."""
    completions = rotated(["1", "2", "3", "0", "1"], 12)
    pool = pool_of(load_task("countdown"), [], [])
    rewards = [[float(text == str(i % 4)) for text in row] for i, row in enumerate(completions)]
    columns = {"reward": rewards, "answer": completions, "reference": [[str(i % 4)] * 4 for i in range(12)]}
    return dataclasses.replace(pool, problem_ids=[str(i) for i in range(12)], columns=columns, settings=changes)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "does not say which task"),
        ({"task": "humaneval"}, "humaneval is not known"),
        ({"task": "programs", "task_options": {"seed": 0}}, "programs is not known"),
        ({"task": "custom"}, "custom is not known"),
        ({"task": "jsonl", "task_options": {"grader": "mine.py:grade"}}, "jsonl is not known"),
    ],
)
def test_without_a_grader_that_compares_there_is_none(settings: dict[str, Any], why: str) -> None:
    found = evaluation_of(luck(**settings))
    assert why in found.why_no_chance
    assert not any(name.startswith(("chance", "above")) for name in found.values)


def test_without_columns_or_with_other_rewards_there_is_none() -> None:
    pool = luck(task="gsm8k")
    assert evaluation_of(pool).why_no_chance == ""
    for name in ("answer", "reference"):
        rest = {key: rows for key, rows in pool.columns.items() if key != name}
        assert "no answers or no references" in evaluation_of(dataclasses.replace(pool, columns=rest)).why_no_chance
    flipped = [[1.0 - reward for reward in row] for row in pool.columns["reward"]]
    other = dataclasses.replace(pool, columns=pool.columns | {"reward": flipped})
    assert "do not follow" in evaluation_of(other).why_no_chance
    first = {name: rows[:1] for name, rows in pool.columns.items()}
    assert "one problem" in evaluation_of(dataclasses.replace(pool, problem_ids=["0"], columns=first)).why_no_chance


def test_the_limit_of_rewards_decides_and_all_else_is_as_it_was() -> None:
    pool = luck(task="gsm8k")
    signed = [[2.0 * reward - 1.0 for reward in row] for row in pool.columns["reward"]]
    ungraded = [[None if i == j == 0 else r for j, r in enumerate(row)] for i, row in enumerate(signed)]
    other = dataclasses.replace(pool, columns=pool.columns | {"reward": ungraded})
    first, second = evaluation_of(pool), evaluation_of(other)
    for k in KS:
        np.testing.assert_array_equal(first.values[f"chance@{k}"], second.values[f"chance@{k}"])
    plain = evaluate_pool(pool.problem_ids, pool.columns["reward"], KS)
    for name, values in plain.values.items():
        np.testing.assert_array_equal(first.values[name], values)
    graded = [[reward / (i + 1) for reward in row] for i, row in enumerate(pool.columns["reward"])]
    without = evaluation_of(dataclasses.replace(pool, columns=pool.columns | {"reward": graded}))
    assert without.why_no_chance == "", "graded rewards have no pass@k to compare with"
    assert not any(name.startswith("chance") for name in without.values)


def test_problems_with_different_numbers_of_samples() -> None:
    pool = luck(task="gsm8k")
    shorter = {
        name: [row if i % 3 else [*row, *row[:2]] for i, row in enumerate(rows)] for name, rows in pool.columns.items()
    }
    found = evaluation_of(dataclasses.replace(pool, columns=shorter))
    references = [row[0] for row in shorter["reference"]]
    counts = np.array([[row.count(reference) for reference in references] for row in shorter["answer"]])
    sizes = [len(row) for row in shorter["answer"]]
    for k in KS:
        assert found.values[f"chance@{k}"].mean() == pytest.approx(chance_at_k(counts, sizes, k).mean(), abs=1e-12)


def test_a_way_needs_the_numbers_of_the_other_problem(tmp_path: Path) -> None:
    rows = [
        {"Body": f"Ann has {a} eggs.", "Question": f"How many are left if {b} break?", "Equation": f"( {a} - {b} )"}
        | {"Answer": a - b}
        for a, b in [(9, 4), (9, 4), (7, 2), (9, 5), (12, 7), (30, 4), (8, 3), (6, 1), (21, 4), (9, 3)]
    ]
    (tmp_path / "svamp.json").write_text(
        json.dumps([row | {"Body": f"{row['Body']}{' ' * i}"} for i, row in enumerate(rows)])
    )
    task = load_task("svamp", data=str(tmp_path / "svamp.json"))
    problems = [problem for split in task.splits for problem in task.problems(split)]
    texts = [
        "9 - 4 = 5",
        "7 - 2 = 5",
        "9 - 4 = 5\n5 - 5 = 0",
        "5",
        "9 - 5 = 4",
        "<think>9 - 4 = 5",
        "9 - 4 = 4",
        "8 - 3 = 5",
    ]
    completions = rotated(texts, len(problems))
    pool = pool_of(task, problems, completions)
    pool.columns["prompt"] = [[problem.prompt] * 4 for problem in problems]
    pool.columns["completion"] = completions
    counts = np.array(
        [[sum(g.reward for g in task.grade([problem], [row])[0]) for problem in problems] for row in completions]
    )
    found = evaluation_of(pool)
    for k in KS:
        level = chance_at_k(counts, 4, k).mean()
        assert level > 0
        assert found.values[f"chance@{k}"].mean() == pytest.approx(level, abs=1e-12)
    flipped = [[1.0 - reward for reward in row] for row in pool.columns["reward"]]
    other = evaluation_of(dataclasses.replace(pool, columns=pool.columns | {"reward": flipped}))
    assert "do not follow from completions" in other.why_no_chance
    kept = {"problem_id": [[name] * 4 for name in pool.problem_ids]} | pool.columns
    flat = {name: list(itertools.chain.from_iterable(rows)) for name, rows in kept.items()}
    table = pa.table(flat).replace_schema_metadata({"bontune": json.dumps(pool.settings)})
    pq.write_table(table, tmp_path / "pool.parquet")
    out = str(tmp_path / "found.json")
    done = CliRunner().invoke(app, ["eval", str(tmp_path / "pool.parquet"), "--k", "1,2,4", "-o", out])
    assert done.exit_code == 0, done.output
    (on_disk,) = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["pools"].values()
    for k in KS:
        assert on_disk["metrics"][f"chance@{k}"]["value"] == pytest.approx(found.values[f"chance@{k}"].mean())
    del pool.columns["prompt"]
    assert evaluation_of(pool).why_no_chance == "the pool holds no prompts, completions or references"
