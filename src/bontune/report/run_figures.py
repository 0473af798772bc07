"""The figures of a run: reward, pass@N, KL and entropy over its steps, and what its evaluations have gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bontune.report.figure import Plot, margins, new, percent_axis, styled, title, zero_line
from bontune.report.numbers import change, number, percent, points, sorted_metrics, split_metric
from bontune.report.style import QUIET, Family, Look, heading, label, looks, shortened
from bontune.training.read_log import Floats, mapping, series

_FEWEST_TO_SMOOTH = 8
_SMOOTHED_SHARE = 0.2
_LEGEND_COLUMNS = 3
_SHADES = ("#9ecae1", "#6baed6", "#2f86c1", "#0072b2", "#00507d", "#00304b")
"""Blue from light to dark, for growing k."""

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Name of a run → rows of its metrics.jsonl."""


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


@styled()
def draw_training(runs: Runs, families: Mapping[str, Family | None] | None = None) -> Plot:
    """Draw reward, pass@N, KL to the anchor and entropy over the steps of one or several runs.

    Each panel shows the raw values as a thin light line and a smoothed one over it. A panel without values says so.

    Args:
        runs: name → rows of a run, as :func:`bontune.training.read_log.read_metrics` returns them.
        families: what each was trained by, as far as it is known.
    """
    look = looks({name: (families or {}).get(name) for name in runs})
    legend_lines = -(-len(runs) // _LEGEND_COLUMNS) if len(runs) > 1 else 0
    figure = new(7.2, 5.0)
    grid = figure.subplots(2, 2, sharex=True, gridspec_kw={"hspace": 0.3, "wspace": 0.24})
    margins(figure, top=0.3 if not legend_lines else 0.4 + 0.25 * legend_lines, right=0.15, bottom=0.5)
    for axes, panel in zip(grid.flat, PANELS, strict=True):
        draw_panel(axes, panel, runs, look)
    for axes in grid[-1]:
        axes.set_xlabel("training step")
    if legend_lines:
        handles = [Line2D([], [], color=one.colour, linewidth=2.4) for one in look.values()]
        figure.legend(
            handles,
            [shortened(heading(name)) for name in look],
            loc="upper left",
            bbox_to_anchor=(0.075, 1.0),
            ncols=min(len(look), _LEGEND_COLUMNS),
            columnspacing=2,
        )
    return Plot(figure=figure, title="Training curves", description=describe_runs(runs))


def draw_panel(axes: Axes, panel: Panel, runs: Runs, look: Mapping[str, Look]) -> None:
    """Draw one quantity of all runs: raw values thin and light, smoothed ones over them."""
    axes.set_title(_panel_title(panel, runs))
    lines = {name: xy for name, rows in runs.items() if (xy := series(rows, panel.field))[0].size}
    for name, (steps, values) in lines.items():
        is_smoothed, colour = values.size >= _FEWEST_TO_SMOOTH, look[name].colour
        marker = "o" if values.size == 1 else None
        alpha, width = (0.3, 0.8) if is_smoothed else (1.0, 1.6)
        axes.plot(steps, values, color=colour, marker=marker, markersize=4, alpha=alpha, linewidth=width)
        if is_smoothed:
            axes.plot(steps, smoothed(values), color=colour, linewidth=1.8, zorder=3)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if not lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=QUIET)
    elif _in_percent(panel, runs):
        percent_axis(axes.yaxis)
        values = np.concatenate([values for _, values in lines.values()])
        room = max(0.08 * float(np.ptp(values)), 0.02)
        axes.set_ylim(max(values.min() - room, -0.01), min(values.max() + room, 1.01))


