"""What a model learned: how its answers to a problem spread, before and after, on easy and on hard problems.

A model that is used by best-of-N need not put its right answer first; it should have one among N different answers.
Whether training did that shows in the mass by rank (:func:`bontune.metrics.answer_distribution`), not in pass@1.

Groups go by the first model's pass rate on each problem, from its samples 0, 2, 4, …; measured, for every model, are
samples 1, 3, 5, … only. Grouped and measured by the same samples, the first model would seem better on the easy and
worse on the hard problems than it is, and every other model would seem to have changed the other way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bontune.base.errors import BontuneError
from bontune.metrics import AnswerDistribution, answer_distribution, bootstrap_interval, paired_difference
from bontune.objectives.inputs import FloatArray
from bontune.pools.pool import Pool
from bontune.report.figure import (
    GRID,
    INK,
    QUIET,
    SMALL_PT,
    TEXT_PT,
    TITLE_PT,
    colours,
    dress,
    markers,
    new_figure,
    percent_axis,
    save,
    shortened,
)
from bontune.report.numbers import counted, heading, label, percent, subject

NUM_RESAMPLES = 2000
"""Resamples of problems for each interval: 3 models, 4 groups and 23 metrics take some seconds."""
NUM_RANKS = 6
"""Ranks kept apart; all further answers are one group more."""
METRICS = ("correct", "best", "top", "entropy", "distinct", "distinct_correct", "coverage", "answered", "chosen")
"""Beside the mass by rank; ``chosen`` where every pool has scores other than its rewards. What they are:
:class:`bontune.metrics.AnswerDistribution`."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One model's answers to the problems, in the order of the first model's."""

    columns: dict[str, FloatArray]
    """Metric → (P,) values."""
    num_drawn: int
    """Samples that the numbers of different answers are for."""
    num_samples: int
    """Samples measured, per problem."""


def learned_rows(pools: Mapping[str, Pool], *, easy_from: float = 0.25, num_drawn: int = 16) -> list[dict[str, Any]]:
    """Each metric of each model in each group of problems, with 95 % intervals, and paired differences to the first.

    Groups: ``easy`` problems, of which the first model solves at least ``easy_from`` of its samples 0, 2, 4, …;
    ``hard``, fewer but not none; ``unsolved``, none; ``all``. A group without problems has no rows. Pools with more
    samples than the smallest are cut to as many, as most of the metrics depend on how many there are.

    Args:
        pools: model → its pool, two samples or more; the first is what the others are compared with. The same
            problems in each, in any order, with answers in the column ``answer``.
        easy_from: pass rate of an easy problem, above 0 and at most 1.
        num_drawn: samples to count different answers in; all that are measured, if they are fewer.

    Returns:
        Rows of ``model``, ``group``, ``easy_from``, ``metric``, ``num_problems``, ``num_samples`` (measured per
        problem), ``num_drawn``, ``value``, ``low``, ``high``, and ``difference``, ``difference_low``,
        ``difference_high`` to the first model (None for itself). Metrics: :data:`METRICS`; ``rank_1`` … ``rank_6`` and
        ``rank_rest``, the mass at each rank by frequency and on all further answers; ``rank_1_correct`` …, the part of
        it that is rewarded.

    Raises:
        BontuneError: no pool, one without answers or of one sample, other problems in one than in another, or
            ``easy_from`` or ``num_drawn`` out of range.
    """
    if not pools:
        raise BontuneError("there is nothing to compare: give at least one pool.")
    if not 0 < easy_from <= 1:
        raise BontuneError(f"easy_from must be above 0 and at most 1, not {easy_from:g}.")
    if num_drawn < 1:
        raise BontuneError(f"num_drawn must be at least 1, not {num_drawn}.")
    first = next(iter(pools))
    places = {name: _places(name, pool, first, pools[first]) for name, pool in pools.items()}
    num_samples = min(len(row) for pool in pools.values() for row in pool.columns["reward"])
    if num_samples < 2:
        raise BontuneError("every pool needs two samples per problem: half of them tell easy problems from hard ones.")
    has_scores = all(pool.scores() not in (None, pool.rewards()) for pool in pools.values())
    measured = {name: _measure(pool, places[name], num_samples, num_drawn, has_scores) for name, pool in pools.items()}
    rate_P = np.array(pools[first].rewards())[:, :num_samples:2].mean(-1)
    return [
        {"model": name, "group": group, "easy_from": easy_from, **row}
        for name in pools
        for group, members in _groups(rate_P, easy_from).items()
        for row in _rows(measured[name], members, measured[first] if name != first else None)
    ]


def _groups(rate_P: FloatArray, easy_from: float) -> dict[str, np.ndarray]:
    """Places of the problems of each group that has some."""
    is_easy, is_unsolved = rate_P >= easy_from - 1e-9, rate_P <= 0
    members = {
        "easy": np.flatnonzero(is_easy),
        "hard": np.flatnonzero(~is_easy & ~is_unsolved),
        "unsolved": np.flatnonzero(is_unsolved),
        "all": np.arange(len(rate_P)),
    }
    return {group: places for group, places in members.items() if len(places)}


