"""Worker processes that can be killed, for jobs on hostile input that may hang, crash or eat memory.

A thread cannot be stopped, ``signal.alarm`` works in the main thread only and cannot interrupt C code, and an
executor's worker outlives the job it hangs on. Here each job has a deadline on the caller's clock; a worker that
misses it is killed with SIGKILL and replaced.

A worker is a fresh interpreter (``python -I``, nothing inherited but two pipes), so it does not matter how many threads
run here or what is loaded, and it ends with its parent however that ends: the pipe closes, the parent changes, or, in
the middle of a computation, the kernel's CPU limit falls. ``PR_SET_PDEATHSIG`` is not used: it fires when the *thread*
that started the worker ends.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

MAX_REPLY_BYTES = 1 << 20
MAX_JOB_BYTES = 1 << 20
START_TIMEOUT_S = 120.0
_WORKER = Path(__file__).with_name("worker_process.py")


class Ending(Enum):
    """How a job ended."""

    DONE = "done"
    TIMEOUT = "timeout"
    """Killed at the deadline."""
    CRASHED = "crashed"
    """The worker died of the job twice: out of memory, or killed by another hand."""
    ERROR = "error"
    """The function raised, its reply was too large, or no worker could be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How a job ended, and what it returned."""

    ending: Ending
    """How the job ended."""
    result: Any = None
    """Value that the function returned, if the job is done."""
    reason: str = ""
    """One phrase for people if it is not."""


FRAME = struct.Struct(">I")
"""Length in bytes that stands before each message on a pipe."""


class Gone(Exception):
    """The process has ended, or what it sent is no frame."""


class Late(Exception):
    """The deadline has passed."""


class FramedProcess:
    """A process that is spoken to over its pipes, message by message with a deadline each, and that can be killed.

    One thread at a time may use it. It must lead a process group of its own (``start_new_session``), which is also
    what keeps a Ctrl-C in the terminal away from it.

    Args:
        process: started with pipes for stdin and stdout.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin, self._stdout = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)

    def send(self, message: bytes, deadline: float) -> None:
        """Send a message.

        Args:
            message: any bytes.
            deadline: on the clock of ``time.monotonic``.

        Raises:
            Gone: the process has ended.
            Late: it did not take the message in time.
        """
        data = memoryview(FRAME.pack(len(message)) + message)
        while data:
            self._wait(self._stdin, select.POLLOUT, deadline)
            try:
                data = data[os.write(self._stdin, data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Gone(f"the worker died: {error.strerror}") from None

    def receive(self, deadline: float, max_bytes: int) -> bytes:
        """Receive a message.

        Args:
            deadline: on the clock of ``time.monotonic``.
            max_bytes: a longer message is refused before it is read.

        Raises:
            Gone: the process has ended, or its message is too long.
            Late: it said nothing in time.
        """
        (size,) = FRAME.unpack(self._read(FRAME.size, deadline))
        if size > max_bytes:
            raise Gone(f"a reply of {size} bytes, more than {max_bytes}")
        return self._read(size, deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(self._stdout, select.POLLIN, deadline)
            try:
                chunk = os.read(self._stdout, size - len(data))
            except BlockingIOError:
                continue
            except OSError as error:
                raise Gone(f"the worker died: {error.strerror}") from None
            if not chunk:
                raise Gone("the worker died")
            data += chunk
        return bytes(data)

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        remaining_s = deadline - time.monotonic()
        poll = select.poll()
        poll.register(descriptor, event)
        if remaining_s <= 0 or not poll.poll(math.ceil(remaining_s * 1000)):
            raise Late("no answer in time")

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self.process.pid

    def end(self) -> None:
        """Send SIGKILL to the process and its group; :meth:`kill` also waits and frees what it held."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process for certain and free what it held."""
        self.end()
        self.process.wait()
        self.close_pipes()

    def close_pipes(self) -> None:
        """Close our ends, which tells a well-behaved process to leave."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class WorkerPool:
    """Runs a function in killable processes.

    Any thread may call ``run``; as many jobs run at once as there are workers, the others wait their turn (waiting does
    not count towards the deadline). Workers start when they are first needed. After a fork, the child's pool has no
    workers and starts its own.

    Example:
        >>> with WorkerPool("json:loads") as pool:
        ...     pool.run("[1, 2]").result
        [1, 2]
    """

    def __init__(
        self,
        target: str | Path,
        *,
        num_workers: int = 2,
        timeout_s: float = 3.0,
        memory_mb: int = 1024,
        jobs_per_worker: int = 1000,
    ) -> None:
        """
        Args:
            target: ``module:function`` or ``path/to/file.py:function``; it takes and returns what JSON can hold.
            num_workers: at most this many processes.
            timeout_s: wall time of one job. Starting a worker (imports) does not count, within two minutes.
            memory_mb: address space of a worker.
            jobs_per_worker: after so many jobs a worker is replaced, so that leaks and caches stay bounded.
        """
        if min(num_workers, memory_mb, jobs_per_worker) < 1 or not timeout_s > 0:
            raise ValueError(
                "num_workers, memory_mb, jobs_per_worker and timeout_s must be positive, got "
                f"{num_workers}, {memory_mb}, {jobs_per_worker} and {timeout_s}."
            )
        self.target = str(target)
        self.num_workers = num_workers
        self.timeout_s = timeout_s
        self.memory_mb = memory_mb
        self.jobs_per_worker = jobs_per_worker
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        self._turns = threading.BoundedSemaphore(self.num_workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, job: Any) -> Reply:
        """Run one job to its end; never raises for what the job does.

        A worker that dies during a job, other than by the deadline, is replaced and the job is tried once more: it may
        have been killed by chance. The second death is the job's.
        """
        data = json.dumps(job).encode()
        if len(data) > MAX_JOB_BYTES - 8:
            return Reply(ending=Ending.ERROR, reason=f"a job of {len(data)} bytes, more than {MAX_JOB_BYTES}")
        with self._turns:
            for _ in range(2):
                reply = self._attempt(data)
                if reply.ending is not Ending.CRASHED:
                    break
            return reply

    def _attempt(self, data: bytes) -> Reply:
        try:
            worker = self._borrowed()
        except (OSError, Gone, Late, RuntimeError) as error:
            return Reply(ending=Ending.ERROR, reason=f"no worker could be started: {error or type(error).__name__}")
        is_usable = False
        try:
            answer = worker.ask(data, time.monotonic() + self.timeout_s)
            is_usable = worker.num_jobs < self.jobs_per_worker
        except Late:
            return Reply(ending=Ending.TIMEOUT, reason=f"killed after {self.timeout_s:g} s")
        except Gone as error:
            return Reply(ending=Ending.CRASHED, reason=str(error))
        finally:
            self._returned(worker, is_usable)
        if "result" in answer:
            return Reply(ending=Ending.DONE, result=answer["result"])
        return Reply(ending=Ending.ERROR, reason=answer.get("error", "a reply without a result"))

    def _borrowed(self) -> _Worker:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                break
            if worker.process.poll() is None:
                return worker
            self._returned(worker, False)  # it died while idle: no job is to blame
        worker = _Worker(self.target, self.memory_mb, math.ceil(self.timeout_s) + 1)
        with self._lock:
            self._all.add(worker)
        try:
            worker.greet(time.monotonic() + START_TIMEOUT_S)
        except BaseException:
            self._returned(worker, False)
            raise
        return worker

    def _returned(self, worker: _Worker, is_usable: bool) -> None:
        with self._lock:
            if is_usable and worker in self._all:
                self._idle.append(worker)
                return
            self._all.discard(worker)
        worker.kill()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that exist now."""
        with self._lock:
            return sorted(worker.pid for worker in self._all)

    def close(self) -> None:
        """Kill all workers. A job that still runs is tried again on a new one; the pool may be used again."""
        with self._lock:
            idle, busy = self._idle, self._all.difference(self._idle)
            self._idle, self._all = [], set(busy)  # a copy: workers that start from now on are not to be killed
        for worker in idle:
            worker.kill()
        for worker in busy:
            worker.end()  # its pipes belong to the thread that waits on them

    def _forget(self) -> None:
        """Close our ends of the pipes in a forked child: the workers are the parent's and are left alone."""
        for worker in self._all:
            worker.close_pipes()
        self._reset()


_POOLS: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool._forget()


def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_close_all)


class _Worker(FramedProcess):
    """One worker of a pool."""

    def __init__(self, target: str, memory_mb: int, cpu_s: int) -> None:
        super().__init__(
            subprocess.Popen(
                [sys.executable, "-I", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ},
            )
        )
        self.num_jobs = 0
        path = [str(Path(entry).resolve()) for entry in sys.path if entry and Path(entry).exists()]
        self._settings = {"target": target, "memory_bytes": memory_mb << 20, "cpu_s": cpu_s, "path": path}

    def greet(self, deadline: float) -> None:
        """Send the settings and wait until the worker can take jobs."""
        answer = self.ask(json.dumps(self._settings).encode(), deadline)
        if answer.get("result") != "ready":
            raise RuntimeError(answer.get("error", "it did not get ready"))
        self.num_jobs = 0

    def ask(self, data: bytes, deadline: float) -> dict[str, Any]:
        """Send a job and wait for what came of it."""
        self.num_jobs += 1
        self.send(data, deadline)
        answer = json.loads(self.receive(deadline, MAX_REPLY_BYTES))
        assert isinstance(answer, dict)
        return answer
