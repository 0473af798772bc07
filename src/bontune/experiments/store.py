"""What is kept of a suite: how each training run went, and every measurement of its models.

Small and complete: tables, pictures and claims are computed from it alone, without the models. What was made with
other settings is refused, never mixed in.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.experiments.suite import BASE, Suite
from bontune.metrics import pass_at_k
from bontune.metrics.evaluation import Evaluation
from bontune.models import weights_digest
from bontune.objectives.inputs import FloatArray
from bontune.training.read_log import read_json

BASE_SELECT = "model"
"""Instead of the metric that chose the checkpoint, for the model that was not trained."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class SuiteRun:
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


class Piece(NamedTuple):
    """A measurement as it is kept."""

    evaluation: Evaluation
    """Every metric by problem."""
    settings: Any
    """Settings that decide what it says."""
    origin: Mapping[str, str] | None = None
    """Commit or version of the package that measured, and the command; None: not recorded."""


class Store:
    """The pieces of a suite, each with the settings that the suite has now.

    Args:
        out: the folder of the suite's results.
        suite: the suite.
        command: the command that runs the suite; new pieces record it with the commit.
    """

    def __init__(self, out: Path, suite: Suite, command: str = "") -> None:
        self.origin = {"commit": code_version(), "command": command}
        self.pieces = Pieces(out)
        self.suite = suite
        self._weights = {name: weights_digest(name) for name in self._models()}
        self._training: dict[SuiteRun, dict[str, Any]] = {}

    @staticmethod
    def trial_name(run: SuiteRun) -> str:
        """The piece that tells how a run went."""
        return f"{run.name}/{TRIAL}"

    @staticmethod
    def measurement_name(run: SuiteRun, select: str, what: Measurement) -> str:
        """The piece that holds a measurement of the checkpoint that ``select`` kept."""
        return f"{run.name}/{BASE_SELECT if run.arm == BASE else select}/{what.file}"

    def trial(self, run: SuiteRun) -> dict[str, Any] | None:
        """Read the account of a run; None if it is not complete.

        Raises:
            BontuneError: it was made with other settings.
        """
        name = self.trial_name(run)
        found = self.pieces.trial(name)
        if found is not None:
            self._check(name, found.get("settings"), self.training_settings(run))
        return found

    def measured(self, run: SuiteRun, select: str, what: Measurement) -> Evaluation | None:
        """Read a measurement; None if it is not there.

        Raises:
            BontuneError: it was made with other settings, or is damaged.
        """
        name = self.measurement_name(run, select, what)
        found = self.pieces.measurement(name)
        if found is None:
            return None
        self._check(name, found.settings, self.measuring_settings(run, what))
        return found.evaluation

    def origin_of(self, run: SuiteRun, what: Measurement) -> Mapping[str, str] | None:
        """Return the commit and command that measured the base model; None: it is not measured, or not recorded."""
        piece = self.pieces.measurement(self.measurement_name(run, BASE_SELECT, what))
        return piece and piece.origin

    def has(self, run: SuiteRun, select: str, what: Measurement) -> bool:
        """Whether a measurement is there."""
        return self.pieces.has(self.measurement_name(run, select, what))

    def write_trial(self, run: SuiteRun, account: Mapping[str, Any]) -> None:
        """Write how a training run went, with the settings and the commit that made it."""
        account = {**account, "settings": self.training_settings(run), "origin": self.origin}
        self.pieces.write_trial(self.trial_name(run), account)

    def write_measurement(self, run: SuiteRun, select: str, what: Measurement, found: Evaluation) -> None:
        """Write what was measured of a checkpoint, with the settings and the commit that made it."""
        name = self.measurement_name(run, select, what)
        self.pieces.write_measurement(name, Piece(found, self.measuring_settings(run, what), self.origin))

    def check_all(self) -> None:
        """Read every piece of the suite that is there.

        Raises:
            BontuneError: one was made with other settings, or is damaged.
        """
        suite = self.suite
        datas = ["validation", "test", *(["harder"] if suite.measuring.harder is not None else [])]
        whats = [Measurement(data=data, temperature=t) for data in datas for t in suite.measuring.temperatures]
        runs = {SuiteRun(arm=BASE): [BASE_SELECT]}
        for arm in suite.trained():
            for seed in range(suite.num_seeds(arm)):
                runs |= {SuiteRun(arm=arm, lr=lr, seed=seed): suite.selections(arm) for lr in suite.rates(arm)}
        begun = {name.partition("/")[0] for name in self.pieces.names()}
        for run, selects in runs.items():
            if run.name in begun:
                self.trial(run)
                for select in selects:
                    for what in whats:
                        self.measured(run, select, what)

    def training_settings(self, run: SuiteRun) -> dict[str, Any]:
        """The settings that decide how a run goes."""
        if run not in self._training:
            recipe = self.suite.run_recipe(run.arm, run.lr, run.seed, "run")
            models = [recipe.model, *([recipe.verifier.path] if recipe.verifier.path else [])]
            weights = {name: self._weights[name] for name in models}
            self._training[run] = {"recipe": recipe.fingerprint(), "weights": weights}
        return self._training[run]

    def measuring_settings(self, run: SuiteRun, what: Measurement) -> dict[str, Any]:
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
        if measuring.checkpoint == "last":
            settings["checkpoint"] = "last"
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


