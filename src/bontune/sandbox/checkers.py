"""Checkers, as many as work is given to at a time, kept alive between jobs; one that hangs is killed and replaced."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bontune.base.errors import BontuneError
from bontune.base.grades import Verdict
from bontune.sandbox.backends import BACKENDS, ISOLATING
from bontune.sandbox.checker import HEADER
from bontune.sandbox.checking import Program
from bontune.sandbox.probe import Attack

START_S = 120.0
"""For a checker to come up or to start a job, on a machine with better things to do."""
GRACE_S = 2.0
"""What a checker may take beyond a program's time before it is taken for hung."""
_COMMAND = "import sys, json; from bontune.sandbox.checker import main; main(*json.loads(sys.argv[1]))"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one program did."""

    passed: bool
    """Whether it passed."""
    reason: str
    """One phrase for people; empty if it passed."""
    seconds: float
    """Wall time, tests included."""
    verdict: Verdict
    """How it ended; a grader error says nothing of the program."""
    isolation: str
    """What it ran in: bubblewrap, landlock or unsafe."""
    answer: str = ""
    """What a check that is a function returned, if that was text and the program passed."""


class CheckerGone(RuntimeError):
    """A checker ended, or did not answer in time."""


def num_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Spawner:
    """Starts processes from one thread that lives as long as this process.

    The kernel kills a checker when the *thread* that started it ends (PR_SET_PDEATHSIG): a pool's thread would take
    its checkers with it.
    """

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin anew: neither threads nor the state of locks survive a fork."""
        self._requests: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._is_running = False
        self._lock = threading.Lock()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call the function on the spawning thread."""
        with self._lock:
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._serve, args=(self._requests,), daemon=True, name="spawner").start()
        future: Future[Any] = Future()
        self._requests.put((function, future))
        return future.result()

    @staticmethod
    def _serve(requests: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]) -> None:
        while True:
            function, future = requests.get()
            try:
                future.set_result(function())
            except BaseException as error:  # handed to the caller
                future.set_exception(error)


_spawner = _Spawner()


class CheckerProcess:
    """A checker, seen from the pool."""

    def __init__(self, backend_name: str) -> None:
        """Start it.

        Raises:
            BontuneError: this machine refuses the backend.
        """
        arguments = json.dumps([backend_name, os.getpid(), [entry for entry in sys.path if entry]])
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with tempfile.TemporaryFile() as said:
            self._process: subprocess.Popen[bytes] = _spawner.call(
                lambda: subprocess.Popen(
                    [sys.executable, "-B", "-c", _COMMAND, arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env=environment,
                    start_new_session=True,
                )
            )
            try:
                event = self.receive(START_S)
            except CheckerGone as error:
                self.kill()
                said.seek(0)
                detail = said.read().decode("utf-8", "replace").strip().splitlines()[-1:] or [str(error)]
                raise BontuneError(f"sandbox {backend_name} cannot be started: {detail[0]}") from error
        if event["event"] != "ready":
            self.kill()
            raise BontuneError(event["reason"])

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def send(self, job: bytes) -> None:
        """Give it a pickled job.

        Raises:
            CheckerGone: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(HEADER.pack(len(job)) + job)
            self._process.stdin.flush()
        except OSError as error:
            raise CheckerGone("it has ended") from error

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Its next event.

        Raises:
            CheckerGone: it ended, or said nothing in time.
        """
        deadline = time.monotonic() + timeout_s
        (length,) = HEADER.unpack(self._read(HEADER.size, deadline))
        event: dict[str, Any] = json.loads(self._read(length, deadline))
        return event

    def _read(self, length: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        pieces = bytearray()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while len(pieces) < length:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise CheckerGone("no answer in time")
            piece = os.read(descriptor, length - len(pieces))
            if not piece:
                raise CheckerGone("it ended")
            pieces += piece
        return bytes(pieces)

    def kill(self) -> None:
        """End it; its isolation dies with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close_pipes()

    def close(self) -> None:
        """Let it end by itself, which also removes its scratch folder; kill it if it does not."""
        self._close_pipes()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Pool:
    """Checkers of one isolation. Safe to use from several threads."""

    def __init__(self, wanted: str = "auto") -> None:
        """Find an isolation that holds.

        Args:
            wanted: a name, or "auto" for the first that holds.

        Raises:
            BontuneError: none holds, or the wanted one does not, or there is none of that name.
        """
        self._idle: list[CheckerProcess] = []
        self._lock = threading.Lock()
        self.name = ""
        self.name = self._choose(wanted)

    def _choose(self, wanted: str) -> str:
        if wanted != "auto" and wanted not in BACKENDS:
            raise BontuneError(f"no sandbox is called {wanted!r}: choose auto, {', '.join(BACKENDS)}")
        problems = []
        for name in ISOLATING if wanted == "auto" else (wanted,):
            found = examine(name)
            if isinstance(found, str):
                problems.append(f"{name}: {found}")
                continue
            checker, attacks = found
            broken = [attack.name for attack in attacks if not attack.is_stopped]
            if broken and name != "unsafe":
                checker.kill()
                problems.append(f"{name}: does not stop {', '.join(broken)}")
                continue
            self._idle.append(checker)
            return name
        raise BontuneError(
            f"no isolation for model-written programs holds here ({'; '.join(problems)}); "
            f"see `bontune doctor` ({BACKENDS['bubblewrap'].how_to_get}), "
            "or set BONTUNE_SANDBOX=unsafe to run them without"
        )

    def check(self, programs: Sequence[Program], *, num_workers: int) -> list[Outcome]:
        """Check them, ``num_workers`` at a time; the outcomes in the same order."""
        jobs = [_pickle(program) for program in programs]
        if len(jobs) <= 1 or num_workers <= 1:
            return [self._check(program, job) for program, job in zip(programs, jobs, strict=True)]
        executor = ThreadPoolExecutor(min(num_workers, len(jobs)), thread_name_prefix="grading")
        try:
            return list(executor.map(self._check, programs, jobs))
        finally:  # an interrupt leaves after the programs that are running, not after all of them
            executor.shutdown(cancel_futures=True)

    def _check(self, program: Program, job: bytes) -> Outcome:
        reason = ""
        for _ in range(2):
            checker = self._take()
            try:
                outcome = self._run(checker, program, job)
            except CheckerGone as error:
                reason = str(error)
                checker.kill()
            except BaseException:  # an interrupt: the checker is in the middle of something
                checker.kill()
                raise
            else:
                if outcome is None:
                    checker.kill()
                    return self._outcome(Verdict.TIMEOUT, "the test ran out of time", program.timeout_s + GRACE_S)
                with self._lock:
                    self._idle.append(checker)
                return outcome
        return self._outcome(Verdict.GRADER_ERROR, f"the checker failed twice: {reason}", 0.0)

    def _run(self, checker: CheckerProcess, program: Program, job: bytes) -> Outcome | None:
        """The outcome; None if the checker hangs in the test."""
        checker.send(job)
        event = checker.receive(START_S)
        while event["event"] in ("started", "stopped"):
            allowed_s = program.timeout_s + GRACE_S if event["event"] == "started" else START_S
            started = time.monotonic()
            try:
                event = checker.receive(allowed_s)
            except CheckerGone:
                if event["event"] == "started" and time.monotonic() - started >= allowed_s:
                    return None
                raise
        if event["event"] == "unusable":
            return self._outcome(Verdict.GRADER_ERROR, event["reason"], 0.0)
        return self._outcome(Verdict(event["verdict"]), event["reason"], event["seconds"], event["answer"])

    def _outcome(self, verdict: Verdict, reason: str, seconds: float, answer: str = "") -> Outcome:
        return Outcome(
            passed=verdict is Verdict.PASSED,
            reason=reason,
            seconds=seconds,
            verdict=verdict,
            isolation=self.name,
            answer=answer,
        )

    def _take(self) -> CheckerProcess:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return CheckerProcess(self.name)

    def close(self) -> None:
        """End the checkers that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for checker in idle:
            checker.close()


def examine(name: str) -> tuple[CheckerProcess, list[Attack]] | str:
    """Start a backend and attack it. Returns the living checker and what the attacks did, or why there is none."""
    reason = BACKENDS[name].unavailable()
    if reason is not None:
        return reason
    try:
        checker = CheckerProcess(name)
    except BontuneError as error:
        return str(error)
    if name == "unsafe":
        return checker, []
    try:
        checker.send(pickle.dumps("probe"))
        event = checker.receive(START_S)
    except CheckerGone as error:
        checker.kill()
        return f"the probe failed: {error}"
    return checker, [Attack(**attack) for attack in event["attacks"]]


def _pickle(program: Program) -> bytes:
    try:
        return pickle.dumps(program)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise BontuneError(f"the check of a program must be source or a module-level function: {error}") from error
