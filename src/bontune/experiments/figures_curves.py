"""The figures against k: success of the arms, on harder problems, by the N trained for, with a verifier that learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from bontune.experiments.figure_parts import (
    SuitePlot,
    arm_columns,
    arm_curves,
    arm_looks,
    base_curve,
    fraction_columns,
    gains_by_k,
    levels_by_k,
    over,
    panel,
    points_columns,
    scope,
    seed_column,
)
from bontune.experiments.results import Results, chance_level
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.metrics import Interval
from bontune.pools.over_runs import mean_over_runs
from bontune.report.figure import Curve, draw_curve, figure_title, k_axis, label_ends, new, ring
from bontune.report.numbers import counted, split_metric
from bontune.report.style import Look

ByArm = Mapping[str, list[tuple[int, Interval]]]
"""Arm → k → a value with its interval."""
_N_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "<", ">")
_NOTES = {
    "pass": "pass@N: any of N samples is correct",
    "best": "Best-of-N: the verifier's pick of N is correct",
    "majority": "majority@N: the most frequent answer of N is correct",
}


def success_figure(results: Results) -> SuitePlot | None:
    """Draw pass@N, Best-of-N under the verifier, and the vote of N, as far as they are measured, against N."""
    arms, measuring = main_arms(results.suite), results.suite.measuring
    has_verifier = measuring.verifier != "oracle"
    families = ["pass", *(["best"] if has_verifier else []), *(["majority"] if measuring.votes else [])]
    levels = {family: {arm: levels_by_k(results, arm, family) for arm in arms} for family in families}
    if not any(levels["pass"].values()):
        return None
    figure = new({1: 7.6, 2: 9.6}.get(len(families), 13.6), 4.5)
    panels = figure.subplots(1, len(families), squeeze=False, gridspec_kw={"wspace": 0.2})[0]
    for axes, family in zip(panels, families, strict=True):
        curves = _draw(axes, results, levels[family])
        panel(axes, _NOTES[family])
    guessed = [(k, level.interval) for k in measuring.ks if (level := chance_level(results, BASE, k)) is not None]
    if guessed:
        look = arm_looks(results.suite)[BASE]
        line = {"color": look.colour, "linestyle": (0, (3, 2)), "marker": "", "label": "chance, of the base model"}
        panels[0].plot([k for k, _ in guessed], [y.value for _, y in guessed], **line)
        panels[0].legend(loc="upper left")
        levels["chance"] = {BASE: guessed}
    figure_title(figure, "Success with N samples")
    label_ends(figure, (panels[-1], curves))
    picked = f"; Best-of-N by {measuring.verifier}" if has_verifier else ""
    picked += "; dashed: what guessing solves, by the references of other problems" if guessed else ""
    return SuitePlot(
        name="curves",
        title="Success with N samples",
        figure=figure,
        rows=[
            arm_columns(results, arm)
            | {"metric": f"{family}@{k}", "k": k, "temperature": 1.0}
            | fraction_columns(y)
            | seed_column(results, arm)
            for family in levels
            for arm, points in levels[family].items()
            for k, y in points
        ],
        caption=f"{scope(results, _measured(levels['pass']))}, T = 1{picked}. Bands: 95 % intervals {over(results)}, "
        "of each arm alone: all arms have the same problems, so that differences are surer than bands are narrow.",
    )


def harder_figure(results: Results) -> SuitePlot | None:
    """Draw pass@N on the harder problems, and its difference to the base model."""
    if results.suite.measuring.harder is None:
        return None
    arms = main_arms(results.suite)
    levels = {arm: levels_by_k(results, arm, "pass", "harder") for arm in arms}
    gains = {arm: gains_by_k(results, arm, "pass", "harder") for arm in arms if arm != BASE}
    if not any(gains.values()):
        return None
    figure = new(9.6, 4.5)
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.2})
    _draw(left, results, levels)
    panel(left, "pass@N")
    curves = _draw(right, results, gains)
    panel(right, "pass@N minus that of the base model, points", is_difference=True)
    figure_title(figure, "Harder problems than those of the training")
    label_ends(figure, (right, [*curves, base_curve(results)]))
    zero = Interval(value=0.0, low=0.0, high=0.0)
    return SuitePlot(
        name="harder",
        title="Harder problems than those of the training",
        figure=figure,
        rows=[
            arm_columns(results, arm)
            | {"metric": f"pass@{k}", "k": k, "temperature": 1.0}
            | fraction_columns(y)
            | points_columns(dict(gains.get(arm, [])).get(k, zero))
            | seed_column(results, arm, "harder")
            for arm, points in levels.items()
            for k, y in points
        ],
        caption=f"{scope(results, _measured(levels), 'harder')}, T = 1. Bands: 95 % intervals {over(results)}.",
    )


def n_prime_figure(results: Results) -> SuitePlot | None:
    """Draw what the N trained for does to pass@k of every k, or to the vote where that is what the suite leads with."""
    arms = arms_by_n(results)
    family = "majority" if split_metric(results.suite.metric)[0] == "majority" else "pass"
    gains = {n: points for n, arm in arms.items() if (points := gains_by_k(results, arm, family))}
    if len(gains) < 2:
        return None
    figure = new(7.6, 4.5)
    axes = figure.subplots()
    shades = [to_hex(0.82 * np.array(colormaps["viridis"](place)[:3])) for place in np.linspace(0.82, 0.0, len(gains))]
    curves = []
    for (n, points), colour, marker in zip(gains.items(), shades, _N_MARKERS * len(gains), strict=False):
        look = Look(colour=colour, marker=marker)
        curves.append(Curve(label=f"N′ = {n}", look=look, x=[k for k, _ in points], y=[y for _, y in points]))
        draw_curve(axes, curves[-1])
        for k, y in points:
            if k == n:
                ring(axes, k, y.value, colour)
    k_axis(axes, results.suite.measuring.ks, "k, samples per problem when used")
    panel(axes, f"{family}@k minus that of the base model, points; ring: k = N′, the N trained for", is_difference=True)
    figure_title(figure, "Training for different N")
    label_ends(figure, (axes, [*curves, base_curve(results)]))
    return SuitePlot(
        name="n_prime",
        title="Training for different N",
        figure=figure,
        rows=[
            {"n_prime": n}
            | arm_columns(results, arms[n])
            | {"metric": f"{family}@{k}", "k": k, "temperature": 1.0}
            | points_columns(y)
            | seed_column(results, arms[n])
            for n, points in gains.items()
            for k, y in points
        ],
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
    by_n: dict[int, str] = {}
    for name, tree in trees.items():
        objective, n = tree["objective"], tree["objective"]["n"]
        if not isinstance(n, int):
            continue  # several budgets at once
        is_same_objective = objective["name"] == first["objective"]["name"] or (objective["name"] == "rloo" and n == 1)
        if is_same_objective and _all_but_n(tree) == _all_but_n(first):
            by_n.setdefault(n, name)
    return dict(sorted(by_n.items()))


def _all_but_n(tree: dict[str, Any]) -> dict[str, Any]:
    """List the settings in which arms agree that differ in N alone.

    These are task, verifier and steps; how the samples of a step are drawn, and how many in all; and which samples
    carry credit and how. An objective without such an option has its usual value.
    """
    usual = {"draw": "all", "reward": "environment", "p_fail": "plugin", "sign": "exact"}
    num_samples = tree["sampling"]["samples"] * tree["training"]["prompts_per_step"]
    return {
        "verifier": tree["verifier"],
        "task": tree["task"],
        "steps": tree["training"]["steps"],
        "sampling": dict(tree["sampling"]) | {"samples": num_samples},
        "credit": {key: tree["objective"].get(key, value) for key, value in usual.items()},
    }


def _shapes(results: Results, arms: dict[int, str]) -> str:
    """The arms whose steps have other numbers of prompts and samples than the first trained one's."""
    usual = results.suite.tree(next(iter(results.suite.trained())))["sampling"]["samples"]
    trees = {n: results.suite.tree(arm) for n, arm in arms.items()}
    return "".join(
        f" N′ = {n}: {tree['training']['prompts_per_step']} prompts × {tree['sampling']['samples']} samples a step."
        for n, tree in trees.items()
        if tree["sampling"]["samples"] != usual
    )


