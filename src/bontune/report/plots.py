"""Two figures: curves over k, and the course of training."""

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
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from bontune.base.errors import BontuneError
from bontune.report.canvas import (
    HAIRLINE,
    INK,
    QUIET,
    SMALL_PT,
    TEXT_PT,
    TITLE_PT,
    apart,
    colours,
    dress,
    markers,
    new_figure,
    percent_axis,
    save,
    shortened,
)
from bontune.report.panels import PANELS, describe_runs, draw_panel
from bontune.report.read import Floats, finite, mapping
from bontune.report.wording import heading, in_order, label, percent, split_metric

_LEFT_IN, _BOTTOM_IN, _TOP_IN = 0.62, 0.58, 0.62
_MOST_TICKS, _LEGEND_COLUMNS = 10, 3
_SHADES = ("#9ecae1", "#6baed6", "#2f86c1", "#0072b2", "#00507d", "#00304b")
"""Blue from light to dark, for growing k."""
_PASS_TITLE = "Problems solved by at least one of k samples"
_LABEL_GAP_IN, _LINE_HEIGHT = 0.12, 1.3


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    k: Floats
    value: Floats
    low: Floats
    high: Floats


def plot_pass_at_k(
    curves: Mapping[str, Mapping[str, Sequence[Any]]],
    path: str | os.PathLike[str],
    *,
    trained_for: Sequence[int] = (),
    title: str = _PASS_TITLE,
    is_share: bool = True,
) -> Path:
    """Draw pass@k (or another metric) against k for each model, with its 95 % band, and write a PNG.

    Args:
        curves, trained_for, title, is_share: see :func:`draw_curves`.
        path: where to write; missing parent folders are made.

    Returns:
        The path.

    Raises:
        BontuneError: a curve's lists differ in length, no curve has a point, or the file cannot be written.
    """
    figure, description = draw_curves(curves, trained_for=trained_for, title=title, is_share=is_share)
    return save(figure, path, "Problems solved by number of samples", description)


def draw_curves(
    curves: Mapping[str, Mapping[str, Sequence[Any]]],
    *,
    trained_for: Sequence[int] = (),
    title: str = _PASS_TITLE,
    is_share: bool = True,
    size: tuple[float, float] = (7.2, 4.4),
    colour: Mapping[str, str] | None = None,
) -> tuple[Figure, str]:
    """Draw a metric against k for each model, with its 95 % band.

    Args:
        curves: model name to ``k`` (positive), ``value`` and, where measured, ``low`` and ``high``. Points without a
            finite value are left out.
        trained_for: each N that training was for, as a vertical line; not drawn outside the measured k.
        title: what is drawn, if not pass@k.
        is_share: values are fractions 0..1, shown in percent.
        size: width and height in inches.
        colour: of each model; those that it does not name have their usual one.

    Returns:
        The figure, and what it shows in words and numbers.

    Raises:
        BontuneError: a curve's lists differ in length, or no curve has a point.
    """
    lines = {str(name): line for name, curve in curves.items() if (line := _line(str(name), curve)).k.size}
    if not lines:
        raise BontuneError("there is nothing to draw: no pass@k curve has a finite value.")
    figure = new_figure(*size)
    axes = figure.add_subplot()
    colour, marker = colours(lines) | dict(colour or {}), markers(lines)
    every_k = np.unique(np.concatenate([line.k for line in lines.values()]))
    ticks = _ticks(every_k)
    for name, line in lines.items():
        axes.fill_between(line.k, line.low, line.high, color=colour[name], alpha=0.15, linewidth=0)
        with_marker = [index for index, k in enumerate(line.k) if k in ticks or k % 1]
        style: dict[str, Any] = {"color": colour[name], "marker": marker[name], "markevery": with_marker}
        axes.plot(line.k, line.value, markersize=4.5, linewidth=1.8, zorder=3, **style)
    _scale_axes(axes, every_k, lines, ticks, is_share=is_share)
    _place_labels(figure, axes, lines, colour, is_share=is_share)
    marked = [n for n in trained_for if every_k[0] <= n <= every_k[-1]]
    for n in marked:
        _mark_trained_n(axes, every_k, n)
    has_bands = any(bool((np.isfinite(line.low) & np.isfinite(line.high)).any()) for line in lines.values())
    _write_title(axes, title, "bands: 95 % intervals" if has_bands else "")
    return figure, _describe_curves(lines, marked, title, is_share=is_share)


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
        runs: run or model name to its rows, as :func:`bontune.report.read.read_metrics` returns them.
        path: where to write; missing parent folders are made.
        objectives: what each was trained by; see :func:`bontune.report.canvas.colours`.

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


def _line(name: str, curve: Mapping[str, Sequence[Any]]) -> _Line:
    k, value = _floats(curve.get("k")), _floats(curve.get("value"))
    nothing = np.full(k.shape, np.nan)
    low = _floats(curve["low"]) if curve.get("low") is not None else nothing
    high = _floats(curve["high"]) if curve.get("high") is not None else nothing
    sizes = {part.size for part in (k, value, low, high)}
    if len(sizes) > 1:
        raise BontuneError(
            f"the pass@k curve of {name} needs as many values as k, got {k.size} k, {value.size} values, "
            f"{low.size} low and {high.size} high."
        )
    kept = np.isfinite(k) & (k > 0) & np.isfinite(value)
    order = np.argsort(k[kept], kind="stable")
    k, value, low, high = (part[kept][order] for part in (k, value, low, high))
    return _Line(k=k, value=value, low=low, high=high)


