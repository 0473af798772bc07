"""MATH: splits, prompts and grading, on the data themselves where they are there."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError
from bontune.grading.verdict import Verdict
from bontune.tasks import Math, Problem, Task, load_task
from bontune.tasks.fewshot import MATH_EXAMPLES, MATH_WORDING
from shared_data import DATA, needs

needs_data = needs("math_test_500.jsonl")
ROW = {
    "problem": "What is $1/2+1/4$?",
    "solution": "It is $\\boxed{\\frac34}$.",
    "answer": "\\frac34",
    "level": "Level 2",
}


def task_of(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> Math:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Math(data=path, **options)


@needs_data
def test_splits_of_the_data() -> None:
    start = time.perf_counter()
    task = load_task("math", data=str(DATA))
    splits = {split: task.problems(split) for split in task.splits}
    assert time.perf_counter() - start < 15  # 0.9 s on an idle core
    assert isinstance(task, Task)
    assert {split: len(problems) for split, problems in splits.items()} == {
        "train": 11_498,
        "validation": 500,
        "test": 500,
    }
    ids = [problem.id for problems in splits.values() for problem in problems]
    assert len(set(ids)) == len(ids)
    questions = {split: {" ".join(p.row["problem"].split()) for p in problems} for split, problems in splits.items()}
    assert not questions["train"] & questions["validation"]
    assert not (questions["train"] | questions["validation"]) & questions["test"]
    levels = [problem.level for problem in splits["test"]]
    assert [levels.count(level) for level in range(1, 6)] == [43, 90, 105, 128, 134]  # of MATH-500
    assert load_task("math", data=str(DATA)).problems("validation") == splits["validation"]


@needs_data
def test_golds_and_worked_solutions_pass_and_other_golds_do_not() -> None:
    task = load_task("math", data=DATA)
    rng = random.Random(0)
    problems = task.problems("test") + rng.sample(task.problems("train"), 500)
    others = [rng.choice(problems).reference for _ in problems]
    num_passed_by_others = 0
    for problem, other in zip(problems, others, strict=True):
        solution, box, spaced, wrong = task.grade(
            [problem],
            [
                [
                    problem.row["solution"],
                    f"Thus $\\boxed{{{problem.reference}}}$.",
                    f"\\boxed{{1}} or rather \\boxed{{ {problem.reference} }}",
                    f"\\boxed{{{other}}}",
                ]
            ],
        )[0]
        assert solution.reward == box.reward == spaced.reward == 1, problem.id
        assert solution.answer == box.answer == spaced.answer is not None
        num_passed_by_others += wrong.reward == 1
    assert num_passed_by_others < 30  # 12: small numbers are the answers of many problems


def test_verdicts_answers_and_duplicates(tmp_path: Path) -> None:
    task = task_of(tmp_path, ROW)
    (problem,) = task.problems("test")
    assert (problem.reference, problem.level) == ("\\frac34", 2)
    texts = ["\\boxed{0.75}", "$\\boxed{\\dfrac{3}{4}}$", "\\boxed{3}", "0.75", "\\boxed{3/4", "", "\\boxed{}"]
    grades = task.grade([problem], [texts * 2])[0]
    assert grades[:7] == grades[7:]
    assert [grade.reward for grade in grades[:7]] == [1, 1, 0, 0, 0, 0, 0]
    assert grades[0].answer == grades[1].answer
    assert [grade.answer for grade in grades[3:7]] == [None] * 4
    assert all(grade.verdict is Verdict.FAILED and grade.reason for grade in grades[2:7])
    assert task.grade([problem], [[]])[0] == []


def test_completions_of_any_kind_are_graded(tmp_path: Path) -> None:
    task = task_of(tmp_path, ROW)
    (problem,) = task.problems("test")
    rng = random.Random(0)
    pieces = ["\\boxed", "{", "}", "\\frac", "3", "4", "^", "_", "\\left(", "$", "\ud800", "\0", "x", ",", "\\", " "]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(40))) for _ in range(300)]
    texts += ["\\boxed{" + "(" * 10_000, "\\boxed{" + "9" * 10_000 + "}", "\\boxed{" * 2_000, "\\boxed{9^{9^{9^9}}}"]
    for grade in task.grade([problem], [texts])[0]:
        assert grade.reward in (0.0, 1.0)
        assert grade.verdict in (Verdict.PASSED, Verdict.FAILED, Verdict.TIMEOUT, Verdict.CRASHED)


def test_prompts(tmp_path: Path) -> None:
    zero = task_of(tmp_path, ROW)
    (problem,) = zero.problems("test")
    assert zero.stop == ("\nProblem:",)
    assert problem.prompt.endswith(f"\n\nProblem:\n{ROW['problem']}\n\nSolution:")
    assert "\\boxed{}" in problem.prompt.partition("Problem:")[0]
    assert [message["role"] for message in problem.messages] == ["user"]
    assert problem.messages[0]["content"].startswith(ROW["problem"])
    assert "\\boxed{}" in problem.messages[0]["content"]
    few = task_of(tmp_path, ROW, shots=2)
    (problem,) = few.problems("test")
    assert problem.prompt.startswith("Problem:\n")
    assert (problem.prompt.count("Problem:\n"), problem.prompt.count("\\boxed{")) == (3, 2)
    assert [message["role"] for message in problem.messages] == ["user", "assistant"] * 2 + ["user"]
    # A completion that goes on with another problem, as a base model's does, is cut before it.
    text = MATH_WORDING.text("q", MATH_EXAMPLES[:2]).removeprefix(MATH_WORDING.text("q2", ()))
    assert few.stop[0] in text
    assert task_of(tmp_path, ROW, format="base").problems("test")[0].messages == ()
    chat = task_of(tmp_path, ROW, format="chat")
    assert (chat.stop, chat.problems("test")[0].prompt) == ((), chat.problems("test")[0].messages[0]["content"])


def test_worked_examples_are_right() -> None:
    task = Math.__new__(Math)
    for example in MATH_EXAMPLES:
        text = MATH_WORDING.text("?", [example])
        problem = Problem(id="1", prompt="", reference=example.answer)
        assert task.grade([problem], [[text]])[0][0].reward == 1
        assert text == text.strip()


@pytest.mark.parametrize(
    ("row", "phrase"),
    [
        ({**ROW, "answer": ""}, "line 1: the answer '' cannot be compared"),
        ({**ROW, "answer": "\\frac{3}{4"}, "braces do not match"),
        ({**ROW, "answer": None}, "column 'answer' holds NoneType"),
        ({"problem": "p", "solution": "s"}, "needs the columns problem, answer; answer is missing"),
        ({"question": "p", "answer": "1"}, "problem is missing"),
    ],
)
def test_malformed_rows(tmp_path: Path, row: dict[str, Any], phrase: str) -> None:
    with pytest.raises(BontuneError, match=re.escape(phrase)):
        task_of(tmp_path, row).problems("test")


def test_ids_and_options(tmp_path: Path) -> None:
    rows = [{**ROW, "unique_id": "a"}, {**ROW, "unique_id": "a"}]
    with pytest.raises(BontuneError, match="the id 'a' occurs twice"):
        task_of(tmp_path, *rows).problems("test")
    for options, phrase in [
        ({"shots": 5}, "shots must be at most 4, not 5"),
        ({"shots": True}, "shots"),
        ({"format": "chta"}, "format must be 'auto', 'base' or 'chat', not 'chta', did you mean 'chat'"),
        ({"hub": "owner/name"}, "data and hub are both given"),
    ]:
        with pytest.raises(BontuneError, match=phrase):
            task_of(tmp_path, ROW, **options)
    task = task_of(tmp_path, ROW)
    assert task.splits == ("test",)
    with pytest.raises(BontuneError, match=r"Task math has no split 'train'; these data have test"):
        task.problems("train")


def test_the_two_rows_of_math_without_an_answer_are_left_out(tmp_path: Path) -> None:
    without = {**ROW, "answer": "", "unique_id": "train/number_theory/7115.json"}
    assert [problem.row for problem in task_of(tmp_path, without, ROW).problems("test")] == [ROW]
