"""``bontune verify``: train a verifier on pools, score a pool with one."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import bontune.metrics as metrics
from bontune.base.errors import BontuneError, Interrupted
from bontune.base.problems import Problem
from bontune.base.progress import Bar
from bontune.base.signals import StopSignals
from bontune.metrics import Calibration, calibration, platt_scaling, sigmoid
from bontune.metrics.evaluation import MEANINGS, Evaluation, as_json, as_points, evaluate_pool
from bontune.models import best_device, quiet_libraries
from bontune.models.classifiers import load_classifier
from bontune.pools.pool import problems_of
from bontune.pools.read import read_pool
from bontune.pools.scoring import score_pool
from bontune.verifiers.examples import Examples, make_examples
from bontune.verifiers.fit import FitOptions, FitResult, fit
from bontune.verifiers.input_format import InputFormat
from bontune.verifiers.reward_model import RewardModel, doubt_about_end, end_of, save_reward_model


def run_fit(
    paths: Sequence[Path], base: str, out: Path, options: FitOptions, *, held_out: float, separator: str
) -> None:
    """``bontune verify fit``: train, calibrate, report, save; a signal ends it early with the best so far.

    Raises:
        BontuneError: pools without prompts, completions or both classes, no such model, or a folder that cannot be
            made.
        Interrupted: a signal arrived; what there was to save has been saved.
    """
    import torch

    temporary = _make_room(out)
    try:
        pools = [read_pool(path) for path in paths]
        problems = [problem for pool, path in zip(pools, paths, strict=True) for problem in problems_of(pool, path)]
        texts = [row for pool in pools for row in pool.columns["completion"]]
        rewards = [row for pool in pools for row in pool.columns["reward"]]
        examples = make_examples(problems, texts, rewards, held_out=held_out, seed=options.seed)
        print(_described(examples))
        quiet_libraries()
        torch.manual_seed(options.seed)  # of the new head
        model, tokenizer = load_classifier(base, dtype="float32", new_head=True)
        model.to(best_device())
        has_messages = any(problem.messages for problem in problems)
        input_format = InputFormat(separator=separator, use_messages=has_messages, end=end_of(base, tokenizer))
        with Bar("training") as bar, StopSignals(bar.tick) as signals:
            fitted = fit(
                model,
                tokenizer,
                examples,
                options,
                input_format=input_format,
                poll=signals.poll,
                show=lambda p: bar.show(p.step, p.total, f"held-out loss {p.held_out_loss:.4f}"),
            )
        verifier = RewardModel(model, tokenizer, name=str(out), input_format=input_format)
        facts: dict[str, Any] = {"base": base, "pools": [path.name for path in paths], "counts": _counts(examples)}
        facts |= {"options": dataclasses.asdict(options) | {"held_out": held_out}, "history": fitted.history}
        verifier.calibration, measured = _measure_held_out(verifier, examples, problems, texts, rewards)
        save_reward_model(verifier, temporary, facts | {"held_out": measured})
        os.replace(temporary, out)
    except OSError as error:
        raise BontuneError(f"The folder {out} cannot be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(_conclusion(fitted, out))
    if signals.received is not None and fitted.was_stopped:
        raise Interrupted(signals.received.name)


def run_score(path: Path, spec: str, out: Path) -> None:
    """``bontune verify score``: the pool with another verifier's scores, and what that verifier is worth on it.

    Restartable: scores are on disk as they come, in ``OUT.partial.jsonl``, and the same command goes on from there.

    Raises:
        BontuneError: no pool, no prompts or completions in it, no such verifier, the output cannot be written, or
            scores of another pool or verifier are there.
        RunStopped: the verifier failed; the scores that there are stay.
        Interrupted: a signal arrived; the same.
    """
    quiet_libraries()

    def tell_kept(done: int, total: int) -> None:
        print(f"{done} of {total} problems are scored; the same command goes on", file=sys.stderr)

    with Bar("scoring") as bar, StopSignals(bar.tick) as signals:
        found = score_pool(path, spec, out, poll=signals.poll, on_progress=bar.show, on_interrupt=tell_kept)
    pool, scores, verifier = found.pool, found.scores, found.verifier
    evaluation = _evaluate(pool.problem_ids, pool.rewards(), scores)
    flat = np.asarray(scores)
    is_probability = bool(((flat >= 0) & (flat <= 1)).all())
    print_report(
        f"{verifier.name} on {path.name}: {len(scores)} problems",
        evaluation,
        calibration(_in_unit(pool.rewards()), flat if is_probability else sigmoid(flat)),
    )
    if cut := getattr(verifier, "num_truncated", 0):
        print(
            f"warning: {cut} texts lost their beginning: they are longer than the verifier's context", file=sys.stderr
        )
    if isinstance(verifier, RewardModel):
        doubt = doubt_about_end(verifier, problems_of(pool, path), pool.columns["completion"], pool.rewards())
        if doubt is not None:
            print(f"warning: {doubt}", file=sys.stderr)
    print(f"{out}: {len(scores)} problems × {len(scores[0])} samples")


# ---- what a verifier is worth ----


def _evaluate(names: Sequence[str], rewards: Any, scores: Any) -> Evaluation:

    return evaluate_pool(names, rewards, metrics.default_ks(len(rewards[0])), scores_PM=scores)


def _measure_held_out(
    verifier: RewardModel, examples: Examples, problems: list[Problem], texts: Any, rewards: Any
) -> tuple[tuple[float, float], dict[str, Any]]:
    """Calibrate on the held-out problems and print what the verifier is worth on them.

    The reported calibration is cross-fitted: each half of the problems by the line that fits the other half.
    """
    held = [i for i, problem in enumerate(problems) if problem.id in examples.held_out_ids]
    num_samples = min(len(texts[i]) for i in held)
    raw = np.array(verifier.score([problems[i] for i in held], [texts[i][:num_samples] for i in held]))
    # What could not be graded, null or NaN, is never correct.
    right = np.array([[0.0 if r is None or math.isnan(r) else r for r in rewards[i][:num_samples]] for i in held])
    halves = [np.arange(len(held)) % 2 == side for side in (0, 1)] if len(held) > 1 else [np.array([True])] * 2
    probabilities = np.zeros_like(raw)
    for fitted_on, applied_to in (halves, halves[::-1]):
        slope, intercept = _usable(platt_scaling(right[fitted_on], raw[fitted_on]))
        probabilities[applied_to] = sigmoid(slope * raw[applied_to] + intercept)
    line = platt_scaling(right, raw)
    if line[0] <= 0:
        print("warning: on held-out problems the verifier ranks no better than chance", file=sys.stderr)
    evaluation = _evaluate([problems[i].id for i in held], right, raw)
    reliability = calibration(right, probabilities)
    print_report(f"{len(held)} held-out problems × {num_samples} samples", evaluation, reliability)
    measured = {"problems": len(held), "metrics": as_json(evaluation.intervals()), **dataclasses.asdict(reliability)}
    return _usable(line), measured


def _usable(line: tuple[float, float]) -> tuple[float, float]:
    """A calibration must not turn the order round."""
    return line if line[0] > 0 else (1.0, 0.0)


def _in_unit(rewards: list[list[float]]) -> np.ndarray:
    """Graded rewards outside [0, 1] have no calibration; they count as their nearest probability."""
    return np.clip(np.asarray(rewards), 0.0, 1.0)


def print_report(title: str, evaluation: Evaluation, reliability: Calibration) -> None:
    """Tables: best-of-k against pass@k for every k, and probabilities against shares of right ones."""
    intervals = evaluation.intervals()
    families = [f for f in ("pass", "max", "best", "gap", "drop") if any(n.startswith(f"{f}@") for n in intervals)]
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("k", justify="right")
    for family in families:
        table.add_column(f"{family}@k, %", justify="right")
    for k in dict.fromkeys(name.partition("@")[2] for name in intervals if "@" in name):
        table.add_row(k, *(as_points(intervals[f"{family}@{k}"]) for family in families))
    auc = intervals.get("auc")
    caption = "" if auc is None else f"within-prompt AUC {auc.value:.3f} [{auc.low:.3f}–{auc.high:.3f}]   "
    table.caption = f"{caption}calibration error {reliability.ece:.3f}   Brier {reliability.brier:.3f}"
    bins = Table(title="reliability", title_justify="left")
    for heading in ("completions", "probability", "right"):
        bins.add_column(heading, justify="right")
    for part in reliability.bins:
        bins.add_row(str(part.count), f"{part.probability:.3f}", f"{part.reward:.3f}")
    console = Console(markup=False, emoji=False)
    console.print(table)
    for family in families:
        console.print(f"{family}@k: {MEANINGS[family]}", style="dim", highlight=False)
    console.print(bins)


# ---- the rest of fit ----


def _make_room(out: Path) -> Path:
    """A temporary folder beside the one to be made."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BontuneError(f"{out} is already there: delete it or give another name.")
    temporary = out.with_name(f".tmp-{out.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise BontuneError(f"The folder {out} cannot be made: {error.strerror}.") from None
    return temporary


def _counts(examples: Examples) -> dict[str, int]:
    return {
        "problems": examples.num_problems,
        "one_class": examples.num_one_class,
        "held_out": len(examples.held_out_ids),
        "completions": examples.num_completions,
        "distinct": examples.num_distinct,
        "ungraded": examples.num_ungraded,
    }


def _described(examples: Examples) -> str:
    c = _counts(examples)
    ungraded = f", {c['ungraded']} without a grade left out" if c["ungraded"] else ""
    return (
        f"{c['problems']} problems, {c['completions']} completions, {c['distinct']} distinct{ungraded}; "
        f"{c['one_class']} problems all right or all wrong teach no difference; {c['held_out']} problems held out"
    )


def _conclusion(fitted: FitResult, out: Path) -> str:
    stopped = "stopped by a signal; the best so far, " if fitted.was_stopped else ""
    return f"{out}: {stopped}epoch {fitted.best['epoch']:.2f}, held-out loss {fitted.best['held_out_loss']:.4f}"
