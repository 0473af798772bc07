"""The page of several runs side by side; of one, the page that its training writes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bontune.base.errors import BontuneError
from bontune.metrics.evaluation import share_families
from bontune.report.canvas import colours
from bontune.report.html import largest_n, write_run_report
from bontune.report.page import Cell, Grid, Line, Picture, facts, fraction_cell, number_cell, picture, write_page
from bontune.report.plots import plot_training_curves
from bontune.report.read import bounds, evaluations_of, finite, mapping, read_metrics, rows_of_kind
from bontune.report.wording import NOT_MEASURED, budget_for, counted, in_order, number, percent, split_metric, with_unit


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
