"""The small multiples of the training figure: one panel for each quantity."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bontune.report.curves import _write_title
from bontune.report.figure import (
    HAIRLINE,
    INK,
    QUIET,
    SMALL_PT,
    TEXT_PT,
    colours,
    dress,
    new_figure,
    percent_axis,
    save,
    shortened,
)
from bontune.report.numbers import heading, in_order, label, number, percent, split_metric
from bontune.training.read_log import Floats, mapping, series

_FEWEST_TO_SMOOTH = 8
_SMOOTHED_SHARE = 0.2

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One quantity of the step rows."""

    title: str
    """Title of the panel."""
    field: str
    """Name of the quantity in the step rows."""
    is_share: bool
    """Shown in percent, unless rewards are graded."""
    graded_title: str = ""
    """Title where rewards are graded, if it is another."""


PANELS = (
    Panel(
        title="Reward (pass@1 of the batch)", field="reward", is_share=True, graded_title="Reward (mean of the batch)"
    ),
    Panel(
        title="pass@N of the batch", field="pass_at_n", is_share=True, graded_title="Highest reward of N, in the batch"
    ),
    Panel(title="KL to the anchor", field="kl", is_share=False),
    Panel(title="Entropy", field="entropy", is_share=False),
)


def draw_panel(axes: Axes, panel: Panel, runs: Runs, colour: Mapping[str, str]) -> None:
    """Draw one quantity of all runs: raw values thin and light, smoothed ones over them."""
    dress(axes)
    axes.set_title(_title(panel, runs), loc="left", fontsize=TEXT_PT, fontweight="bold", color=INK, pad=8)
    drawn = {name: points for name, rows in runs.items() if (points := series(rows, panel.field))[0].size}
    for name, (steps, values) in drawn.items():
        is_smoothed = values.size >= _FEWEST_TO_SMOOTH
        marker = "o" if values.size == 1 else None
        alpha, width = (0.3, 0.8) if is_smoothed else (1.0, 1.6)
        axes.plot(steps, values, color=colour[name], marker=marker, markersize=4, alpha=alpha, linewidth=width)
        if is_smoothed:
            axes.plot(steps, smoothed(values), color=colour[name], linewidth=1.8, zorder=3)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if not drawn:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", fontsize=SMALL_PT, color=QUIET)
    elif _in_percent(panel, runs):
        percent_axis(axes.yaxis)
        axes.set_ylim(*_share_limits(np.concatenate([values for _, values in drawn.values()])))


def smoothed(values: Floats) -> Floats:
    """A centred moving average (Hann weights over a fifth of the values); the ends average over what there is."""
    width = max(5, round(_SMOOTHED_SHARE * values.size))
    weights = np.hanning(min(width, values.size) + 2)[1:-1]
    return np.convolve(values, weights, mode="same") / np.convolve(np.ones_like(values), weights, mode="same")


def describe_runs(runs: Runs) -> str:
    """Say where each quantity started and ended (smoothed)."""
    parts = []
    for panel in PANELS:
        drawn = {name: points for name, rows in runs.items() if (points := series(rows, panel.field))[0].size}
        in_percent = _in_percent(panel, runs)
        changes = [f"{label(name)} {_change(steps, values, in_percent)}" for name, (steps, values) in drawn.items()]
        parts.append(f"{_title(panel, runs)}: {', '.join(changes) if changes else 'not recorded'}.")
    return f"Line charts over the training steps, smoothed values. {' '.join(parts)}"


def _change(steps: Floats, values: Floats, in_percent: bool) -> str:
    trend = smoothed(values) if values.size >= _FEWEST_TO_SMOOTH else values
    first, last = (
        f"{percent(float(value))} %" if in_percent else number(float(value)) for value in (trend[0], trend[-1])
    )
    if steps.size == 1:
        return f"{last} at step {steps[0]:g}"
    return f"{first} at step {steps[0]:g} to {last} at step {steps[-1]:g}"


def _title(panel: Panel, runs: Runs) -> str:
    return panel.graded_title if panel.graded_title and _are_graded(runs) else panel.title


def _are_graded(runs: Runs) -> bool:
    """Whether rewards are not all 0 or 1; rows of earlier versions do not say."""
    return any(row.get("is_binary") is False for rows in runs.values() for row in rows)


def _in_percent(panel: Panel, runs: Runs) -> bool:
    if not panel.is_share or _are_graded(runs):
        return False
    values = [series(rows, panel.field)[1] for rows in runs.values()]
    return all(bool(((part >= 0) & (part <= 1)).all()) for part in values)


