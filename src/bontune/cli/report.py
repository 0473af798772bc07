"""``bontune report`` and ``bontune watch``: the pages of runs and of pools."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from bontune.base.errors import BontuneError
from bontune.cli import options as shared


def report_on(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN... | RUNS | POOL... | SWEEP", help="Run folders, a folder of runs, pools, or a sweep's folder."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write this page; default: report.html, in a given folder.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write the pools' numbers here; default: report_csv beside the page.")
    ] = None,
    k: shared.Budgets = None,
    solved_at: shared.SolvedAt = None,
) -> None:
    """Write one HTML page about pools and their samples, a sweep, or runs.

    Pools of the same problems are compared with the first. Example: bontune report pools/base.parquet -o base.html
    """
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise BontuneError(f"--out ends in .html, got {out.name!r}.")
    shared.require_there(paths)
    from bontune.config import is_run
    from bontune.report.runs_page import runs_in, write_runs_report

    if len(paths) == 1 and not is_run(paths[0]) and runs_in(paths[0]):
        print(_write_index(paths[0], out))
        return
    runs = [path for path in paths if is_run(path)]
    if runs and len(runs) < len(paths):
        other = next(path for path in paths if path not in runs)
        raise BontuneError(f"{runs[0]} is a run and {other} is not: report them apart.")
    page = out or (paths[0] / "report.html" if len(paths) == 1 and paths[0].is_dir() else Path("report.html"))
    if runs:
        if csv is not None or k is not None:
            raise BontuneError("--csv and --k are for pools; a run's numbers are in its metrics.jsonl.")
        if solved_at is not None:
            raise BontuneError("--solved-at is for pools; a run has eval.solved_at in its recipe.")
        print(write_runs_report(runs, page))
        return
    folder = page.with_name(f"{page.stem}_csv") if csv is None else csv
    pools = [pool for path in paths for pool in pools_at(path)]
    _report_pools(pools, page, folder, k, solved_at)
    print(f"{page}, and its numbers in {folder}")


def _write_index(folder: Path, out: Path | None) -> Path:
    """Write the page of all runs of a folder, and a page for each run."""
    from bontune.base.files import write_whole
    from bontune.report.run_page import write_run_report
    from bontune.report.runs_page import index_page, runs_in

    for run in runs_in(folder):
        write_run_report(run)
    page = out or folder / "index.html"
    linked = index_page(folder, lambda run: quote(os.path.relpath(run / "report.html", page.parent)))
    return write_whole(page, linked.encode("utf-8", errors="replace"), "report")


def pools_at(path: Path) -> list[Path]:
    """Find the pool at a path, or all pools in a folder, in the order of their names.

    Raises:
        BontuneError: a folder that holds none.
    """
    from bontune.pools.read import is_pool_file

    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if is_pool_file(p) and not p.name.endswith(".partial.jsonl"))
    found = [p for p in found if not p.name.startswith(".")]
    if not found:
        raise BontuneError(
            f"{path} is neither a run nor a sweep: it holds no recipe.yaml and no pool (.parquet or .jsonl)."
        )
    return found


def _report_pools(paths: Sequence[Path], page: Path, csv_folder: Path, ks: str | None, solved_at: float | None) -> None:
    """Write the page of pools and, into a folder, their numbers."""
    from bontune.pools.compare import check_ks
    from bontune.pools.read import read_pool
    from bontune.report.pool_page import write_pool_report

    pools = {name: read_pool(path) for name, path in zip(_names(paths), paths, strict=True)}
    drawn = sum(len(row) for pool in pools.values() for row in pool.columns["reward"])
    print(f"evaluating {drawn:,} samples; the votes take longest", file=sys.stderr)
    smallest = min(len(pool.columns["reward"][0]) for pool in pools.values())
    write_pool_report(pools, page, csv_folder=csv_folder, ks=check_ks(ks, smallest), solved_at=solved_at)


def _names(paths: Sequence[Path]) -> list[str]:
    """The files' names without their ending, or the whole paths where two would be the same."""
    stems = [path.stem for path in paths]
    if len({str(path) for path in paths}) < len(paths):
        twice = next(path for path in paths if list(paths).count(path) > 1)
        raise BontuneError(f"{twice} is given twice.")
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def watch_runs(
    path: Annotated[Path, typer.Argument(metavar="RUN | FOLDER", help="A run folder, or a folder that holds runs.")],
    port: Annotated[int, typer.Option(help="Serve at this port of this machine; 0: any free one.")] = 8123,
) -> None:
    """Show a run while it trains, or all runs of a folder, as a page that keeps itself up to date.

    Example: bontune watch runs
    """
    from bontune.report.runs_page import serve

    serve(path, port, on_ready=lambda address: typer.echo(f"{address}  (Ctrl-C ends it)"))