# ---- a verifier that learned along ----


def refit_figure(results: Results) -> SuitePlot | None:
    """Draw gains in Best-of-N of arms whose verifier learned along, under that verifier and under the shipped one."""
    suite, ks = results.suite, results.suite.measuring.ks
    first = _own(ks[0])
    learning = [arm for arm in results.arms if all(first in e.values for e in results.evaluations(arm, "test", 1.0))]
    if not learning:
        return None
    arms = [arm for arm in results.arms if arm in learning or arm in _twins(suite, learning)]
    gains: dict[str, ByArm] = {
        "own": {arm: _own_gains(results, arm) for arm in learning},
        suite.measuring.verifier: {arm: gains_by_k(results, arm, "best") for arm in arms},
    }
    figure = new(10.6, max(4.5, 1.6 + 0.56 * len(arms)))
    panels = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.12})
    most_seeds = max(suite.num_seeds(arm) for arm in arms)
    with_band = [arm for arm in arms if suite.num_seeds(arm) == most_seeds]
    for axes, (name, by_arm) in zip(panels, gains.items(), strict=True):
        # All arms are passed to both panels, so that each has one look.
        curves = _draw(axes, results, {arm: by_arm.get(arm, []) for arm in arms}, with_band)
        who = "the run's last verifier" if name == "own" else name
        panel(axes, f"points, picked by {who}", is_difference=True)
    panels[1].tick_params(labelleft=False)
    figure_title(figure, "Best-of-N over the base model, where the verifier learns along")
    label_ends(figure, (panels[1], curves))
    return SuitePlot(
        name="refit",
        title="Best-of-N over the base model, where the verifier learns along",
        figure=figure,
        rows=[
            arm_columns(results, arm)
            | {"selected_by": name, "metric": f"best@{k}", "k": k, "temperature": 1.0}
            | points_columns(interval)
            | seed_column(results, arm)
            for name, by_arm in gains.items()
            for arm, points in by_arm.items()
            for k, interval in points
        ],
        caption=f"{scope(results, arms)}, T = 1. The base model's samples are picked from by the same verifier: left, "
        "the one that each run ended with; right, the shipped one, beside trainings that differ in refitting alone. "
        f"Bands: 95 % intervals {over(results)}, of arms with {counted(most_seeds, 'seed')}.",
    )