def _places(name: str, pool: Pool, first: str, first_pool: Pool) -> list[int]:
    """Find the first pool's problems in this one."""
    if "answer" not in pool.columns or all(answer is None for row in pool.columns["answer"] for answer in row):
        raise BontuneError(
            f"the pool of {name} holds no answers: its task has no normal form of an answer, so different answers "
            "cannot be counted."
        )
    where = {problem_id: place for place, problem_id in enumerate(pool.problem_ids)}
    missing = [problem_id for problem_id in first_pool.problem_ids if problem_id not in where]
    if missing or len(where) != len(first_pool.problem_ids):
        which = f"{missing[0]} is in the first only" if missing else f"{name} has more"
        raise BontuneError(
            f"the pools of {first} and {name} hold different problems ({which}): sample both on the same ones."
        )
    return [where[problem_id] for problem_id in first_pool.problem_ids]


def _measure(pool: Pool, places: Sequence[int], num_samples: int, num_drawn: int, has_scores: bool) -> Measured:
    """Samples 1, 3, 5, … of the first ``num_samples``."""
    answers = [pool.columns["answer"][place][1:num_samples:2] for place in places]
    rewards = np.array(pool.rewards())[places, 1:num_samples:2]
    scores = np.array(pool.scores())[places, 1:num_samples:2] if has_scores else None
    num_drawn = min(num_drawn, rewards.shape[-1])
    found = answer_distribution(answers, rewards, scores, num_drawn=num_drawn, num_ranks=NUM_RANKS)
    return Measured(columns=_columns(found), num_drawn=num_drawn, num_samples=found.num_samples)


def _columns(found: AnswerDistribution) -> dict[str, FloatArray]:
    values = {name: getattr(found, f"{name}_P") for name in METRICS}
    columns = {name: value for name, value in values.items() if value is not None}
    for place, rank in enumerate(ranks()):
        columns[f"rank_{rank}"] = found.ranked_PR[:, place]
        columns[f"rank_{rank}_correct"] = found.ranked_correct_PR[:, place]
    return columns


def ranks() -> list[str]:
    """The ranks as the metrics' names write them.

    >>> ranks()
    ['1', '2', '3', '4', '5', '6', 'rest']
    """
    return [*(str(rank) for rank in range(1, NUM_RANKS + 1)), "rest"]


def _rows(measured: Measured, members: np.ndarray, reference: Measured | None) -> list[dict[str, Any]]:
    rows = []
    for metric, values_P in measured.columns.items():
        interval = bootstrap_interval(values_P[members], num_resamples=NUM_RESAMPLES)
        row: dict[str, Any] = {
            "metric": metric,
            "num_problems": len(members),
            "num_samples": measured.num_samples,
            "num_drawn": measured.num_drawn,
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "difference": None,
            "difference_low": None,
            "difference_high": None,
        }
        if reference is not None:
            to_first = paired_difference(
                values_P[members], reference.columns[metric][members], num_resamples=NUM_RESAMPLES
            )
            row |= {"difference": to_first.value, "difference_low": to_first.low, "difference_high": to_first.high}
        rows.append(row)
    return rows


