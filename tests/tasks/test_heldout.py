"""Functional MATH and MathOdyssey: splits, cleaning and grading, on the data themselves where they are there."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.tasks import load_task
from bontune.tasks.heldout import LETTER_REQUEST, choice_in, held_out_set
from bontune.tasks.math import Math
from shared_data import DATA, require

FUNCTIONAL = {
    "problem": "What is $7+8$?",
    "level": "Level 1",
    "type": "Prealgebra",
    "solution": "It is $\\boxed{15}$.",
    "is_static": False,
}
VARIED = [
    {**FUNCTIONAL, "answer": "15", "unique_id": "test/prealgebra/1.json", "seed_in_math_500": True},
    {**FUNCTIONAL, "answer": "15", "unique_id": "test/prealgebra/2.json", "seed_in_math_500": False},
    {**FUNCTIONAL, "answer": "15", "unique_id": "test/prealgebra/3.json", "seed_in_math_500": False},
]


def odyssey(**answers: str) -> list[dict[str, Any]]:
    question = "Is it so?\n\n\\noindent Options:\\\\\nA) 1\\\\\nB) 2\n\\end{problem}\n\n\\noindent"
    return [{key: {"question": question, "answer": answer, "level": "college math"}} for key, answer in answers.items()]


def task_of(path: Path, *rows: Any) -> Math:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task("math", data=str(path))
    assert isinstance(task, Math)
    return task


def rewards(task: Math, problem: Problem, *completions: str) -> list[float]:
    return [grade.reward for grade in task.grade([problem], [completions])[0]]


def test_seeds_that_a_model_may_have_seen_are_apart(tmp_path: Path) -> None:
    task = task_of(tmp_path / "rows.jsonl", *VARIED)
    assert task.splits == ("test", "unseen_seeds", "seen_seeds")
    ids = {split: [problem.id[-6:] for problem in task.problems(split)] for split in task.splits}
    assert ids == {
        "test": ["1.json", "2.json", "3.json"],
        "unseen_seeds": ["1.json"],
        "seen_seeds": ["2.json", "3.json"],
    }
    assert [problem.level for problem in task.problems("test")] == [1, 1, 1]
    with pytest.raises(BontuneError, match="no split 'train'; these data have test, unseen_seeds, seen_seeds"):
        task.problems("train")


def test_a_folder_of_one_file_a_problem(tmp_path: Path) -> None:
    for name, sum_ in [("algebra/2.json", 5), ("algebra/10.json", 6), ("geometry/1.json", 7)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({**FUNCTIONAL, "solution": f"\\boxed{{{sum_}}}"}))
    task = Math(data=tmp_path)
    assert task.splits == ("test",)  # nothing says which seeds are among the 500
    assert [(p.id, p.reference) for p in task.problems("test")] == [
        ("algebra/10.json", "6"),
        ("algebra/2.json", "5"),
        ("geometry/1.json", "7"),
    ]
    assert task.failures(task.problems("test")) == []
    (tmp_path / "algebra" / "3.json").write_text("[]")
    with pytest.raises(BontuneError, match=r"3\.json holds a JSON list, not one problem"):
        Math(data=tmp_path).problems("test")


def test_answers_of_mathodyssey_are_parted_by_kind_and_cleaned(tmp_path: Path) -> None:
    rows = odyssey(
        a="$B$\\\\\n\\noindent",
        b="No.\\\\\n\\noindent",
        c="$x=1$ and $y=2$. \\\\\n\\noindent",
        d="$\\frac{1}{2}$ or $0.5$\\\\",
        e="A, B",
        f="\\$ 12.50 \\\\\n\n\\noindent",
    )
    task = task_of(tmp_path / "rows.jsonl", *rows)
    references = {split: [problem.reference for problem in task.problems(split)] for split in task.splits}
    opened = ["x=1\\text{ and }y=2", "\\frac{1}{2}", "\\$ 12.50"]
    assert references == {
        "test": ["B", "No", *opened[:2], "A, B", opened[2]],
        "open": opened,
        "choice": ["B", "A, B"],
        "yes_no": ["No"],
    }
    assert [problem.id for problem in task.problems("test")] == list("abcdef")
    assert task.failures(task.problems("test")) == []
    choice, word = task.problems("test")[:2]
    assert word.row["problem"] == "Is it so?\n\n Options:\\\\\nA) 1\\\\\nB) 2"
    assert LETTER_REQUEST in choice.prompt
    assert LETTER_REQUEST not in word.prompt
    equations = task.problems("open")[0]
    assert rewards(task, equations, "\\boxed{y=2, x=1}", "\\boxed{x=2, y=1}", "x=1 and y=2") == [1, 0, 0]


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("\\boxed{B}", "B"),
        ("$\\boxed{(B)}$", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{\\textbf{(B)}\\ 12}", "B"),
        ("\\boxed{\\text{(B) } 12}", "B"),
        ("\\boxed{\\text{B) } 12}", "B"),
        ("\\boxed{B. \\frac{1}{2}}", "B"),
        ("\\boxed{\\text{Option B}}", "B"),
        ("The answer is B", "B"),
        ("So **the correct answer is: (B)**, since it is even.", "B"),
        ("Answer: B) 12\nOr C.", "B"),
        ("The answer is A. No, the answer is B.", "B"),
        ("The answer is A, but \\boxed{B}", "B"),
        ("\\boxed{B, C}", "B, C"),
        ("\\boxed{B \\text{ and } C}", "B, C"),
        ("\\boxed{(B), (C) and (D)}", "B, C, D"),
        ("\\boxed{BC}", "BC"),
        ("\\boxed{B \\text{ or } C}", "B \\text{ or } C"),
        ("The answer is (B) or (C).", "(B) or (C)."),
        ("\\boxed{Both}", "Both"),
        ("\\boxed{B = 3}", "B = 3"),
        ("\\boxed{b}", "B"),
        ("The correct choice is (c).", "C"),
        ("The answer is a number.", "a number."),
        ("\\boxed{12}", "12"),
        ("The answer is B, so \\boxed{B", None),
        ("B", None),
    ],
)
def test_letters(completion: str, answer: str | None) -> None:
    assert choice_in(completion, "B") == answer


@pytest.mark.parametrize("text", ["Yes", "yes", "YES.", "\\text{yes}", "\\textbf{Yes, it is}", "yes, $x$ exists"])
def test_yes_and_no_in_any_case(tmp_path: Path, text: str) -> None:
    task = task_of(tmp_path / "rows.jsonl", *odyssey(a="Yes. \\\\ \n\t\\noindent", b="No"))
    yes, no = task.problems("yes_no")
    for completion in (f"\\boxed{{{text}}}", f"Hence the answer is {text}"):
        assert rewards(task, yes, completion) == [1]
        assert rewards(task, no, completion) == [0]
    assert rewards(task, no, "\\boxed{\\text{No solution}}", "\\boxed{nothing}", "\\boxed{no}") == [0, 0, 1]


def test_rows_of_math_itself_are_no_held_out_set(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"problem": "p", "answer": "B"}) + "\n")
    (tmp_path / "cut.jsonl").write_text('{"problem": ')
    (tmp_path / "none.jsonl").write_text("")
    for name in ("test.jsonl", "cut.jsonl", "none.jsonl", "absent.jsonl", ""):
        assert held_out_set(tmp_path / name) is None
    (tmp_path / "math" / "algebra").mkdir(parents=True)
    (tmp_path / "math" / "algebra" / "1.json").write_text(json.dumps({"problem": "p", "solution": "\\boxed{1}"}))
    assert held_out_set(tmp_path / "math") is None, "a folder of MATH, whose problems may be trained on"
    assert held_out_set(None) is held_out_set({"test": tmp_path / "test.jsonl"}) is None
    task = Math(data=tmp_path)  # in MATH a letter needs its box
    assert rewards(task, task.problems("test")[0], "The answer is B.", "\\boxed{B) 12}", "\\boxed{B}") == [0, 0, 1]


@pytest.mark.parametrize(
    ("rows", "split", "phrase"),
    [
        ([FUNCTIONAL, {**FUNCTIONAL, "solution": "It is 15."}], "test", "line 2: the solution has no \\boxed{…}"),
        (
            [VARIED[0], {**VARIED[1], "seed_in_math_500": "no"}],
            "test",
            "seed_in_math_500 must say true or false, as in the first row, not 'no'",
        ),
        ([VARIED[0], FUNCTIONAL], "seen_seeds", "line 2: the column seed_in_math_500 must say true or false"),
        ([VARIED[0]], "seen_seeds", "rows.jsonl (Functional MATH) holds no rows of the split seen_seeds"),
        ([VARIED[0], VARIED[0]], "test", "the id 'test/prealgebra/1.json' occurs twice"),
        ([*odyssey(a="1"), {"b": "2"}], "test", "line 2: a row of MathOdyssey is {"),
        ([*odyssey(a="1", b=" \\\\\n\\noindent")], "test", "line 2: the answer '' cannot be compared"),
    ],
)
def test_malformed_rows(tmp_path: Path, rows: list[Any], split: str, phrase: str) -> None:
    with pytest.raises(BontuneError, match=re.escape(phrase)):
        task_of(tmp_path / "rows.jsonl", *rows).problems(split)


def test_functional_math_itself(tmp_path: Path) -> None:
    path = require("functional_math_oct2023.jsonl.gz")
    task = Math(data=path)
    sizes = {split: len(task.problems(split)) for split in task.splits}
    assert sizes == {"test": 1_745, "unseen_seeds": 181, "seen_seeds": 1_564}
    assert task.failures(task.problems("test")) == []
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    seeds = {json.loads(line)["unique_id"] for line in (DATA / "math_test_500.jsonl").read_text().splitlines()}
    assert {problem.id for problem in task.problems("unseen_seeds")} == {row["unique_id"] for row in rows} & seeds
    added = ("answer", "snapshot", "unique_id", "seed_in_math_500")
    for row in rows[:50]:  # the same problems in the original's form
        file = tmp_path / row["unique_id"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({key: value for key, value in row.items() if key not in added}))
    original = {problem.id: problem for problem in Math(data=tmp_path).problems("test")}
    assert len(original) == 50
    for problem in task.problems("test")[:50]:
        assert (original[problem.id].prompt, original[problem.id].reference) == (problem.prompt, problem.reference)


def test_mathodyssey_itself() -> None:
    task = Math(data=require("mathodyssey_original.jsonl"))
    sizes = {split: len(task.problems(split)) for split in task.splits}
    assert sizes == {"test": 387, "open": 244, "choice": 128, "yes_no": 15}
    problems = task.problems("test")
    assert task.failures(problems) == []
    assert not [p.id for p in problems if re.search(r"noindent|end\{problem|\\\\$|(?<!\\)\$", p.reference)]
    assert not [p.id for p in problems if re.search(r"noindent|\{problem\}", p.prompt)]