@cache
def code_version() -> str:
    """Return the commit of the checkout that this package is run from, else the package's version."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)
        found = subprocess.run(
            [*git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"bontune {version('bontune')}"
    return found.stdout.strip()


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
    """The two files of packed pieces as they were read."""

    lines: Mapping[str, dict[str, Any]]
    """Each piece's line, by its name."""
    table: pa.Table | None
    """The rows of all measurements."""
    rows: Mapping[str, tuple[int, int]]
    """First row and number of rows of each measurement."""
    shared: Mapping[str, list[Any]]
    """Settings, trainings, origins and lists of metrics that lines refer to by their place."""


class Pieces:
    """The pieces of a suite on disk: single files while the suite runs, two files when it has ended.

    A piece is what one job made, under the name that its single file has below ``pieces/``::

        base/model/test-T1.parquet                        a measurement: one row per problem, one column per metric
        bon_rl-lr0.0006-seed0/trial.json                  the account of a training run
        bon_rl-lr0.0006-seed0/pass@16/test-T1.parquet     a measurement of the checkpoint that was best by pass@16

    :meth:`pack` moves all of them into ``pieces.parquet``, every measurement's rows with the piece's name in the column
    ``piece``, and ``pieces.jsonl``, a line for each piece with its account, or with the places of its settings in the
    Parquet file's metadata. A column that follows from pass@1 is not stored. The lines are the index: a piece whose
    line is deleted is not there. A single file wins over a packed piece of its name.

    Args:
        out: the folder of the suite's results.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / "pieces"
        self.lines_path = out / "pieces.jsonl"
        self.table_path = out / "pieces.parquet"

    def path(self, name: str) -> Path:
        """Return the path of a piece's single file."""
        return self.folder / name

    def where(self, name: str) -> str:
        """Say where a piece lies, and what to delete to have it made again."""
        path = self.path(name)
        return f"{path.parent}" if path.exists() else f"the lines of {name.partition('/')[0]} in {self.lines_path}"

    def names(self) -> set[str]:
        """Return the names of all pieces."""
        files = (path for path in self.folder.glob("*/**/*.*") if path.is_file() and not path.name.startswith("."))
        return {str(path.relative_to(self.folder)) for path in files} | set(self.packed.lines)

    def has(self, name: str) -> bool:
        """Return whether there is a piece of that name."""
        return self.path(name).is_file() or name in self.packed.lines

    def trial(self, name: str) -> dict[str, Any] | None:
        """Read the account of a run; None if there is none, or a torn one."""
        account = read_json(self.path(name))
        return account if account is not None else self.packed.lines.get(name, {}).get("trial")

    def measurement(self, name: str) -> Piece | None:
        """Read a measurement; None if it is not there.

        Raises:
            BontuneError: it is damaged.
        """
        path = self.path(name)
        if path.is_file():
            try:
                table = pq.read_table(path)
                about = {key.decode(): json.loads(value) for key, value in table.schema.metadata.items()}
                values = {metric: _numbers(table[metric]) for metric in table.column_names if metric != "problem"}
                return Piece(_evaluation(table, values), about["settings"], about.get("origin"))
            except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:  # or it is none of ours
                raise BontuneError(f"{path} is damaged ({error}): delete it to have it measured again.") from None
        line = self.packed.lines.get(name)
        if line is None:
            return None
        if self.packed.table is None or name not in self.packed.rows:
            raise BontuneError(
                f"{self.table_path} has no rows of {name}: delete its line in {self.lines_path} to have it measured "
                "again."
            )
        try:
            return self._unpacked(line, self.packed.table.slice(*self.packed.rows[name]))
        except (KeyError, IndexError, TypeError) as error:
            raise BontuneError(f"{self.table_path} is damaged ({error}): restore it, or give another --out.") from None

    def _unpacked(self, line: Mapping[str, Any], table: pa.Table) -> Piece:
        if isinstance(line["settings"], dict):  # as packed until December 2026, with every column
            columns = {metric: table[metric] for metric in table.column_names if metric not in ("piece", "problem")}
            values = {m: _numbers(column) for m, column in columns.items() if column.null_count < len(column)}
            return Piece(_evaluation(table, values), line["settings"], line.get("origin"))
        shared = self.packed.shared
        settings = dict(shared["settings"][line["settings"]])
        if "training" in line:
            settings["training"] = shared["training"][line["training"]]
        values = {
            metric: _numbers(table[metric])
            if metric in table.column_names
            else _derived(metric, _numbers(table["pass@1"]), settings["samples"])
            for metric in shared["metrics"][line["metrics"]]
        }
        return Piece(_evaluation(table, values), settings, shared["origin"][line["origin"]])

    def write_trial(self, name: str, account: Mapping[str, Any]) -> None:
        """Write the account of a run as a single file."""
        write_whole(self.path(name), json.dumps(account, indent=1), "account of a run")

    def write_measurement(self, name: str, piece: Piece) -> None:
        """Write a measurement as a single file: one float32 value per problem and metric."""
        columns: dict[str, Any] = {"problem": pa.array(piece.evaluation.problem_ids, pa.string())}
        columns |= {metric: pa.array(v.astype(np.float32)) for metric, v in piece.evaluation.values.items()}
        about = {"settings": json.dumps(piece.settings), "origin": json.dumps(piece.origin)}
        write_whole(self.path(name), _as_parquet(pa.table(columns).replace_schema_metadata(about)), "measurement")

    def pack(self) -> None:
        """Move every piece into the two files; a kill at any moment loses nothing.

        Raises:
            BontuneError: a piece is damaged, or a file cannot be written.
        """
        names = sorted(self.names())
        if not any(self.path(name).is_file() for name in names):
            return
        lines: list[dict[str, Any]] = []
        pieces: dict[str, Piece] = {}
        shared: dict[str, list[Any]] = {"settings": [], "training": [], "origin": [], "metrics": []}
        for name in names:
            if name.endswith(TRIAL):
                lines.append({"piece": name, "trial": self.trial(name)})
            elif (piece := self.measurement(name)) is not None:
                pieces[name] = piece
                parts: dict[str, Any] = {"settings": {k: v for k, v in piece.settings.items() if k != "training"}}
                parts |= {"training": piece.settings["training"]} if "training" in piece.settings else {}
                parts |= {"origin": piece.origin, "metrics": list(piece.evaluation.values)}
                lines.append({"piece": name} | {part: _place(value, shared[part]) for part, value in parts.items()})
        if pieces:
            table = _packed_table(pieces).replace_schema_metadata({"shared": json.dumps(shared)})
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
            return Packed(lines, None, {}, {})
        try:
            table = pq.read_table(self.table_path)
            order = np.argsort(_codes(table["piece"]), kind="stable")  # the rows of a piece one after the other
            table = table.take(pa.array(order))
            counts = pc.value_counts(table["piece"]).to_pylist()  # in order of appearance
            shared = json.loads((table.schema.metadata or {}).get(b"shared", b"{}"))
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise BontuneError(f"{self.table_path} is damaged ({error}): restore it, or give another --out.") from None
        rows, start = {}, 0
        for count in counts:
            rows[count["values"]] = (start, count["counts"])
            start += count["counts"]
        return Packed(lines, table, rows, shared)


