"""The trusted end: start an isolated interpreter, have it fork a candidate, and talk to that one in plain data.

Every wait has a deadline on this side's clock, every reply a bound on its size, and the end is always SIGKILL.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bontune.sandbox.scratch as scratch
import bontune.sandbox.wire as wire
from bontune.base.errors import BontuneError
from bontune.base.grades import Verdict
from bontune.sandbox.backends import Backend, environment, parent_id, seccomp_program
from bontune.sandbox.remote import Faults, Made, Remote, Session, Stream, awaited, generator_of
from bontune.sandbox.shared import Shared

START_S = 30.0
"""Seconds for the isolated interpreter to come up, on a busy machine."""
ANSWER_S = 10.0
"""Seconds for the zygote to fork or to kill: no program runs in it, so nothing of a program's can take this long."""
FILE_MB = 16
MAX_THREADS = 500
WATCH_S = 0.05
WARM_MODULES = (
    "abc",
    "argparse",
    "array",
    "ast",
    "base64",
    "bisect",
    "calendar",
    "collections.abc",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "io",
    "itertools",
    "keyword",
    "math",
    "numbers",
    "operator",
    "os.path",
    "pathlib",
    "pprint",
    "queue",
    "random",
    "re",
    "secrets",
    "statistics",
    "string",
    "struct",
    "sys",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "uuid",
    "weakref",
)
_SENT_INSIDE = (
    *("values", "shared", "wire", "errors", "event_loop"),
    *("candidate", "landlock", "scratch", "zygote"),
)
_HEADER = struct.Struct("<I")
_SCRATCH_ROOT = "bontune-scratch"


class SandboxFailure(RuntimeError):
    """The isolation itself failed: nothing is known about the candidate."""


