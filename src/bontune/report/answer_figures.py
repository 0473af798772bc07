"""The figure of what models learned: how their answers to a problem spread, on easy and on hard problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bontune.base.errors import BontuneError
from bontune.pools.learned import NUM_RANKS, rank_names
from bontune.report.figure import Plot, new, percent_axis, styled, title
from bontune.report.numbers import counted, percent
from bontune.report.style import QUIET, Family, Look, heading, label, looks, shortened, subject

_DOTS = {
    "best": ("Mass on the best answer", "the most frequent correct one"),
    "entropy": ("Entropy of the answers", "in nats"),
    "distinct": ("Different answers", "in {num_drawn} samples"),
    "distinct_correct": ("Different correct answers", "in {num_drawn} samples"),
}
"""Drawn beside the ranks: metric → title and note."""
_GROUPS = {
    "easy": "that {first} solves in {easy_from} % of its samples or more",
    "hard": "that {first} solves in fewer, but in some",
    "unsolved": "that {first} solves in none",
}
"""Text over the panel of each group."""
Values = Mapping[tuple[str, str, str], Any]
"""(model, group, metric) → the row."""


@styled()
def draw_learned(rows: Sequence[Mapping[str, Any]], families: Mapping[str, Family | None] | None = None) -> Plot:
    """Draw each model's mass by rank, correct and wrong, on easy and hard problems, and four metrics.

    Args:
        rows: of :func:`bontune.pools.learned.learned_rows`.
        families: what each model was trained by, as far as it is known.

    Raises:
        BontuneError: no rows.
    """
    if not rows:
        raise BontuneError("There is nothing to draw: no rows of what the models learned.")
    values = {(row["model"], row["group"], row["metric"]): row for row in rows}
    models = list(dict.fromkeys(row["model"] for row in rows))
    look = looks({model: (families or {}).get(model) for model in models})
    groups = [group for group in _GROUPS if (models[0], group, "top") in values]
    bars_for = [group for group in ("easy", "hard") if group in groups] or groups
    figure = new(12.4, 6.4)
    top = 0.845 - 0.035 * (-(-(len(models) + 2) // _legend_columns(models)) - 1)
    outer = figure.add_gridspec(1, 2, width_ratios=[1.12, 1], left=0.05, right=0.985, top=top, bottom=0.09, wspace=0.2)
    bars = outer[0].subgridspec(len(bars_for), 1, hspace=0.5)
    for place, group in enumerate(bars_for):
        axes = figure.add_subplot(bars[place])
        _draw_ranks(axes, values, look, group)
        if place == len(bars_for) - 1:
            axes.set_xlabel("rank of the answer among a problem's answers, by frequency")
    dots = outer[1].subgridspec(2, 2, hspace=0.5, wspace=0.16)
    for place, (metric, (heading_of, note)) in enumerate(_DOTS.items()):
        axes = figure.add_subplot(dots[place])
        _draw_dots(axes, values, look, groups, metric)
        axes.tick_params(axis="y", labelleft=place % 2 == 0)
        title(axes, heading_of, note.format(num_drawn=rows[0]["num_drawn"]))
    _legend(figure, look)
    return Plot(figure=figure, title="What the models learned", description=_description(values, models, bars_for))


def _draw_ranks(axes: Axes, values: Values, look: Mapping[str, Look], group: str) -> None:
    """Draw bars of the models side by side at each rank: full where correct, light where wrong."""
    width = 0.8 / len(look)
    ticks = np.arange(NUM_RANKS + 1, dtype=float)
    ticks[-1] += 0.3  # many answers together, which is no rank
    for place, (model, one) in enumerate(look.items()):
        at = ticks + width * (place - (len(look) - 1) / 2)
        mass = [values[model, group, f"rank_{rank}"]["value"] for rank in rank_names()]
        correct = [values[model, group, f"rank_{rank}_correct"]["value"] for rank in rank_names()]
        axes.bar(at, mass, 0.9 * width, color=_light(one.colour), linewidth=0)
        axes.bar(at, correct, 0.9 * width, color=one.colour, linewidth=0)
    percent_axis(axes.yaxis)
    axes.set_xticks(ticks, [*rank_names()[:-1], f"{NUM_RANKS + 1} and on"])
    first = next(iter(look))
    row = values[first, group, "top"]
    who = _GROUPS[group].format(first=shortened(subject(first)), easy_from=f"{100 * row['easy_from']:g}")
    size = counted(row["num_problems"], "problem")
    title(axes, f"{group.capitalize()} problems: share of the samples", f"{size} {who}")


def _light(colour: str) -> str:
    """The colour of wrong answers; opaque, so that no grid line shows through."""
    return to_hex(1 - 0.28 * (1 - np.array(to_rgb(colour))))


def _draw_dots(axes: Axes, values: Values, look: Mapping[str, Look], groups: Sequence[str], metric: str) -> None:
    """Draw a line per group and model: the mean and its interval."""
    step = 0.6 / max(len(look), 2)
    for line, group in enumerate(groups):
        for place, (model, one) in enumerate(look.items()):
            row, y = values[model, group, metric], line + step * (place - (len(look) - 1) / 2)
            axes.plot([row["low"], row["high"]], [y, y], color=one.colour, linewidth=1.8)
            axes.plot(row["value"], y, color=one.colour, marker=one.marker, markersize=6, clip_on=False)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x")
    axes.set_yticks(range(len(groups)), groups)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(left=0)
    if metric == "best":
        percent_axis(axes.xaxis)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))


def _legend(figure: Figure, look: Mapping[str, Look]) -> None:
    handles: list[Any] = [
        Line2D([], [], color=one.colour, marker=one.marker, linewidth=2.4, markersize=6) for one in look.values()
    ]
    handles += [Patch(color=QUIET, linewidth=0), Patch(color=_light(QUIET), linewidth=0)]
    names = [*(shortened(heading(model)) for model in look), "correct", "wrong"]
    columns = _legend_columns(look)
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=(0.04, 1.0), ncols=columns, columnspacing=1.8)
    figure.text(0.985, 0.035, "lines: 95 % intervals", ha="right", va="center", color=QUIET)


def _legend_columns(models: Sequence[str] | Mapping[str, Look]) -> int:
    """Count the legend's columns: as many as fit if every name is as long as the longest."""
    longest = max(len(shortened(heading(model))) for model in models)
    return max(2, min(len(models) + 2, 110 // (longest + 6)))


def _description(values: Values, models: Sequence[str], groups: Sequence[str]) -> str:
    parts = [
        f"{label(model)} on {group} problems: {percent(values[model, group, 'top']['value'])} % on the most frequent "
        f"answer, {percent(values[model, group, 'best']['value'])} % on the best, entropy "
        f"{values[model, group, 'entropy']['value']:.2f} nats"
        for group in groups
        for model in models
    ]
    return f"Bars of the share of samples by rank of the answer, and dots with 95 % intervals. {'; '.join(parts)}."
