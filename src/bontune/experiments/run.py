"""Running a suite: what is missing, as jobs side by side, under one progress board."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

import bontune.experiments.work as work_of
from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.experiments.jobs import Job, held, run_jobs, vacated
from bontune.experiments.results import Results
from bontune.experiments.store import BASE_SELECT, TRIAL, Measurement, Store, SuiteRun, task_section
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.tasks import load_task
from bontune.training.setup import check_objective

SAID_EVERY_S = 15.0
"""Time between two lines of progress where stderr is no terminal."""


class Runner:
    """Runs what is missing of a suite."""

    def __init__(
        self,
        suite: Suite,
        out: Path,
        work: Path,
        arms: Sequence[str] | None = None,
        workers: int = 1,
        command: str = "",
    ) -> None:
        """
        Args:
            suite: what to run.
            out: folder of the results.
            work: folder of the training runs and pools; large, and not needed once the results are there.
            arms: only these (with the base model); None: all.
            workers: processes at a time.
            command: the command that runs the suite; what is made records it.

        Raises:
            BontuneError: an arm that the suite does not have.
        """
        for arm in arms or ():
            if arm not in suite.arms:
                raise BontuneError(f"The suite has no arm {arm!r}; there are {', '.join(suite.arms)}.")
        self.suite, self.out, self.work, self.workers = suite, out, work, workers
        self.store = Store(out, suite, command)
        self.arms = [arm for arm in suite.arms if arm == BASE or arms is None or arm in arms]
        self.started = time.monotonic()

    def run(self, poll: Callable[[], None]) -> None:
        """Run all that is missing, the lower tiers first.

        Args:
            poll: called often; raises to stop.

        Raises:
            BontuneError: pieces of other settings are there, another process works in one of the folders, or the suite
                names what an objective or task refuses.
            RunStopped: jobs failed; all that does not rest on them is done first.
            Interrupted: from ``poll``; the same call resumes from there.
        """
        with held(self.out):
            vacated(self.work, poll)
            self.store.check_all()
            if self.jobs():
                self._check()
                self._run(poll)
            self.store.pieces.pack()

    def _check(self) -> None:
        """What would only be noticed when a job comes to it: objectives that refuse, data that are not there."""
        for name in self.suite.trained():
            try:
                check_objective(self.suite.run_recipe(name, self.suite.rates(name)[0], 0, "run"))
            except BontuneError as error:
                raise BontuneError(f"arms.{name}: {error}") from None
        for data in ("validation", "test", *(["harder"] if self.suite.measuring.harder is not None else [])):
            section = task_section(self.suite, data)
            split = section.pop("split")
            load_task(**section).problems(split)

    def _run(self, poll: Callable[[], None]) -> None:
        console = Console(stderr=True, markup=False, emoji=False)
        said = self.started
        failures: list[str] = []

        def failed(sentence: str) -> None:
            failures.append(sentence)
            print(f"{sentence}; the others go on", file=sys.stderr)

        with Live(console=console, refresh_per_second=2, transient=True) as live:
            try:
                for running in run_jobs(
                    self.jobs(), workers=self.workers, poll=poll, more=self.jobs, on_failure=failed
                ):
                    if console.is_terminal:
                        live.update(self.board(running))
                    elif time.monotonic() - said > SAID_EVERY_S:
                        said = time.monotonic()
                        states = (f"{name}: {self.state(name)}" for name in sorted(running))
                        print(
                            f"{said - self.started:5.0f} s  {self.progress()}   {'   '.join(states)}", file=sys.stderr
                        )
            except Interrupted:
                print("stopped by a signal; the same command goes on from there", file=sys.stderr)
                raise
        if failures:
            others = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
            raise RunStopped(
                f"{failures[0]}{others}. What does not rest on it is done; the same command tries the rest again."
            )

    def jobs(self) -> list[Job]:
        """What can be done now, tier by tier: a later tier gets the workers that an earlier one has no use for.

        Within a tier the first trainings, which choose learning rates, come first; the seeds of an arm follow when
        its seed 0 has chosen its temperatures.
        """
        results = Results(self.suite, self.store)
        missing = self._missing(SuiteRun(arm=BASE), BASE_SELECT, _measurements(results, BASE, 0))
        found = [self._job("measure", SuiteRun(arm=BASE), BASE_SELECT, missing)] if missing else []
        for tier in sorted({self.suite.arms[arm].tier for arm in self.arms}):
            arms = [arm for arm in self.arms if arm != BASE and self.suite.arms[arm].tier == tier]
            jobs = {job.name: job for arm in arms for job in [*self._choosing(arm), *self._measuring(arm, results)]}
            found += sorted(jobs.values(), key=lambda job: not job.name.startswith("train "))
        return found

    def _choosing(self, arm: str) -> list[Job]:
        """The trainings that an arm's learning rate is chosen from."""
        name = self.suite.runs_of(arm)
        runs = [SuiteRun(arm=name, lr=lr) for lr in self.suite.rates(name)]
        return [self._job("train", run) for run in runs if self.store.trial(run) is None]

    def _measuring(self, arm: str, results: Results) -> list[Job]:
        """The measurements with the chosen learning rate, after their trainings, as far as the choices are made."""
        select = self.suite.arms[arm].select
        jobs = []
        for run in results.runs(arm):
            if missing := self._missing(run, select, _measurements(results, arm, run.seed)):
                kind = "measure" if self.store.trial(run) is not None else "train_and_measure"
                jobs.append(self._job(kind, run, select, missing))
        return jobs

    def _missing(self, run: SuiteRun, select: str, whats: Sequence[Measurement]) -> list[Measurement]:
        return [what for what in whats if not self.store.has(run, select, what)]

    def _job(self, kind: str, run: SuiteRun, select: str = "", whats: Sequence[Measurement] = ()) -> Job:
        arguments: dict[str, Any] = {
            "suite": self.suite.model_dump(mode="json"),
            "out": str(self.out),
            "work": str(self.work),
            "run": asdict(run),
            "command": self.store.origin["command"],
        }
        if kind != "train":
            arguments |= {"select": select, "whats": [asdict(what) for what in whats]}
        chosen_by = f" by {select}" if select and run.arm != BASE else ""
        return Job(
            name=f"{kind.replace('_', ' ')} {run.name}{chosen_by}",
            function=getattr(work_of, kind),
            arguments=arguments,
            log=work_of.run_folder(self.work, run) / "log.txt",
            place=run.name,
        )

    # ---- the board ----

    def board(self, running: set[str]) -> Table:
        """What is being done, and how much is done."""
        title = f"{self.suite.title}   {time.monotonic() - self.started:.0f} s   {self.progress()}"
        table = Table(title=title, title_justify="left")
        table.add_column("running")
        table.add_column("", justify="right")
        for name in sorted(running):
            table.add_row(name, self.state(name))
        return table

    def progress(self) -> str:
        """How many trainings of the suite are done; all arms have the same number of runs, whatever is chosen."""
        trained = [arm for arm in self.suite.trained() if arm in {self.suite.runs_of(name) for name in self.arms}]
        total = sum(len(self.suite.rates(arm)) + self.suite.num_seeds(arm) - 1 for arm in trained)
        runs = (name.partition("/")[0] for name in self.store.pieces.names() if name.endswith(TRIAL))
        done = sum(run.rpartition("-lr")[0] in trained for run in runs)
        return f"{min(done, total)} of {total} trainings done"

    def state(self, name: str) -> str:
        """Say how far a running job is."""
        folder = name.split(" by ")[0].split()[-1]
        if name.startswith("train"):
            step, seconds = work_of.progress_of(self.work / folder)
            total = self.suite.tree(folder.rpartition("-lr")[0])["training"]["steps"]
            if step < total:
                return f"step {step}/{total}" + (f", {(total - step) * seconds:.0f} s" if seconds else "")
        pools = sum(name.startswith(f"{folder}/") and name.endswith(".parquet") for name in self.store.pieces.names())
        return f"measuring, {pools} pools done"


def _measurements(results: Results, arm: str, seed: int) -> list[Measurement]:
    """All that is measured of a run, as far as it is known: seed 0 chooses temperatures, the others use them."""
    suite = results.suite
    harder = ["harder"] if suite.measuring.harder is not None else []
    found: list[Measurement] = []
    if seed == 0:
        shown = ["test", *harder] if arm == BASE or arm in main_arms(suite) else []  # at every T
        found += [
            Measurement(data=d, temperature=t) for d in ("validation", *shown) for t in suite.measuring.temperatures
        ]
    own = {metric: results.own_temperature(arm, metric) for metric in suite.own_metrics()}
    if None in own.values():
        return found
    found += [Measurement(data="test", temperature=t) for t in (1.0, *own.values()) if t is not None]
    found += [Measurement(data=d, temperature=t) for d in harder for t in (1.0, own[suite.metric] or 1.0)]
    return list(dict.fromkeys(found))
