"""The comparison of a suite's models: its page, and its table in the terminal."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bontune.pools.compare import Difference
from bontune.report import sentences as findings
from bontune.report.curves import draw_curves
from bontune.report.numbers import NOT_MEASURED, counted, heading, label, percent, points, typographic
from bontune.report.page import Cell, Grid, Line, Picture, drawing, facts, fraction_cell, write_page
from bontune.report.sentences import interval, models, table_metrics, value
from bontune.training.read_log import bounds, finite, mapping


def comparison_table(summary: Mapping[str, Any]) -> Table:
    """Models as rows, pass@k as columns, each cell ``xx.x [lo–hi]`` in percent.

    Args:
        summary: ``models`` and, where measured, ``intervals``; fractions 0..1. What is missing is shown as missing.
    """
    table = _table(_title(summary), "percent [95 % interval]")
    table.add_column("model", overflow="fold")
    metrics = table_metrics(summary)
    for metric in metrics:
        # Where the terminal is narrow, the interval goes below its number and is never cut.
        table.add_column(Text(metric), justify="right", min_width=len("[12.3–45.6]"), overflow="fold")
    for model in models(summary):
        cells = [_cell(value(summary, model, metric), interval(summary, model, metric)) for metric in metrics]
        table.add_row(Text(heading(model)), *cells)
    return table


def _table(title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    return table


def _title(summary: Mapping[str, Any]) -> str:
    problems, samples = summary.get("problems"), summary.get("samples")
    if not isinstance(problems, int) or not isinstance(samples, int):
        return "Problems solved with k samples"
    return f"Problems solved with k samples ({counted(problems, 'problem')}, {counted(samples, 'sample')} each)"


def _cell(fraction: float | None, span: tuple[float, float] | None) -> Text:
    text = Text(percent(fraction))
    if fraction is not None and span is not None:
        text.append(f" [{percent(span[0])}–{percent(span[1])}]", style="dim")
    return text


def write_suite_page(
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
        for k, level, low, high in zip(ks, values, lows, highs, strict=False):
            if (place := finite(k)) is not None:
                cells.setdefault(place, {})[name] = fraction_cell(finite(level), bounds([low, high]))
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
