"""Rows from files: JSON Lines, JSON, CSV, Parquet; and from data sets on the Hugging Face hub."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bontune.base.client import why_unreachable
from bontune.base.errors import BontuneError, nearest
from bontune.base.text import parse_json, readable, repeated
from bontune.tasks.as_written import Splits, as_written

FilePath: TypeAlias = str | Path
PlacedRow: TypeAlias = "tuple[str, dict[str, Any]]"
"""A row with its place (``file, line 3``), for messages."""
SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz", ".csv", ".csv.gz", ".parquet")


def read_rows(path: FilePath) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of a file; the place (``file, line 3``) is for messages.

    Args:
        path: ``.jsonl``, ``.json`` (a list of objects) or ``.csv`` (a first line of names), each also as ``.gz``; or
            ``.parquet``. In a CSV file every value is a text.

    Raises:
        BontuneError: no such file, not of its kind (with its line), or a row that is no object.
    """
    if not isinstance(path, (str, Path)):
        raise BontuneError(f"a file of rows must be given by its name, not {path!r}")
    path = Path(path).expanduser()
    require_file(path)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet_rows(path)
        return
    try:
        with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as file:
            # Bytes are split at \n only; str.splitlines would also split at separators that JSON texts may hold.
            if name.endswith(".csv"):
                parts: Iterator[tuple[str, Any]] = _csv_rows(path, file.read())
            else:
                parts = _list_items(path, file.read()) if name.endswith(".json") else _lines(path, file)
            for place, row in parts:
                if not isinstance(row, dict):
                    raise BontuneError(f"{place}: a JSON {type(row).__name__}, not an object with columns")
                yield place, _readable(row)
    except (OSError, EOFError, zlib.error) as error:
        raise BontuneError(f"{path} cannot be read: {error}") from error


def require_file(path: Path) -> None:
    """Refuse what is not an existing file of rows, with its likely name.

    Raises:
        BontuneError: another ending, a folder, or no such file.
    """
    if not path.name.endswith(SUFFIXES):
        raise BontuneError(f"{path}: files of rows end in {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise BontuneError(f"{path} is a folder; name a file in it")
    if not path.is_file():
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        hint = f", did you mean {str(path.parent / near)!r}?" if near else ""
        raise BontuneError(f"there is no file {str(path)!r}{hint}")


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, parse_json(line.rstrip(), place)


def _list_items(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    items = parse_json(content, str(path))
    if not isinstance(items, list):
        raise BontuneError(f"{path} holds a JSON {type(items).__name__}, not a list of objects")
    for number, item in enumerate(items, start=1):
        yield f"{path}, item {number}", item


def _readable(value: Any) -> Any:
    """The same JSON without halves of characters."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {readable(key): _readable(item) for key, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, list) else value


def _csv_rows(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BontuneError(f"{path} is not UTF-8: byte {error.start + 1}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        _require_distinct([name for name in reader.fieldnames or () if name], str(path))
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise BontuneError(f"{place}: it has another number of values than the first line has names")
            yield place, row
    except csv.Error as error:
        raise BontuneError(f"{path}, line {reader.line_num} is no CSV: {error}") from error


def _parquet_rows(path: Path) -> Iterator[PlacedRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        rows = pq.read_table(path).to_pylist() if repeated(names) is None else []
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BontuneError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    _require_distinct(names, str(path))
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", _readable(row)


def _require_distinct(names: Sequence[str], where: str) -> None:
    name = repeated(names)
    if name is not None:
        raise BontuneError(f"{where}: the column {name!r} occurs twice; remove or rename one")


# ---- the hub ----


def hub_splits(who: str, name: str) -> dict[str, list[PlacedRow]]:
    """All splits of a data set on the hub.

    Args:
        who: whose data it is, for messages, such as ``task jsonl``.
        name: ``owner/name``, or ``owner/name:configuration``.

    Raises:
        BontuneError: the package datasets is missing, the hub cannot be reached, or there is no such data set.
    """
    repository, _, configuration = name.partition(":")
    found = _load_dataset(who, repository, configuration or None, None)
    return {
        split: [(f"{name}, {split}, row {number}", _readable(row)) for number, row in enumerate(rows, start=1)]
        for split, rows in found.items()
    }


def hub_rows(who: str, repository: str, configuration: str | None, split: str) -> Iterator[PlacedRow]:
    """Yield the rows of one split of a data set on the hub, or of a folder in its layout.

    Raises:
        BontuneError: as :func:`hub_splits`.
    """
    for number, row in enumerate(_load_dataset(who, repository, configuration, split)[split], start=1):
        yield f"{repository}, row {number}", _readable(row)


def _load_dataset(who: str, repository: str, configuration: str | None, split: str | None) -> Splits:
    """The rows of one split, or of all."""
    try:
        import datasets  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        raise BontuneError(
            f"{who} reads its data from the Hugging Face hub with the package datasets, which is not installed: "
            "pip install 'bontune[hub]', or give task.data=PATH to a file or folder that holds the data"
        ) from None
    if not Path(repository).is_dir():
        _require_hub(who, repository)
    try:
        found = datasets.load_dataset(repository, configuration, split=split)
        splits = {str(name): list(map(dict, rows)) for name, rows in ({split: found} if split else found).items()}
    except Exception as error:  # an edge: the hub, its files and its cache fail in many types
        cause = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise BontuneError(
            f"{who}: {repository} could not be fetched from the Hugging Face hub: {cause}; "
            "give task.data=PATH to a file or folder that holds the data"
        ) from error
    return as_written(
        splits,
        lambda: datasets.load_dataset_builder(repository, configuration),
        lambda files: list(datasets.DownloadManager().download(files)),
    )


def _require_hub(who: str, repository: str) -> None:
    """Refuse at once when the hub cannot be reached."""
    why = why_unreachable()
    if why is not None:
        raise BontuneError(
            f"{who} reads {repository} from the Hugging Face hub, and {why}: give task.data=PATH to a file or folder "
            "that holds the data, or set HF_HUB_OFFLINE=1 to use what was fetched before"
        )
