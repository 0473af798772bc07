"""The figures of all arms at one k: gains over the base model, temperatures, and what selects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from bontune.experiments.families import families_of, family_of
from bontune.experiments.figure_parts import (
    Drawing,
    Line,
    draw_line,
    family_legend,
    fraction_columns,
    headline,
    k_axis,
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
from bontune.experiments.results import OWN, Level, Results
from bontune.experiments.store import Measurement
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.metrics import Interval
from bontune.pools.over_runs import mean_over_runs
from bontune.report.canvas import HAIRLINE, INK, QUIET, SMALL_PT, apart, dress, new_figure, percent_axis
from bontune.report.numbers import counted, split_metric

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


_LABEL_WIDTH = 30
_SOLVED_BY = {
    "pass": "at least one of {k} samples",
    "best": "the verifier's pick of {k}",
    "majority": "the most frequent answer of {k}",
}
Place = tuple[Level, Level]
"""What an arm reaches with one sample and with N."""


def draw_frontier(results: Results) -> Drawing | None:
    """Success with one sample against success with N, for every arm, all at T = 1."""
    metric = results.suite.metric
    family, k = split_metric(metric)
    one = f"{family}@1"
    if k in (None, 1) or 1 not in results.suite.measuring.ks:
        return None
    both = {arm: (results.level(arm, one), results.level(arm, metric)) for arm in results.arms}
    found = {arm: (x, y) for arm, (x, y) in both.items() if x is not None and y is not None}
    if BASE not in found or len(found) < 3:
        return None
    title = f"One answer and {k} answers from the same model"
    canvas = new_figure(9.0, 6.0)
    axes = canvas.subplots()
    panel(axes, f"problems solved by {_SOLVED_BY[family].format(k=k)} ({metric})")
    percent_axis(axes.xaxis)
    x_name(axes, f"problems solved by a single sample ({one})")
    named = [arm for arm in [BASE, *(results.suite.frontier or main_arms(results.suite))] if arm in found]
    _dots(axes, results, found, named)
    _better_than_base(axes, found[BASE])
    headline(canvas, title)
    margins(canvas, left=0.62, right=2.75, top=0.78, bottom=1.0)
    family_legend(canvas, families_of(results.suite, found))
    _labels(canvas, axes, results, found, list(dict.fromkeys(named)))
    rows = [
        style_columns(results, arm) | {"metric": name} | fraction_columns(level.interval) | {"seeds": level.num_seeds}
        for arm, levels in found.items()
        for name, level in zip((one, metric), levels, strict=True)
    ]
    return Drawing(
        name="frontier",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{scope(results, [arm for arm in found if arm != BASE])}, all at T = 1. Shaded: better than the base "
        f"model with one sample and with many. Bars: 95 % intervals {over(results)}, of each arm alone. "
        "Small dots: arms without a name here; the table of all arms has them.",
    )


def _dots(axes: Axes, results: Results, found: Mapping[str, Place], named: list[str]) -> None:
    base = styles(results.suite)[BASE]
    for arm, (x, y) in found.items():
        at = (x.interval.value, y.interval.value)
        if arm not in named:
            colour = family_of(results.suite, arm).colour
            axes.plot(*at, marker="o", markersize=4, color=colour, alpha=0.6, linewidth=0, zorder=3)
            continue
        colour, marker = (base.colour, base.marker) if arm == BASE else (family_of(results.suite, arm).colour, "o")
        axes.plot([x.interval.low, x.interval.high], [at[1]] * 2, color=colour, linewidth=0.8, alpha=0.25, zorder=2)
        axes.plot([at[0]] * 2, [y.interval.low, y.interval.high], color=colour, linewidth=0.8, alpha=0.25, zorder=2)
        axes.plot(*at, marker=marker, markersize=8, color=colour, markeredgecolor="white", zorder=4)


def _better_than_base(axes: Axes, base: Place) -> None:
    x, y = (level.interval.value for level in base)
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    axes.add_patch(Rectangle((x, y), right - x, top - y, facecolor="#0072b2", alpha=0.06, linewidth=0, zorder=0))
    axes.axvline(x, color=HAIRLINE, linewidth=1, zorder=1)
    axes.axhline(y, color=HAIRLINE, linewidth=1, zorder=1)
    axes.annotate(
        "better than the base model at both",
        (right, top),
        xytext=(-6, -6),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=SMALL_PT,
        color=QUIET,
    )


def _labels(canvas: Canvas, axes: Axes, results: Results, found: Mapping[str, Place], named: list[str]) -> None:
    """The named arms' labels in a column right of the panel, each with a hair line to its dot."""
    base, height, box = styles(results.suite)[BASE], canvas.get_size_inches()[1], axes.get_position()
    named = sorted(named, key=lambda arm: found[arm][1].interval.value)
    texts = [label_of(results.suite, arm, _LABEL_WIDTH) for arm in named]
    to_canvas = canvas.transFigure.inverted()
    dots = [
        to_canvas.transform(axes.transData.transform((x.interval.value, y.interval.value)))
        for x, y in (found[arm] for arm in named)
    ]
    heights = [(text.count("\n") + 1) * SMALL_PT / 72 * 1.25 / height + 0.014 for text in texts]
    places = apart([float(y) for _, y in dots], heights, box.y0, box.y1)
    left = box.x1 + 0.02
    for arm, text, (x, y), place in zip(named, texts, dots, places, strict=True):
        colour = base.colour if arm == BASE else family_of(results.suite, arm).colour
        canvas.text(left, place, text, fontsize=SMALL_PT, color=colour, va="center", linespacing=1.1, parse_math=False)
        axes.annotate(
            "",
            (x, y),
            xytext=(left - 0.004, place),
            xycoords="figure fraction",
            textcoords="figure fraction",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.5, "shrinkA": 0, "shrinkB": 4},
            annotation_clip=False,
        )


