"""The pages of runs: one run, several side by side, a folder of them, and any of these while it trains."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import yaml
from filelock import FileLock, Timeout

from bontune.base.errors import BontuneError
from bontune.base.signals import StopSignals
from bontune.engines.contract import WITHOUT_SEEDS
from bontune.metrics import Interval
from bontune.metrics.evaluation import share_families
from bontune.objectives.budgets import budgets_at, in_words, largest_budget
from bontune.pools.compare import FEWEST_PROBLEMS, as_told
from bontune.report.numbers import (
    NOT_MEASURED,
    budget_for,
    capitalized,
    change_writer,
    counted,
    duration,
    ends_text,
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
from bontune.report.read import bounds, evaluations_of, finite, mapping, read_json, read_metrics, rows_of_kind, series
from bontune.report.run_figures import draw_improvement, draw_training
from bontune.report.style import Family, family_of, looks
from bontune.report.tables import Cell, Table, measured_cell
from bontune.training.runlog import LOCK, METRICS
from bontune.training.shown_samples import read as read_samples

REFRESH_S = 10
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What a run has written so far."""

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
        "figure": _training_picture([run]) if run.steps else None,
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
    """The same problems at the first evaluation, the last, and the ones at a quarter and a half between."""
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
    """Whether a change that is paired by problem is more than chance, and where it lies."""
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
    """What the engine does not promise, and how far the trained policy was from the behaviour policy."""
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


def _training_picture(runs: Sequence[RunRecord]) -> Picture:
    plot = draw_training({run.name: run.steps for run in runs}, {run.name: run.family for run in runs})
    return picture(plot, heading="Training", caption="Light lines: single steps. Strong lines: smoothed.")


def _metric_cells(row: Mapping[str, Any], metrics: Sequence[str], shares: set[str]) -> list[Cell]:
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
        rows=[[f"{row['step']:g}", *_metric_cells(row, names, shares)] for row in run.evaluations],
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


# ---- several runs ----


