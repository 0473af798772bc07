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
from bontune.base.text import as_csv
from bontune.config import is_run
from bontune.metrics.evaluation import MEANINGS, Evaluation, as_json, evaluate_pool, share_families, under_shared_names
from bontune.pools import compare
from bontune.pools.compare import parse_ks
from bontune.pools.pool import Pool
from bontune.pools.read import read_pool
from bontune.report.numbers import capitalized, metric_writer, sorted_metrics, split_metric, unit_of, with_unit
from bontune.report.read import finite, read_metrics, rows_of_kind
from bontune.report.sentences import scale_note


def run_eval(paths: Sequence[Path], ks: str | None, out: Path | None, solved_at: float | None = None) -> None:
    """``bontune eval``: metrics of each pool, and paired differences to the first; of a run its evaluations.

    Args:
        paths: pools, or runs.
        ks: budgets, like ``1,4,16``.
        out: file for the numbers.
        solved_at: reward from which on a sample counts as solved; see :func:`bontune.metrics.reward_scale`.

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
    scale = metrics.reward_scale((pool.columns["reward"] for pool in pools.values()), solved_at)
    evaluations = {name: _evaluate(name, pool, ks, scale) for name, pool in pools.items()}
    first, *others = evaluations
    found = {other: _differences(evaluations, first, other) for other in others}
    console = Console(markup=False, emoji=False)
    result: dict[str, Any] = {"pools": {}, "differences": []}
    for name, evaluation in evaluations.items():
        intervals = evaluation.intervals()
        result["pools"][name] = {"problems": len(evaluation.problem_ids), "metrics": as_json(intervals)}
        console.print(*_metrics_tables(_title(name, pools[name]), _shown(intervals)), sep="\n")
    for other, of in found.items():
        shown = _shown({d.metric: d for d in of})
        console.print(*_metrics_tables(f"{other} − {first}, paired", shown, sign="+"), sep="\n")
        if all(d.low is None for d in of):
            console.print(f"{capitalized(of[0].why_unknown)}.", highlight=False)
        result["differences"] += [
            {"a": d.a, "b": d.b, "metric": d.metric, "diff": d.value, "low": d.low, "high": d.high} for d in of
        ]
    if note := scale_note(scale):
        console.print(note, highlight=False)
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
    names = dict.fromkeys(name for e in evaluations for name in _shown(e.values))
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
        metrics_of = under_shared_names([row["metrics"] for row in rows])
        names = sorted_metrics(name for found in metrics_of for name in found if "@" in name)
        shares = share_families(names)
        if not rows:
            console.print(f"{run} has no evaluations yet: set eval.every", markup=False)
        for start in range(0, len(names), 5):  # what fits 80 columns
            title = None if start else f"{run}: evaluations during training"
            shown = [(name, split_metric(name)[0] in shares) for name in names[start : start + 5]]
            heads = [with_unit(name, is_share=is_share) for name, is_share in shown]
            table = Table("step", *heads, title=title, title_justify="left")
            for row, found in zip(rows, metrics_of, strict=True):
                cells = [metric_writer(is_share)(finite(found.get(name))) for name, is_share in shown]
                table.add_row(str(row["step"]), *cells)
            console.print(table)


def _evaluate(path: str, pool: Pool, ks: str | None, scale: metrics.RewardScale) -> Evaluation:
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
            pool.columns["reward"],
            budgets,
            scores_PM=pool.scores(),
            answers_PM=pool.answers() or pool.columns.get("answer"),
            is_full=True,
            scale=scale,
        )
    except ValueError as error:  # what a pool of other origin may hold, such as answers that cannot be compared
        raise BontuneError(f"{path} cannot be evaluated: {error}") from None
    if note := pool.ungraded(path):
        print(f"warning: {note}", file=sys.stderr)
    return evaluation


def _metrics_tables(title: str, intervals: dict[str, Any], sign: str = "") -> list[Table]:
    """Budgets down, metrics across, as many a table as fit 80 columns; the ones without a budget below the last.

    ``sign`` "+" shows the sign of differences.
    """
    shares = share_families(intervals)
    families = list(dict.fromkeys(name.partition("@")[0] for name in intervals if "@" in name))
    ks = list(dict.fromkeys(name.partition("@")[2] for name in intervals if "@" in name))
    across = 3 if set(families) <= shares or not sign else 2
    tables = []
    for start in range(0, max(len(families), 1), across):
        table = Table(title=None if start else title, title_justify="left", caption_justify="left")
        table.add_column("k", justify="right")
        for family in families[start : start + across]:
            table.add_column(f"{family}@k, {unit_of(family in shares)}", justify="right")
        for k in ks:
            cells = []
            for family in families[start : start + across]:
                factor, digits = (100, ".1f") if family in shares else (1, ".3f")
                found = intervals.get(f"{family}@{k}")
                cells.append("" if found is None else _with_bounds(found, factor, f"{sign}{digits}"))
            table.add_row(k, *cells)
        tables.append(table)
    rest = [(name, i) for name, i in intervals.items() if "@" not in name]
    tables[-1].caption = "   ".join(f"{name} {_with_bounds(i, 1, f'{sign}.2f')}" for name, i in rest)
    return tables


def _with_bounds(interval: Any, scale: int, digits: str) -> str:
    ends = [] if interval.low is None else [interval.low, interval.high]
    value, *bounds = (_signless_zero(format(scale * x, digits)) for x in (interval.value, *ends))
    return value if set(bounds) <= {value} else f"{value} [{', '.join(bounds)}]"


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
