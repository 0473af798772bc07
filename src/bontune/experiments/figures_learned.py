"""What the models of a suite learned: the distribution over distinct answers, from the pools that were kept."""

from __future__ import annotations

from pathlib import Path

import bontune.report.verifier_learning as learned
from bontune.base.files import write_whole
from bontune.experiments.figure_parts import Figure
from bontune.experiments.results import Results
from bontune.experiments.store import Measurement
from bontune.experiments.suite import BASE
from bontune.experiments.work import KEPT_SEED, pool_path
from bontune.pools.read import read_pool
from bontune.report.scaling_tables import as_csv

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
        rows = learned.learned_rows(pools)
        write_whole(csv, as_csv(rows), "numbers")
        learned.plot_learned(rows, png)
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
