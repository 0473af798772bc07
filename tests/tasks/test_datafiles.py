"""Where a known data set's rows come from: files, folders, the hub; and what is said when they do not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bontune.base.errors import BontuneError
from bontune.base.problems import content_ids
from bontune.tasks import load_task, task_from_rows
from bontune.tasks.partition import choose_rows, held_out
from bontune.tasks.reading import Source, SourceTable, hub_rows, hub_splits, read_texts, stem_of

TABLES = {
    "train": SourceTable(files=("set_train", "train"), columns=("q", "a"), repository="owner/set", hub_split="train"),
    "test": SourceTable(files=("set_test", "test"), columns=("q", "a"), repository="owner/set"),
}
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".ndjson")


def write(path: Path, marks: list[str]) -> Path:
    rows = [{"q": mark, "a": "1"} for mark in marks]
    is_list = ".json" in path.suffixes
    text = json.dumps(rows) if is_list else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_texts_of_a_file(suffix: str, tmp_path: Path) -> None:
    """Texts and numbers at any depth, as tasks write them; a file of another kind is one text."""
    row = {"q": "a", "parts": [{"text": "b"}, ["c", 51.0, 0.5, 7]], "is_right": True, "gap": None}
    contents = {
        "x.jsonl": json.dumps(row) + "\n" + json.dumps({"q": "d"}),
        "x.json": json.dumps([row, {"q": "d"}]),
        "x.csv": "q,r\na,b\n",
        "x.txt": "one\ntwo ä\n",
        "README": "",
    }
    expected = ["a", "b", "c", "51", "0.5", "7", "d"]
    wanted = dict(zip(contents, [expected, expected, ["a", "b"], ["one\ntwo ä\n"], [""]], strict=True))
    for name, content in contents.items():
        path = tmp_path / (name + suffix)
        path.write_bytes(gzip.compress(content.encode()) if suffix else content.encode())
        assert list(read_texts(path)) == wanted[name], name
    pq.write_table(pa.table({"q": ["a"], "r": [["b", "c"]]}), tmp_path / "x.parquet")
    assert list(read_texts(tmp_path / "x.parquet")) == ["a", "b", "c"]


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"text" * 99)[:-12])
    for name, phrase in [
        ("latin.txt", "is not UTF-8"),
        ("cut.txt.gz", "cannot be read"),
        ("no.txt", "There is no file"),
    ]:
        with pytest.raises(BontuneError, match=phrase):
            list(read_texts(tmp_path / name))
    with pytest.raises(BontuneError, match="is a folder"):
        list(read_texts(tmp_path))


def questions(source: Source, table: str) -> list[str]:
    return [row["q"] for _, row in source.rows(table)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_is_searched_for_the_usual_names(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"train{suffix}", ["a", "b"])
    write(tmp_path / f"set_test{suffix}", ["c"])
    write(tmp_path / f"test{suffix}", ["another set's"])
    (tmp_path / "notes.txt").write_text("no data")
    source = Source("set", TABLES, tmp_path)
    assert source.tables == ("train", "test")
    assert (questions(source, "train"), questions(source, "test")) == (["a", "b"], ["c"])
    place, _ = source.rows("train")[1]
    assert place == f"{tmp_path / f'train{suffix}'}, {'item' if '.json' in Path('x' + suffix).suffixes else 'line'} 2"


@pytest.mark.parametrize(
    ("name", "table"),
    [("set_train.jsonl", "train"), ("my-train-part.json", "train"), ("test.jsonl.gz", "test"), ("rows.jsonl", "test")],
)
def test_a_single_file_is_the_table_that_its_name_says(tmp_path: Path, name: str, table: str) -> None:
    source = Source("set", TABLES, str(write(tmp_path / name, ["x"])))
    assert source.tables == (table,)
    assert questions(source, table) == ["x"]


def test_a_file_for_each_table(tmp_path: Path) -> None:
    one, two = write(tmp_path / "test.jsonl", ["a"]), write(tmp_path / "train.jsonl", ["b"])
    source = Source("set", TABLES, {"train": one, "test": str(two)})
    assert (questions(source, "train"), questions(source, "test")) == (["a"], ["b"])
    with pytest.raises(BontuneError, match="no table 'tset', did you mean 'test'"):
        Source("set", TABLES, {"tset": one})


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "train.jsonl", ["a"])
    (tmp_path / "none.jsonl").write_text("")
    (tmp_path / "cut.jsonl").write_text('{"q": "a", "a": "1"}\n{"q": "b", "a')
    (tmp_path / "other.jsonl").write_text('{"question": "a", "a": "1"}\n')
    cases: list[tuple[Any, str]] = [
        (tmp_path / "empty", r"holds no file of task set: .*set_train\.jsonl or set_test\.jsonl"),
        (tmp_path / "absent", "there is no folder"),
        (tmp_path / "tarin.jsonl", "There is no file .*did you mean .*train.jsonl"),
        (tmp_path / "rows.txt", "there is no folder"),
        (5, "data must be a file or a folder, not 5"),
        ({"train": 5}, r"data\.train must be the name of a file, not 5"),
        (tmp_path / "none.jsonl", "holds no rows"),
        (tmp_path / "cut.jsonl", r"cut\.jsonl, line 2 is not JSON"),
        (tmp_path / "other.jsonl", r"line 1: task set needs the columns q, a; q is missing, there are: question, a"),
    ]
    for data, phrase in cases:
        with pytest.raises(BontuneError, match=phrase):
            Source("set", TABLES, data).rows("test")
    (tmp_path / "later.jsonl").write_text('{"q": "a", "a": "1"}\n{"q": "b"}\n')
    with pytest.raises(BontuneError, match=r"later\.jsonl, line 2: task set needs the columns q, a; a is missing"):
        Source("set", TABLES, tmp_path / "later.jsonl").rows("test")
    with pytest.raises(BontuneError, match="data and hub are both given"):
        Source("set", TABLES, tmp_path, "owner/set")


def test_stem() -> None:
    names = ["a.b.jsonl.gz", "a.json", "a", "mbpp_sanitized.json.gz"]
    assert [stem_of(Path(name)) for name in names] == ["a.b", "a", "a", "mbpp_sanitized"]


# ---- the hub ----


def test_rows_from_a_folder_in_the_hubs_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    for split, number in (("train", 20), ("test", 3)):
        rows = [{"question": f"{split} {i}?", "answer": f"so\n#### {i}"} for i in range(number)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task("gsm8k", hub=str(folder))
    assert [len(task.problems(split)) for split in ("train", "validation", "test")] == [18, 2, 3]
    assert task.problems("test")[2].reference == "2"
    (folder / "test.jsonl").write_text('{"question": "a", "answer": "no number"}\n')
    with pytest.raises(BontuneError, match=r"row 1: the answer does not end in ####"):
        load_task("gsm8k", hub=str(folder)).problems("test")


CODE = (
    "import sys\n"
    "if sys.argv[1] == 'absent': sys.modules['datasets'] = None\n"
    "from bontune.base.errors import BontuneError\n"
    "from bontune.tasks import load_task\n"
    "try: load_task('math').problems('test')\n"
    "except BontuneError as error: print(error)\n"
)


def without_hub(tmp_path: Path, word: str, **environment: str) -> tuple[str, float]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CODE, word],
        env={**os.environ, "HF_HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, time.perf_counter() - start


def test_without_the_package(tmp_path: Path) -> None:
    said, _ = without_hub(tmp_path, "absent")
    assert "pip install 'bontune[hub]', or give task.data=PATH" in said


def test_a_hub_that_cannot_be_reached_is_said_at_once(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "no_proxy": "*"}  # the port for discarding
    said, seconds = without_hub(tmp_path, "present", **nobody)
    assert "HuggingFaceH4/MATH-500 from the Hugging Face hub, and http://127.0.0.1:9 cannot be reached" in said
    assert "task.data=PATH" in said
    assert seconds < 20  # 3 s on an idle core; the hub's own client gives up after 24 s


def test_offline_is_respected(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    said, _ = without_hub(tmp_path, "present", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "HuggingFaceH4/MATH-500 could not be fetched" in said


# ---- splits of our own ----


def test_held_out_rows_are_the_same_for_every_order_and_keep_equal_questions_together() -> None:
    texts = [f"Question {i % 90}" for i in range(100)]
    chosen = held_out(texts, 30)
    assert len(chosen) == 30
    picked = {texts[i] for i in chosen}
    assert not picked & {texts[i] for i in range(100) if i not in chosen}
    reverse = held_out(texts[::-1], 30)
    assert {texts[::-1][i] for i in reverse} == picked
    assert held_out(texts, 30, seed=1) != chosen
    assert held_out(texts, 10) < chosen or len(held_out(texts, 10) - chosen) <= 1  # nested but for a pair at the edge
    assert held_out(["same", "Same", " same "], 2) == set()
    train, validation = choose_rows("train", texts, 10), choose_rows("validation", texts, 10)
    assert sorted(train + validation) == list(range(100)) == choose_rows("test", texts, 10)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "jsonl"])
def test_the_same_rows_from_every_kind_of_file_are_the_same_problems(tmp_path: Path, kind: str) -> None:
    rows = [{"question": f'What is "{i}", in words?\nSay.', "answer": f"n, {i}é"} for i in range(20)]
    path = tmp_path / f"rows.{kind}"
    if kind.startswith("csv"):
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, ["question", "answer"])
        writer.writeheader()
        writer.writerows(rows)
        content = out.getvalue().encode("utf-8-sig")
        path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task("jsonl", data=str(path), prompt="question")
    problems = task.problems("all")
    assert [(p.prompt, p.reference) for p in problems] == [(row["question"], row["answer"]) for row in rows]
    assert [p.id for p in problems] == content_ids(rows), "the kind of file makes no difference"


@pytest.mark.parametrize(
    ("name", "content", "phrase"),
    [
        ("a.csv", b"prompt,answer\n1,2\n3\n", "a.csv, line 3: it has another number of values"),
        ("a.csv", b"prompt,answer\n1,2,3\n", "a.csv, line 2: it has another number of values"),
        ("a.csv", b"prompt\n\xff\n", "a.csv is not UTF-8"),
        ("a.csv", b"prompt\n", "holds no rows"),
        ("a.parquet", b"PAR1", "a.parquet cannot be read"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": "b"\n', "a.jsonl, line 2 is not JSON: Expecting"),
        ("a.xlsx", b"", "files of rows end in .jsonl.*.csv.*.parquet"),
    ],
)
def test_files_that_are_not_what_they_seem(tmp_path: Path, name: str, content: bytes, phrase: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BontuneError, match=phrase):
        load_task("jsonl", data=str(tmp_path / name))


def test_a_data_set_of_the_hub_by_its_name_has_its_splits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    folder = tmp_path / "owner" / "sums"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [{"prompt": f"{split} {i}", "answer": str(i)} for i in range(3)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("bontune.tasks.reading.why_unreachable", lambda: None)
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *a, **k: load(str(tmp_path / name), *a, **k))
    task = load_task("jsonl", data="owner/sums")
    assert set(task.splits) == {"train", "test"}
    assert [p.prompt for p in task.problems("test")] == ["test 0", "test 1", "test 2"]


def test_a_data_set_of_json_keeps_its_dates_and_large_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package datasets makes times of the dates, and one float of the two numbers."""
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    numbers = [12345678901234567890123, 12345678901234567890124]
    rows = [
        {"prompt": f"{n}?", "answer": f"2024-05-0{n % 10}", "at": "2024-05-01 10:00:00", "n": n, "x": {"n": [n]}}
        for n in numbers
    ]
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.jsonl").write_bytes((json.dumps(rows[1]) + "\n").encode())
    found = hub_splits("Task jsonl", str(folder))
    assert [row for _, row in found["train"]] == rows
    assert [row for _, row in found["test"]] == rows[1:]
    assert [row for _, row in hub_rows("Task jsonl", str(folder), None, "all")] in (rows + rows[1:], rows[1:] + rows)
    loaded = datasets.load_dataset(str(folder), split="train")  # the files are not known behind such an object
    task = task_from_rows(loaded, lambda row, completion: True, hold_out=0)
    assert [problem.reference for problem in task.problems("all")] == [row["answer"] for row in rows]
    with pytest.raises(BontuneError, match=r"column 'n' holds 1.2345678901234568e\+22 as a float"):
        task_from_rows(loaded, lambda row, completion: True, columns={"answer": "n"})
