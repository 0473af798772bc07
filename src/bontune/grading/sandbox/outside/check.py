"""Run Python that a model wrote against tests it never sees, and say whether it passed.

    >>> row = {"prompt": "def twice(x):\\n", "entry_point": "twice", "test": "def check(f):\\n    assert f(4) == 8\\n"}
    >>> check_program(row, "    return 2 * x\\n").passed
    True
    >>> check_program(row, "    import os; os._exit(0)\\n").verdict.value
    'crashed'

The program runs in an isolated process; the test runs outside it and sees plain data only (``isolation``). Which
isolation holds on this machine is found out by trying real attacks, once. Without one nothing is run, unless
``BONTUNE_SANDBOX=unsafe`` says so, and then every outcome says so too.

A program has the standard library, a scratch folder of 64 MB, about a hundred threads, and the time and memory it was
given. It has no other process, no network, no file of the user's and no package installed beside the interpreter.
Programs are checked on Linux only.

A list, dictionary, set, queue or byte array that the test passes is shared: sorted in place by the program, it is
sorted for the test, too. So a test computes what it expects before it calls the program, as any Python test has to.

Checkers, the trusted processes that judge programs, stay alive between jobs; one that hangs is killed and replaced.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bontune.base.errors import BontuneError
from bontune.base.signals import num_cores
from bontune.grading.sandbox.outside.checker import Program
from bontune.grading.sandbox.outside.isolation import BACKENDS, ISOLATING
from bontune.grading.sandbox.outside.probe import Attack
from bontune.grading.verdict import Verdict
from bontune.grading.workers import FramedProcess, Gone, Late

PROGRAMS_AT_A_TIME = 256
"""Programs that are checked between two looks at whether to stop."""
START_S = 120.0
"""Seconds for a checker to come up or to start a job, on a busy machine."""
GRACE_S = 2.0
"""Seconds that a checker may take beyond a program's time before it is taken for hung."""
MAX_EVENT_BYTES = 1 << 30
"""Longest event that is read: an answer that a check returned is part of one."""
_COMMAND = (
    "import sys, json; from bontune.grading.sandbox.outside.checker import judge_jobs; "
    "judge_jobs(*json.loads(sys.argv[1]))"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one program did."""

    passed: bool
    """Whether the program passed."""
    reason: str
    """One phrase for people; empty if it passed."""
    seconds: float
    """Wall time, tests included."""
    verdict: Verdict
    """How the program ended; a grader error says nothing of the program."""
    isolation: str
    """Isolation that the program ran in: bubblewrap, landlock or unsafe."""
    answer: str = ""
    """Text that a check in the form of a function returned, if the program passed."""


def check_program(problem: Mapping[str, Any], completion: str, timeout: float = 5.0, memory_mb: int = 1024) -> Outcome:
    """Whether a completion of a HumanEval-shaped problem passes its test.

    Args:
        problem: a row with ``prompt``, ``entry_point`` and ``test`` (source that defines ``check(candidate)``).
        completion: the continuation of the prompt; the program is the two, joined as they are.
        timeout: seconds for everything.
        memory_mb: address space of the program.

    Returns:
        The outcome; a program never raises here, whatever it does.

    Raises:
        BontuneError: the row lacks a key, or no isolation holds on this machine.
    """
    return check_programs([humaneval_program(problem, completion, timeout_s=timeout, memory_mb=memory_mb)])[0]


def humaneval_program(
    problem: Mapping[str, Any], completion: str, *, timeout_s: float = 5.0, memory_mb: int = 1024
) -> Program:
    """The program and test of a HumanEval-shaped row, for ``check_programs``.

    Raises:
        BontuneError: the row lacks a key.
    """
    missing = [key for key in ("prompt", "entry_point", "test") if not isinstance(problem.get(key), str)]
    if missing:
        raise BontuneError(f"A problem needs the texts prompt, entry_point and test; this one lacks {missing[0]}.")
    return Program(
        source=problem["prompt"] + completion,
        entry_point=problem["entry_point"],
        check=problem["test"],
        helpers=problem["prompt"],
        timeout_s=timeout_s,
        memory_mb=memory_mb,
    )


def check_programs(
    programs: Iterable[Program], *, num_workers: int | None = None, poll: Callable[[], None] | None = None
) -> list[Outcome]:
    """Check many programs, as many at a time as there are cores; the outcomes in the same order.

    Args:
        programs: with their tests.
        num_workers: at a time; default: the cores this process may use.
        poll: called between batches of programs; what it raises ends the work.

    Raises:
        BontuneError: no isolation holds on this machine, or a check is a function that cannot be pickled.
    """
    all_programs, outcomes = list(programs), []
    for start in range(0, len(all_programs), PROGRAMS_AT_A_TIME):
        if poll is not None:
            poll()
        batch = all_programs[start : start + PROGRAMS_AT_A_TIME]
        outcomes += _default_pool().check(batch, num_workers=num_workers or num_cores())
    return outcomes


def sandbox_name() -> str:
    """The isolation in use, for a run's record: bubblewrap, landlock or unsafe.

    Raises:
        BontuneError: none holds on this machine.
    """
    return _default_pool().name


_pools: dict[str, Checkers] = {}
_pools_lock = threading.Lock()


def _default_pool() -> Checkers:
    choice = os.environ.get("BONTUNE_SANDBOX", "auto")
    with _pools_lock:
        if choice not in _pools:
            _pools[choice] = Checkers(choice)
        return _pools[choice]


@atexit.register
def _close_pools() -> None:
    for pool in _pools.values():
        pool.close()
    _pools.clear()


def _forget_pools() -> None:
    """After a fork: the parent's processes are the parent's, and its locks may be held by threads that are not here."""
    global _pools_lock
    _pools.clear()
    _pools_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_pools)


class Checkers:
    """Checkers of one isolation, the first that holds. Safe to use from several threads.

    Args:
        choice: an isolation's name, or "auto" for the first that holds.

    Raises:
        BontuneError: none holds, or the chosen one does not, or there is none of that name.
    """

    def __init__(self, choice: str = "auto") -> None:
        self._idle: list[CheckerProcess] = []
        self._lock = threading.Lock()
        self.name = self._chosen(choice)

    def _chosen(self, choice: str) -> str:
        if choice != "auto" and choice not in BACKENDS:
            raise BontuneError(f"No sandbox is called {choice!r}: choose auto, {', '.join(BACKENDS)}.")
        problems = []
        for name in ISOLATING if choice == "auto" else (choice,):
            examined = examine(name)
            if isinstance(examined, str):
                problems.append(f"{name}: {examined}")
                continue
            checker, attacks = examined
            broken = [attack.name for attack in attacks if not attack.is_stopped]
            if broken and name != "unsafe":
                checker.kill()
                problems.append(f"{name}: does not stop {', '.join(broken)}")
                continue
            self._idle.append(checker)
            return name
        raise BontuneError(
            f"No isolation for model-written programs holds here ({'; '.join(problems)}). "
            f"See `bontune doctor` ({BACKENDS['bubblewrap'].how_to_get}), "
            "or set BONTUNE_SANDBOX=unsafe to run them without isolation."
        )

    def check(self, programs: Sequence[Program], *, num_workers: int) -> list[Outcome]:
        """Check programs, ``num_workers`` at a time; the outcomes in the same order."""
        jobs = [_pickled(program) for program in programs]
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
            with self._lock:
                checker = self._idle.pop() if self._idle else None
            checker = checker or CheckerProcess(self.name)
            try:
                outcome = self._run(checker, program, job)
            except (Gone, Late) as error:
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
        checker.give(job)
        event = checker.event(START_S)
        while event["event"] in ("started", "stopped"):
            is_running = event["event"] == "started"
            try:
                event = checker.event(program.timeout_s + GRACE_S if is_running else START_S)
            except Late:
                if is_running:
                    return None
                raise
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
        return str(error).rstrip(".")
    if name == "unsafe":
        return checker, []
    try:
        checker.give(pickle.dumps("probe"))
        event = checker.event(START_S)
    except (Gone, Late) as error:
        checker.kill()
        return f"the probe failed: {error}"
    return checker, [Attack(**attack) for attack in event["attacks"]]


class CheckerProcess(FramedProcess):
    """A checker, seen from the process that gives it work.

    Args:
        backend_name: the isolation that its programs run in.

    Raises:
        BontuneError: this machine refuses the backend.
    """

    def __init__(self, backend_name: str) -> None:
        arguments = json.dumps([backend_name, os.getpid(), [entry for entry in sys.path if entry]])
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with tempfile.TemporaryFile() as errors:
            super().__init__(
                _spawner.call(
                    lambda: subprocess.Popen(
                        [sys.executable, "-B", "-c", _COMMAND, arguments],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        env=environment,
                        start_new_session=True,
                    )
                )
            )
            try:
                event = self.event(START_S)
            except (Gone, Late) as error:
                self.kill()
                errors.seek(0)
                detail = errors.read().decode("utf-8", "replace").strip().splitlines()[-1:] or [str(error)]
                raise BontuneError(f"Sandbox {backend_name} cannot be started: {detail[0]}.") from error
        if event["event"] != "ready":
            self.kill()
            raise BontuneError(event["reason"])

    def give(self, job: bytes) -> None:
        """Give the checker a pickled job.

        Raises:
            Gone: the checker has ended.
            Late: it did not take the job.
        """
        self.send(job, time.monotonic() + START_S)

    def event(self, timeout_s: float) -> dict[str, Any]:
        """The checker's next event.

        Raises:
            Gone: the checker has ended.
            Late: it said nothing in time.
        """
        event: dict[str, Any] = json.loads(self.receive(time.monotonic() + timeout_s, MAX_EVENT_BYTES))
        return event

    def close(self) -> None:
        """Let the checker end by itself, which also removes its scratch folder; kill it if it does not."""
        self.close_pipes()
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()


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


def _pickled(program: Program) -> bytes:
    try:
        return pickle.dumps(program)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise BontuneError(f"The check of a program must be source or a module-level function: {error}.") from error
