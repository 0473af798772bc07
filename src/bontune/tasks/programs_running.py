"""Run programs of the task ``programs`` on its inputs, in the sandbox: what each returns, or how it ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence

from bontune.base.signals import Poll
from bontune.grading.sandbox.outside.check import Outcome, check_programs
from bontune.grading.sandbox.outside.checker import Program

Inputs = Sequence[Sequence[int]]

TIMEOUT_S = 2.0
"""Seconds for all tests of a program, which take a millisecond; the rest is for a busy machine."""
MEMORY_MB = 256
_SOURCE = "def f(x):\n    return (\n{expression}\n    )\n\n\ndef outputs(inputs):\n    return [f(x) for x in inputs]\n"


def run_programs(forms: Collection[str], inputs: Inputs, poll: Poll | None = None) -> dict[str, Outcome]:
    """Run expressions in ``x`` on the inputs, each in a process of its own.

    Args:
        forms: normal forms, each once.
        inputs: what ``x`` is, one after the other.
        poll: called between batches of programs.

    Returns:
        The outcome of each normal form; ``passed`` says that it gave outputs, and ``answer`` is those, as
        :func:`collect_outputs` writes them.

    Raises:
        BontuneError: no sandbox holds on this machine.
    """
    check = functools.partial(collect_outputs, inputs)
    programs = [
        Program(
            source=_SOURCE.format(expression=form),
            entry_point="outputs",
            check=check,
            timeout_s=TIMEOUT_S,
            memory_mb=MEMORY_MB,
        )
        for form in forms
    ]
    return dict(zip(forms, check_programs(programs, poll=poll), strict=True))


def collect_outputs(inputs: Inputs, candidate: Callable[[list[list[int]]], object]) -> str:
    """What the sandbox's trusted side runs: one call for all inputs. Returns the outputs, separated by semicolons.

    Raises:
        AssertionError: the program gave no list of as many outputs.
    """
    found = candidate([list(given) for given in inputs])
    assert type(found) is list, "no list of outputs"
    assert len(found) == len(inputs), "not one output an input"
    return ";".join(map(canonical, found))


def canonical(value: object) -> str:
    """An output as text, the same for two outputs if they are equal and of the same type all the way down.

    What is neither an integer nor a list is a question mark: nothing that a problem wants.

    Example:
        >>> canonical([3, [1, 0]]), canonical(True), canonical([1, 2.0])
        ('[3,[1,0]]', '?', '[1,?]')
    """
    if type(value) is list:
        return f"[{','.join(map(canonical, value))}]"
    if type(value) is not int:
        return "?"
    return str(value) if value.bit_length() < 1000 else hex(value)  # Python writes 4,300 decimal digits at most
