"""``bontune compare``."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import bontune.pools.compare as comparing
from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.base.text import temperature_text
from bontune.cli.drawing import draw_all_with_progress
from bontune.metrics import RewardScale, reward_scale
from bontune.metrics.evaluation import Evaluation, evaluate_pool
from bontune.pools.compare import Comparison, main_budget
from bontune.pools.draw import PoolRequest
from bontune.pools.entrants import DrawOptions, Gathered, Pools, column_of, gather
from bontune.report.curves import draw_curves
from bontune.report.result_tables import comparison_curves, comparison_rows, comparison_tables, comparison_tree
from bontune.report.sentences import comparison_sentences, scale_note
from bontune.report.tables import as_csv

_TITLES = {
    "pass": "Problems solved by at least one of k samples",
    "max": "Highest reward of k samples",
    "best": "Reward of the verifier's pick of k samples",
}


def run_compare(
    arguments: Sequence[str], drawing: DrawOptions, *, ks: str | None, out: Path, solved_at: float | None = None
) -> None:
    """``bontune compare``: draw what is missing, compare with the first, print and write what was found."""
    gathered = gather(arguments, drawing, ks, out, draw=_draw, warn=_warn)
    plan = gathered.plan
    k = main_budget(gathered.ks, trained_n=plan.trained_ns[0][-1] if plan else None, num_samples=gathered.num_samples)
    pools = [pool for of in (gathered.measured, gathered.chosen_on) for names in of.values() for pool in names.values()]
    limit = plan.solved_at if plan is not None and solved_at is None else solved_at
    scale = reward_scale((pool.columns["reward"] for pool in pools), limit)
    comparisons = _compare(gathered, k, scale)
    verifier = _verifier(gathered)
    is_alone = len(comparisons) == 1
    sentences = [
        comparison_sentences(comparison, k=k, verifier=verifier, is_alone=is_alone) for comparison in comparisons
    ]
    console = Console(markup=False, emoji=False)
    note = " ".join(sentence for sentence in (_choice_note(gathered), scale_note(scale)) if sentence)
    for number, (comparison, of) in enumerate(zip(comparisons, sentences, strict=True)):
        for sentence in [*of, note] if note and number == 0 else of:
            console.print(sentence, highlight=False)
        console.print()
        for table in comparison_tables(comparison):
            console.print(table.terminal())
            console.print()
    origin = _origin(arguments, gathered, k, verifier, note) | {"solved_at": scale.solved_at}
    trained_for = plan.trained_ns[0] if plan is not None and len(set(plan.trained_ns)) == 1 else ()
    pictures = _write(comparisons, sentences, origin, out, trained_for)
    console.print(f"{out}: comparison.json, comparison.csv, {', '.join(pictures)}", highlight=False)


def _draw(wanted: Mapping[Path, PoolRequest]) -> None:
    with contextlib.redirect_stdout(sys.stderr):  # what is found comes first on the output
        draw_all_with_progress(wanted)


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)


def _compare(gathered: Gathered, k: int, scale: RewardScale) -> list[Comparison]:
    """Compare at each one's own best temperature first, if there are several; then at each temperature."""
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
    """The same groups with evaluations in the place of pools."""
    results: list[dict[float | None, dict[str, Evaluation]]] = [{} for _ in groups]
    for evaluated, group in zip(results, groups, strict=True):
        for temperature, of_name in group.items():
            for name, pool in of_name.items():
                try:
                    found = evaluate_pool(
                        pool.problem_ids, pool.columns["reward"], ks, scores_PM=pool.scores(), scale=scale
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
    """Write the CSV, the pictures and, when all else is there, the JSON; the names of the pictures."""
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
            plot = draw_curves(curves, trained_for=trained_for, title=_TITLES[family], is_share=is_share)
            plot.save(out / pictures[-1])
    tree = {**origin, "comparisons": [comparison_tree(*found) for found in zip(comparisons, sentences, strict=True)]}
    write_whole(out / "comparison.json", (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode(), "numbers")
    return pictures
