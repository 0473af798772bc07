"""The plain statement of a suite: claim by claim, then every arm, how it was done, and the pictures."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bontune.base.files import write_whole
from bontune.experiments.claims import Judged, judge
from bontune.experiments.figure_parts import Figure, arm_looks, over
from bontune.experiments.figures_training import write_figures, write_learned
from bontune.experiments.results import OWN, Level, Results, arm_rows, chance_level, choice_rows, provenance_rows
from bontune.experiments.store import Store, SuiteRun
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.experiments.work import model_folder, run_folder
from bontune.metrics import Interval
from bontune.metrics.evaluation import MEANINGS
from bontune.pools.compare import FEWEST_PROBLEMS, Difference, Outcome, outcome_of
from bontune.report.numbers import NOT_MEASURED, interval_text, percent, points
from bontune.report.page import picture
from bontune.report.run_page import largest_n
from bontune.report.sentences import Summary, ranges
from bontune.report.style import has_label
from bontune.report.suite_page import score_table, write_suite_page
from bontune.report.tables import as_csv
from bontune.training.read_log import read_samples

_CHECKPOINTS = {
    "best": "the checkpoint of each run by its own evaluations; learning rate and checkpoint by what the arm is "
    "trained for",
    "last": "the learning rate by what the arm is trained for; of each run the last step is measured",
}
"""How the measured model of a run was chosen, for ``measuring.checkpoint``."""


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
    parts += ["## Every arm", "", *_arms(results), "", *_chance(results)]
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
        f"temperature of each arm with seed 0, {_CHECKPOINTS[measuring.checkpoint]} (`choices.csv`)."
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


def _chance(results: Results) -> list[str]:
    """What guessing solves, beside what each arm solves; empty where it is not known, or nearly nothing."""
    k = int(results.suite.metric.partition("@")[2])
    levels = {arm: level for arm in results.arms if (level := chance_level(results, arm, k)) is not None}
    if not levels:
        return []
    lines = [f"| arm | pass@{k}, T = 1 | chance@{k}, T = 1 | above chance, points |", "|---|---|---|---|"]
    for arm, level in levels.items():
        above = results.level(arm, f"above@{k}")
        cells = [_cell(results.level(arm, f"pass@{k}")), _cell(level)]
        cells += [NOT_MEASURED if above is None else interval_text(above.interval, points)]
        lines.append(f"| {results.suite.arms[arm].label} | {' | '.join(cells)} |")
    return [f"chance@{k}: {MEANINGS['chance']}.", "", *lines, ""]


def _cell(level: Level | None) -> str:
    return NOT_MEASURED if level is None else interval_text(level.interval, percent)


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


def example(results: Results, work: Path) -> dict[str, Any] | None:
    """The first validation problem with samples of the base model and of each main arm, from the runs that are there.

    Args:
        results: of the suite.
        work: folder of its runs.

    Returns:
        ``problem``, ``prompt`` and ``models``: label and completions; None where the runs are not there any more.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in main_arms(results.suite):
        runs = results.runs(arm)
        rows = read_samples(run_folder(work, runs[0])) if arm != BASE and runs else []
        if rows:
            found.setdefault(BASE, [row for row in rows if row["step"] == 0])
            found[arm] = [row for row in rows if row["step"] == rows[-1]["step"]]
    first = next((rows[0] for rows in found.values() if rows), None)
    if first is None:
        return None
    models = [
        {"label": results.suite.arms[arm].label, "completions": row["completions"]}
        for arm, rows in found.items()
        for row in rows
        if row["problem"] == first["problem"]
    ]
    return {"problem": first["problem"], "prompt": first["prompt"], "models": models}


