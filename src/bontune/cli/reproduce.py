"""``bontune reproduce`` and ``bontune quickstart``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bontune.cli import options as shared


def quickstart(
    out: Annotated[Path, typer.Option(help="Write the runs, the summary and the report into this folder.")] = Path(
        "runs/quickstart"
    ),
    full: Annotated[bool, typer.Option("--full", help="Train longer and with three seeds.")] = False,
) -> None:
    """Train the embedded model by plain RL and for Best-of-N, and show the difference.

    Runs offline on a CPU in a few minutes.
    """
    from bontune.experiments.command import run_quickstart

    run_quickstart(out, is_full=full)


def reproduce_suite(
    suite: Annotated[
        str,
        typer.Argument(help="A suite (quickstart, countdown, programs, sizes, votes, math, humaneval) or a YAML file."),
    ],
    overrides: shared.KeyValues = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write results here; default: results/SUITE.")] = None,
    work: Annotated[Path | None, typer.Option(help="Train in this folder; default: runs/reproduce/SUITE.")] = None,
    arms: Annotated[str | None, typer.Option(help="Run only these arms, such as bon_rl,rl; default: all.")] = None,
    workers: Annotated[int | None, typer.Option(help="Use this many processes; default: one per core.")] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; write tables and pictures of what is there.")
    ] = False,
) -> None:
    """Run an experiment of the paper: train every arm, measure all alike, and check each claim.

    A stopped suite goes on where it was; results are kept as they come. KEY=VALUE change the suite.

    Examples: bontune reproduce countdown

    bontune reproduce math recipe.model=google/gemma-2-2b recipe.task.data=DATA seeds=3
    """
    from bontune.experiments.command import run_reproduce

    run_reproduce(suite, overrides or [], out=out, work=work, arms=arms, workers=workers, is_report_only=report_only)
