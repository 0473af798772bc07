"""Measures pools over temperatures and N: the command ``bontune sweep``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.cli import options as shared
from bontune.cli.sample import draw_all_with_progress, pool_request, serving_from_options
from bontune.cli.terminal import console, warn

if TYPE_CHECKING:
    from bontune.pools.draw import PoolRequest
    from bontune.pools.pool import Pool
    from bontune.scaling import Study

_ELLIPSES = ("...", "…")


def sweep_temperatures(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL TASK [KEY=VALUE]... | --pools POOL POOL...",
            help="A model, a task and its options; or, with --pools, two or more pools.",
            show_default=False,
        ),
    ],
    pools: Annotated[bool, typer.Option("--pools", help="Study these pools, one for each temperature.")] = False,
    temperatures: Annotated[
        str, typer.Option(help="Draw at these temperatures: 0.5,0.8,1.2 or 0.4,0.6,...,1.6.")
    ] = "0.4,0.6,...,1.6",
    samples: shared.Samples = 64,
    split: shared.Split = "test",
    limit: shared.Limit = None,
    verifier: shared.Verifier = "oracle",
    top_p: shared.TopP = 1.0,
    max_new_tokens: shared.MaxNewTokens = None,
    seed: shared.Seed = 0,
    k: shared.Budgets = None,
    budgets: Annotated[
        str | None, typer.Option(help="Give advice for these budgets in tokens per problem, such as 100,1000.")
    ] = None,
    out: shared.ResultsFolder = Path("sweep"),
    served_model: shared.ServedModel = None,
    api: shared.Api = "auto",
    concurrency: shared.Concurrency = 32,
) -> None:
    """Measure how pass@N and best-of-N depend on N and temperature, and advise on both.

    Draws a pool per temperature; a stopped sweep goes on, and pools that are there are kept.

    Examples: bontune sweep countdown-tiny countdown --limit 200 -o sweep

    bontune sweep --pools a.parquet b.parquet
    """
    if pools:
        shared.require_there([Path(path) for path in arguments])
        study_pools([Path(path) for path in arguments], out=out, ks=k, budgets=budgets)
        return
    request = pool_request(
        *_model_and_task(arguments),
        samples=samples,
        max_new_tokens=max_new_tokens,
        top_p=top_p,
        split=split,
        limit=limit,
        verifier=verifier,
        seed=seed,
        serving=serving_from_options(served_model, api, concurrency),
    )
    requests = _requests(request, temperatures, out, ks=k, budgets=budgets)
    draw_all_with_progress(requests)
    study_pools(list(requests), out=out, ks=k, budgets=budgets)


def _requests(
    request: PoolRequest, temperatures: str, out: Path, *, ks: str | None, budgets: str | None
) -> dict[Path, PoolRequest]:
    """Ask for a pool at each temperature, once all that the study takes is known to be right."""
    from bontune.pools.compare import check_ks

    values = parse_temperatures(temperatures)
    check_ks(ks, request.sampling.num_samples)
    _numbers(budgets, "--budgets")
    from bontune.base.text import temperature_text

    return {
        out / f"T{temperature_text(value)}.parquet": dataclasses.replace(
            request, sampling=dataclasses.replace(request.sampling, temperature=value)
        )
        for value in values
    }


def _model_and_task(arguments: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """Take the words of MODEL TASK [KEY=VALUE]... apart.

    Raises:
        BontuneError: one of the two is missing, or they are pools.
    """
    if len(arguments) < 2 or "=" in arguments[1]:
        raise BontuneError(f"A sweep needs a model and a task, got {' '.join(arguments)}.")
    if any(argument.endswith((".parquet", ".jsonl")) for argument in arguments[:2]):
        raise BontuneError(f"{arguments[0]} {arguments[1]} are no model and task; for pools give --pools.")
    return arguments[0], arguments[1], arguments[2:]


def study_pools(paths: Sequence[Path], *, out: Path, ks: str | None = None, budgets: str | None = None) -> None:
    """``bontune sweep --pools``: study pools that are there, print tables, write numbers and pictures to ``out``."""
    from bontune import scaling
    from bontune.metrics import reward_scale
    from bontune.pools.compare import check_ks
    from bontune.pools.read import read_pool
    from bontune.report.pool_page import SHARED, swept_pool
    from bontune.report.result_tables import sweep_tables

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
        warn(
            f"the votes were counted over all {smallest} samples of a problem, which flatters best-of-N below "
            "that; `bontune eval` computes majority@N"
        )
    for table in sweep_tables(result):
        console().print(table.terminal())
        print()
    for line in scaling.advise_all(result):
        console().print(line)
    print(f"{out}: sweep.json, grid.csv, fit.csv, optimum.csv and the pictures")


def write_sweep(study: Study, origin: Mapping[str, Any], out: Path) -> None:
    """Write ``sweep.json``, the CSVs and the pictures, each whole or not at all.

    Raises:
        BontuneError: a file cannot be written.
    """
    from bontune.report import result_tables as tables
    from bontune.report import sweep_figures as figures
    from bontune.report.tables import as_csv

    sheets = {"grid": tables.grid_rows, "fit": tables.fit_rows, "optimum": tables.optimum_rows}
    sheets |= {"budgets": tables.budget_rows, "best_n": tables.best_n_rows}
    for name, rows_of in sheets.items():
        if rows := rows_of(study):
            write_whole(out / f"{name}.csv", as_csv(rows), "numbers")
    figures.draw_grid(study, study.passes).save(out / "pass_grid.png")
    figures.draw_laws(study).save(out / "pass_curves.png")
    figures.draw_optimum(study).save(out / "optimum.png")
    if study.bests is not None:
        figures.draw_grid(study, study.bests).save(out / "best_grid.png")
        figures.draw_bests(study).save(out / "best_curves.png")
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
        warn(note)
    return float(temperature)


def _check_alike(pools: Sequence[tuple[Path, Pool]]) -> None:
    from bontune.report.pool_page import setting_differences

    first_path, first = pools[0]
    for path, pool in pools:
        for name in setting_differences(first, pool):
            ours, theirs = first.settings.get(name), pool.settings.get(name)
            raise BontuneError(
                f"{first_path} and {path} differ in {name} ({ours!r} and {theirs!r}): the pools of a sweep may "
                "differ in temperature only."
            )