def write_runs_report(folders: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> Path:
    """Write the page of one run or of several: training curves, last evaluations, and where the recipes differ.

    Args:
        folders: of the runs.
        path: where to write; missing parent folders are made.

    Returns:
        The path.

    Raises:
        BontuneError: no such folder, a damaged ``metrics.jsonl`` or ``recipe.yaml``, one run twice, or the page cannot
            be written.
    """
    if len(folders) == 1:
        return write_run_report(folders[0], path)
    names = _distinct_names([Path(folder) for folder in folders])
    runs = [read_run(Path(folder), name, is_strict=True) for folder, name in zip(folders, names, strict=True)]
    metrics = sorted_metrics(metric for run in runs for row in run.evaluations[-1:] for metric in row["metrics"])
    context = {
        "title": f"Runs {', '.join(names)}",
        "heading": f"Runs {', '.join(names)}",
        "headline": _runs_headline(runs, metrics),
        "figure": _training_picture(runs) if any(run.steps for run in runs) else None,
        "evaluations": _last_evaluations(runs, metrics) if metrics else None,
        "recipes": _differing_keys(runs),
    }
    return write_page("runs.html.jinja", path, context)


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        twice = next(f for f, r in zip(folders, resolved, strict=True) if resolved.count(r) > 1)
        raise BontuneError(f"{twice} is given twice.")
    names = [folder.name for folder in resolved]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _runs_headline(runs: Sequence[RunRecord], metrics: Sequence[str]) -> str:
    families = [split_metric(metric)[0] for metric in metrics]
    family = "pass" if "pass" in families else "max"
    chosen = [metric for metric in metrics if split_metric(metric)[0] == family] or list(metrics)
    shared = [metric for metric in chosen if all(run.last(metric) is not None for run in runs)]
    if not metrics:
        return f"{counted(len(runs), 'run')}, none of them evaluated{'' if _are_finished(runs) else ' yet'}."
    if not shared:
        return f"{counted(len(runs), 'run')}, which are not all evaluated in one metric yet."
    ks = [k for metric in shared if (k := split_metric(metric)[1])]
    trained_ns = [run.n for run in runs if run.n is not None]
    n = min(trained_ns) if len(trained_ns) == len(runs) else None
    metric = f"{family}@{budget_for(ks, n)}" if ks and family in families else shared[-1]
    last = {run.name: interval for run in runs if (interval := run.last(metric)) is not None}
    is_share = split_metric(metric)[0] in share_families(metrics)
    write, unit = metric_writer(is_share), " %" if is_share else ""
    parts = []
    for name, interval in last.items():
        ends = ends_text(interval, write, "–")
        parts.append(f"{write(interval.value)}{unit} for {name}" + (f" ({ends})" if ends else ""))
    start = f"At the last evaluation, {metric} is {', '.join(parts)}"
    if any(math.isnan(interval.low) for interval in last.values()):
        return f"{start}; without intervals, the difference may be chance."
    if max(i.low for i in last.values()) <= min(i.high for i in last.values()):
        return f"{start}; no clear difference, as the 95 % intervals overlap."
    return f"{start}; not all of the 95 % intervals overlap."


def _are_finished(runs: Sequence[RunRecord]) -> bool:
    return all(run.is_finished for run in runs)


def _last_evaluations(runs: Sequence[RunRecord], metrics: Sequence[str]) -> Table:
    shares = share_families(metrics)
    look = looks({run.name: run.family for run in runs})
    rows: list[list[Cell | str]] = []
    for run in runs:
        last: Mapping[str, Any] = run.evaluations[-1] if run.evaluations else {}
        step = f"{last['step']:g}" if last else NOT_MEASURED
        rows.append([run.name, step, *_metric_cells(last, metrics, shares)])
    heads = [with_unit(metric, is_share=split_metric(metric)[0] in shares) for metric in metrics]
    return Table(
        caption="The last evaluation of each run, with 95 % intervals where measured.",
        columns=["Run", "Step", *heads],
        rows=rows,
        colours={name: one.colour for name, one in look.items()},
    )


def _differing_keys(runs: Sequence[RunRecord]) -> Table:
    """The keys in which the recipes differ."""
    recipes = [dict(facts(run.recipe)) for run in runs]
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe))
    return Table(
        caption="Keys of the recipes that differ.",
        columns=["Key", *(run.name for run in runs)],
        rows=[
            [key, *(recipe.get(key, NOT_MEASURED) for recipe in recipes)]
            for key in keys
            if len({recipe.get(key) for recipe in recipes}) > 1
        ],
    )


# ---- a folder of runs ----


def runs_in(folder: Path) -> list[Path]:
    """The runs in a folder, the one that was written to last first."""
    return sorted((path.parent for path in folder.glob("*/recipe.yaml")), key=lambda run: -_last_written(run))


def _last_written(run: Path) -> float:
    files = [path for path in (run / METRICS, run / "recipe.yaml") if path.exists()]
    return max((path.stat().st_mtime for path in files), default=0.0)


def index_page(folder: Path, link: Callable[[Path], str], *, refresh: int | None = None) -> str:
    """The page of all runs of a folder: their key numbers, sortable, with links.

    Args:
        folder: holds the runs.
        link: the address of a run's page.
        refresh: seconds after which a browser asks again; None: never.

    Raises:
        BontuneError: the folder holds no run, or a damaged one.
    """
    runs = [read_run(run, run.name) for run in runs_in(folder)]
    if not runs:
        raise BontuneError(f"{folder} holds no run: no folder in it has a recipe.yaml.")
    last = [metric for run in runs for row in run.evaluations[-1:] for metric in mapping(row.get("metrics"))]
    names = sorted_metrics(name for name in last if split_metric(name)[1] is not None)
    rows = [
        {
            "name": run.name,
            "address": link(run.folder),
            "cells": [_sortable(*cell) for cell in _index_cells(run, names)],
        }
        for run in runs
    ]
    columns = ["run", "objective", "N", "model", "step", *names]
    return render(
        "index.html.jinja", {"title": f"Runs in {folder}", "columns": columns, "rows": rows, "refresh": refresh}
    )


