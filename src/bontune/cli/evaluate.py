"""``bontune eval``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import bontune.metrics as metrics
from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.base.tables import as_csv
from bontune.config import is_run
from bontune.metrics import Interval
from bontune.metrics.evaluation import MEANINGS, Evaluation, as_json, evaluate_pool
from bontune.pools import compare
from bontune.pools.budgets import parse_ks
from bontune.pools.pool import Pool
from bontune.pools.read import read_pool
from bontune.report.read import read_metrics, rows_of_kind


def run_eval(paths: Sequence[Path], ks: str | None, out: Path | None) -> None:
    """``bontune eval``: metrics of each pool, and paired differences to the first; of a run its evaluations.

    Raises:
        BontuneError: no pool, a budget above its samples, pools of different problems, or runs mixed with pools.
    """
    if out is not None and out.suffix not in (".json", ".csv"):
        raise BontuneError(f"--out ends in .json or .csv, got {out.name!r}.")
    runs = [path for path in paths if is_run(path)]
    if runs:
        _show_runs(runs, paths, out)
        return
    pools = {str(path): read_pool(path, has_texts=False, is_even=False) for path in paths}
    evaluations = {name: _evaluate(name, pool, ks) for name, pool in pools.items()}
    first, *others = evaluations
    found = {other: _differences(evaluations, first, other) for other in others}
    console = Console(markup=False, emoji=False)
    result: dict[str, Any] = {"pools": {}, "differences": []}
    for name, evaluation in evaluations.items():
        intervals = evaluation.intervals()
        result["pools"][name] = {"problems": len(evaluation.problem_ids), "metrics": as_json(intervals)}
        console.print(*_metrics_tables(_title(name, pools[name]), _shown(intervals)), sep="\n")
    for other, of in found.items():
        shown = {d.metric: Interval(value=d.value, low=d.low or 0.0, high=d.high or 0.0) for d in of}
        console.print(*_metrics_tables(f"{other} − {first}, paired", _shown(shown), sign="+"), sep="\n")
        result["differences"] += [
            {"a": d.a, "b": d.b, "metric": d.metric, "diff": d.value, "low": d.low, "high": d.high} for d in of
        ]
    _explain(console, evaluations.values())
    if out is not None:
        _write(out, result)


def _differences(evaluations: dict[str, Evaluation], first: str, other: str) -> list[compare.Difference]:
    try:
        return compare.differences({first: evaluations[first], other: evaluations[other]})
    except ValueError as error:
        raise BontuneError(f"{other} and {first}: {error}") from None


def _title(name: str, pool: Pool) -> str:
    """What a pool is: its size, and what it was drawn from and with, as far as it says."""
    settings = pool.settings
    parts = [f"{name}: {len(pool.problem_ids)} problems × {len(pool.columns['reward'][0])} samples"]
    if settings.get("model"):
        split = f", {settings['split']}" if settings.get("split") else ""
        parts.append(f"{settings['model']} on {settings.get('task', '?')}{split}")
    parts += [f"T = {settings['temperature']:g}"] if "temperature" in settings else []
    parts += [f"verifier {settings['verifier']}"] if settings.get("verifier") else []
    return "\n".join([parts[0], ", ".join(parts[1:])]).strip()


def _shown(intervals: dict[str, Any]) -> dict[str, Any]:
    """Without best@k where it is pass@k, because the verifier is the reward itself."""
    is_oracle = not any(name.startswith("gap@") for name in intervals)
    return {name: i for name, i in intervals.items() if not (is_oracle and name.startswith("best@"))}


def _explain(console: Console, evaluations: Iterable[Evaluation]) -> None:
    """Say what the columns are."""
    names = dict.fromkeys(name for e in evaluations for name in _shown(e.intervals()))
    for family in dict.fromkeys(name.partition("@")[0] for name in names):
        at = "@k" if f"{family}@" in " ".join(names) else ""
        console.print(f"{family}{at}: {MEANINGS[family]}", style="dim", highlight=False)


def _show_runs(runs: Sequence[Path], paths: Sequence[Path], out: Path | None) -> None:
    """The evaluations that runs have made of themselves, one a row."""
    if len(runs) < len(paths) or out is not None:
        raise BontuneError(
            f"{runs[0]} is a run: `bontune eval` shows its evaluations, but neither beside pools nor into a file; draw "
            f"a pool with `bontune sample {runs[0]} TASK`, or compare runs with `bontune compare`."
        )
    console = Console(markup=False, emoji=False)
    for run in runs:
        rows = rows_of_kind(read_metrics(run / "metrics.jsonl"), "eval")
        names = [name for name in (rows[-1]["metrics"] if rows else ()) if "@" in name]
        if not rows:
            console.print(f"{run} has no evaluations yet: set eval.every", markup=False)
        for start in range(0, len(names), 5):  # what fits 80 columns
            title = None if start else f"{run}: evaluations during training"
            table = Table("step", *names[start : start + 5], title=title, title_justify="left")
            for row in rows:
                table.add_row(str(row["step"]), *(f"{row['metrics'][name]:.3f}" for name in names[start : start + 5]))
            console.print(table)


def _evaluate(path: str, pool: Pool, ks: str | None) -> Evaluation:
    """The metrics of one pool."""
    sizes = {len(row) for row in pool.columns["reward"]}
    num_samples = min(sizes)
    if len(sizes) > 1:
        print(
            f"warning: {path}: problems have {num_samples} to {max(sizes)} samples; k ends at {num_samples}",
            file=sys.stderr,
        )
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
            is_full=True,
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
    is_share = "pass" in {name.partition("@")[0] for name in intervals}
    scale, digits, unit = (100, ".1f", ", %") if is_share else (1, ".3f", "")
    families = list(dict.fromkeys(name.partition("@")[0] for name in intervals if "@" in name))
    ks = list(dict.fromkeys(name.partition("@")[2] for name in intervals if "@" in name))
    tables = []
    for start in range(0, max(len(families), 1), 3):
        table = Table(title=None if start else title, title_justify="left", caption_justify="left")
        table.add_column("k", justify="right")
        for family in families[start : start + 3]:
            table.add_column(f"{family}@k{unit}", justify="right")
        for k in ks:
            cells = [intervals[f"{family}@{k}"] for family in families[start : start + 3]]
            table.add_row(k, *(_with_bounds(i, scale, f"{sign}{digits}") for i in cells))
        tables.append(table)
    rest = [(name, i) for name, i in intervals.items() if "@" not in name]
    tables[-1].caption = "   ".join(f"{name} {_with_bounds(i, 1, f'{sign}.2f')}" for name, i in rest)
    return tables


def _with_bounds(interval: Any, scale: int, digits: str) -> str:
    value, low, high = (
        _signless_zero(format(scale * x, digits)) for x in (interval.value, interval.low, interval.high)
    )
    return value if value == low == high else f"{value} [{low}, {high}]"


def _signless_zero(text: str) -> str:
    return text.lstrip("+-") if not text.strip("+-0.") else text


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
