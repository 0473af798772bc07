"""The checker: a trusted process that judges one program after another, each in a fresh isolated process.

A process of its own, because a test may hang on what a program returned, in C code that no signal interrupts; then
the pool kills this process, and with it the isolation. Jobs come in as pickles, from the process that started this
one and from nowhere else; results go out as JSON, because they are made of what a model wrote.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import pickle
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import bontune.sandbox.checking as checking
from bontune.base.errors import BontuneError
from bontune.base.grades import Verdict
from bontune.sandbox.backends import BACKENDS, Backend
from bontune.sandbox.checking import Judgement, Program
from bontune.sandbox.session import SandboxFailure, Zygote

HEADER = struct.Struct("<I")
_MEMORY_BYTES = 4 << 30
"""Soft limit of the checker's own address space: what a test makes of an answer must not take the machine."""
_PR_SET_PDEATHSIG = 1


class Checker:
    """Judges programs; replaces its isolation when that breaks down."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._zygote: Zygote | None = Zygote(backend)

    def zygote(self) -> Zygote:
        """The living isolation."""
        if self._zygote is None:
            self._zygote = Zygote(self.backend)
        return self._zygote

    def discard(self) -> None:
        """Kill the isolation and all that is in it."""
        if self._zygote is not None:
            zygote, self._zygote = self._zygote, None
            zygote.kill()

    def check(self, program: Program, tell: Callable[[str], None] = lambda _: None) -> tuple[Judgement, float]:
        """The judgement, and the seconds it took; one more try if the isolation breaks down.

        Args:
            program: what is judged.
            tell: called with "started" when its clock starts, and "stopped" when it stops: then comes the cleaning.
        """
        run = checking.prepare(program)
        started = time.monotonic()
        if isinstance(run, Judgement):
            return run, 0.0
        reason = ""
        for _ in range(2):
            started = time.monotonic()
            tell("started")
            try:
                session = self.zygote().open(
                    timeout_s=program.timeout_s, memory_mb=program.memory_mb, max_reply_bytes=program.max_reply_bytes
                )
            except (SandboxFailure, BontuneError) as error:
                reason = str(error)
                self.discard()
                continue
            judgement = checking.judge(session, program, run)
            elapsed = time.monotonic() - started
            tell("stopped")
            session.close()
            try:
                status, note = self.zygote().end()
            except SandboxFailure as error:
                reason = str(error)
                self.discard()
                if judgement.verdict is Verdict.PASSED:  # it came from the isolation as it was before it broke
                    continue
                return judgement, elapsed
            return _with_cause(judgement, status, note), elapsed
        return Judgement(verdict=Verdict.GRADER_ERROR, reason=f"the sandbox broke down: {reason}"), 0.0


def _with_cause(judgement: Judgement, status: int, note: str) -> Judgement:
    """Say what ended the process, where it ended by itself."""
    if judgement.verdict is not Verdict.CRASHED:
        return judgement
    if note:
        cause = note
    elif os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(ValueError):
            return dataclasses.replace(judgement, reason=f"{judgement.reason} by {signal.Signals(number).name}")
        cause = f"signal {number}"
    else:
        cause = f"exit status {os.WEXITSTATUS(status)}"
    return dataclasses.replace(judgement, reason=f"{judgement.reason}: {cause}")


def main(backend_name: str, parent: int, path: list[str]) -> None:
    """Serve until the pool hangs up or its process ends.

    Args:
        backend_name: which isolation.
        parent: the process that started this one.
        path: its ``sys.path``, so that functions it names can be imported here.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    sys.path.extend(entry for entry in path if entry not in sys.path)
    jobs, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES if hard == -1 else min(hard, _MEMORY_BYTES), hard))
    try:
        checker = Checker(BACKENDS[backend_name])
    except (BontuneError, OSError) as error:
        _tell(results, {"event": "unavailable", "reason": str(error)})
        return
    os.dup2(null, 2)
    _tell(results, {"event": "ready"})
    try:
        while header := jobs.read(HEADER.size):
            _serve(checker, jobs.read(HEADER.unpack(header)[0]), results)
    finally:
        checker.discard()


def _serve(checker: Checker, message: bytes, results: BinaryIO) -> None:
    try:
        job = pickle.loads(message)
    except Exception as error:  # unpickling imports the module of a check: it may fail in any way
        reason = f"the check cannot be imported by another process: {type(error).__name__}: {error}"
        _tell(results, {"event": "unusable", "reason": reason})
        return
    if job == "probe":
        from bontune.sandbox.probe import probe

        _tell(results, {"event": "probed", "attacks": [dataclasses.asdict(attack) for attack in probe(checker)]})
        return
    judgement, seconds = checker.check(job, lambda event: _tell(results, {"event": event}))
    _tell(
        results,
        {
            "event": "judged",
            "verdict": judgement.verdict.value,
            "reason": judgement.reason,
            "answer": judgement.answer,
            "seconds": seconds,
        },
    )


def _tell(results: BinaryIO, event: dict[str, Any]) -> None:
    data = json.dumps(event).encode()
    results.write(HEADER.pack(len(data)) + data)
    results.flush()
