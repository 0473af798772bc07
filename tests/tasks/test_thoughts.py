"""Every grader looks behind a completion's thoughts: drafts in them do not count, and an open one has no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.engines.contract import SamplingOptions
from bontune.engines.prompts import texts_of
from bontune.engines.transformers import TransformersEngine
from bontune.grading.verdict import Grade, Verdict
from bontune.pools.collect import collect, grade_all
from bontune.tasks import Countdown, Gsm8k, HumanEval, Jsonl, Math, Mbpp, RowsTask, Task, task_from_rows
from bontune.tasks.base import HasThoughts
from bontune.verifiers import Oracle

FUNCTION = "def half(x):\n    return x // 2\n"
WRONG = "def half(x):\n    return x\n"


def rewards(task: Task, *completions: str) -> list[float]:
    (problem,) = task.problems(task.splits[0])
    return [grade.reward for grade in task.grade([problem], [completions])[0]]


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def math_of(tmp_path: Path, **options: Any) -> Math:
    return Math(data=written(tmp_path / "test.jsonl", {"problem": "2+2?", "answer": "4"}), **options)


def rows_of(tmp_path: Path, answer: str = "4", **options: Any) -> Jsonl:
    return Jsonl(data=written(tmp_path / "rows.jsonl", {"prompt": "2+2?", "answer": answer}), **options)


def test_math(tmp_path: Path) -> None:
    task = math_of(tmp_path)
    assert isinstance(task, HasThoughts)
    right = [r"<think>\boxed{5}?</think>\boxed{4}", r"\boxed{5}</think> So \boxed{4}", r"[THINK]5[/THINK]\boxed{4}"]
    wrong = [
        r"<think>maybe \boxed{4}</think>The answer is 5.",
        r"<think>perhaps \boxed{4} but",
        r"\boxed{4} </think> \boxed{17}",
        r"\boxed{4}</think>",
        r"<think>\boxed{5}</think>\boxed{4}<think>or",
    ]
    assert rewards(task, *right, *wrong) == [1.0] * 3 + [0.0] * 5
    grade = task.grade(task.problems("test"), [[wrong[1]]])[0][0]
    assert (grade.verdict, grade.answer) == (Verdict.FAILED, None)
    assert "not closed" in grade.reason


def test_gsm8k(tmp_path: Path) -> None:
    task = Gsm8k(data=written(tmp_path / "test.jsonl", {"question": "2+2?", "answer": "#### 4"}))
    assert rewards(task, "<think>#### 5</think>#### 4", "<think>#### 4</think>It is 5.", "<think>#### 4") == [1, 0, 0]
    problem = Problem(id="1", prompt="", reference="4")
    texts = ("<think>#### 5</think>#### 4", "<think>#### 4")
    assert [Gsm8k.grade_one(problem, text).reward for text in texts] == [1, 0]


def test_programs(tmp_path: Path) -> None:
    row = {
        "task_id": "Own/0",
        "prompt": 'def half(x):\n    """Half of x, rounded down."""\n',
        "entry_point": "half",
        "canonical_solution": "    return x // 2\n",
        "test": "def check(candidate):\n    assert candidate(7) == 3\n",
    }
    humaneval = HumanEval(data=written(tmp_path / "humaneval.jsonl", row))
    right = [
        f"<think>A draft:\n```python\n{WRONG}```\n</think>\n\n{FUNCTION}",
        f"<think>Let me see.</think>\n\n```python\n{FUNCTION}```",
        "Hm.\n</think>\n\n    return x // 2",
        f"<think>Hm.</think><answer>{FUNCTION}</answer>",
    ]
    wrong = [
        f"<think>A draft:\n```python\n{FUNCTION}```\n</think>\n\nI cannot say.",
        f"<think>\n```python\n{FUNCTION}```\n",
        f"{FUNCTION}</think>\n{WRONG}",
    ]
    assert rewards(humaneval, *right, *wrong) == [1.0] * 4 + [0.0] * 3
    mbpp_row = {"task_id": 11, "text": "Halve.", "code": FUNCTION, "test_list": ["assert half(7) == 3"]}
    mbpp = Mbpp(data=written(tmp_path / "mbpp.jsonl", mbpp_row))
    (problem,) = mbpp.problems("test")
    grades = mbpp.grade([problem], [[right[0], wrong[0], wrong[1]]])[0]
    assert [grade.reward for grade in grades] == [1, 0, 0]


def test_countdown() -> None:
    task = Countdown()
    problem = task.problems("test")[0]
    texts = [f"<think>1+1</think>\n{problem.reference}", f"<think>{problem.reference}</think>1+1", problem.reference]
    assert [grade.reward for grade in task.grade([problem], [texts])[0]] == [1, 0, 1]


def test_rows(tmp_path: Path) -> None:
    texts = ("<think>5</think>\n4", "<think>4</think>5", "<think>4", "4")
    for grader in ("exact", "last_number"):
        assert rewards(rows_of(tmp_path, grader=grader), *texts) == [1, 0, 0, 1], grader
        assert rewards(rows_of(tmp_path, grader=grader, thoughts="open"), "4", "5</think>4") == [0, 1]
    assert rewards(rows_of(tmp_path, grader="last_number", thoughts="none"), "5</think>4<think>3") == [0]
    assert rewards(rows_of(tmp_path, thoughts=["<a>", "</a>"]), "<a>5</a>4", "<think>5</think>4") == [1, 0]
    assert rewards(rows_of(tmp_path, answer="<think>2+2</think>4"), "<think>2+2</think>4", "4") == [1, 0]
    with pytest.raises(BontuneError, match="thoughts"):
        rows_of(tmp_path, thoughts="some")


def test_a_grader_of_ones_own_gets_what_it_asks_for() -> None:
    seen: list[str] = []

    def grader(row: dict[str, Any], completion: str) -> bool:
        seen.append(completion)
        return completion.endswith(row["answer"])

    texts = ["<think>5</think>\n4", "<think>4"]
    task = task_from_rows([{"prompt": "2+2?", "answer": "4"}], grader)
    grades = grade_all(task, task.problems("all"), [texts], None, ["<think>"])[0]
    assert seen == texts, "as the model wrote it"
    assert [(grade.reward, grade.answer) for grade in grades] == [(1, "4"), (1, None)], "votes look behind thoughts"
    seen.clear()
    task = task_from_rows([{"prompt": "2+2?", "answer": "4"}], grader, thoughts="auto")
    assert rewards(task, *texts) == [1, 0]
    assert seen == ["4"]


def test_a_prompt_that_opens_a_thought(tmp_path: Path) -> None:
    task = math_of(tmp_path)
    problems, texts = task.problems("test"), [[r"\boxed{4}", r"5?</think>\boxed{4}", r"<think></think>\boxed{4}"]]
    for prompt, expected in (("<think>\n", [0, 1, 1]), ("<think>\n\n</think>\n\n", [1, 1, 1]), ("", [1, 1, 1])):
        grades = grade_all(task, problems, texts, None, [f"2+2?<|assistant|>{prompt}"])[0]
        assert [grade.reward for grade in grades] == expected, prompt


def test_a_chat_template_that_opens_a_thought_is_known_to_the_grader() -> None:
    """A random model of two layers never writes a closing tag: it has no answer, whatever it says."""
    tokenizer = tiny.tokenizer()
    engine = TransformersEngine(tiny.model(), tokenizer)
    problem = Problem(id="1", prompt="a", messages=({"role": "user", "content": "a"},), reference="")

    def passed(problem: Problem, completion: str) -> Grade:
        return Grade(reward=1.0, verdict=Verdict.PASSED)

    for end, reward in (("", 1.0), ("<think>", 0.0)):
        tokenizer.chat_template = "{{ messages[0]['content'] }}=" + end
        assert texts_of(engine, [problem.messages]) == [f"a={end}"]
        task = RowsTask({"all": [problem]}, passed, name="any", thoughts="auto")
        options = SamplingOptions(num_samples=4, max_new_tokens=6)
        (graded,) = collect(engine, task, Oracle(), [problem], options, key=(0,))
        assert [grade.reward for grade in graded.grades[0]] == [reward] * 4
