"""HumanEval: prompts, splits, and programs that really run in the sandbox."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError
from bontune.grading.verdict import Verdict
from bontune.tasks import HumanEval, Task, load_task
from shared_data import DATA, needs

needs_data = needs("humaneval.jsonl.gz")
ROW = {
    "task_id": "Own/0",
    "prompt": 'from typing import List\n\n\ndef half(x: int) -> int:\n    """Half of x, rounded down."""\n',
    "entry_point": "half",
    "canonical_solution": "    return x // 2\n",
    "test": "def check(candidate):\n    assert candidate(7) == 3\n    assert candidate(-3) == -2\n",
}


def task_of(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> HumanEval:
    path = tmp_path / "humaneval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return HumanEval(data=path, **options)


def test_every_form_of_completion(tmp_path: Path) -> None:
    task = task_of(tmp_path, ROW, timeout_s=2.0)
    (problem,) = task.problems("test")
    full = "def half(x):\n    return x // 2\n"
    forms = [
        "    return x // 2",
        "    # halve it\n    return x // 2\n",
        full,
        f"```python\n{full}```",
        f"Here:\n\n```python\nfrom __future__ import annotations\n\n{full}```\n\nIt halves.",
        f"```python\n{ROW['prompt']}    return x // 2\n```",
        "```python\n    return x // 2\n```",
        "```python\nhalf = lambda x: x // 2\n```",
        "```python\ndef half(x) -> 'List[int]':\n    return helper(x)\n\ndef helper(x):\n    return x >> 1\n```",
    ]
    grades = task.grade([problem], [forms])[0]
    assert [grade.verdict for grade in grades] == [Verdict.PASSED] * len(forms), [grade.reason for grade in grades]
    answers = [grade.answer for grade in grades]
    assert answers[0] == answers[1] == answers[5] == answers[6]
    assert answers[2] == answers[3]
    assert len(set(answers)) == 5
    wrong = {
        "    return x / 2": Verdict.FAILED,
        "    pass": Verdict.FAILED,
        "return x // 2": Verdict.FAILED,
        "I cannot say.": Verdict.FAILED,
        "": Verdict.FAILED,
        "    while True: pass": Verdict.TIMEOUT,
        "    import os\n    os._exit(0)": Verdict.CRASHED,
        "    raise SystemExit(0)": Verdict.FAILED,
        "    return '\ud800'": Verdict.FAILED,
        "    return 1\0": Verdict.FAILED,
        "(" * 10_000: Verdict.FAILED,
    }
    for grade, (text, verdict) in zip(task.grade([problem], [list(wrong)])[0], wrong.items(), strict=True):
        assert (grade.verdict, grade.reward) == (verdict, 0.0), (text[:40], grade)
        assert grade.reason, text[:40]


def test_a_function_without_a_body_is_said(tmp_path: Path) -> None:
    task = task_of(tmp_path, ROW)
    (problem,) = task.problems("test")
    texts = ["```python\ndef other(x):\n    return x // 2\n```", "    pass", "    return x"]
    reasons = [grade.reason for grade in task.grade([problem], [texts])[0]]
    assert [reason.endswith("; the function has no body") for reason in reasons] == [True, True, False]


def test_equal_programs_run_once(tmp_path: Path) -> None:
    task = task_of(tmp_path, ROW)
    (problem,) = task.problems("test")
    noisy = "    import time\n    time.sleep(0.3)\n    return x // 2\n"
    # 200 runs of 0.6 s each on however many cores would take longer than the limit of the test
    grades = task.grade([problem], [[noisy, "    return 0"] * 200])[0]
    assert [grade.reward for grade in grades] == [1.0, 0.0] * 200
    assert task.grade([problem], [[]])[0] == []


def test_a_broken_test_is_the_graders_failure(tmp_path: Path) -> None:
    task = task_of(tmp_path, {**ROW, "test": "def check(candidate):\n    assert candidate(absent) == 3\n"})
    (grade,) = task.grade([task.problems("test")[0]], [["    return 3"]])[0]
    assert grade.verdict is Verdict.GRADER_ERROR
    assert grade.reward != grade.reward
    assert "absent" in grade.reason


def test_references_are_checked_on_demand(tmp_path: Path) -> None:
    wrong = {**ROW, "task_id": "Own/1", "canonical_solution": "    return x\n"}
    assert len(task_of(tmp_path, ROW, wrong).problems("test")) == 2
    with pytest.raises(
        BontuneError, match=r"1 of 2 references do not pass their own tests: Own/1 \(failed: .*correct or"
    ):
        task_of(tmp_path, ROW, wrong, check_references=True).problems("test")
    assert len(task_of(tmp_path, ROW, check_references=True).problems("test")) == 1


def test_prompts_and_formats(tmp_path: Path) -> None:
    task = task_of(tmp_path, ROW)
    (problem,) = task.problems("test")
    assert problem.prompt == ROW["prompt"]
    assert "\ndef" in task.stop
    (message,) = problem.messages
    assert message["role"] == "user"
    assert f"```python\n{ROW['prompt']}```" in message["content"]
    assert task_of(tmp_path, ROW, format="base").problems("test")[0].messages == ()
    chat = task_of(tmp_path, ROW, format="chat")
    assert (chat.stop, chat.problems("test")[0].prompt) == ((), message["content"])


@pytest.mark.parametrize(
    ("row", "phrase"),
    [
        ({**ROW, "test": "assert half(2) == 1"}, "line 1: the test does not define check(candidate)"),
        ({**ROW, "prompt": None}, "column 'prompt' holds NoneType"),
        ({"task_id": "1", "prompt": "p"}, "entry_point, canonical_solution, test are missing"),
    ],
)
def test_malformed_rows(tmp_path: Path, row: dict[str, Any], phrase: str) -> None:
    with pytest.raises(BontuneError, match=re.escape(phrase)):
        task_of(tmp_path, row).problems("test")


def test_options(tmp_path: Path) -> None:
    for options, phrase in [
        ({"variant": "puls"}, "variant must be 'base' or 'plus', not 'puls', did you mean 'plus'"),
        ({"train_share": 1.0}, "train_share must be below 1, not 1.0"),
        ({"timeout_s": 0}, "timeout_s must be above 0, not 0"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"memory_mb": 1.5}, "memory_mb must be a whole number, not 1.5"),
        ({"check_references": 1}, "check_references must be true or false, not 1"),
    ]:
        with pytest.raises(BontuneError, match=phrase):
            task_of(tmp_path, ROW, **options)
    inputs = {**ROW, "plus_input": [[1]]}
    with pytest.raises(BontuneError, match=r"not as tests; give the file in the original format"):
        task_of(tmp_path, inputs, variant="plus").problems("test")


@needs_data
def test_splits_of_the_data() -> None:
    task = load_task("humaneval", data=str(DATA))
    assert isinstance(task, Task)
    everything = task.problems("test")
    assert (task.splits, len(everything)) == (("test",), 164)
    halves = load_task("humaneval", data=DATA, train_share=0.5)
    train, test = halves.problems("train"), halves.problems("test")
    assert (len(train), len(test)) == (82, 82)
    assert sorted(p.id for p in train + test) == sorted(p.id for p in everything)
    tenth = load_task("humaneval", data=DATA, train_share=0.1).problems("train")
    assert {p.id for p in tenth} < {p.id for p in train}
    assert load_task("humaneval", data=DATA, train_share=0.5).problems("train") == train


@needs_data
def test_references_of_the_data_pass_and_empty_bodies_do_not() -> None:
    task = load_task("humaneval", data=DATA)
    problems = task.problems("test")[::6] + [
        p for p in task.problems("test") if p.id in ("HumanEval/32", "HumanEval/38")
    ]
    assert task.failures(problems) == []
    for problem in problems[:10]:
        fenced = f"```python\n{problem.prompt}{problem.reference}\n```"
        grades = task.grade([problem], [[problem.reference, fenced, "    pass"]])[0]
        assert [grade.reward for grade in grades] == [1, 1, 0], problem.id
        assert grades[0].answer == grades[1].answer


@needs_data
def test_a_sample_of_humaneval_plus() -> None:
    task = load_task("humaneval", data=DATA, variant="plus")
    assert (task.name, len(task.problems("test"))) == ("humaneval+", 164)
    wanted = [f"HumanEval/{number}" for number in (0, 1, 32, 38, 115)]  # 32 is mended here
    problems = [problem for problem in task.problems("test") if problem.id in wanted]
    assert task.failures(problems) == []
    zero = next(problem for problem in problems if problem.id == "HumanEval/32")
    assert [grade.reward for grade in task.grade([zero], [["    return 0.0", "    return float('nan')"]])[0]] == [0, 0]


@needs_data
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("variant", ["base", "plus"])
def test_every_reference_of_the_data_passes(variant: str) -> None:
    task = load_task("humaneval", data=DATA, variant=variant, timeout_s=300.0)
    assert [(p.id, g.reason) for p, g in task.failures(task.problems("test"))] == []
