"""Contract of jobs in processes of their own, with the quickstart as the program that runs them:

1. Ctrl-C, which reaches the whole process group, or SIGTERM to the parent alone lets every running job save its last
   completed step; the parent exits with 143 (130 after Ctrl-C), and the same command goes on from there;
2. when the parent is killed (-9), its jobs save and leave by themselves: no process survives, not even one that never
   polls;
3. a failing job stops the others, and its message, or the signal that killed it, is the parent's; or, for who takes
   the message, the others go on, and what failed is not tried again;
4. what can be done is asked for again when jobs have ended, and in one place only one job runs at a time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import processes
from bontune.base.errors import Interrupted, RunStopped
from bontune.experiments import jobs as parallel
from bontune.experiments.jobs import Job, run_jobs
from training.run_driver import ENVIRONMENT, metrics, steps, wait_for

# ---- 1, 2: the quickstart ----


class Quickstart:
    """`bontune quickstart` in a session of its own, by which all its descendants are known."""

    def __init__(self, out: Path) -> None:
        self.out = out
        command = ["quickstart", "--out", str(out)]
        with open(out / "parent.txt", "ab") as log:
            self.process = processes.start(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)

    def alive(self) -> list[int]:
        """All processes of this quickstart."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                is_ours = folder.name.isdigit() and os.getsid(int(folder.name)) == self.process.pid
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0] if is_ours else "Z"
            except OSError:
                continue
            if state != "Z":
                found.append(int(folder.name))
        return found

    def runs(self) -> list[Path]:
        """The runs that are training."""
        return [path.parent for path in self.out.glob("runs/*/metrics.jsonl")]

    def wait_for_steps(self, beyond: dict[Path, int]) -> None:
        """Wait until a training is a step beyond where it was."""
        wait_for(
            lambda: any(last_step(run) > beyond.get(run, 0) for run in self.runs()) or self.process.poll(),
            "steps of the quickstart",
        )
        assert self.process.poll() is None, (self.out / "parent.txt").read_text()

    def wait_until_gone(self) -> int:
        """Wait for the end of the parent and of all its descendants."""
        code = self.process.wait(60)
        wait_for(lambda: not self.alive(), "all processes to leave", 60)
        return code


def last_step(run: Path) -> int:
    try:
        return max((row["step"] for row in metrics(run)), default=0)
    except ValueError:  # a line that is being written
        return 0


def saved_steps(runs: list[Path]) -> dict[Path, int]:
    return {run: steps(run)[-1] for run in runs if steps(run)}


def assert_all_saved(runs: list[Path], before: dict[Path, int]) -> dict[Path, int]:
    """Every run's newest checkpoint is its last step, and somewhere there is a new one."""
    saved = saved_steps(runs)
    assert saved != before
    for run in runs:
        assert saved.get(run, 0) == last_step(run)
    return saved


def test_the_quickstart_is_stopped_and_killed(tmp_path: Path) -> None:
    saved: dict[Path, int] = {}
    for stop in ("ctrl-c", "kill"):
        quickstart = Quickstart(tmp_path)
        try:
            quickstart.wait_for_steps(saved)
            assert len(quickstart.alive()) >= 2
            if stop == "ctrl-c":
                os.killpg(quickstart.process.pid, signal.SIGINT)
            else:
                quickstart.process.kill()
            assert quickstart.wait_until_gone() == (-9 if stop == "kill" else 130)
        finally:
            for pid in quickstart.alive():
                os.kill(pid, signal.SIGKILL)
        saved = assert_all_saved(quickstart.runs(), saved)
        for run in quickstart.runs():
            rows = [row["step"] for row in metrics(run) if row["kind"] == "step"]
            assert rows == list(range(1, len(rows) + 1))
            assert "Traceback" not in (run / "log.txt").read_text()
    said = (tmp_path / "parent.txt").read_text()
    assert said.count("stopped by a signal; the same command goes on from there") == 1
    assert "Traceback" not in said


# ---- 3: small jobs ----


