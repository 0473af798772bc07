"""SVAMP: its splits, its references as chains of equations, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError
from bontune.grading.answers.equations import grade_equations
from bontune.grading.answers.numbers import final_number
from bontune.tasks import load_task
from shared_data import DATA, needs

ROW = {
    "Body": "Ann has 12 eggs",
    "Question": "How many are left if 5 break?",
    "Equation": "( 12.0 - 5.0 )",
    "Answer": 7.0,
}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "svamp.json"
    path.write_text(json.dumps(rows))
    return path


def small(folder: Path, **options: Any) -> Any:
    rows = [
        ROW | {"Body": f"Ann has {i} eggs", "Equation": f"( {i}.0 - 5.0 )", "Answer": i - 5.0} for i in range(6, 36)
    ]
    odd = [ROW | {"Body": "All 8 eggs are hers.", "Equation": "8.0", "Answer": 8.0}, ROW | {"Answer": 8.0}]
    return load_task("svamp", data=str(written(folder, *rows, *odd)), **options)


def test_a_problem_is_asked_and_graded_by_its_way(tmp_path: Path) -> None:
    task = small(tmp_path)
    assert [len(task.problems(split)) for split in task.splits] == [18, 3, 9]
    problem = task.problems("test")[0]
    first = int(problem.reference) + 5
    question = f"Ann has {first} eggs, how many are left if 5 break?"
    assert problem.messages == ({"role": "user", "content": f"{question}\n\nAnswer with equations only."},)
    assert problem.prompt.endswith(f"Problem: {question}\nEquations:")
    assert task.demonstration(problem) == f" {first} - 5 = {problem.reference}"
    texts = [f"{first} - 5 = {problem.reference}", f"#### {problem.reference}", f"{first} - 4 = {problem.reference}"]
    grades = task.grade([problem], [texts])[0]
    assert [grade.reward for grade in grades] == [1, 0, 0]
    assert [grade.answer for grade in grades] == [problem.reference, None, problem.reference]


def test_rows_without_a_way_are_trained_on_where_the_number_counts(tmp_path: Path) -> None:
    ways, numbers = small(tmp_path), small(tmp_path, format="auto")
    for split in ("test", "validation"):
        assert [p.id for p in ways.problems(split)] == [p.id for p in numbers.problems(split)]
    extra = {p.id for p in numbers.problems("train")} - {p.id for p in ways.problems("train")}
    assert len(extra) == 2
    problem = numbers.problems("test")[0]
    assert not numbers.failures(numbers.problems("train"))
    assert numbers.grade([problem], [[f"It is so. #### {problem.reference}", "5 - 5 = 0"]])[0][1].reward == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"Answer": "seven"}, "Answer holds no number"),
        ({key: ROW[key] for key in ("Body", "Question", "Answer")}, "needs the columns"),
        (ROW | {"Body": None}, "Body"),
    ],
)
def test_what_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(BontuneError, match=message):
        load_task("svamp", data=str(written(tmp_path, row))).problems("train")


def test_rows_of_ones_own_are_graded_by_their_way(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "A box holds 6 cups. How many do 4 boxes hold?", "answer": "24 cups"}) + "\n")
    task = load_task("jsonl", data=str(path), grader="equations")
    problem = task.problems("all")[0]
    grades = task.grade([problem], [["6 * 4 = 24", "24", "8 * 3 = 24", "<think>6 * 4 = 24</think>4 * 6 = 24"]])[0]
    assert [grade.reward for grade in grades] == [1, 0, 0, 1]
    path.write_text(json.dumps({"prompt": "How many?", "answer": "many"}) + "\n")
    with pytest.raises(BontuneError, match="holds no number, which the grader compares"):
        load_task("jsonl", data=str(path), grader="equations")


@needs("svamp.json")
def test_the_data_set_is_split_and_every_way_passes() -> None:
    task = load_task("svamp", data=DATA)
    splits = {split: task.problems(split) for split in task.splits}
    assert {split: len(problems) for split, problems in splits.items()} == {
        "train": 596,
        "validation": 100,
        "test": 300,
    }
    assert len({problem.prompt for problems in splits.values() for problem in problems}) >= 990
    for problems in splits.values():
        assert not task.failures(problems)
    assert len(load_task("svamp", data=DATA, format="auto").problems("train")) == 600


@needs("svamp.json")
def test_a_way_is_hardly_ever_another_problems() -> None:
    """Share of the right ways that pass for another problem, over all pairs: guessing finds numbers, and no ways."""
    task = load_task("svamp", data=DATA)
    problems = task.problems("test")[:100]
    ways = [task.reference_completion(problem) for problem in problems]

    def share(passes: Callable[[Any, str], bool]) -> float:
        pairs = [(p, way) for i, p in enumerate(problems) for j, way in enumerate(ways) if i != j]
        return sum(passes(p, way) for p, way in pairs) / len(pairs)

    by_way = share(lambda p, way: grade_equations(p.prompt, Fraction(p.reference), way).reward > 0)
    by_number = share(lambda p, way: final_number(f"#### {way.rpartition('=')[2]}") == Fraction(p.reference))
    assert by_way < 0.002 < 0.005 < by_number


@needs("gsm8k_train.jsonl.gz")
def test_gsm8k_asks_for_equations_too() -> None:
    task = load_task("gsm8k", data=DATA, format="equations")
    assert [len(task.problems(split)) for split in task.splits] == [5181, 367, 1006]
    problem = task.problems("test")[0]
    assert "####" not in task.demonstration(problem)
    assert task.grade([problem], [[task.demonstration(problem), problem.reference]])[0][0].reward == 1
    with pytest.raises(BontuneError, match="no worked examples"):
        load_task("gsm8k", data=DATA, format="equations", shots=2)
