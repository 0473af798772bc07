"""Contract of a pool on disk:

1. what is collected is what is read, as Parquet and as JSONL;
2. a collection that was stopped, even in the middle of a line, continues where it was and ends with the same pool;
3. nothing is lost or overwritten by a mistake, and a mistake leaves no file behind;
4. pools of other origin are read if they hold a problem and a reward per row, and refused in one sentence if not;
5. what could not be graded is counted and never correct.
"""

from __future__ import annotations

import gzip
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock, Timeout

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.files import hold
from bontune.base.problems import Problem
from bontune.engines.contract import Samples, StopReason
from bontune.grading.verdict import Grade, Verdict
from bontune.pools.collect import Graded
from bontune.pools.pool import COLUMNS, Pool, PoolWriter, rows_of
from bontune.pools.read import read_pool

SETTINGS = {"model": "m", "stop": ("\n",), "seed": 0}
PASSED = Grade(reward=1.0, verdict=Verdict.PASSED, answer="4")
FAILED = Grade(reward=0.0, verdict=Verdict.FAILED, reason="not \u2028 4")
UNKNOWN = Grade(reward=math.nan, verdict=Verdict.GRADER_ERROR, reason="boom")


def graded(*ids: str, grades: tuple[Grade, ...] = (PASSED, FAILED, UNKNOWN)) -> Graded:
    """Three samples a problem, of 1, 2 and 3 tokens with log-probability −1 each."""
    num, m = len(ids), len(grades)
    lengths = torch.tensor([1, 2, 3] * num)
    scores = {id(PASSED): 0.25, id(FAILED): math.inf, id(UNKNOWN): -math.inf}
    return Graded(
        problems=[Problem(id=i, prompt=f"{i}?", reference="4", level=2 if i == "a" else None) for i in ids],
        samples=Samples(
            prompts=[[1]] * num,
            tokens_BT=torch.ones(num * m, 3, dtype=torch.int64),
            lengths_B=lengths,
            logprobs_BT=-(torch.arange(3) < lengths.unsqueeze(-1)).float(),
            stops=[StopReason.END, StopReason.STOP, StopReason.LENGTH] * num,
            texts=[["4", "é\u2028\n", ""] for _ in ids],
        ),
        grades=[list(grades) for _ in ids],
        scores=[[scores[id(grade)] for grade in grades] for _ in ids],
    )


