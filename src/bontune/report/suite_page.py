"""The comparison of a suite's models: its page, and its table in the terminal."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bontune.report.curves import draw_curves
from bontune.report.numbers import NOT_MEASURED, counted, percent, points, typographic
from bontune.report.page import Picture, drawing, facts, write_page
from bontune.report.sentences import (
    MARKS,
    READINGS,
    Summary,
    difference_ends,
    difference_sentence,
    headline_metric,
    suite_headline,
    table_metrics,
)
from bontune.report.style import heading, label
from bontune.report.tables import Cell, Table, measured_cell


def score_table(summary: Summary, colours: Mapping[str, str] | None = None) -> Table:
    """Models as rows, metrics as columns, each cell ``74.3 [71.7–78.3]`` in percent.

    Args:
        summary: of the suite.
        colours: each model's colour in the figures.
    """
    metrics = table_metrics(summary)
    size = ""
    if summary.problems is not None and summary.samples is not None:
        size = f" ({counted(summary.problems, 'problem')}, {counted(summary.samples, 'sample')} each)"
    return Table(
        title=f"Problems solved with k samples{size}",
        caption="Percent of the problems, with 95 % intervals.",
        columns=["Model", *metrics],
        rows=[
            [heading(name), *(measured_cell(values.get(metric), percent, "–") for metric in metrics)]
            for name, values in summary.models.items()
        ],
        words={"Model"},
        colours={heading(name): colour for name, colour in (colours or {}).items()},
    )


def write_suite_page(
    title: str,
    summary: Summary,
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
        summary: of the suite.
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
    metric = headline_metric(summary)
    lead = [entry for entry in summary.differences if entry.metric == metric]
    has_single = metric != "pass@1" and any("pass@1" in values for values in summary.models.values())
    context = {
        "title": title,
        "headline": suite_headline(summary, metric),
        "findings": [{"text": difference_sentence(entry), "mark": MARKS[entry.outcome]} for entry in lead],
        "single": suite_headline(summary, "pass@1") if has_single else "",
        "figures": [_with_narrow(figures[0], summary, colours), *figures[1:]] if figures else [],
        "example": example,
        "command": command,
        "scores": score_table(summary, colours),
        "differences": _difference_table(summary),
        "notes": _reading_notes(summary),
        "curve_table": _curve_table(summary),
        "settings": facts(summary.settings or {}),
    }
    return write_page("suite.html.jinja", path, context)


def _difference_table(summary: Summary) -> Table:
    return Table(
        caption="Percentage points, paired by problem. A difference counts as better or worse only if its 95 % "
        "interval excludes 0.",
        columns=["Comparison", "Metric", "Difference", "95 % interval", "Reading"],
        rows=[
            [
                f"{heading(entry.a)} vs {label(entry.b)}",
                entry.metric,
                typographic(points(entry.value)),
                difference_ends(entry) or NOT_MEASURED,
                Cell(text=READINGS[entry.outcome], mark=MARKS[entry.outcome]),
            ]
            for entry in summary.differences
        ],
        words={"Comparison", "Metric"},
    )


def _with_narrow(figure: Picture, summary: Summary, colours: Mapping[str, str]) -> Picture:
    """The first figure with the curves of pass@k drawn for a narrow screen, where there are any."""
    curves = {heading(name): curve for name in summary.models if (curve := summary.curve(name))}
    if not curves:
        return figure
    look = {heading(name): colour for name, colour in colours.items()}
    trained_for = [] if summary.trained_n is None else [summary.trained_n]
    plot = draw_curves(curves, trained_for=trained_for, title="pass@k", size=(3.7, 3.9), colours=look)
    return dataclasses.replace(figure, narrow=drawing(plot, heading="", caption="").source)


def _curve_table(summary: Summary) -> Table:
    """k as rows, models as columns: the numbers behind the pass@k figure."""
    curves = {name: summary.curve(name) for name in summary.models}
    every_k = sorted({k for curve in curves.values() for k in curve})
    return Table(
        caption="Percent of the problems that at least one of k samples solves, with 95 % intervals.",
        columns=["k", *(heading(name) for name in curves)],
        rows=[[str(k), *(measured_cell(c.get(k), percent, "–") for c in curves.values())] for k in every_k],
    )


def _reading_notes(summary: Summary) -> list[str]:
    pool = ""
    if summary.problems is not None and summary.samples is not None:
        samples, problems = counted(summary.samples, "sample"), counted(summary.problems, "problem")
        pool = f" It is estimated without bias from {samples} of each of {problems}."
    notes = [
        "pass@k is the share of problems that at least one of k samples solves: what Best-of-k reaches when the "
        f"verifier that picks among the k samples is never wrong.{pool}"
    ]
    if summary.seeds > 1:
        notes.append("The 95 % intervals are over problems and training runs.")
    else:
        notes.append(
            "The 95 % intervals are over problems: how far a number may move with other problems of the same kind. "
            "They do not say how far it would move with another training run."
        )
    return notes if summary.trained_n is None else [*notes, f"Best-of-N training aimed at N = {summary.trained_n}."]
