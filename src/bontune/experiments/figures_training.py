"""The figures of what training costs: the share of generations that is enough, and validation during training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from bontune.base.files import write_whole
from bontune.experiments.claims import Judged, judge
from bontune.experiments.figure_parts import (
    HAIR,
    Drawing,
    Figure,
    Line,
    draw_line,
    fraction_columns,
    headline,
    label_of,
    lines_of,
    name_ends,
    over,
    panel,
    scope,
    style_columns,
    styles,
    x_name,
)
from bontune.experiments.results import OWN, Level, Results
from bontune.experiments.store import Measurement
from bontune.experiments.suite import BASE, main_arms
from bontune.experiments.work import KEPT_SEED, pool_path
from bontune.metrics import Interval
from bontune.pools.learned import learned_rows
from bontune.pools.read import read_pool
from bontune.report.answer_figures import draw_learned
from bontune.report.canvas import INK, SMALL_PT, new_figure
from bontune.report.numbers import counted
from bontune.report.style import family_of
from bontune.report.tables import as_csv

_MOST_PANELS = 2


def draw_draws(results: Results) -> Drawing | None:
    """How far arms with few generations come, and where they pass what the rival ends with."""
    if not any(claim.kind == "generations" for claim in results.suite.claims):
        return None
    verdicts = [v for v in judge(results) if v.claim.kind == "generations" and v.own is not None][:_MOST_PANELS]
    if not verdicts:
        return None
    title = "Generations that training needs"
    canvas = new_figure(7.6, 1.3 + 3.2 * len(verdicts))
    panels = canvas.subplots(len(verdicts), 1, squeeze=False, gridspec_kw={"hspace": 0.42})[:, 0]
    rows, named = [], []
    for axes, verdict in zip(panels, verdicts, strict=True):
        levels = _levels(results, verdict)
        named.append((axes, _draw_ladder(axes, results, verdict, levels)))
        rows += _ladder_rows(results, verdict, levels)
    headline(canvas, title)
    name_ends(canvas, *named)
    arms = [arm for verdict in verdicts for arm in (*verdict.claim.ladder, verdict.claim.b)]
    return Drawing(
        name="draws",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{scope(results, list(dict.fromkeys(arms)))}, every arm at its own best T. Error bars and band: 95 % "
        f"intervals {over(results)}; marked: the share of the rival's generations at which the line "
        "through the rungs reaches the rival's end, with its 95 % interval by resampling problems and runs.",
    )


def _levels(results: Results, verdict: Judged) -> dict[str, tuple[float, Level]]:
    """The base model, the arms of the ladder by rising share, and the rival: share of generations and level."""
    claim = verdict.claim
    rungs = sorted(claim.ladder.items(), key=lambda rung: rung[1])
    shares = {claim.b: 1.0, BASE: 0.0} | dict(rungs)
    found = {arm: results.level(arm, claim.metric, "test", OWN) for arm in shares}
    return {arm: (shares[arm], level) for arm, level in found.items() if level is not None}


def _draw_ladder(axes: Axes, results: Results, verdict: Judged, levels: dict[str, tuple[float, Level]]) -> list[Line]:
    """One claim; returns what is to be named at the right."""
    suite, claim, looks = results.suite, verdict.claim, styles(results.suite)
    rungs = {arm: point for arm, point in levels.items() if arm != claim.b}
    rival = levels[claim.b][1].interval
    ours = next((arm for arm in suite.trained() if arm in rungs), list(rungs)[-1])
    line = Line(
        label=label_of(suite, ours),
        style=looks[ours],
        x=[share for share, _ in rungs.values()],
        y=[level.interval for _, level in rungs.values()],
    )
    widest = max(1.0, *line.x)
    axes.plot(line.x, [y.value for y in line.y], color=line.style.colour, linewidth=1.7, zorder=3)
    for arm, (share, level) in rungs.items():
        style = looks[BASE] if arm == BASE else line.style
        axes.plot([share] * 2, [level.interval.low, level.interval.high], color=style.colour, linewidth=1.4, zorder=3)
        axes.plot(share, level.interval.value, color=style.colour, marker=style.marker, markersize=6.5, zorder=4)
    against = Line(label=f"{label_of(suite, claim.b)}:\nits end", style=looks[claim.b], x=[widest], y=[rival])
    axes.axhspan(rival.low, rival.high, color=against.style.colour, alpha=0.1, linewidth=0, zorder=1)
    axes.axhline(rival.value, color=against.style.colour, linewidth=1.5, linestyle=(0, (5, 2)), zorder=2)
    axes.set_xlim(-0.03 * widest, 1.03 * widest)
    lowest = next(iter(claim.ladder))
    panel(axes, f"{claim.metric}; first: {suite.arms[lowest].label}")
    axes.annotate(
        suite.arms[BASE].label,
        (0, line.y[0].low),
        xytext=(6, 0),
        textcoords="offset points",
        va="bottom",
        fontsize=SMALL_PT,
        color=looks[BASE].colour,
    )
    _mark_crossing(axes, cast(Interval, verdict.own), rival.value, widest)
    ticks = [widest]
    for share in sorted({*line.x, 0.5, 0.75}, reverse=True):
        if ticks[-1] - share > 0.085 * widest:
            ticks.append(share)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    x_name(axes, "generations in training, as a share of the rival's")
    return [line, against]


def _ladder_rows(results: Results, verdict: Judged, levels: dict[str, tuple[float, Level]]) -> list[dict[str, Any]]:
    claim = verdict.claim
    return [
        {"claim": claim.id}
        | style_columns(results, arm)
        | {
            "share_of_generations": share,
            "is_rival": arm == claim.b,
            "metric": claim.metric,
            "temperature": level.temperature,
        }
        | fraction_columns(level.interval)
        | {"seeds": level.num_seeds}
        | _crossing_columns(verdict)
        for arm, (share, level) in levels.items()
    ]


def _mark_crossing(axes: Axes, crossing: Interval, level: float, widest: float) -> None:
    """Mark where the line reaches the rival's end, with its interval on the rival's line."""
    if not math.isfinite(crossing.value):
        axes.annotate(
            "not reached",
            (0.5, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 5),
            ha="center",
            textcoords="offset points",
            fontsize=SMALL_PT,
            color=INK,
        )
        return
    low, _ = axes.get_ylim()
    axes.plot([crossing.value] * 2, [low, level], **HAIR)
    axes.set_ylim(bottom=low)
    high = min(crossing.high, axes.get_xlim()[1])
    axes.plot([crossing.low, high], [level] * 2, color=INK, linewidth=2, zorder=5)
    ends = [crossing.low] if crossing.high > high else [crossing.low, high]
    axes.plot(ends, [level] * len(ends), color=INK, marker="|", markersize=9, markeredgewidth=2, linestyle="", zorder=5)
    axes.plot(crossing.value, level, marker="D", markersize=7, color=INK, markeredgecolor="white", zorder=6)
    to = f"{100 * crossing.high:.0f} %" if math.isfinite(crossing.high) else "never"
    is_left = crossing.value < widest / 2
    axes.annotate(
        f"reached with {100 * crossing.value:.0f} %\n[{100 * crossing.low:.0f} % to {to}]",
        (crossing.value, 0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(7 if is_left else -7, 8),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="bottom",
        fontsize=SMALL_PT,
        color=INK,
        linespacing=1.25,
    )


def _crossing_columns(verdict: Judged) -> dict[str, Any]:
    """Blank where nothing reaches the rival's end."""
    own = cast(Interval, verdict.own)
    ends = {"crossing_share": own.value, "crossing_low_share": own.low, "crossing_high_share": own.high}
    return {name: round(value, 6) if math.isfinite(value) else "" for name, value in ends.items()}


