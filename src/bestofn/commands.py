"""What the commands do, without the command line."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from bestofn.config import apply_overrides, load_recipe
from bestofn.errors import BestofnError, Interrupted
from bestofn.sampling.samples import SamplingOptions

if TYPE_CHECKING:
    from bestofn.evaluation import Evaluation


def quiet_libraries() -> None:
    """No progress bars of other libraries between ours."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def run_train(recipe: str, overrides: Sequence[str]) -> None:
    """``bestofn train``."""
    settings = load_recipe(recipe, overrides)
    quiet_libraries()
    from bestofn.training.trainer import Trainer

    trainer = Trainer(settings)
    trainer.train()
    if trainer.is_main:
        print(f"{settings.run}/model holds the model, {settings.run}/report.html the report.")
    trainer.accelerator.end_training()


def run_sample(
    model_name: str, task_name: str, task_options: Sequence[str], drawing: SamplingOptions, *,
    out: Path, split: str, limit: int | None, verifier: str, seed: int,
) -> None:  # fmt: skip
    """``bestofn sample``: collect a pool, or go on with one that was begun."""
    import dataclasses

    from bestofn.models import load_model
    from bestofn.sampling.collect import collect
    from bestofn.sampling.pool import PoolWriter, rows_of
    from bestofn.sampling.transformers import TransformersSampler, encode_prompts
    from bestofn.tasks import load_task
    from bestofn.training.interrupts import StopSignals
    from bestofn.verifiers import load_verifier

    task = load_task(task_name, **apply_overrides({}, task_options))
    judge = load_verifier("python", verifier) if ":" in verifier else load_verifier(verifier)
    problems = task.problems(split)[:limit]
    if not problems:
        raise BestofnError(f"Split {split!r} of task {task_name} has no problems.")
    options = dataclasses.replace(drawing, stop=task.stop)
    settings: dict[str, Any] = {
        "model": model_name, "task": task_name, "task_options": list(task_options), "split": split, "limit": limit,
        "verifier": judge.name, "seed": seed, **dataclasses.asdict(options),
    }  # fmt: skip
    writer = PoolWriter(out, settings)
    quiet_libraries()
    model, tokenizer = load_model(model_name, device=best_device())
    encode_prompts(model, tokenizer, [p.prompt for p in problems], options.max_new_tokens)  # all fit, or none
    if writer.done:
        print(f"{len(writer.done)} of {len(problems)} problems are already there", file=sys.stderr)
    batch_size = max(1, min(64, 4096 // options.num_samples))
    # A batch is drawn again as a whole if a problem of it is missing: in other company the last bits would differ.
    groups = [problems[start : start + batch_size] for start in range(0, len(problems), batch_size)]
    left = [problem for group in groups if any(p.id not in writer.done for p in group) for problem in group]
    with StopSignals() as signals:
        batches = collect(
            TransformersSampler(model, tokenizer), task, judge, left, options,
            key=(seed, "pool"), batch_size=batch_size, poll=signals.poll,
        )  # fmt: skip
        try:
            total = -(-len(left) // batch_size)
            for graded in track(batches, total=total, description="sampling", console=Console(stderr=True)):
                writer.add(rows_of(graded))
        except Interrupted:
            writer.close()
            print(f"stopped by a signal; the same command continues with {writer.partial}", file=sys.stderr)
            raise
    num_errors = writer.finish(problem.id for problem in problems)
    print(f"{out}: {len(problems)} problems × {options.num_samples} samples")
    if num_errors:
        print(f"warning: {num_errors} completions could not be graded (verdict grader_error)", file=sys.stderr)


def run_eval(paths: Sequence[Path], ks: str | None, out: Path | None) -> None:
    """``bestofn eval``: metrics of each pool, and paired differences to the first."""
    from bestofn.evaluation import as_json

    if out is not None and out.suffix not in (".json", ".csv"):
        raise BestofnError(f"--out ends in .json or .csv, got {out.name!r}.")
    evaluations = {str(path): _evaluate(path, ks) for path in paths}
    console = Console()
    result: dict[str, Any] = {"pools": {}, "differences": []}
    for name, evaluation in evaluations.items():
        intervals = evaluation.intervals()
        result["pools"][name] = {"problems": len(evaluation.problem_ids), "metrics": as_json(intervals)}
        console.print(_metrics_table(f"{name}: {len(evaluation.problem_ids)} problems", intervals))
    first, *others = evaluations
    for other in others:
        shared = [m for m in evaluations[first].values if m in evaluations[other].values]
        try:
            differences = {m: evaluations[other].difference(evaluations[first], m) for m in shared}
        except ValueError as error:
            raise BestofnError(f"{other} and {first}: {error}") from None
        console.print(_metrics_table(f"{other} − {first}, paired", differences, sign="+"))
        result["differences"] += [
            {"a": other, "b": first, "metric": m, "diff": i.value, "low": i.low, "high": i.high}
            for m, i in differences.items()
        ]
    if out is not None:
        _write(out, result)


def _evaluate(path: Path, ks: str | None) -> Evaluation:
    """The metrics of one pool."""
    import bestofn.metrics as metrics
    from bestofn.evaluation import evaluate_pool
    from bestofn.sampling.pool import read_pool

    pool = read_pool(path)
    num_samples = len(pool.columns["reward"][0])
    budgets = metrics.default_ks(num_samples) if ks is None else _parse_ks(ks)
    if max(budgets) > num_samples:
        raise BestofnError(f"k = {max(budgets)} is more than the {num_samples} samples per problem of {path}.")
    try:
        evaluation = evaluate_pool(
            pool.problem_ids, pool.rewards(), budgets,
            scores_PM=pool.scores(), answers_PM=pool.columns.get("answer"), vote=True,
        )  # fmt: skip
    except ValueError as error:  # what a pool of other origin may hold, such as answers that cannot be compared
        raise BestofnError(f"{path} cannot be evaluated: {error}") from None
    if pool.num_grader_errors:
        print(
            f"warning: {path}: {pool.num_grader_errors} completions could not be graded; they count as wrong",
            file=sys.stderr,
        )
    return evaluation


def _parse_ks(text: str) -> list[int]:
    try:
        ks = [int(part) for part in text.split(",")]
    except ValueError:
        raise BestofnError(f"--k takes numbers like 1,4,16, got {text!r}.") from None
    if min(ks) < 1:
        raise BestofnError(f"--k takes numbers from 1 up, got {text!r}.")
    return ks


def _metrics_table(title: str, intervals: dict[str, Any], sign: str = "") -> Table:
    """Budgets down, metrics across; the ones without a budget below. ``sign`` "+" shows the sign of differences."""
    families = list(dict.fromkeys(name.partition("@")[0] for name in intervals if "@" in name))
    ks = list(dict.fromkeys(name.partition("@")[2] for name in intervals if "@" in name))
    table = Table(title=escape(title), title_justify="left", caption_justify="left")
    table.add_column("k", justify="right")
    for family in families:
        table.add_column(f"{family}@k, %", justify="right")
    for k in ks:
        cells = [intervals[f"{family}@{k}"] for family in families]
        table.add_row(k, *(_with_bounds(i, 100, f"{sign}.1f") for i in cells))
    rest = [(name, i) for name, i in intervals.items() if "@" not in name]
    table.caption = "   ".join(f"{name} {_with_bounds(i, 1, f'{sign}.2f')}" for name, i in rest)
    return table


def _with_bounds(interval: Any, scale: int, digits: str) -> str:
    value, low, high = (format(scale * x, digits) for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def _write(out: Path, result: dict[str, Any]) -> None:
    from bestofn.report.write import write_whole

    if out.suffix == ".json":
        text = json.dumps(result, indent=1)
    else:
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        writer.writerow(["pool", "minus", "metric", "value", "low", "high"])
        for name, pool in result["pools"].items():
            for metric, i in pool["metrics"].items():
                writer.writerow([name, "", metric, i["value"], i["low"], i["high"]])
        for d in result["differences"]:
            writer.writerow([d["a"], d["b"], d["metric"], d["diff"], d["low"], d["high"]])
        text = file.getvalue()
    write_whole(out, text.encode(), "numbers")


def show_problem(name: str, options: Sequence[str], split: str) -> None:
    """``bestofn tasks show``."""
    from bestofn.tasks import load_task

    task = load_task(name, **apply_overrides({}, options))
    problems = task.problems(split)
    print(f"{task.name}, split {split}: {len(problems)} problems (splits: {', '.join(task.splits)})")
    print(f"prompt:    {problems[0].prompt}")
    print(f"reference: {problems[0].reference}")


def best_device() -> str:
    """The first GPU, or the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