def write_jsonl(path: Path, rows: list[Any], *, ascii_only: bool = True) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["pool.parquet", "pool.jsonl"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "folder" / name
    writer = PoolWriter(path, SETTINGS)
    writer.add(rows_of(graded("b")))
    writer.add(rows_of(graded("a")))
    assert len(writer.finish(["a", "b"])) == 2
    assert [file.name for file in path.parent.iterdir()] == [name]
    pool = read_pool(path)
    assert pool.problem_ids == ["a", "b"]
    assert tuple(pool.columns) == COLUMNS
    assert pool.columns["completion"] == [["4", "é\u2028\n", ""]] * 2
    assert pool.columns["level"] == [[2] * 3, [None] * 3]
    assert pool.columns["answer"] == [["4", None, None]] * 2
    assert pool.columns["verdict"] == [["passed", "failed", "grader_error"]] * 2
    assert pool.columns["stop_reason"] == [["end", "stop", "length"]] * 2
    assert pool.columns["logprob"] == [[-1.0, -2.0, -3.0]] * 2
    assert pool.columns["num_tokens"] == [[1, 2, 3]] * 2
    assert pool.columns["reward"] == [[1.0, 0.0, None]] * 2
    assert pool.rewards() == [[1.0, 0.0, 0.0]] * 2
    assert pool.num_grader_errors == 2
    assert "pool: 2 completions could not be graded" in (pool.ungraded("pool") or "")
    assert pool.settings == (json.loads(json.dumps(SETTINGS)) if name.endswith("parquet") else {})


@pytest.mark.parametrize("name", ["pool.parquet", "pool.jsonl"])
def test_infinite_scores_keep_their_order(tmp_path: Path, name: str) -> None:
    writer = PoolWriter(tmp_path / name, SETTINGS)
    writer.add(rows_of(graded("a")))
    writer.finish(["a"])
    scores = read_pool(tmp_path / name).scores()
    assert scores is not None
    ((graded_score, largest, unknown),) = scores
    assert unknown == -math.inf
    assert graded_score == 0.25
    assert 1e308 < largest < math.inf


@pytest.mark.parametrize("torn", ["", '{"rows": [{"problem_id": "c", "rew'])
def test_a_stopped_collection_continues_to_the_same_pool(tmp_path: Path, torn: str) -> None:
    whole, path = tmp_path / "whole.jsonl", tmp_path / "pool.jsonl"
    writer = PoolWriter(whole, SETTINGS)
    writer.add(rows_of(graded("a", "b", "c")))
    writer.finish("abc")
    first = PoolWriter(path, SETTINGS)
    first.add(rows_of(graded("b")))
    first.close()
    with open(first.partial, "a", encoding="utf-8") as file:
        file.write(torn)
    second = PoolWriter(path, SETTINGS)
    assert second.done == {"b"}
    second.add(rows_of(graded("a", "c")))
    second.finish("abc")
    assert path.read_bytes() == whole.read_bytes()
    assert not second.partial.exists()


def test_a_collection_stopped_after_its_last_problem_only_finishes(tmp_path: Path) -> None:
    first = PoolWriter(tmp_path / "pool.jsonl", SETTINGS)
    first.add(rows_of(graded("a")))
    first.close()
    second = PoolWriter(tmp_path / "pool.jsonl", SETTINGS)
    assert second.done == {"a"}
    second.finish("a")
    assert read_pool(tmp_path / "pool.jsonl").problem_ids == ["a"]


def test_a_collection_goes_on_with_the_same_data_under_another_path(tmp_path: Path) -> None:
    def settings(path: str, problems: str) -> dict[str, Any]:
        return {"model": "m", "task_options": {"data": path}, "contents": {"the problems": problems}}

    first = PoolWriter(tmp_path / "pool.jsonl", settings("d.jsonl", "1f"))
    first.add(rows_of(graded("a")))
    first.close()
    PoolWriter(tmp_path / "pool.jsonl", settings("../d.jsonl", "1f")).close()
    with pytest.raises(BontuneError, match="the problems changed"):
        PoolWriter(tmp_path / "pool.jsonl", settings("d.jsonl", "2f"))


def test_nothing_is_overwritten_and_a_mistake_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    PoolWriter(path, {"model": "mistyped"}).close()  # found before the first problem
    assert list(tmp_path.iterdir()) == []
    writer = PoolWriter(path, SETTINGS)
    writer.add(rows_of(graded("a")))
    writer.close()
    kept = writer.partial.read_bytes()
    with pytest.raises(BontuneError, match="begun with other settings"):
        PoolWriter(path, SETTINGS | {"seed": 1})
    assert writer.partial.read_bytes() == kept
    writer.partial.write_bytes(kept.replace(b'{"rows"', b"rows"))
    with pytest.raises(BontuneError, match="damaged at line 2"):
        PoolWriter(path, SETTINGS)
    writer.partial.write_bytes(kept)
    PoolWriter(path, SETTINGS).finish("a")
    with pytest.raises(BontuneError, match="already there"):
        PoolWriter(path, SETTINGS)
    with pytest.raises(BontuneError, match=r"ends in \.parquet or \.jsonl, got 'pool.csv'"):
        PoolWriter(tmp_path / "pool.csv", SETTINGS)
    with pytest.raises(BontuneError, match="cannot be made"):
        PoolWriter(path / "below-a-file" / "pool.jsonl", SETTINGS)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="the system has no /proc, a folder that takes no file")
def test_a_folder_that_takes_no_lock_is_not_said_to_be_in_use() -> None:
    with pytest.raises(BontuneError, match=r"No lock can be made in the folder /proc \(.*\): give another --out\."):
        PoolWriter(Path("/proc/pool.parquet"), SETTINGS)
    with pytest.raises(OSError, match="/proc"):
        hold(FileLock("/proc/.lock"))


def test_a_lock_that_another_holds_is_no_error_of_the_system(tmp_path: Path) -> None:
    with FileLock(tmp_path / "a.lock"), pytest.raises(Timeout):
        hold(FileLock(tmp_path / "a.lock"))


