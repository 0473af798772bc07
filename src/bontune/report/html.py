"""The pages: one self-contained file each, nothing loaded from anywhere."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bontune.base.errors import BontuneError
from bontune.engines.contract import WITHOUT_SEEDS
from bontune.metrics import Interval
from bontune.metrics.evaluation import share_families
from bontune.objectives.budgets import budgets_at, in_words, largest_budget
from bontune.pools.compare import FEWEST_PROBLEMS, Difference, as_told
from bontune.report import findings
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
from bontune.report.plots import draw_curves, draw_gains, plot_training_curves
from bontune.report.read import bounds, evaluations_of, finite, mapping, read_json, read_metrics, rows_of_kind, series
from bontune.report.wording import (
    NOT_MEASURED,
    budget_for,
    counted,
    duration,
    heading,
    in_order,
    label,
    number,
    of_points,
    percent,
    points,
    signed,
    split_metric,
    typographic,
    with_unit,
)
from bontune.training.shown_samples import read as read_samples

Rows = Sequence[Mapping[str, Any]]


def write_suite_report(
    title: str,
    summary: Mapping[str, Any],
    figures: Sequence[Picture],
    path: str | os.PathLike[str],
    *,
    colours: Mapping[str, str],
    example: Mapping[str, Any] | None = None,
    command: str = "",
) -> Path:
    """Write the comparison of a suite's models as one HTML file.

    Args:
        title: the heading of the page.
        summary: ``models``, ``intervals``, ``curves``, ``differences``, ``n``, ``samples``, ``problems``, ``seeds``,
            ``settings``; whatever is missing is left out of the page.
        figures: the pictures, in the order of the page.
        path: where to write; missing parent folders are made.
        colours: each model's colour in the figures, as CSS writes it; the table repeats it.
        example: ``problem``, ``prompt`` and ``models``, each with a ``label`` and ``completions``; None: left out.
        command: to ask the trained model; empty: left out.

    Returns:
        The path.

    Raises:
        BontuneError: the page cannot be written.
    """
    metric = findings.headline_metric(summary)
    compared = findings.differences(summary)
    lead = [entry for entry in compared if entry.metric == metric]
    has_single = metric != "pass@1" and any(
        findings.value(summary, model, "pass@1") is not None for model in findings.models(summary)
    )
    context = {
        "title": title,
        "headline": findings.headline(summary, metric),
        "findings": [
            {"text": findings.sentence(entry), "mark": findings.MARKS.get(entry.outcome, "")} for entry in lead
        ],
        "single": findings.headline(summary, "pass@1") if has_single else "",
        "figures": [_with_narrow(figures[0], summary, colours), *figures[1:]] if figures else [],
        "example": example,
        "command": command,
        "scores": _score_grid(summary, colours),
        "differences": [_difference_row(entry) for entry in compared],
        "differences_caption": "Percentage points, paired by problem. A difference counts as better or worse only "
        "if its 95 % interval excludes 0.",
        "notes": _reading_notes(summary),
        "curve_table": _curve_grid(summary),
        "settings": facts(mapping(summary.get("settings"))),
    }
    return write_page("suite.html.jinja", path, context)


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


def _difference_row(entry: Difference) -> dict[str, str]:
    return {
        "pair": f"{heading(entry.a)} vs {label(entry.b)}",
        "metric": entry.metric,
        "diff": typographic(points(entry.value)),
        "span": typographic(findings.interval_text(entry)) or NOT_MEASURED,
        "outcome": findings.READINGS[entry.outcome],
        "mark": findings.MARKS.get(entry.outcome, ""),
    }


def _score_grid(summary: Mapping[str, Any], colours: Mapping[str, str]) -> Grid:
    metrics, names = findings.table_metrics(summary), findings.models(summary)
    rows = [
        Line(
            name=heading(name),
            colour=colours.get(name, ""),
            cells=[
                fraction_cell(findings.value(summary, name, metric), findings.interval(summary, name, metric))
                for metric in metrics
            ],
        )
        for name in names
    ]
    return Grid(caption="Percent of the problems, with 95 % intervals.", columns=["Model", *metrics], rows=rows)


def _with_narrow(figure: Picture, summary: Mapping[str, Any], colours: Mapping[str, str]) -> Picture:
    """The first figure with the curves of pass@k drawn for a narrow screen, where these are known."""
    curves = {heading(str(name)): mapping(curve) for name, curve in mapping(summary.get("curves")).items()}
    if not any(curve.get("k") for curve in curves.values()):
        return figure
    n = findings.trained_n(summary)
    look = {heading(name): colour for name, colour in colours.items()}
    drawn, description = draw_curves(
        curves, trained_for=[] if n is None else [n], title="pass@k", size=(3.7, 3.9), colour=look
    )
    narrow = drawing(drawn, description, heading="", caption="")
    return dataclasses.replace(figure, narrow=narrow.source)


def _curve_grid(summary: Mapping[str, Any]) -> Grid:
    """k as rows, models as columns: the numbers behind the pass@k figure."""
    curves = {str(name): mapping(curve) for name, curve in mapping(summary.get("curves")).items()}
    cells: dict[float, dict[str, Cell]] = {}
    for name, curve in curves.items():
        ks, values = list(curve.get("k") or ()), list(curve.get("value") or ())
        lows, highs = (list(curve.get(side) or [None] * len(ks)) for side in ("low", "high"))
        for k, value, low, high in zip(ks, values, lows, highs, strict=False):
            if (place := finite(k)) is not None:
                cells.setdefault(place, {})[name] = fraction_cell(finite(value), bounds([low, high]))
    missing = Cell(text=NOT_MEASURED)
    rows = [Line(name=f"{k:g}", cells=[cells[k].get(name, missing) for name in curves]) for k in sorted(cells)]
    caption = "Percent of the problems that at least one of k samples solves, with 95 % intervals."
    return Grid(caption=caption, columns=["k", *(heading(name) for name in curves)], rows=rows)


def _reading_notes(summary: Mapping[str, Any]) -> list[str]:
    problems, samples, n = (finite(summary.get(key)) for key in ("problems", "samples", "n"))
    pool = ""
    if problems is not None and samples is not None:
        drawn, asked = counted(int(samples), "sample"), counted(int(problems), "problem")
        pool = f" It is estimated without bias from {drawn} of each of {asked}."
    notes = [
        "pass@k is the share of problems that at least one of k samples solves: what Best-of-k reaches when the "
        f"verifier that picks among the k samples is never wrong.{pool}"
    ]
    seeds = summary.get("seeds")
    if isinstance(seeds, Sequence) and not isinstance(seeds, str) and len(seeds) > 1:
        notes.append("The 95 % intervals are over problems and training runs.")
    else:
        notes.append(
            "The 95 % intervals are over problems: how far a number may move with other problems of the same kind. "
            "They do not say how far it would move with another training run."
        )
    return notes if n is None else [*notes, f"Best-of-N training aimed at N = {n:g}."]


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
