"""A user's own data: what is read, what is refused with which words, and graders that fail."""

from __future__ import annotations

import gzip
import json
import math
import re
import threading
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bontune.base.errors import BontuneError
from bontune.grading.answers.numbers import last_number
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks import Jsonl, load_task, names, task_from_rows
from bontune.tasks.base import Task

ROWS = [{"prompt": f"{i}+1?", "answer": str(i + 1), "level": 1 + i % 5} for i in range(50)]


def write(path: Path, rows: list[Any] = ROWS) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.endswith(".json"):
        text = json.dumps(rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json"])
def test_reads_every_form_alike(tmp_path: Path, name: str) -> None:
    task = load_task("jsonl", data=str(write(tmp_path / name)))
    assert isinstance(task, Task)
    problems = task.problems("all")
    assert [(p.prompt, p.reference, p.level, p.row) for p in problems] == [
        (row["prompt"], row["answer"], row["level"], row) for row in ROWS
    ]
    assert len({problem.id for problem in problems}) == 50


def test_the_hold_out_is_seeded_disjoint_and_keeps_equal_prompts_together(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS + ROWS)
    task = Jsonl(data=path, hold_out=0.2)
    train, test = task.problems("train"), task.problems("test")
    assert (len(train), len(test)) == (80, 20)
    assert not {p.prompt for p in train} & {p.prompt for p in test}
    assert Jsonl(data=path, hold_out=0.2).problems("test") == test
    assert Jsonl(data=path, hold_out=0.2, seed=1).problems("test") != test
    with pytest.raises(BontuneError, match=r"no split 'test'.*train, all"):
        Jsonl(data=path, hold_out=0).problems("test")
    with pytest.raises(BontuneError, match="hold_out"):
        Jsonl(data=path, hold_out=1.0)


def test_splits_from_files(tmp_path: Path) -> None:
    train, test = write(tmp_path / "a.jsonl", ROWS[:30]), write(tmp_path / "b.jsonl", ROWS[30:])
    for task in (Jsonl(data=train, test_data=test), Jsonl(data={"train": train, "test": str(test)})):
        assert (len(task.problems("train")), len(task.problems("test"))) == (30, 20)
        assert not {p.id for p in task.problems("train")} & {p.id for p in task.problems("test")}
        with pytest.raises(BontuneError, match="did you mean 'train'"):
            task.problems("trian")
    assert len(Jsonl(data=train, test_data=test, limit=7).problems("train")) == 7


def test_the_text_as_a_message(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": "2+2", "answer": "4"}])
    assert Jsonl(data=path).problems("all")[0].messages == ()
    (problem,) = Jsonl(data=path, template="Q: {prompt}", chat=True).problems("all")
    assert problem.messages == ({"role": "user", "content": problem.prompt},)
    with pytest.raises(BontuneError, match="chat must be true or false, not 'yes'"):
        Jsonl(data=path, chat="yes")  # type: ignore[arg-type]


def test_columns_template_and_stop(tmp_path: Path) -> None:
    rows = [{"question": "2+2?", "final": 4, "hint": "count", "id": "q1", "level": "Level 3"}]
    task = Jsonl(
        data=write(tmp_path / "rows.jsonl", rows),
        prompt="question",
        answer="final",
        template="{hint}: {prompt} \\boxed{} {{hint}}\n",
        stop="\n\n",
    )
    (problem,) = task.problems("all")
    assert problem.prompt == "count: 2+2? \\boxed{} {hint}\n"
    assert (problem.reference, problem.id, problem.level, task.stop) == ("4", "q1", 3, ("\n\n",))


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"", "holds no rows"),
        (b"\n\n", "holds no rows"),
        (b'{"prompt": "a", "answer": "b"}\n{"prompt": \n', "line 2 is not JSON"),
        (b'{"prompt": "a", "answer": "b"}\n\n[1]\n', "line 3: a JSON list, not an object"),
        (
            b'{"promt": "a", "answer": "b"}\n',
            "line 1: no column 'prompt', did you mean 'promt'?; there are: promt, answer",
        ),
        (b'{"prompt": "a"}\n', "line 1: no column 'answer'; there are: prompt"),
        (b'{"prompt": ["a"], "answer": "b"}\n', "column 'prompt' holds list"),
        (b'{"prompt": "a", "answer": null}\n', "column 'answer' holds NoneType"),
        (b'\xff\xfe{"prompt": 1}\n', "line 1 is not UTF-8"),
        (b"[" * 10**5 + b"\n", "line 1"),
        (b'{"prompt": "a", "answer": "b", "id": 1}\n' * 2, "the id '1' occurs twice"),
    ],
)
def test_malformed_data_is_refused_with_its_place(tmp_path: Path, content: bytes, phrase: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(BontuneError, match=re.escape(phrase)) as caught:
        Jsonl(data=path)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}' * 1000)[:40])
    (tmp_path / "object.json").write_text('{"prompt": "a"}')
    (tmp_path / "lines.json").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    (tmp_path / "folder.jsonl").mkdir()
    for name, phrase in [
        ("tran.jsonl", "There is no file .*did you mean .*train.jsonl"),
        ("absent/train.jsonl", "There is no file"),
        ("rows.txt", "files of rows end in"),
        ("bad.jsonl.gz", "cannot be read"),
        ("cut.jsonl.gz", "cannot be read"),
        ("object.json", "not a list"),
        ("lines.json", "is not JSON in line 2"),
        ("folder.jsonl", "is a folder"),
    ]:
        with pytest.raises(BontuneError, match=phrase):
            Jsonl(data=tmp_path / name)


