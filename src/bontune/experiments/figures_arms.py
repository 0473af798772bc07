"""The figures of all arms: gains, one answer against many, temperatures, and other verifiers than the own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib import figure as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from bontune.experiments.figure_parts import (
    SuitePlot,
    arm_columns,
    arm_curves,
    arm_family,
    arm_label,
    arm_looks,
    fraction_columns,
    over,
    panel,
    points_columns,
    scope,
    seed_column,
)
from bontune.experiments.results import OWN, Level, Results
from bontune.experiments.store import Measurement
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.metrics import Interval
from bontune.pools.over_runs import mean_over_runs
from bontune.report.figure import (
    bare,
    draw_curve,
    figure_title,
    label_ends,
    margins,
    new,
    percent_axis,
    place_in,
    place_labels,
    points_axis,
    points_text,
    ring,
    widest,
    zero_line,
)
from bontune.report.numbers import counted, percent, split_metric
from bontune.report.style import HAIRLINE, INK, QUIET, Family, Look, in_legend_order

_OFFSET = 0.17
"""Distance of the dots of own T and of T = 1 from the middle of their row, in rows."""
_SOLVED_BY = {
    "pass": "at least one of {k} samples",
    "best": "the verifier's pick of {k}",
    "majority": "the most frequent answer of {k}",
}


def _family_look(suite: Suite, arm: str) -> Look:
    """How an arm is drawn where the families are compared: all of a family alike."""
    family = arm_family(suite, arm)
    return Look(colour=QUIET if family is None else family.colour, marker="s" if arm == BASE else "o")


def _family_legend(figure: mpl.Figure, suite: Suite, arms: Sequence[str] | Mapping[str, Any]) -> None:
    """Write the families and their colours in a row or two along the bottom."""
    families = in_legend_order(arm_family(suite, arm) for arm in arms)
    figure.legend(
        handles=[Line2D([], [], color=family.colour, marker="o", markersize=6, linewidth=0) for family in families],
        labels=[family.value for family in families],
        loc="lower left",
        bbox_to_anchor=(0.005, 0.0),
        ncols=min(len(families), 4),
        labelcolor=QUIET,
        handletextpad=0.1,
        columnspacing=1.0,
    )


# ---- gains ----


def gains_figure(results: Results) -> SuitePlot | None:
    """Draw the difference of every arm to the base model."""
    suite, metric = results.suite, results.suite.metric
    gains: dict[str, dict[str, Interval]] = {}
    for arm in results.arms:
        both = {name: results.difference(arm, BASE, metric, "test", t) for name, t in ((OWN, OWN), ("1", 1.0))}
        kept = {name: interval for name, interval in both.items() if interval is not None}
        if arm != BASE and kept:
            gains[arm] = kept
    if not gains:
        return None
    order = sorted(gains, key=lambda arm: next(iter(gains[arm].values())).value)
    figure = new(9.0, 1.75 + 0.47 * len(order))
    axes = figure.subplots()
    axes.set_xlim(*_range([interval for both in gains.values() for interval in both.values()]))
    for row, arm in enumerate(order):
        for name, interval in gains[arm].items():
            _draw_dot(axes, row, name, interval, _family_look(suite, arm).colour)
    _label_rows(axes, results, order, gains)
    figure_title(figure, f"{metric} minus that of the base model")
    margins(figure, left=widest(figure, axes.get_yticklabels()) + 0.25, right=1.3, bottom=1.0)
    _family_legend(figure, suite, order)
    style: dict[str, Any] = {"color": QUIET, "marker": "o", "markersize": 6, "linewidth": 1.4}
    axes.legend(
        handles=[Line2D([], [], markerfacecolor=face, **style) for face in (QUIET, "white")],
        labels=["every arm at its own best T (chosen on validation)", "all at T = 1"],
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=2,
        labelcolor=QUIET,
        borderpad=0.2,
        handletextpad=0.3,
        handlelength=2,
    )
    return SuitePlot(
        name="gains",
        title=f"{metric} minus that of the base model",
        figure=figure,
        rows=[
            arm_columns(results, arm)
            | {
                "metric": metric,
                "at": "own temperature" if name == OWN else "temperature 1",
                "temperature": results.own_temperature(arm, metric) if name == OWN else 1.0,
                "base_temperature": results.own_temperature(BASE, metric) if name == OWN else 1.0,
            }
            | points_columns(interval)
            | {"seeds": _num_seeds(results, arm, name)}
            for arm in reversed(order)
            for name, interval in gains[arm].items()
        ],
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


def _draw_dot(axes: Axes, row: int, name: str, interval: Interval, colour: str) -> None:
    """Draw a value with its interval in a row, an arrow where the interval goes beyond the axis."""
    y = row + (_OFFSET if name == OWN else -_OFFSET)
    low, high = axes.get_xlim()
    ends = max(interval.low, low), min(interval.high, high)
    axes.plot(ends, [y, y], color=colour, linewidth=2.0 if name == OWN else 1.1, zorder=3)
    for end, is_cut, marker in ((ends[0], interval.low < low, "<"), (ends[1], interval.high > high, ">")):
        if is_cut:
            axes.plot(end, y, marker=marker, markersize=6, color=colour, zorder=3, clip_on=False)
    size, face = (7, colour) if name == OWN else (6, "white")
    axes.plot(
        interval.value, y, "o", markersize=size, color=colour, markeredgewidth=1.3, markerfacecolor=face, zorder=4
    )


def _label_rows(axes: Axes, results: Results, order: list[str], gains: dict[str, dict[str, Interval]]) -> None:
    """Write the arms' names and seeds at the left of their rows, and the number with its T at the right."""
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x")
    zero_line(axes, is_vertical=True)
    points_axis(axes.xaxis)
    axes.set_xlabel("points")
    axes.set_ylim(-0.6, len(order) - 0.4)
    names = [f"{arm_label(results.suite, arm, 44)}\n{counted(_num_seeds(results, arm, '1'), 'seed')}" for arm in order]
    axes.set_yticks(range(len(order)), names, color=INK, linespacing=1.05)
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (8, 0), "textcoords": "offset points"}
    for row, arm in enumerate(order):
        t = results.own_temperature(arm, results.suite.metric)
        at = f"{t:g}" if t is not None and OWN in gains[arm] else "1"
        text = f"{points_text(next(iter(gains[arm].values())).value)} at T = {at}"
        axes.annotate(text, (1, row), va="center", color=QUIET, annotation_clip=False, **place)


