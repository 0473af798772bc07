"""What a suite measured: the choices made on validation, and differences with intervals, from the pieces on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from bontune.base.errors import BontuneError
from bontune.experiments.store import Measurement, Store, SuiteRun
from bontune.experiments.suite import BASE, Suite
from bontune.metrics import Interval
from bontune.metrics.evaluation import Evaluation
from bontune.objectives.inputs import FloatArray
from bontune.pools.compare import as_told
from bontune.pools.over_runs import band_over_runs, difference_over_runs, mean_over_runs
from bontune.report.sentences import LEAST_CHANCE

OWN = "own"
"""Instead of a temperature: each arm's own best one for the metric, chosen on validation."""
Temperature = float | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """What an arm reaches in a metric."""

    temperature: float
    """Temperature at which the arm was measured."""
    interval: Interval
    """Mean with its interval over problems and seeds; fractions."""
    num_seeds: int
    """Number of training runs."""


class Results:
    """Reads the pieces of a suite as they are when they are first asked for; an arm without all it needs is missing."""

    def __init__(self, suite: Suite, store: Store) -> None:
        self.suite = suite
        self.store = store
        self._measured: dict[tuple[SuiteRun, str, Measurement], Evaluation | None] = {}
        self._orders: dict[str, list[str]] = {}
        self._rates: dict[str, float | None] = {}
        self._own: dict[tuple[str, str], float | None] = {}

    # ---- choices ----

    def chosen_rate(self, arm: str) -> float | None:
        """The learning rate that was best on validation with seed 0, by the arm's own metric; None: not all are run."""
        if arm not in self._rates:
            self._rates[arm] = self._choose_rate(arm)
        return self._rates[arm]

    def _choose_rate(self, arm: str) -> float | None:
        if arm == BASE:
            return SuiteRun(arm=BASE).lr
        name, select = self.suite.runs_of(arm), self.suite.arms[arm].select
        trials = {lr: self.store.trial(SuiteRun(arm=name, lr=lr)) for lr in self.suite.rates(name)}
        if not all(trials.values()):
            return None
        return max(trials, key=lambda lr: cast(dict[str, Any], trials[lr])["kept"][select]["value"])

    def runs(self, arm: str) -> list[SuiteRun]:
        """The runs of an arm with its chosen learning rate, done or not."""
        lr = self.chosen_rate(arm)
        if lr is None:
            return []
        return [SuiteRun(arm=self.suite.runs_of(arm), lr=lr, seed=seed) for seed in range(self.suite.num_seeds(arm))]

    def own_temperature(self, arm: str, metric: str) -> float | None:
        """The arm's best T for a metric, on validation with seed 0; of equal ones the lowest."""
        if (arm, metric) not in self._own:
            self._own[arm, metric] = self._choose_temperature(arm, metric)
        return self._own[arm, metric]

    def _choose_temperature(self, arm: str, metric: str) -> float | None:
        means = {}
        for t in sorted(self.suite.measuring.temperatures):
            chooser = self.by_seed(arm, "validation", t).get(0)
            if chooser is None:
                return None
            means[t] = float(_of(chooser, metric).mean())
        return max(means, key=lambda t: means[t])

    # ---- numbers ----

    def by_seed(self, arm: str, data: str, temperature: float) -> dict[int, Evaluation]:
        """The evaluations that are there of an arm, by seed."""
        what = Measurement(data=data, temperature=temperature)
        found = {run.seed: self._read(run, self.suite.arms[arm].select, what) for run in self.runs(arm)}
        return {seed: evaluation for seed, evaluation in found.items() if evaluation is not None}

    def evaluations(self, arm: str, data: str, temperature: float) -> list[Evaluation]:
        """The evaluations of an arm as a list, one for each seed."""
        return list(self.by_seed(arm, data, temperature).values())

    def values(self, arm: str, metric: str, data: str, temperature: Temperature) -> FloatArray | None:
        """(S, P) a metric for each seed and problem; None where nothing is measured.

        Where scores are the rewards, best@k is pass@k.
        """
        t = self.own_temperature(arm, metric) if isinstance(temperature, str) else temperature
        if t is None:
            return None
        evaluations = self.evaluations(arm, data, t)
        if not evaluations:
            return None
        return np.stack([_of(evaluation, metric) for evaluation in evaluations])

    def problems(self, data: str) -> list[str]:
        """Ids of the problems, in order, as the base model was measured on them."""
        found = self.evaluations(BASE, data, 1.0)
        return found[0].problem_ids if found else []

    def level(self, arm: str, metric: str, data: str = "test", temperature: Temperature = 1.0) -> Level | None:
        """Mean of a metric with its interval."""
        values = self.values(arm, metric, data, temperature)
        t = self.own_temperature(arm, metric) if isinstance(temperature, str) else temperature
        if values is None or t is None:
            return None
        return Level(temperature=t, interval=mean_over_runs(values), num_seeds=len(values))

    def difference(
        self, a: str, b: str, metric: str, data: str = "test", temperature: Temperature = 1.0
    ) -> Interval | None:
        """mean(a) − mean(b), paired by problem; with ``own``, each arm at its own best T."""
        values_a, values_b = (self.values(arm, metric, data, temperature) for arm in (a, b))
        if values_a is None or values_b is None:
            return None
        return difference_over_runs(values_a, values_b)

    def band(self, arm: str, family: str) -> list[Interval] | None:
        """The arm minus the base model at T = 1 at every k of a family, within a band over all k at once."""
        metrics = [f"{family}@{k}" for k in self.suite.measuring.ks]
        ours, theirs = ([self.values(name, metric, "test", 1.0) for metric in metrics] for name in (arm, BASE))
        if any(values is None for values in (*ours, *theirs)):
            return None
        return band_over_runs([v for v in ours if v is not None], [v for v in theirs if v is not None])

    def told(self, found: Interval, data: str = "test") -> Interval:
        """A difference as it may be spoken of: without ends (NaN) where nothing can be claimed."""
        return as_told(found, len(self.problems(data)))

    def trial(self, run: SuiteRun) -> dict[str, Any] | None:
        """The account of a training run; None if it is not complete."""
        return self.store.trial(run)

    @cached_property
    def arms(self) -> list[str]:
        """The arms of which something is measured on the test problems at T = 1."""
        return [arm for arm in self.suite.arms if self.evaluations(arm, "test", 1.0)]

    def _read(self, run: SuiteRun, select: str, what: Measurement) -> Evaluation | None:
        key = (run, select, what)
        if key not in self._measured:
            found = self.store.measured(run, select, what)
            self._measured[key] = found and self._in_order(found, run, what)
        return self._measured[key]

    def _in_order(self, found: Evaluation, run: SuiteRun, what: Measurement) -> Evaluation:
        """The same with the problems in one order for all runs: differences are paired by it."""
        order = self._orders.setdefault(what.data, found.problem_ids)
        if found.problem_ids == order:
            return found
        place = {problem: i for i, problem in enumerate(found.problem_ids)}
        if len(place) != len(order) or set(place) != set(order):
            raise BontuneError(
                f"{run.name} was measured on other problems ({what.file}) than the runs before: "
                "the task gives others now; give another --out."
            )
        rows = [place[problem] for problem in order]
        return Evaluation(problem_ids=order, values={name: v[rows] for name, v in found.values.items()})


