"""``bontune adaptive``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.base.text import as_csv
from bontune.metrics import Interval, reward_scale
from bontune.pools.compare import check_ks
from bontune.pools.pool import Pool
from bontune.pools.read import read_pool
from bontune.report.curves import draw_curves
from bontune.report.numbers import change_writer, interval_text, metric_writer, points_unit, unit_of
from bontune.scaling import ScoredPool, StoppingPoint, StoppingStudy, study_stopping
from bontune.scaling.adaptive import MARGIN


def run_adaptive(paths: list[Path], *, n: int | None, round_size: int, ks: str | None, out: Path) -> None:
    """Print what stopping early is worth at each budget, and write ``adaptive.csv`` and ``adaptive.png``.

    Raises:
        BontuneError: more than two pools, a pool without a verifier's scores, scores of two verifiers, or an N that it
            cannot tell about.
    """
    if len(paths) > 2:
        raise BontuneError(
            f"Give one pool, or two: scores are chosen on the first, measured on the second; got {len(paths)}."
        )
    pools = [_scored(path) for path in paths]
    first, last = (pool.settings.get("verifier") for pool in (pools[0], pools[-1]))
    if first != last:
        raise BontuneError(
            f"{paths[0]} is scored by {first} and {paths[-1]} by {last}: a score to stop at says something about one "
            "verifier only."
        )
    if first == "oracle":
        print(
            "warning: the oracle knows right answers; this is what a verifier that is never wrong would save",
            file=sys.stderr,
        )
    scale = reward_scale(pool.columns["reward"] for pool in pools)
    scored = [ScoredPool(rewards_PM=np.array(pool.rewards(scale)), scores_PM=np.array(pool.scores())) for pool in pools]
    fewest = min(pool.rewards_PM.shape[1] for pool in scored)
    n = max(fewest // 2, 1) if n is None else n
    if not round_size < n <= fewest:
        raise BontuneError(
            f"-n lies between a round of {round_size} and the {fewest} samples per problem, got {n}: with fewer there "
            "is nothing to stop."
        )
    study = study_stopping(scored[0], scored[-1], n=n, round_size=round_size, ks=check_ks(ks, n))
    if not study.points:
        raise BontuneError(
            f"No score of {paths[0]} ends the drawing at a budget asked for: --k takes numbers between a round of "
            f"{round_size} and N = {n}, and the verifier has to know a score for most samples."
        )
    console = Console(markup=False, emoji=False)
    console.print(_table(study, paths[-1], is_share=scale.is_binary))
    console.print(_finding(study, is_share=scale.is_binary), highlight=False)
    write_whole(out / "adaptive.csv", as_csv([_row(point) for point in study.points]), "numbers")
    plot = draw_curves(
        _curves(study),
        title="Best-of-N by draws per problem",
        is_share=scale.is_binary,
        name="Stopping early against a fixed number of draws",
    )
    plot.save(out / "adaptive.png")
    print(f"{out}: adaptive.csv and adaptive.png")


def _scored(path: Path) -> Pool:
    """A pool that a verifier has scored.

    Raises:
        BontuneError: it has no scores, or they are counts of votes.
    """
    pool = read_pool(path, has_texts=False)
    if pool.scores() is None:
        raise BontuneError(f"{path} has no scores: draw it with --verifier.")
    if pool.settings.get("verifier") == "majority":
        raise BontuneError(
            f"The scores of {path} are votes, which count all samples of a problem; stopping early needs a verifier "
            "that scores each sample by itself."
        )
    if note := pool.ungraded(path):
        print(f"warning: {note}", file=sys.stderr)
    return pool


def _finding(study: StoppingStudy, *, is_share: bool) -> str:
    """What the study says, in a sentence or two."""
    point, full = study.cheapest, _with_unit(study.full.value, is_share=is_share)
    margin = f"{100 * MARGIN:g} point" if is_share else f"{MARGIN:g}"
    if point is None:
        return f"Stopping early loses more than {margin} of best@{study.n} ({full}) wherever it saves a draw."
    saved = 1 - point.draws.value / study.n
    return (
        f"Stopping at a score of {point.stop_at:.4g} takes {point.draws.value:.1f} draws in place of {study.n} "
        f"({100 * saved:.0f} % fewer): {_with_unit(point.reward.value, is_share=is_share)}, "
        f"{_signed(point.loss, is_share=is_share)}{points_unit(is_share)} against the {full} of best@{study.n}.\n"
        f"In use: BestOfN(model, verifier, {study.n}, stop_at={point.stop_at:.4g}, round_size={study.round_size}), or "
        f"bontune answer … -n {study.n} --stop-at {point.stop_at:.4g} --round {study.round_size}"
    )


def _with_unit(value: float, *, is_share: bool) -> str:
    return metric_writer(is_share)(value) + (" %" if is_share else "")


def _table(study: StoppingStudy, path: Path, *, is_share: bool) -> Table:
    table = Table(
        title=f"{path}: at most {study.n} draws, in rounds of {study.round_size}",
        caption=f"{study.num_problems} problems; differences {'in points ' if is_share else ''}with 95 % intervals "
        "over the problems",
        title_justify="left",
        caption_justify="left",
    )
    unit = unit_of(is_share)
    for name in ("k", "stop at", "draws", f"stopped early, {unit}", f"as many each, {unit}", "difference"):
        table.add_column(name, justify="right")
    for point in study.points:
        table.add_row(
            str(point.budget),
            f"{point.stop_at:.4g}",
            f"{point.draws.value:.1f}",
            metric_writer(is_share)(point.reward.value),
            metric_writer(is_share)(point.fixed.value),
            _signed(point.gain, is_share=is_share),
        )
    return table


def _signed(interval: Interval, *, is_share: bool) -> str:
    return interval_text(interval, change_writer(is_share))


def _row(point: StoppingPoint) -> dict[str, float]:
    row: dict[str, float] = {"k": point.budget, "stop_at": point.stop_at}
    for name in ("draws", "reward", "fixed", "gain", "loss"):
        interval: Interval = getattr(point, name)
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def _curves(study: StoppingStudy) -> dict[str, dict[float, Interval]]:
    """The two lines of the picture: reward by draws."""
    return {
        "stopped early": {point.draws.value: point.reward for point in study.points},
        "as many draws each": {point.draws.value: point.fixed for point in study.points} | {study.n: study.full},
    }