Gains = dict[str, list[tuple[int, Interval]]]
"""Arm → its difference to the base model at each k."""


def draw_verifiers(results: Results) -> Drawing | None:
    """What every main arm is worth under every verifier."""
    suite = results.suite
    columns = selectors(suite)
    arms = [arm for arm in main_arms(suite) if arm != BASE]
    gains = {
        arm: {metric: results.difference(arm, BASE, metric, "test", 1.0) for metric in columns.values()}
        for arm in arms
        if arm in results.arms
    }
    gains = {arm: row for arm, row in gains.items() if any(row.values())}
    if len(columns) < 2 or not gains:
        return None
    k = split_metric(suite.metric)[1]
    title = f"Best of {k} under different verifiers"
    canvas = new_figure(9.0 if len(columns) < 5 else 1.9 * len(columns), 1.4 + 0.52 * (len(gains) + 1))
    axes = canvas.subplots()
    _draw_matrix(axes, results, gains, columns)
    headline(canvas, title)
    widest = max(text.get_window_extent().width for text in axes.get_yticklabels()) / canvas.dpi
    margins(canvas, left=widest + 0.25, right=0.2, bottom=0.45, top=0.9)
    rows = [
        style_columns(results, arm)
        | {"selected_by": name, "metric": metric, "temperature": 1.0}
        | points_columns(interval)
        | {"seeds": len(results.evaluations(arm, "test", 1.0))}
        for arm, row in gains.items()
        for name, metric in columns.items()
        if (interval := row[metric]) is not None
    ]
    return Drawing(
        name="verifiers",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{scope(results, list(gains))}, T = 1. Difference to the base model in points, by what picks one of "
        f"{k} samples (the oracle: pass@{k}); bold: the 95 % interval {over(results)} leaves out 0; "
        "framed: what the arm's checkpoints were chosen by.",
    )


def selectors(suite: Suite) -> dict[str, str]:
    """What can pick one of k samples, and the metric that tells how good it does; k is that of the suite's metric."""
    k = split_metric(suite.metric)[1]
    columns = {"oracle": f"pass@{k}"}
    if suite.measuring.verifier != "oracle":
        columns[suite.measuring.verifier] = f"best@{k}"
    return columns | {name: f"{name}:best@{k}" for name in suite.measuring.other_verifiers}


def _draw_matrix(
    axes: Axes, results: Results, gains: dict[str, dict[str, Interval | None]], columns: dict[str, str]
) -> None:
    most = max((abs(i.value) for row in gains.values() for i in row.values() if i is not None), default=0.0) or 1.0
    names = list(gains)
    for y, arm in enumerate(names):
        family = split_metric(results.suite.arms[arm].select)[0]
        for x, metric in enumerate(columns.values()):
            interval = gains[arm][metric]
            share = 0.0 if interval is None else interval.value / most
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=_diverging(share)))
            if split_metric(metric)[0] == family:
                axes.add_patch(
                    Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor=INK, linewidth=1.6, zorder=3)
                )
            told = interval and results.told(interval)
            is_clear = told is not None and (told.low > 0 or told.high < 0)
            text = "–" if interval is None else signed(interval.value)
            axes.text(
                x,
                y,
                text,
                ha="center",
                va="center",
                fontsize=11,
                fontweight="bold" if is_clear else "normal",
                color="white" if abs(share) > 0.62 else INK,
            )
    for x, metric in enumerate(columns.values()):
        level = results.level(BASE, metric, "test", 1.0)
        text = "–" if level is None else f"{100 * level.interval.value:.1f} %"
        axes.text(x, len(names), text, ha="center", va="center", fontsize=SMALL_PT + 1, color=QUIET)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(names) + 0.5, -0.5)
    axes.xaxis.tick_top()
    heads = [f"{name}\n({metric.split(':')[-1]})" for name, metric in columns.items()]
    axes.set_xticks(range(len(columns)), heads)
    base = f"{results.suite.arms[BASE].label}, level"
    axes.set_yticks(range(len(names) + 1), [*(label_of(results.suite, arm, 36) for arm in names), base])
    axes.tick_params(length=0, labelsize=SMALL_PT, labelcolor=INK)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(
        "points over the base model; bold: clear of 0; framed: what checkpoints were chosen by",
        fontsize=SMALL_PT,
        color=QUIET,
        labelpad=4,
    )
    axes.xaxis.set_label_position("bottom")


