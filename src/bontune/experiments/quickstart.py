"""The quickstart: one model, two ways to train it on equal generations, one table.

Evaluates the embedded base model, trains it by plain RL (``rloo``) and for Best-of-N (``bon_rl``), evaluates both on
the same test problems with as many samples, and writes table, pictures and report.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

import bontune.metrics as metrics
from bontune.base.errors import BontuneError, Interrupted
from bontune.base.signals import StopSignals
from bontune.config import Recipe, load_recipe
from bontune.engines.contract import SamplingOptions
from bontune.experiments.jobs import Job, num_cores, run_jobs
from bontune.pools.draw import PoolRequest, draw_pool

KS = [1, 4, 16, 32, 64]
ARMS = ("rloo", "bon_rl")
PAIRS = (("bon_rl", "base"), ("bon_rl", "rloo"), ("rloo", "base"))


def run_quickstart(out: Path, *, is_full: bool = False) -> dict[str, Any]:
    """Run it, or go on with one that was stopped, or show one that is complete.

    Args:
        out: folder for ``summary.json``, ``report.html``, the PNGs, the runs and the pools of samples.
        is_full: three seeds and twice the steps.

    Returns:
        The summary.

    Raises:
        BontuneError: ``out`` holds a quickstart with other settings.
        RunStopped: a training or a collection failed.
        Interrupted: a signal; the same command goes on from there.
    """
    from bontune.report.table import comparison_table, difference_table

    plan = _plan(out, is_full)
    summary = _finished(out, plan)
    if summary is None:
        started = time.monotonic()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BontuneError(f"The folder {out} cannot be made: {error.strerror}.") from None
        with StopSignals() as signals:
            try:
                _run(_jobs(out, plan), out, plan, signals.poll)
            except Interrupted:
                print("stopped by a signal; the same command goes on from there", file=sys.stderr)
                raise
        summary = _summarise(out, plan, time.monotonic() - started)
        _write_results(out, plan, summary)
    else:
        print(f"{out} is complete: this is what it measured. Delete the folder to run it again.", file=sys.stderr)
    console = Console()
    console.print(comparison_table(summary))
    differences = difference_table(summary)
    if differences is not None:
        console.print(differences)
    print(f"{summary['seconds']:.0f} s. Report: {out / 'report.html'}   Pictures and numbers: {out}")
    return summary


def _plan(out: Path, is_full: bool) -> dict[str, Any]:
    """Everything that decides the numbers, for the summary and to recognise a folder by."""
    overrides = ["eval.every=0", "training.checkpoint_every=25"]
    if is_full:
        overrides += ["training.steps=400", "kl.steps=400"]
    recipe = load_recipe("countdown", overrides)
    return {
        "mode": "full" if is_full else "quick",
        "seeds": [0, 1, 2] if is_full else [0],
        "samples": 64,
        "temperature": 1.0,
        "split": "test",
        "recipe": recipe.model_dump(mode="json", exclude={"run", "seed"}),
    }


def _recipe(out: Path, plan: Mapping[str, Any], arm: str, seed: int) -> Recipe:
    tree = json.loads(json.dumps(plan["recipe"]))
    tree["objective"]["name"] = arm
    return Recipe.from_dict(tree | {"seed": seed, "run": str(out / "runs" / f"{arm}-seed{seed}")})


def _finished(out: Path, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    path = out / "summary.json"
    if not path.is_file():
        return None
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if summary.get("settings") != json.loads(json.dumps(plan)):
        raise BontuneError(f"{out} holds a quickstart with other settings: give another --out, or delete it.")
    return summary


def _jobs(out: Path, plan: Mapping[str, Any]) -> list[Job]:
    """The trainings first, they are the longest; each is followed by its own evaluation."""
    shared = {"samples": plan["samples"], "temperature": plan["temperature"], "split": plan["split"]}
    jobs = [
        Job(
            name=f"{arm}-seed{seed}",
            function=train_and_sample,
            arguments={
                "recipe": _recipe(out, plan, arm, seed).model_dump(mode="json"),
                "pool": _pool(out, f"{arm}-seed{seed}"),
                **shared,
            },
            log=out / "runs" / f"{arm}-seed{seed}" / "log.txt",
        )
        for seed in plan["seeds"]
        for arm in ARMS
    ]
    base = Job(
        name="base",
        function=sample_pool,
        log=out / "runs" / "base.txt",
        arguments={"model": plan["recipe"]["model"], "pool": _pool(out, "base"), "recipe": plan["recipe"], **shared},
    )
    return [*jobs, base]


def _pool(out: Path, name: str) -> Path:
    return out / "pools" / f"{name}.parquet"


def train_and_sample(recipe: dict[str, Any], pool: Path, samples: int, temperature: float, split: str) -> None:
    """One arm, in a process of its own: train (or continue), then collect its pool."""
    from bontune.models import quiet_libraries
    from bontune.report.html import write_run_report
    from bontune.training.trainer import Trainer

    if pool.exists():
        return
    quiet_libraries()
    settings = Recipe.from_dict(recipe)
    Trainer(settings, is_quiet=True).train()
    write_run_report(Path(settings.run))
    sample_pool(str(Path(settings.run) / "model"), pool, recipe, samples, temperature, split)


def sample_pool(model: str, pool: Path, recipe: dict[str, Any], samples: int, temperature: float, split: str) -> None:
    """Collect one model's pool on the evaluation problems; every model gets the same seeds."""
    if pool.exists():
        return
    task = dict(recipe["task"])
    request = PoolRequest(
        model=model,
        task=task["name"],
        task_options={key: value for key, value in task.items() if key not in ("name", "split")},
        sampling=SamplingOptions(
            num_samples=samples, max_new_tokens=recipe["sampling"]["max_new_tokens"], temperature=temperature
        ),
        split=split,
    )
    with StopSignals() as signals:
        draw_pool(request, pool, poll=signals.poll)


