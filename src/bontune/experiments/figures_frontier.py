"""The figure of what one answer and many answers cost each other: pass@1 of every arm against pass@N."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from bontune.experiments.families import families_of, family_of
from bontune.experiments.figure_parts import (
    Drawing,
    family_legend,
    fraction_columns,
    headline,
    label_of,
    margins,
    over,
    panel,
    scope,
    style_columns,
    styles,
    x_name,
)
from bontune.experiments.results import Level, Results
from bontune.experiments.suite import BASE, main_arms
from bontune.report.canvas import HAIRLINE, QUIET, SMALL_PT, apart, new_figure, percent_axis
from bontune.report.wording import split_metric

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
