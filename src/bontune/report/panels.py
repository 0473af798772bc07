"""The small multiples of the training figure: one panel for each quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bontune.report.canvas import INK, QUIET, SMALL_PT, TEXT_PT, dress, percent_axis
from bontune.report.read import Floats, series
from bontune.report.wording import label, number, percent

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
