"""What the tests of isolations share: a pool on each, and what is running, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bontune.base.errors import BontuneError
from bontune.grading.sandbox.outside.check import Checkers


def processes_of(root: int) -> set[int]:
    """Every living descendant of a process, from /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found = {root}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {root}


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def pool_or_skip(name: str) -> Checkers:
    """A pool on an isolation; skips where this machine refuses it, fails where it starts and does not hold."""
    try:
        return Checkers(name)
    except BontuneError as error:
        if "does not stop" in str(error):
            raise
        pytest.skip(f"{name}: {error}")
