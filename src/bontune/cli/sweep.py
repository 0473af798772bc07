"""``bontune sweep``."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import bontune.report.result_tables as tables
import bontune.report.sweep_figures as plots
import bontune.scaling as scaling
from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.base.text import temperature_text
from bontune.cli.drawing import draw_all_with_progress
from bontune.metrics import reward_scale
from bontune.pools.compare import check_ks
from bontune.pools.draw import PoolRequest
from bontune.pools.pool import Pool
from bontune.pools.read import read_pool
from bontune.report.pool_page import SHARED, setting_differences, swept_pool
from bontune.report.result_tables import sweep_tables
from bontune.report.tables import as_csv
from bontune.scaling import Study

_ELLIPSES = ("...", "…")


def run_sweep(
    request: PoolRequest, temperatures: str, *, out: Path, ks: str | None = None, budgets: str | None = None
) -> None:
    """``bontune sweep MODEL TASK``: draw what is missing of one pool per temperature, then study them."""
    chosen = parse_temperatures(temperatures)
    check_ks(ks, request.sampling.num_samples)
    _numbers(budgets, "--budgets")
    wanted = {
        out / f"T{temperature_text(temperature)}.parquet": dataclasses.replace(
            request, sampling=dataclasses.replace(request.sampling, temperature=temperature)
        )
        for temperature in chosen
    }
    draw_all_with_progress(wanted)
    study_pools(list(wanted), out=out, ks=ks, budgets=budgets)


def study_pools(paths: Sequence[Path], *, out: Path, ks: str | None = None, budgets: str | None = None) -> None:
    """``bontune sweep --pools``: study pools that are there, print tables, write numbers and pictures to ``out``."""
    pools = [(path, read_pool(path)) for path in paths]
    scale = reward_scale(pool.columns["reward"] for _, pool in pools)
    swept = [swept_pool(_temperature_of(path, pool), pool, scale) for path, pool in pools]
    _check_alike(pools)
    smallest = min(pool.rewards_PM.shape[1] for pool in swept)
    result = scaling.study(swept, ns=check_ks(ks, smallest), budgets=_numbers(budgets, "--budgets"))
    settings = pools[0][1].settings
    origin = {"pools": [str(path) for path in paths], **{name: settings[name] for name in SHARED if name in settings}}
    write_sweep(result, origin, out)
    if settings.get("verifier") == "majority":
        print(
            f"warning: the votes were counted over all {smallest} samples of a problem, which flatters best-of-N below "
            "that; `bontune eval` computes majority@N",
            file=sys.stderr,
        )
    console = Console(markup=False, emoji=False)
    for table in sweep_tables(result):
        console.print(table.terminal())
        console.print()
    for line in scaling.advise_all(result):
        console.print(line, highlight=False)
    print(f"{out}: sweep.json, grid.csv, fit.csv, optimum.csv and the pictures")


def write_sweep(study: Study, origin: Mapping[str, Any], out: Path) -> None:
    """Write ``sweep.json``, the CSVs and the pictures, each whole or not at all.

    Raises:
        BontuneError: a file cannot be written.
    """
    sheets = {"grid": tables.grid_rows, "fit": tables.fit_rows, "optimum": tables.optimum_rows}
    sheets |= {"budgets": tables.budget_rows, "best_n": tables.best_n_rows}
    for name, rows_of in sheets.items():
        if rows := rows_of(study):
            write_whole(out / f"{name}.csv", as_csv(rows), "numbers")
    plots.draw_grid(study, study.passes).save(out / "pass_grid.png")
    plots.draw_laws(study).save(out / "pass_curves.png")
    plots.draw_optimum(study).save(out / "optimum.png")
    if study.bests is not None:
        plots.draw_grid(study, study.bests).save(out / "best_grid.png")
        plots.draw_bests(study).save(out / "best_curves.png")
    write_whole(out / "sweep.json", tables.sweep_json(study, origin), "numbers")  # last: all else is there


def parse_temperatures(text: str) -> list[float]:
    """``0.4,0.6,1.0``, or ``0.4,0.6,...,1.4`` for equal steps; two or more, each above 0.

    Raises:
        BontuneError: anything else.

    >>> parse_temperatures("0.4,0.6,...,1.2")
    [0.4, 0.6, 0.8, 1.0, 1.2]
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 4 and parts[2] in _ELLIPSES:
        first, second, last = (_temperature(parts[i], text) for i in (0, 1, 3))
        num_steps = (last - first) / (second - first) if second > first else 0.0
        if round(num_steps) < 1 or abs(num_steps - round(num_steps)) > 1e-6 or num_steps > 1000:
            raise BontuneError(f"--temperatures {text} does not go from {first:g} to {last:g} in equal steps.")
        values = [round(first + i * (second - first), 9) for i in range(round(num_steps) + 1)]
    else:
        values = [_temperature(part, text) for part in parts]
    if len({f"{value:g}" for value in values}) < len(values):  # pools are named so
        raise BontuneError(f"--temperatures names one twice: {text}.")
    if len(values) < 2:
        raise BontuneError(f"A sweep needs two temperatures at least, got --temperatures {text}.")
    return sorted(values)


def _temperature(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if math.isnan(value) or math.isinf(value):
        raise BontuneError(f"--temperatures takes numbers like 0.4,0.8,1.2, got {text!r}.")
    if value <= 0:
        raise BontuneError(
            f"A sweep takes temperatures above 0, got {value:g}: at 0 all samples of a problem are alike."
        )
    return value


def _numbers(text: str | None, option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(0 < value < math.inf for value in values):
        raise BontuneError(f"{option} takes numbers above 0 like 100,1000, got {text!r}.")
    return values


def _temperature_of(path: Path, pool: Pool) -> float:
    """The temperature that a pool was drawn at.

    Raises:
        BontuneError: it does not say, or at 0.
    """
    temperature = pool.settings.get("temperature")
    if not isinstance(temperature, (int, float)):
        raise BontuneError(
            f"{path} does not say at which temperature it was drawn; a sweep takes Parquet pools of `bontune sample`."
        )
    if temperature <= 0:
        raise BontuneError(
            f"{path} was drawn at temperature {temperature:g}; a sweep takes temperatures above 0, because at 0 all "
            "samples of a problem are alike."
        )
    if note := pool.ungraded(path):
        print(f"warning: {note}", file=sys.stderr)
    return float(temperature)


def _check_alike(pools: Sequence[tuple[Path, Pool]]) -> None:
    first_path, first = pools[0]
    for path, pool in pools:
        for name in setting_differences(first, pool):
            ours, theirs = first.settings.get(name), pool.settings.get(name)
            raise BontuneError(
                f"{first_path} and {path} differ in {name} ({ours!r} and {theirs!r}): the pools of a sweep may "
                "differ in temperature only."
            )
