"""Run programs of the task ``programs`` on its inputs, in the sandbox: what each returns, or how it ends.

A program has a process of its own. Plain expressions share one, some dozens at a time, since a process costs more than
what they do: they name their input, pure builtins and what they bind, and reach no attribute of anything, so that none
can do anything to another. What a group cannot settle (something in it runs out of time or memory, returns no plain
data, raises what is rare) is run again alone: grouping saves time and changes no outcome.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

from bontune.base.grades import Verdict
from bontune.sandbox.checkers import num_cores
from bontune.sandbox.checking import phrase
from bontune.sandbox.programs import Outcome, Program, check_programs, sandbox_name
from bontune.tasks.programs_outcomes import is_repeatable, key_prefix, tells_address

Inputs = Sequence[Sequence[int]]

TIMEOUT_S = 2.0
"""For all tests of a program, which take a millisecond, or of a group; the rest is for a busy machine."""
MEMORY_MB = 256
MAX_GROUP = 64
"""Programs in one process."""
ENTRY_POINT = "outputs"
_FUNCTION = "def f(x):\n    return (\n{expression}\n    )\n\n\n"
_ALONE = _FUNCTION + "def outputs(inputs):\n    return [f(x) for x in inputs]\n"
# Names and depth of calls are those of a program alone: they stand in messages, and count for the recursion limit.
_GROUP = """def is_plain(value):
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return type(value) in (int, bool, float, type(None))


def outputs(number, inputs):
    f = FUNCTIONS[number]
    found = [f(x) for x in inputs]
    return found if is_plain(found) else None


FUNCTIONS = []
"""
_COMMON_ERRORS = (TypeError, ValueError, IndexError, ZeroDivisionError)
"""Of those that a wrong expression raises, the ones that say the same in a group."""


def key_of(inputs: Inputs) -> str:
    """What decides, beside its text, what a program does on the inputs, for :class:`OutcomeMemory`."""
    given = [list(one) for one in inputs]
    return key_prefix(_ALONE, _GROUP, TIMEOUT_S, MEMORY_MB, sandbox_name(), given)


def run_programs(forms: Collection[str], inputs: Inputs) -> dict[str, Outcome]:
    """Run expressions in ``x`` on the inputs.

    Args:
        forms: normal forms, each once.
        inputs: what ``x`` is, one after the other.

    Returns:
        By normal form; ``passed`` says that it gave outputs, and ``answer`` is those, as
        :func:`collect_outputs` writes them.

    Raises:
        BontuneError: no sandbox holds on this machine.
    """
    plain = {form: None for form in forms if is_plain_expression(form)}
    size = min(MAX_GROUP, max(1, -(-len(plain) // num_cores())))
    groups = [list(plain)[start : start + size] for start in range(0, len(plain), size)]
    groups += [[form] for form in forms if form not in plain]
    outcomes: dict[str, Outcome] = {}
    while groups:
        jobs = [_alone(group[0], inputs) if len(group) == 1 else _together(group, inputs) for group in groups]
        left: list[list[str]] = []
        for group, outcome in zip(groups, check_programs(jobs), strict=True):
            if len(group) == 1:
                outcomes[group[0]] = outcome
            elif outcome.verdict is Verdict.PASSED:
                settled = _settled(group, outcome)
                outcomes |= settled
                left += [[form] for form in group if form not in settled]
            elif outcome.verdict is Verdict.TIMEOUT:  # to wait for it again costs more than a process for each
                left += [[form] for form in group]
            else:
                middle = len(group) // 2
                left += [group[:middle], group[middle:]]
        groups = left
    return outcomes


def is_plain_expression(form: str) -> bool:
    """Whether a program can share a process: it names pure builtins only and reaches no attribute.

    Example:
        >>> is_plain_expression("sorted(x)[::-1]"), is_plain_expression("(v for v in x).gi_frame")
        (True, False)
    """
    return is_repeatable(form) and not any(isinstance(node, ast.Attribute) for node in ast.walk(ast.parse(form)))


def collect_outputs(inputs: Inputs, candidate: Callable[[list[list[int]]], object]) -> str:
    """What the sandbox's trusted side runs: one call for all inputs. Returns the outputs, separated by semicolons.

    Raises:
        AssertionError: it gave no list of as many outputs.
    """
    return _joined(inputs, candidate([list(given) for given in inputs]))


def collect_group(inputs: Inputs, num_programs: int, candidate: Callable[[int, list[list[int]]], object]) -> str:
    """The same for a group, as a JSON list: ``[outputs, reason]`` of each program, or null for one to run alone.

    Of outputs and reason one is empty.
    """
    found: list[list[str] | None] = []
    for number in range(num_programs):
        try:
            outputs = candidate(number, [list(given) for given in inputs])
        except _COMMON_ERRORS as error:
            reason = f"the program raised {phrase(error)}"
            found.append(None if tells_address(reason) else ["", reason])
        else:
            found.append(None if outputs is None else [_joined(inputs, outputs), ""])
    return json.dumps(found)


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


def _joined(inputs: Inputs, found: object) -> str:
    assert type(found) is list, "no list of outputs"
    assert len(found) == len(inputs), "not one output an input"
    return ";".join(map(canonical, found))


def _settled(group: Sequence[str], outcome: Outcome) -> dict[str, Outcome]:
    return {
        form: Outcome(
            passed=not found[1],
            reason=found[1],
            seconds=outcome.seconds / len(group),
            verdict=Verdict.FAILED if found[1] else Verdict.PASSED,
            isolation=outcome.isolation,
            answer=found[0],
        )
        for form, found in zip(group, json.loads(outcome.answer), strict=True)
        if found is not None
    }


def _alone(form: str, inputs: Inputs) -> Program:
    source = _ALONE.format(expression=form)
    return _program(source, functools.partial(collect_outputs, inputs))


def _together(group: Sequence[str], inputs: Inputs) -> Program:
    functions = "".join(f"{_FUNCTION.format(expression=form)}FUNCTIONS.append(f)\n" for form in group)
    source = f"{_GROUP}{functions}"
    return _program(source, functools.partial(collect_group, inputs, len(group)))


def _program(source: str, check: Callable[[Callable[..., Any]], object]) -> Program:
    return Program(source=source, entry_point=ENTRY_POINT, check=check, timeout_s=TIMEOUT_S, memory_mb=MEMORY_MB)
