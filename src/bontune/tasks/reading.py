"""Rows from files: JSON Lines, JSON, CSV, Parquet; and from data sets on the Hugging Face hub."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

from bontune.base.client import why_unreachable
from bontune.base.errors import BontuneError, did_you_mean, nearest
from bontune.base.text import is_inexact, parse_json, readable, repeated

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
        raise BontuneError(f"A file of rows must be given by its name, not {path!r}.")
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
                    raise BontuneError(f"{place}: a JSON {type(row).__name__}, not an object with columns.")
                yield place, _readable(row)
    except (OSError, EOFError, zlib.error) as error:
        raise BontuneError(f"{path} cannot be read: {error}") from error


def read_texts(path: FilePath) -> Iterator[str]:
    """Yield the texts of a file: each text and number in its rows, at any depth; any other file is one text.

    Args:
        path: a file of rows (see :func:`read_rows`), or a text in UTF-8, which may be compressed (``.gz``).

    Raises:
        BontuneError: no such file, or it cannot be read as what its name says.
    """
    path = Path(path).expanduser()
    if path.name.endswith(SUFFIXES):
        for _, row in read_rows(path):
            yield from _texts_in(row)
        return
    _require_file(path)
    try:
        with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as file:
            yield file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BontuneError(f"{path} is not UTF-8: byte {error.start + 1}.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise BontuneError(f"{path} cannot be read: {error}.") from error


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    elif isinstance(value, (Mapping, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_in(part)


def require_file(path: Path) -> None:
    """Refuse what is not an existing file of rows, with its likely name.

    Raises:
        BontuneError: another ending, a folder, or no such file.
    """
    if not path.name.endswith(SUFFIXES):
        raise BontuneError(f"{path}: files of rows end in {', '.join(SUFFIXES)}.")
    _require_file(path)


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise BontuneError(f"{path} is a folder; name a file in it.")
    if not path.is_file():
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        hint = f", did you mean {str(path.parent / near)!r}?" if near else ""
        raise BontuneError(f"There is no file {str(path)!r}{hint}")


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, parse_json(line.rstrip(), place)


def _list_items(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    items = parse_json(content, str(path))
    if not isinstance(items, list):
        raise BontuneError(f"{path} holds a JSON {type(items).__name__}, not a list of objects.")
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
                raise BontuneError(f"{place}: it has another number of values than the first line has names.")
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
        raise BontuneError(f"{where}: the column {name!r} occurs twice; remove or rename one.")


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
            "pip install 'bontune[hub]', or give task.data=PATH to a file or folder that holds the data."
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
            "give task.data=PATH to a file or folder that holds the data."
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
            "that holds the data, or set HF_HUB_OFFLINE=1 to use what was fetched before."
        )


Data: TypeAlias = str | Path | Mapping[str, str | Path] | None
"""The option ``data``: a file, a folder, a file for each table, or None for the hub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceTable:
    """One table of a data set: what its file is called, and where the hub has it."""

    files: tuple[str, ...]
    """Usual names of its file without the ending; the first that is there counts."""
    columns: tuple[str, ...]
    """Columns without which it is another data set's."""
    repository: str
    """Repository on the hub."""
    configuration: str | None = None
    """Configuration of the repository; None: its only one."""
    hub_split: str = "test"
    """Split of the repository; ``all`` joins those it has."""


