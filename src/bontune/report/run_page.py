"""The page of a run: how it went, what its evaluations say, where the time went, and its recipe."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bontune.base.errors import BontuneError
from bontune.engines.contract import WITHOUT_SEEDS
from bontune.metrics import Interval
from bontune.metrics.evaluation import share_families
from bontune.objectives.budgets import budgets_at, in_words, largest_budget
from bontune.pools.compare import FEWEST_PROBLEMS, as_told
from bontune.report.numbers import (
    budget_for,
    change_writer,
    counted,
    duration,
    metric_writer,
    number,
    percent,
    points_unit,
    sorted_metrics,
    split_metric,
    typographic,
    with_unit,
)
from bontune.report.page import Picture, drawing, facts, picture, render, write_page
from bontune.report.run_figures import draw_improvement, draw_training
from bontune.report.style import Family, family_of
from bontune.report.tables import Cell, Table, measured_cell
from bontune.training.read_log import (
    METRICS,
    bounds,
    evaluations_of,
    finite,
    mapping,
    read_json,
    read_metrics,
    read_samples,
    rows_of_kind,
    series,
)

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A run, as far as it has written itself down."""

    folder: Path
    """Folder of the run."""
    name: str
    """Name of the run on the page."""
    recipe: Mapping[str, Any]
    """Tree of its recipe; empty if there is none, or none that can be read."""
    steps: Rows
    """Rows of its training."""
    evaluations: Rows
    """Rows of its evaluations."""

    @property
    def objective(self) -> Mapping[str, Any]:
        """The section ``objective`` of the recipe."""
        return mapping(self.recipe.get("objective"))

    @property
    def n(self) -> int | None:
        """The N that it was trained for, the largest of several; None if the recipe does not say."""
        return largest_n(self.objective)

    @property
    def family(self) -> Family | None:
        """The family of its method."""
        return family_of(self.recipe)

    @property
    def last_step(self) -> float:
        """The last step that is recorded, 0 for none."""
        return self.steps[-1]["step"] if self.steps else 0

    @property
    def planned_steps(self) -> Any:
        """The steps that the recipe asks for, as far as it says."""
        return mapping(self.recipe.get("training")).get("steps")

    @property
    def is_finished(self) -> bool:
        """Whether it has made all its steps and written its summary."""
        planned = self.planned_steps
        has_summary = (self.folder / "summary.json").exists()
        return has_summary and isinstance(planned, int) and self.last_step >= planned

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics of its evaluations, in order."""
        return sorted_metrics(str(name) for row in self.evaluations for name in mapping(row.get("metrics")))

    def last(self, metric: str) -> Interval | None:
        """A metric at the last evaluation, with its interval."""
        return measured_in(self.evaluations[-1], metric) if self.evaluations else None


def read_run(folder: Path, name: str = "", *, is_strict: bool = False) -> RunRecord:
    """Read what a run has written; a run that has just begun has hardly anything.

    Args:
        folder: of the run.
        name: on the page; empty: the folder's.
        is_strict: a recipe that cannot be read is an error, not an empty one.

    Raises:
        BontuneError: no such folder, a damaged ``metrics.jsonl``, or ``recipe.yaml`` where that matters.
    """
    if not folder.is_dir():
        raise BontuneError(f"There is no run folder {folder}; give the folder that a recipe's 'run' names.")
    rows = read_metrics(folder / METRICS) if (folder / METRICS).exists() else []
    path = folder / "recipe.yaml"
    try:
        recipe = mapping(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        if is_strict:
            raise BontuneError(f"Cannot read {path}: {' '.join(str(error).split())[:200]}.") from None
        recipe = {}
    return RunRecord(
        folder=folder,
        name=name or folder.resolve().name,
        recipe=recipe,
        steps=rows_of_kind(rows, "step"),
        evaluations=evaluations_of(rows),
    )


def measured_in(evaluation: Mapping[str, Any], metric: str) -> Interval | None:
    """A metric of an evaluation with its interval (NaN: none); None if it is no finite number."""
    value = finite(mapping(evaluation.get("metrics")).get(metric))
    low, high = bounds(mapping(evaluation.get("intervals")).get(metric)) or (math.nan, math.nan)
    return None if value is None else Interval(value=value, low=low, high=high)


def largest_n(objective: Mapping[str, Any]) -> int | None:
    """The N that a run was trained for, the largest of several; None if the recipe does not say."""
    n = objective.get("n")
    return largest_budget(budgets_at(n)) if isinstance(n, int) or (isinstance(n, Mapping) and n) else None


# ---- one run ----


def write_run_report(run_folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a run: training curves, evaluations, where the time went, the recipe.

    Reads ``recipe.yaml``, ``metrics.jsonl`` and ``summary.json``; a run that has just begun gets a report too.

    Args:
        run_folder: of the run.
        path: where to write; default: ``report.html`` in the run's folder.

    Returns:
        The path of the report.

    Raises:
        BontuneError: no such folder, a damaged ``metrics.jsonl``, or the page cannot be written.
    """
    folder = Path(run_folder)
    return write_page("run.html.jinja", folder / "report.html" if path is None else path, _run_context(folder))


