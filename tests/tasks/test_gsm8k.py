"""GSM8K: which number a completion states, and the data themselves where they are there."""

from __future__ import annotations

import json
import re
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError
from bontune.grading.answers.numbers import final_number, single_number
from bontune.grading.verdict import Verdict
from bontune.tasks import Gsm8k, Problem, Task, load_task
from bontune.tasks.fewshot import GSM8K_EXAMPLES, GSM8K_WORDING

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "gsm8k_test.jsonl.gz").is_file(), reason="the GSM8K files are not beside the checkout"
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6 * 7 = 42\n#### 42", 42),
        (r"The answer is \(42\).", 42),
        (r"The answer is \[-42\].", -42),
        (r"#### \(42\)", 42),
        ("The answer is 42 m².", 42),
        ("The answer is 42 m^2.", 42),
        ("The answer is 42²", None),
        ("The answer is 42^2", None),
        ("The answer is 42°.", 42),
        ("The answer is 42 ℃.", 42),
        ("The answer is 5 km/h.", 5),
        ("The answer is $5/hour.", 5),
        ("The answer is 5/6.", None),
        ("The answer is 5/x.", None),
        ("The answer is ₹500.", 500),
        ("The answer is -¥500", -500),
        ("The answer is €500 or ₹600", None),
        ("#### $1,234.50", Fraction(2469, 2)),
        ("#### -5", -5),
        ("#### 42\n", 42),
        ("####42 apples.", 42),
        ("\\boxed{42}", 42),
        ("$\\boxed{\\$1{,}200}$", 1200),
        ("\\boxed{1,\\!200}", 1200),
        ("\\boxed{42\\text{ apples}}", 42),
        ("\\boxed{50\\%}", 50),
        ("\\boxed{x = 7}", 7),
        ("\\boxed{42.00}", 42),
        ("The answer is 42.", 42),
        ("The final answer is: $42$.", 42),
        ("**Answer:** 42 dollars", 42),
        ("so the answer is $3.50 per hour. That was easy.", Fraction(7, 2)),
        ("The answer is:\n42", 42),
        ("The answer is \\boxed{5}, or 6", 5),
        ("**Answer**: 42", 42),
        ("__Answer__: 42", 42),
        ("Answer: **$42**", 42),
        ("**Final Answer**\n\n42", 42),
        ("Answer = 42", 42),
        ("Answer\uff1a42", 42),
        ("Answer:\n- 42 apples", 42),
        ("Answer:\n\u2022 42 apples", 42),
        ("Final answer: 42 \u2705", 42),
        ("The answer is: \\boxed{42}.", 42),
        ("The answer is `42`.", 42),
        ("#### 42 -", 42),
        ("#### 42 \u2014", 42),
        ("#### 42 \u2013 done", 42),
        ("#### 42 \u2713", 42),
        ("#### 42 \u2714\ufe0f", 42),
        ("#### 42<|im_end|>", 42),
        ("#### 42<|eot_id|><|start_header_id|>", 42),
        ("#### 42</s>", 42),
        ("#### 42<end_of_turn>", 42),
        ("#### 42<\uff5cend\u2581of\u2581sentence\uff5c>", 42),
        ("#### \u201342", -42),
        ("#### \u201042", -42),
        ("The answer is \uff0d42.", -42),
        ("The answer is: - 42", -42),
        ("#### 1 000", 1000),
        ("\\boxed{1\u202f000}", 1000),
        ("#### 4\u200b2", 42),
        ("#### 42\nThe answer is reasonable because 6 * 7 = 42.", 42),
        ("#### 42 The answer is correct, as 6 * 7 = 42.", 42),
        ("#### 42\nThe answer is a reasonable number, below 100.", 42),
        ("\\boxed{42}\n\nThis answer is right: 84 / 2 = 42.", 42),
        ("The answer is 42 because 6 * 7 = 42.", 42),
        ("The answer is right: 42.", 42),
        # the last one counts
        ("The answer is 1.\n#### 2", 2),
        ("#### 2\nWait. The answer is 3.", 3),
        ("\\boxed{1} #### 2 \\boxed{3}", 3),
        ("#### 42\nThe answer is obvious.", 42),
        ("#### 42\nThe answer is 17.", 17),
        # not one number
        ("#### 42\nThe answer is 17 or 42.", None),
        ("The answer is either 42 or 17", None),
        ("The answer is not 42 but 17", None),
        ("#### 3\u20135", None),
        ("#### 42 - 3", None),
        ("#### 42 - x", None),
        ("#### 42<|im_end|>17", None),
        ("#### 42 \u2713 17", None),
        ("#### 42 \u274c", None),
        ("#### > 42", None),
        ("#### ~42", None),
        ("#### 1/2", None),
        ("#### 1e3", None),
        ("Answer:\n- 42\n- 17", None),
        ("#### 42 or 17", None),
        ("\\boxed{42 \\text{ or } 17}", None),
        ("\\boxed{42, 17}", None),
        ("The answer is 42 and 17.", None),
        ("\\boxed{6 \\cdot 7}", None),
        ("\\boxed{6^2}", None),
        ("\\boxed{\\sqrt{42}}", None),
        ("\\boxed{42!}", None),
        ("\\boxed{\\frac{84}{2}}", None),
        ("\\boxed{2 \\text{ million}}", None),
        ("#### 42k", None),
        ("\\boxed{42", None),
        ("\\boxed{}", None),
        ("#### 1\n#### none", None),
        ("42", None),
        ("", None),
        ("#### \u0664\u0662", None),
        ("#### " + "9" * 300, None),
    ],
)
def test_the_number_that_is_stated_last(text: str, value: Fraction | int | None) -> None:
    assert final_number(text) == value