class Source:
    """The tables of a data set that there are, each read when it is asked for.

    Args:
        task: what the messages call it.
        tables: the tables of the data set by name. A single file whose name speaks for none is the last.
        data: a file, a folder, or a file for each table; None: the hub.
        hub: another repository, or a folder in its layout, in place of the usual ones.

    Raises:
        BontuneError: no such file or folder, or a folder with none of the files.
    """

    def __init__(self, task: str, tables: Mapping[str, SourceTable], data: Data, hub: str | None = None) -> None:
        if hub is not None and (not isinstance(hub, str) or not hub):
            raise BontuneError(f"Task {task}: hub must be a repository (owner/name), not {hub!r}.")
        if hub is not None and data is not None:
            raise BontuneError(f"Task {task}: data and hub are both given; leave one out.")
        self._task = task
        self._tables = dict(tables)
        self._hub = hub
        self._files: dict[str, Path] | None = None if data is None else self._find(data)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that there are, in the data set's order; from the hub: all."""
        return tuple(name for name in self._tables if self._files is None or name in self._files)

    def rows(self, name: str) -> list[PlacedRow]:
        """The rows of a table, each with its place.

        Raises:
            BontuneError: it cannot be read or fetched, is empty, or is another data set's.
        """
        table = self._tables[name]
        if self._files is not None:
            where = str(self._files[name])
            rows = list(read_rows(self._files[name]))
        else:
            where = self._hub or table.repository
            rows = list(
                hub_rows(f"Task {self._task}", where, None if self._hub else table.configuration, table.hub_split)
            )
        if not rows:
            raise BontuneError(f"{where} holds no rows.")
        for place, row in rows:
            missing = [column for column in table.columns if column not in row]
            if missing:
                raise BontuneError(
                    f"{place}: task {self._task} needs the columns {', '.join(table.columns)}; "
                    f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, there are: "
                    f"{', '.join(row) or 'none'}."
                )
        return rows

    def _find(self, data: FilePath | Mapping[str, FilePath]) -> dict[str, Path]:
        if isinstance(data, Mapping):
            return self._named(data)
        if not isinstance(data, (str, Path)) or not str(data):
            raise BontuneError(f"Task {self._task}: data must be a file or a folder, not {data!r}.")
        path = Path(data).expanduser()
        if path.is_dir():
            return self._in_folder(path)
        if not path.exists() and not path.name.endswith(SUFFIXES):
            raise BontuneError(f"Task {self._task}: there is no folder {str(data)!r}.")
        require_file(path)
        return {self._table_of(path): path}

    def _named(self, data: Mapping[str, FilePath]) -> dict[str, Path]:
        for name, file in data.items():
            if name not in self._tables:
                known = ", ".join(self._tables)
                raise BontuneError(
                    f"Task {self._task}: data has no table {name!r}{did_you_mean(name, self._tables)}; {known}."
                )
            if not isinstance(file, (str, Path)):
                raise BontuneError(f"Task {self._task}: data.{name} must be the name of a file, not {file!r}.")
            require_file(Path(file).expanduser())
        return {name: Path(file).expanduser() for name, file in data.items()}

    def _in_folder(self, folder: Path) -> dict[str, Path]:
        present = {path.name for path in folder.iterdir() if path.is_file()}
        found = {}
        for name, table in self._tables.items():
            candidates = [stem + suffix for stem in table.files for suffix in SUFFIXES]
            chosen = next((candidate for candidate in candidates if candidate in present), None)
            if chosen is not None:
                found[name] = folder / chosen
        if not found:
            wanted = " or ".join(f"{table.files[0]}.jsonl" for table in self._tables.values())
            raise BontuneError(
                f"the folder {folder} holds no file of task {self._task}: it would be called {wanted} (or .json, "
                "either also as .gz); name the file itself if it is called otherwise."
            )
        return found

    def _table_of(self, path: Path) -> str:
        stem = stem_of(path)
        for name, table in self._tables.items():
            if stem in table.files:
                return name
        return next((name for name in self._tables if name in stem.lower()), list(self._tables)[-1])


def stem_of(path: Path) -> str:
    """A file's name without the ending that says its form.

    Example:
        >>> stem_of(Path("data/gsm8k_test.jsonl.gz"))
        'gsm8k_test'
    """
    return next((path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix)), path.name)


_INSTEAD = "give a list of dictionaries, a data frame, a pyarrow table or a data set"


