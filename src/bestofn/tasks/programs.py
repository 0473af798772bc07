"""Programs: write a short Python function of five digits from a hint and two or three examples; graded in the sandbox.

The prompt ``sort cut:f([3,1,2,0,9])=[1,2,3,9];f([5,8,4,4,7])=[4,5,7,8];f(x)=`` asks for an expression in ``x``, such as
``sorted(x)[1:]``: the kinds of operations are named, in order, but not what exactly they do. Hidden functions are drawn
from a grammar (:mod:`bestofn.tasks.programs_grammar`) and are distinct by behaviour, across splits too: no two do the
same on the task's 48 inputs. Two or three of those are shown, and a completion must be right on all; by which means
does not matter. Several functions fit most prompts, so a model does well to spread its attempts.

Difficulty is the surprise of the reference, −log₂ of the probability with which the grammar draws it: under 12 bits
is level 1, 18 and more is level 5, about a fifth of the problems each.
"""

from __future__ import annotations

import ast
import functools
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from random import Random
from typing import Any

from bestofn.errors import BestofnError
from bestofn.grading.sandbox import Outcome, check_programs, sandbox_name
from bestofn.grading.sandbox import Program as SandboxProgram
from bestofn.grading.verdict import Grade, Verdict
from bestofn.tasks.base import Problem
from bestofn.tasks.programs_grammar import (
    DEMONSTRATION,
    INPUTS,
    TASK,
    Behaviour,
    Program,
    Value,
    Weights,
    behaviour_of,
    compile_own,
    draw_index,
    draw_input,
    draw_program,
)
from bestofn.tasks.rows import nearest

SPLIT_SIZES = {"test": 300, "validation": 300, "train": 1600}
"""Problems a split."""

LEVEL_THRESHOLDS = (12.0, 14.0, 15.0, 18.0)
"""Bits that levels 2 to 5 need at least."""
MAX_PROMPT_LENGTH = 100
"""Characters of a prompt without its hint, which keeps it under 80 tokens of the shipped model."""
MAX_REFERENCE_LENGTH = 44
"""Characters of a reference, at most 24 tokens."""

MAX_COMPLETION_LENGTH = 300
"""Characters; a longer completion is no answer."""
TIMEOUT_S = 2.0
"""For all tests of a program, which take a millisecond; the rest is for a busy machine."""
MEMORY_MB = 256
ENTRY_POINT = "outputs"
_SOURCE = "def f(x):\n    return (\n{expression}\n    )\n\n\ndef outputs(inputs):\n    return [f(x) for x in inputs]\n"