def _floats(values: Sequence[Any] | None) -> Floats:
    numbers = [finite(value) for value in (() if values is None else values)]
    return np.array([np.nan if number is None else number for number in numbers], dtype=float)


def _ticks(every_k: Floats) -> list[float]:
    """The measured k; if they are many, the powers of two among them and the last, none too close to its neighbour. If
    some are means, all powers of two in their range."""
    powers = 2.0 ** np.arange(64)
    if (every_k % 1).any():
        return [float(k) for k in powers if every_k[0] <= k <= every_k[-1]]
    few = every_k if every_k.size <= _MOST_TICKS else every_k[np.isin(every_k, powers)]
    ticks = [float(every_k[-1])]
    nearest = np.log2(every_k[-1] / every_k[0]) / 20
    for k in few[::-1]:
        if np.log2(ticks[0] / k) > nearest:
            ticks.insert(0, float(k))
    return ticks


def _scale_axes(
    axes: Axes, every_k: Floats, lines: Mapping[str, _Line], ticks: Sequence[float], *, is_share: bool
) -> None:
    dress(axes)
    axes.set_xscale("log", base=2)
    first, last = float(every_k[0]), float(every_k[-1])
    margin = (last / first) ** 0.03 if last > first else 1.5
    axes.set_xlim(first / margin, last * margin)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{k:g}" for k in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("k, samples per problem", fontsize=TEXT_PT, color=QUIET, labelpad=6)

    drawn = np.concatenate([part for line in lines.values() for part in (line.value, line.low, line.high)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = float(drawn.min()), float(drawn.max())
    room = max(0.06 * (high - low), 0.01)
    bottom = 0.0 if 0 <= low < 0.3 else low - room
    axes.set_ylim(bottom, min(high + room, 1.005) if is_share and high <= 1 else high + room)
    if is_share:
        percent_axis(axes.yaxis)


def _place_labels(
    figure: Figure, axes: Axes, lines: Mapping[str, _Line], colour: Mapping[str, str], *, is_share: bool
) -> None:
    """Name each line at its right end, in its colour; the labels keep a line's height apart."""
    width_in, height_in = figure.get_size_inches()
    texts = {
        name: f"{shortened(heading(name))}\n{_shown(line.value[-1], is_share)} at k = {round(line.k[-1], 1):g}"
        for name, line in lines.items()
    }
    drawn = {
        name: figure.text(
            0, 0, text, fontsize=SMALL_PT, color=colour[name], va="center", linespacing=1.15, parse_math=False
        )
        for name, text in texts.items()
    }
    widest_in = max(text.get_window_extent().width for text in drawn.values()) / figure.dpi
    right = 1 - (widest_in + _LABEL_GAP_IN + 0.12) / width_in
    left, bottom, top = _LEFT_IN / width_in, _BOTTOM_IN / height_in, 1 - _TOP_IN / height_in
    axes.set_position((left, bottom, right - left, top - bottom))

    low, high = axes.get_ylim()
    ends = [bottom + (top - bottom) * (float(line.value[-1]) - low) / (high - low) for line in lines.values()]
    gap = 2 * SMALL_PT / 72 * _LINE_HEIGHT / height_in
    for name, y in zip(lines, apart(ends, [gap] * len(ends), bottom, top), strict=True):
        drawn[name].set_position((right + _LABEL_GAP_IN / width_in, y))


def _shown(value: float, is_share: bool) -> str:
    return f"{percent(float(value))} %" if is_share else f"{float(value):.3g}"


def _mark_trained_n(axes: Axes, every_k: Floats, mark_n: int) -> None:
    axes.axvline(mark_n, color=HAIRLINE, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    is_left = mark_n * mark_n <= every_k[0] * every_k[-1]
    axes.annotate(
        f"trained for N = {mark_n}",
        (mark_n, 0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(6 if is_left else -6, 7),
        textcoords="offset points",
        ha="left" if is_left else "right",
        fontsize=SMALL_PT,
        color=QUIET,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def _write_title(axes: Axes, title: str, note: str) -> None:
    place: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "baseline",
        "annotation_clip": False,
    }
    axes.annotate(title, (0, 1), xytext=(0, 24), fontsize=TITLE_PT, fontweight="bold", color=INK, **place)
    axes.annotate(note, (0, 1), xytext=(0, 9), fontsize=SMALL_PT, color=QUIET, **place)


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


def _describe_curves(lines: Mapping[str, _Line], marked: Sequence[int], title: str, *, is_share: bool) -> str:
    parts = []
    for name, line in lines.items():
        shown = f"{label(name)} {_shown(line.value[0], is_share)} at k = {line.k[0]:g}"
        if line.k.size > 1:
            shown += f" and {_shown(line.value[-1], is_share)} at k = {round(line.k[-1], 1):g}"
        parts.append(shown)
    trained = "".join(f" A vertical line marks N = {n}, for which training was done." for n in marked)
    what = "of the share of problems solved by at least one of k samples" if title == _PASS_TITLE else f"({title})"
    return f"Line chart {what}: {'; '.join(parts)}.{trained}"
