"""The pages of runs: one run, several side by side, a folder of them, and any of these while it trains."""

from __future__ import annotations

import math
import os
import tempfile
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
from bontune.report.figure import colours
from bontune.report.numbers import (
    NOT_MEASURED,
    budget_for,
    capitalized,
    counted,
    duration,
    in_order,
    number,
    of_points,
    percent,
    signed,
    split_metric,
    typographic,
    with_unit,
    written,
)
from bontune.report.page import (
    Cell,
    Grid,
    Line,
    Picture,
    drawing,
    facts,
    fraction_cell,
    number_cell,
    picture,
    render,
    write_page,
)
from bontune.report.run_figures import draw_gains, plot_training_curves
from bontune.training.read_log import (
    LOCK,
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
    if not folder.is_dir():
        raise BontuneError(f"there is no run folder {folder}; give the folder that a recipe's 'run' names.")
    metrics = folder / "metrics.jsonl"
    rows = read_metrics(metrics) if metrics.exists() else []
    steps, evaluations = rows_of_kind(rows, "step"), evaluations_of(rows)
    name = folder.resolve().name
    recipe = _read_text(folder / "recipe.yaml")
    try:
        tree = mapping(yaml.safe_load(recipe or ""))
    except yaml.YAMLError:  # shown as it is
        tree = {}
    section = mapping(tree.get("objective"))
    objective = str(section.get("name", ""))
    return {
        "title": f"Run {name}",
        "name": name,
        "headline": _run_headline(steps, evaluations, largest_n(section)),
        "notes": [*_trained_for(section), *_engine_notes(mapping(tree.get("engine")), steps), *_run_notes(steps)],
        "figure": _training_picture(name, steps, objective) if steps else None,
        "gains": _gains_picture(evaluations),
        "evaluations": _evaluation_grid(evaluations),
        "samples": samples_over_training(read_samples(folder)),
        "is_graded": "max" in families_of(evaluations),
        "stages": _stage_grid(steps),
        "summary": facts({k: v for k, v in (read_json(folder / "summary.json") or {}).items() if v not in ({}, [])}),
        "recipe": recipe,
    }


def samples_over_training(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same problems at the first evaluation, the last, and the ones at a quarter and a half between."""
    steps = sorted({row["step"] for row in rows})
    if not steps:
        return []
    wanted = [steps[0] + (steps[-1] - steps[0]) * part for part in (0, 0.25, 0.5, 1)]
    shown = sorted({min(steps, key=lambda step: (abs(step - goal), step)) for goal in wanted})
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    found = {(row["problem"], row["step"]): row for row in rows}
    return [
        {
            "problem": problem,
            "prompt": next(row["prompt"] for row in rows if row["problem"] == problem),
            "at": [
                {"step": step, "completions": found[problem, step]["completions"]}
                for step in shown
                if (problem, step) in found
            ],
        }
        for problem in problems
    ]


# The comparison


# A run


def _run_headline(steps: Rows, evaluations: Rows, n: int | None) -> str:
    done = "No step is recorded yet" if not steps else f"Training has reached step {steps[-1]['step']:g}"
    metric = _run_metric(evaluations, n)
    measured = [
        (row["step"], value, bounds(mapping(row.get("intervals")).get(metric)))
        for row in evaluations
        if metric is not None and (value := finite(mapping(row.get("metrics")).get(metric))) is not None
    ]
    if not measured:
        return f"{done}; nothing is evaluated yet." if steps else f"{done}."
    (first_step, first, first_span), (last_step, last, last_span) = measured[0], measured[-1]
    is_share = split_metric(metric or "")[0] in shares_of(evaluations)
    before, after = (f"{percent(value)} %" if is_share else number(value) for value in (first, last))
    if len(measured) == 1:
        return f"{metric} was {after} at step {last_step:g}."
    if before == after:
        moved = f"{metric} was {after} at step {first_step:g} and at step {last_step:g}"
    else:
        verb = "rose" if last > first else "fell"
        moved = f"{metric} {verb} from {before} at step {first_step:g} to {after} at step {last_step:g}"
    if gain := mapping(evaluations[-1].get("gains")).get(metric or ""):
        span = bounds(gain[1:])
        if span is None:
            return f"{moved}; without an interval, this may be chance."
        low, high = (typographic(signed(end, is_share=is_share)) for end in span)
        told = as_told(Interval(value=gain[0], low=span[0], high=span[1]), _num_problems(evaluations))
        verdict = "more than chance" if span[0] > 0 or span[1] < 0 else "no clear difference"
        if math.isnan(told.low) and span != (0.0, 0.0):
            verdict = "too few problems, or too much alike, to claim a change"
        return f"{moved}; {verdict}: the change lies between {low} and {high}{of_points(is_share)}."
    if first_span is None or last_span is None:
        return f"{moved}; without intervals, this may be chance."
    if first_span[0] <= last_span[1] and last_span[0] <= first_span[1]:
        return f"{moved}; no clear difference, as the 95 % intervals overlap."
    return f"{moved}; the 95 % intervals do not overlap."


def _num_problems(evaluations: Rows) -> int:
    """Problems of the last evaluation; rows of earlier versions do not say, and are taken to have enough."""
    return int(finite(evaluations[-1].get("problems")) or FEWEST_PROBLEMS)


def families_of(evaluations: Rows) -> set[str]:
    """The families of metrics that evaluations hold."""
    return {split_metric(str(name))[0] for row in evaluations for name in mapping(row.get("metrics"))}


def shares_of(evaluations: Rows) -> set[str]:
    """Those of them that are shares of problems."""
    return share_families(str(name) for row in evaluations for name in mapping(row.get("metrics")))


def _run_metric(evaluations: Rows, n: int | None) -> str | None:
    """The metric to speak about: at the N that was trained for, or at the largest k below it.

    pass@k; where rewards are graded, best@k under a verifier that errs, else max@k. Without any of these the first
    metric.
    """
    every = [{str(name) for name in mapping(row.get("metrics"))} for row in evaluations]
    names = in_order(name for of_row in every for name in sorted(of_row))
    lasting = [name for name in names if all(name in of_row for of_row in every)]
    is_graded, errs = "max" in families_of(evaluations), "gap" in families_of(evaluations)
    for family in ("pass", *(["best"] if is_graded and errs else []), "max"):
        ks = [k for name in lasting or names if split_metric(name)[0] == family and (k := split_metric(name)[1])]
        if ks:
            return f"{family}@{budget_for(ks, n)}"
    return next(iter(names), None)


def largest_n(objective: Mapping[str, Any]) -> int | None:
    """The N that a run was trained for, the largest of several; None if the recipe does not say."""
    n = objective.get("n")
    return largest_budget(budgets_at(n)) if isinstance(n, int) or (isinstance(n, Mapping) and n) else None


def _trained_for(objective: Mapping[str, Any]) -> list[str]:
    n = objective.get("n")
    if not isinstance(n, Mapping) or not n:
        return []
    return [f"Trained for several N at once: {typographic(in_words(budgets_at(n)))}."]


def _engine_notes(engine: Mapping[str, Any], steps: Rows) -> list[str]:
    """What the engine does not promise, and how far the policy was from what drew its samples."""
    notes = [WITHOUT_SEEDS] if engine.get("name") == "vllm" else []
    seen = {key: series(steps, key)[1] for key in ("ratio", "effective_samples", "truncated", "engine_kl")}
    if all(values.size for values in seen.values()):
        mean = {key: float(values.mean()) for key, values in seen.items()}
        notes.append(
            f"Trained policy over the one that drew, on average over the steps: ratio {mean['ratio']:.3f}, effective "
            f"samples {percent(mean['effective_samples'])} %, truncated or clipped {percent(mean['truncated'])} %, "
            f"KL(drew‖trained) {mean['engine_kl']:.2g} nats per sample."
        )
    return notes


def _run_notes(steps: Rows) -> list[str]:
    notes = []
    if (refilled := series(steps, "refilled")[1]).sum():
        notes.append(f"{int(refilled.sum())} prompts were drawn in place of others without weight.")
    failures = sum(finite(row.get("grader_errors")) or 0 for row in steps)
    if failures:
        notes.append(f"The grader failed on {counted(int(failures), 'completion')}: nothing is known about them.")
    seconds = sum(_stage_seconds(steps).values())
    if seconds:
        speed = series(steps, "tokens_per_s")[1]
        pace = f", {float(np.median(speed)):,.0f} tokens per second (median)" if speed.size else ""
        notes.append(f"{counted(len(steps), 'step')} in {duration(seconds)}{pace}.")
    return notes


def _training_picture(name: str, steps: Rows, objective: str) -> Picture:
    with tempfile.TemporaryDirectory(prefix="bontune-report-") as scratch:
        drawn = plot_training_curves({name: steps}, Path(scratch) / "training.png", {name: objective})
        return picture(drawn, heading="Training", caption="Light lines: single steps. Strong lines: smoothed.")


def _gains_picture(evaluations: Rows) -> Picture | None:
    drawn = draw_gains(evaluations)
    if drawn is None:
        return None
    return drawing(
        *drawn,
        heading="What training has changed",
        caption="The same problems and the same seeds at each evaluation: what differs is the model.",
    )


def _evaluation_grid(evaluations: Rows) -> Grid:
    names = in_order(str(name) for row in evaluations for name in mapping(row.get("metrics")))
    shares = shares_of(evaluations)
    is_share = {name: split_metric(name)[0] in shares for name in names}
    rows = []
    for row in evaluations:
        values, spans = mapping(row.get("metrics")), mapping(row.get("intervals"))
        cells = [
            (fraction_cell if is_share[name] else number_cell)(finite(values.get(name)), bounds(spans.get(name)))
            for name in names
        ]
        rows.append(Line(name=f"{row['step']:g}", cells=cells))
    columns = ["Step", *(with_unit(name, is_share=is_share[name]) for name in names)]
    return Grid(caption="Evaluations during training, with 95 % intervals where measured.", columns=columns, rows=rows)


def _stage_seconds(steps: Rows) -> dict[str, float]:
    total: dict[str, float] = {}
    for row in steps:
        for stage, seconds in mapping(row.get("seconds")).items():
            total[str(stage)] = total.get(str(stage), 0.0) + (finite(seconds) or 0.0)
    return total


def _stage_grid(steps: Rows) -> Grid:
    total = _stage_seconds(steps)
    whole = sum(total.values())
    rows = [
        Line(
            name=stage,
            cells=[
                Cell(text=duration(seconds)),
                Cell(text=f"{percent(seconds / whole)} %"),
                Cell(text=number(seconds / len(steps))),
            ],
        )
        for stage, seconds in total.items()
        if whole > 0
    ]
    columns = ["Stage", "Time", "Share", "Seconds per step"]
    return Grid(caption="Time by stage, added up over all recorded steps.", columns=columns, rows=rows)


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What the page needs of a run."""

    name: str
    """Name of the run's folder."""
    steps: list[Mapping[str, Any]]
    """Rows of its training."""
    evaluations: Sequence[Mapping[str, Any]]
    """Rows of its evaluations."""
    recipe: dict[str, str]
    """Dotted key → value."""
    n: int | None = None
    """The N that it was trained for, the largest of several."""

    def last(self, metric: str) -> tuple[float | None, tuple[float, float] | None]:
        """A metric at the last evaluation, with its interval."""
        row = self.evaluations[-1] if self.evaluations else {}
        return finite(mapping(row.get("metrics")).get(metric)), bounds(mapping(row.get("intervals")).get(metric))


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
    names = _names([Path(folder) for folder in folders])
    runs = [_read(Path(folder), name) for folder, name in zip(folders, names, strict=True)]
    metrics = in_order(
        str(metric) for run in runs for row in run.evaluations[-1:] for metric in mapping(row.get("metrics"))
    )
    context = {
        "title": f"Runs {', '.join(names)}",
        "heading": f"Runs {', '.join(names)}",
        "headline": _headline(runs, metrics),
        "figure": _picture(runs) if any(run.steps for run in runs) else None,
        "evaluations": _evaluations(runs, metrics) if metrics else None,
        "recipes": _differing(runs),
    }
    return write_page("runs.html.jinja", path, context)


def _names(folders: Sequence[Path]) -> list[str]:
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise BontuneError(
            f"{next(f for f, r in zip(folders, resolved, strict=True) if resolved.count(r) > 1)} is given twice."
        )
    names = [folder.name for folder in resolved]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise BontuneError(f"there is no run folder {folder}; give the folder that a recipe's 'run' names.")
    metrics, recipe = folder / "metrics.jsonl", folder / "recipe.yaml"
    rows = read_metrics(metrics) if metrics.exists() else []
    try:
        tree = yaml.safe_load(recipe.read_text(encoding="utf-8")) if recipe.exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BontuneError(f"cannot read {recipe}: {' '.join(str(error).split())[:200]}.") from None
    return Run(
        name=name,
        steps=rows_of_kind(rows, "step"),
        evaluations=evaluations_of(rows),
        recipe=dict(facts(mapping(tree))),
        n=largest_n(mapping(mapping(tree).get("objective"))),
    )


def _headline(runs: Sequence[Run], metrics: Sequence[str]) -> str:
    families = [split_metric(metric)[0] for metric in metrics]
    family = "pass" if "pass" in families else "max"
    chosen = [metric for metric in metrics if split_metric(metric)[0] == family] or list(metrics)
    shared = [metric for metric in chosen if all(run.last(metric)[0] is not None for run in runs)]
    if not metrics:
        return f"{counted(len(runs), 'run')}, none of them evaluated yet."
    if not shared:
        return f"{counted(len(runs), 'run')}, which are not all evaluated in one metric yet."
    ks = [k for metric in shared if (k := split_metric(metric)[1])]
    known = [run.n for run in runs if run.n is not None]
    n = min(known) if len(known) == len(runs) else None
    metric = f"{family}@{budget_for(ks, n)}" if ks and family in families else shared[-1]
    last = [run.last(metric) for run in runs]
    is_share = split_metric(metric)[0] in share_families(metrics)
    written = [_written(run.name, *entry, is_share) for run, entry in zip(runs, last, strict=True)]
    start = f"At the last evaluation, {metric} is {', '.join(written)}"
    spans = [span for _, span in last if span is not None]
    if len(spans) < len(runs):
        return f"{start}; without intervals, the difference may be chance."
    if max(low for low, _ in spans) <= min(high for _, high in spans):
        return f"{start}; no clear difference, as the 95 % intervals overlap."
    return f"{start}; not all of the 95 % intervals overlap."


def _written(name: str, value: float | None, span: tuple[float, float] | None, is_share: bool) -> str:
    write = percent if is_share else number
    unit = " %" if is_share else ""
    interval = "" if span is None else f" ({write(span[0])}–{write(span[1])})"
    return f"{write(value)}{unit} for {name}{interval}"


def _picture(runs: Sequence[Run]) -> Picture:
    with tempfile.TemporaryDirectory(prefix="bontune-report-") as scratch:
        steps = {run.name: run.steps for run in runs}
        drawn = plot_training_curves(steps, Path(scratch) / "training.png", _objectives(runs))
        return picture(drawn, heading="Training", caption="Light lines: single steps. Strong lines: smoothed.")


def _objectives(runs: Sequence[Run]) -> dict[str, str]:
    return {run.name: run.recipe.get("objective.name", "") for run in runs}


def _evaluations(runs: Sequence[Run], metrics: Sequence[str]) -> Grid:
    shares = {metric for metric in metrics if split_metric(metric)[0] in share_families(metrics)}
    colour = colours([run.name for run in runs], _objectives(runs))
    rows = [
        Line(
            name=run.name,
            colour=colour[run.name],
            cells=[
                Cell(text=f"{run.evaluations[-1]['step']:g}" if run.evaluations else NOT_MEASURED),
                *((fraction_cell if metric in shares else number_cell)(*run.last(metric)) for metric in metrics),
            ],
        )
        for run in runs
    ]
    columns = ["Run", "Step", *(with_unit(metric, is_share=metric in shares) for metric in metrics)]
    caption = "The last evaluation of each run, with 95 % intervals where measured."
    return Grid(caption=caption, columns=columns, rows=rows)


def _differing(runs: Sequence[Run]) -> Grid:
    """The keys in which the recipes differ."""
    keys = list(dict.fromkeys(key for run in runs for key in run.recipe))
    rows = [
        Line(name=key, cells=[Cell(text=run.recipe.get(key, NOT_MEASURED)) for run in runs])
        for key in keys
        if len({run.recipe.get(key) for run in runs}) > 1
    ]
    caption = "Keys of the recipes that differ."
    return Grid(caption=caption, columns=["Key", *(run.name for run in runs)], rows=rows)


REFRESH_S = 10


def runs_in(folder: Path) -> list[Path]:
    """The runs in a folder, the one that was written to last first."""
    found = [path.parent for path in folder.glob("*/recipe.yaml")]
    return sorted(found, key=lambda run: -_last_written(run))


def _last_written(run: Path) -> float:
    files = [path for path in (run / "metrics.jsonl", run / "recipe.yaml") if path.exists()]
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
    runs = runs_in(folder)
    if not runs:
        raise BontuneError(f"{folder} holds no run: no folder in it has a recipe.yaml.")
    evaluations = {run: evaluations_of(_metrics(run)) for run in runs}
    last = {run: mapping(rows[-1].get("metrics")) if rows else {} for run, rows in evaluations.items()}
    names = in_order(name for metrics in last.values() for name in metrics if split_metric(name)[1] is not None)
    rows = [_index_row(run, last[run], names, link(run)) for run in runs]
    columns = ["run", "objective", "N", "model", "step", *names]
    return render(
        "index.html.jinja", {"title": f"Runs in {folder}", "columns": columns, "rows": rows, "refresh": refresh}
    )


def recipe_of(run: Path) -> dict[str, Any]:
    """A run's recipe, as far as it can be read; its sections are mappings."""
    try:
        recipe = mapping(yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError):
        recipe = {}
    return dict(recipe) | {name: mapping(recipe.get(name)) for name in ("objective", "training")}


def _index_row(run: Path, metrics: Any, names: Sequence[str], address: str) -> dict[str, Any]:
    recipe = recipe_of(run)
    objective, training = recipe["objective"], recipe["training"]
    steps = rows_of_kind(_metrics(run), "step")
    done = f"{steps[-1]['step']:g}" if steps else "0"
    state = state_of(run, steps[-1]["step"] if steps else 0, training.get("steps"))
    shares = share_families(metrics)
    values = [(finite(metrics.get(name)), split_metric(name)[0] in shares) for name in names]
    cells = [
        {"text": str(objective.get("name", NOT_MEASURED)), "order": ""},
        _budget_cell(objective.get("n")),
        {"text": str(recipe.get("model", NOT_MEASURED)), "order": ""},
        {"text": f"{done} of {training.get('steps', '?')}, {state}", "order": done},
        *(
            {"text": _with_unit(value, is_share=is_share), "order": "" if value is None else value}
            for value, is_share in values
        ),
    ]
    return {"name": run.name, "address": address, "cells": cells}


def _budget_cell(n: Any) -> dict[str, Any]:
    """The cell of N; several budgets with their weights at the end of the training, ordered by the largest."""
    if not isinstance(n, (int, Mapping)) or n == {}:
        return {"text": NOT_MEASURED, "order": ""}
    return {"text": in_words(budgets_at(n)), "order": largest_budget(budgets_at(n))}


def _with_unit(value: float | None, *, is_share: bool) -> str:
    """A metric with its unit: runs of one table may have rewards of either kind."""
    return written(value, is_share=is_share) + (" %" if is_share and value is not None else "")


def _metrics(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return read_metrics(path) if path.exists() else []


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
        raise BontuneError(f"port {port} cannot be used: {error.strerror}; give another --port.") from None
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


def _live_page(run: Path) -> str:
    """The page of a run with what it is doing."""
    steps = rows_of_kind(_metrics(run), "step")
    state = state_of(run, steps[-1]["step"] if steps else 0, recipe_of(run)["training"].get("steps"))
    return run_page(run, refresh=REFRESH_S, state=f"{capitalized(state)}.")


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


def state_of(run: Path, step: float, steps: object) -> str:
    """What a run is doing, with the time of its last step.

    Args:
        run: its folder.
        step: the last that is recorded, 0 for none.
        steps: how many its recipe asks for.

    Returns:
        Such as ``running, last step at 2026-11-30 14:05:12``; of one that was killed ``stopped, last step at …``.
    """
    metrics = run / METRICS
    last = ""
    if step and metrics.exists():
        last = f", last step at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(metrics.stat().st_mtime))}"
    if (run / "summary.json").exists() and isinstance(steps, int) and step >= steps:
        return f"finished{last}"
    return f"{'running' if _is_held(run / LOCK) else 'stopped' if step else 'not running'}{last}"


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
