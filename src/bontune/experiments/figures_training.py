"""The figures of training, and the list of all figures of a suite.

They show the share of generations that is enough, validation during training, and what the models learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from bontune.base.files import write_whole
from bontune.experiments.claims import Judged, judge
from bontune.experiments.figure_parts import (
    Figure,
    SuitePlot,
    arm_columns,
    arm_curves,
    arm_family,
    arm_label,
    arm_looks,
    fraction_columns,
    over,
    panel,
    scope,
)
from bontune.experiments.figures_arms import frontier_figure, gains_figure, temperature_figure, verifiers_figure
from bontune.experiments.figures_curves import harder_figure, n_prime_figure, refit_figure, success_figure
from bontune.experiments.results import OWN, Level, Results
from bontune.experiments.store import Measurement
from bontune.experiments.suite import BASE, main_arms
from bontune.experiments.work import KEPT_SEED, pool_path
from bontune.metrics import Interval
from bontune.pools.learned import learned_rows
from bontune.pools.read import read_pool
from bontune.report.answer_figures import draw_learned
from bontune.report.figure import HAIR, Curve, draw_curve, figure_title, label_ends, new, styled
from bontune.report.numbers import counted, percent
from bontune.report.style import INK
from bontune.report.tables import as_csv

_MOST_PANELS = 2


def write_figures(results: Results, out: Path) -> list[Figure]:
    """Draw what can be drawn of what is measured.

    Args:
        results: of a suite; may be incomplete: a figure without all it needs is left out.
        out: folder of the files; made if it is not there.

    Returns:
        The figures that were written, in order.

    Raises:
        BontuneError: a file cannot be written, or a piece on disk is damaged or of other settings.
    """
    with styled():
        plots = (draw(results) for draw in FIGURES)
        return [plot.write(out) for plot in plots if plot is not None]


# ---- generations ----


def generations_figure(results: Results) -> SuitePlot | None:
    """Draw how far arms with few generations come, and where they pass the rival's end."""
    if not any(claim.kind == "generations" for claim in results.suite.claims):
        return None
    verdicts = [v for v in judge(results) if v.claim.kind == "generations" and v.own is not None][:_MOST_PANELS]
    if not verdicts:
        return None
    figure = new(7.6, 1.3 + 3.2 * len(verdicts))
    panels = figure.subplots(len(verdicts), 1, squeeze=False, gridspec_kw={"hspace": 0.42})[:, 0]
    rows, labelled = [], []
    for axes, verdict in zip(panels, verdicts, strict=True):
        levels = _ladder_levels(results, verdict)
        labelled.append((axes, _draw_ladder(axes, results, verdict, levels)))
        rows += _ladder_rows(results, verdict, levels)
    figure_title(figure, "Generations that training needs")
    label_ends(figure, *labelled)
    arms = [arm for verdict in verdicts for arm in (*verdict.claim.ladder, verdict.claim.b)]
    return SuitePlot(
        name="draws",
        title="Generations that training needs",
        figure=figure,
        rows=rows,
        caption=f"{scope(results, list(dict.fromkeys(arms)))}, every arm at its own best T. Error bars and band: 95 % "
        f"intervals {over(results)}; marked: the share of the rival's generations at which the line "
        "through the rungs reaches the rival's end, with its 95 % interval by resampling problems and runs.",
    )


def _ladder_levels(results: Results, verdict: Judged) -> dict[str, tuple[float, Level]]:
    """The base model, the arms of the ladder by rising share, and the rival: share of generations and level."""
    claim = verdict.claim
    rungs = sorted(claim.ladder.items(), key=lambda rung: rung[1])
    shares = {claim.b: 1.0, BASE: 0.0} | dict(rungs)
    levels = {arm: results.level(arm, claim.metric, "test", OWN) for arm in shares}
    return {arm: (shares[arm], level) for arm, level in levels.items() if level is not None}


