"""Compares runs, pools and models: the command ``bontune compare``."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.cli import options as shared
from bontune.cli.sample import draw_all_with_progress
from bontune.cli.terminal import console, warn

if TYPE_CHECKING:
    from bontune.metrics import RewardScale
    from bontune.metrics.evaluation import Evaluation
    from bontune.pools.compare import Comparison
    from bontune.pools.draw import PoolRequest
    from bontune.pools.entrants import Gathered, Pools

_TITLES = {
    "pass": "Problems solved by at least one of k samples",
    "max": "Highest reward of k samples",
    "best": "Reward of the verifier's pick of k samples",
}


def compare_runs(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|POOL|MODEL", help="Runs, pools or models; the first is what the others are compared with."
        ),
    ],
    samples: shared.Samples = 64,
    temperature: Annotated[
        str,
        typer.Option(
            "--temperature", "-t", help="Sample at this temperature; several, as 0.6,0.8,1.0, give each one its best."
        ),
    ] = "1.0",
    split: Annotated[
        str | None,
        typer.Option(help="Take the problems of this split; default: test, else validation.", show_default=False),
    ] = None,
    limit: shared.Limit = None,
    verifier: Annotated[
        str | None,
        typer.Option(help="Pick the best of k with this verifier; default: the first run's.", show_default=False),
    ] = None,
    seed: shared.Seed = 0,
    k: shared.Budgets = None,
    solved_at: shared.SolvedAt = None,
    out: shared.ResultsFolder = Path("runs/compare"),
) -> None:
    """Say which run is better for Best-of-N, at which N, and whether that is more than noise.

    For runs and models, pools are drawn on the first run's task; pools that are there are kept. Pools are compared as
    they are. Differences are paired over problems, with 95 % intervals.

    Example: bontune compare runs/a runs/b countdown-tiny --limit 200
    """
    from bontune.pools.entrants import DrawOptions, gather

    options = DrawOptions(
        samples=samples, temperature=temperature, split=split, limit=limit, seed=seed, verifier=verifier
    )
    gathered = gather(arguments, options, k, out, draw=_draw, warn=warn)
    _show_and_write(arguments, gathered, out, solved_at)


def _show_and_write(arguments: Sequence[str], gathered: Gathered, out: Path, solved_at: float | None) -> None:
    """Print what the comparison found, its tables and its notes, and write its files."""
    from bontune.metrics import reward_scale
    from bontune.pools.compare import main_budget
    from bontune.report.result_tables import comparison_tables
    from bontune.report.sentences import comparison_sentences, scale_note

    plan = gathered.plan
    trained_n = plan.trained_ns[0][-1] if plan else None
    k = main_budget(gathered.ks, trained_n=trained_n, num_samples=gathered.num_samples)
    pools = [
        pool
        for group in (gathered.measured, gathered.chosen_on)
        for of_name in group.values()
        for pool in of_name.values()
    ]
    if plan is not None and solved_at is None:
        solved_at = plan.solved_at
    scale = reward_scale((pool.columns["reward"] for pool in pools), solved_at)
    comparisons = _compare(gathered, k, scale)
    verifier = _verifier(gathered)
    is_alone = len(comparisons) == 1
    sentences = [
        comparison_sentences(comparison, k=k, verifier=verifier, is_alone=is_alone) for comparison in comparisons
    ]
    note = " ".join(sentence for sentence in (_choice_note(gathered), scale_note(scale)) if sentence)
    said = set()  # what is so of chance at one temperature is often so at all of them
    for number, (comparison, texts) in enumerate(zip(comparisons, sentences, strict=True)):
        for sentence in [*texts, *([note] if note and number == 0 else [])]:
            if sentence not in said:
                console().print(sentence)
                said.add(sentence)
        print()
        for table in comparison_tables(comparison):
            console().print(table.terminal())
            print()
    origin = _origin(arguments, gathered, k, verifier, note) | {"solved_at": scale.solved_at}
    trained_for = plan.trained_ns[0] if plan is not None and len(set(plan.trained_ns)) == 1 else ()
    pictures = _write(comparisons, sentences, origin, out, trained_for)
    console().print(f"{out}: comparison.json, comparison.csv, {', '.join(pictures)}")


def _draw(wanted: Mapping[Path, PoolRequest]) -> None:
    with contextlib.redirect_stdout(sys.stderr):  # what is found comes first on the output
        draw_all_with_progress(wanted)


def _compare(gathered: Gathered, k: int, scale: RewardScale) -> list[Comparison]:
    """Compare at each one's own best temperature first, if there are several; then at each temperature."""
    from bontune.pools import compare as comparing
    from bontune.pools.entrants import column_of

    measured, chosen_on = _evaluate([gathered.measured, gathered.chosen_on], gathered.ks, scale)
    families = comparing.families_of([e for of_name in measured.values() for e in of_name.values()])
    to_compare = [
        comparing.Sampled(temperature=temperature, evaluations=of_name) for temperature, of_name in measured.items()
    ]
    if chosen_on:
        metrics = [f"{family}@{budget}" for family in families for budget in gathered.ks]
        ours, others = ({t: of for t, of in group.items() if t is not None} for group in (measured, chosen_on))
        to_compare.insert(0, comparing.at_own_best(ours, others, metrics))
    levels: dict[str, int] = {}
    for pool in next(iter(gathered.measured.values())).values():
        levels = levels or {name: at for name, at in column_of(pool, "level").items() if isinstance(at, int)}
    return [comparing.compare(m, families, gathered.ks, k=k, levels=levels) for m in to_compare]


