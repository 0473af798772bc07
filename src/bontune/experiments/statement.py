"""The plain statement of a suite: claim by claim, then every arm, how it was done, and the pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from bontune.experiments.claims import Judged
from bontune.experiments.figure_parts import Figure, over
from bontune.experiments.results import OWN, Level, Results
from bontune.experiments.suite import BASE
from bontune.metrics import Interval
from bontune.pools.compare import FEWEST_PROBLEMS, Outcome, outcome_of
from bontune.report.numbers import points
from bontune.report.sentences import ranges


def statement(results: Results, verdicts: Sequence[Judged], figures: Sequence[Figure], out: Path, command: str) -> str:
    """All of it as Markdown.

    Args:
        results: the numbers.
        verdicts: the claims.
        figures: the pictures.
        out: the folder that the text will lie in.
        command: that makes these results.
    """
    parts = [f"# {results.suite.title}: what the paper says, what we measured", "", _made_by(results, command), ""]
    if unfinished := _unfinished(results):
        parts += [unfinished, ""]
    parts += ["## Claim by claim", "", *_claims(verdicts), "", *_how(results), ""]
    parts += ["## Every arm", "", *_arms(results), ""]
    parts += ["## From which k on", "", *_by_budget(results), ""]
    for figure in figures:
        path = os.path.relpath(figure.png, out)
        numbers = os.path.relpath(figure.csv, out)
        parts += [f"## {figure.title}", "", f"![{figure.title}]({path})", ""]
        parts += [f"{figure.caption} [Numbers]({numbers}).", ""]
    return "\n".join(parts)


def _by_budget(results: Results) -> list[str]:
    """Where each arm is better or worse than the base model."""
    suite = results.suite
    families = ["pass", *(["best"] if suite.measuring.verifier != "oracle" else [])]
    rows = []
    for arm in results.arms:
        bands = {family: results.band(arm, family) for family in families if arm != BASE}
        if not bands or any(band is None for band in bands.values()):
            continue
        said = [
            ranges([(k, _outcome(results, i)) for k, i in zip(suite.measuring.ks, band, strict=True)])
            for band in bands.values()
            if band is not None
        ]
        rows.append(f"| {suite.arms[arm].label} | {results.suite.num_seeds(arm)} | {' | '.join(said)} |")
    return [
        f"Each arm against the base model at T = 1, by a 95 % band {over(results)} that holds for all k together.",
        "",
        f"| arm | seeds | {' | '.join(f'{family}@k' for family in families)} |",
        f"|---|---|{'---|' * len(families)}",
        *rows,
    ]


def _outcome(results: Results, found: Interval) -> Outcome:
    told = results.told(found)
    return outcome_of(told.low, told.high)


def described(verdict: Judged, interval: Interval | None) -> str:
    """``+6.7 [4.1, 9.3]`` points, or ``0.21 [0.12, 0.40]`` of the generations."""
    if interval is None:
        return "–"
    is_ratio = verdict.claim.kind == "generations"
    value, low, high = (
        "never" if math.isinf(x) else f"{x:.2f}" if is_ratio else points(x / 100)
        for x in (interval.value, interval.low, interval.high)
    )
    return f"{value} (no interval)" if math.isnan(interval.low) else f"{value} [{low}, {high}]"


def paper_said(verdict: Judged) -> str:
    """What the paper measured: points with their sign, or a ratio; empty where it says nothing."""
    claim = verdict.claim
    return "" if claim.paper is None else f"{claim.paper:g}" if claim.kind == "generations" else f"{claim.paper:+g}"


def _goal(verdict: Judged) -> str:
    """The goal, and whether it is reached; a claim may hold and gain less than was hoped for."""
    claim = verdict.claim
    wanted = f"≤ {claim.goal:g}" if claim.kind == "generations" or claim.sign < 0 else f"≥ {claim.goal:g}"
    if verdict.reaches_goal:
        return f"{wanted}, reached" + ("" if verdict.holds else ", but the interval goes beyond")
    return f"{wanted}: it holds, by less than hoped for" if verdict.holds else f"{wanted}, not reached"


def _made_by(results: Results, command: str) -> str:
    trials = [results.trial(run) for arm in results.arms if arm != BASE for run in results.runs(arm)[:1]]
    versions: dict[str, str] = next((trial["versions"] for trial in trials if trial is not None), {})
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    by = f" with {told}" if told else ""
    where = "`pieces.parquet` holds every measurement and `pieces.jsonl` every training run."
    return f"Made by `{command}`{by}. {where}"


def _claims(verdicts: Sequence[Judged]) -> list[str]:
    lines = ["| claim | paper | measured [95 % interval] | at T = 1 | goal | |", "|---|---|---|---|---|---|"]
    for verdict in verdicts:
        claim = verdict.claim
        paper = paper_said(verdict)
        paper += f" ({claim.paper_on})" if claim.paper_on else ""
        goal = "" if claim.goal is None or verdict.own is None else _goal(verdict)
        lines.append(
            f"| {claim.claim} | {paper} | {described(verdict, verdict.own)} | {described(verdict, verdict.at_1)} | "
            f"{goal} | **{verdict.state}** |"
        )
    return lines


def _how(results: Results) -> list[str]:
    suite = results.suite
    measuring, training = suite.measuring, suite.tree(BASE)
    per_run = training["training"]["steps"] * training["training"]["prompts_per_step"] * training["sampling"]["samples"]
    num_problems = len(results.problems("test"))
    few = ""
    if num_problems < FEWEST_PROBLEMS:
        few = f" These are too few problems to claim anything: {FEWEST_PROBLEMS} at least are needed."
    seeds = f" (up to {suite.seeds} of each arm)" if suite.seeds > 1 else ""
    is_one = any(claim.at_one_temperature for claim in suite.claims)
    for_every_k = " Claims about one model for every N have one temperature for every N, too: T = 1." if is_one else ""
    return [
        f"Differences are in points on {num_problems} test problems with {measuring.samples} samples each, paired by "
        f"problem; the intervals are {over(results)}{seeds}. A claim "
        "holds if its interval, with each arm at its own best temperature, lies wholly on the claimed side."
        f"{for_every_k}{few} Every arm that samples trains on {per_run:,} generations unless its name says otherwise. "
        f"Choices were made on {measuring.validation_problems or 'all'} validation problems: learning rate and "
        "temperature of each arm with seed 0, the checkpoint of each run by its own evaluations; learning rate and "
        "checkpoint by what the arm is trained for (`choices.csv`)."
    ]


def _arms(results: Results) -> list[str]:
    suite = results.suite
    k = suite.metric.partition("@")[2]
    others = dict.fromkeys(["pass@1", suite.metric, *([f"best@{k}"] if suite.measuring.verifier != "oracle" else [])])
    headings = " | ".join(f"{metric}, T = 1" for metric in others)
    lines = [f"| arm | lr | seeds | {headings} | {suite.metric}, own best T |", "|---" * (len(others) + 4) + "|"]
    for arm in results.arms:
        rate = results.chosen_rate(arm)
        levels = [results.level(arm, metric) for metric in others]
        own = results.level(arm, suite.metric, "test", OWN)
        seeds = 0 if levels[0] is None else levels[0].num_seeds
        lr = "" if arm == BASE or rate is None else f"{rate:g}"
        cells = [_cell(level) for level in levels] + [_cell(own) + (f" (T = {own.temperature:g})" if own else "")]
        lines.append(f"| {suite.arms[arm].label} | {lr} | {seeds} | " + " | ".join(cells) + " |")
    return lines


def _cell(level: Level | None) -> str:
    if level is None:
        return "–"
    interval = level.interval
    return f"{100 * interval.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _unfinished(results: Results) -> str:
    """Name the arms that are not measured with all their seeds yet, in a sentence; empty if there are none."""
    partly, not_begun = [], []
    for arm in results.suite.arms:
        wanted, found = results.suite.num_seeds(arm), 0
        if results.chosen_rate(arm) is not None:
            there = [results.values(arm, results.suite.metric, "test", t) for t in (1.0, OWN)]
            found = min(0 if values is None else len(values) for values in there)
        if 0 < found < wanted:
            partly.append(f"{arm} ({found} of {wanted} seeds)")
        elif found < wanted:
            not_begun.append(arm)
    parts = [f"{', '.join(partly)} in part"] if partly else []
    parts += [f"nothing of {', '.join(not_begun)}"] if not_begun else []
    if not parts:
        return ""
    return (
        f"Not complete yet: {'; '.join(parts)}. The command goes on with them. Until then the interval of an arm with "
        "one seed leaves out what differs between trainings."
    )
