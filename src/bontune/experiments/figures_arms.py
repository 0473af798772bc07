"""The figures of all arms at one k: gains over the base model, temperatures, and what selects."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from bontune.experiments.families import families_of, family_of
from bontune.experiments.figure_parts import (
    Drawing,
    Line,
    draw_line,
    family_legend,
    fraction_columns,
    headline,
    label_of,
    lines_of,
    margins,
    name_ends,
    over,
    panel,
    points_axis,
    points_columns,
    scope,
    signed,
    style_columns,
    styles,
    x_name,
    zero_line,
)
from bontune.experiments.results import OWN, Results
from bontune.experiments.store import Measurement
from bontune.experiments.suite import BASE, main_arms
from bontune.metrics import Interval
from bontune.pools.over_runs import mean_over_runs
from bontune.report.canvas import INK, QUIET, SMALL_PT, dress, new_figure
from bontune.report.wording import counted, split_metric

_OFFSET = 0.17
"""Distance of the dots of own T and of T = 1 from the middle of their row, in rows."""


def draw_gains(results: Results) -> Drawing | None:
    """The difference of every arm to the base model."""
    metric = results.suite.metric
    found: dict[str, dict[str, Interval]] = {}
    for arm in results.arms:
        both = {name: results.difference(arm, BASE, metric, "test", t) for name, t in ((OWN, OWN), ("1", 1.0))}
        kept = {name: interval for name, interval in both.items() if interval is not None}
        if arm != BASE and kept:
            found[arm] = kept
    if not found:
        return None
    order = sorted(found, key=lambda arm: next(iter(found[arm].values())).value)
    title = f"{metric} minus that of the base model"
    canvas = new_figure(9.0, 1.75 + 0.47 * len(order))
    axes = canvas.subplots()
    axes.set_xlim(*_range([interval for both in found.values() for interval in both.values()]))
    for row, arm in enumerate(order):
        for name, interval in found[arm].items():
            _dot(axes, row, name, interval, family_of(results.suite, arm).colour)
    _dress_rows(axes, results, order, found)
    headline(canvas, title)
    widest = max(text.get_window_extent().width for text in axes.get_yticklabels()) / canvas.dpi
    margins(canvas, left=widest + 0.25, right=1.3, top=0.72, bottom=1.0)
    family_legend(canvas, families_of(results.suite, order))
    axes.legend(
        handles=[_handle(is_filled=True), _handle(is_filled=False)],
        labels=["every arm at its own best T (chosen on validation)", "all at T = 1"],
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=2,
        frameon=False,
        fontsize=SMALL_PT,
        labelcolor=QUIET,
        borderpad=0.2,
        handletextpad=0.3,
    )
    rows = [
        style_columns(results, arm)
        | {
            "metric": metric,
            "at": "own temperature" if name == OWN else "temperature 1",
            "temperature": results.own_temperature(arm, metric) if name == OWN else 1.0,
            "base_temperature": results.own_temperature(BASE, metric) if name == OWN else 1.0,
        }
        | points_columns(interval)
        | {"seeds": _seeds(results, arm, name)}
        for arm in reversed(order)
        for name, interval in found[arm].items()
    ]
    return Drawing(
        name="gains",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{scope(results, order)}. In points, with 95 % intervals {over(results)}; filled: "
        "every arm and the base model at their own best T, chosen on validation; hollow: all at T = 1. "
        "An arrow: the interval goes on.",
    )


def _range(intervals: list[Interval]) -> tuple[float, float]:
    """Choose the axis' range: all values and 0; intervals far wider than most, as of two seeds, are cut."""
    values, usual = [i.value for i in intervals], float(np.median([i.high - i.low for i in intervals]))
    low = max(min(i.low for i in intervals), min(values) - 1.5 * usual)
    high = min(max(i.high for i in intervals), max(values) + 1.5 * usual)
    room = 0.03 * (high - low) or 0.01
    return min(low, 0.0) - room, max(high, 0.0) + room


def _dot(axes: Axes, row: int, name: str, interval: Interval, colour: str) -> None:
    y = row + (_OFFSET if name == OWN else -_OFFSET)
    low, high = axes.get_xlim()
    ends = max(interval.low, low), min(interval.high, high)
    axes.plot(ends, [y, y], color=colour, linewidth=2.0 if name == OWN else 1.1, zorder=3)
    for end, is_cut, marker in ((ends[0], interval.low < low, "<"), (ends[1], interval.high > high, ">")):
        if is_cut:
            axes.plot(end, y, marker=marker, markersize=6, color=colour, zorder=3, clip_on=False)
    axes.plot(
        interval.value,
        y,
        marker="o",
        markersize=7 if name == OWN else 6,
        color=colour,
        markeredgewidth=1.3,
        markerfacecolor=colour if name == OWN else "white",
        zorder=4,
    )