def test_a_byte_order_mark_and_line_separators_in_texts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\ufeff".encode() + '{"prompt": "a\u2028b\x85c", "answer": "b"}\r\n'.encode())
    (problem,) = Jsonl(data=path).problems("all")
    assert problem.prompt == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"template": "no column"}, "names no column"),
        ({"template": "{promt}"}, "did you mean 'prompt'"),
        ({"template": "{prompt} \\frac{a}{b}"}, "write {{a}}"),
        ({"limit": 0}, "limit must be"),
        ({"answer": None}, "needs a column"),
        ({"answer": "final", "grader": "math:sqrt"}, "no column 'final'"),
        ({"grader": "exakt"}, "did you mean 'exact'"),
        ({"grader": "no_such_module:grade"}, "cannot be imported: ModuleNotFoundError"),
        ({"grader": "math:sqr"}, "math has no function 'sqr', did you mean 'sqrt'"),
        ({"grader": "absent.py:grade"}, "there is no file absent.py"),
        ({"stop": ["", "x"]}, "stop"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], phrase: str) -> None:
    with pytest.raises(BontuneError, match=re.escape(phrase)):
        Jsonl(data=write(tmp_path / "rows.jsonl"), **options)


def test_registry_names_the_nearest() -> None:
    assert {"countdown", "gsm8k", "humaneval", "jsonl", "math", "mbpp"} <= set(names())
    for name, options, phrase in [
        ("countdwon", {}, "did you mean 'countdown'"),
        ("countdown", {"sed": 1}, "no option 'sed', did you mean 'seed'"),
        ("jsonl", {"data": "a", "promt": "q"}, "did you mean 'prompt'"),
        ("jsonl", {}, "needs the option 'data'"),
    ]:
        with pytest.raises(BontuneError, match=re.escape(phrase)):
            load_task(name, **options)


def test_exact(tmp_path: Path) -> None:
    task = Jsonl(data=write(tmp_path / "rows.jsonl", [{"prompt": "p", "answer": "two  words\n"}]))
    grades = task.grade([task.problems("all")[0]], [[" two words", "two\twords ", "Two words", "", "two"]])[0]
    assert [grade.reward for grade in grades] == [1, 1, 0, 0, 0]
    assert [grade.answer for grade in grades] == ["two words", "two words", "Two words", None, "two"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 42", 42),
        ("so 3 + 4 = 7.", 7),
        ("$1,234,567.50", Fraction(2469135, 2)),
        ("-$3", -3),
        ("x = -3", -3),
        ("10-3", 3),
        ("\u22125", -5),
        (".5", Fraction(1, 2)),
        ("0.50", Fraction(1, 2)),
        ("1e3", 1000),
        ("2E-1", Fraction(1, 5)),
        ("1,2,3", 3),
        ("007", 7),
        ("42%", 42),
        ("none", None),
        ("", None),
        ("\u0664\u0662", None),
        ("9" * 101, None),
        ("5 " + "9" * 10**6, None),
        ("1e999999999", 999999999),  # no such exponent: read as the number after the e, not computed
    ],
)
def test_last_number(text: str, value: Fraction | int | None) -> None:
    assert last_number(text) == value