def _run(jobs: list[Job], out: Path, plan: Mapping[str, Any], poll: Any) -> None:
    """Run the jobs with a board that shows each one's step and numbers."""
    console = Console(stderr=True)
    started = time.monotonic()
    workers = max(1, min(len(jobs), num_cores()))
    said = 0.0
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        for running in run_jobs(jobs, workers=workers, poll=poll):
            now = time.monotonic() - started
            if console.is_terminal:
                live.update(_board(jobs, running, out, plan, now))
            elif now - said > 15:
                said = now
                states = (f"{job.name} {_state(job, running, out, plan)[0]}" for job in jobs)
                print(f"{now:4.0f} s  " + "   ".join(states), file=sys.stderr)


def _board(jobs: list[Job], running: set[str], out: Path, plan: Mapping[str, Any], seconds: float) -> Table:
    table = Table(title=f"bontune quickstart   {seconds:.0f} s", title_justify="left")
    for heading in ("job", "state", "reward", f"pass@{plan['recipe']['objective']['n']}", "KL", "left"):
        table.add_column(heading, justify="left" if heading in ("job", "state") else "right")
    for job in jobs:
        state, row = _state(job, running, out, plan)
        numbers, left = ["", "", ""], ""
        if row:
            numbers = [f"{row[key]:.3f}" for key in ("reward", "pass_at_n", "kl")]
            remaining = plan["recipe"]["training"]["steps"] - row["step"]
            left = f"{remaining * sum(row['seconds'].values()):.0f} s" if remaining else ""
        table.add_row(job.name, state, *numbers, left)
    return table


