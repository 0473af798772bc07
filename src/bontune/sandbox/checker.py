"""The checker: judges one program after another, each in a fresh isolated process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable

import bontune.sandbox.checking as checking
from bontune.base.errors import BontuneError
from bontune.base.grades import Verdict
from bontune.sandbox.backends import Backend
from bontune.sandbox.checking import Judgement, Program
from bontune.sandbox.session import SandboxFailure, Zygote


class Checker:
    """Judges programs; replaces its isolation when that breaks down."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._zygote: Zygote | None = Zygote(backend)

    def zygote(self) -> Zygote:
        """The isolation, started anew if it was discarded."""
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
