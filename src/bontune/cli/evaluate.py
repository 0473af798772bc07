"""Prints the metrics of pools and runs: the command ``bontune eval``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.cli import options as shared
from bontune.cli.terminal import console, warn
from bontune.report.numbers import (
    Measured,
    capitalized,
    change_writer,
    decimals,
    family_unit,
    family_writer,
    interval_text,
    metric_writer,
    sorted_metrics,
    split_metric,
    with_unit,
)
from bontune.report.tables import Table, as_csv, measured_cell

if TYPE_CHECKING:
    from bontune.metrics import RewardScale
    from bontune.metrics.evaluation import Evaluation
    from bontune.pools.compare import Difference
    from bontune.pools.pool import Pool


def evaluate_pools(
    pools: Annotated[list[Path], typer.Argument(help="Pools; the first is what the others are compared with.")],
    k: shared.Budgets = None,
    solved_at: shared.SolvedAt = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the numbers to this .json or .csv.")] = (
        None
    ),
) -> None:
    """Print every metric of a pool with 95 % intervals, and paired differences between pools."""
    if out is not None and out.suffix not in (".json", ".csv"):
        raise BontuneError(f"--out ends in .json or .csv, got {out.name!r}.")
    shared.require_there(pools)
    from bontune.config import is_run

    runs = [path for path in pools if is_run(path)]
    if runs:
        _show_runs(runs, pools, out)
    else:
        _show_pools(pools, k, out, solved_at)


def _show_pools(paths: Sequence[Path], ks: str | None, out: Path | None, solved_at: float | None) -> None:
    """Print the metrics of each pool, and paired differences to the first.

    Raises:
        BontuneError: no pool, a budget above its samples, or pools of different problems.
    """
    from bontune.metrics import reward_scale
    from bontune.metrics.evaluation import as_json
    from bontune.pools.chance import needs_texts
    from bontune.pools.read import read_pool
    from bontune.report.failures import endings_note
    from bontune.report.sentences import chance_notes, has_chance, scale_note

    pools = {str(path): read_pool(path, has_texts=False, is_even=False) for path in paths}
    pools |= {name: read_pool(Path(name), is_even=False) for name, pool in pools.items() if needs_texts(pool)}
    scale = reward_scale((pool.columns["reward"] for pool in pools.values()), solved_at)
    evaluations = {name: _evaluate(name, pool, ks, scale) for name, pool in pools.items()}
    first, *others = evaluations
    found = {other: _differences(evaluations, first, other) for other in others}
    result: dict[str, Any] = {"pools": {}, "differences": []}
    intervals = {name: evaluation.intervals() for name, evaluation in evaluations.items()}
    is_chance_shown = any(map(has_chance, intervals.values()))
    for name, of_pool in intervals.items():
        result["pools"][name] = {"problems": len(evaluations[name].problem_ids), "metrics": as_json(of_pool)}
        _print_metrics(_title(name, pools[name]), _shown(of_pool, is_chance_shown))
        if note := endings_note(pools[name]):
            console().print(note)
    for other, of in found.items():
        shown = _shown({d.metric: d for d in of}, is_chance_shown)
        _print_metrics(f"{other} − {first}, paired", shown, are_differences=True)
        if all(d.low is None for d in of):
            console().print(f"{capitalized(of[0].why_unknown)}.")
        result["differences"] += [
            {"a": d.a, "b": d.b, "metric": d.metric, "diff": d.value, "low": d.low, "high": d.high} for d in of
        ]
    both = {name: (evaluations[name], of_pool) for name, of_pool in intervals.items()}
    for note in (*chance_notes(both), scale_note(scale)):
        if note:
            console().print(note)
    _explain(evaluations.values(), is_chance_shown)
    if out is not None:
        _write(out, result)


def _differences(evaluations: dict[str, Evaluation], first: str, other: str) -> list[Difference]:
    from bontune.pools import compare

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


def _shown(intervals: Mapping[str, Any], is_chance_shown: bool) -> dict[str, Any]:
    """Without best@k where it is pass@k, because the verifier is the reward itself, and without a chance level of 0."""
    is_oracle = not any(name.startswith("gap@") for name in intervals)
    hidden = (*(["best@"] if is_oracle else []), *([] if is_chance_shown else ["chance@", "above@"]))
    return {name: i for name, i in intervals.items() if not name.startswith(hidden)}


def _explain(evaluations: Iterable[Evaluation], is_chance_shown: bool) -> None:
    """Print what each column means."""
    from bontune.metrics.evaluation import MEANINGS

    names = dict.fromkeys(name for e in evaluations for name in _shown(e.values, is_chance_shown))
    for family in dict.fromkeys(name.partition("@")[0] for name in names):
        at = "@k" if f"{family}@" in " ".join(names) else ""
        console().print(f"{family}{at}: {MEANINGS[family]}", style="dim")


def _show_runs(runs: Sequence[Path], paths: Sequence[Path], out: Path | None) -> None:
    """Print the evaluations that runs have made of themselves, one a row.

    Raises:
        BontuneError: runs are mixed with pools, or are to be written into a file.
    """
    from bontune.metrics.evaluation import share_families, under_shared_names
    from bontune.training.read_log import finite, read_metrics, rows_of_kind

    if len(runs) < len(paths) or out is not None:
        raise BontuneError(
            f"{runs[0]} is a run: `bontune eval` shows its evaluations, but neither beside pools nor into a file; draw "
            f"a pool with `bontune sample {runs[0]} TASK`, or compare runs with `bontune compare`."
        )
    for run in runs:
        rows = rows_of_kind(read_metrics(run / "metrics.jsonl"), "eval")
        metrics_of = under_shared_names([row["metrics"] for row in rows])
        names = sorted_metrics(name for values in metrics_of for name in values if "@" in name)
        shares = share_families(names)
        if not rows:
            console().print(f"{run} has no evaluations yet: set eval.every")
        for start in range(0, len(names), 5):  # what fits 80 columns
            shown = [(name, split_metric(name)[0] in shares) for name in names[start : start + 5]]
            table = Table(
                columns=("step", *(with_unit(name, is_share=is_share) for name, is_share in shown)),
                rows=[
                    (str(row["step"]), *(metric_writer(is_share)(finite(values.get(name))) for name, is_share in shown))
                    for row, values in zip(rows, metrics_of, strict=True)
                ],
                title="" if start else f"{run}: evaluations during training",
            )
            console().print(table.terminal())


def _evaluate(path: str, pool: Pool, ks: str | None, scale: RewardScale) -> Evaluation:
    """Compute the metrics of one pool.

    Raises:
        BontuneError: a budget above the pool's samples, or a pool that cannot be evaluated.
    """
    from bontune.metrics import default_ks
    from bontune.metrics.evaluation import evaluate_pool
    from bontune.pools.chance import with_chance
    from bontune.pools.compare import parse_ks

    sizes = {len(row) for row in pool.columns["reward"]}
    num_samples = min(sizes)
    if len(sizes) > 1:
        warn(f"{path}: problems have {num_samples} to {max(sizes)} samples; k ends at {num_samples}")
    budgets = default_ks(num_samples) if ks is None else parse_ks(ks)
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
        warn(note)
    scores = pool.scores()
    if scores is not None and all(score == -math.inf for row in scores for score in row):
        warn(f"{path}: the verifier scored no completion, so that best@k picks at random; score it again.")
    return with_chance(evaluation, pool, scale)


def _print_metrics(title: str, intervals: Mapping[str, Measured], *, are_differences: bool = False) -> None:
    """Print budgets down and metrics across, as many a table as fit 80 columns; those without a budget come below."""
    from bontune.metrics.evaluation import share_families

    shares = share_families(intervals)
    families = list(dict.fromkeys(name.partition("@")[0] for name in intervals if "@" in name))
    ks = list(dict.fromkeys(name.partition("@")[2] for name in intervals if "@" in name))
    across = 3 if set(families) <= shares or not are_differences else 2
    others = [(name, interval) for name, interval in intervals.items() if "@" not in name]
    plain = _signed if are_differences else decimals(2)
    caption = "   ".join(f"{name} {interval_text(interval, plain)}" for name, interval in others)
    write = {
        family: change_writer(family in shares) if are_differences else family_writer(family, family in shares)
        for family in families
    }
    for start in range(0, max(len(families), 1), across):
        shown = families[start : start + across]
        table = Table(
            columns=("k", *(f"{family}@k, {family_unit(family, family in shares)}" for family in shown)),
            rows=[(k, *(measured_cell(intervals.get(f"{f}@{k}"), write[f], missing="") for f in shown)) for k in ks],
            title="" if start else title,
            caption=caption if start + across >= len(families) else "",
        )
        console().print(table.terminal())


def _signed(value: float | None) -> str:
    text = f"{value:+.2f}"
    return text if text.strip("+-0.") else "0.00"


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
