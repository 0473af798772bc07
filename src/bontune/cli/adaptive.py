"""Measures what an adaptive number of samples saves: the command ``bontune adaptive``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.cli import options as shared
from bontune.cli.terminal import console, warn
from bontune.report.numbers import change_writer, interval_text, metric_writer, points_unit, unit_of
from bontune.report.tables import Table, as_csv, measured_cell

if TYPE_CHECKING:
    from bontune.metrics import Interval, RewardScale
    from bontune.pools.pool import Pool
    from bontune.scaling import PoolArrays, StoppingPoint, StoppingStudy


_LEGEND = (
    "k: draws per problem, on average, that the score was chosen for",
    "stop at: no more is drawn for a problem once a sample has this score",
    "draws: draws per problem with this score",
    "stopped early: reward of the sample that the verifier picks then",
    "as many each: reward of its pick where every problem gets that many draws",
)


def study_early_stopping(
    pools: Annotated[
        list[Path],
        typer.Argument(
            metavar="POOL [POOL]",
            help="A pool with scores; scores to stop at are chosen on it, measured on the second.",
        ),
    ],
    n: Annotated[
        int | None, typer.Option("-n", min=2, help="Draw N at most; default: half of the samples.", show_default=False)
    ] = None,
    round_size: Annotated[
        int, typer.Option("--round", min=1, help="Draw this many at a time before the verifier looks.")
    ] = 1,
    k: shared.Budgets = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write numbers and a picture here.")] = Path("adaptive"),
) -> None:
    """Measure how many draws it saves to stop as soon as the verifier's score is high enough.

    Example: bontune adaptive validation.parquet test.parquet -n 32 --round 4
    """
    if len(pools) > 2:
        raise BontuneError(
            f"Give one pool, or two: scores are chosen on the first, measured on the second; got {len(pools)}."
        )
    shared.require_there(pools)
    from bontune.pools.compare import check_ks
    from bontune.report.curves import draw_curves
    from bontune.scaling import study_stopping

    scored, scale = _scored_pools(pools)
    fewest = min(pool.rewards_PM.shape[1] for pool in scored)
    n = max(fewest // 2, 1) if n is None else n
    if not round_size < n <= fewest:
        raise BontuneError(
            f"-n lies between a round of {round_size} and the {fewest} samples per problem, got {n}: with fewer there "
            "is nothing to stop."
        )
    study = study_stopping(scored[0], scored[-1], n=n, round_size=round_size, ks=check_ks(k, n))
    if not study.points:
        raise BontuneError(
            f"No score of {pools[0]} ends the drawing at a budget asked for: --k takes numbers between a round of "
            f"{round_size} and N = {n}, and the verifier has to know a score for most samples."
        )
    is_share = scale.is_binary
    console().print(_table(study, pools[-1], is_share=is_share).terminal())
    for line in _LEGEND:
        console().print(line, style="dim")
    console().print(_conclusion(study, is_share=is_share))
    write_whole(out / "adaptive.csv", as_csv([_row(point) for point in study.points]), "numbers")
    curves = {
        "stopped early": {point.draws.value: point.reward for point in study.points},
        "as many draws each": {point.draws.value: point.fixed for point in study.points} | {study.n: study.full},
    }
    title, name = "Best-of-N by draws per problem", "Stopping early against a fixed number of draws"
    draw_curves(curves, title=title, is_share=is_share, name=name).save(out / "adaptive.png")
    print(f"{out}: adaptive.csv and adaptive.png")


def _scored_pools(paths: Sequence[Path]) -> tuple[list[PoolArrays], RewardScale]:
    """Read the rewards and scores of pools that one verifier has scored.

    Raises:
        BontuneError: a pool without scores, or with counts of votes, or pools that two verifiers scored.
    """
    import numpy as np

    from bontune.metrics import reward_scale
    from bontune.scaling import PoolArrays

    pools = [_pool(path) for path in paths]
    first, last = (pool.settings.get("verifier") for pool in (pools[0], pools[-1]))
    if first != last:
        raise BontuneError(
            f"{paths[0]} is scored by {first} and {paths[-1]} by {last}: a score to stop at says something about one "
            "verifier only."
        )
    if first == "oracle":
        warn("the oracle knows right answers; this is what a verifier that is never wrong would save")
    scale = reward_scale(pool.columns["reward"] for pool in pools)
    return [
        PoolArrays(rewards_PM=np.array(pool.rewards(scale)), scores_PM=np.array(pool.scores())) for pool in pools
    ], scale


def _pool(path: Path) -> Pool:
    """A pool that a verifier has scored.

    Raises:
        BontuneError: it has no scores, or they are counts of votes.
    """
    from bontune.pools.read import read_pool

    pool = read_pool(path, has_texts=False)
    if pool.scores() is None:
        raise BontuneError(f"{path} has no scores: draw it with --verifier.")
    if pool.settings.get("verifier") == "majority":
        raise BontuneError(
            f"The scores of {path} are votes, which count all samples of a problem; stopping early needs a verifier "
            "that scores each sample by itself."
        )
    if note := pool.ungraded(path):
        warn(note)
    return pool


def _conclusion(study: StoppingStudy, *, is_share: bool) -> str:
    """Say what stopping early saves, and how to do it."""
    from bontune.scaling.adaptive import MARGIN

    write, unit = metric_writer(is_share), " %" if is_share else ""
    point, full = study.cheapest, write(study.full.value) + unit
    if point is None:
        margin = f"{100 * MARGIN:g} point" if is_share else f"{MARGIN:g}"
        return f"Stopping early loses more than {margin} of best@{study.n} ({full}) wherever it saves a draw."
    saved = 1 - point.draws.value / study.n
    return (
        f"Stopping at a score of {point.stop_at:.4g} takes {point.draws.value:.1f} draws in place of {study.n} "
        f"({100 * saved:.0f} % fewer): {write(point.reward.value)}{unit}, "
        f"{interval_text(point.loss, change_writer(is_share))}{points_unit(is_share)} against the {full} of "
        f"best@{study.n}.\n"
        f"In use: BestOfN(model, verifier, {study.n}, stop_at={point.stop_at:.4g}, round_size={study.round_size}), or "
        f"bontune answer … -n {study.n} --stop-at {point.stop_at:.4g} --round {study.round_size}"
    )


def _table(study: StoppingStudy, path: Path, *, is_share: bool) -> Table:
    """Make the table of the scores to stop at, without those that every sample reaches: they choose nothing."""
    points = [point for point in study.points if point.draws.value > study.round_size]
    if not points and study.cheapest is not None:
        points = [study.cheapest]
    unit, write = unit_of(is_share), metric_writer(is_share)
    omitted = [str(point.budget) for point in study.points if point not in points]
    note = f"; no row for k = {', '.join(omitted)}, where every score ends the drawing at once" if omitted else ""
    return Table(
        columns=("k", "stop at", "draws", f"stopped early, {unit}", f"as many each, {unit}", "difference"),
        rows=[
            (
                str(point.budget),
                f"{point.stop_at:.4g}",
                f"{point.draws.value:.1f}",
                write(point.reward.value),
                write(point.fixed.value),
                measured_cell(point.gain, change_writer(is_share)),
            )
            for point in points
        ],
        title=f"{path}: at most {study.n} draws, in rounds of {study.round_size}",
        caption=f"{study.num_problems} problems; differences {'in points ' if is_share else ''}with 95 % intervals "
        f"over the problems{note}",
    )


def _row(point: StoppingPoint) -> dict[str, float]:
    row: dict[str, float] = {"k": point.budget, "stop_at": point.stop_at}
    for name in ("draws", "reward", "fixed", "gain", "loss"):
        interval: Interval = getattr(point, name)
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row