class Programs:
    """The embedded code task: 1,600 train, 300 validation and 300 test problems, the same for the same seed everywhere.

    Args:
        seed: draws the problems. The shipped model has not seen the test and validation behaviours of seed 0.

    Example:
        >>> task = Programs()
        >>> problem = task.problems("test")[0]
        >>> [grade.verdict.value for grade in task.grade(problem, [problem.reference, "x*0", "x["])]
        ['passed', 'failed', 'failed']
    """

    def __init__(self, *, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise BestofnError(f"programs: seed must be a whole number of at least 0, not {seed!r}")
        self.name = "programs"
        self.stop: tuple[str, ...] = ()
        self.splits: tuple[str, ...] = ("train", "validation", "test")
        self._seed = seed

    @property
    def isolation(self) -> str:
        """What programs run in, for the record of a run or pool."""
        return sandbox_name()

    def problems(self, split: str) -> list[Problem]:
        """The problems of ``train``, ``validation`` or ``test``; ``reference`` is one solution.

        ``row`` holds all ``inputs``, the right ``outputs``, and which are ``shown`` in the prompt.
        """
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise BestofnError(f"task programs has no split {split!r}{nearest(split, self.splits)}; it has {known}")
        return list(_all_problems(self._seed)[split])

    def grade(self, problem: Problem, completions: Sequence[str]) -> list[Grade]:
        """Reward 1 for an expression with the right value on every input, shown or hidden, else 0.

        Completions that are the same expression are run once, all of them in the sandbox and nowhere else.

        Raises:
            BestofnError: no sandbox holds on this machine.
        """
        forms = [normal_form(completion) for completion in completions]
        texts = {form: text.strip() for form, text in zip(forms, completions, strict=True) if form is not None}
        check = functools.partial(assert_outputs, problem.row["inputs"], problem.row["outputs"])
        jobs = [_job(text, check) for text in texts.values()]
        outcomes = dict(zip(texts, check_programs(jobs), strict=True)) if jobs else {}  # no job, no sandbox
        return [_NO_EXPRESSION if form is None else _grade(form, outcomes[form]) for form in forms]

    def demonstration(self, problem: Problem) -> str:
        """The expression that the problem was drawn from."""
        return problem.reference


def normal_form(completion: str) -> str | None:
    """An expression without what does not matter: white space, redundant parentheses, comments. None: it is none.

    Example:
        >>> normal_form(" (sorted( x ))[ ::-1]"), normal_form("return x"), normal_form("x if")
        ('sorted(x)[::-1]', None, None)
    """
    if len(completion) > MAX_COMPLETION_LENGTH:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as "invalid escape sequence"
            return ast.unparse(ast.parse(completion.strip(), mode="eval"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def assert_outputs(
    inputs: Sequence[Sequence[int]], outputs: Sequence[Value], candidate: Callable[[list[list[int]]], object]
) -> None:
    """The check that the sandbox's trusted side runs: one call for all inputs, then a comparison that knows types.

    Raises:
        AssertionError: an output is not the right one, or not of its type.
    """
    found = candidate([list(given) for given in inputs])
    assert type(found) is list, "no list of outputs"
    assert len(found) == len(outputs), "not one output an input"
    for given, wanted, got in zip(inputs, outputs, found, strict=True):
        assert is_same(wanted, got), f"wrong for {written(given)}"


def is_same(wanted: Value, got: object) -> bool:
    """Equal, and of the same type all the way down.

    Example:
        >>> is_same(1, 1), is_same(1, True), is_same([1], [1.0]), is_same([1], (1,))
        (True, False, False, False)
    """
    if isinstance(wanted, list):
        return type(got) is list and len(got) == len(wanted) and all(map(is_same, wanted, got))
    return type(got) is int and got == wanted


def demonstrations(
    rng: Random, exclude: Collection[Behaviour] = (), weights: Weights = DEMONSTRATION
) -> Iterator[tuple[str, str]]:
    """Yield pairs (prompt, completion) without end: correct answers to random prompts, to train a base model on.

    Drawn like the task's problems, but with other weights, behaviours again and again, and examples on any five
    digits.

    Args:
        rng: consumed as the pairs are drawn.
        exclude: behaviours that must not appear; see :func:`held_out_behaviours`.
        weights: how often a draw takes each way.
    """
    functions: dict[str, Callable[[list[int]], Value] | None] = {}
    while True:
        program = draw_program(rng, weights)
        text = program.text
        if text not in functions:
            found = behaviour_of(text) if len(text) <= MAX_REFERENCE_LENGTH else None
            functions[text] = None if found is None or found in exclude else compile_own(text)
        function = functions[text]
        examples = None if function is None else _draw_examples(rng, function)
        if examples is not None:
            yield format_prompt(program.hint, examples), text


@lru_cache(maxsize=4)
def held_out_behaviours(seed: int = 0) -> frozenset[Behaviour]:
    """What the validation and test problems of a seed do."""
    splits = _all_problems(seed)
    return frozenset(
        tuple(tuple(output) if isinstance(output, list) else output for output in problem.row["outputs"])
        for problem in splits["validation"] + splits["test"]
    )


def format_prompt(hint: str, examples: Sequence[tuple[Sequence[int], int | Sequence[int]]]) -> str:
    """The prompt of a problem.

    Example:
        >>> format_prompt("sort cut", [([3, 1, 2, 0, 9], [1, 2, 3, 9]), ([5, 8, 4, 4, 7], [4, 5, 7, 8])])
        'sort cut:f([3,1,2,0,9])=[1,2,3,9];f([5,8,4,4,7])=[4,5,7,8];f(x)='
    """
    shown = "".join(f"f({written(given)})={written(output)};" for given, output in examples)
    return f"{hint}:{shown}f(x)="


def written(value: int | Sequence[int]) -> str:
    """An integer or a list as prompts show it, without spaces."""
    return str(value) if isinstance(value, int) else f"[{','.join(map(str, value))}]"


def _draw_examples(rng: Random, function: Callable[[list[int]], Value]) -> list[tuple[list[int], Value]] | None:
    """Two or three random inputs with their outputs; None if a few attempts find none that tell much."""
    num_shown = 2 + draw_index(rng, 2)
    for _ in range(8):
        inputs = [draw_input(rng) for _ in range(num_shown)]
        try:
            examples = [(given, function(list(given))) for given in inputs]
        except (IndexError, ValueError, ZeroDivisionError):
            continue
        if _is_telling(examples):
            return examples
    return None


def _is_telling(examples: Sequence[tuple[Sequence[int], int | Sequence[int]]]) -> bool:
    """Whether the outputs are distinct, none an empty list, and the prompt is short enough."""
    outputs = [written(output) for _, output in examples]
    is_distinct = len(set(outputs)) == len(outputs) and "[]" not in outputs
    return is_distinct and len(format_prompt("", examples)) <= MAX_PROMPT_LENGTH


@lru_cache(maxsize=4)
def _all_problems(seed: int) -> dict[str, tuple[Problem, ...]]:
    """Draw distinct behaviours, each with the least surprising of the programs drawn for it; shuffle and split them."""
    rng = Random(f"programs {seed}")  # seeding by a string is the same in every Python since 3.2
    programs: dict[Behaviour, Program] = {}
    shown: dict[Behaviour, list[int]] = {}
    known: set[str] = set()
    while len(programs) < sum(SPLIT_SIZES.values()):
        program = draw_program(rng, TASK)
        if len(program.text) > MAX_REFERENCE_LENGTH or program.text in known:
            continue
        known.add(program.text)
        found = behaviour_of(program.text)
        if found is None:
            continue
        if found not in programs:
            picks = _pick_shown(rng, found)
            if picks is None:
                continue
            shown[found] = picks
        elif program.bits >= programs[found].bits:
            continue
        programs[found] = program
    problems = [_problem(found, program, shown[found]) for found, program in programs.items()]
    for last in range(len(problems) - 1, 0, -1):  # behaviours that are drawn often come first: spread them evenly
        other = draw_index(rng, last + 1)
        problems[last], problems[other] = problems[other], problems[last]
    splits: dict[str, tuple[Problem, ...]] = {}
    for split, size in SPLIT_SIZES.items():
        splits[split], problems = tuple(problems[:size]), problems[size:]
    return splits


def _pick_shown(rng: Random, found: Behaviour) -> list[int] | None:
    """Indices of two or three of ``INPUTS`` whose outputs tell something; None if a few attempts find none."""
    num_shown = 2 + draw_index(rng, 2)
    for _ in range(20):
        picks = [draw_index(rng, len(INPUTS)) for _ in range(num_shown)]
        if len(set(picks)) == num_shown and _is_telling([(INPUTS[i], found[i]) for i in picks]):
            return picks
    return None


def _problem(found: Behaviour, program: Program, shown: list[int]) -> Problem:
    outputs = [list(output) if isinstance(output, tuple) else output for output in found]
    return Problem(
        id=sha256(";".join(map(written, outputs)).encode()).hexdigest()[:12],
        prompt=format_prompt(program.hint, [(INPUTS[i], found[i]) for i in shown]),
        reference=program.text,
        level=1 + sum(program.bits >= threshold for threshold in LEVEL_THRESHOLDS),
        row={"inputs": INPUTS, "outputs": outputs, "shown": shown},
    )


def _job(text: str, check: Callable[..., Any]) -> SandboxProgram:
    return SandboxProgram(
        source=_SOURCE.format(expression=text),
        entry_point=ENTRY_POINT,
        check=check,
        timeout_s=TIMEOUT_S,
        memory_mb=MEMORY_MB,
    )


_NO_EXPRESSION = Grade(reward=0.0, verdict=Verdict.FAILED, reason="not a Python expression")


def _grade(form: str, outcome: Outcome) -> Grade:
    if outcome.verdict is Verdict.GRADER_ERROR:
        return Grade(reward=float("nan"), verdict=Verdict.GRADER_ERROR, reason=outcome.reason)
    return Grade(reward=float(outcome.passed), verdict=outcome.verdict, answer=form, reason=outcome.reason)