def _num_seeds(results: Results, arm: str, name: str) -> int:
    values = results.values(arm, results.suite.metric, "test", OWN if name == OWN else 1.0)
    return 0 if values is None else len(values)


# ---- one answer and many ----


def frontier_figure(results: Results) -> SuitePlot | None:
    """Draw success with one sample against success with N, for every arm, all at T = 1."""
    suite, metric = results.suite, results.suite.metric
    family, k = split_metric(metric)
    one = f"{family}@1"
    if k in (None, 1) or 1 not in suite.measuring.ks:
        return None
    both = {arm: (results.level(arm, one), results.level(arm, metric)) for arm in results.arms}
    levels = {arm: (x, y) for arm, (x, y) in both.items() if x is not None and y is not None}
    if BASE not in levels or len(levels) < 3:
        return None
    figure = new(9.0, 6.0)
    axes = figure.subplots()
    panel(axes, f"problems solved by {_SOLVED_BY[family].format(k=k)} ({metric})")
    percent_axis(axes.xaxis)
    axes.set_xlabel(f"problems solved by a single sample ({one})")
    labelled = dict.fromkeys(arm for arm in [BASE, *(suite.frontier or main_arms(suite))] if arm in levels)
    _draw_arms(axes, suite, levels, list(labelled))
    _shade_better(axes, levels[BASE])
    title = f"One answer and {k} answers from the same model"
    figure_title(figure, title)
    margins(figure, right=2.75, top=0.78, bottom=1.0)
    _family_legend(figure, suite, levels)
    order = sorted(labelled, key=lambda arm: levels[arm][1].interval.value)
    labels = [arm_label(suite, arm, 30) for arm in order]
    texts = [
        figure.text(0, 0, text, color=_family_look(suite, arm).colour, va="center", linespacing=1.1)
        for arm, text in zip(order, labels, strict=True)
    ]
    dots = [tuple(level.interval.value for level in levels[arm]) for arm in order]
    place_labels(figure, axes, texts, [place_in(figure, axes, x, y) for x, y in dots])
    return SuitePlot(
        name="frontier",
        title=title,
        figure=figure,
        rows=[
            arm_columns(results, arm) | {"metric": name} | fraction_columns(level.interval) | {"seeds": level.num_seeds}
            for arm, pair in levels.items()
            for name, level in zip((one, metric), pair, strict=True)
        ],
        caption=f"{scope(results, [arm for arm in levels if arm != BASE])}, all at T = 1. Shaded: better than the base "
        f"model with one sample and with many. Bars: 95 % intervals {over(results)}, of each arm alone. "
        "Small dots: arms without a name here; the table of all arms has them.",
    )