def run_page(folder: Path, *, refresh: int | None = None, state: str = "") -> str:
    """The page of a run as it is now.

    Args:
        folder: of the run.
        refresh: seconds after which a browser asks again; None: never.
        state: what the run is doing, as a sentence; empty: left out.

    Raises:
        BontuneError: as :func:`write_run_report`.
    """
    context = _run_context(folder)
    notes = [*([state] if state else []), *context["notes"]]
    return render("run.html.jinja", context | {"refresh": refresh, "notes": notes})


def _run_context(folder: Path) -> dict[str, Any]:
    run = read_run(folder)
    gains = draw_improvement(run.evaluations)
    summary = {k: v for k, v in (read_json(folder / "summary.json") or {}).items() if v not in ({}, [])}
    return {
        "title": f"Run {run.name}",
        "name": run.name,
        "headline": _run_headline(run),
        "notes": [*_trained_for(run), *_engine_notes(run), *_run_notes(run.steps)],
        "figure": training_picture([run]) if run.steps else None,
        "gains": gains
        and drawing(
            gains,
            heading="What training has changed",
            caption="The same problems and the same seeds at each evaluation: what differs is the model.",
        ),
        "evaluations": _evaluation_table(run),
        "samples": samples_over_training(read_samples(folder)),
        "is_graded": "max" in {split_metric(name)[0] for name in run.metrics},
        "stages": _stage_table(run.steps),
        "summary": facts(summary),
        "recipe": _read_text(folder / "recipe.yaml"),
    }


def samples_over_training(rows: Rows) -> list[dict[str, Any]]:
    """Follow each problem from the first evaluation to the last, by way of those at a quarter and a half between."""
    steps = sorted({row["step"] for row in rows})
    if not steps:
        return []
    goals = [steps[0] + (steps[-1] - steps[0]) * part for part in (0, 0.25, 0.5, 1)]
    shown = sorted({min(steps, key=lambda step: (abs(step - goal), step)) for goal in goals})
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    by_place = {(row["problem"], row["step"]): row for row in rows}
    return [
        {
            "problem": problem,
            "prompt": next(row["prompt"] for row in rows if row["problem"] == problem),
            "at": [
                {"step": step, "completions": by_place[problem, step]["completions"]}
                for step in shown
                if (problem, step) in by_place
            ],
        }
        for problem in problems
    ]


def _run_headline(run: RunRecord) -> str:
    """How the metric of the trained N has moved, and whether that is more than chance."""
    metric = _run_metric(run)
    measured = [
        (row["step"], interval)
        for row in run.evaluations
        if metric is not None and (interval := measured_in(row, metric)) is not None
    ]
    if metric is None or not measured:
        return _progress(run)
    (first_step, first), (last_step, last) = measured[0], measured[-1]
    is_share = split_metric(metric)[0] in share_families(run.metrics)
    write, unit = metric_writer(is_share), " %" if is_share else ""
    before, after = write(first.value) + unit, write(last.value) + unit
    if len(measured) == 1:
        return f"{metric} was {after} at step {last_step:g}."
    if before == after:
        moved = f"{metric} was {after} at step {first_step:g} and at step {last_step:g}"
    else:
        verb = "rose" if last.value > first.value else "fell"
        moved = f"{metric} {verb} from {before} at step {first_step:g} to {after} at step {last_step:g}"
    if gain := mapping(run.evaluations[-1].get("gains")).get(metric):
        return f"{moved}; {_verdict(gain, _num_problems(run), is_share)}."
    if math.isnan(first.low) or math.isnan(last.low):
        return f"{moved}; without intervals, this may be chance."
    if first.low <= last.high and last.low <= first.high:
        return f"{moved}; no clear difference, as the 95 % intervals overlap."
    return f"{moved}; the 95 % intervals do not overlap."


def _progress(run: RunRecord) -> str:
    """How far a run has come, of which no evaluation tells anything."""
    if not run.steps:
        return "No step is recorded yet."
    if run.is_finished:
        return f"Training has finished after {counted(int(run.last_step), 'step')}; nothing was evaluated."
    return f"Training has reached step {run.last_step:g}; nothing is evaluated yet."


def _verdict(gain: Sequence[Any], num_problems: int, is_share: bool) -> str:
    """Say whether a change that is paired by problem is more than chance, and where it lies."""
    span = bounds(gain[1:])
    if span is None:
        return "without an interval, this may be chance"
    claimed = as_told(Interval(value=gain[0], low=span[0], high=span[1]), num_problems)
    verdict = "more than chance" if span[0] > 0 or span[1] < 0 else "no clear difference"
    if math.isnan(claimed.low) and span != (0.0, 0.0):
        verdict = "too few problems, or too much alike, to claim a change"
    low, high = (typographic(change_writer(is_share)(end)) for end in span)
    between = f"between {low} and {high}" if low != high else f"at {low}"
    return f"{verdict}: the change lies {between}{points_unit(is_share)}"


