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
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from bontune.base.errors import BontuneError
from bontune.report.figure import (
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
from bontune.report.numbers import heading, label, percent
from bontune.training.read_log import Floats, finite

_LEFT_IN, _BOTTOM_IN, _TOP_IN = 0.62, 0.58, 0.62
_MOST_TICKS, _LEGEND_COLUMNS = 10, 3
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