def _own(k: int) -> str:
    return f"own:best@{k}"


def _own_gains(results: Results, arm: str) -> list[tuple[int, Interval]]:
    """The difference to the base model, both picked from by the verifier that each run ended with."""
    gains = []
    for k in results.suite.measuring.ks:
        ours, base = (results.values(arm, metric, "test", 1.0) for metric in (_own(k), f"own:base:best@{k}"))
        if ours is not None and base is not None:
            gains.append((k, mean_over_runs(ours - base)))
    return gains


def _twins(suite: Suite, learning: list[str]) -> list[str]:
    """The arms that are trained as these, but with a verifier that stays as it is."""
    trees = {arm: suite.tree(arm) for arm in suite.trained()}
    still = [{**trees[arm], "verifier": {**trees[arm]["verifier"], "refit": None}} for arm in learning]
    return [arm for arm, tree in trees.items() if tree in still]


# ---- parts ----


def _draw(axes: Axes, results: Results, points: ByArm, with_band: list[str] | None = None) -> list[Curve]:
    """Draw the curves of arms on an axis of N; those in ``with_band`` have a band (None: all)."""
    curves = arm_curves(results, points)
    for arm, curve in zip([arm for arm, xy in points.items() if xy], curves, strict=True):
        draw_curve(axes, curve, band=0.08 if with_band is None or arm in with_band else 0)
    k_axis(axes, results.suite.measuring.ks)
    return curves


def _measured(points: ByArm) -> list[str]:
    return [arm for arm, xy in points.items() if xy]