class Zygote:
    """An isolated interpreter that forks a fresh process for every program. One program at a time."""

    def __init__(self, backend: Backend, *, warm: Sequence[str] = WARM_MODULES) -> None:
        """Start it.

        Args:
            backend: the isolation.
            warm: modules to import once for all programs.

        Raises:
            BontuneError: this machine refuses the backend; the message has what it said.
        """
        self.backend = backend
        self.report: dict[str, Any] = {}
        self._received: list[int] = []
        self._folder, self._lock = _make_scratch_folder()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as said:
            try:
                self._process = subprocess.Popen(
                    backend.command(self._folder),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env=environment(),
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                self._control.close()
                self._remove_scratch_folder()
                raise BontuneError(f"sandbox {backend.name} cannot be started: {error}") from error
            theirs.close()  # or the end of the process would not be seen as the end of the conversation
            try:
                self._control.sendall(json.dumps(self._setup(warm)).encode())
                self.report = self._answer(START_S, "ready")
            except (SandboxFailure, OSError) as failure:
                self.kill()
                said.seek(0)
                detail = said.read(1000).decode("utf-8", "replace").strip() or str(failure)
                raise BontuneError(f"sandbox {backend.name} cannot be started: {detail}") from failure

    def _setup(self, warm: Sequence[str]) -> dict[str, Any]:
        here = Path(__file__).parent
        modules = [(name, (here / f"{name}.py").read_text(encoding="utf-8")) for name in _SENT_INSIDE]
        own = {"modules": modules, "warm": list(warm), "seccomp": seccomp_program(self.backend).hex()}
        return {**own, "parent": parent_id(), **self.backend.setup(self._folder)}

    @property
    def pid(self) -> int:
        """Id of the process that was started here (bubblewrap's, or the interpreter's)."""
        return self._process.pid

    def open(self, *, timeout_s: float, memory_mb: int, max_reply_bytes: int) -> Session:
        """Fork a candidate; its clock starts now.

        Raises:
            SandboxFailure: the isolated interpreter did not answer.
        """
        their_requests, requests = os.pipe()
        replies, their_replies = os.pipe()
        deadline = time.monotonic() + timeout_s
        try:
            limits = {"memory_mb": memory_mb, "cpu_s": int(timeout_s) + 2, "file_mb": FILE_MB}
            limits["max_reply_bytes"] = max_reply_bytes
            rights = array.array("i", [their_requests, their_replies])
            self._control.sendmsg(
                [json.dumps({"op": "run", **limits}).encode()],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights.tobytes())],
            )
            self._answer(ANSWER_S, "running")
            process = self._received.pop()
        except (OSError, SandboxFailure, IndexError) as error:
            os.close(requests)
            os.close(replies)
            raise SandboxFailure(f"the sandbox started no program: {error}") from error
        finally:
            os.close(their_requests)
            os.close(their_replies)
        return _PipeSession(requests, replies, process, deadline, max_reply_bytes)

    def end(self) -> tuple[int, str]:
        """Kill the candidate and remove what it left.

        Returns:
            Its wait status, and a note: "" or what was found in the scratch folder.

        Raises:
            SandboxFailure: the isolated interpreter did not answer, or the scratch folder could not be emptied.
        """
        try:
            self._control.send(b'{"op": "end"}')
            answer = self._answer(ANSWER_S, "ended")
        except OSError as error:
            raise SandboxFailure(f"the sandbox is gone: {error}") from error
        if answer["note"] == "dirty":
            raise SandboxFailure("the scratch folder could not be emptied")
        return answer["status"], answer["note"]

    def _answer(self, timeout_s: float, expected: str) -> dict[str, Any]:
        if not _is_ready(self._control.fileno(), select.POLLIN, time.monotonic() + timeout_s):
            raise SandboxFailure(f"no answer within {timeout_s:g} s")
        data, self._received, _, _ = socket.recv_fds(self._control, 1 << 16, 1)
        if not data:
            raise SandboxFailure(f"it ended with status {self._process.poll()}")
        answer: dict[str, Any] = json.loads(data)
        if answer.get("ok") != expected:
            raise SandboxFailure(str(answer.get("error", "it answered something else")))
        return answer

    def kill(self) -> None:
        """End it and everything in it, whatever state it is in."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._remove_scratch_folder()

    def _remove_scratch_folder(self) -> None:
        outer = os.path.dirname(self._folder)
        if scratch.empty(outer, deadline=time.monotonic() + 60.0):
            os.rmdir(outer)
        os.close(self._lock)


class _PipeSession(Session):
    """A session over the two pipes of one candidate."""

    def __init__(self, requests: int, replies: int, process: int, deadline: float, max_reply_bytes: int) -> None:
        self._requests = requests
        self._replies = replies
        self._process = process
        self._tasks = _tasks_of(process)
        self._max_reply_bytes = max_reply_bytes
        self.deadline = deadline
        self.fault: Faults | None = None
        self._remotes: dict[int, Remote] = {}
        self._made: dict[int, tuple[Made, int]] = {}
        self._shared = Shared()
        self._num_loaded = 0
        self._has_handle = False
        self.allows_objects = False
        self.num_values = 0
        os.set_blocking(requests, False)
        os.set_blocking(replies, False)

    def close(self) -> None:
        """Hang up."""
        os.close(self._requests)
        os.close(self._replies)
        os.close(self._process)
        # An exception's traceback leads to the test's variables and back here: the cycle would keep all that it got.
        self._remotes.clear()
        self._made.clear()
        self._shared = Shared()
        self.last_raised = None
        self.fault = Faults(Verdict.CRASHED, "the conversation is over")

    def remote(self, number: int) -> Remote:
        """The one stand-in for a handle."""
        self._has_handle = True
        if number not in self._remotes:
            self._remotes[number] = Remote(self, number)
        return self._remotes[number]

    def stream(self, number: int) -> Stream:
        """What a handle may be where plain data is expected; a new one each time, so that no two are the same."""
        self.has_given_object = True
        return Stream(self.remote(number))

    def exchange(self, *request: object) -> tuple[Any, ...]:
        if self.fault is not None:
            raise self.fault
        mark = self._shared.mark()
        try:
            message = wire.encode(
                (self._shared.changes(), request), handle_for=self._number_of, shared=self._shared, is_giving=True
            )
        except wire.WireError:
            self._shared.forget_from(mark)
            raise
        self._send(_HEADER.pack(len(message)) + message)
        (length,) = _HEADER.unpack(self._receive(_HEADER.size))
        if length > self._max_reply_bytes:
            raise self.fail(Verdict.FAILED, f"a reply of {length} bytes, more than {self._max_reply_bytes}")
        self._has_handle = False
        changes, reply = self._read(self._receive(length), request)
        try:
            self._shared.apply(changes)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self.fail(Verdict.FAILED, "it changed an argument into what that cannot be") from error
        self._forget(mark, request)
        return reply

    def _read(self, data: bytes, request: tuple[object, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """What has changed in the arguments, and the reply."""
        is_remote = request[0] in ("load", "iter")
        made = {} if is_remote else {"g": self._generator, "a": self._coroutine}
        handle = self.remote if self.allows_objects or is_remote else self.stream
        try:
            both = wire.decode(data, handle=handle, handles=made, shared=self._shared)
        except wire.WireError as error:
            raise self.fail(Verdict.FAILED, f"a reply that is no plain data: {error}") from error
        if type(both) is tuple and len(both) == 2 and type(both[0]) is type(both[1]) is tuple and both[1]:
            changes, reply = both
            is_pairs = all(type(change) is tuple and len(change) == 2 for change in changes)
            if is_pairs and type(reply[0]) is str:
                return changes, reply
        raise self.fail(Verdict.FAILED, "a reply of the wrong form")

    def _forget(self, mark: int, request: tuple[Any, ...]) -> None:
        """Share the containers of a request on only if an object that the test can reach may have kept them."""
        if request[0] == "load":
            self._num_loaded = len(self._remotes)
        elif not self._has_handle and self._number_of(request[1]) < self._num_loaded:
            self._shared.forget_from(mark)
        self._shared.remember()

    def _generator(self, number: int) -> Made:
        return self._keep(generator_of(self, self.remote(number)), number)

    def _coroutine(self, number: int) -> Made:
        return self._keep(awaited(self, self.remote(number)), number)

    def _keep(self, made: Made, number: int) -> Made:
        self._made[id(made)] = made, number
        return made

    def _number_of(self, value: object) -> int:
        if type(value) is Remote or type(value) is Stream:
            return value._number_in(self)
        if id(value) in self._made:
            return self._made[id(value)][1]
        raise wire.WireError(f"an argument of type {type(value).__name__} is not plain data")

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._requests, select.POLLOUT)
            try:
                view = view[os.write(self._requests, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise self.fail(Verdict.CRASHED, "the program's process ended") from error

    def _receive(self, length: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < length:
            self._wait(self._replies, select.POLLIN)
            piece = os.read(self._replies, min(length - len(pieces), 1 << 20))
            if not piece:
                raise self.fail(Verdict.CRASHED, "the program's process ended")
            pieces += piece
        return bytes(pieces)

    def _wait(self, descriptor: int, event: int) -> None:
        """Until the deadline; meanwhile count threads, which no limit of the kernel's does for root."""
        while not _is_ready(descriptor, event, min(self.deadline, time.monotonic() + WATCH_S)):
            if time.monotonic() >= self.deadline:
                raise self.fail(Verdict.TIMEOUT, "the program ran out of time")
            with contextlib.suppress(OSError):  # it has ended, or there is no /proc
                if self._tasks and len(os.listdir(self._tasks)) > MAX_THREADS:
                    signal.pidfd_send_signal(self._process, signal.SIGKILL)
                    raise self.fail(Verdict.CRASHED, f"the program started more than {MAX_THREADS} threads")