def _place(value: Any, values: list[Any]) -> int:
    """Return the place of a value in a list, which it is appended to if it is new."""
    if value not in values:
        values.append(value)
    return values.index(value)


def _packed_table(pieces: Mapping[str, Piece]) -> pa.Table:
    """Put measurements one below the other, without the metrics that follow from pass@1 in every one of them."""
    metrics = dict.fromkeys(metric for piece in pieces.values() for metric in piece.evaluation.values)
    stored = [metric for metric in metrics if not all(_is_derived(metric, piece) for piece in pieces.values())]
    tables = []
    for name, piece in pieces.items():
        columns: dict[str, Any] = {"piece": [name] * len(piece.evaluation.problem_ids)}
        columns |= {"problem": piece.evaluation.problem_ids}
        columns |= {m: v.astype(np.float32) for m, v in piece.evaluation.values.items() if m in stored}
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables, promote_options="default")
    order = np.argsort(_codes(table["problem"]), kind="stable")  # a problem's numbers are alike: this is much smaller
    return table.take(pa.array(order))


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Number the different values of a column in the order in which they first appear."""
    return np.asarray(column.combine_chunks().dictionary_encode().indices)


def _is_derived(metric: str, piece: Piece) -> bool:
    """Return whether a metric of a measurement is, bit by bit, what follows from its pass@1, or is not measured."""
    values = piece.evaluation.values
    if metric not in values:
        return True
    if metric == "pass@1" or "pass@1" not in values or not re.fullmatch(r"pass@\d+|.*@1", metric):
        return False
    samples, solved = piece.settings["samples"], values["pass@1"].astype(np.float32).astype(np.float64)
    if not metric.endswith("@1") and not (
        np.isin(solved * samples, np.arange(samples + 1)).all() and int(metric.removeprefix("pass@")) <= samples
    ):
        return False
    return np.array_equal(_derived(metric, solved, samples), values[metric].astype(np.float32), equal_nan=True)


def _derived(metric: str, solved_P: FloatArray, samples: int) -> FloatArray:
    """Compute a metric from pass@1, the share of the samples that solve each problem; as exact as float32."""
    if metric.endswith("@1"):
        return solved_P
    num_solved = np.arange(samples + 1)
    rewards = (np.arange(samples) < num_solved[:, None]).astype(np.float64)  # row c: c of the samples are right
    by_count = pass_at_k(rewards, int(metric.removeprefix("pass@"))).astype(np.float32)
    return by_count[np.rint(solved_P * samples).astype(np.int64)].astype(np.float64)


def _numbers(column: pa.ChunkedArray) -> FloatArray:
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _evaluation(table: pa.Table, values: dict[str, FloatArray]) -> Evaluation:
    return Evaluation(problem_ids=table["problem"].to_pylist(), values=values)


def _as_parquet(table: pa.Table) -> bytes:
    """Write a table as small as it gets: columns of few different values by a dictionary, others byte by byte."""
    file = io.BytesIO()
    few = [
        name
        for name, column in zip(table.column_names, table.columns, strict=True)
        if 2 * pc.count_distinct(column).as_py() <= len(column) - column.null_count
    ]
    many = [field.name for field in table.schema if pa.types.is_floating(field.type) and field.name not in few]
    pq.write_table(
        table,
        file,
        compression="zstd",
        compression_level=19,
        use_dictionary=few,
        use_byte_stream_split=many,
        write_statistics=False,
    )
    return file.getvalue()
