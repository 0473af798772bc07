"""The results of a suite as files: numbers (CSV, JSON), pictures, and the statement, claim by claim."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bontune.base.files import write_whole
from bontune.base.text import as_csv
from bontune.experiments.claims import Judged, judge
from bontune.experiments.figures_training import write_figures, write_learned
from bontune.experiments.results import OWN, Results, Temperature
from bontune.experiments.statement import described, paper_said, statement
from bontune.experiments.store import Run, Store
from bontune.experiments.suite import BASE, Suite
from bontune.experiments.summary import summarise, write_page
from bontune.metrics import Interval
from bontune.metrics.evaluation import Evaluation
from bontune.report.sentences import Summary
from bontune.report.suite_page import score_table


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
    write_csv(out / "differences.csv", difference_rows(results))
    write_csv(out / "choices.csv", choice_rows(results))
    write_csv(out / "measured.csv", measured_rows(results))
    figures = write_figures(results, out / "figures")
    if (picture := write_learned(results, out / "figures", work)) is not None:
        figures.append(picture)
    summary = summarise(results, verdicts)
    write_whole(
        out / "summary.json", (json.dumps(summary.as_tree(), indent=1, ensure_ascii=False) + "\n").encode(), "summary"
    )
    write_page(results, summary, figures, out / "report.html", work)
    write_whole(out / "README.md", statement(results, verdicts, figures, out, command), "statement")
    return verdicts, summary


def arm_rows(results: Results) -> list[dict[str, Any]]:
    """Every arm: its metrics on every kind of problems at T = 1, and at its own best T where that is measured."""
    rows = []
    for arm in results.arms:
        for data in ("test", *(["harder"] if results.suite.measuring.harder is not None else [])):
            for metric in metrics_of(results, arm, data):
                for choice in choices_of(results, metric):
                    level = results.level(arm, metric, data, choice)
                    if level is not None:
                        rows.append(
                            {
                                "arm": arm,
                                "label": results.suite.arms[arm].label,
                                "data": data,
                                "metric": metric,
                                "temperature": level.temperature,
                                "is_own_best": choice == OWN,
                                "seeds": level.num_seeds,
                                **_points(level.interval),
                            }
                        )
    return rows


def difference_rows(results: Results) -> list[dict[str, Any]]:
    """Every arm minus the base model, paired by problem."""
    rows = []
    for arm in results.arms:
        if arm == BASE:
            continue
        for data in ("test", *(["harder"] if results.suite.measuring.harder is not None else [])):
            for metric in metrics_of(results, arm):
                if "@" not in metric or metric not in metrics_of(results, BASE):
                    continue
                for choice in choices_of(results, metric):
                    found = results.difference(arm, BASE, metric, data, choice)
                    if found is not None:
                        rows.append(
                            {
                                "arm": arm,
                                "minus": BASE,
                                "data": data,
                                "metric": metric,
                                "each_at": "own best T" if choice == OWN else "T = 1",
                                **_points(results.told(found, data)),
                            }
                        )
    return rows


def choice_rows(results: Results) -> list[dict[str, Any]]:
    """What was tried on validation: learning rates (with checkpoints) and temperatures."""
    rows: list[dict[str, Any]] = []
    for arm, settings in results.suite.arms.items():
        name = results.suite.runs_of(arm)
        for lr in results.suite.rates(name) if arm != BASE else []:
            trial = results.trial(Run(arm=name, lr=lr))
            if trial is not None:
                kept = trial["kept"][settings.select]
                rows.append(
                    {
                        "arm": arm,
                        "choice": "lr",
                        "value": lr,
                        "by": settings.select,
                        "validation": 100 * kept["value"],
                        "step": kept["step"],
                        "is_chosen": lr == results.chosen_rate(arm),
                    }
                )
        for metric in results.suite.own_metrics():
            for t in results.suite.measuring.temperatures:
                chooser = results.by_seed(arm, "validation", t).get(0)
                if chooser is not None:
                    rows.append(
                        {
                            "arm": arm,
                            "choice": "temperature",
                            "value": t,
                            "by": metric,
                            "validation": 100 * float(chooser.values[metric].mean()),
                            "step": "",
                            "is_chosen": t == results.own_temperature(arm, metric),
                        }
                    )
    return rows


def measured_rows(results: Results) -> list[dict[str, Any]]:
    """Everything measured, one row per arm, seed, problems, temperature and metric (means over the problems)."""
    rows = []
    for arm in results.arms:
        for data in ("validation", "test", "harder"):
            for t in results.suite.measuring.temperatures:
                for seed, evaluation in results.by_seed(arm, data, t).items():
                    shown = {name: v for name, v in evaluation.values.items() if not np.isnan(v).all()}
                    for metric, mean in Evaluation(problem_ids=evaluation.problem_ids, values=shown).means().items():
                        if metric != "level":
                            rows.append(
                                {
                                    "arm": arm,
                                    "seed": seed,
                                    "data": data,
                                    "temperature": t,
                                    "metric": metric,
                                    "mean": round(mean, 6),
                                }
                            )
    return rows


def metrics_of(results: Results, arm: str, data: str = "test") -> list[str]:
    """The metrics of an arm that have a value for every problem; none where it is not measured on the problems."""
    found = results.evaluations(arm, data, 1.0)
    if not found:
        return []
    return [name for name in found[0].values if name not in ("level", "auc") and not name.endswith(":auc")]


def choices_of(results: Results, metric: str) -> list[Temperature]:
    """T = 1, and each arm's own best one for the metrics that it is measured at with all seeds."""
    return [1.0, OWN] if metric in results.suite.own_metrics() else [1.0]


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


def _points(interval: Interval) -> dict[str, float | None]:
    ends = {"low": 100 * interval.low, "high": 100 * interval.high}
    return {"value": 100 * interval.value} | {name: None if np.isnan(end) else end for name, end in ends.items()}
