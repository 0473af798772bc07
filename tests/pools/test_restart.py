"""A collection that is begun again notices what has changed under the names that it was given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from bontune.base.errors import BontuneError, Interrupted
from bontune.engines.contract import SamplingOptions
from bontune.pools.draw import PoolRequest, draw_missing, draw_pool
from bontune.pools.read import read_pool

GRADER = "import helper\n\ndef grade(row, text):\n    return helper.count(text) / 8\n"
HELPER = "def count(text):\n    return sum(c.isalpha() for c in text)\n"


@pytest.fixture
def request_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PoolRequest:
    """A request by relative names, in a user's folder."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{i}+{i}="} for i in range(12)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("mine.py").write_text(GRADER)
    Path("helper.py").write_text(HELPER)
    tiny.model(sharp=2.0).save_pretrained("model")
    tiny.tokenizer().save_pretrained("model")
    return PoolRequest(
        model="model",
        task="jsonl",
        task_options={"data": "rows.jsonl", "grader": "mine.py:grade"},
        sampling=SamplingOptions(num_samples=1024, max_new_tokens=1),
        split="all",
    )


def begin(request: PoolRequest, out: Path) -> None:
    """Draw the first problems, and be interrupted."""

    def stop(progress: Any) -> None:
        if progress.num_done:
            raise Interrupted

    with pytest.raises(Interrupted):
        draw_pool(request, out, on_progress=stop)
    assert out.with_name(out.name + ".partial.jsonl").exists()


def without_first_row() -> None:
    lines = Path("rows.jsonl").read_text().splitlines(keepends=True)
    Path("rows.jsonl").write_text("".join(lines[1:]))


def other_weights() -> None:
    tiny.model(seed=3).save_pretrained("model")


CHANGES = {
    "the problems changed": without_first_row,
    "the grader's code changed": lambda: Path("mine.py").write_text(GRADER + "\n# mended\n"),
    "the grader's code changed ": lambda: Path("helper.py").write_text(HELPER + "\n# mended\n"),
    "the model's weights changed": other_weights,
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_under_its_name_is_told_and_nothing_is_lost(request_in: PoolRequest, what: str) -> None:
    out = Path("pool.parquet")
    begin(request_in, out)
    kept = Path("pool.parquet.partial.jsonl").read_bytes()
    CHANGES[what]()
    with pytest.raises(BontuneError, match=f"was begun with other settings: {what.strip()}. Put that back"):
        draw_pool(request_in, out)
    assert Path("pool.parquet.partial.jsonl").read_bytes() == kept
    assert not out.exists()


def test_other_options_are_told_by_name(request_in: PoolRequest) -> None:
    begin(request_in, Path("pool.parquet"))
    other = dataclasses.replace(request_in.sampling, temperature=0.5)
    with pytest.raises(BontuneError, match=r"temperature 0.5, was 1.0. Put that back"):
        draw_pool(dataclasses.replace(request_in, sampling=other), Path("pool.parquet"))


def test_a_finished_pool_of_other_data_is_not_taken_for_this_one(request_in: PoolRequest) -> None:
    out = Path("pool.parquet")
    small = dataclasses.replace(request_in, sampling=SamplingOptions(num_samples=2, max_new_tokens=1))
    draw_pool(small, out)
    kept: list[Path] = []
    draw_missing({out: small}, draw_pool, kept.append)
    assert kept == [out]
    without_first_row()
    with pytest.raises(BontuneError, match="was drawn before the problems changed: delete it"):
        draw_missing({out: small}, draw_pool, kept.append)


def test_a_problem_keeps_its_id_and_its_draws_when_other_rows_come_and_go(request_in: PoolRequest) -> None:
    small = dataclasses.replace(request_in, sampling=SamplingOptions(num_samples=4, max_new_tokens=3))
    draw_pool(small, Path("before.parquet"))
    without_first_row()
    draw_pool(small, Path("after.parquet"))
    before, after = read_pool(Path("before.parquet")), read_pool(Path("after.parquet"))
    assert after.problem_ids == before.problem_ids[1:]
    assert after.columns["completion"] == before.columns["completion"][1:]


def test_ids_of_the_users_own_column_stay(tmp_path: Path) -> None:
    from bontune.tasks import load_task

    (tmp_path / "rows.jsonl").write_text('{"id": "a", "prompt": "1"}\n{"id": 2, "prompt": "1"}\n')
    (tmp_path / "own.py").write_text(HELPER.replace("count(text)", "grade(row, text)"))
    task = load_task("jsonl", data=str(tmp_path / "rows.jsonl"), grader=f"{tmp_path}/own.py:grade")
    assert [problem.id for problem in task.problems("all")] == ["a", "2"]