def _evaluate(
    groups: Sequence[Pools], ks: Sequence[int], scale: RewardScale
) -> list[dict[float | None, dict[str, Evaluation]]]:
    """Evaluate every pool of the groups.

    Raises:
        BontuneError: a pool holds what cannot be evaluated.
    """
    from bontune.metrics.evaluation import evaluate_pool
    from bontune.pools.chance import with_chance

    results: list[dict[float | None, dict[str, Evaluation]]] = [{} for _ in groups]
    for evaluated, group in zip(results, groups, strict=True):
        for temperature, of_name in group.items():
            for name, pool in of_name.items():
                try:
                    found = with_chance(
                        evaluate_pool(
                            pool.problem_ids, pool.columns["reward"], ks, scores_PM=pool.scores(), scale=scale
                        ),
                        pool,
                        scale,
                    )
                except ValueError as error:  # what a pool of other origin may hold
                    raise BontuneError(f"{name} cannot be evaluated: {error}") from None
                evaluated.setdefault(temperature, {})[name] = found
    return results


def _verifier(gathered: Gathered) -> str:
    """What picked, in words."""
    pools = [pool for of_name in gathered.measured.values() for pool in of_name.values()]
    names = {pool.settings.get("verifier") for pool in pools}
    return str(names.pop()) if len(names) == 1 and None not in names else "the verifier"


def _choice_note(gathered: Gathered) -> str:
    """How own temperatures were chosen; empty where there is one temperature."""
    plan = gathered.plan
    if plan is None or not gathered.chosen_on:
        return ""
    if plan.chosen_on != plan.split:
        return f"Own best temperatures were chosen on the split {plan.chosen_on}, the differences are of {plan.split}."
    return (
        f"Own best temperatures were chosen on the problems of {plan.split} that are compared, for want of a split of "
        "their own: the values at them are somewhat too high."
    )


def _origin(arguments: Sequence[str], gathered: Gathered, k: int, verifier: str, note: str) -> dict[str, Any]:
    """Say where the numbers come from."""
    pools = next(iter(gathered.measured.values()))
    origin: dict[str, Any] = {
        "arguments": list(arguments),
        "reference": next(iter(pools)),
        "k": gathered.ks,
        "main_k": k,
        "problems": len(next(iter(pools.values())).problem_ids),
        "verifier": verifier,
    }
    if gathered.plan is not None:
        plan = gathered.plan
        origin |= {
            "task": plan.task.name,
            "task_options": plan.task.options(),
            "split": plan.split,
            "max_new_tokens": plan.max_new_tokens,
            "trained_n": [list(ns) for ns in plan.trained_ns],
            "samples": plan.drawing.samples,
            "limit": plan.drawing.limit,
            "seed": plan.drawing.seed,
            "temperatures": list(plan.temperatures),
            "temperature_chosen_on": plan.chosen_on if gathered.chosen_on else None,
            "note": note or None,
        }
    return origin


def _write(
    comparisons: Sequence[Comparison],
    sentences: Sequence[Sequence[str]],
    origin: dict[str, Any],
    out: Path,
    trained_for: Sequence[int],
) -> list[str]:
    """Write the CSV, the pictures and, when all else is there, the JSON.

    Returns:
        The names of the pictures.
    """
    from bontune.base.text import temperature_text
    from bontune.report.curves import draw_curves
    from bontune.report.result_tables import comparison_curves, comparison_rows, comparison_tree
    from bontune.report.tables import as_csv

    rows = [row for comparison in comparisons for row in comparison_rows(comparison)]
    write_whole(out / "comparison.csv", as_csv(rows), "numbers")
    pictures = []
    for comparison in comparisons:
        sampled = comparison.sampled
        where = "" if sampled.temperature is None else f"_T{temperature_text(sampled.temperature)}"
        where = "_own_T" if sampled.own_temperatures else where if len(comparisons) > 1 else ""
        for family in dict.fromkeys(difference.family for difference in comparison.differences):
            pictures.append(f"{family}{where}.png")
            is_share = next(d.is_share for d in comparison.differences if d.family == family)
            curves = comparison_curves(comparison, family)
            chance = comparison_curves(comparison, "chance") if family == "pass" else {}
            plot = draw_curves(curves, trained_for=trained_for, title=_TITLES[family], is_share=is_share, chance=chance)
            plot.save(out / pictures[-1])
    tree = {**origin, "comparisons": [comparison_tree(*pair) for pair in zip(comparisons, sentences, strict=True)]}
    write_whole(out / "comparison.json", (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode(), "numbers")
    return pictures
