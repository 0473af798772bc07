"""What is kept of a suite: how each training run went, and every measurement of its models.

Small and complete: tables, pictures and claims are computed from it alone, without the models. What was made with
other settings is refused, never mixed in.
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
from bontune.experiments.suite import BASE, Suite
from bontune.metrics.evaluation import Evaluation
from bontune.models import weights_digest
from bontune.training.read_log import read_json

BASE_SELECT = "model"
"""Instead of the metric that chose the checkpoint, for the model that was not trained."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Run:
    """A training run of a suite, or the base model."""

    arm: str
    """The arm that was trained."""
    lr: float = 0.0
    """Learning rate of the run."""
    seed: int = 0
    """Seed of the run."""

    @property
    def name(self) -> str:
        """Name of the run, and of its folder."""
        return BASE if self.arm == BASE else f"{self.arm}-lr{self.lr:g}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What to measure: problems and temperature."""

    data: str
    """``validation``, ``test`` or ``harder``."""
    temperature: float
    """Sampling temperature T."""

    @property
    def file(self) -> str:
        """Name of the measurement's file."""
        return f"{self.data}-T{self.temperature:g}.parquet"


class Store:
    """The pieces of a suite, each with the settings that the suite has now.

    Args:
        out: the folder of the suite's results.
        suite: the suite.
    """

    def __init__(self, out: Path, suite: Suite) -> None:
        self.pieces = Pieces(out)
        self.suite = suite
        self._weights = {name: weights_digest(name) for name in self._models()}
        self._training: dict[Run, dict[str, Any]] = {}

    @staticmethod
    def trial_name(run: Run) -> str:
        """The piece that tells how a run went."""
        return f"{run.name}/{TRIAL}"

    @staticmethod
    def measurement_name(run: Run, select: str, what: Measurement) -> str:
        """The piece that holds a measurement of the checkpoint that ``select`` kept."""
        return f"{run.name}/{BASE_SELECT if run.arm == BASE else select}/{what.file}"

    def trial(self, run: Run) -> dict[str, Any] | None:
        """Read the account of a run; None if it is not complete.

        Raises:
            BontuneError: it was made with other settings.
        """
        name = self.trial_name(run)
        found = self.pieces.trial(name)
        if found is not None:
            self._check(name, found.get("settings"), self.training_settings(run))
        return found

    def measured(self, run: Run, select: str, what: Measurement) -> Evaluation | None:
        """Read a measurement; None if it is not there.

        Raises:
            BontuneError: it was made with other settings, or is damaged.
        """
        name = self.measurement_name(run, select, what)
        found = self.pieces.measurement(name)
        if found is None:
            return None
        evaluation, settings = found
        self._check(name, settings, self.measuring_settings(run, what))
        return evaluation

    def has(self, run: Run, select: str, what: Measurement) -> bool:
        """Whether a measurement is there."""
        return self.pieces.has(self.measurement_name(run, select, what))

    def write_trial(self, run: Run, account: Mapping[str, Any]) -> None:
        """Keep the account of a run."""
        account = {**account, "settings": self.training_settings(run)}
        self.pieces.write_trial(self.trial_name(run), account)

    def write_measurement(self, run: Run, select: str, what: Measurement, found: Evaluation) -> None:
        """Keep a measurement."""
        name = self.measurement_name(run, select, what)
        self.pieces.write_measurement(name, found, self.measuring_settings(run, what))

    def check_all(self) -> None:
        """Read every piece of the suite that is there.

        Raises:
            BontuneError: one was made with other settings, or is damaged.
        """
        suite = self.suite
        datas = ["validation", "test", *(["harder"] if suite.measuring.harder is not None else [])]
        whats = [Measurement(data=data, temperature=t) for data in datas for t in suite.measuring.temperatures]
        runs = {Run(arm=BASE): [BASE_SELECT]}
        for arm in suite.trained():
            for seed in range(suite.num_seeds(arm)):
                runs |= {Run(arm=arm, lr=lr, seed=seed): suite.selections(arm) for lr in suite.rates(arm)}
        begun = {name.partition("/")[0] for name in self.pieces.names()}
        for run, selects in runs.items():
            if run.name in begun:
                self.trial(run)
                for select in selects:
                    for what in whats:
                        self.measured(run, select, what)

    def training_settings(self, run: Run) -> dict[str, Any]:
        """The settings that decide how a run goes."""
        if run not in self._training:
            recipe = self.suite.run_recipe(run.arm, run.lr, run.seed, "run")
            models = [recipe.model, *([recipe.verifier.path] if recipe.verifier.path else [])]
            weights = {name: self._weights[name] for name in models}
            self._training[run] = {"recipe": recipe.fingerprint(), "weights": weights}
        return self._training[run]

    def measuring_settings(self, run: Run, what: Measurement) -> dict[str, Any]:
        """The settings that decide what a measurement says."""
        measuring = self.suite.measuring
        settings = {
            "task": task_section(self.suite, what.data),
            "problems": num_problems(self.suite, what.data),
            "samples": measuring.samples,
            "ks": list(measuring.ks),
            "temperature": what.temperature,
            "verifiers": verifiers(self.suite),
            "weights": self._weights,
            "max_new_tokens": self.suite.tree(BASE)["sampling"]["max_new_tokens"],
        }
        if measuring.votes:
            settings["votes"] = True
        return settings if run.arm == BASE else settings | {"training": self.training_settings(run)}

    def _models(self) -> set[str]:
        """Names of all models and verifiers whose weights decide results."""
        recipes = [self.suite.tree(name) for name in (BASE, *self.suite.trained())]
        names = {tree["model"] for tree in recipes} | {tree["verifier"]["path"] for tree in recipes}
        names |= set(verifiers(self.suite).values()) - {"oracle", "majority"}
        return {name for name in names if name}

    def _check(self, name: str, found: Any, wanted: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(wanted))
        if found != wanted:
            raise BontuneError(
                f"{self.pieces.path(name)} was made with other settings ({different(found, wanted)}): give another "
                f"--out, or delete {self.pieces.where(name)} to have it made again."
            )


def different(found: Any, wanted: Mapping[str, Any]) -> str:
    """Name the settings that are not the same.

    >>> different({"ks": [1, 2], "samples": 4}, {"ks": [1, 2], "samples": 8})
    'not the same: samples'
    """
    if not isinstance(found, dict):
        return "they are not told"
    names = dict.fromkeys([*wanted, *found])
    return f"not the same: {', '.join(name for name in names if found.get(name) != wanted.get(name))}"


def verifiers(suite: Suite) -> dict[str, str]:
    """All verifiers that a measurement scores with, by name; the one that best@k goes by is first and has no name."""
    return {"": suite.measuring.verifier, **suite.measuring.other_verifiers}


def task_section(suite: Suite, data: str) -> dict[str, Any]:
    """The task that data come from, with its options and split."""
    measuring, tree = suite.measuring, suite.tree(BASE)
    if data == "validation":
        return tree["task"] | {"split": measuring.validation}
    task = tree["task"] | (measuring.test_task or {})
    return task | (measuring.harder or {} if data == "harder" else {}) | {"split": measuring.test}


def num_problems(suite: Suite, data: str) -> int | None:
    """The number of problems of ``data``; None: all."""
    measuring = suite.measuring
    return {
        "validation": measuring.validation_problems,
        "test": measuring.test_problems,
        "harder": measuring.harder_problems,
    }[data]


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
