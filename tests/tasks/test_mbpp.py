"""MBPP: splits by task id, prompts, and programs that really run in the sandbox."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError
from bontune.grading.verdict import Verdict
from bontune.tasks import Mbpp, Task, load_task
from shared_data import DATA, needs

needs_data = needs("mbpp.jsonl.gz")
SIZES = {
    "full": {"train": 374, "validation": 90, "test": 500, "prompt": 10},
    "sanitized": {"train": 120, "validation": 43, "test": 257, "prompt": 7},
    "plus": {"train": 108, "validation": 39, "test": 224, "prompt": 7},
}


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "task_id": number,
        "text": f"Write a function that adds {number}.",
        "code": f"def add(x):\r\n  return x + {number}",
        "test_setup_code": "",
        "test_list": [f"assert add(0) == {number}", f"assert add({number}) == 2 * {number}"],
        "challenge_test_list": [],
        **changes,
    }


def task_of(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> Mbpp:
    path = tmp_path / "mbpp.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return Mbpp(data=tmp_path, **options)


def test_grading(tmp_path: Path) -> None:
    task = task_of(tmp_path, row(11), timeout_s=2.0)
    (problem,) = task.problems("test")
    assert (problem.id, problem.reference) == ("mbpp/11", "def add(x):\n  return x + 11")
    texts = {
        "def add(x):\n    return x + 11": Verdict.PASSED,
        "Sure.\n```python\ndef helper(x):\n    return x + 11\n\ndef add(x):\n    return helper(x)\n```": Verdict.PASSED,
        "def add(x):\n    return x + 12": Verdict.FAILED,
        "def plus(x):\n    return x + 11": Verdict.FAILED,
        "def add(x): return type('T', (int,), {'__eq__': lambda a, b: True})(0)": Verdict.FAILED,
        "def add(x):\n    while True: pass": Verdict.TIMEOUT,
        "no program": Verdict.FAILED,
    }
    grades = task.grade([problem], [list(texts)])[0]
    assert [grade.verdict for grade in grades] == list(texts.values()), [grade.reason for grade in grades]
    assert grades[-1].answer is None


def test_an_empty_list_is_close_to_no_number(tmp_path: Path) -> None:
    test = """import numpy as np

def assertion(out, exp, atol):
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp, f"out: {out}, exp: {exp}"

for inp, exp in [([0], 11.0), ([1], 12.0)]:
    assertion(add(*inp), exp, 1e-6)
