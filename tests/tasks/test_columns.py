"""Contract of rows, whatever holds them: an empty cell is no answer, a name is one column, a number is one text."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bontune.base.errors import BontuneError
from bontune.grading.verdict import Verdict
from bontune.tasks import Jsonl, RowsTask, task_from_rows


def always(row: dict[str, Any], completion: str) -> bool:
    return True


def write(path: Path, content: str | bytes | pa.Table) -> Path:
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def references(task: RowsTask) -> list[str]:
    return [problem.reference for problem in task.problems(task.splits[-1])]


# ---- an empty cell ----


@pytest.mark.parametrize("grader", ["exact", "last_number"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt,answer\n1+1?,2\n2+2?,\n"),
        ("a.csv", 'prompt,answer\n1+1?,2\n2+2?,""\n'),
        ("a.csv", "prompt,answer\n1+1?,2\n2+2?, \t\n"),
        ("a.csv.gz", "prompt,answer\n1+1?,2\n2+2?,\n"),
        ("a.jsonl", '{"prompt": "1+1?", "answer": "2"}\n{"prompt": "2+2?", "answer": ""}\n'),
        ("a.jsonl", '{"prompt": "1+1?", "answer": "2"}\n{"prompt": "2+2?", "answer": "\\u00a0\\n"}\n'),
        ("a.jsonl", '{"prompt": "1+1?", "answer": "2"}\n{"prompt": "2+2?", "answer": NaN}\n'),
        ("a.json", '[{"prompt": "1+1?", "answer": "2"}, {"prompt": "2+2?", "answer": " "}]'),
        ("a.parquet", pa.table({"prompt": ["1+1?", "2+2?"], "answer": ["2", ""]})),
        ("a.parquet", pa.table({"prompt": ["1+1?", "2+2?"], "answer": [2.0, float("nan")]})),
    ],
)
def test_an_empty_answer_is_refused_with_its_place(tmp_path: Path, grader: str, name: str, content: Any) -> None:
    place = {"csv": "line 3", "parquet": "row 2", "json": "item 2"}.get(name.split(".")[1], "line 2")
    with pytest.raises(BontuneError, match=f"{place}: column 'answer' is empty; fill it in, or remove the row"):
        Jsonl(data=write(tmp_path / name, content), grader=grader)


def test_an_empty_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match="line 2: column 'prompt' is empty"):
        Jsonl(data=write(tmp_path / "a.csv", "prompt,answer\n,2\n"))
    with pytest.raises(BontuneError, match="row 1: column 'prompt' is empty"):
        task_from_rows([{"prompt": float("nan")}], always)


def test_a_grader_of_ones_own_may_do_without_an_answer(tmp_path: Path) -> None:
    task = Jsonl(data=write(tmp_path / "a.csv", "prompt,answer\n1+1?,2\n2+2?,\n"), grader=always)
    assert references(task) == ["2", ""]


# ---- a name twice ----


@pytest.mark.parametrize(
    ("name", "content", "phrase"),
    [
        ("a.csv", "prompt,answer,answer\n1+1?,2,3\n", "a.csv: the column 'answer' occurs twice; remove or rename one"),
        (
            "a.jsonl",
            '{"prompt": "p", "answer": "1"}\n{"prompt": "p", "answer": "1", "answer": "2"}\n',
            "a.jsonl, line 2: the key 'answer' occurs twice in one object; remove one",
        ),
        ("a.jsonl", '{"prompt": "p", "answer": "1", "m": [{"a": 1, "a": 2}]}\n', "line 1: the key 'a' occurs twice"),
        ("a.json", '[{"prompt": "p", "prompt": "q", "answer": "1"}]', "a.json: the key 'prompt' occurs twice"),
        (
            "a.parquet",
            pa.Table.from_arrays([pa.array(["p"]), pa.array(["1"]), pa.array(["2"])], ["prompt", "answer", "answer"]),
            "a.parquet: the column 'answer' occurs twice",
        ),
    ],
)
def test_a_column_or_key_that_occurs_twice_is_refused(tmp_path: Path, name: str, content: Any, phrase: str) -> None:
    with pytest.raises(BontuneError, match=re.escape(phrase)):
        Jsonl(data=write(tmp_path / name, content))


def test_columns_without_a_name_are_left_alone(tmp_path: Path) -> None:
    """As a spreadsheet writes empty columns behind the last."""
    assert references(Jsonl(data=write(tmp_path / "a.csv", "\ufeffprompt,answer,,\n1+1?,2,,\n"))) == ["2"]


def test_a_table_that_names_a_column_twice_is_refused() -> None:
    table = pa.Table.from_arrays([pa.array(["p"]), pa.array(["q"])], ["prompt", "prompt"])
    with pytest.raises(BontuneError, match="custom: the column 'prompt' occurs twice"):
        task_from_rows(table, always)


# ---- numbers as texts ----


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array([2.0, 0.5, -3.0, None]).slice(0, 3), ["2", "0.5", "-3"]),
        (pa.array([2.0, 2.0**53 - 1]), ["2", "9007199254740991"]),
        (pa.array([Decimal("2.00"), Decimal("1.50"), Decimal("-0.10")]), ["2", "1.5", "-0.1"]),
        (pa.array([100, 2**63 - 1]), ["100", "9223372036854775807"]),
        (pa.array([date(2024, 5, 1)]), ["2024-05-01"]),
        (pa.array([datetime(2024, 5, 1)], pa.timestamp("ns")), ["2024-05-01"]),
        (pa.array(["2.0", "x"], pa.string_view()), ["2.0", "x"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_what_a_column_holds_is_the_text_that_a_model_would_write(
    tmp_path: Path, values: Any, wanted: list[str]
) -> None:
    table = pa.table({"prompt": [f"p{i}" for i in range(len(values))], "answer": values})
    task = Jsonl(data=write(tmp_path / "a.parquet", table))
    assert references(task) == wanted == references(task_from_rows(table, always))
    grades = task.grade(task.problems("all"), [[text] for text in wanted])
    assert [grade.verdict for (grade,) in grades] == [Verdict.PASSED] * len(wanted)


def test_a_float_that_stands_for_several_whole_numbers_is_refused(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["p", "q"], "answer": [1.2345678901234568e22, 1.0]})
    for make in (lambda: Jsonl(data=write(tmp_path / "a.parquet", table)), lambda: task_from_rows(table, always)):
        with pytest.raises(BontuneError, match=r"row 1: column 'answer' holds 1.2345678901234568e\+22 as a float"):
            make()


def test_large_whole_numbers_in_json_lines_are_exact(tmp_path: Path) -> None:
    numbers = [12345678901234567890123, 12345678901234567890124]
    lines = "".join(json.dumps({"prompt": f"{n}?", "answer": n}) + "\n" for n in numbers)
    assert references(Jsonl(data=write(tmp_path / "a.jsonl", lines))) == [str(n) for n in numbers]


@pytest.mark.parametrize(
    ("level", "wanted"), [(1.0, 1), (Decimal("2"), 2), (np.int64(3), 3), ("Level 4", 4), (1.5, None)]
)
def test_a_level_may_be_any_whole_number(level: Any, wanted: int | None) -> None:
    assert task_from_rows([{"prompt": "p", "level": level}], always).problems("all")[0].level == wanted


# ---- ids ----


@pytest.mark.parametrize("missing", [None, float("nan"), np.float64("nan"), "", Decimal("NaN")])
def test_rows_without_an_id_are_known_by_their_contents(missing: Any) -> None:
    task = task_from_rows(
        [{"prompt": "a", "id": missing}, {"prompt": "b", "id": missing}, {"prompt": "c", "id": 3}], always
    )
    ids = [problem.id for problem in task.problems("all")]
    assert len(set(ids)) == 3
    assert ids[2] == "3"
    assert not {"None", "nan", ""} & set(ids)


@pytest.mark.parametrize("ids", [(1, 1.0), (1, "1"), (np.int64(1), "1"), (Decimal("1.0"), 1)])
def test_one_number_in_two_types_is_one_id(ids: tuple[Any, Any]) -> None:
    with pytest.raises(BontuneError, match="the id '1' occurs twice"):
        task_from_rows([{"prompt": "a", "id": ids[0]}, {"prompt": "b", "id": ids[1]}], always)


def test_an_id_that_was_rounded_is_refused() -> None:
    with pytest.raises(BontuneError, match=r"row 1: column 'id' holds 1e\+17 as a float"):
        task_from_rows([{"prompt": "a", "id": 1e17}], always)


# ---- what rows come in ----


ROWS = [{"prompt": f"{i}+1?", "answer": i + 1, "id": f"q{i}", "level": 1 + i % 2} for i in range(4)]


def generated() -> Iterator[dict[str, Any]]:
    yield from ROWS


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        tuple(ROWS),
        generated(),
        iter(ROWS),
        pa.Table.from_pylist(ROWS),
        pa.RecordBatch.from_pylist(ROWS),
        [{**row, "answer": np.int64(row["answer"]), "level": np.int8(row["level"])} for row in ROWS],
        [{**row, "answer": np.array(row["answer"]), "id": np.str_(row["id"])} for row in ROWS],
        [{**row, "answer": Decimal(row["answer"])} for row in ROWS],
        [{**row, "answer": float(row["answer"])} for row in ROWS],
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_rows_are_taken_from_anything_that_has_them(rows: Any) -> None:
    problems = task_from_rows({"all": rows}, always).problems("all")
    assert [(p.id, p.prompt, p.reference, p.level) for p in problems] == [
        (row["id"], row["prompt"], str(row["answer"]), row["level"]) for row in ROWS
    ]


@pytest.mark.parametrize("package", ["pandas", "polars", "datasets"])
def test_frames_and_data_sets_are_taken(package: str) -> None:
    module = pytest.importorskip(package, reason=f"{package} is not installed")
    rows = [*ROWS, {"prompt": "gap", "answer": None, "id": "g", "level": None}]
    table = module.Dataset.from_list(rows) if package == "datasets" else module.DataFrame(rows)
    problems = task_from_rows(table, always, hold_out=0).problems("all")
    assert [(p.id, p.reference, p.level) for p in problems] == [
        *((row["id"], str(row["answer"]), row["level"]) for row in ROWS),
        ("g", "", None),
    ]
    assert problems[-1].row["answer"] is None
    if package == "polars":
        with pytest.raises(BontuneError, match=r"a lazy frame has no rows yet; give frame\.collect\(\)"):
            task_from_rows(table.lazy(), always)


@pytest.mark.parametrize(
    ("rows", "phrase"),
    [
        ("rows.jsonl", "rows cannot be read from an object of type str; give a list of dictionaries"),
        (None, "rows cannot be read from an object of type NoneType"),
        (5, "rows cannot be read from an object of type int"),
        (np.array([1, 2]), "rows cannot be read from an object of type ndarray"),
        (iter(()), "there are no rows"),
        ([1], "row 1: a int, not a dictionary"),
        ({"prompt": ["p"], "answer": ["1"]}, "prompt, answer look like columns and not like splits"),
        ({"train": "rows.jsonl"}, "split train: rows cannot be read from an object of type str"),
        ([{}], "row 1: no column 'prompt'; there are: none"),
        ([{"prompt": b"p"}], "row 1: column 'prompt' holds bytes, not text or a number"),
    ],
)
def test_what_holds_no_rows_is_refused_in_one_sentence(rows: Any, phrase: str) -> None:
    with pytest.raises(BontuneError, match=re.escape(phrase)) as caught:
        task_from_rows(rows, always)
    assert "\n" not in str(caught.value)


# ---- other names ----


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    row = {"question": "1+1?", "final": "2", "key": 7, "hard": "Level 3", "worked": "1+1=2, so 2"}
    columns = {"prompt": "question", "answer": "final", "id": "key", "level": "hard", "solution": "worked"}
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    for task in (Jsonl(data=path, columns=columns), task_from_rows([row], always, columns=columns)):
        (problem,) = task.problems("all")
        assert (problem.id, problem.prompt, problem.reference, problem.level) == ("7", "1+1?", "2", 3)
        assert task.demonstration(problem) == "1+1=2, so 2"
    assert Jsonl(data=path, prompt="question", columns={"answer": "final"}).problems("all")[0].reference == "2"


@pytest.mark.parametrize(
    ("columns", "phrase"),
    [
        (
            {"promt": "q"},
            "columns has no 'promt', did you mean 'prompt'?; it takes prompt, answer, id, level, solution",
        ),
        ({"prompt": "qestion"}, "no column 'qestion', did you mean 'question'?; there are: question, answer"),
        ({"prompt": "question", "id": "key"}, "no column 'key'"),
        ({"prompt": "question", "level": "hard"}, "no column 'hard'"),
        ({"prompt": 3}, "columns.prompt must be the name of a column, not 3"),
        (["prompt"], "columns must say which column is what"),
    ],
)
def test_names_of_columns_are_checked(columns: Any, phrase: str) -> None:
    with pytest.raises(BontuneError, match=re.escape(phrase)):
        task_from_rows([{"question": "1+1?", "answer": "2"}], always, columns=columns)


def test_a_column_is_named_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"q": "1+1?", "answer": "2"}))
    with pytest.raises(BontuneError, match=r"prompt and columns\.prompt are both given; leave one out"):
        Jsonl(data=path, prompt="q", columns={"prompt": "q"})


def test_one_row_has_no_test_split() -> None:
    task = task_from_rows([{"prompt": "p"}], always)
    assert task.splits == ("train", "all")
    with pytest.raises(
        BontuneError, match=r"no split 'test'; it has train, all; nothing is held out of a single prompt"
    ):
        task.problems("test")


def test_a_file_with_another_separator_is_named_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "prompt;answer\n1+1?;2\n")
    with pytest.raises(BontuneError, match="no column 'prompt'; the columns are parted by ';', and a comma is needed"):
        Jsonl(data=path, grader="exact")
