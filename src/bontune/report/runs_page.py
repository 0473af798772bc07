"""The pages of several runs: side by side, a folder of them, and any of these while it trains."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

from bontune.base.errors import BontuneError
from bontune.base.signals import StopSignals
from bontune.metrics.evaluation import share_families
from bontune.objectives.budgets import budgets_at, in_words, largest_budget
from bontune.report.numbers import (
    NOT_MEASURED,
    budget_for,
    capitalized,
    counted,
    ends_text,
    metric_writer,
    sorted_metrics,
    split_metric,
    with_unit,
)
from bontune.report.page import facts, render, write_page
from bontune.report.run_page import RunRecord, metric_cells, read_run, run_page, training_picture, write_run_report
from bontune.report.style import looks
from bontune.report.tables import Cell, Table
from bontune.training.read_log import LOCK, METRICS, mapping

REFRESH_S = 10


# ---- several runs ----


def write_runs_report(folders: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> Path:
    """Write the page of one run or of several: training curves, last evaluations, and where the recipes differ.

    Args:
        folders: of the runs.
        path: where to write; missing parent folders are made.

    Returns:
        The path.

    Raises:
        BontuneError: no such folder, a damaged ``metrics.jsonl`` or ``recipe.yaml``, one run twice, or the page cannot
            be written.
    """
    if len(folders) == 1:
        return write_run_report(folders[0], path)
    names = _distinct_names([Path(folder) for folder in folders])
    runs = [read_run(Path(folder), name, is_strict=True) for folder, name in zip(folders, names, strict=True)]
    metrics = sorted_metrics(metric for run in runs for row in run.evaluations[-1:] for metric in row["metrics"])
    context = {
        "title": f"Runs {', '.join(names)}",
        "heading": f"Runs {', '.join(names)}",
        "headline": _runs_headline(runs, metrics),
        "figure": training_picture(runs) if any(run.steps for run in runs) else None,
        "evaluations": _last_evaluations(runs, metrics) if metrics else None,
        "recipes": _differing_keys(runs),
    }
    return write_page("runs.html.jinja", path, context)


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        twice = next(f for f, r in zip(folders, resolved, strict=True) if resolved.count(r) > 1)
        raise BontuneError(f"{twice} is given twice.")
    names = [folder.name for folder in resolved]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _runs_headline(runs: Sequence[RunRecord], metrics: Sequence[str]) -> str:
    families = [split_metric(metric)[0] for metric in metrics]
    family = "pass" if "pass" in families else "max"
    chosen = [metric for metric in metrics if split_metric(metric)[0] == family] or list(metrics)
    shared = [metric for metric in chosen if all(run.last(metric) is not None for run in runs)]
    if not metrics:
        return f"{counted(len(runs), 'run')}, none of them evaluated{'' if _are_finished(runs) else ' yet'}."
    if not shared:
        return f"{counted(len(runs), 'run')}, which are not all evaluated in one metric yet."
    ks = [k for metric in shared if (k := split_metric(metric)[1])]
    trained_ns = [run.n for run in runs if run.n is not None]
    n = min(trained_ns) if len(trained_ns) == len(runs) else None
    metric = f"{family}@{budget_for(ks, n)}" if ks and family in families else shared[-1]
    last = {run.name: interval for run in runs if (interval := run.last(metric)) is not None}
    is_share = split_metric(metric)[0] in share_families(metrics)
    write, unit = metric_writer(is_share), " %" if is_share else ""
    parts = []
    for name, interval in last.items():
        ends = ends_text(interval, write, "–")
        parts.append(f"{write(interval.value)}{unit} for {name}" + (f" ({ends})" if ends else ""))
    start = f"At the last evaluation, {metric} is {', '.join(parts)}"
    if any(math.isnan(interval.low) for interval in last.values()):
        return f"{start}; without intervals, the difference may be chance."
    if max(i.low for i in last.values()) <= min(i.high for i in last.values()):
        return f"{start}; no clear difference, as the 95 % intervals overlap."
    return f"{start}; not all of the 95 % intervals overlap."


def _are_finished(runs: Sequence[RunRecord]) -> bool:
    return all(run.is_finished for run in runs)


def _last_evaluations(runs: Sequence[RunRecord], metrics: Sequence[str]) -> Table:
    shares = share_families(metrics)
    look = looks({run.name: run.family for run in runs})
    rows: list[list[Cell | str]] = []
    for run in runs:
        last: Mapping[str, Any] = run.evaluations[-1] if run.evaluations else {}
        step = f"{last['step']:g}" if last else NOT_MEASURED
        rows.append([run.name, step, *metric_cells(last, metrics, shares)])
    heads = [with_unit(metric, is_share=split_metric(metric)[0] in shares) for metric in metrics]
    return Table(
        caption="The last evaluation of each run, with 95 % intervals where measured.",
        columns=["Run", "Step", *heads],
        rows=rows,
        colours={name: one.colour for name, one in look.items()},
    )


def _differing_keys(runs: Sequence[RunRecord]) -> Table:
    """The keys in which the recipes differ."""
    recipes = [dict(facts(run.recipe)) for run in runs]
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe))
    return Table(
        caption="Keys of the recipes that differ.",
        columns=["Key", *(run.name for run in runs)],
        rows=[
            [key, *(recipe.get(key, NOT_MEASURED) for recipe in recipes)]
            for key in keys
            if len({recipe.get(key) for recipe in recipes}) > 1
        ],
    )


# ---- a folder of runs ----


def runs_in(folder: Path) -> list[Path]:
    """The runs in a folder, the one that was written to last first."""
    return sorted((path.parent for path in folder.glob("*/recipe.yaml")), key=lambda run: -_last_written(run))


def _last_written(run: Path) -> float:
    files = [path for path in (run / METRICS, run / "recipe.yaml") if path.exists()]
    return max((path.stat().st_mtime for path in files), default=0.0)


def index_page(folder: Path, link: Callable[[Path], str], *, refresh: int | None = None) -> str:
    """The page of all runs of a folder: their key numbers, sortable, with links.

    Args:
        folder: holds the runs.
        link: the address of a run's page.
        refresh: seconds after which a browser asks again; None: never.

    Raises:
        BontuneError: the folder holds no run, or a damaged one.
    """
    runs = [read_run(run, run.name) for run in runs_in(folder)]
    if not runs:
        raise BontuneError(f"{folder} holds no run: no folder in it has a recipe.yaml.")
    last = [metric for run in runs for row in run.evaluations[-1:] for metric in mapping(row.get("metrics"))]
    names = sorted_metrics(name for name in last if split_metric(name)[1] is not None)
    rows = [
        {
            "name": run.name,
            "address": link(run.folder),
            "cells": [_sortable(*cell) for cell in _index_cells(run, names)],
        }
        for run in runs
    ]
    columns = ["run", "objective", "N", "model", "step", *names]
    return render(
        "index.html.jinja", {"title": f"Runs in {folder}", "columns": columns, "rows": rows, "refresh": refresh}
    )


def _sortable(text: str, order: Any = "") -> dict[str, Any]:
    return {"text": text, "order": order}


def _index_cells(run: RunRecord, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Each cell's text, and by what it is ordered if not by that."""
    n = run.objective.get("n")
    budgets = budgets_at(n) if isinstance(n, (int, Mapping)) and n != {} else None
    shares = share_families(mapping(run.evaluations[-1].get("metrics")) if run.evaluations else [])
    cells: list[tuple[Any, ...]] = [
        (str(run.objective.get("name", NOT_MEASURED)),),
        (NOT_MEASURED,) if budgets is None else (in_words(budgets), largest_budget(budgets)),
        (str(run.recipe.get("model", NOT_MEASURED)),),
        (f"{run.last_step:g} of {run.planned_steps or '?'}, {state_of(run)}", f"{run.last_step:g}"),
    ]
    for name in names:  # with its unit, as runs of one table may have rewards of either kind
        value, is_share = run.last(name), split_metric(name)[0] in shares
        if value is None:
            cells.append((NOT_MEASURED,))
        else:
            cells.append((metric_writer(is_share)(value.value) + (" %" if is_share else ""), value.value))
    return cells


