"""The part of a page that pools of different temperatures add: the map of T and N, and which pair to use."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bontune.scaling as scaling
from bontune.base.errors import BontuneError
from bontune.base.settings import differing
from bontune.metrics import RewardScale
from bontune.pools.pool import Pool
from bontune.report.page import Grid, Line, Picture, fraction_cell, picture
from bontune.report.pool_numbers import EvaluatedPool
from bontune.report.read import finite
from bontune.report.scaling_plots import plot_bests, plot_grid, plot_optimum
from bontune.report.scaling_tables import Row, grid_rows, optimum_rows
from bontune.report.wording import typographic

SHARED = ("model", "task", "task_options", "split", "verifier", "top_p", "max_new_tokens")
"""Settings in which the pools of a sweep agree, so that temperature is the one thing that differs."""


def differences(one: Pool, other: Pool) -> list[str]:
    """The settings in which two pools of a sweep differ and must not; a file under another path may hold the same."""
    ours, theirs = ({name: pool.settings.get(name) for name in (*SHARED, "contents")} for pool in (one, other))
    return [name for name in dict.fromkeys(n.split(".")[0] for n in differing(ours, theirs)) if name != "contents"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPart:
    """What the page shows of a sweep."""

    advice: list[str]
    """Sentences that say which temperature to use."""
    figures: list[Picture]
    """The figures, the map of T and N first."""
    tables: list[Grid]
    """The tables with the numbers of the map."""
    sheets: dict[str, list[Row]]
    """CSV name → rows."""


def sweep_part(pools: Sequence[EvaluatedPool], scale: RewardScale) -> SweepPart | None:
    """The study of pools that differ in temperature and in nothing else; None of any others.

    Args:
        pools: one for each temperature.
        scale: of their rewards: samples are solved or not in a sweep.

    Raises:
        BontuneError: a figure cannot be drawn.
    """
    study = _study(pools, scale)
    if study is None:
        return None
    grids = [study.passes] if study.bests is None else [study.passes, study.bests]
    with tempfile.TemporaryDirectory(prefix="bontune-report-") as scratch:
        folder = Path(scratch)
        figures = [
            picture(
                plot_grid(study, grid, folder / f"{grid.metric}.png"),
                heading=f"{scaling.metric_name(grid, 'N')} by temperature and N",
            )
            for grid in grids
        ]
        if study.bests is not None:
            figures.append(picture(plot_bests(study, folder / "bests.png"), heading="Where more samples stop to help"))
        figures.append(picture(plot_optimum(study, folder / "optimum.png"), heading="The best temperature for each N"))
    return SweepPart(
        advice=[typographic(line) for line in scaling.advise_all(study)],
        figures=figures,
        tables=[_table(study, grid) for grid in grids],
        sheets={"temperatures": grid_rows(study), "optimum": optimum_rows(study)},
    )


def _study(pools: Sequence[EvaluatedPool], scale: RewardScale) -> scaling.Study | None:
    temperatures = [measured.pool.settings.get("temperature") for measured in pools]
    is_sweep = len(pools) > 1 and all(isinstance(t, (int, float)) and t > 0 for t in temperatures)
    if not is_sweep or len(set(temperatures)) < len(pools):
        return None
    if any(differences(pools[0].pool, measured.pool) for measured in pools):
        return None
    ns = sorted(set.intersection(*(set(measured.ks) for measured in pools)))
    if not ns:
        return None
    try:
        return scaling.study([swept_pool(float(m.pool.settings["temperature"]), m.pool, scale) for m in pools], ns=ns)
    except BontuneError:  # rewards that are not 0 and 1, or other problems: no sweep, but pools to report all the same
        return None


def swept_pool(temperature: float, pool: Pool, scale: RewardScale) -> scaling.SweepPool:
    """A pool of a sweep: 1 for what counts as solved and 0 for all else, where the scale says so."""
    rewards, scores = np.array(pool.rewards(scale)), pool.scores()
    tokens = [count for row in pool.columns.get("num_tokens", []) for count in row]
    is_known = bool(tokens) and all(finite(count) is not None for count in tokens)
    return scaling.SweepPool(
        temperature=temperature,
        problem_ids=pool.problem_ids,
        rewards_PM=rewards if scale.solved_at is None else scale.solved(rewards),
        scores_PM=None if scores is None else np.array(scores),
        tokens=float(np.mean(tokens)) if is_known else None,
        levels_P=pool.levels(),
    )


def _table(study: scaling.Study, grid: scaling.Grid) -> Grid:
    rows = [
        Line(
            name=scaling.t_text(t),
            cells=[
                fraction_cell(float(grid.means_TN[i, j]), (float(grid.low_TN[i, j]), float(grid.high_TN[i, j])))
                for j in range(len(study.ns))
            ],
        )
        for i, t in enumerate(study.temperatures)
    ]
    caption = f"{scaling.metric_name(grid, 'N')} in percent, with 95 % intervals."
    return Grid(caption=caption, columns=["Temperature", *(f"N = {n}" for n in study.ns)], rows=rows)