def test_last_number_is_fast_on_hostile_texts() -> None:
    for text in ("1," * 10**5, "1,111" * 10**5, "-" * 10**6, "1." * 10**5, "$" * 10**6, "1e" * 10**5, "111," * 10**5):
        start = time.perf_counter()
        last_number(text)
        assert time.perf_counter() - start < 5.0, text[:10]  # linear: 0.1 s on an idle core; quadratic: minutes


def test_last_number_grader(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": "p", "answer": "2*21=42\n#### 42"}])
    task = Jsonl(data=path, grader="last_number")
    grades = task.grade([task.problems("all")[0]], [["The answer is 42.", "#### 42.00", "42 or 43", "none"]])[0]
    assert [grade.reward for grade in grades] == [1, 1, 0, 0]
    assert [grade.answer for grade in grades] == ["42", "42", "43", None]
    with pytest.raises(BontuneError, match="line 1: column 'answer' holds no number"):
        Jsonl(data=write(tmp_path / "words.jsonl", [{"prompt": "p", "answer": "w"}]), grader="last_number")


def test_a_grader_from_a_file_gets_the_row(tmp_path: Path) -> None:
    (tmp_path / "my_graders.py").write_text(
        "def length(row, completion):\n    return len(completion) == row['n']\nnot_callable = 3\n"
    )
    path = write(tmp_path / "rows.jsonl", [{"prompt": "p", "n": 2}])
    task = Jsonl(data=path, grader=f"{tmp_path}/my_graders.py:length")
    grades = task.grade([task.problems("all")[0]], [["ab", "abc", ""]])[0]
    assert [grade.verdict for grade in grades] == [Verdict.PASSED, Verdict.FAILED, Verdict.FAILED]
    assert [grade.answer for grade in grades] == ["ab", "abc", None]
    with pytest.raises(BontuneError, match=r"has no function 'lenght', did you mean 'length'"):
        Jsonl(data=path, grader=f"{tmp_path}/my_graders.py:lenght")
    (tmp_path / "broken.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(BontuneError, match="cannot be imported: SystemExit: 3"):
        Jsonl(data=path, grader=f"{tmp_path}/broken.py:grade")


def failing(row: dict[str, Any], completion: str) -> Any:
    if completion == "raise":
        raise KeyError("gold")
    if completion == "exit":
        raise SystemExit(1)
    if completion == "recurse":
        return failing(row, completion)
    return {
        "nan": math.nan,
        "inf": -math.inf,
        "none": None,
        "text": "1.0",
        "complex": 1j,
        "huge": 10**400,
        "decimal": Decimal("NaN"),
        "array": np.array([1.0, 1.0]),
        "grade": Grade(reward=math.nan, verdict=Verdict.PASSED),
    }[completion]


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("raise", "KeyError: 'gold'"),
        ("exit", "SystemExit: 1"),
        ("recurse", "RecursionError"),
        ("nan", "ValueError: the grader returned nan"),
        ("inf", "ValueError: the grader returned -inf"),
        ("none", "TypeError: the grader returned None"),
        ("text", "TypeError: the grader returned '1.0'"),
        ("complex", "TypeError: the grader returned 1j"),
        ("huge", "OverflowError"),
        ("decimal", "ValueError: the grader returned nan"),
        ("array", "ValueError"),
        ("grade", "ValueError: the grader returned a Grade with reward nan"),
    ],
)
def test_a_grader_that_fails_is_a_grader_error_and_never_a_reward(completion: str, reason: str) -> None:
    task = task_from_rows([{"prompt": "p"}], failing)
    (grade,) = task.grade([task.problems("all")[0]], [[completion]])[0]
    assert grade.verdict is Verdict.GRADER_ERROR
    assert math.isnan(grade.reward)
    assert grade.reason.startswith(reason)