def test_statements() -> None:
    assert single_number("-3") == single_number("\u22123") == -3
    assert single_number("5-3") is single_number("1 2") is single_number("a") is None


def test_hostile_texts_take_no_time() -> None:
    for piece in (
        "#### ",
        "answer is ",
        "answer" + " " * 50,
        "\\boxed{",
        "1,",
        "answer: 1",
        "$",
        "answer is .1",
        "####1 ",
    ):
        start = time.perf_counter()
        final_number(piece * (200_000 // len(piece)))
        assert time.perf_counter() - start < 5.0, piece  # 0.1 s on an idle core


@needs_data
def test_every_worked_answer_passes() -> None:
    task = load_task("gsm8k", data=str(DATA))
    assert isinstance(task, Task)
    splits = {split: task.problems(split) for split in task.splits}
    assert {split: len(problems) for split, problems in splits.items()} == {
        "train": 6_973,
        "validation": 500,
        "test": 1_319,
    }
    problems = [problem for part in splits.values() for problem in part]
    assert len({problem.id for problem in problems}) == len(problems)
    assert len({" ".join(problem.row["question"].split()) for problem in problems}) == len(problems)
    for problem in problems:
        number = Fraction(problem.row["answer"].rpartition("#### ")[2].replace(",", ""))
        answer, box, wrong = task.grade(
            [problem], [[problem.row["answer"], f"So \\boxed{{{number}}}", f"The answer is {number + 1}."]]
        )[0]
        assert (answer.reward, box.reward, wrong.reward) == (1, 1, 0), problem.id
        assert answer.answer == box.answer == str(number)
    assert task.failures(splits["test"]) == []


def task_of(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> Gsm8k:
    path = tmp_path / "gsm8k_test.json"
    path.write_text(json.dumps(rows))
    return Gsm8k(data=tmp_path, **options)


def test_prompts(tmp_path: Path) -> None:
    row = {"question": "Two and two?", "answer": "2+2=<<2+2=4>>4\n#### 4"}
    (problem,) = task_of(tmp_path, row).problems("test")
    assert problem.reference == "4"
    assert problem.prompt.endswith("\n\nQuestion: Two and two?\nAnswer:")
    assert "####" in problem.prompt
    assert "\\boxed{}" in problem.messages[0]["content"]
    few = task_of(tmp_path, row, shots=8)
    (problem,) = few.problems("test")
    assert few.stop == ("\nQuestion:",)
    assert problem.prompt.count("\n#### ") == 8
    assert len(problem.messages) == 17
    assert all("\\boxed{" in message["content"] for message in problem.messages)
    assert not any("####" in message["content"] for message in problem.messages)


def test_worked_examples_are_right() -> None:
    assert len(GSM8K_EXAMPLES) == 8
    for example in GSM8K_EXAMPLES:
        problem = Problem(id="1", prompt="", reference=example.answer)
        texts = [
            GSM8K_WORDING.text("?", [example]).partition("\n\n")[0],
            GSM8K_WORDING.messages("?", [example])[1]["content"],
        ]
        assert [Gsm8k.grade_one(problem, text).verdict for text in texts] == [Verdict.PASSED] * 2
        sums = re.findall(r"((?:\d+(?:\.\d+)? [-+*/] )+\d+(?:\.\d+)?) = (\d+(?:\.\d+)?)", example.working)
        assert sums
        assert all(abs(eval(left) - float(right)) < 1e-9 for left, right in sums)


@pytest.mark.parametrize("answer", ["4", "so\n#### four", "so\n#### 4 or 5", "####"])
def test_an_answer_that_does_not_parse(tmp_path: Path, answer: str) -> None:
    rows = [{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": answer}]
    with pytest.raises(BontuneError, match=r"gsm8k_test\.json, item 2: the answer does not end in #### and a number"):
        task_of(tmp_path, *rows).problems("test")
