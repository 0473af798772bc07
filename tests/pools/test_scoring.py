"""Contract of scoring a pool of other origin: the same rows with all their columns, in either form."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bontune.base.errors import BontuneError
from bontune.pools.read import read_pool
from bontune.pools.scoring import score_pool

ROWS = [
    {"problem_id": 1.0, "prompt": "p", "completion": "four", "reward": 1},
    {"problem_id": 1, "prompt": "p", "completion": "4", "reward": 0, "answer": "4", "note": "late"},
]


@pytest.fixture
def verifier(tmp_path: Path) -> str:
    (tmp_path / "length.py").write_text("def score(problem, completion):\n    return len(completion)\n")
    return f"{tmp_path / 'length.py'}:score"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_columns_that_the_first_row_lacks_are_written(tmp_path: Path, verifier: str, ending: str) -> None:
    path, out = tmp_path / "pool.jsonl", tmp_path / f"scored.{ending}"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    score_pool(path, verifier, out)
    pool = read_pool(out)
    assert pool.problem_ids == ["1"]
    assert (pool.columns["answer"], pool.columns["note"], pool.columns["score"]) == (
        [[None, "4"]],
        [[None, "late"]],
        [[4.0, 1.0]],
    )


def test_views_and_dates_are_written_as_json_lines(tmp_path: Path, verifier: str) -> None:
    texts = pa.array(["a", "a"], pa.string_view())
    days = pa.array([0, 1], pa.date32())
    table = pa.table({"problem_id": texts, "prompt": texts, "completion": texts, "reward": [1, 0], "day": days})
    pq.write_table(table, tmp_path / "pool.parquet")
    for ending in ("jsonl", "parquet"):
        score_pool(tmp_path / "pool.parquet", verifier, tmp_path / f"scored.{ending}")
        assert read_pool(tmp_path / f"scored.{ending}").columns["score"] == [[1.0, 1.0]]
    assert read_pool(tmp_path / "scored.jsonl").columns["day"] == [["1970-01-01", "1970-01-02"]]


def test_a_column_of_mixed_types_is_no_parquet(tmp_path: Path, verifier: str) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row | {"note": note}) + "\n" for row, note in zip(ROWS, (1, "x"), strict=True)))
    with pytest.raises(BontuneError, match=r"cannot be written as Parquet .*: give an --out that ends in \.jsonl\."):
        score_pool(path, verifier, tmp_path / "scored.parquet")
    score_pool(path, verifier, tmp_path / "scored.jsonl")