def _of(evaluation: Evaluation, metric: str) -> FloatArray:
    """Return a metric by problem.

    Raises:
        BontuneError: rewards are graded, so that there is no pass@k; or the results were thinned without the metric.
    """
    if metric.startswith("above@"):
        k = metric.removeprefix("above@")
        return _of(evaluation, f"pass@{k}") - _of(evaluation, f"chance@{k}")
    if metric not in evaluation.values and "pass@1" in evaluation.values and not metric.startswith("max@"):
        raise BontuneError(
            f"The results have no {metric} where the suite needs it, only {', '.join(evaluation.values)}: they were "
            "thinned for other claims. Give another --out to have it measured."
        )
    if metric not in evaluation.values:
        raise BontuneError(
            f"The task's rewards are graded: it has {', '.join(evaluation.values)}, not the {metric} that the suite "
            "asks for. Suites compare tasks with rewards 0 and 1; of others say what counts as solved, "
            "recipe.eval.solved_at."
        )
    return evaluation.values[metric]


def arm_rows(results: Results) -> list[dict[str, Any]]:
    """Compute every arm's metrics on all kinds of problems at T = 1, and at its own best T where that is measured."""
    rows = []
    for arm in results.arms:
        for data in ("test", *(["harder"] if results.suite.measuring.harder is not None else [])):
            for metric in metrics_of(results, arm, data):
                for choice in choices_of(results, metric):
                    level = results.level(arm, metric, data, choice)
                    if level is not None:
                        rows.append(
                            {
                                "arm": arm,
                                "label": results.suite.arms[arm].label,
                                "data": data,
                                "metric": metric,
                                "temperature": level.temperature,
                                "is_own_best": choice == OWN,
                                "seeds": level.num_seeds,
                                **_points(level.interval),
                            }
                        )
    return rows