def test_a_pool_that_cannot_be_written_keeps_what_was_collected(tmp_path: Path) -> None:
    writer = PoolWriter(tmp_path / "pool.parquet", SETTINGS)
    writer.add(rows_of(graded("a")))
    (tmp_path / "pool.parquet").mkdir()
    with pytest.raises(RunStopped, match="could not be written"):
        writer.finish("a")
    assert writer.partial.exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_pools_of_other_origin(tmp_path: Path) -> None:
    rows = [
        {"problem_id": 7, "reward": True, "note": "one\u2028line"},
        {"problem_id": 8, "reward": 0.5},
        {"problem_id": 7, "reward": None},
        {"problem_id": 8, "reward": 1},
    ]
    path = write_jsonl(tmp_path / "foreign.jsonl", rows, ascii_only=False)
    pool = read_pool(path)
    assert pool == Pool(
        problem_ids=["7", "8"],
        columns={
            "problem_id": [[7, 7], [8, 8]],
            "reward": [[True, None], [0.5, 1]],
            "note": [["one\u2028line", None], [None, None]],
        },
        settings={},
    )
    assert pool.rewards() == [[1.0, 0.0], [0.5, 1.0]]
    assert pool.scores() is None
    assert pool.num_grader_errors == 1
    table = pa.table({"problem_id": ["x", "x"], "reward": [1, 0], "score": [float("nan"), 0.5]})
    pq.write_table(table, tmp_path / "foreign.parquet")
    pool = read_pool(tmp_path / "foreign.parquet")
    assert (pool.problem_ids, pool.rewards(), pool.scores()) == (["x"], [[1.0, 0.0]], [[-math.inf, 0.5]])


@pytest.mark.parametrize(
    ("name", "content", "phrase"),
    [
        ("empty.jsonl", b"\n", "holds no rows"),
        ("text.jsonl", b"problem_id,reward\n", "line 1 is not JSON"),
        ("list.jsonl", b"[1]\n", "row 1 is a list"),
        ("bytes.jsonl", b"\xff\xfe\n", "is not a pool"),
        ("other.parquet", b"PAR", "is not a pool"),
        ("rows.csv", b"problem_id,reward\na,1\n", "ends in .parquet or .jsonl, got 'rows.csv'"),
        ("id.jsonl", b'{"reward": 1, "id": "a"}\n', "row 1 has no column 'problem_id'"),
        ("second.jsonl", b'{"problem_id": 1, "reward": 1}\n{"problem_id": 2}\n', "row 2 has no column 'reward'"),
        ("word.jsonl", b'{"problem_id": 1, "reward": "yes"}\n', "row 1: reward must be a finite number or null"),
        ("inf.jsonl", b'{"problem_id": 1, "reward": Infinity}\n', "row 1: reward must be a finite number"),
        ("score.jsonl", b'{"problem_id": 1, "reward": 1, "score": "a"}\n', "row 1: score must be"),
        (
            "uneven.jsonl",
            b'{"problem_id": "a", "reward": 1}\n' * 2 + b'{"problem_id": "b", "reward": 1}\n',
            "has 1 samples of problem b and 2 of a",
        ),
    ],
)
def test_what_is_no_pool(tmp_path: Path, name: str, content: bytes, phrase: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BontuneError) as caught:
        read_pool(tmp_path / name)
    assert phrase in str(caught.value)
    assert str(tmp_path / name) in str(caught.value) or name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_pool(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match="There is no pool at"):
        read_pool(tmp_path / "absent.parquet")


def test_a_pool_that_nothing_graded_is_refused_and_says_why() -> None:
    columns: dict[str, list[list[object]]] = {"reward": [[None, float("nan")]], "reason": [["ValueError: x", "y"]]}
    with pytest.raises(BontuneError, match=r"mine: not one of 2 completions could be graded \(ValueError: x\)"):
        Pool(problem_ids=["a"], columns=columns, settings={}).ungraded("mine")
    some = Pool(problem_ids=["a"], columns={"reward": [[1.0, None]]}, settings={})
    assert some.ungraded("mine") == "mine: 1 completion could not be graded; what cannot be graded counts as wrong"
    assert Pool(problem_ids=["a"], columns={"reward": [[1.0, 0.0]]}, settings={}).ungraded("mine") is None