def _draw_ladder(axes: Axes, results: Results, verdict: Judged, levels: dict[str, tuple[float, Level]]) -> list[Curve]:
    """Draw one claim; returns the curves that are to be labelled at the right."""
    suite, claim = results.suite, verdict.claim
    rungs = {arm: point for arm, point in levels.items() if arm != claim.b}
    rival = levels[claim.b][1].interval
    ours = next((arm for arm in suite.trained() if arm in rungs), list(rungs)[-1])
    look = arm_looks(suite, [ours, claim.b])
    shares, intervals = [share for share, _ in rungs.values()], [level.interval for _, level in rungs.values()]
    line = Curve(label=arm_label(suite, ours), look=look[ours], x=shares, y=intervals)
    widest = max(1.0, *line.x)
    axes.plot(line.x, [y.value for y in line.y], color=line.look.colour, zorder=3)
    for arm, (share, level) in rungs.items():
        rung = look[BASE] if arm == BASE else line.look
        axes.plot([share] * 2, [level.interval.low, level.interval.high], color=rung.colour, linewidth=1.4, zorder=3)
        axes.plot(share, level.interval.value, color=rung.colour, marker=rung.marker, markersize=6.5, zorder=4)
    against = Curve(label=f"{arm_label(suite, claim.b)}:\nits end", look=look[claim.b], x=[widest], y=[rival])
    axes.axhspan(rival.low, rival.high, color=against.look.colour, alpha=0.1, linewidth=0, zorder=1)
    axes.axhline(rival.value, color=against.look.colour, linewidth=1.5, linestyle=(0, (5, 2)), zorder=2)
    axes.set_xlim(-0.03 * widest, 1.03 * widest)
    panel(axes, f"{claim.metric}; first: {suite.arms[next(iter(claim.ladder))].label}")
    base: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "bottom", "color": look[BASE].colour}
    axes.annotate(suite.arms[BASE].label, (0, line.y[0].low), **base)
    _mark_crossing(axes, cast(Interval, verdict.own), rival.value, widest)
    ticks = [widest]
    for share in sorted({*line.x, 0.5, 0.75}, reverse=True):
        if ticks[-1] - share > 0.085 * widest:
            ticks.append(share)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    axes.set_xlabel("generations in training, as a share of the rival's")
    return [line, against]


def _mark_crossing(axes: Axes, crossing: Interval, level: float, widest: float) -> None:
    """Mark where the line reaches the rival's end, with its interval on the rival's line."""
    if not math.isfinite(crossing.value):
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (0, 5), "textcoords": "offset points"}
        axes.annotate("not reached", (0.5, level), ha="center", color=INK, **place)
        return
    low, _ = axes.get_ylim()
    axes.plot([crossing.value] * 2, [low, level], **HAIR)
    axes.set_ylim(bottom=low)
    high = min(crossing.high, axes.get_xlim()[1])
    axes.plot([crossing.low, high], [level] * 2, color=INK, linewidth=2, zorder=5)
    ends = [crossing.low] if crossing.high > high else [crossing.low, high]
    axes.plot(ends, [level] * len(ends), color=INK, marker="|", markersize=9, markeredgewidth=2, linestyle="", zorder=5)
    axes.plot(crossing.value, level, marker="D", markersize=7, color=INK, markeredgecolor="white", zorder=6)
    to = f"{percent(crossing.high, 0)} %" if math.isfinite(crossing.high) else "never"
    is_left = crossing.value < widest / 2
    axes.annotate(
        f"reached with {percent(crossing.value, 0)} %\n[{percent(crossing.low, 0)} % to {to}]",
        (crossing.value, 0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(7 if is_left else -7, 8),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="bottom",
        color=INK,
        linespacing=1.25,
    )


def _ladder_rows(results: Results, verdict: Judged, levels: dict[str, tuple[float, Level]]) -> list[dict[str, Any]]:
    claim, own = verdict.claim, cast(Interval, verdict.own)
    crossing = {"crossing_share": own.value, "crossing_low_share": own.low, "crossing_high_share": own.high}
    return [
        {"claim": claim.id}
        | arm_columns(results, arm)
        | {
            "share_of_generations": share,
            "is_rival": arm == claim.b,
            "metric": claim.metric,
            "temperature": level.temperature,
        }
        | fraction_columns(level.interval)
        | {"seeds": level.num_seeds}
        | {name: round(value, 6) if math.isfinite(value) else "" for name, value in crossing.items()}
        for arm, (share, level) in levels.items()
    ]


# ---- during training ----


def validation_figure(results: Results) -> SuitePlot | None:
    """Draw the suite's metric on validation while training."""
    suite, metric, look = results.suite, results.suite.metric, arm_looks(results.suite)
    level = results.level(BASE, metric, "validation", 1.0)
    start = {} if level is None else {0.0: level.interval.value}
    figure = new(7.6, 4.5)
    axes = figure.subplots()
    histories = {arm: _histories(results, arm, metric) for arm in main_arms(suite)}
    histories = {arm: seeds for arm, seeds in histories.items() if seeds}
    means: dict[str, list[tuple[float, Interval]]] = {}
    rows: list[dict[str, Any]] = []
    for arm, seeds in histories.items():
        for seed, points in seeds.items():
            whole = start | points
            if len(seeds) > 1:
                axes.plot(list(whole), list(whole.values()), color=look[arm].colour, linewidth=0.7, alpha=0.4)
            rows += [
                arm_columns(results, arm)
                | {"seed": seed, "generations": round(x), "metric": metric, "fraction": round(value, 6)}
                for x, value in whole.items()
            ]
        means[arm] = _mean(list(seeds.values()), start)
    curves = arm_curves(results, means)
    if not curves:
        return None
    for curve in curves:
        draw_curve(axes, curve, band=0)
    furthest = max(curve.x[-1] for curve in curves)
    panel(axes, f"{metric} on validation at T = 1; thick: mean over seeds")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}")
    axes.set_xlim(-0.02 * furthest, 1.02 * furthest)
    axes.set_xlabel("thousand generations")
    figure_title(figure, "Validation during training")
    label_ends(figure, (axes, curves))
    num_seeds = [len(seeds) for seeds in histories.values()]
    runs = counted(max(num_seeds), "seed")
    runs = runs if min(num_seeds) == max(num_seeds) else f"{min(num_seeds)} to {runs}"
    begins = " The lines begin at the base model." if start else ""
    return SuitePlot(
        name="training",
        title="Validation during training",
        figure=figure,
        rows=rows,
        caption=f"{suite.title}, {counted(len(results.problems('validation')), 'validation problem')}, T = 1, chosen "
        f"learning rates, {runs} an arm: thick the mean, thin each run.{begins}",
    )


