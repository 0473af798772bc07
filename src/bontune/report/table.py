"""The comparison in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from bontune.report.findings import interval, models, table_metrics, value
from bontune.report.wording import counted, heading, percent


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