def _tasks_of(process: int) -> str:
    """The folder that lists a process' threads, or "". Its descriptor tells the number that it has out here."""
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{process}", encoding="ascii") as about:
        for line in about:
            name, _, number = line.partition(":")
            if name == "Pid" and int(number) > 0:
                return f"/proc/{int(number)}/task"
    return ""


def _is_ready(descriptor: int, event: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _make_scratch_folder() -> tuple[str, int]:
    """A folder of our own, within one that is locked as long as this process lives; those nobody holds go."""
    prefix = f"{_SCRATCH_ROOT}-{os.getuid()}-"
    for stale in Path(tempfile.gettempdir()).glob(prefix + "*"):
        with contextlib.suppress(OSError):
            lock = _lock(str(stale))
            scratch.empty(str(stale), deadline=time.monotonic() + 10.0)
            stale.rmdir()
            os.close(lock)
    while True:
        outer = tempfile.mkdtemp(prefix=prefix)
        try:
            lock = _lock(outer)
            os.chmod(outer, 0o711)  # an isolated process of another uid must get through
            inner = os.path.join(outer, "scratch")
            os.mkdir(inner, 0o700)
            return inner, lock
        except OSError:  # another process took it for a stale one before the lock was on
            if os.path.isdir(outer):
                raise


def _lock(folder: str) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