@styled()
def draw_improvement(evaluations: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Draw how far pass@k (max@k for graded rewards) has come since the first evaluation, for each k.

    Args:
        evaluations: rows of a run's evaluations with ``gains``; those without are left out.

    Returns:
        The figure; None if there is nothing to draw.
    """
    rows = [row for row in evaluations if mapping(row.get("gains"))]
    every = sorted_metrics(name for row in rows for name in row["gains"])
    is_share = bool(rows) and all(any(split_metric(name)[0] == "pass" for name in row["gains"]) for row in rows)
    names = [name for name in every if split_metric(name)[0] == ("pass" if is_share else "max")]
    if not names:
        return None
    unit, write = (100, points) if is_share else (1, change)
    figure = new(7.2, 3.6)
    axes = figure.add_subplot()
    zero_line(axes)
    ends = []
    for place, name in enumerate(names):
        measured = [(row["step"], *row["gains"][name]) for row in rows if name in row["gains"]]
        measured = [*((row["step"], 0, 0, 0) for row in evaluations[:1] if row not in rows), *measured]
        steps, value, low, high = (np.array(column, dtype=float) for column in zip(*measured, strict=True))
        shade = _SHADES[min(place, len(_SHADES) - 1)]
        axes.fill_between(steps, unit * low, unit * high, color=shade, alpha=0.12, linewidth=0)
        axes.plot(steps, unit * value, color=shade, marker="o", markersize=4, label=name, zorder=3)
        ends.append(f"{name} {write(value[-1])} [{write(low[-1])}, {write(high[-1])}]")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("training step")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=-(-len(names) // 2))
    gained = "Points" if is_share else "Reward"
    title(axes, f"{gained} gained since the start", "bands: 95 % intervals, paired by problem")
    margins(figure, bottom=0.5, right=0.15, top=0.6)
    description = f"Gains at step {rows[-1]['step']:g}, in {gained.lower()}: {', '.join(ends)}."
    return Plot(figure=figure, title=f"{gained} gained since the start", description=description)


def smoothed(values: Floats) -> Floats:
    """A centred moving average (Hann weights over a fifth of the values); the ends average over what there is."""
    width = max(5, round(_SMOOTHED_SHARE * values.size))
    weights = np.hanning(min(width, values.size) + 2)[1:-1]
    return np.convolve(values, weights, mode="same") / np.convolve(np.ones_like(values), weights, mode="same")


def describe_runs(runs: Runs) -> str:
    """Say where each quantity started and ended (smoothed)."""
    parts = []
    for panel in PANELS:
        lines = {name: xy for name, rows in runs.items() if (xy := series(rows, panel.field))[0].size}
        in_percent = _in_percent(panel, runs)
        changes = [f"{label(name)} {_course(steps, values, in_percent)}" for name, (steps, values) in lines.items()]
        parts.append(f"{_panel_title(panel, runs)}: {', '.join(changes) if changes else 'not recorded'}.")
    return f"Line charts over the training steps, smoothed values. {' '.join(parts)}"


def _course(steps: Floats, values: Floats, in_percent: bool) -> str:
    trend = smoothed(values) if values.size >= _FEWEST_TO_SMOOTH else values
    first, last = (
        f"{percent(float(value))} %" if in_percent else number(float(value)) for value in (trend[0], trend[-1])
    )
    if steps.size == 1:
        return f"{last} at step {steps[0]:g}"
    return f"{first} at step {steps[0]:g} to {last} at step {steps[-1]:g}"


def _panel_title(panel: Panel, runs: Runs) -> str:
    return panel.graded_title if panel.graded_title and _are_graded(runs) else panel.title


def _are_graded(runs: Runs) -> bool:
    """Check whether some rewards are neither 0 nor 1; rows of earlier versions do not say."""
    return any(row.get("is_binary") is False for rows in runs.values() for row in rows)


def _in_percent(panel: Panel, runs: Runs) -> bool:
    if not panel.is_share or _are_graded(runs):
        return False
    values = [series(rows, panel.field)[1] for rows in runs.values()]
    return all(bool(((part >= 0) & (part <= 1)).all()) for part in values)
