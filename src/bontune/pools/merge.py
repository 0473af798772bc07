"""Shards: a pool that several machines draw, each some of the problems, and that is put together afterwards."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.files import sync, sync_folder
from bontune.base.settings import differing

ROWS_AT_A_TIME = 65_536
"""Rows that are put in order at once."""
FREE = ("shard", "isolation", "server")
"""Settings in which shards differ, or may."""


def shard_from_text(text: str) -> tuple[int, int]:
    """Read ``i/n``, the i-th of n shards, from 1.

    Raises:
        BontuneError: it is not of that form.

    >>> shard_from_text("2/8")
    (2, 8)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise BontuneError(f"--shard takes i/n, the i-th of n shards from 1, such as 2/8, got {text!r}.")
    return int(found[1]), int(found[2])


def merge_pools(parts: Sequence[Path], out: Path) -> tuple[int, int]:
    """Put the shards of a pool together: the same file as one machine would have written.

    Args:
        parts: Parquet pools that were drawn with ``shard``, all of them, in any order.
        out: the pool, ``.parquet``.

    Returns:
        Number of problems, and of samples of each.

    Raises:
        BontuneError: a part is missing, is there twice, or was drawn otherwise.
        RunStopped: the pool cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if out.suffix != ".parquet":
        raise BontuneError(f"A merged pool ends in .parquet, got {out.name!r}.")
    if out.exists():
        raise BontuneError(f"{out} is already there: delete it or give another name.")
    tables = {path: _table(path) for path in parts}
    settings = {
        path: json.loads((table.schema.metadata or {}).get(b"bontune", b"{}")) for path, table in tables.items()
    }
    ordered = _ordered(settings)
    whole = settings[ordered[0]]
    num_samples = int(whole["num_samples"])
    schema = tables[ordered[0]].schema.with_metadata(
        {"bontune": json.dumps({key: value for key, value in whole.items() if key != "shard"})}
    )
    counts = [len(tables[path]) // num_samples for path in ordered]
    total, num_parts = sum(counts), len(ordered)
    for i, (path, count) in enumerate(zip(ordered, counts, strict=True)):
        if count != -(-(total - i) // num_parts):
            raise BontuneError(f"{path} holds {count} problems, which cannot be shard {i + 1} of {total} problems.")
    temporary = out.with_name(f".tmp-{out.name}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            at_a_time = max(ROWS_AT_A_TIME // (num_samples * num_parts), 1)
            for start in range(0, counts[0], at_a_time):
                stop = start + at_a_time
                slices = [
                    tables[path].slice(start * num_samples, (min(stop, count) - start) * num_samples)
                    for path, count in zip(ordered, counts, strict=True)
                    if count > start
                ]
                rows = pa.concat_tables(slices).take(list(_interleaved([len(s) for s in slices], num_samples)))
                writer.write_table(rows.replace_schema_metadata(schema.metadata))
        sync(temporary)
        os.replace(temporary, out)
        sync_folder(out.parent)
    except OSError as error:
        raise RunStopped(f"{out} could not be written: {error.strerror}; the shards are as they were.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return total, num_samples


def _table(path: Path) -> Any:
    import pyarrow.parquet as pq

    if not path.is_file():
        raise BontuneError(f"There is no pool at {path}.")
    try:
        return pq.read_table(path, memory_map=True)
    except (OSError, ValueError) as error:
        raise BontuneError(f"{path} is not a Parquet pool: {' '.join(str(error).split())[:200]}") from None


def _ordered(settings: dict[Path, dict[str, Any]]) -> list[Path]:
    """The parts in the order of their shards, after a look at whether they belong together."""
    by_shard: dict[int, Path] = {}
    first = next(iter(settings))
    for path, own in settings.items():
        if "shard" not in own:
            raise BontuneError(f"{path} is no shard: it was not drawn with --shard.")
        number, num = shard_from_text(own["shard"])
        if num != shard_from_text(settings[first]["shard"])[1]:
            raise BontuneError(f"{path} is shard {own['shard']}, and {first} is shard {settings[first]['shard']}.")
        if number in by_shard:
            raise BontuneError(f"{path} and {by_shard[number]} are both shard {own['shard']}.")
        by_shard[number] = path
        theirs = settings[first]
        for name in differing(_fixed(own), _fixed(theirs)):
            key = name.split(".")[0]
            told = "" if key == "contents" else f" ({own.get(key)!r}, {theirs.get(key)!r})"
            raise BontuneError(f"{path} and {first} were drawn otherwise: {key} differs{told}.")
    missing = [f"{i}/{num}" for i in range(1, num + 1) if i not in by_shard]
    if missing:
        raise BontuneError(f"Shard {', '.join(missing)} is missing.")
    return [by_shard[i] for i in range(1, num + 1)]


def _fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in which shards must not differ."""
    return {key: value for key, value in settings.items() if key not in FREE}


def _interleaved(lengths: Sequence[int], num_samples: int) -> Iterator[int]:
    """Rows of some tables, one after the other, in the order: first problem of each, second problem of each, …

    >>> list(_interleaved([4, 2], 2))
    [0, 1, 4, 5, 2, 3]
    """
    firsts = [sum(lengths[:i]) for i in range(len(lengths))]
    for place in range(0, max(lengths), num_samples):
        for first, length in zip(firsts, lengths, strict=True):
            if place < length:
                yield from range(first + place, first + place + num_samples)