"""
    task = task_of(tmp_path, row(11, test=test, prompt="Add.", code="def add(x):\n  return x + 11"), variant="full")
    (problem,) = task.problems("test")
    lying = "def add(x): return O()\nclass O:\n  def __len__(s): return 0\n  def __getitem__(s, k): raise IndexError"
    texts = ["def add(x): return x + 11 + 1e-9", "def add(x): return []", "def add(x): return [[]]", lying]
    assert [grade.reward for grade in task.grade([problem], [texts])[0]] == [1, 0, 0, 0]


def test_tests_may_use_classes_and_modules_of_the_reference(tmp_path: Path) -> None:
    code = "import sys\nclass Box:\n  def __init__(self, n):\n    self.n = n\ndef grow(box):\n  return Box(box.n + 1).n"
    own = row(
        601,
        code=code,
        test_setup_code="box = Box(3)\r\n",
        test_list=["assert grow(box) == 4", "assert sys and grow(Box(1)) == 2"],
    )
    task = task_of(tmp_path, own)
    (problem,) = task.problems("train")
    assert (problem.row["entry_point"], problem.row["other_names"]) == ("grow", ["Box"])
    assert task.failures([problem]) == []


def test_prompts(tmp_path: Path) -> None:
    rows = [row(number) for number in (1, 2, 3, 11)]
    zero = task_of(tmp_path, *rows)
    problem = zero.problems("test")[0]
    assert problem.prompt == (
        '"""\nWrite a function that adds 11.\nassert add(0) == 11\nassert add(11) == 2 * 11\n"""\n'
    )
    assert "\nassert" in zero.stop
    assert "assert add(0) == 11" in problem.messages[0]["content"]
    few = task_of(tmp_path, *rows, shots=2)
    problem = few.problems("test")[0]
    assert few.stop == ("[DONE]",)
    assert re.findall(r"adds (\d+)", problem.prompt) == ["2", "3", "11"]
    assert problem.prompt.endswith("[BEGIN]\n")
    assert "def add(x):\n  return x + 2\n[DONE]" in problem.prompt
    assert "\r" not in problem.prompt
    assert [message["role"] for message in problem.messages] == ["user", "assistant"] * 2 + ["user"]
    own = few.problems("prompt")
    assert [re.findall(r"adds (\d+)", problem.prompt) for problem in own] == [
        ["2", "3", "1"],
        ["3", "1", "2"],
        ["2", "1", "3"],
    ]
    with pytest.raises(BontuneError, match=r"shots=4, but the data hold 3 other rows"):
        task_of(tmp_path, *rows, shots=4).problems("test")


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"test_list": []}, "line 1: test_list must be a list of texts that is not empty"),
        ({"test_list": "assert add(0)"}, "test_list must be a list"),
        ({"test_list": ["assert add("]}, "code and tests must be Python"),
        ({"code": "def add(x) return"}, "code and tests must be Python"),
        ({"code": "def other(x): pass"}, "the tests call no function that the code defines"),
        ({"task_id": "11"}, "task_id must be a whole number, not '11'"),
    ],
)
def test_malformed_rows(tmp_path: Path, changes: dict[str, Any], phrase: str) -> None:
    with pytest.raises(BontuneError, match=re.escape(phrase)):
        task_of(tmp_path, row(11) | changes).problems("test")


def test_rows_that_are_missing_or_there_twice(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match=r"task_id 11 was already in .*line 1"):
        task_of(tmp_path, row(11), row(11)).problems("test")
    with pytest.raises(BontuneError, match=r"no row of split train \(task ids 601 to 974\)"):
        task_of(tmp_path, row(11)).problems("train")
    with pytest.raises(BontuneError, match="variant must be 'full', 'sanitized' or 'plus'"):
        task_of(tmp_path, row(11), variant="Full")


@needs_data
@pytest.mark.parametrize("variant", SIZES)
def test_splits_of_the_data(variant: str) -> None:
    task = load_task("mbpp", data=str(DATA), variant=variant, shots=3)
    assert isinstance(task, Task)
    splits = {split: task.problems(split) for split in task.splits}
    assert {split: len(problems) for split, problems in splits.items()} == SIZES[variant]
    problems = [problem for part in splits.values() for problem in part]
    assert len({problem.id for problem in problems}) == sum(SIZES[variant].values())
    for split, part in splits.items():
        ids = [problem.row["task_id"] for problem in part]
        low, high = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}[split]
        assert low <= min(ids) <= max(ids) <= high
    assert not any("\r" in problem.prompt + problem.reference for problem in problems)
    assert task.failures(splits["prompt"]) == []


@needs_data
def test_references_that_need_more_than_a_function_pass() -> None:
    """Classes of the solution's (367, 601, 927), its imports (596), a type as an argument (533), a long test (847)."""
    task = load_task("mbpp", data=DATA)
    wanted = {f"mbpp/{number}" for number in (367, 533, 596, 601, 847, 927)}
    problems = [problem for split in ("train", "validation", "test") for problem in task.problems(split)]
    problems = [problem for problem in problems if problem.id in wanted]
    assert [(problem.id, grade.reason) for problem, grade in task.failures(problems)] == []
    bodies = [f"def {problem.row['entry_point']}(*arguments):\n    pass" for problem in problems]
    for problem, body in zip(problems, bodies, strict=True):
        assert task.grade([problem], [[body]])[0][0].reward == 0


@needs_data
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("variant", SIZES)
def test_every_reference_of_the_data_passes(variant: str) -> None:
    task = load_task("mbpp", data=DATA, variant=variant, timeout_s=300.0)
    problems = [problem for split in task.splits for problem in task.problems(split)]
    assert [(problem.id, grade.reason) for problem, grade in task.failures(problems)] == []
