"""The pieces of a suite on disk: single files while the suite runs, two files when it has ended.

A piece is what one job made, under the name that its single file has below ``pieces/``::

    base/model/test-T1.parquet                            a measurement: one row per problem, one column per metric
    bon_rl-lr0.0006-seed0/trial.json                      the account of a training run
    bon_rl-lr0.0006-seed0/pass@16/test-T1.parquet         a measurement of the checkpoint that was best by pass@16

:meth:`Pieces.pack` moves all of them into ``pieces.parquet``, every measurement's rows with the piece's name in the
column ``piece``, and ``pieces.jsonl``, a line for each piece with its settings or its account. The lines are the
index: a piece whose line is deleted is not there. A single file wins over a packed piece of its name.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.metrics.evaluation import Evaluation
from bontune.training.read_log import read_json

TRIAL = "trial.json"


@dataclass(frozen=True, slots=True)
class Packed:
    """The two files as they were read."""

    lines: Mapping[str, dict[str, Any]]
    """Each piece's line, by its name."""
    table: pa.Table | None
    """The rows of all measurements."""
    rows: Mapping[str, tuple[int, int]]
    """First row and number of rows of each measurement."""


class Pieces:
    """Reads and writes the pieces of a suite.

    Args:
        out: the folder of the suite's results.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / "pieces"
        self.lines_path = out / "pieces.jsonl"
        self.table_path = out / "pieces.parquet"

    def path(self, name: str) -> Path:
        """The single file of a piece."""
        return self.folder / name

    def where(self, name: str) -> str:
        """Say where a piece lies, and what to delete to have it made again."""
        path = self.path(name)
        if path.exists():
            return f"{path.parent}"
        return f"the lines of {name.partition('/')[0]} in {self.lines_path}"

    def names(self) -> set[str]:
        """The names of all pieces."""
        files = (path for path in self.folder.glob("*/**/*.*") if path.is_file() and not path.name.startswith("."))
        loose = {str(path.relative_to(self.folder)) for path in files}
        return loose | set(self.packed.lines)

    def has(self, name: str) -> bool:
        """Whether there is a piece of that name."""
        return self.path(name).is_file() or name in self.packed.lines

    def trial(self, name: str) -> dict[str, Any] | None:
        """Read the account of a run; None if there is none, or a torn one."""
        found = read_json(self.path(name))
        return found if found is not None else self.packed.lines.get(name, {}).get("trial")

    def measurement(self, name: str) -> tuple[Evaluation, Any] | None:
        """Read a measurement and the settings that it was made with; None if it is not there.

        Raises:
            BontuneError: it is damaged.
        """
        path = self.path(name)
        if path.is_file():
            try:
                table = pq.read_table(path)
                settings = json.loads(table.schema.metadata[b"settings"])
                return _evaluation(table), settings
            except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:  # or it is none of ours
                raise BontuneError(f"{path} is damaged ({error}): delete it to have it measured again.") from None
        line = self.packed.lines.get(name)
        if line is None:
            return None
        if self.packed.table is None or name not in self.packed.rows:
            raise BontuneError(
                f"{self.table_path} has no rows of {name}: delete its line in {self.lines_path} to have it measured "
                "again."
            )
        return _evaluation(self.packed.table.slice(*self.packed.rows[name]).drop_columns("piece")), line["settings"]

    def write_trial(self, name: str, account: Mapping[str, Any]) -> None:
        """Write the account of a run as a single file."""
        write_whole(self.path(name), json.dumps(account, indent=1), "account of a run")

    def write_measurement(self, name: str, evaluation: Evaluation, settings: Mapping[str, Any]) -> None:
        """Write a measurement as a single file: one float32 value per problem and metric."""
        columns: dict[str, Any] = {"problem": pa.array(evaluation.problem_ids, pa.string())}
        columns |= {metric: pa.array(values.astype(np.float32)) for metric, values in evaluation.values.items()}
        table = pa.table(columns).replace_schema_metadata({"settings": json.dumps(settings)})
        write_whole(self.path(name), _as_parquet(table), "measurement")

    def pack(self) -> None:
        """Move every piece into the two files; a kill at any moment loses nothing.

        Raises:
            BontuneError: a piece is damaged, or a file cannot be written.
        """
        names = sorted(self.names())
        if not any(self.path(name).is_file() for name in names):
            return
        lines, tables = [], []
        for name in names:
            if name.endswith(TRIAL):
                lines.append({"piece": name, "trial": self.trial(name)})
            elif (found := self.measurement(name)) is not None:
                evaluation, settings = found
                lines.append({"piece": name, "settings": settings})
                columns: dict[str, Any] = {"piece": [name] * len(evaluation.problem_ids)}
                columns |= {"problem": evaluation.problem_ids}
                columns |= {metric: v.astype(np.float32) for metric, v in evaluation.values.items()}
                tables.append(pa.table(columns))
        if tables:
            table = pa.concat_tables(tables, promote_options="default")
            write_whole(self.table_path, _as_parquet(table), "measurements")
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_whole(self.lines_path, text, "pieces")  # after the rows that the lines speak of
        for name in names:
            self.path(name).unlink(missing_ok=True)
        for folder in sorted(self.folder.glob("**/"), reverse=True):
            with contextlib.suppress(OSError):  # something else is in it
                folder.rmdir()
        self.__dict__.pop("packed", None)

    @cached_property
    def packed(self) -> Packed:
        """The packed pieces, read once.

        Raises:
            BontuneError: one of the files is damaged.
        """
        try:
            text = self.lines_path.read_text(encoding="utf-8") if self.lines_path.is_file() else ""
            lines = {line["piece"]: line for line in map(json.loads, text.splitlines())}
        except (ValueError, KeyError, TypeError) as error:
            raise BontuneError(f"{self.lines_path} is damaged ({error}): restore it, or give another --out.") from None
        if not self.table_path.is_file():
            return Packed(lines, None, {})
        try:
            table = pq.read_table(self.table_path)
            counts = pc.value_counts(table["piece"]).to_pylist()  # in order of appearance
        except (pa.ArrowException, OSError, KeyError) as error:
            raise BontuneError(f"{self.table_path} is damaged ({error}): restore it, or give another --out.") from None
        rows, start = {}, 0
        for count in counts:
            rows[count["values"]] = (start, count["counts"])
            start += count["counts"]
        return Packed(lines, table, rows)


def _evaluation(table: pa.Table) -> Evaluation:
    """Take a measurement out of its table; a metric that it does not have is null in all rows of a packed one."""
    metrics = {name: table[name] for name in table.column_names if name != "problem"}
    values = {
        name: column.to_numpy().astype(np.float64)
        for name, column in metrics.items()
        if column.null_count < len(column) or not len(column)
    }
    return Evaluation(problem_ids=table["problem"].to_pylist(), values=values)


def _as_parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()
