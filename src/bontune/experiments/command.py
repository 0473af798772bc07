"""``bontune reproduce`` and ``bontune quickstart``: run a suite, write its results, print them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.signals import StopSignals, num_cores
from bontune.experiments.suite import load_suite

FULL = ("seeds=3", "recipe.training.steps=400", "recipe.kl.steps=400")
"""Overrides of the suite ``quickstart`` that ``bontune quickstart --full`` adds."""


def run_quickstart(out: Path, *, is_full: bool) -> None:
    """``bontune quickstart``: the suite of that name, with its runs beside its results.

    Raises:
        BontuneError, RunStopped, Interrupted: as :func:`run_reproduce`.
    """
    overrides = FULL if is_full else ()
    run_reproduce("quickstart", overrides, out=out, work=out / "runs", arms=None, workers=None, is_report_only=False)


def run_reproduce(
    source: str,
    overrides: Sequence[str],
    *,
    out: Path | None,
    work: Path | None,
    arms: str | None,
    workers: int | None,
    is_report_only: bool,
) -> None:
    """``bontune reproduce``: run what is missing of a suite, then write tables, pictures and the statement.

    Raises:
        BontuneError: no such suite or arm, or results of other settings in the folder.
        RunStopped: trainings or measurements failed; the others are done, and the results of these written.
        Interrupted: a signal; the same command resumes from there.
    """
    suite = load_suite(source, overrides)  # before torch is loaded: names are answered at once
    from bontune.experiments.run import Runner
    from bontune.experiments.statement import print_statement, write_results

    name = Path(source).stem
    out, work = out or Path("results") / name, work or Path("runs") / "reproduce" / name
    if workers is not None and workers < 1:
        raise BontuneError(f"--workers takes a number from 1 up, got {workers}.")
    chosen = None if arms is None else [arm.strip() for arm in arms.split(",") if arm.strip()]
    command = shlex.join(["bontune", "reproduce", source, *overrides])
    runner = Runner(suite, out, work, chosen, workers or num_cores(), command)
    failure: RunStopped | None = None
    if not is_report_only:
        with StopSignals() as signals:
            try:
                runner.run(signals.poll)
            except RunStopped as stopped:
                failure = stopped
    verdicts, summary = write_results(suite, runner.store, out, work, command)
    print_statement(verdicts, summary, out)
    if failure is not None:
        raise failure