@pytest.mark.parametrize(
    ("result", "reward", "verdict"),
    [
        (True, 1.0, Verdict.PASSED),
        (False, 0.0, Verdict.FAILED),
        (0.25, 0.25, Verdict.PASSED),
        (-1, -1.0, Verdict.FAILED),
        (np.float32(0.5), 0.5, Verdict.PASSED),
        (np.bool_(True), 1.0, Verdict.PASSED),
        (torch.tensor(0.5), 0.5, Verdict.PASSED),
        (Fraction(1, 2), 0.5, Verdict.PASSED),
        (Decimal("0.5"), 0.5, Verdict.PASSED),
        (Decimal("-1.0"), -1.0, Verdict.FAILED),
    ],
)
def test_numbers_and_bools_of_any_kind_are_rewards(result: Any, reward: float, verdict: Verdict) -> None:
    task = task_from_rows([{"prompt": "p"}], lambda row, completion: result)
    (grade,) = task.grade([task.problems("all")[0]], [["a  b"]])[0]
    assert (grade.reward, grade.verdict, grade.answer) == (reward, verdict, "a b")


def test_a_grade_is_passed_on() -> None:
    wanted = Grade(reward=0.5, verdict=Verdict.TIMEOUT, answer="x", reason="slow")
    task = task_from_rows([{"prompt": "p"}], lambda row, completion: wanted)
    assert task.grade([task.problems("all")[0]], [["a"]])[0] == [wanted]


def test_numbers_in_a_grade_are_plain_ones() -> None:
    """As a database or NumPy gives them: the reward a float, the answer its text."""
    made = Grade(reward=Decimal("1.0"), verdict=Verdict.PASSED, answer=Decimal("1.50"))  # type: ignore[arg-type]
    task = task_from_rows([{"prompt": "p"}], lambda row, completion: made)
    ((grade,),) = task.grade(task.problems("all"), [["a"]])
    assert (grade.reward, type(grade.reward), grade.answer) == (1.0, float, "1.5")


def test_task_from_rows(tmp_path: Path) -> None:
    task = task_from_rows(
        {"train": ROWS[:40], "test": ROWS[40:]}, lambda row, c: c == row["answer"], name="mine", stop=("\n",)
    )
    assert isinstance(task, Task)
    assert (task.name, task.stop, len(task.problems("test"))) == ("mine", ("\n",), 10)
    assert task.grade([task.problems("train")[4]], [["5", "6"]])[0][0].reward == 1.0
    for rows, phrase in [([], "no rows"), ([{"promt": "x"}], "row 1: no column 'prompt'"), (["x"], "not a dictionary")]:
        with pytest.raises(BontuneError, match=phrase):
            task_from_rows(rows, lambda row, completion: True)


def test_a_grader_may_change_its_row_and_has_it_again_for_the_next_completion() -> None:
    def grader(row: dict[str, Any], completion: str) -> bool:
        return bool(row.pop("answer") == completion) and row["parts"].pop() == 1

    task = task_from_rows({"train": [{"prompt": "1+1=", "answer": "2", "parts": [1]}]}, grader)
    problems = task.problems("train")
    rewards = [grade.reward for grade in task.grade(problems, [["2", "2", "3"]])[0]]
    assert rewards == [1.0, 1.0, 0.0]


def test_a_row_may_hold_what_cannot_be_copied() -> None:
    def grader(row: dict[str, Any], completion: str) -> bool:
        with row.pop("lock"):
            return True

    task = task_from_rows({"train": [{"prompt": "1+1=", "lock": threading.Lock()}]}, grader)
    assert [grade.reward for grade in task.grade(task.problems("train"), [["2", "2"]])[0]] == [1.0, 1.0]


def test_an_async_grader_is_told_to_be_a_plain_one() -> None:
    async def grader(row: dict[str, Any], completion: str) -> bool:
        return True

    task = task_from_rows({"train": [{"prompt": "1+1="}]}, grader)  # type: ignore[arg-type]
    ((grade,),) = task.grade(task.problems("train"), [["2"]])
    assert grade.verdict is Verdict.GRADER_ERROR
    assert "the grader is an async function; write it as a plain one" in grade.reason
