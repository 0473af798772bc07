"""``bontune verify``: train a verifier on pools, score a pool with one."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from bontune.base.errors import BontuneError, Interrupted
from bontune.base.progress import Bar
from bontune.base.signals import StopSignals
from bontune.cli import options as shared
from bontune.cli.terminal import PlainTyper, console, warn

if TYPE_CHECKING:
    from bontune.base.problems import Problem
    from bontune.metrics import Calibration
    from bontune.metrics.evaluation import Evaluation
    from bontune.verifiers.examples import Examples
    from bontune.verifiers.fit import FitOptions, FitResult
    from bontune.verifiers.reward_model import RewardModel

verify_app = PlainTyper(help="Train a verifier on pools, or score a pool with one.", no_args_is_help=True)


@verify_app.command("fit")
def fit_verifier(
    pools: Annotated[list[Path], typer.Argument(help="Pools with prompts, completions and rewards from 0 to 1.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Start from this model: a shipped one, a folder, or a hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the verifier into this folder.")],
    epochs: Annotated[int, typer.Option(help="Pass over the completions at most this many times.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Update on this many completions at a time.")] = 64,
    lr: Annotated[float, typer.Option(help="Reach this learning rate at the peak.")] = 2e-5,
    held_out: Annotated[float, typer.Option(help="Hold out this share of the problems to decide when to stop.")] = 0.15,
    evaluations: Annotated[int, typer.Option(help="Compute the held-out loss this many times per epoch.")] = 1,
    patience: Annotated[int, typer.Option(help="Stop after this many evaluations without a lower loss.")] = 3,
    separator: Annotated[
        str, typer.Option(help="Put this text between prompt and completion, where a model has no chat template.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed for the held-out problems, the order and the new head.")] = 0,
) -> None:
    """Train an outcome verifier on graded pools.

    Reports AUC, calibration and what a perfect verifier would add (gap@k) on held-out problems.

    Example: bontune verify fit pools/base.parquet --model countdown-tiny --lr 1e-3 --out runs/verifier
    """
    from bontune.verifiers.fit import FitOptions

    options = FitOptions(
        epochs=epochs, batch_size=batch_size, lr=lr, evaluations_per_epoch=evaluations, patience=patience, seed=seed
    )
    _fit(pools, model, out, options, held_out=held_out, separator=separator)


@verify_app.command("score")
def score_with_verifier(
    pool: Annotated[Path, typer.Argument(help="A pool file with prompts and completions.")],
    verifier: shared.Verifier,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the pool with the new scores: .parquet or .jsonl.")],
) -> None:
    """Score a pool's completions with another verifier.

    Reports AUC, calibration and what a perfect verifier would add (gap@k). A stopped command goes on where it was when
    it is given again.

    Example: bontune verify score pools/base.parquet --verifier countdown-verifier --out pools/scored.parquet
    """
    import numpy as np

    from bontune.metrics import calibration, sigmoid
    from bontune.models import quiet_libraries
    from bontune.pools.pool import problems_of
    from bontune.pools.scoring import score_pool
    from bontune.verifiers.reward_model import RewardModel, doubt_about_end

    quiet_libraries()

    def tell_kept(done: int, total: int) -> None:
        print(f"{done} of {total} problems are scored; the same command goes on", file=sys.stderr)

    with Bar("scoring") as bar, StopSignals(bar.tick) as signals:
        result = score_pool(pool, verifier, out, poll=signals.poll, on_progress=bar.show, on_interrupt=tell_kept)
    scored, scores = result.pool, result.scores
    evaluation = _evaluate(scored.problem_ids, scored.rewards(), scores)
    flat = np.asarray(scores)
    is_probability = bool(((flat >= 0) & (flat <= 1)).all())
    # Graded rewards outside [0, 1] have no calibration; they count as their nearest probability.
    rewards = np.clip(np.asarray(scored.rewards()), 0.0, 1.0)
    _print_report(
        f"{result.verifier.name} on {pool.name}: {len(scores)} problems",
        evaluation,
        calibration(rewards, flat if is_probability else sigmoid(flat)),
    )
    if num_cut := getattr(result.verifier, "num_truncated", 0):
        warn(f"{num_cut} texts lost their beginning: they are longer than the verifier's context")
    if isinstance(result.verifier, RewardModel):
        problems = problems_of(scored, pool)
        doubt = doubt_about_end(result.verifier, problems, scored.columns["completion"], scored.rewards())
        if doubt is not None:
            warn(doubt)
    print(f"{out}: {len(scores)} problems × {len(scores[0])} samples")


def _fit(paths: Sequence[Path], base: str, out: Path, options: FitOptions, *, held_out: float, separator: str) -> None:
    """Train, calibrate, report and save a verifier; a signal ends the training early with the best so far.

    Raises:
        BontuneError: pools without prompts, completions or both classes, no such model, or a folder that cannot be
            made.
        Interrupted: a signal arrived; what there was to save has been saved.
    """
    import torch

    from bontune.models import best_device, quiet_libraries
    from bontune.models.classifiers import load_classifier
    from bontune.pools.pool import problems_of
    from bontune.pools.read import read_pool
    from bontune.verifiers.examples import make_examples
    from bontune.verifiers.fit import fit
    from bontune.verifiers.input_format import InputFormat
    from bontune.verifiers.reward_model import RewardModel, end_of, save_reward_model

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


# ---- what a verifier is worth ----


def _evaluate(names: Sequence[str], rewards: Any, scores: Any) -> Evaluation:
    from bontune.metrics import default_ks
    from bontune.metrics.evaluation import evaluate_pool

    return evaluate_pool(names, rewards, default_ks(len(rewards[0])), scores_PM=scores)


def _measure_held_out(
    verifier: RewardModel, examples: Examples, problems: list[Problem], texts: Any, rewards: Any
) -> tuple[tuple[float, float], dict[str, Any]]:
    """Calibrate on the held-out problems and print what the verifier is worth on them.

    The reported calibration is cross-fitted: each half of the problems by the line that fits the other half.
    """
    import numpy as np

    from bontune.metrics import calibration, platt_scaling, sigmoid
    from bontune.metrics.evaluation import as_json

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
        warn("on held-out problems the verifier ranks no better than chance")
    evaluation = _evaluate([problems[i].id for i in held], right, raw)
    reliability = calibration(right, probabilities)
    _print_report(f"{len(held)} held-out problems × {num_samples} samples", evaluation, reliability)
    measured = {"problems": len(held), "metrics": as_json(evaluation.intervals()), **dataclasses.asdict(reliability)}
    return _usable(line), measured


def _usable(line: tuple[float, float]) -> tuple[float, float]:
    """A calibration must not turn the order round."""
    return line if line[0] > 0 else (1.0, 0.0)


def _print_report(title: str, evaluation: Evaluation, reliability: Calibration) -> None:
    """Print best-of-k against pass@k for every k, and probabilities against shares of right samples."""
    from bontune.metrics.evaluation import MEANINGS
    from bontune.report.numbers import interval_text, percent

    intervals = evaluation.intervals()
    families = [f for f in ("pass", "max", "best", "gap", "drop") if any(n.startswith(f"{f}@") for n in intervals)]
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("k", justify="right")
    for family in families:
        table.add_column(f"{family}@k, %", justify="right")
    for k in dict.fromkeys(name.partition("@")[2] for name in intervals if "@" in name):
        table.add_row(k, *(interval_text(intervals[f"{family}@{k}"], percent, "–") for family in families))
    auc = intervals.get("auc")
    caption = "" if auc is None else f"within-prompt AUC {auc.value:.3f} [{auc.low:.3f}–{auc.high:.3f}]   "
    table.caption = f"{caption}calibration error {reliability.ece:.3f}   Brier {reliability.brier:.3f}"
    bins = Table(title="reliability", title_justify="left")
    for heading in ("completions", "probability", "right"):
        bins.add_column(heading, justify="right")
    for part in reliability.bins:
        bins.add_row(str(part.count), f"{part.probability:.3f}", f"{part.reward:.3f}")
    console().print(table)
    for family in families:
        console().print(f"{family}@k: {MEANINGS[family]}", style="dim")
    console().print(bins)


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