def _dress_rows(axes: Axes, results: Results, order: list[str], found: dict[str, dict[str, Interval]]) -> None:
    """Rows with the arms' names and seeds at the left, and the number with its T at the right."""
    dress(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color="#e6eaee", linewidth=0.8)
    zero_line(axes, is_vertical=True)
    points_axis(axes.xaxis)
    x_name(axes, "points")
    axes.set_ylim(-0.6, len(order) - 0.4)
    names = [f"{label_of(results.suite, arm, 44)}\n{counted(_seeds(results, arm, '1'), 'seed')}" for arm in order]
    axes.set_yticks(range(len(order)), names, fontsize=SMALL_PT, color=INK, linespacing=1.05)
    for row, arm in enumerate(order):
        t = results.own_temperature(arm, results.suite.metric)
        first = next(iter(found[arm].values()))
        text = signed(first.value) + (f" at T = {t:g}" if t is not None and OWN in found[arm] else " at T = 1")
        axes.annotate(
            text,
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL_PT,
            color=QUIET,
            annotation_clip=False,
        )


def _handle(*, is_filled: bool) -> Line2D:
    return Line2D(
        [], [], color=QUIET, marker="o", markersize=6, linewidth=1.4, markerfacecolor=QUIET if is_filled else "white"
    )


def _seeds(results: Results, arm: str, name: str) -> int:
    values = results.values(arm, results.suite.metric, "test", OWN if name == OWN else 1.0)
    return 0 if values is None else len(values)


# ---- temperature ----


def draw_temperature(results: Results) -> Drawing | None:
    """The suite's metric, and the verifier's pick of as many, against T."""
    suite = results.suite
    picked = f"best@{split_metric(suite.metric)[1]}"
    metrics = [suite.metric]
    if suite.measuring.verifier != "oracle" and picked != suite.metric:
        metrics.append(picked)
    found = {metric: {arm: _over_t(results, arm, metric) for arm in main_arms(suite)} for metric in metrics}
    if not any(len(points) > 1 for points in found[suite.metric].values()):
        return None
    title = "Effect of the temperature"
    canvas = new_figure(9.6 if len(metrics) > 1 else 7.6, 4.5)
    panels = canvas.subplots(1, len(metrics), squeeze=False, gridspec_kw={"wspace": 0.2})[0]
    rows: list[dict[str, Any]] = []
    for axes, metric in zip(panels, metrics, strict=True):
        lines = lines_of(results, found[metric])
        _draw_over_t(axes, results, found[metric], metric, lines)
        note = f"{metric}, {suite.measuring.verifier} picks" if metric.startswith("best") else metric
        panel(axes, f"{note}; ring: the T chosen on validation" if metric == metrics[0] else note)
        rows += _temperature_rows(results, found[metric], metric)
    headline(canvas, title)
    name_ends(canvas, (panels[-1], lines))
    return Drawing(
        name="temperature",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{suite.title}, {counted(len(results.problems('test')), 'test problem')}, the training run with seed "
        "0 of each arm, which alone is measured at every T; ring: the arm's own best T, chosen on validation. The CSV "
        "has 95 % intervals over problems.",
    )


def _over_t(results: Results, arm: str, metric: str) -> list[tuple[float, Interval]]:
    """A metric of seed 0 at each temperature, with an interval over problems."""
    runs = results.runs(arm)
    if not runs:
        return []
    select, found = results.suite.arms[arm].select, []
    for t in sorted(results.suite.measuring.temperatures):
        evaluation = results.store.measured(runs[0], select, Measurement(data="test", temperature=t))
        if evaluation is not None:
            found.append((t, mean_over_runs(evaluation.values[metric][None])))
    # A line that ends early would look like a choice.
    return found if len(found) == len(results.suite.measuring.temperatures) else []


def _draw_over_t(
    axes: Axes, results: Results, found: dict[str, list[tuple[float, Interval]]], metric: str, lines: list[Line]
) -> None:
    for line in lines:
        draw_line(axes, line, has_band=False)
    looks = styles(results.suite)
    for arm, points in found.items():
        own = results.own_temperature(arm, metric)
        for t, y in points:
            if t == own:
                axes.plot(
                    t,
                    y.value,
                    marker="o",
                    markersize=12,
                    markerfacecolor="none",
                    markeredgewidth=1.4,
                    color=looks[arm].colour,
                    zorder=4,
                )
    axes.xaxis.set_major_locator(FixedLocator(sorted(results.suite.measuring.temperatures)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    x_name(axes, "temperature T")


def _temperature_rows(
    results: Results, found: dict[str, list[tuple[float, Interval]]], metric: str
) -> list[dict[str, Any]]:
    return [
        style_columns(results, arm)
        | {"metric": metric, "temperature": t}
        | fraction_columns(y)
        | {"is_own_temperature": results.own_temperature(arm, metric) == t, "seed": 0}
        for arm, points in found.items()
        for t, y in points
    ]
