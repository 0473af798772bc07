"""A suite's main arms as one summary: what the table in the terminal and the page show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bontune.experiments.claims import Judged
from bontune.experiments.examples import example, next_command
from bontune.experiments.figure_parts import styles
from bontune.experiments.figures import Figure
from bontune.experiments.results import Results
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.metrics import Interval
from bontune.report.numbers import LABELS
from bontune.report.page import picture
from bontune.report.suite_page import write_suite_page


def summarise(results: Results, verdicts: Sequence[Judged]) -> dict[str, Any]:
    """Pass@k of the base model and the main arms at T = 1, and the differences that claims are about.

    Returns:
        ``models``, ``intervals``, ``curves``, ``differences`` (fractions), and what was measured, as
        :func:`bontune.report.suite_page.write_suite_page` takes it.
    """
    suite = results.suite
    ks = [k for k in suite.measuring.ks if results.level(BASE, f"pass@{k}") is not None]
    shown: dict[str, dict[int, Interval]] = {}
    for arm in (BASE, *main_arms(suite)):
        levels = {k: results.level(arm, f"pass@{k}") for k in ks if arm in results.arms}
        if levels:
            shown[arm] = {k: level.interval for k, level in levels.items() if level is not None}
    name = {arm: _name(suite, arm) for arm in shown}
    differences = []
    for verdict in verdicts:
        claim = verdict.claim
        if claim.kind == "difference" and not claim.against and {claim.a, claim.b} <= set(shown):
            found = results.difference(claim.a, claim.b, claim.metric)
            if found is not None:
                pair = {"a": name[claim.a], "b": name[claim.b], "metric": claim.metric}
                told = results.told(found)
                low, high = (None if math.isnan(end) else end for end in (told.low, told.high))
                differences.append({**pair, "diff": found.value, "low": low, "high": high})
    first = next((arm for arm in shown if arm != BASE), BASE)
    trained = suite.tree("bon_rl" if "bon_rl" in shown else first)
    return {
        "models": {name[arm]: {f"pass@{k}": i.value for k, i in found.items()} for arm, found in shown.items()},
        "intervals": {
            name[arm]: {f"pass@{k}": [i.low, i.high] for k, i in found.items()} for arm, found in shown.items()
        },
        "curves": {
            name[arm]: {
                "k": list(found),
                "value": [i.value for i in found.values()],
                "low": [i.low for i in found.values()],
                "high": [i.high for i in found.values()],
            }
            for arm, found in shown.items()
        },
        "differences": differences,
        "n": trained["objective"]["n"],
        "samples": suite.measuring.samples,
        "problems": len(results.problems("test")),
        "seeds": list(range(suite.seeds)),
        "settings": {key: value for key, value in trained.items() if key not in ("run", "seed")},
    }


def write_page(results: Results, summary: dict[str, Any], figures: Sequence[Figure], path: Path, work: Path) -> None:
    """Write the page of a suite, with its pictures inside.

    Args:
        results: of the suite.
        summary: of its main arms.
        figures: the pictures.
        path: of the page.
        work: folder of the runs, for samples of theirs.

    Raises:
        BontuneError: a picture cannot be read, or the page cannot be written.
    """
    pictures = [picture(figure.png, heading=figure.title, caption=figure.caption) for figure in figures]
    colours = {_name(results.suite, arm): look.colour for arm, look in styles(results.suite).items()}
    write_suite_page(
        results.suite.title,
        summary,
        pictures,
        path,
        colours=colours,
        example=example(results, work),
        command=next_command(results, work),
    )


def _name(suite: Suite, arm: str) -> str:
    """What an arm is called in the summary: by the usual name of its objective, or by its label."""
    return arm if arm in LABELS or arm not in suite.arms else suite.arms[arm].label