def _share_limits(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = max(0.08 * (high - low), 0.02)
    return max(low - room, -0.01), min(high + room, 1.01)


_LEGEND_COLUMNS = 3
_SHADES = ("#9ecae1", "#6baed6", "#2f86c1", "#0072b2", "#00507d", "#00304b")


def draw_gains(evaluations: Sequence[Mapping[str, Any]]) -> tuple[Figure, str] | None:
    """Draw how far pass@k (max@k for graded rewards) has come since the first evaluation, for each k.

    Args:
        evaluations: rows of a run's evaluations with ``gains``; those without are left out.

    Returns:
        The figure, and what it shows in words; None if there is nothing to draw.
    """
    rows = [row for row in evaluations if mapping(row.get("gains"))]
    every = in_order(name for row in rows for name in row["gains"])
    is_share = bool(rows) and all(any(split_metric(name)[0] == "pass" for name in row["gains"]) for row in rows)
    names = [name for name in every if split_metric(name)[0] == ("pass" if is_share else "max")]
    if not names:
        return None
    unit = 100 if is_share else 1
    figure = new_figure(7.2, 3.6)
    axes = figure.add_subplot()
    dress(axes)
    axes.axhline(0, color=HAIRLINE, linewidth=1)
    ends = []
    for number_, name in enumerate(names):
        points = [(row["step"], *row["gains"][name]) for row in rows if name in row["gains"]]
        points = [*((row["step"], 0, 0, 0) for row in evaluations[:1] if row not in rows), *points]
        steps, value, low, high = (np.array(column, dtype=float) for column in zip(*points, strict=True))
        shade = _SHADES[min(number_, len(_SHADES) - 1)]
        axes.fill_between(steps, unit * low, unit * high, color=shade, alpha=0.12, linewidth=0)
        axes.plot(steps, unit * value, color=shade, marker="o", markersize=4, linewidth=1.8, label=name, zorder=3)
        last = [f"{unit * x:+.1f}" if is_share else f"{x:+.4g}" for x in (value[-1], low[-1], high[-1])]
        ends.append(f"{name} {last[0]} [{last[1]}, {last[2]}]")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("training step", fontsize=SMALL_PT, color=QUIET)
    columns = -(-len(names) // 2)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=SMALL_PT, ncols=columns)
    gained = "Points" if is_share else "Reward"
    _write_title(axes, f"{gained} gained since the start", "bands: 95 % intervals, paired by problem")
    figure.subplots_adjust(left=0.085, right=0.98, top=0.84, bottom=0.13)
    return figure, f"Gains at step {rows[-1]['step']:g}, in {gained.lower()}: {', '.join(ends)}."


def plot_training_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: str | os.PathLike[str],
    objectives: Mapping[str, str] | None = None,
) -> Path:
    """Draw reward, pass@N, KL to the anchor and entropy over the steps of one or several runs, and write a PNG.

    Each panel shows the raw values as a thin light line and a smoothed one over it. A panel without values says so.

    Args:
        runs: run or model name to its rows, as :func:`bontune.training.read_log.read_metrics` returns them.
        path: where to write; missing parent folders are made.
        objectives: what each was trained by; see :func:`bontune.report.figure.colours`.

    Returns:
        The path.

    Raises:
        BontuneError: the file cannot be written.
    """
    named = {str(name): list(rows) for name, rows in runs.items()}
    figure = new_figure(7.2, 5.0)
    colour = colours(named, objectives)
    legend_lines = -(-len(named) // _LEGEND_COLUMNS) if len(named) > 1 else 0
    grid = figure.subplots(2, 2, sharex=True)
    top = 0.87 - 0.05 * (legend_lines - 1) if legend_lines else 0.94
    figure.subplots_adjust(left=0.085, right=0.98, top=top, bottom=0.1, hspace=0.3, wspace=0.24)
    for axes, panel in zip(grid.flat, PANELS, strict=True):
        draw_panel(axes, panel, named, colour)
    for axes in grid[-1]:
        axes.set_xlabel("training step", fontsize=SMALL_PT, color=QUIET)
    if legend_lines:
        _write_legend(figure, colour)
    return save(figure, path, "Training curves", describe_runs(named))


def _write_legend(figure: Figure, colour: Mapping[str, str]) -> None:
    """The runs' names over the panels, each after a stroke of its colour; as many lines as they need."""
    legend = figure.legend(
        handles=[_stroke(value) for value in colour.values()],
        labels=[shortened(heading(name)) for name in colour],
        loc="upper left",
        bbox_to_anchor=(0.075, 1.0),
        ncols=min(len(colour), _LEGEND_COLUMNS),
        frameon=False,
        fontsize=TEXT_PT,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _stroke(colour: str) -> Line2D:
    return Line2D([], [], color=colour, linewidth=2.4)
