"""Sample pools on disk: one row per completion, Parquet or JSONL, for pandas and for ``bestofn eval``.

A pool is collected into ``POOL.partial.jsonl`` (one line per problem, appended and fsynced) and becomes ``POOL`` in one
rename when it is complete, so a killed collection continues where it was and a finished pool is never half there.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestofn.errors import BestofnError, RunStopped
from bestofn.sampling.collect import Graded

COLUMNS = (
    "problem_id", "sample", "prompt", "reference", "level", "completion", "answer",
    "reward", "score", "verdict", "reason", "logprob", "num_tokens", "stop_reason",
)  # fmt: skip
"""Of a pool, in order. ``reward`` is null where the grader failed; ``score`` is the verifier's."""
REQUIRED = ("problem_id", "reward")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A pool in memory: P problems × M samples, as lists of lists."""

    problem_ids: list[str]
    """P ids."""
    columns: dict[str, list[list[Any]]]
    """Column → P × M values."""
    settings: dict[str, Any]
    """How it was drawn (empty for pools of other origin)."""

    def rewards(self) -> list[list[float]]:
        """P × M rewards; what could not be graded counts 0, never as correct."""
        return [[0.0 if r is None or math.isnan(r) else float(r) for r in row] for row in self.columns["reward"]]

    @property
    def num_grader_errors(self) -> int:
        """Completions that could not be graded."""
        return sum(r is None or math.isnan(r) for row in self.columns["reward"] for r in row)


def rows_of(graded: Graded) -> list[list[dict[str, Any]]]:
    """The pool rows of graded samples, P lists of M."""
    m = graded.samples.num_samples
    logprobs = graded.samples.logprobs_BT.double().sum(-1).tolist()
    lengths = graded.samples.lengths_B.tolist()
    return [
        [
            {
                "problem_id": problem.id, "sample": i, "prompt": problem.prompt, "reference": problem.reference,
                "level": problem.level, "completion": graded.samples.texts[p][i], "answer": grade.answer,
                "reward": None if math.isnan(grade.reward) else grade.reward,
                "score": None if math.isinf(graded.scores[p][i]) else graded.scores[p][i],
                "verdict": grade.verdict.value, "reason": grade.reason, "logprob": logprobs[p * m + i],
                "num_tokens": lengths[p * m + i], "stop_reason": graded.samples.stops[p * m + i].value,
            }
            for i, grade in enumerate(graded.grades[p])
        ]
        for p, problem in enumerate(graded.problems)
    ]  # fmt: skip


class PoolWriter:
    """Collects problems one by one, restartable."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """
        Args:
            path: ends in .parquet or .jsonl.
            settings: how the pool is drawn; a partial pool drawn otherwise is not continued.

        Raises:
            BestofnError: another ending, the pool is already there, or a partial pool has other settings.
        """
        if path.suffix not in (".parquet", ".jsonl"):
            raise BestofnError(f"A pool ends in .parquet or .jsonl, got {path.name!r}.")
        if path.exists():
            raise BestofnError(f"{path} is already there: delete it or give another name.")
        self.path = path
        self.settings = dict(settings)
        self.partial = path.with_name(path.name + ".partial.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: set[str] = self._recover()
        self._file = open(self.partial, "a", encoding="utf-8")  # noqa: SIM115 - open until finish() or close()
        if self._file.tell() == 0:
            self._append({"settings": self.settings})

    def _recover(self) -> set[str]:
        """Problems that are already there; a line torn by a kill is cut off."""
        if not self.partial.exists():
            return set()
        done: set[str] = set()
        whole = 0
        with open(self.partial, "rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = json.loads(line)
                except ValueError:
                    raise BestofnError(
                        f"{self.partial} is damaged at line {number + 1}: delete it to start anew."
                    ) from None
                if number == 0 and entry.get("settings") != json.loads(json.dumps(self.settings)):
                    raise BestofnError(
                        f"{self.partial} was begun with other settings: finish it with those, or delete it."
                    )
                if number > 0:
                    done.add(entry["rows"][0]["problem_id"])
                whole += len(line)
        os.truncate(self.partial, whole)
        return done

    def add(self, problem_rows: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        """Append problems, each with all its samples; on disk when this returns.

        Raises:
            RunStopped: it cannot be written; what was there stays.
        """
        for rows in problem_rows:
            self._append({"rows": list(rows)})
            self.done.add(rows[0]["problem_id"])

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunStopped(
                f"{self.partial} could not be written: {error.strerror}; free some space and run this again."
            ) from error

    def finish(self, order: Iterable[str]) -> Path:
        """Write the whole pool in the given order of problems and remove the partial one."""
        self._file.close()
        entries: dict[str, list[dict[str, Any]]] = {}
        with open(self.partial, encoding="utf-8") as file:
            next(file)
            for line in file:
                rows = json.loads(line)["rows"]
                entries[rows[0]["problem_id"]] = rows
        rows = [row for name in order for row in entries[name]]
        temporary = self.path.with_name(f".tmp-{self.path.name}")
        if self.path.suffix == ".parquet":
            _write_parquet(temporary, rows, self.settings)
        else:
            with open(temporary, "w", encoding="utf-8") as out:
                out.writelines(json.dumps(row) + "\n" for row in rows)
        os.replace(temporary, self.path)
        self.partial.unlink()
        return self.path

    def close(self) -> None:
        """Leave the partial pool for later."""
        self._file.close()


def _write_parquet(path: Path, rows: list[dict[str, Any]], settings: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number, integer = pa.string(), pa.float64(), pa.int64()
    types = {
        "sample": integer,
        "level": integer,
        "num_tokens": integer,
        "reward": number,
        "score": number,
        "logprob": number,
    }
    schema = pa.schema(
        [(name, types.get(name, text)) for name in COLUMNS], metadata={"bestofn": json.dumps(dict(settings))}
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def read_pool(path: Path) -> Pool:
    """Read a pool: ours, or any Parquet or JSONL with ``problem_id`` and ``reward``, one row per completion.

    Raises:
        BestofnError: no such file, not a pool, no rows, or problems with different numbers of samples.
    """
    if not path.is_file():
        raise BestofnError(f"There is no pool at {path}.")
    settings: dict[str, Any] = {}
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(path)
            settings = json.loads((table.schema.metadata or {}).get(b"bestofn", b"{}"))
            rows = table.to_pylist()
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BestofnError(f"{path} is not a pool: {' '.join(str(error).split())[:200]}") from None
    if not rows or not isinstance(rows[0], dict):
        raise BestofnError(f"{path} holds no rows.")
    missing = [name for name in REQUIRED if name not in rows[0]]
    if missing:
        raise BestofnError(
            f"{path} has no column {missing[0]!r}; a pool needs {' and '.join(REQUIRED)}, it has {', '.join(rows[0])}."
        )
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row["problem_id"]), []).append(row)
    sizes = sorted({len(group) for group in groups.values()})
    if len(sizes) > 1:
        raise BestofnError(
            f"{path} has problems with {sizes[0]} and with {sizes[-1]} samples; a pool has the same number for each."
        )
    columns = {name: [[row.get(name) for row in group] for group in groups.values()] for name in rows[0]}
    return Pool(problem_ids=list(groups), columns=columns, settings=settings)
