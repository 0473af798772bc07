"""``bontune eval``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import bontune.metrics as metrics
from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.base.tables import as_csv
from bontune.metrics import Interval
from bontune.metrics.evaluation import Evaluation, as_json, evaluate_pool
from bontune.pools import compare
from bontune.pools.budgets import parse_ks
from bontune.pools.pool import read_pool


def run_eval(paths: Sequence[Path], ks: str | None, out: Path | None) -> None:
    """``bontune eval``: metrics of each pool, and paired differences to the first."""
    if out is not None and out.suffix not in (".json", ".csv"):
        raise BontuneError(f"--out ends in .json or .csv, got {out.name!r}.")
    evaluations = {str(path): _evaluate(path, ks) for path in paths}
    console = Console()
    result: dict[str, Any] = {"pools": {}, "differences": []}
    for name, evaluation in evaluations.items():
        intervals = evaluation.intervals()
        result["pools"][name] = {"problems": len(evaluation.problem_ids), "metrics": as_json(intervals)}
        console.print(*_metrics_tables(f"{name}: {len(evaluation.problem_ids)} problems", intervals), sep="\n")
    first, *others = evaluations
    for other in others:
        try:
            found = compare.differences({first: evaluations[first], other: evaluations[other]})
        except ValueError as error:
            raise BontuneError(f"{other} and {first}: {error}") from None
        shown = {d.metric: Interval(value=d.value, low=d.low or 0.0, high=d.high or 0.0) for d in found}
        console.print(*_metrics_tables(f"{other} − {first}, paired", shown, sign="+"), sep="\n")
        result["differences"] += [
            {"a": d.a, "b": d.b, "metric": d.metric, "diff": d.value, "low": d.low, "high": d.high} for d in found
        ]
    if out is not None:
        _write(out, result)


def _evaluate(path: Path, ks: str | None) -> Evaluation:
    """The metrics of one pool."""
    pool = read_pool(path)
    num_samples = len(pool.columns["reward"][0])
    budgets = metrics.default_ks(num_samples) if ks is None else parse_ks(ks)
    if max(budgets) > num_samples:
        raise BontuneError(f"k = {max(budgets)} is more than the {num_samples} samples per problem of {path}.")
    try:
        evaluation = evaluate_pool(
            pool.problem_ids,
            pool.rewards(),
            budgets,
            scores_PM=pool.scores(),
            answers_PM=pool.columns.get("answer"),
            vote=True,
        )
    except ValueError as error:  # what a pool of other origin may hold, such as answers that cannot be compared
        raise BontuneError(f"{path} cannot be evaluated: {error}") from None
    if note := pool.ungraded(path):
        print(f"warning: {note}", file=sys.stderr)
    return evaluation


def _metrics_tables(title: str, intervals: dict[str, Any], sign: str = "") -> list[Table]:
    """Budgets down, metrics across, three a table, which fit 80 columns; the ones without a budget below the last.

    ``sign`` "+" shows the sign of differences.
    """
    families = list(dict.fromkeys(name.partition("@")[0] for name in intervals if "@" in name))
    ks = list(dict.fromkeys(name.partition("@")[2] for name in intervals if "@" in name))
    tables = []
    for start in range(0, max(len(families), 1), 3):
        table = Table(title=None if start else escape(title), title_justify="left", caption_justify="left")
        table.add_column("k", justify="right")
        for family in families[start : start + 3]:
            table.add_column(f"{family}@k, %", justify="right")
        for k in ks:
            cells = [intervals[f"{family}@{k}"] for family in families[start : start + 3]]
            table.add_row(k, *(_with_bounds(i, 100, f"{sign}.1f") for i in cells))
        tables.append(table)
    rest = [(name, i) for name, i in intervals.items() if "@" not in name]
    tables[-1].caption = "   ".join(f"{name} {_with_bounds(i, 1, f'{sign}.2f')}" for name, i in rest)
    return tables


def _with_bounds(interval: Any, scale: int, digits: str) -> str:
    value, low, high = (format(scale * x, digits) for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def _write(out: Path, result: dict[str, Any]) -> None:
    if out.suffix == ".json":
        text = json.dumps(result, indent=1)
    else:
        rows = [
            {"pool": name, "minus": "", "metric": metric, "value": i["value"], "low": i["low"], "high": i["high"]}
            for name, pool in result["pools"].items()
            for metric, i in pool["metrics"].items()
        ]
        for d in result["differences"]:
            numbers = {"value": d["diff"], "low": d["low"], "high": d["high"]}
            rows.append({"pool": d["a"], "minus": d["b"], "metric": d["metric"], **numbers})
        text = as_csv(rows)
    write_whole(out, text, "numbers")