# ---- during training ----


def draw_training(results: Results) -> Drawing | None:
    """The suite's metric on validation while training."""
    metric, looks = results.suite.metric, styles(results.suite)
    start = results.level(BASE, metric, "validation", 1.0)
    canvas = new_figure(7.6, 4.5)
    axes = canvas.subplots()
    means: dict[str, list[tuple[float, Interval]]] = {}
    rows: list[dict[str, Any]] = []
    num_seeds = []
    for arm in main_arms(results.suite):
        seeds = _histories(results, arm, metric)
        if not seeds:
            continue
        num_seeds.append(len(seeds))
        for seed, points in seeds.items():
            known = ({0.0: start.interval.value} if start is not None else {}) | points
            if len(seeds) > 1:
                axes.plot(list(known), list(known.values()), color=looks[arm].colour, linewidth=0.7, alpha=0.4)
            rows += [
                style_columns(results, arm)
                | {"seed": seed, "generations": round(x), "metric": metric, "fraction": round(value, 6)}
                for x, value in known.items()
            ]
        means[arm] = _mean(list(seeds.values()), start.interval.value if start is not None else None)
    lines = lines_of(results, means)
    if not lines:
        return None
    for line in lines:
        draw_line(axes, line, has_band=False)
    title = "Validation during training"
    furthest = max(line.x[-1] for line in lines)
    panel(axes, f"{metric} on validation at T = 1; thick: mean over seeds")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}")
    axes.set_xlim(-0.02 * furthest, 1.02 * furthest)
    x_name(axes, "thousand generations")
    headline(canvas, title)
    name_ends(canvas, (axes, lines))
    problems = counted(len(results.problems("validation")), "validation problem")
    runs = counted(max(num_seeds), "seed")
    runs = runs if min(num_seeds) == max(num_seeds) else f"{min(num_seeds)} to {runs}"
    begins = "" if start is None else " The lines begin at the base model."
    return Drawing(
        name="training",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{results.suite.title}, {problems}, T = 1, chosen learning rates, {runs} an arm: thick the mean, thin "
        f"each run.{begins}",
    )


