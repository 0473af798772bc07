"""What an arm is worth under other verifiers than its own, and with a verifier that learned along."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from bontune.experiments.figure_parts import (
    Drawing,
    draw_line,
    headline,
    k_axis,
    label_of,
    lines_of,
    margins,
    name_ends,
    over,
    panel,
    points_columns,
    scope,
    signed,
    style_columns,
)
from bontune.experiments.results import Results
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.metrics import Interval
from bontune.pools.over_runs import mean_over_runs
from bontune.report.canvas import INK, QUIET, SMALL_PT, new_figure
from bontune.report.wording import counted, split_metric

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
