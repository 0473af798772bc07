"""What a suite's page shows besides numbers: one problem with samples of each model, and what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from bontune.experiments.results import Results
from bontune.experiments.store import Run
from bontune.experiments.suite import BASE, main_arms
from bontune.experiments.work import run_folder
from bontune.report.run_page import largest_n
from bontune.training.read_log import read_samples


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
    runs: list[Run] = [] if arm is None else results.runs(arm)
    shown = example(results, work)
    if arm is None or not runs or shown is None:
        return ""
    model = run_folder(work, runs[0]) / "best" / results.suite.arms[arm].select
    if not model.is_dir():
        return ""
    tree = results.suite.tree(arm)
    verifier = tree["verifier"]["path"] or tree["verifier"]["function"]
    verifier = verifier or ("countdown-verifier" if tree["task"]["name"] == "countdown" else "majority")
    n, tokens = largest_n(tree["objective"]), tree["sampling"]["max_new_tokens"]
    command = ["bontune", "answer", str(model), "--verifier", verifier, "-n", str(n or 16)]
    return shlex.join([*command, "--max-new-tokens", str(tokens), shown["prompt"]])