def _sortable(text: str, order: Any = "") -> dict[str, Any]:
    return {"text": text, "order": order}


def _index_cells(run: RunRecord, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Each cell's text, and by what it is ordered if not by that."""
    n = run.objective.get("n")
    budgets = budgets_at(n) if isinstance(n, (int, Mapping)) and n != {} else None
    shares = share_families(mapping(run.evaluations[-1].get("metrics")) if run.evaluations else [])
    cells: list[tuple[Any, ...]] = [
        (str(run.objective.get("name", NOT_MEASURED)),),
        (NOT_MEASURED,) if budgets is None else (in_words(budgets), largest_budget(budgets)),
        (str(run.recipe.get("model", NOT_MEASURED)),),
        (f"{run.last_step:g} of {run.planned_steps or '?'}, {state_of(run)}", f"{run.last_step:g}"),
    ]
    for name in names:  # with its unit, as runs of one table may have rewards of either kind
        value, is_share = run.last(name), split_metric(name)[0] in shares
        if value is None:
            cells.append((NOT_MEASURED,))
        else:
            cells.append((metric_writer(is_share)(value.value) + (" %" if is_share else ""), value.value))
    return cells


# ---- while it trains ----


def state_of(run: RunRecord) -> str:
    """What a run is doing, with the time of its last step.

    Returns:
        Such as ``running, last step at 2026-11-30 14:05:12``; of one that was killed ``stopped, last step at …``.
    """
    metrics, last = run.folder / METRICS, ""
    if run.last_step and metrics.exists():
        last = f", last step at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(metrics.stat().st_mtime))}"
    if run.is_finished:
        return f"finished{last}"
    return f"{'running' if _is_held(run.folder / LOCK) else 'stopped' if run.last_step else 'not running'}{last}"


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock; it is let go of at once if none does."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def serve(path: Path, port: int, *, on_ready: Callable[[str], None]) -> None:
    """Serve the page of a run, or of a folder of runs, until a signal arrives; only this machine can see it.

    Args:
        path: a run, or a folder that holds runs.
        port: 0: any free one.
        on_ready: gets the address.

    Raises:
        BontuneError: the path is neither, or the port is taken.
        Interrupted: a signal arrived.
    """
    page_of(path, "/")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(path))
    except OSError as error:
        raise BontuneError(f"Port {port} cannot be used: {error.strerror}; give another --port.") from None
    server.timeout = 0.2
    with server, StopSignals() as signals:
        on_ready(f"http://127.0.0.1:{server.server_port}/")
        while True:
            server.handle_request()
            signals.poll()


def page_of(path: Path, address: str) -> str | None:
    """The page at an address below a run or a folder of runs; None if there is none.

    Raises:
        BontuneError: the path is neither, or something in it is damaged.
    """
    if (path / "recipe.yaml").is_file():
        return _live_page(path) if address == "/" else None
    if address == "/":
        return index_page(path, lambda run: f"/{quote(run.name)}", refresh=REFRESH_S)
    run = next((run for run in runs_in(path) if run.name == unquote(address.strip("/"))), None)
    return None if run is None else _live_page(run)


def _live_page(folder: Path) -> str:
    """The page of a run with what it is doing."""
    return run_page(folder, refresh=REFRESH_S, state=f"{capitalized(state_of(read_run(folder)))}.")


def _handler(path: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                page, status = page_of(path, self.path), 200
            except BontuneError as error:
                page, status = str(error), 500
            body = (page or "There is no such run.").encode("utf-8", errors="replace")
            self.send_response(status if page is not None else 404)
            kind = "text/html" if status == 200 and page is not None else "text/plain"
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