def test_categories_and_rows_of_problems_that_are_mixed_are_read(tmp_path: Path) -> None:
    """As pandas writes a column of categories, one of which has no row."""
    names = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2, 0]), pa.array(["a", "nobody", "b"]))
    table = pa.table({"problem_id": names, "reward": [1.0, 0.0, 0.5, 1.0], "answer": ["x", None, "y", "x"]})
    pq.write_table(table, tmp_path / "pool.parquet")
    pool = read_pool(tmp_path / "pool.parquet")
    assert pool.problem_ids == ["b", "a"], "in the order in which they come"
    assert pool.columns["reward"] == [[1.0, 0.5], [0.0, 1.0]]
    assert pool.columns["answer"] == [["x", "y"], [None, "x"]]


def test_texts_stay_on_disk_where_they_are_not_asked_for(tmp_path: Path) -> None:
    table = pa.table({"problem_id": ["a", "a"], "reward": [1, 0], "prompt": ["p", "p"], "completion": ["c", "d"]})
    pq.write_table(table, tmp_path / "pool.parquet")
    assert set(read_pool(tmp_path / "pool.parquet", has_texts=False).columns) == {"problem_id", "reward"}
    assert read_pool(tmp_path / "pool.parquet").columns["completion"] == [["c", "d"]]


# ---- what other tools write ----


def read_jsonl(path: Path, *rows: dict[str, Any]) -> Pool:
    return read_pool(write_jsonl(path, list(rows)))


def test_columns_that_the_first_row_lacks_are_there_for_the_others(tmp_path: Path) -> None:
    pool = read_jsonl(
        tmp_path / "a.jsonl",
        {"problem_id": "a", "reward": 1},
        {"problem_id": "a", "reward": 0, "score": 0.5, "answer": "4", "level": 2},
    )
    assert pool.columns["answer"] == [[None, "4"]]
    assert pool.columns["level"] == [[None, 2]]
    assert pool.scores() == [[-math.inf, 0.5]]


@pytest.mark.parametrize("sample", [0, 0.0])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_sample_that_is_there_twice_is_refused_and_not_counted_twice(
    tmp_path: Path, kind: str, sample: float
) -> None:
    rows = [{"problem_id": p, "sample": s, "reward": 1.0} for p in "ab" for s in (sample, 1, 2)]
    rows[3]["sample"] = 1
    path = tmp_path / f"pool.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write_jsonl(path, rows)
    with pytest.raises(BontuneError, match=r"has sample 1 of problem b twice: remove one of the rows, or the column"):
        read_pool(path)


def test_samples_that_have_no_number_are_counted_as_they_come(tmp_path: Path) -> None:
    rows = [{"problem_id": "a", "sample": sample, "reward": 1} for sample in (None, None, "4", "4")]
    assert read_jsonl(tmp_path / "a.jsonl", *rows).rewards() == [[1.0] * 4]


def test_a_byte_order_mark_and_compressed_lines_are_read(tmp_path: Path) -> None:
    line = b'\xef\xbb\xbf{"problem_id": "a", "reward": 1, "note": "\xe2\x80\xa8"}\r\n'
    (tmp_path / "a.jsonl").write_bytes(line)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line))
    assert read_pool(tmp_path / "a.jsonl") == read_pool(tmp_path / "b.jsonl.gz")
    assert read_pool(tmp_path / "a.jsonl").columns["note"] == [["\u2028"]]
    for content in (b"no gzip", gzip.compress(line)[:20]):
        (tmp_path / "bad.jsonl.gz").write_bytes(content)
        with pytest.raises(BontuneError, match=r"bad\.jsonl\.gz is not a pool"):
            read_pool(tmp_path / "bad.jsonl.gz")


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_row_without_a_problem_is_refused(tmp_path: Path, kind: str, missing: Any) -> None:
    rows = [{"problem_id": 1.0, "reward": 1}, {"problem_id": missing, "reward": 0}]
    path = tmp_path / f"pool.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path)
    else:
        write_jsonl(path, rows)
    with pytest.raises(BontuneError, match=r"row 2: problem_id is (None|nan), which names no problem; give every row"):
        read_pool(path)