def _diverging(share: float) -> tuple[float, float, float]:
    """Red below 0, white at it, blue above."""
    red, green, blue = colormaps["RdBu"](0.5 + 0.42 * float(np.clip(share, -1, 1)))[:3]
    return float(red), float(green), float(blue)


# ---- a verifier that learned along ----


def draw_refit(results: Results) -> Drawing | None:
    """Gains in Best-of-N of the arms whose verifier learned along, under that verifier and under the shipped one."""
    first = _own(results.suite.measuring.ks[0])
    learning = [arm for arm in results.arms if all(first in e.values for e in results.evaluations(arm, "test", 1.0))]
    if not learning:
        return None
    own: Gains = {arm: _own_gains(results, arm) for arm in learning}
    arms = [arm for arm in results.arms if arm in learning or arm in _twins(results.suite, learning)]
    shipped: Gains = {arm: _shipped_gains(results, arm) for arm in arms}
    title = "Best-of-N over the base model, where the verifier learns along"
    canvas = new_figure(10.6, max(4.5, 1.6 + 0.56 * len(arms)))
    panels = canvas.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.12})
    most_seeds = max(results.suite.num_seeds(arm) for arm in arms)
    notes = [f"points, picked by {who}" for who in ("the run's last verifier", results.suite.measuring.verifier)]
    for axes, found, note in zip(panels, (own, shipped), notes, strict=True):
        lines = []
        for arm, points in found.items():
            for line in lines_of(results, {arm: points}):
                draw_line(axes, line, has_band=results.suite.num_seeds(arm) == most_seeds)
                lines.append(line)
        k_axis(axes, results.suite.measuring.ks, "N, samples per problem")
        panel(axes, note, is_difference=True)
    panels[1].tick_params(labelleft=False)
    headline(canvas, title)
    name_ends(canvas, (panels[1], lines))
    rows: list[dict[str, Any]] = [
        style_columns(results, arm)
        | {"selected_by": name, "metric": f"best@{k}", "k": k, "temperature": 1.0}
        | points_columns(interval)
        | {"seeds": len(results.evaluations(arm, "test", 1.0))}
        for name, found in (("own", own), (results.suite.measuring.verifier, shipped))
        for arm, points in found.items()
        for k, interval in points
    ]
    return Drawing(
        name="refit",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{scope(results, arms)}, T = 1. The base model's samples are picked from by the same verifier: left, "
        "the one that each run ended with; right, the shipped one, beside trainings that differ in refitting alone. "
        f"Bands: 95 % intervals {over(results)}, of arms with {counted(most_seeds, 'seed')}.",
    )


def _own(k: int) -> str:
    return f"own:best@{k}"


def _own_gains(results: Results, arm: str) -> list[tuple[int, Interval]]:
    found = []
    for k in results.suite.measuring.ks:
        ours, base = (results.values(arm, metric, "test", 1.0) for metric in (_own(k), f"own:base:best@{k}"))
        if ours is not None and base is not None:
            found.append((k, mean_over_runs(ours - base)))
    return found


def _shipped_gains(results: Results, arm: str) -> list[tuple[int, Interval]]:
    found = {k: results.difference(arm, BASE, f"best@{k}", "test", 1.0) for k in results.suite.measuring.ks}
    return [(k, interval) for k, interval in found.items() if interval is not None]


def _twins(suite: Suite, learning: list[str]) -> list[str]:
    """The arms that are trained as these, but with a verifier that stays as it is."""
    trees = {arm: suite.tree(arm) for arm in suite.trained()}
    still = [{**trees[arm], "verifier": {**trees[arm]["verifier"], "refit": None}} for arm in learning]
    return [arm for arm, tree in trees.items() if tree in still]