def _state(job: Job, running: set[str], out: Path, plan: Mapping[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """What a job is at, and the last row of its training metrics."""
    from bontune.report.read import read_metrics, rows_of_kind

    path = out / "runs" / job.name / "metrics.jsonl"
    rows = rows_of_kind(read_metrics(path), "step") if path.exists() else []
    row = dict(rows[-1]) if rows else None
    if _pool(out, job.name).exists():
        return "done", row
    if job.name not in running:
        return "waiting", row
    total = plan["recipe"]["training"]["steps"]
    if job.name == "base" or (row and row["step"] >= total):
        return "evaluating", row
    return f"training, step {row['step'] if row else 0}/{total}", row


def _summarise(out: Path, plan: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Metrics with 95 % bootstrap intervals over problems (averaged over seeds first), and paired differences."""
    from bontune.pools.pool import read_pool

    values: dict[str, dict[str, list[np.ndarray]]] = {}
    curve_ks = metrics.default_ks(plan["samples"])
    pools = [("base", "base")] + [(arm, f"{arm}-seed{seed}") for seed in plan["seeds"] for arm in ARMS]
    num_problems = 0
    for model, name in pools:
        rewards = np.asarray(read_pool(_pool(out, name)).rewards())
        num_problems = len(rewards)
        of_model = values.setdefault(model, {})
        for k in sorted({*KS, *curve_ks}):
            of_model.setdefault(f"pass@{k}", []).append(metrics.pass_at_k(rewards, k))
    mean = {model: {m: np.mean(seeds, axis=0) for m, seeds in of.items()} for model, of in values.items()}
    intervals = {model: {m: metrics.bootstrap_interval(v) for m, v in of.items()} for model, of in mean.items()}
    n = plan["recipe"]["objective"]["n"]
    lead = [n] + [k for k in (32, 1, 4, 64) if k != n]
    differences = []
    for k in lead:
        for a, b in PAIRS:
            d = metrics.paired_difference(mean[a][f"pass@{k}"], mean[b][f"pass@{k}"])
            differences.append({"a": a, "b": b, "metric": f"pass@{k}", "diff": d.value, "low": d.low, "high": d.high})
    order = ("base", *ARMS)
    return {
        "models": {m: {f"pass@{k}": intervals[m][f"pass@{k}"].value for k in KS} for m in order},
        "intervals": {
            m: {f"pass@{k}": [intervals[m][f"pass@{k}"].low, intervals[m][f"pass@{k}"].high] for k in KS} for m in order
        },
        "differences": differences,
        "seconds": seconds,
        "curves": {
            m: {
                "k": curve_ks,
                "value": [intervals[m][f"pass@{k}"].value for k in curve_ks],
                "low": [intervals[m][f"pass@{k}"].low for k in curve_ks],
                "high": [intervals[m][f"pass@{k}"].high for k in curve_ks],
            }
            for m in order
        },
        "by_seed": {
            m: [
                {f"pass@{k}": float(values[m][f"pass@{k}"][s].mean()) for k in KS}
                for s in range(len(values[m]["pass@1"]))
            ]
            for m in order
        },
        "n": n,
        "samples": plan["samples"],
        "problems": num_problems,
        "seeds": plan["seeds"],
        "settings": plan,
    }


def _write_results(out: Path, plan: Mapping[str, Any], summary: dict[str, Any]) -> None:
    from bontune.report.html import write_quickstart_report
    from bontune.report.plots import plot_pass_at_k, plot_training_curves
    from bontune.report.read import read_metrics
    from bontune.training.checkpoint import write_atomically

    figures = {"pass_at_k": out / "pass_at_k.png", "training_curves": out / "training_curves.png"}
    plot_pass_at_k(summary["curves"], figures["pass_at_k"], mark_n=summary["n"])
    first = plan["seeds"][0]
    runs = {arm: read_metrics(out / "runs" / f"{arm}-seed{first}" / "metrics.jsonl") for arm in ARMS}
    plot_training_curves(runs, figures["training_curves"])
    write_quickstart_report(summary, figures, out / "report.html")
    write_atomically(out / "summary.json", json.dumps(summary, indent=1))