def choice_rows(results: Results) -> list[dict[str, Any]]:
    """What was tried on validation: learning rates (with checkpoints) and temperatures."""
    rows: list[dict[str, Any]] = []
    for arm, settings in results.suite.arms.items():
        name = results.suite.runs_of(arm)
        for lr in results.suite.rates(name) if arm != BASE else []:
            trial = results.trial(SuiteRun(arm=name, lr=lr))
            if trial is not None:
                kept = trial["kept"][settings.select]
                rows.append(
                    {
                        "arm": arm,
                        "choice": "lr",
                        "value": lr,
                        "by": settings.select,
                        "validation": 100 * kept["value"],
                        "step": kept["step"],
                        "is_chosen": lr == results.chosen_rate(arm),
                    }
                )
        for metric in results.suite.own_metrics():
            for t in results.suite.measuring.temperatures:
                chooser = results.by_seed(arm, "validation", t).get(0)
                if chooser is not None:
                    rows.append(
                        {
                            "arm": arm,
                            "choice": "temperature",
                            "value": t,
                            "by": metric,
                            "validation": 100 * float(chooser.values[metric].mean()),
                            "step": "",
                            "is_chosen": t == results.own_temperature(arm, metric),
                        }
                    )
    return rows


def provenance_rows(results: Results) -> list[dict[str, Any]]:
    """The base model and every training run: the commit and command that made it, and the digest of its recipe."""
    what, rows = Measurement(data="test", temperature=1.0), []
    for run in dict.fromkeys(run for arm in results.suite.arms for run in results.runs(arm)):
        trial = {} if run.arm == BASE else results.trial(run)
        if trial is None:
            continue
        origin = results.store.origin_of(run, what) if run.arm == BASE else trial.get("origin")
        origin = origin or {"commit": "", "command": ""}
        digest = trial.get("settings", {}).get("recipe", "")[:16]
        rows.append({"arm": run.arm, "lr": run.lr, "seed": run.seed, "recipe": digest, **origin})
    return rows


def metrics_of(results: Results, arm: str, data: str = "test") -> list[str]:
    """The metrics of an arm that have a value for every problem; none where it is not measured on the problems.

    A chance level is one if every run of the arm was measured since suites have it.
    """
    found = results.evaluations(arm, data, 1.0)
    if not found:
        return []
    shared = [name for name in found[0].values if all(name in evaluation.values for evaluation in found)]
    return [name for name in shared if name not in ("level", "auc") and not name.endswith(":auc")]


def chance_level(results: Results, arm: str, k: int) -> Level | None:
    """The chance level of an arm on the test problems at T = 1; None where it is not known, or nearly 0 at every k."""
    known = [name for name in metrics_of(results, arm) if name.startswith("chance@")]
    levels = {name: results.level(arm, name) for name in known}
    is_seen = any(level is not None and level.interval.value >= LEAST_CHANCE for level in levels.values())
    return levels.get(f"chance@{k}") if is_seen else None


def choices_of(results: Results, metric: str) -> list[Temperature]:
    """T = 1, and each arm's own best one for the metrics that it is measured at with all seeds."""
    return [1.0, OWN] if metric in results.suite.own_metrics() else [1.0]


def _points(interval: Interval) -> dict[str, float | None]:
    """The columns of an interval, in points; an end that there is not is None."""
    ends = {"low": 100 * interval.low, "high": 100 * interval.high}
    return {"value": 100 * interval.value} | {name: None if np.isnan(end) else end for name, end in ends.items()}