def _histories(results: Results, arm: str, metric: str) -> dict[int, dict[float, float]]:
    """Seed → generations → the metric on validation, of the runs with the chosen learning rate that are done."""
    histories: dict[int, dict[float, float]] = {}
    for run in results.runs(arm) if arm != BASE else []:
        trial = results.trial(run)
        if trial is None or not trial["steps"]:
            continue
        per_step = trial["generations"] / trial["steps"]
        points = {row["step"] * per_step: float(row[metric]) for row in trial["history"] if metric in row}
        if points:
            histories[run.seed] = dict(sorted(points.items()))
    return histories


def _mean(seeds: list[dict[float, float]], start: dict[float, float]) -> list[tuple[float, Interval]]:
    """The mean over seeds, where all have a value."""
    shared = set(seeds[0]).intersection(*seeds[1:])
    points = start | {x: float(np.mean([seed[x] for seed in seeds])) for x in sorted(shared)}
    return [(x, Interval(value=value, low=value, high=value)) for x, value in sorted(points.items())]


# ---- what the models learned ----


def write_learned(results: Results, out: Path, work: Path) -> Figure | None:
    """Write picture and numbers of ``suite.learned``: mass, entropy and coverage of answers, on easy and hard problems.

    Where the pools are gone but the picture is there, it is kept.

    Args:
        results: of the suite.
        out: where picture and numbers go.
        work: the folder of the runs, with their pools.

    Returns:
        The figure; None without pools of two arms and without an earlier picture.
    """
    suite, where = results.suite, Measurement(data="test", temperature=1.0)
    pools = {}
    for arm in suite.learned:
        for run in results.runs(arm)[KEPT_SEED : KEPT_SEED + 1]:
            path = pool_path(work, run, suite.arms[arm].select, where)
            if path.is_file():
                pools[arm] = read_pool(path)
    png, csv = out / "learned.png", out / "learned.csv"
    if len(pools) == len(suite.learned) > 1:
        rows = learned_rows(pools)
        write_whole(csv, as_csv(rows), "numbers")
        draw_learned(rows, {arm: arm_family(suite, arm) for arm in pools}).save(png)
    elif not (png.is_file() and csv.is_file()):
        return None
    first = "the base model" if suite.learned[0] == BASE else suite.learned[0]
    return Figure(
        name="learned",
        title="What the models learned",
        caption=(
            f"The distribution over distinct answers at T = 1, seed 0. Problems are easy or hard for {first}, by half "
            "of its samples; everything is measured on the other half. Left: mean mass of a problem's first, second, … "
            "most frequent answer, dark where it is correct."
        ),
        png=png,
        csv=csv,
    )


FIGURES: tuple[Callable[[Results], SuitePlot | None], ...] = (
    success_figure,
    frontier_figure,
    gains_figure,
    temperature_figure,
    n_prime_figure,
    harder_figure,
    verifiers_figure,
    refit_figure,
    generations_figure,
    validation_figure,
)
"""All figures but that of what was learned, in the order of a page."""