def plot_learned(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Draw each model's mass by rank, correct and wrong, on easy and hard problems, and four metrics; write a PNG.

    Args:
        rows: of :func:`learned_rows`.
        path: where to write; missing parent folders are made.

    Returns:
        The path.

    Raises:
        BontuneError: no rows, or the file cannot be written.
    """
    if not rows:
        raise BontuneError("there is nothing to draw: no rows of what the models learned.")
    values = {(row["model"], row["group"], row["metric"]): row for row in rows}
    models = list(dict.fromkeys(row["model"] for row in rows))
    groups = [group for group in _GROUPS if (models[0], group, "top") in values]
    left = [group for group in ("easy", "hard") if group in groups] or groups
    figure = new_figure(12.4, 6.4)
    top = 0.845 - 0.035 * (-(-(len(models) + 2) // _legend_columns(models)) - 1)
    outer = figure.add_gridspec(1, 2, width_ratios=[1.12, 1], left=0.05, right=0.985, top=top, bottom=0.09, wspace=0.2)
    bars = outer[0].subgridspec(len(left), 1, hspace=0.5)
    for place, group in enumerate(left):
        axes = figure.add_subplot(bars[place])
        _draw_ranks(axes, values, models, group)
        if place == len(left) - 1:
            axes.set_xlabel("rank of the answer among a problem's answers, by frequency", fontsize=TEXT_PT, color=QUIET)
    dots = outer[1].subgridspec(2, 2, hspace=0.5, wspace=0.16)
    for place, (metric, (title, note)) in enumerate(_DOTS.items()):
        axes = figure.add_subplot(dots[place])
        _draw_dots(axes, values, models, groups, metric)
        axes.tick_params(axis="y", labelleft=place % 2 == 0)
        _title(axes, title, note.format(num_drawn=rows[0]["num_drawn"]))
    _legend(figure, models)
    return save(figure, path, "What the models learned", _describe(values, models, left))


def _draw_ranks(axes: Axes, values: Mapping[tuple[str, str, str], Any], models: Sequence[str], group: str) -> None:
    """Bars of the models side by side at each rank: full where correct, light where wrong."""
    colour, width = colours(models), 0.8 / len(models)
    ticks = np.arange(NUM_RANKS + 1, dtype=float)
    ticks[-1] += 0.3  # many answers together, which is no rank
    for place, model in enumerate(models):
        at = ticks + width * (place - (len(models) - 1) / 2)
        mass = [values[model, group, f"rank_{rank}"]["value"] for rank in ranks()]
        correct = [values[model, group, f"rank_{rank}_correct"]["value"] for rank in ranks()]
        axes.bar(at, mass, 0.9 * width, color=_light(colour[model]), linewidth=0)
        axes.bar(at, correct, 0.9 * width, color=colour[model], linewidth=0)
    dress(axes)
    percent_axis(axes.yaxis)
    axes.set_xticks(ticks, [*ranks()[:-1], f"{NUM_RANKS + 1} and on"])
    row = values[models[0], group, "top"]
    who = _GROUPS[group].format(first=shortened(subject(models[0])), easy_from=f"{100 * row['easy_from']:g}")
    _title(
        axes, f"{group.capitalize()} problems: share of the samples", f"{counted(row['num_problems'], 'problem')} {who}"
    )


def _light(colour: str) -> str:
    """The colour of what is wrong; opaque, so that no grid line shows through."""
    return to_hex(1 - 0.28 * (1 - np.array(to_rgb(colour))))


def _draw_dots(
    axes: Axes, values: Mapping[tuple[str, str, str], Any], models: Sequence[str], groups: Sequence[str], metric: str
) -> None:
    """A line per group and model: the mean and its interval."""
    colour, marker, step = colours(models), markers(models), 0.6 / max(len(models), 2)
    for line, group in enumerate(groups):
        for place, model in enumerate(models):
            row, y = values[model, group, metric], line + step * (place - (len(models) - 1) / 2)
            axes.plot([row["low"], row["high"]], [y, y], color=colour[model], linewidth=1.8, solid_capstyle="butt")
            axes.plot(row["value"], y, color=colour[model], marker=marker[model], markersize=6, clip_on=False)
    dress(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_yticks(range(len(groups)), groups)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.set_xlim(left=0)
    if metric == "best":
        percent_axis(axes.xaxis)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))


def _legend(figure: Figure, models: Sequence[str]) -> None:
    colour, marker = colours(models), markers(models)
    handles: list[Any] = [
        Line2D([], [], color=colour[model], marker=marker[model], linewidth=2.4, markersize=6) for model in models
    ]
    handles += [Patch(color=QUIET, linewidth=0), Patch(color=_light(QUIET), linewidth=0)]
    names = [*(shortened(heading(model)) for model in models), "correct", "wrong"]
    legend = figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(0.04, 1.0),
        ncols=_legend_columns(models),
        frameon=False,
        fontsize=TEXT_PT,
        labelcolor=INK,
        handlelength=1.5,
        columnspacing=1.8,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.text(0.985, 0.035, "lines: 95 % intervals", ha="right", va="center", fontsize=SMALL_PT, color=QUIET)


def _legend_columns(models: Sequence[str]) -> int:
    """Count the legend's columns: as many as fit if every name is as long as the longest."""
    longest = max(len(shortened(heading(model))) for model in models)
    return max(2, min(len(models) + 2, 110 // (longest + 6)))


def _title(axes: Axes, title: str, note: str) -> None:
    place: dict[str, Any] = {
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "va": "baseline",
        "annotation_clip": False,
    }
    axes.annotate(title, (0, 1), xytext=(0, 24), fontsize=TITLE_PT, fontweight="bold", color=INK, **place)
    axes.annotate(note, (0, 1), xytext=(0, 9), fontsize=SMALL_PT, color=QUIET, parse_math=False, **place)


def _describe(values: Mapping[tuple[str, str, str], Any], models: Sequence[str], groups: Sequence[str]) -> str:
    parts = [
        f"{label(model)} on {group} problems: {percent(values[model, group, 'top']['value'])} % on the most frequent "
        f"answer, {percent(values[model, group, 'best']['value'])} % on the best, entropy "
        f"{values[model, group, 'entropy']['value']:.2f} nats"
        for group in groups
        for model in models
    ]
    return f"Bars of the share of samples by rank of the answer, and dots with 95 % intervals. {'; '.join(parts)}."