# ---- while it trains ----


def state_of(run: RunRecord) -> str:
    """Say what a run is doing, with the time of its last step.

    Returns:
        Such as ``running, last step at 2026-11-30 14:05:12``; of one that was killed ``stopped, last step at …``.
    """
    metrics, last = run.folder / METRICS, ""
    if run.last_step and metrics.exists():
        last = f", last step at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(metrics.stat().st_mtime))}"
    if run.is_finished:
        return f"finished{last}"
    return f"{'running' if _is_held(run.folder / LOCK) else 'stopped' if run.last_step else 'not running'}{last}"


def _is_held(path: Path) -> bool:
    """Check whether a process holds the lock; it is released at once if none does."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def serve(path: Path, port: int, *, on_ready: Callable[[str], None]) -> None:
    """Serve the page of a run, or of a folder of runs, until a signal arrives; only this machine can see it.

    Args:
        path: a run, or a folder that holds runs.
        port: 0: any free one.
        on_ready: gets the address.

    Raises:
        BontuneError: the path is neither, or the port is taken.
        Interrupted: a signal arrived.
    """
    page_of(path, "/")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(path))
    except OSError as error:
        raise BontuneError(f"Port {port} cannot be used: {error.strerror}; give another --port.") from None
    server.timeout = 0.2
    with server, StopSignals() as signals:
        on_ready(f"http://127.0.0.1:{server.server_port}/")
        while True:
            server.handle_request()
            signals.poll()


def page_of(path: Path, address: str) -> str | None:
    """The page at an address below a run or a folder of runs; None if there is none.

    Raises:
        BontuneError: the path is neither, or something in it is damaged.
    """
    if (path / "recipe.yaml").is_file():
        return _live_page(path) if address == "/" else None
    if address == "/":
        return index_page(path, lambda run: f"/{quote(run.name)}", refresh=REFRESH_S)
    run = next((run for run in runs_in(path) if run.name == unquote(address.strip("/"))), None)
    return None if run is None else _live_page(run)


def _live_page(folder: Path) -> str:
    """The page of a run with what it is doing."""
    return run_page(folder, refresh=REFRESH_S, state=f"{capitalized(state_of(read_run(folder)))}.")


def _handler(path: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                page, status = page_of(path, self.path), 200
            except BontuneError as error:
                page, status = str(error), 500
            body = (page or "There is no such run.").encode("utf-8", errors="replace")
            self.send_response(status if page is not None else 404)
            kind = "text/html" if status == 200 and page is not None else "text/plain"
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
