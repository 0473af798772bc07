"""Contract of shards: together they are the pool that one machine draws; what does not belong together is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bontune.base.errors import BontuneError
from bontune.engines.contract import SamplingOptions
from bontune.pools import merge
from bontune.pools.draw import PoolRequest, draw_missing, draw_pool
from bontune.pools.merge import merge_pools, shard_from_text

SAMPLING = SamplingOptions(num_samples=4, max_new_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for name, shard in {"whole": None, **{f"part{i}": (i, 3) for i in (1, 2, 3)}}.items():
        request = PoolRequest(model="countdown-tiny", task="countdown", sampling=SAMPLING, limit=11, shard=shard)
        draw_pool(request, folder / f"{name}.parquet")
    return folder


def parts(folder: Path, *numbers: int) -> list[Path]:
    return [folder / f"part{i}.parquet" for i in numbers]


@pytest.mark.parametrize("at_a_time", [1, 24, 65_536])
def test_they_are_the_pool_of_one_machine(
    folder: Path, tmp_path: Path, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "ROWS_AT_A_TIME", at_a_time)
    assert merge_pools(parts(folder, 2, 3, 1), tmp_path / "out" / "merged.parquet") == (11, 4)
    whole, merged = pq.read_table(folder / "whole.parquet"), pq.read_table(tmp_path / "out" / "merged.parquet")
    assert merged.schema.equals(whole.schema, check_metadata=True)
    for name in set(whole.column_names) - {"logprob"}:
        assert merged[name].equals(whole[name]), name
    assert merged["logprob"].to_pylist() == pytest.approx(whole["logprob"].to_pylist(), abs=1e-4)  # other batches
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["merged.parquet"]


def test_what_does_not_belong_together_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged.parquet"
    other = pq.read_table(folder / "part3.parquet")
    settings = json.loads(other.schema.metadata[b"bontune"])

    def changed(name: str, rows: pa.Table = other, **keys: object) -> Path:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(rows.replace_schema_metadata({"bontune": json.dumps(settings | keys)}), path)
        return path

    cases = [
        (parts(folder, 1, 3), "Shard 2/3 is missing"),
        ([*parts(folder, 1, 2, 3), changed("again")], "are both shard 3/3"),
        ([folder / "whole.parquet", *parts(folder, 1)], "whole.parquet is no shard"),
        ([*parts(folder, 1, 2), changed("seed", seed=1)], "seed differs"),
        ([*parts(folder, 1, 2), changed("data", contents={})], "contents differs"),
        ([*parts(folder, 1, 2), changed("four", shard="3/4")], "is shard 3/4"),
        ([*parts(folder, 1, 2), changed("short", other.slice(0, 4))], "cannot be shard"),
        ([folder / "nothing.parquet"], "There is no pool at"),
    ]
    for given, phrase in cases:
        with pytest.raises(BontuneError, match=phrase):
            merge_pools(given, out)
        assert not out.exists()
    with pytest.raises(BontuneError, match=r"ends in .parquet"):
        merge_pools(parts(folder, 1, 2, 3), tmp_path / "out.jsonl")


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2"])
def test_a_shard_is_i_of_n(text: str) -> None:
    with pytest.raises(BontuneError, match="i-th of n shards"):
        shard_from_text(text)


def test_an_empty_shard_is_refused(tmp_path: Path) -> None:
    request = PoolRequest(model="countdown-tiny", task="countdown", sampling=SAMPLING, limit=2, shard=(3, 3))
    with pytest.raises(BontuneError, match="Shard 3/3 of 2 problems is empty"):
        draw_pool(request, tmp_path / "part.parquet")


def test_shards_of_the_same_data_under_another_path_belong_together(tmp_path: Path) -> None:
    """As two machines hold the data; shards of other data do not merge, and a pool of other data is not taken."""
    lines = "".join(json.dumps({"prompt": f"{i},2,3:{i}=", "answer": str(i)}) + "\n" for i in range(4))
    parts = []
    for number, rows in ((1, lines), (2, lines), (3, lines.replace('"3"', '"4"'))):
        data = tmp_path / f"machine-{number}" / "d.jsonl"
        data.parent.mkdir()
        data.write_text(rows)
        options = {"data": str(data), "hold_out": 0}
        request = PoolRequest(
            model="countdown-tiny",
            task="jsonl",
            task_options=options,
            split="all",
            sampling=SamplingOptions(num_samples=2, max_new_tokens=2),
            shard=(min(number, 2), 2),
        )
        parts.append(tmp_path / f"part{number}.parquet")
        draw_pool(request, parts[-1])
    assert merge_pools(parts[:2], tmp_path / "whole.parquet") == (4, 2)
    with pytest.raises(
        BontuneError, match=r"part3\.parquet and .*part1\.parquet were drawn otherwise: contents differs"
    ):
        merge_pools([parts[0], parts[2]], tmp_path / "other.parquet")
    wanted = dataclasses.replace(
        request, shard=None, task_options={**options, "data": str(tmp_path / "machine-1/d.jsonl")}
    )
    kept: list[Path] = []
    draw_missing({tmp_path / "whole.parquet": wanted}, draw_pool, kept.append)
    assert kept == [tmp_path / "whole.parquet"]
    other = dataclasses.replace(wanted, task_options=options)
    with pytest.raises(BontuneError, match=r"was drawn with task_options .*machine-1.*, not .*machine-3"):
        draw_missing({tmp_path / "whole.parquet": other}, draw_pool, kept.append)