def _histories(results: Results, arm: str, metric: str) -> dict[int, dict[float, float]]:
    """Seed → generations → the metric on validation, of the runs with the chosen learning rate that are done."""
    found: dict[int, dict[float, float]] = {}
    for run in results.runs(arm) if arm != BASE else []:
        trial = results.trial(run)
        if trial is None or not trial["steps"]:
            continue
        per_step = trial["generations"] / trial["steps"]
        points = {row["step"] * per_step: float(row[metric]) for row in trial["history"] if metric in row}
        if points:
            found[run.seed] = dict(sorted(points.items()))
    return found


def _mean(seeds: list[dict[float, float]], start: float | None) -> list[tuple[float, Interval]]:
    """The mean over seeds, where all have a value."""
    points = {} if start is None else {0.0: start}
    shared = set(seeds[0]).intersection(*seeds[1:])
    points |= {x: float(np.mean([seed[x] for seed in seeds])) for x in sorted(shared)}
    return [(x, Interval(value=value, low=value, high=value)) for x, value in sorted(points.items())]


NAME = "learned"


def write_learned(results: Results, out: Path, work: Path) -> Figure | None:
    """Picture and numbers of ``suite.learned``: entropy, coverage, mass on the best answer, easy and hard problems.

    Where the pools are gone but the picture is there, it is kept.

    Args:
        results: of the suite.
        out: where picture and numbers go.
        work: the folder of the runs, with their pools.

    Returns:
        The figure; None without pools of two arms and without an earlier picture.
    """
    what = Measurement(data="test", temperature=1.0)
    pools = {}
    for arm in results.suite.learned:
        for run in results.runs(arm)[KEPT_SEED : KEPT_SEED + 1]:
            path = pool_path(work, run, results.suite.arms[arm].select, what)
            if path.is_file():
                pools[arm] = read_pool(path)
    png, csv = out / f"{NAME}.png", out / f"{NAME}.csv"
    if len(pools) == len(results.suite.learned) > 1:
        rows = learned_rows(pools)
        write_whole(csv, as_csv(rows), "numbers")
        draw_learned(rows, {arm: family_of(results.suite.tree(arm)) if arm != BASE else None for arm in pools}).save(
            png
        )
    elif not (png.is_file() and csv.is_file()):
        return None
    first = "the base model" if results.suite.learned[0] == BASE else results.suite.learned[0]
    return Figure(
        name=NAME,
        title="What the models learned",
        caption=(
            f"The distribution over distinct answers at T = 1, seed 0. Problems are easy or hard for {first}, by half "
            "of its samples; everything is measured on the other half. Left: mean mass of a problem's first, second, … "
            "most frequent answer, dark where it is correct."
        ),
        png=png,
        csv=csv,
    )
