"""Jobs in processes of their own: as many at a time as there are cores, stopped together, never orphaned."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError, Interrupted, RunStopped

POLL_S = 0.2
GRACE_S = 30.0
"""Time a job has to save after SIGTERM before it is killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One call in a process of its own."""

    name: str
    """Name of the job, for people."""
    function: Callable[..., None]
    """A module-level function; it may raise the errors of :mod:`bontune.base.errors`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the function (they are pickled)."""
    log: Path
    """File that takes what the job prints."""
    place: str = ""
    """Of jobs with the same place, such as a folder that they write in, one runs at a time; empty: the job's name."""


def run_jobs(
    jobs: Sequence[Job],
    *,
    workers: int,
    poll: Callable[[], None],
    more: Callable[[], Sequence[Job]] | None = None,
    on_failure: Callable[[str], None] | None = None,
) -> Iterator[set[str]]:
    """Run all jobs, at most ``workers`` at a time, each on one thread; yields the names that are running, now and then.

    Args:
        jobs: in order of start.
        workers: processes at a time.
        poll: called often; when it raises, the running jobs get SIGTERM and time to save.
        more: called when a job has ended: what can be done now, instead of what waits. Jobs of a place where one runs
            are left out; it is called again when that one has ended. So are jobs of a name that has failed.
        on_failure: called with a sentence when a job has failed, and the others go on; None: a failure ends all.

    Raises:
        RunStopped: a job failed and there is no ``on_failure``; the others are stopped first, and the message has the
            failed one's.
        Interrupted: from ``poll``.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(jobs)
    running: dict[str, tuple[Job, SpawnProcess]] = {}
    failed: set[str] = set()
    try:
        while waiting or running:
            while len(running) < workers and (job := _next(waiting, running)) is not None:
                waiting.remove(job)
                process = context.Process(target=_work, args=(job,), name=job.name)
                process.start()
                running[job.name] = (job, process)
            yield set(running)
            time.sleep(POLL_S)
            poll()
            ended = [(name, *entry) for name, entry in running.items() if entry[1].exitcode is not None]
            for name, job, process in ended:
                del running[name]
                if process.exitcode:
                    failed.add(name)
                    if on_failure is None:
                        raise RunStopped(_failure(job, process.exitcode))
                    on_failure(_failure(job, process.exitcode))
            if ended and more is not None:
                taken = _places(running)
                waiting = [job for job in more() if _place(job) not in taken and job.name not in failed]
    finally:
        _stop([process for _, process in running.values()])


def _next(waiting: Sequence[Job], running: dict[str, tuple[Job, SpawnProcess]]) -> Job | None:
    """The first job that can be started."""
    taken = _places(running)
    return next((job for job in waiting if _place(job) not in taken), None)


def _places(running: dict[str, tuple[Job, SpawnProcess]]) -> set[str]:
    return {_place(job) for job, _ in running.values()}


def _place(job: Job) -> str:
    return job.place or job.name


def _failure(job: Job, status: int) -> str:
    """A sentence about a job that ended with a status other than 0."""
    reason = _last_line(job.log)
    if status < 0:
        reason = f"killed by {signal.Signals(-status).name} after {reason!r}"
    return f"{job.name} failed: {reason} (all of it in {job.log})"


def _work(job: Job) -> None:
    """Run a job in its own process: print to the log, compute on one thread, die with the parent."""
    # Ctrl-C goes to the terminal's whole process group. The parent passes it on as SIGTERM; of both, the second would
    # end this process before it has saved.
    os.setpgrp()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import torch

    # Jobs side by side on one thread each beat one job on all threads for models this small, and give the same
    # numbers whatever the number of cores.
    torch.set_num_threads(1)
    try:
        job.function(**job.arguments)
    except Interrupted as stop:
        sys.exit(stop.status)
    except (BontuneError, RunStopped) as error:
        print(f"{error}", file=sys.stderr)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(Interrupted().status)


def _stop(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it printed nothing"


@contextmanager
def held(folder: Path, poll: Callable[[], None] = lambda: None, *, wait_s: float = 0.0) -> Iterator[None]:
    """Keep a second process out of a folder, which is made if it is not there.

    Args:
        folder: is locked itself: no file is left behind, and the lock goes with the process.
        poll: called often while waiting; raises to stop.
        wait_s: time that another process may take to leave.

    Raises:
        BontuneError: another process works there, or the folder cannot be made or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise BontuneError(f"The folder {folder} cannot be made: {error.strerror}.") from None
    try:
        deadline = time.monotonic() + wait_s
        while not _locks(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, folder):
            if time.monotonic() > deadline:
                raise BontuneError(f"Another process works in {folder}: wait for it, stop it, or give another folder.")
            time.sleep(POLL_S)
            poll()
        yield
    finally:
        os.close(descriptor)


@contextmanager
def visited(folder: Path) -> Iterator[None]:
    """Be one of several jobs in a folder: :func:`vacated` waits for all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def vacated(folder: Path, poll: Callable[[], None]) -> None:
    """Wait until no job is in a folder: those of a command that was killed save first, then leave.

    Raises:
        BontuneError: they are there for longer than saving takes; they belong to a command that runs.
    """
    with held(folder, poll, wait_s=GRACE_S + 5):
        pass


def _locks(descriptor: int, how: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BontuneError(f"The folder {folder} cannot be locked ({error.strerror}): give another folder.") from None
    return True