def _draw_arms(axes: Axes, suite: Suite, levels: Mapping[str, tuple[Level, Level]], labelled: Sequence[str]) -> None:
    """Draw a dot for each arm, small without a label, with its intervals where it has one."""
    for arm, (x, y) in levels.items():
        look, at = _family_look(suite, arm), (x.interval.value, y.interval.value)
        if arm not in labelled:
            axes.plot(*at, marker="o", markersize=4, color=look.colour, alpha=0.6, linewidth=0, zorder=3)
            continue
        bar: dict[str, Any] = {"color": look.colour, "linewidth": 0.8, "alpha": 0.25, "zorder": 2}
        axes.plot([x.interval.low, x.interval.high], [at[1]] * 2, **bar)
        axes.plot([at[0]] * 2, [y.interval.low, y.interval.high], **bar)
        axes.plot(*at, marker=look.marker, markersize=8, color=look.colour, markeredgecolor="white", zorder=4)


def _shade_better(axes: Axes, base: tuple[Level, Level]) -> None:
    """Shade where an arm is better than the base model with one sample and with many."""
    x, y = (level.interval.value for level in base)
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    blue = Family.BEST_OF_N.colour
    axes.add_patch(Rectangle((x, y), right - x, top - y, facecolor=blue, alpha=0.06, linewidth=0, zorder=0))
    axes.axvline(x, color=HAIRLINE, linewidth=1, zorder=1)
    axes.axhline(y, color=HAIRLINE, linewidth=1, zorder=1)
    place: dict[str, Any] = {"xytext": (-6, -6), "textcoords": "offset points", "ha": "right", "va": "top"}
    axes.annotate("better than the base model at both", (right, top), color=QUIET, **place)


# ---- temperature ----


