"""The trusted end of the isolation: start an interpreter inside, have it fork candidates, and clean up after them.

Every wait has a deadline on this side's clock, every reply a bound on its size, and the end is always SIGKILL.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import bontune.grading.sandbox.inside as inside
import bontune.grading.sandbox.inside.scratch as scratch
from bontune.base.errors import BontuneError
from bontune.grading.sandbox.outside.isolation import ENVIRONMENT, Backend
from bontune.grading.sandbox.outside.session import Session, is_ready

START_S = 30.0
"""Seconds for the isolated interpreter to come up, on a busy machine."""
ANSWER_S = 10.0
"""Seconds for the zygote to fork or to kill: no program runs in it, so nothing of a program's can take this long."""
FILE_MB = 16
_WARM_NAMES = (
    "abc argparse array ast base64 bisect calendar collections.abc contextlib copy csv dataclasses datetime "
    "decimal enum fractions functools hashlib heapq io itertools keyword math numbers operator os.path pathlib "
    "pprint queue random re secrets statistics string struct sys tempfile textwrap threading time traceback "
    "types typing unicodedata uuid weakref"
)
WARM_MODULES = tuple(_WARM_NAMES.split())
"""Modules that programs import often: imported once, before the forks."""
_SCRATCH_ROOT = "bontune-scratch"


class SandboxFailure(RuntimeError):
    """The isolation itself failed: nothing is known about the candidate."""


class Zygote:
    """An isolated interpreter that forks a fresh process for every program. One program at a time."""

    def __init__(self, backend: Backend, *, warm: Sequence[str] = WARM_MODULES) -> None:
        """Start the interpreter.

        Args:
            backend: the isolation.
            warm: modules to import once for all programs.

        Raises:
            BontuneError: this machine refuses the backend; the message says why.
        """
        self.backend = backend
        self._received: list[int] = []
        self._folder, self._lock = _make_scratch_folder()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as errors:
            # A group of its own keeps a Ctrl-C in the terminal away, and lets all of it be killed at once.
            try:
                self._process = subprocess.Popen(
                    backend.command(),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env=ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                self._control.close()
                self._remove_scratch_folder()
                raise BontuneError(f"Sandbox {backend.name} cannot be started: {error}.") from error
            theirs.close()  # or the end of the process would not be seen as the end of the conversation
            try:
                self._control.sendall(json.dumps(self._setup(warm)).encode())
                self._answer(START_S, "ready")
            except (SandboxFailure, OSError) as failure:
                self.kill()
                errors.seek(0)
                detail = errors.read(1000).decode("utf-8", "replace").strip() or str(failure)
                raise BontuneError(f"Sandbox {backend.name} cannot be started: {detail}.") from failure

    def _setup(self, warm: Sequence[str]) -> dict[str, Any]:
        own = {"sources": sources_inside(), "warm": list(warm), "parent": os.getpid()}
        return own | self.backend.setup(self._folder)

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
            message = {"op": "run", "max_reply_bytes": max_reply_bytes, **limits}
            socket.send_fds(self._control, [json.dumps(message).encode()], [their_requests, their_replies])
            self._answer(ANSWER_S, "running")
            process = self._received.pop()
        except (OSError, SandboxFailure, IndexError) as error:
            os.close(requests)
            os.close(replies)
            raise SandboxFailure(f"the sandbox started no program: {error}") from error
        finally:
            os.close(their_requests)
            os.close(their_replies)
        return Session(requests, replies, process, deadline, max_reply_bytes)

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
        if not is_ready(self._control.fileno(), select.POLLIN, time.monotonic() + timeout_s):
            raise SandboxFailure(f"no answer within {timeout_s:g} s")
        data, self._received, _, _ = socket.recv_fds(self._control, 1 << 16, 1)
        if not data:
            raise SandboxFailure(f"it ended with status {self._process.poll()}")
        answer: dict[str, Any] = json.loads(data)
        if answer.get("ok") != expected:
            raise SandboxFailure(str(answer.get("error", "it answered something else")))
        return answer

    def kill(self) -> None:
        """End the interpreter and everything in it, whatever state it is in."""
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


class Sandbox:
    """An isolated interpreter that is started anew after it was discarded."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._zygote: Zygote | None = Zygote(backend)

    def zygote(self) -> Zygote:
        """Return the isolated interpreter, started anew if the last one has ended."""
        if self._zygote is None:
            self._zygote = Zygote(self.backend)
        return self._zygote

    def discard(self) -> None:
        """Kill the isolated interpreter and all that is in it."""
        if self._zygote is not None:
            zygote, self._zygote = self._zygote, None
            zygote.kill()


def sources_inside() -> dict[str, str]:
    """The modules that go through the wall, by name: the folder ``inside``, and empty packages above it."""
    sources = dict.fromkeys(accumulate(inside.__name__.split("."), "{}.{}".format), "")
    for path in sorted(Path(inside.__path__[0]).glob("*.py")):
        sources[f"{inside.__name__}.{path.stem}".removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return sources


def _make_scratch_folder() -> tuple[str, int]:
    """Make a folder within one that is locked as long as this process lives; folders without a lock are removed."""
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
