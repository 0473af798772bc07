"""Where the rows of a known data set come from: a file, a folder of files, or the Hugging Face hub.

A data set is made of tables (``train`` and ``test``, or one). A folder is searched for each table's file by its usual
names, a single file is the table that its name says, and without either the hub is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bontune.base.errors import BontuneError, did_you_mean
from bontune.tasks.reading import SUFFIXES, FilePath, PlacedRow, hub_rows, read_rows, require_file

Data: TypeAlias = str | Path | Mapping[str, str | Path] | None
"""The option ``data``: a file, a folder, a file for each table, or None for the hub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
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

    def __init__(self, task: str, tables: Mapping[str, Table], data: Data, hub: str | None = None) -> None:
        if hub is not None and (not isinstance(hub, str) or not hub):
            raise BontuneError(f"task {task}: hub must be a repository (owner/name), not {hub!r}")
        if hub is not None and data is not None:
            raise BontuneError(f"task {task}: data and hub are both given; leave one out")
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
                hub_rows(f"task {self._task}", where, None if self._hub else table.configuration, table.hub_split)
            )
        if not rows:
            raise BontuneError(f"{where} holds no rows")
        for place, row in rows:
            missing = [column for column in table.columns if column not in row]
            if missing:
                raise BontuneError(
                    f"{place}: task {self._task} needs the columns {', '.join(table.columns)}; "
                    f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, there are: "
                    f"{', '.join(row) or 'none'}"
                )
        return rows

    def _find(self, data: FilePath | Mapping[str, FilePath]) -> dict[str, Path]:
        if isinstance(data, Mapping):
            return self._named(data)
        if not isinstance(data, (str, Path)) or not str(data):
            raise BontuneError(f"task {self._task}: data must be a file or a folder, not {data!r}")
        path = Path(data).expanduser()
        if path.is_dir():
            return self._in_folder(path)
        if not path.exists() and not path.name.endswith(SUFFIXES):
            raise BontuneError(f"task {self._task}: there is no folder {str(data)!r}")
        require_file(path)
        return {self._table_of(path): path}

    def _named(self, data: Mapping[str, FilePath]) -> dict[str, Path]:
        for name, file in data.items():
            if name not in self._tables:
                known = ", ".join(self._tables)
                raise BontuneError(
                    f"task {self._task}: data has no table {name!r}{did_you_mean(name, self._tables)}; {known}"
                )
            if not isinstance(file, (str, Path)):
                raise BontuneError(f"task {self._task}: data.{name} must be the name of a file, not {file!r}")
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
                "either also as .gz); name the file itself if it is called otherwise"
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
