"""The figures against k: pass@k of the arms, on harder problems, and by the N that was trained for."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from bontune.experiments.figure_parts import (
    Drawing,
    Line,
    Style,
    curve,
    draw_line,
    fraction_columns,
    gain_curve,
    headline,
    k_axis,
    lines_of,
    name_ends,
    over,
    panel,
    points_columns,
    scope,
    style_columns,
)
from bontune.experiments.results import Results
from bontune.experiments.suite import BASE, main_arms
from bontune.metrics import Interval
from bontune.report.canvas import new_figure
from bontune.report.numbers import split_metric

Curves = dict[str, list[tuple[int, Interval]]]
_N_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "<", ">")


def draw_curves(results: Results) -> Drawing | None:
    """pass@N, Best-of-N under the verifier, and the vote of N, as far as they are measured, against N."""
    arms, measuring = main_arms(results.suite), results.suite.measuring
    has_verifier = measuring.verifier != "oracle"
    families = ["pass", *(["best"] if has_verifier else []), *(["majority"] if measuring.votes else [])]
    notes = {
        "pass": "pass@N: any of N samples is correct",
        "best": "Best-of-N: the verifier's pick of N is correct",
        "majority": "majority@N: the most frequent answer of N is correct",
    }
    found = {family: {arm: curve(results, arm, family, "test") for arm in arms} for family in families}
    if not any(found["pass"].values()):
        return None
    title = "Success with N samples"
    canvas = new_figure({1: 7.6, 2: 9.6}.get(len(families), 13.6), 4.5)
    panels = canvas.subplots(1, len(families), squeeze=False, gridspec_kw={"wspace": 0.2})[0]
    for axes, family in zip(panels, families, strict=True):
        lines = _draw(axes, results, found[family], "N, samples per problem")
        panel(axes, notes[family])
    headline(canvas, title)
    name_ends(canvas, (panels[-1], lines))
    rows = [
        style_columns(results, arm)
        | {"metric": f"{family}@{k}", "k": k, "temperature": 1.0}
        | fraction_columns(y)
        | {"seeds": len(results.evaluations(arm, "test", 1.0))}
        for family in families
        for arm, points in found[family].items()
        for k, y in points
    ]
    picked = f"; Best-of-N by {measuring.verifier}" if has_verifier else ""
    return Drawing(
        name="curves",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{scope(results, _drawn(found['pass']))}, T = 1{picked}. Bands: 95 % intervals {over(results)}, of "
        "each arm alone: all arms have the same problems, so that differences are surer than bands are narrow.",
    )


def draw_harder(results: Results) -> Drawing | None:
    """pass@N on the harder problems, and its difference to the base model."""
    if results.suite.measuring.harder is None:
        return None
    arms = main_arms(results.suite)
    found = {arm: curve(results, arm, "pass", "harder") for arm in arms}
    gains = {arm: gain_curve(results, arm, "pass", "harder") for arm in arms if arm != BASE}
    if not any(gains.values()):
        return None
    title = "Harder problems than those of the training"
    canvas = new_figure(9.6, 4.5)
    left, right = canvas.subplots(1, 2, gridspec_kw={"wspace": 0.2})
    _draw(left, results, found, "N, samples per problem")
    panel(left, "pass@N")
    lines = _draw(right, results, gains, "N, samples per problem")
    panel(right, "pass@N minus that of the base model, points", is_difference=True)
    headline(canvas, title)
    lines.append(_base_line(results))
    name_ends(canvas, (right, lines))
    rows = []
    for arm, points in found.items():
        differences = dict(gains.get(arm, []))
        for k, y in points:
            seeds = {"seeds": len(results.evaluations(arm, "harder", 1.0))}
            row: dict[str, Any] = style_columns(results, arm) | {"metric": f"pass@{k}", "k": k, "temperature": 1.0}
            row |= fraction_columns(y)
            row |= points_columns(differences.get(k, Interval(value=0.0, low=0.0, high=0.0)))
            rows.append(row | seeds)
    return Drawing(
        name="harder",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{scope(results, _drawn(found), 'harder')}, T = 1. Bands: 95 % intervals {over(results)}.",
    )


def draw_n_prime(results: Results) -> Drawing | None:
    """What the N trained for does to pass@k of every k, or to the vote where that is what the suite leads with."""
    arms = arms_by_n(results)
    family = "majority" if split_metric(results.suite.metric)[0] == "majority" else "pass"
    gains = {n: gain_curve(results, arm, family, "test") for n, arm in arms.items()}
    gains = {n: points for n, points in gains.items() if points}
    if len(gains) < 2:
        return None
    title = "Training for different N"
    canvas = new_figure(7.6, 4.5)
    axes = canvas.subplots()
    shades = [to_hex(0.82 * np.array(colormaps["viridis"](place)[:3])) for place in np.linspace(0.82, 0.0, len(gains))]
    lines = []
    for (n, points), colour, marker in zip(gains.items(), shades, _N_MARKERS * len(gains), strict=False):
        line = Line(
            label=f"N′ = {n}",
            style=Style(colour=colour, marker=marker),
            x=[k for k, _ in points],
            y=[y for _, y in points],
        )
        draw_line(axes, line)
        for k, y in points:
            if k == n:
                axes.plot(
                    k,
                    y.value,
                    marker="o",
                    markersize=13,
                    markerfacecolor="none",
                    color=colour,
                    markeredgewidth=1.4,
                    zorder=4,
                )
        lines.append(line)
    k_axis(axes, results.suite.measuring.ks, "k, samples per problem when used")
    panel(axes, f"{family}@k minus that of the base model, points; ring: k = N′, the N trained for", is_difference=True)
    headline(canvas, title)
    lines.append(_base_line(results))
    name_ends(canvas, (axes, lines))
    rows = [
        {"n_prime": n}
        | style_columns(results, arms[n])
        | {"metric": f"{family}@{k}", "k": k, "temperature": 1.0}
        | points_columns(y)
        | {"seeds": len(results.evaluations(arms[n], "test", 1.0))}
        for n, points in gains.items()
        for k, y in points
    ]
    return Drawing(
        name="n_prime",
        title=title,
        canvas=canvas,
        rows=rows,
        caption=f"{scope(results, list(arms.values()))}, T = 1; N′ = 1 is plain RL.{_shapes(results, arms)} "
        f"Bands: 95 % intervals {over(results)}.",
    )


def arms_by_n(results: Results) -> dict[int, str]:
    """The arms that differ from the first trained one in the N trained for alone (and learning rate), by N.

    RLOO is the objective of N = 1. A large N may take more samples of fewer prompts, as many in all.
    """
    suite = results.suite
    trees = {name: suite.tree(name) for name in suite.trained()}
    if not trees:
        return {}
    first = next(iter(trees.values()))
    found: dict[int, str] = {}
    for name, tree in trees.items():
        objective = tree["objective"]
        if not isinstance(objective["n"], int):
            continue  # several budgets at once
        is_same = objective["name"] == first["objective"]["name"] or (
            objective["name"] == "rloo" and objective["n"] == 1
        )
        same_parts = all(tree[part] == first[part] for part in ("verifier", "task"))
        same_sampling = _drawing(tree) == _drawing(first)
        same_credit = _credit(objective) == _credit(first["objective"])
        if (
            is_same
            and same_parts
            and same_sampling
            and same_credit
            and tree["training"]["steps"] == first["training"]["steps"]
        ):
            found.setdefault(int(objective["n"]), name)
    return dict(sorted(found.items()))


def _credit(objective: dict[str, Any]) -> dict[str, Any]:
    """Say which samples carry credit and how; an objective without such an option has its usual value."""
    usual = {"draw": "all", "reward": "environment", "p_fail": "plugin", "sign": "exact"}
    return {key: objective.get(key, value) for key, value in usual.items()}


def _shapes(results: Results, arms: dict[int, str]) -> str:
    """The arms whose steps have other numbers of prompts and samples than the first trained one's."""
    usual = results.suite.tree(next(iter(results.suite.trained())))["sampling"]["samples"]
    trees = {n: results.suite.tree(arm) for n, arm in arms.items()}
    return "".join(
        f" N′ = {n}: {tree['training']['prompts_per_step']} prompts × {tree['sampling']['samples']} samples a step."
        for n, tree in trees.items()
        if tree["sampling"]["samples"] != usual
    )


def _drawing(tree: dict[str, Any]) -> dict[str, Any]:
    """How the samples of a step are drawn, and how many in all."""
    sampling = dict(tree["sampling"])
    return sampling | {"samples": sampling["samples"] * tree["training"]["prompts_per_step"]}


def _draw(axes: Axes, results: Results, found: Curves, name: str) -> list[Line]:
    lines = lines_of(results, {arm: [(float(k), y) for k, y in points] for arm, points in found.items()})
    for line in lines:
        draw_line(axes, line)
    k_axis(axes, results.suite.measuring.ks, name)
    return lines


def _base_line(results: Results) -> Line:
    """The zero line of differences, for its label."""
    zero = Interval(value=0.0, low=0.0, high=0.0)
    last = float(results.suite.measuring.ks[-1])
    return Line(label=results.suite.arms[BASE].label, style=Style(colour="#5b6673", marker="s"), x=[last], y=[zero])


def _drawn(found: Curves) -> list[str]:
    return [arm for arm, points in found.items() if points]
