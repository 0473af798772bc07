"""The process that a checker lives in.

A test may hang on what a program returned, in C code that no signal interrupts; then this process is killed, and with
it the isolation. Jobs come in as pickles, from the process that started this one and from nowhere else; results go out
as JSON, because they are made of what a model wrote.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import pickle
import resource
import signal
import sys
from typing import Any, BinaryIO

from bontune.base.errors import BontuneError
from bontune.base.workers import FRAME
from bontune.sandbox.backends import BACKENDS
from bontune.sandbox.checker import Checker
from bontune.sandbox.probe import probe

_MEMORY_BYTES = 4 << 30
"""Soft limit of the checker's own address space: what a test makes of an answer must not take the machine."""
_PR_SET_PDEATHSIG = 1


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
        while header := jobs.read(FRAME.size):
            _serve(checker, jobs.read(FRAME.unpack(header)[0]), results)
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
    results.write(FRAME.pack(len(data)) + data)
    results.flush()
