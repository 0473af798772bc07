"""A suite's main arms as one summary: what the table in the terminal and the page show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from bontune.experiments.claims import Judged
from bontune.experiments.examples import example, next_command
from bontune.experiments.figure_parts import Figure, arm_looks
from bontune.experiments.results import Results
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.metrics import Interval
from bontune.pools.compare import Difference
from bontune.report.page import picture
from bontune.report.sentences import Summary
from bontune.report.style import has_label
from bontune.report.suite_page import write_suite_page


def summarise(results: Results, verdicts: Sequence[Judged]) -> Summary:
    """Pass@k of the base model and the main arms at T = 1, and the differences that claims are about."""
    suite = results.suite
    ks = [k for k in suite.measuring.ks if results.level(BASE, f"pass@{k}") is not None]
    shown: dict[str, dict[str, Interval]] = {}
    for arm in (BASE, *main_arms(suite)):
        levels = {f"pass@{k}": results.level(arm, f"pass@{k}") for k in ks if arm in results.arms}
        if levels:
            shown[arm] = {metric: level.interval for metric, level in levels.items() if level is not None}
    name = {arm: _name(suite, arm) for arm in shown}
    differences = []
    for verdict in verdicts:
        claim = verdict.claim
        if claim.kind == "difference" and not claim.against and {claim.a, claim.b} <= set(shown):
            difference = results.difference(claim.a, claim.b, claim.metric)
            if difference is not None:
                told = results.told(difference)
                low, high = (None if math.isnan(end) else end for end in (told.low, told.high))
                differences.append(
                    Difference(
                        a=name[claim.a],
                        b=name[claim.b],
                        metric=claim.metric,
                        value=difference.value,
                        low=low,
                        high=high,
                    )
                )
    first = next((arm for arm in shown if arm != BASE), BASE)
    trained = suite.tree("bon_rl" if "bon_rl" in shown else first)
    return Summary(
        models={name[arm]: values for arm, values in shown.items()},
        differences=differences,
        n=trained["objective"]["n"],
        samples=suite.measuring.samples,
        problems=len(results.problems("test")),
        seeds=suite.seeds,
        settings={key: value for key, value in trained.items() if key not in ("run", "seed")},
    )


def write_page(results: Results, summary: Summary, figures: Sequence[Figure], path: Path, work: Path) -> None:
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
    colours = {_name(results.suite, arm): look.colour for arm, look in arm_looks(results.suite).items()}
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
    return arm if has_label(arm) or arm not in suite.arms else suite.arms[arm].label