def next_command(results: Results, work: Path) -> str:
    """The command that asks the model that was just trained for Best-of-N; empty where it is not there."""
    arm = next((arm for arm in main_arms(results.suite) if arm != BASE), None)
    runs: list[SuiteRun] = [] if arm is None else results.runs(arm)
    shown = example(results, work)
    if arm is None or not runs or shown is None:
        return ""
    model = model_folder(results.suite, work, runs[0], results.suite.arms[arm].select)
    if not model.is_dir():
        return ""
    tree = results.suite.tree(arm)
    verifier = tree["verifier"]["path"] or tree["verifier"]["function"]
    verifier = verifier or ("countdown-verifier" if tree["task"]["name"] == "countdown" else "majority")
    n, tokens = largest_n(tree["objective"]), tree["sampling"]["max_new_tokens"]
    command = ["bontune", "answer", str(model), "--verifier", verifier, "-n", str(n or 16)]
    return shlex.join([*command, "--max-new-tokens", str(tokens), shown["prompt"]])


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
                claimed = results.told(difference)
                low, high = (None if math.isnan(end) else end for end in (claimed.low, claimed.high))
                a, b = name[claim.a], name[claim.b]
                differences.append(
                    Difference(a=a, b=b, metric=claim.metric, value=difference.value, low=low, high=high)
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


def write_suite_files(results: Results, summary: Summary, figures: Sequence[Figure], path: Path, work: Path) -> None:
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


def write_results(suite: Suite, store: Store, out: Path, work: Path, command: str) -> tuple[list[Judged], Summary]:
    """Write ``claims.json``, tables, pictures, ``summary.json``, ``report.html`` and ``README.md`` of a suite so far.

    Args:
        suite: whose.
        store: its pieces.
        out: where to.
        work: the folder of its runs; the distribution of answers is read from the pools that are left there.
        command: that makes these results, for the statement.

    Returns:
        The claims with their numbers, and the summary of the main arms.
    """
    results = Results(suite, store)
    verdicts = judge(results)
    write_whole(
        out / "claims.json",
        (json.dumps([v.row() for v in verdicts], indent=1, ensure_ascii=False) + "\n").encode(),
        "claims",
    )
    write_csv(out / "arms.csv", arm_rows(results))
    write_csv(out / "choices.csv", choice_rows(results))
    write_csv(out / "provenance.csv", provenance_rows(results))
    figures = write_figures(results, out / "figures")
    if (picture := write_learned(results, out / "figures", work)) is not None:
        figures.append(picture)
    summary = summarise(results, verdicts)
    write_whole(
        out / "summary.json", (json.dumps(summary.as_tree(), indent=1, ensure_ascii=False) + "\n").encode(), "summary"
    )
    write_suite_files(results, summary, figures, out / "report.html", work)
    write_whole(out / "README.md", statement(results, verdicts, figures, out, command), "statement")
    return verdicts, summary


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows; none: the file is left out, and one that was there is removed."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    rounded = [{key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()} for row in rows]
    write_whole(path, as_csv(rounded), "numbers")


def print_statement(verdicts: Iterable[Judged], summary: Summary, out: Path) -> None:
    """Print what the main arms reach, and the claims."""
    console = Console(markup=False, emoji=False)
    console.print(score_table(summary).terminal())
    verdicts = list(verdicts)
    columns: dict[str, Callable[[Judged], str]] = {"measured": lambda v: described(v, v.own)}
    if any(paper_said(verdict) for verdict in verdicts):
        columns = {"paper": paper_said, **columns}
    if any(verdict.own != verdict.at_1 for verdict in verdicts):
        columns["at T = 1"] = lambda v: described(v, v.at_1)
    table = Table(title="Claim by claim", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim", overflow="fold")
    for heading in (*columns, "holds"):
        table.add_column(heading, justify="right", overflow="fold")
    for verdict in verdicts:
        state = {True: Text("yes", style="green"), False: Text("no", style="red"), None: Text(verdict.state)}
        said = [say(verdict) for say in columns.values()]
        table.add_row(Text(verdict.claim.claim), *said, state[verdict.holds])
    console.print(table)
    print(f"{out}/report.html and {out}/README.md have all of it, with pictures; the numbers are beside them as CSV.")