def temperature_figure(results: Results) -> SuitePlot | None:
    """Draw the suite's metric, and the verifier's pick of as many, against T."""
    suite = results.suite
    picked = f"best@{split_metric(suite.metric)[1]}"
    metrics = [suite.metric]
    if suite.measuring.verifier != "oracle" and picked != suite.metric:
        metrics.append(picked)
    points = {metric: {arm: _over_t(results, arm, metric) for arm in main_arms(suite)} for metric in metrics}
    if not any(len(xy) > 1 for xy in points[suite.metric].values()):
        return None
    figure = new(9.6 if len(metrics) > 1 else 7.6, 4.5)
    panels = figure.subplots(1, len(metrics), squeeze=False, gridspec_kw={"wspace": 0.2})[0]
    look = arm_looks(suite)
    for axes, metric in zip(panels, metrics, strict=True):
        curves = arm_curves(results, points[metric])
        for curve in curves:
            draw_curve(axes, curve, band=0)
        for arm, xy in points[metric].items():
            for t, y in xy:
                if t == results.own_temperature(arm, metric):
                    ring(axes, t, y.value, look[arm].colour)
        axes.xaxis.set_major_locator(FixedLocator(sorted(suite.measuring.temperatures)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("temperature T")
        note = f"{metric}, {suite.measuring.verifier} picks" if metric.startswith("best") else metric
        panel(axes, f"{note}; ring: the T chosen on validation" if metric == metrics[0] else note)
    figure_title(figure, "Effect of the temperature")
    label_ends(figure, (panels[-1], curves))
    return SuitePlot(
        name="temperature",
        title="Effect of the temperature",
        figure=figure,
        rows=[
            arm_columns(results, arm)
            | {"metric": metric, "temperature": t}
            | fraction_columns(y)
            | {"is_own_temperature": results.own_temperature(arm, metric) == t, "seed": 0}
            for metric in metrics
            for arm, xy in points[metric].items()
            for t, y in xy
        ],
        caption=f"{suite.title}, {counted(len(results.problems('test')), 'test problem')}, the training run with seed "
        "0 of each arm, which alone is measured at every T; ring: the arm's own best T, chosen on validation. The CSV "
        "has 95 % intervals over problems.",
    )


def _over_t(results: Results, arm: str, metric: str) -> list[tuple[float, Interval]]:
    """A metric of seed 0 at each temperature, with an interval over problems; nothing if it is not measured at all."""
    runs, points = results.runs(arm), []
    temperatures = sorted(results.suite.measuring.temperatures)
    for t in temperatures if runs else []:
        select = results.suite.arms[arm].select
        evaluation = results.store.measured(runs[0], select, Measurement(data="test", temperature=t))
        if evaluation is not None:
            points.append((t, mean_over_runs(evaluation.values[metric][None])))
    # A line that ends early would look like a choice.
    return points if len(points) == len(temperatures) else []


# ---- other verifiers ----


def verifiers_figure(results: Results) -> SuitePlot | None:
    """Draw the gain of every main arm under every verifier."""
    suite, k = results.suite, split_metric(results.suite.metric)[1]
    columns = _selectors(suite)
    gains = {
        arm: {metric: results.difference(arm, BASE, metric, "test", 1.0) for metric in columns.values()}
        for arm in main_arms(suite)
        if arm != BASE and arm in results.arms
    }
    gains = {arm: row for arm, row in gains.items() if any(row.values())}
    if len(columns) < 2 or not gains:
        return None
    title = f"Best of {k} under different verifiers"
    figure = new(9.0 if len(columns) < 5 else 1.9 * len(columns), 1.4 + 0.52 * (len(gains) + 1))
    axes = figure.subplots()
    _draw_matrix(axes, results, gains, columns)
    figure_title(figure, title)
    margins(figure, left=widest(figure, axes.get_yticklabels()) + 0.25, bottom=0.45, top=0.9)
    return SuitePlot(
        name="verifiers",
        title=title,
        figure=figure,
        rows=[
            arm_columns(results, arm)
            | {"selected_by": name, "metric": metric, "temperature": 1.0}
            | points_columns(interval)
            | seed_column(results, arm)
            for arm, row in gains.items()
            for name, metric in columns.items()
            if (interval := row[metric]) is not None
        ],
        caption=f"{scope(results, list(gains))}, T = 1. Difference to the base model in points, by what picks one of "
        f"{k} samples (the oracle: pass@{k}); bold: the 95 % interval {over(results)} leaves out 0; "
        "framed: what the arm's checkpoints were chosen by.",
    )


def _selectors(suite: Suite) -> dict[str, str]:
    """List what can pick one of k samples, each with its metric; k is that of the suite's metric."""
    k = split_metric(suite.metric)[1]
    columns = {"oracle": f"pass@{k}"}
    if suite.measuring.verifier != "oracle":
        columns[suite.measuring.verifier] = f"best@{k}"
    return columns | {name: f"{name}:best@{k}" for name in suite.measuring.other_verifiers}


def _draw_matrix(
    axes: Axes, results: Results, gains: dict[str, dict[str, Interval | None]], columns: dict[str, str]
) -> None:
    """Draw a coloured cell for each arm and verifier, and the base model's level below."""
    suite, names = results.suite, list(gains)
    most = max((abs(i.value) for row in gains.values() for i in row.values() if i is not None), default=0.0) or 1.0
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    for y, arm in enumerate(names):
        family = split_metric(suite.arms[arm].select)[0]
        for x, metric in enumerate(columns.values()):
            interval = gains[arm][metric]
            share = 0.0 if interval is None else interval.value / most
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=_diverging(share)))
            if split_metric(metric)[0] == family:
                frame: dict[str, Any] = {"fill": False, "edgecolor": INK, "linewidth": 1.6, "zorder": 3}
                axes.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, **frame))
            claimed = interval and results.told(interval)
            weight = "bold" if claimed is not None and (claimed.low > 0 or claimed.high < 0) else "normal"
            text = "–" if interval is None else points_text(interval.value)
            colour = "white" if abs(share) > 0.62 else INK
            axes.text(x, y, text, fontsize=11, fontweight=weight, color=colour, **centred)
    for x, metric in enumerate(columns.values()):
        level = results.level(BASE, metric, "test", 1.0)
        text = "–" if level is None else f"{percent(level.interval.value)} %"
        axes.text(x, len(names), text, fontsize=10, color=QUIET, **centred)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(names) + 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), [f"{name}\n({metric.split(':')[-1]})" for name, metric in columns.items()])
    base = f"{suite.arms[BASE].label}, level"
    axes.set_yticks(range(len(names) + 1), [*(arm_label(suite, arm, 36) for arm in names), base])
    bare(axes)
    axes.tick_params(labelcolor=INK)
    axes.set_xlabel("points over the base model; bold: clear of 0; framed: what checkpoints were chosen by")
    axes.xaxis.set_label_position("bottom")


def _diverging(share: float) -> tuple[float, float, float]:
    """Red below 0, white at it, blue above."""
    red, green, blue = colormaps["RdBu"](0.5 + 0.42 * float(np.clip(share, -1, 1)))[:3]
    return float(red), float(green), float(blue)