def _num_problems(run: RunRecord) -> int:
    """Problems of the last evaluation; rows of earlier versions do not say, and are taken to have enough."""
    return int(finite(run.evaluations[-1].get("problems")) or FEWEST_PROBLEMS)


def _run_metric(run: RunRecord) -> str | None:
    """The metric to speak about: at the N that was trained for, or at the largest k below it.

    pass@k; where rewards are graded, best@k under a verifier that errs, else max@k. Without any of these the first
    metric.
    """
    names = run.metrics
    lasting = [name for name in names if all(name in mapping(row.get("metrics")) for row in run.evaluations)]
    families = {split_metric(name)[0] for name in names}
    for family in ("pass", *(["best"] if {"max", "gap"} <= families else []), "max"):
        ks = [k for name in lasting or names if split_metric(name)[0] == family and (k := split_metric(name)[1])]
        if ks:
            return f"{family}@{budget_for(ks, run.n)}"
    return next(iter(names), None)


def _trained_for(run: RunRecord) -> list[str]:
    n = run.objective.get("n")
    if not isinstance(n, Mapping) or not n:
        return []
    return [f"Trained for several N at once: {typographic(in_words(budgets_at(n)))}."]


def _engine_notes(run: RunRecord) -> list[str]:
    """Say what the engine does not promise, and how far the trained policy was from the behaviour policy."""
    notes = [WITHOUT_SEEDS] if mapping(run.recipe.get("engine")).get("name") == "vllm" else []
    values = {key: series(run.steps, key)[1] for key in ("ratio", "effective_samples", "truncated", "engine_kl")}
    if all(value.size for value in values.values()):
        mean = {key: float(value.mean()) for key, value in values.items()}
        notes.append(
            f"Trained policy over the behaviour policy, on average over the steps: ratio {mean['ratio']:.3f}, "
            f"effective samples {percent(mean['effective_samples'])} %, truncated or clipped "
            f"{percent(mean['truncated'])} %, KL(behaviour‖trained) {mean['engine_kl']:.2g} nats per sample."
        )
    return notes


def _run_notes(steps: Rows) -> list[str]:
    notes = []
    if refilled := int(series(steps, "refilled")[1].sum()):
        were = "was" if refilled == 1 else "were"
        notes.append(f"{counted(refilled, 'prompt')} {were} drawn in place of others without weight.")
    failures = sum(finite(row.get("grader_errors")) or 0 for row in steps)
    if failures:
        notes.append(f"The grader failed on {counted(int(failures), 'completion')}: nothing is known about them.")
    seconds = sum(_stage_seconds(steps).values())
    if seconds:
        speed = series(steps, "tokens_per_s")[1]
        pace = f", {float(np.median(speed)):,.0f} tokens per second (median)" if speed.size else ""
        notes.append(f"{counted(len(steps), 'step')} in {duration(seconds)}{pace}.")
    return notes


def training_picture(runs: Sequence[RunRecord]) -> Picture:
    """The training curves of one or several runs."""
    plot = draw_training({run.name: run.steps for run in runs}, {run.name: run.family for run in runs})
    return picture(plot, heading="Training", caption="Light lines: single steps. Strong lines: smoothed.")


def metric_cells(row: Mapping[str, Any], metrics: Sequence[str], shares: set[str]) -> list[Cell]:
    """The metrics of an evaluation as entries of a table.

    Args:
        row: of the evaluation; empty: there is none.
        metrics: names, one for each column.
        shares: families of metrics that are in percent.
    """
    cells = []
    for metric in metrics:
        is_share = split_metric(metric)[0] in shares
        cells.append(measured_cell(measured_in(row, metric), metric_writer(is_share), "–" if is_share else " to "))
    return cells


def _evaluation_table(run: RunRecord) -> Table:
    names, shares = run.metrics, share_families(run.metrics)
    heads = [with_unit(name, is_share=split_metric(name)[0] in shares) for name in names]
    return Table(
        caption="Evaluations during training, with 95 % intervals where measured.",
        columns=["Step", *heads],
        rows=[[f"{row['step']:g}", *metric_cells(row, names, shares)] for row in run.evaluations],
    )


def _stage_seconds(steps: Rows) -> dict[str, float]:
    total: dict[str, float] = {}
    for row in steps:
        for stage, seconds in mapping(row.get("seconds")).items():
            total[str(stage)] = total.get(str(stage), 0.0) + (finite(seconds) or 0.0)
    return total


def _stage_table(steps: Rows) -> Table:
    total = _stage_seconds(steps)
    whole = sum(total.values())
    return Table(
        caption="Time by stage, added up over all recorded steps.",
        columns=["Stage", "Time", "Share", "Seconds per step"],
        rows=[
            [stage, duration(seconds), f"{percent(seconds / whole)} %", number(seconds / len(steps))]
            for stage, seconds in total.items()
            if whole > 0
        ],
    )


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