def never_polls(started: str) -> None:
    """A job that no flag reaches."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(started).write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)


def stops_when_told(started: str) -> None:
    """A job as it should be."""
    from bontune.base.signals import StopSignals

    with StopSignals() as signals:
        Path(started).write_text(str(os.getpid()))
        try:
            while True:
                signals.poll()
                time.sleep(0.01)
        except Interrupted:
            time.sleep(1)  # a save takes its time
            Path(started).write_text("saved")
            raise


def fails(kind: str, other: str) -> None:
    """A job that fails once the other one runs."""
    wait_for(Path(other).exists, "the other job")
    print("working", flush=True)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {"stopped": RunStopped, "broken": KeyError}[kind]("the reason of it all")


@pytest.mark.parametrize(
    ("kind", "phrase"),
    [
        ("stopped", "bad failed: the reason of it all"),
        ("broken", "bad failed: KeyError: 'the reason of it all'"),
        ("killed", "bad failed: killed by SIGKILL after 'working'"),
    ],
)
def test_a_failing_job_stops_the_others(tmp_path: Path, kind: str, phrase: str) -> None:
    other = tmp_path / "other"
    jobs = [
        Job(name="good", function=stops_when_told, arguments={"started": str(other)}, log=tmp_path / "good.txt"),
        Job(name="bad", function=fails, arguments={"kind": kind, "other": str(other)}, log=tmp_path / "bad.txt"),
    ]
    with pytest.raises(RunStopped) as failed:
        for _ in run_jobs(jobs, workers=2, poll=lambda: None):
            pass
    assert phrase in str(failed.value)
    assert str(tmp_path / "bad.txt") in str(failed.value)
    assert other.read_text() == "saved"


def test_a_failing_job_leaves_the_others_alone_where_somebody_takes_its_message(tmp_path: Path) -> None:
    """It is told of again and not started again; what waits, and what is told of for the first time, is run."""

    def job(name: str) -> Job:
        if name == "bad":
            arguments = {"kind": "stopped", "other": str(tmp_path)}
            return Job(name=name, function=fails, arguments=arguments, log=tmp_path / "bad.txt")
        arguments = {"place": str(tmp_path / name), "number": 0, "num_together": 0}
        return Job(name=name, function=visits, arguments=arguments, log=tmp_path / f"{name}.txt")

    said: list[str] = []
    first, then = ["bad", "waits"], ["bad", "waits", "comes later"]

    def more() -> list[Job]:
        return [job(name) for name in then if not (tmp_path / name / "0").exists()]

    for _ in run_jobs([job(name) for name in first], workers=1, poll=lambda: None, more=more, on_failure=said.append):
        pass
    assert said == [f"bad failed: the reason of it all (all of it in {tmp_path / 'bad.txt'})"]
    assert all((tmp_path / name / "0").exists() for name in ("waits", "comes later"))
    assert (tmp_path / "bad.txt").read_text().count("working") == 1


def test_a_job_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "GRACE_S", 0.5)
    started = tmp_path / "started"

    def poll() -> None:
        if started.exists() and started.read_text():
            raise Interrupted("SIGTERM")

    jobs = [Job(name="deaf", function=never_polls, arguments={"started": str(started)}, log=tmp_path / "log.txt")]
    with pytest.raises(Interrupted):
        for _ in run_jobs(jobs, workers=1, poll=poll):
            pass
    assert not Path(f"/proc/{started.read_text()}").exists()


PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from experiments import test_jobs
from bontune.experiments import jobs as parallel
from bontune.base.errors import Interrupted
from bontune.base.signals import StopSignals
parallel.GRACE_S = {grace_s}
if __name__ == "__main__":
    started = Path({started!r})
    log = started.with_suffix(".txt")
    job = parallel.Job(name="job", function=test_jobs.{function}, arguments={{"started": {started!r}}}, log=log)
    try:
        with StopSignals() as signals:
            for _ in parallel.run_jobs([job], workers=1, poll=signals.poll):
                pass
    except Interrupted:
        sys.exit(143)
"""


def parent_of(function: Callable[[str], None], started: Path, grace_s: float) -> tuple[subprocess.Popen[bytes], int]:
    """A process that runs one job, and the job's pid once it is at work."""
    script = started.with_suffix(".py")
    tests = str(Path(__file__).parents[1])
    script.write_text(PARENT.format(tests=tests, started=str(started), function=function.__name__, grace_s=grace_s))
    parent = subprocess.Popen([sys.executable, str(script)], env=ENVIRONMENT, start_new_session=True)
    wait_for(lambda: started.exists() and started.read_text(), "the job")
    return parent, int(started.read_text())


@pytest.mark.parametrize("stop", ["SIGTERM", "ctrl-c"])
def test_the_parent_is_told_to_stop(tmp_path: Path, stop: str) -> None:
    parent, pid = parent_of(stops_when_told, tmp_path / "started", 30.0)
    if stop == "ctrl-c":
        os.killpg(parent.pid, signal.SIGINT)
    else:
        parent.terminate()
    assert parent.wait(60) == 143
    assert not Path(f"/proc/{pid}").exists()
    assert (tmp_path / "started").read_text() == "saved"


def test_a_job_that_does_not_listen_does_not_outlive_its_parent(tmp_path: Path) -> None:
    parent, pid = parent_of(never_polls, tmp_path / "started", 0.5)
    parent.kill()
    parent.wait()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the job to leave", 60)