def test_one_number_in_several_types_is_one_problem_and_one_answer(tmp_path: Path) -> None:
    rows = [{"problem_id": p, "reward": 1, "answer": a} for p, a in ((1, 7), (1.0, 7.0), ("1", "7"), (1, None))]
    pool = read_jsonl(tmp_path / "a.jsonl", *rows, {"problem_id": 1, "reward": 0, "answer": float("nan")})
    assert pool.problem_ids == ["1"]
    assert pool.columns["answer"] == [["7", "7", "7", None, None]]


TEXTS = ["b", "a", "b", "a"]
NUMBERS = [Decimal("1.0"), Decimal("0.5"), Decimal("0.0"), None]


@pytest.mark.parametrize(
    "kind",
    [pa.string_view(), pa.large_string(), pa.binary(), pa.binary_view(), pa.large_binary(), pa.binary(1)],
    ids=str,
)
def test_texts_are_read_as_other_tools_write_them(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array([text.encode() for text in TEXTS]).cast(kind)
    table = pa.table({"problem_id": texts, "reward": [1.0, 0.0, 0.5, 1.0], "answer": texts, "completion": texts})
    pq.write_table(table, tmp_path / "pool.parquet")
    pool = read_pool(tmp_path / "pool.parquet")
    assert pool.problem_ids == ["b", "a"]
    assert pool.rewards() == [[1.0, 0.5], [0.0, 1.0]]
    assert pool.columns["answer"] == pool.columns["completion"] == [["b", "b"], ["a", "a"]]


@pytest.mark.parametrize("kind", [pa.decimal128(3, 1), pa.decimal128(20, 4), pa.decimal256(40, 2)], ids=str)
def test_decimals_are_numbers_where_numbers_belong_and_else_texts(tmp_path: Path, kind: pa.DataType) -> None:
    numbers = pa.array(NUMBERS, kind)
    table = pa.table({"problem_id": TEXTS, "reward": numbers, "score": numbers, "answer": numbers, "level": numbers})
    pq.write_table(table, tmp_path / "pool.parquet")
    pool = read_pool(tmp_path / "pool.parquet")
    assert pool.columns["reward"] == [[1.0, 0.0], [0.5, None]]
    assert {type(value) for row in pool.columns["reward"] for value in row} == {float, type(None)}
    assert pool.scores() == [[1.0, 0.0], [0.5, -math.inf]]
    assert pool.columns["answer"] == [["1", "0"], ["0.5", None]]
    assert [type(value) for value in pool.columns["level"][0]] == [int, int]


def test_levels_with_a_gap_are_whole_numbers_all_the_same(tmp_path: Path) -> None:
    levels = [1.0, 2.0, 1.0, float("nan")]
    pq.write_table(pa.table({"problem_id": TEXTS, "reward": [1] * 4, "level": levels}), tmp_path / "pool.parquet")
    assert read_pool(tmp_path / "pool.parquet").columns["level"] == [[1, 1], [2, None]]
    assert {type(value) for value in read_pool(tmp_path / "pool.parquet").columns["level"][0]} == {int}


def test_a_column_or_key_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([0])], ["problem_id", "reward", "reward"])
    pq.write_table(table, tmp_path / "pool.parquet")
    with pytest.raises(BontuneError, match="has the column 'reward' twice"):
        read_pool(tmp_path / "pool.parquet")
    (tmp_path / "pool.jsonl").write_text('{"problem_id": "a", "reward": 1, "reward": 0}\n')
    with pytest.raises(BontuneError, match="line 1: the key 'reward' occurs twice"):
        read_pool(tmp_path / "pool.jsonl")


def test_columns_that_arrow_cannot_take_or_python_cannot_hold(tmp_path: Path) -> None:
    lists = pa.array([[1], [2], [3], [4]], pa.list_view(pa.int64()))
    pq.write_table(pa.table({"problem_id": TEXTS, "reward": [1] * 4, "more": lists}), tmp_path / "lists.parquet")
    assert read_pool(tmp_path / "lists.parquet").columns["more"] == [[[1], [3]], [[2], [4]]]
    times = pa.array([1, 2, 3, 4], pa.timestamp("ns"))
    pq.write_table(pa.table({"problem_id": TEXTS, "reward": [1] * 4, "at": times}), tmp_path / "times.parquet")
    with pytest.raises(BontuneError, match=r"times\.parquet is not a pool: Nanosecond"):
        read_pool(tmp_path / "times.parquet")