def rows_in(table: Any, where: str) -> tuple[list[Any], bool]:
    """The rows of a table, and whether it has typed columns, which may have rounded large numbers.

    Frames are known by their methods, so that no package of frames is imported. Gaps of a pandas frame are None.

    Args:
        table: rows, or an object that has them.
        where: what the messages call it.

    Raises:
        BontuneError: no table, or one that names a column twice.
    """
    if hasattr(table, "collect_schema") and not hasattr(table, "to_dicts"):  # polars, lazy
        raise BontuneError(f"{where}: a lazy frame has no rows yet; give frame.collect().")
    names = _names(table)
    if names is not None and (name := repeated(names)) is not None:
        raise BontuneError(f"{where}: the column {name!r} occurs twice; remove or rename one.")
    if hasattr(table, "to_dicts"):  # polars
        return list(table.to_dicts()), True
    if hasattr(table, "notna") and hasattr(table, "columns"):  # pandas
        return list(table.astype(object).where(table.notna(), None).to_dict("records")), True
    if hasattr(table, "to_pylist") and hasattr(table, "schema"):  # pyarrow
        return list(table.to_pylist()), True
    if isinstance(table, (str, bytes, Mapping)) or not isinstance(table, Iterable) or hasattr(table, "dtype"):
        raise BontuneError(f"{where}: rows cannot be read from an object of type {type(table).__name__}; {_INSTEAD}.")
    return list(table), hasattr(table, "features")  # a data set's rows are as its columns hold them


def _names(table: Any) -> list[Any] | None:
    """The names of the columns of a pandas frame or an Arrow table; None of anything else."""
    found = getattr(table, "column_names", None) or getattr(table, "columns", None)
    return list(found) if found is not None and hasattr(found, "__iter__") else None


Splits: TypeAlias = "dict[str, list[dict[str, Any]]]"


def as_written(splits: Splits, builder_of: Callable[[], Any], download: Callable[[list[str]], list[str]]) -> Splits:
    """The same rows, with the values of their files in every column that holds a time or a rounded number.

    Args:
        splits: rows as the package gives them.
        builder_of: makes the package's builder of the data set, which knows its files; called only where a value has
            been changed.
        download: local paths of files by their addresses.

    Returns:
        The rows; those of files that are no JSON, or cannot be found, as they were.
    """
    changed = {name for rows in splits.values() for row in rows for name, value in row.items() if _is_changed(value)}
    files = _files(builder_of, download) if changed else {}
    return {split: _restored(rows, changed, files.get(split, ())) for split, rows in splits.items()}


def _is_changed(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_changed(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(_is_changed(item) for item in value)
    return isinstance(value, date) or is_inexact(value)


def _files(builder_of: Callable[[], Any], download: Callable[[list[str]], list[str]]) -> dict[str, list[str]]:
    """Split → its JSON files, with ``all`` for all of them; empty where the data are no JSON."""
    try:
        builder = builder_of()
        if not type(builder).__module__.endswith("json.json") or builder.config.field is not None:
            return {}
        files = {
            str(split): download([str(file) for file in found]) for split, found in builder.config.data_files.items()
        }
    except Exception:  # an edge: the hub, its files and its cache fail in many types; the rows are there without it
        return {}
    return {"all": [file for found in files.values() for file in found], **files}


def _restored(rows: list[dict[str, Any]], changed: set[str], files: Sequence[str]) -> list[dict[str, Any]]:
    try:
        written = [row for file in files for row in _objects(Path(file))]
    except (OSError, BontuneError):
        return rows
    if len(written) != len(rows) or not all(isinstance(row, dict) for row in written):
        return rows
    return [
        {**row, **{name: original[name] for name in row if name in changed and name in original}}
        for row, original in zip(rows, written, strict=True)
    ]


def _objects(path: Path) -> list[Any]:
    """The objects of a file of JSON lines, or of a JSON list."""
    content = path.read_bytes()
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    if content.lstrip().startswith(b"["):
        return list(parse_json(content, str(path)))
    return [parse_json(line, str(path)) for line in content.split(b"\n") if line.strip()]