def test_all_done(tmp_path: Path) -> None:
    jobs = [
        Job(name=str(i), function=write_numbers, arguments={"path": str(tmp_path / str(i))}, log=tmp_path / "log.txt")
        for i in range(3)
    ]
    seen = list(run_jobs(jobs, workers=2, poll=lambda: None))
    assert max(map(len, seen)) == 2
    assert [json.loads((tmp_path / str(i)).read_text()) for i in range(3)] == [1, 1, 1]


def write_numbers(path: str) -> None:
    """How many threads torch takes in a job."""
    import torch

    Path(path).write_text(json.dumps(torch.get_num_threads()))


# ---- 4: more jobs, and places ----


def visits(place: str, number: int, num_together: int) -> None:
    """Enter a folder that no other job may be in, wait until so many jobs are at work somewhere, and leave."""
    folder = Path(place)
    inside = folder / "inside"
    inside.mkdir(parents=True)  # fails if another job is inside
    (folder.parent / f"began-{number}").write_text("")
    wait_for(lambda: len(list(folder.parent.glob("began-*"))) >= num_together, "the other job")
    inside.rmdir()
    (folder / str(number)).write_text("")


def test_jobs_of_one_place_run_one_after_the_other(tmp_path: Path) -> None:
    """The second job of place a waits; that of b, behind it, goes first, and the first one waits for that."""
    jobs = [
        Job(
            name=f"{place}{number}",
            function=visits,
            log=tmp_path / f"{number}.txt",
            place=place,
            arguments={"place": str(tmp_path / place), "number": number, "num_together": 2},
        )
        for number, place in enumerate(["a", "a", "b"])
    ]
    seen = list(run_jobs(jobs, workers=2, poll=lambda: None))
    assert not any({"a0", "a1"} <= names for names in seen)
    assert {"a0", "b2"} in seen
    assert sorted(path.name for path in tmp_path.glob("[ab]/*")) == ["0", "1", "2"]


def test_more_jobs_follow_those_that_have_ended(tmp_path: Path) -> None:
    """Each is started once, though it is named again while it runs, under its name or as another job of its place."""
    asked: list[set[str]] = []

    def job(number: int, place: str, suffix: str = "") -> Job:
        return Job(
            name=f"{number}{suffix}",
            function=visits,
            log=tmp_path / f"{number}.txt",
            place=place,
            arguments={"place": str(tmp_path / place), "number": number, "num_together": 2 if number < 2 else 0},
        )

    def more() -> list[Job]:
        done = {path.name for path in tmp_path.glob("[abc]/*") if path.is_file()}
        asked.append(done)
        left = [job(0, "a", " again"), job(1, "b", " again")]
        if {"0", "1"} <= done:
            left.append(job(2, "c"))
        return [entry for entry in left if entry.name[0] not in done]

    seen = list(run_jobs([job(0, "a"), job(1, "b")], workers=2, poll=lambda: None, more=more))
    assert sorted(path.name for path in tmp_path.glob("[abc]/*")) == ["0", "1", "2"]
    assert asked[-1] == {"0", "1", "2"}
    assert {"2"} in seen
    assert not any(name.endswith("again") for names in seen for name in names if name not in seen[0])


def test_what_is_told_when_a_job_ends_goes_before_what_waits(tmp_path: Path) -> None:
    """Two workers: "later" waits; when the first ends, "sooner" is told of and starts instead."""

    def job(name: str, number: int) -> Job:
        return Job(
            name=name,
            function=visits,
            log=tmp_path / f"{name}.txt",
            place=name,
            arguments={"place": str(tmp_path / name), "number": number, "num_together": 1},
        )

    def more() -> list[Job]:
        done = {path.parent.name for path in tmp_path.glob("*/[0-9]")}
        return [job(name, number) for number, name in enumerate(["first", "sooner", "later"]) if name not in done]

    seen = [
        next(iter(names))
        for names in run_jobs([job("first", 0), job("later", 2)], workers=1, poll=lambda: None, more=more)
        if names
    ]
    assert list(dict.fromkeys(seen)) == ["first", "sooner", "later"]


def test_what_can_be_done_cannot_be_told(tmp_path: Path) -> None:
    """An error of ``more`` stops what is running."""
    other = tmp_path / "other"

    def more() -> list[Job]:
        raise RunStopped("pieces of other settings")

    jobs = [
        Job(name="good", function=stops_when_told, arguments={"started": str(other)}, log=tmp_path / "good.txt"),
        Job(name="short", function=waits_for, arguments={"path": str(other)}, log=tmp_path / "short.txt"),
    ]
    with pytest.raises(RunStopped, match="pieces of other settings"):
        for _ in run_jobs(jobs, workers=2, poll=lambda: None, more=more):
            pass
    assert other.read_text() == "saved"


def waits_for(path: str) -> None:
    """A job that ends when another one has begun."""
    wait_for(Path(path).exists, "the other job")
