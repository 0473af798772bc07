"""Run Python that a model wrote against tests it never sees, and say whether it passed.

    >>> row = {"prompt": "def twice(x):\\n", "entry_point": "twice", "test": "def check(f):\\n    assert f(4) == 8\\n"}
    >>> check_program(row, "    return 2 * x\\n").passed
    True
    >>> check_program(row, "    import os; os._exit(0)\\n").verdict.value
    'crashed'

The program runs in an isolated process; the test runs outside it and sees plain data only (``isolation``). Which
isolation holds on this machine is found out by trying real attacks, once; without one nothing is run, unless
``BONTUNE_SANDBOX=unsafe`` says so, and then every outcome says so too.

A program has the standard library, a scratch folder of 64 MB, about a hundred threads, and the time and memory it was
given. It has no other process, no network, no file of the user's and no package installed beside the interpreter.
Linux only.

A list, dictionary, set, queue or byte array that the test passes is shared: sorted in place by the program, it is
sorted for the test, too. So a test computes what it expects before it calls the program, as any Python test has to.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bontune.base.errors import BontuneError
from bontune.base.signals import num_cores
from bontune.sandbox.checkers import Checkers, Outcome
from bontune.sandbox.checking import Program, requirements

__all__ = [
    "Checkers",
    "Outcome",
    "Program",
    "check_program",
    "check_programs",
    "humaneval_program",
    "requirements",
    "sandbox_name",
]

PROGRAMS_AT_A_TIME = 256
"""Programs that are checked between two looks at whether to stop."""

_pools: dict[str, Checkers] = {}
_pools_lock = threading.Lock()


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
        raise BontuneError(f"a problem needs the texts prompt, entry_point and test; this one lacks {missing[0]}")
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
    left, outcomes = list(programs), []
    while left:
        if poll is not None:
            poll()
        batch, left = left[:PROGRAMS_AT_A_TIME], left[PROGRAMS_AT_A_TIME:]
        outcomes += _default_pool().check(batch, num_workers=num_workers or num_cores())
    return outcomes


def sandbox_name() -> str:
    """The isolation in use, for a run's record: bubblewrap, landlock or unsafe.

    Raises:
        BontuneError: none holds on this machine.
    """
    return _default_pool().name


def _default_pool() -> Checkers:
    wanted = os.environ.get("BONTUNE_SANDBOX", "auto")
    with _pools_lock:
        if wanted not in _pools:
            _pools[wanted] = Checkers(wanted)
        return _pools[wanted]


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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
