"""What is kept of a suite: a folder for each training run with how it went, and every measurement of its models.

Small and complete: tables, pictures and claims are computed from it alone, without the models. ::

    pieces/base/model/test-T1.parquet
    pieces/bon_rl-lr0.0006-seed0/trial.json
    pieces/bon_rl-lr0.0006-seed0/pass@16/test-T1.parquet     of the checkpoint that was best by pass@16

A file is there whole or not at all, and holds what it was made with: results of other settings are not mixed in.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.experiments.suite import BASE, Suite
from bontune.metrics.evaluation import Evaluation
from bontune.models import weights_digest
from bontune.report.read import read_json

BASE_SELECT = "model"
"""Instead of the metric that chose the checkpoint, for the model that was not trained."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Run:
    """A training run of a suite, or the base model."""

    arm: str
    """Whose."""
    lr: float = 0.0
    """Its learning rate."""
    seed: int = 0
    """Its seed."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return BASE if self.arm == BASE else f"{self.arm}-lr{self.lr:g}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What to measure: problems and temperature."""

    data: str
    """``validation``, ``test`` or ``harder``."""
    temperature: float
    """T."""

    @property
    def file(self) -> str:
        """Its name in the store."""
        return f"{self.data}-T{self.temperature:g}.parquet"


class Store:
    """The pieces of a suite on disk."""

    def __init__(self, folder: Path, suite: Suite) -> None:
        """
        Args:
            folder: of the results; the pieces lie in ``pieces/`` below.
            suite: whose.
        """
        self.folder = folder / "pieces"
        self.suite = suite
        self._weights = {name: weights_digest(name) for name in self._models()}
        self._training: dict[Run, dict[str, Any]] = {}

    def trial_path(self, run: Run) -> Path:
        """Where it is told how a run went."""
        return self.folder / run.name / "trial.json"

    def trial(self, run: Run) -> dict[str, Any] | None:
        """How a run went; None if it is not complete.

        Raises:
            BontuneError: it was made with other settings.
        """
        path = self.trial_path(run)
        found = read_json(path)
        if found is not None:
            self._check(path, found.get("settings"), self.training_settings(run))
        return found

    def measurement_path(self, run: Run, select: str, what: Measurement) -> Path:
        """Where a measurement lies."""
        return self.folder / run.name / (BASE_SELECT if run.arm == BASE else select) / what.file

    def measured(self, run: Run, select: str, what: Measurement) -> Evaluation | None:
        """A measurement; None if it is not there.

        Raises:
            BontuneError: it was made with other settings, or is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.measurement_path(run, select, what)
        if not path.is_file():
            return None
        try:
            table = pq.read_table(path)
            settings = json.loads(table.schema.metadata[b"settings"])
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:  # or it is none of ours
            raise BontuneError(f"{path} is damaged ({error}): delete it to have it measured again.") from None
        self._check(path, settings, self.measuring_settings(run, what))
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        ids = columns.pop("problem")
        return Evaluation(problem_ids=ids, values={name: np.asarray(v, np.float64) for name, v in columns.items()})

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
        for run, selects in runs.items():
            if (self.folder / run.name).is_dir():
                self.trial(run)
                for select in selects:
                    for what in whats:
                        self.measured(run, select, what)

    def training_settings(self, run: Run) -> dict[str, Any]:
        """What decides how a run goes."""
        if run not in self._training:
            recipe = self.suite.run_recipe(run.arm, run.lr, run.seed, "run")
            models = [recipe.model, *([recipe.verifier.path] if recipe.verifier.path else [])]
            weights = {name: self._weights[name] for name in models}
            self._training[run] = {"recipe": recipe.fingerprint(), "weights": weights}
        return self._training[run]

    def measuring_settings(self, run: Run, what: Measurement) -> dict[str, Any]:
        """What decides what a measurement says."""
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
        return settings if run.arm == BASE else settings | {"training": self.training_settings(run)}

    def _models(self) -> set[str]:
        """Names of all models and verifiers whose weights decide results."""
        recipes = [self.suite.tree(name) for name in (BASE, *self.suite.trained())]
        names = {tree["model"] for tree in recipes} | {tree["verifier"]["path"] for tree in recipes}
        names |= set(verifiers(self.suite).values()) - {"oracle", "majority"}
        return {name for name in names if name}

    @staticmethod
    def _check(path: Path, found: Any, wanted: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(wanted))
        if found != wanted:
            raise BontuneError(
                f"{path} was made with other settings ({different(found, wanted)}): give another --out, or delete "
                f"{path.parent} to have it made again."
            )


def different(found: Any, wanted: Mapping[str, Any]) -> str:
    """Which settings are not the same.

    >>> different({"ks": [1, 2], "samples": 4}, {"ks": [1, 2], "samples": 8})
    'not the same: samples'
    """
    if not isinstance(found, dict):
        return "they are not told"
    names = dict.fromkeys([*wanted, *found])
    return f"not the same: {', '.join(name for name in names if found.get(name) != wanted.get(name))}"


def write_measurement(path: Path, evaluation: Evaluation, settings: Mapping[str, Any]) -> None:
    """Write one value per problem and metric, as float32."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"problem": pa.array(evaluation.problem_ids, pa.string())}
    columns |= {name: pa.array(values.astype(np.float32)) for name, values in evaluation.values.items()}
    table = pa.table(columns).replace_schema_metadata({"settings": json.dumps(settings)})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    write_whole(path, file.getvalue(), "measurement")


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
    """How many problems of data, None: all."""
    measuring = suite.measuring
    return {
        "validation": measuring.validation_problems,
        "test": measuring.test_problems,
        "harder": measuring.harder_problems,
    }[data]
