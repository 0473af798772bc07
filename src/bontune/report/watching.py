"""Pages that are made anew whenever somebody looks: a run while it trains, and all runs of a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import yaml

from bontune.base.errors import BontuneError
from bontune.base.signals import StopSignals
from bontune.metrics.evaluation import share_families
from bontune.objectives.budgets import budgets_at, in_words, largest_budget
from bontune.report.html import run_page
from bontune.report.liveness import state_of
from bontune.report.page import render
from bontune.report.read import evaluations_of, finite, mapping, read_metrics, rows_of_kind
from bontune.report.wording import NOT_MEASURED, capitalized, in_order, split_metric, written

REFRESH_S = 10


def runs_in(folder: Path) -> list[Path]:
    """The runs in a folder, the one that was written to last first."""
    found = [path.parent for path in folder.glob("*/recipe.yaml")]
    return sorted(found, key=lambda run: -_last_written(run))


def _last_written(run: Path) -> float:
    files = [path for path in (run / "metrics.jsonl", run / "recipe.yaml") if path.exists()]
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
    runs = runs_in(folder)
    if not runs:
        raise BontuneError(f"{folder} holds no run: no folder in it has a recipe.yaml.")
    evaluations = {run: evaluations_of(_metrics(run)) for run in runs}
    last = {run: mapping(rows[-1].get("metrics")) if rows else {} for run, rows in evaluations.items()}
    names = in_order(name for metrics in last.values() for name in metrics if split_metric(name)[1] is not None)
    rows = [_index_row(run, last[run], names, link(run)) for run in runs]
    columns = ["run", "objective", "N", "model", "step", *names]
    return render(
        "index.html.jinja", {"title": f"Runs in {folder}", "columns": columns, "rows": rows, "refresh": refresh}
    )


def recipe_of(run: Path) -> dict[str, Any]:
    """A run's recipe, as far as it can be read; its sections are mappings."""
    try:
        recipe = mapping(yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError):
        recipe = {}
    return dict(recipe) | {name: mapping(recipe.get(name)) for name in ("objective", "training")}


def _index_row(run: Path, metrics: Any, names: Sequence[str], address: str) -> dict[str, Any]:
    recipe = recipe_of(run)
    objective, training = recipe["objective"], recipe["training"]
    steps = rows_of_kind(_metrics(run), "step")
    done = f"{steps[-1]['step']:g}" if steps else "0"
    state = state_of(run, steps[-1]["step"] if steps else 0, training.get("steps"))
    shares = share_families(metrics)
    values = [(finite(metrics.get(name)), split_metric(name)[0] in shares) for name in names]
    cells = [
        {"text": str(objective.get("name", NOT_MEASURED)), "order": ""},
        _budget_cell(objective.get("n")),
        {"text": str(recipe.get("model", NOT_MEASURED)), "order": ""},
        {"text": f"{done} of {training.get('steps', '?')}, {state}", "order": done},
        *(
            {"text": _written(value, is_share=is_share), "order": "" if value is None else value}
            for value, is_share in values
        ),
    ]
    return {"name": run.name, "address": address, "cells": cells}


def _budget_cell(n: Any) -> dict[str, Any]:
    """The cell of N; several budgets with their weights at the end of the training, ordered by the largest."""
    if not isinstance(n, (int, Mapping)) or n == {}:
        return {"text": NOT_MEASURED, "order": ""}
    return {"text": in_words(budgets_at(n)), "order": largest_budget(budgets_at(n))}


def _written(value: float | None, *, is_share: bool) -> str:
    """A metric with its unit: runs of one table may have rewards of either kind."""
    return written(value, is_share=is_share) + (" %" if is_share and value is not None else "")


def _metrics(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return read_metrics(path) if path.exists() else []


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
        raise BontuneError(f"port {port} cannot be used: {error.strerror}; give another --port.") from None
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


def _live_page(run: Path) -> str:
    """The page of a run with what it is doing."""
    steps = rows_of_kind(_metrics(run), "step")
    state = state_of(run, steps[-1]["step"] if steps else 0, recipe_of(run)["training"].get("steps"))
    return run_page(run, refresh=REFRESH_S, state=f"{capitalized(state)}.")


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
