"""Programs: write a short Python function of five digits from a hint and two or three examples; graded in the sandbox.

The prompt ``sort cut:f([3,1,2,0,9])=[1,2,3,9];f([5,8,4,4,7])=[4,5,7,8];f(x)=`` asks for an expression in ``x``, such as
``sorted(x)[1:]``: the kinds of operations are named, in order, but not what exactly they do. Hidden functions are drawn
from a grammar (:mod:`bontune.tasks.programs_grammar`) and are distinct by behaviour, across splits too: no two do the
same on the task's 48 inputs. Two or three of those are shown, and a completion must be right on all; by which means
does not matter. Several functions fit most prompts, so a model does well to spread its attempts.

Difficulty is the surprise of the reference, −log₂ of the probability with which the grammar draws it: under 12 bits
is level 1, 18 and more is level 5, about a fifth of the problems each.

``hard=True`` is another distribution, to see whether what was learned on the usual problems carries over: three
operations, level 5 alone, and no behaviour of the usual problems of the same seed. Prompts look the same. Held out they
are from training on the usual problems, not from the demonstrations to the shipped model.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from random import Random

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.thoughts import thoughts_of
from bontune.grading.sandbox.outside.check import Outcome, sandbox_name
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.base import grade_answers
from bontune.tasks.options import Seed, ThoughtTags, checked
from bontune.tasks.programs_grammar import (
    DEMONSTRATION,
    HARD,
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
from bontune.tasks.programs_running import Inputs, canonical, run_programs

SPLIT_SIZES = {"test": 300, "validation": 300, "train": 1600}
"""Problems a split, drawn together."""
NUM_MORE_TRAINED = 4800
"""Problems of the usual train split that are drawn after these: most are rarer functions, so harder."""

LEVEL_THRESHOLDS = (12.0, 13.7, 15.2, 18.0)
"""Bits that levels 2 to 5 need at least."""
MAX_PROMPT_LENGTH = 100
"""Characters of a prompt without its hint, which keeps it under 90 tokens of the shipped model."""
MAX_REFERENCE_LENGTH = 44
"""Characters of a reference, at most 24 tokens."""

MAX_COMPLETION_LENGTH = 300
"""Characters; a longer completion is no answer."""


class Programs:
    """The embedded code task: 6,400 train, 300 validation and 300 test problems, the same for the same seed everywhere.

    Args:
        seed: draws the problems. The shipped model has not seen the test and validation behaviours of seed 0.
        hard: other, harder problems instead, in as many splits of the same sizes: three operations, level 5 only, and
            none of the usual behaviours of the seed. For testing what was trained on the usual ones; the shipped model
            may have seen them.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``.

    Example:
        >>> task = Programs()
        >>> problem = task.problems("test")[0]
        >>> [grade.verdict.value for grade in task.grade([problem], [[problem.reference, "x*0", "x["]])[0]]
        ['passed', 'failed', 'failed']
    """

    @checked
    def __init__(self, *, seed: Seed = 0, hard: bool = False, thoughts: ThoughtTags = "auto") -> None:
        self.name = "programs"
        self.stop: tuple[str, ...] = ()
        self.splits: tuple[str, ...] = ("train", "validation", "test")
        self.thoughts = thoughts_of(thoughts)
        self._seed = seed
        self._is_hard = hard

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
            raise BontuneError(
                f"task programs has no split {split!r}{did_you_mean(split, self.splits)}; it has {known}"
            )
        more = _more_trained(self._seed) if split == "train" and not self._is_hard else ()
        return [*_all_problems(self._seed, self._is_hard)[split], *more]

    def grade(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], poll: Poll | None = None
    ) -> list[list[Grade]]:
        """Reward 1 for an expression with the right value on every input, shown or hidden, else 0.

        Programs run in the sandbox and nowhere else. What a program returns does not depend on the problem, so that
        equal programs of all problems run once.

        Raises:
            BontuneError: no sandbox holds on this machine.
        """
        return grade_answers(
            self.thoughts, problems, completions, lambda these, answers: self._grade(these, answers, poll)
        )

    def _grade(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]], poll: Poll | None
    ) -> list[list[Grade]]:
        forms = [[normal_form(answer) for answer in row] for row in answers]
        wanted: dict[Inputs, dict[str, None]] = {}
        for problem, row in zip(problems, forms, strict=True):
            inputs = tuple(map(tuple, problem.row["inputs"]))
            wanted.setdefault(inputs, {}).update(dict.fromkeys(form for form in row if form is not None))
        outcomes = {inputs: run_programs(programs, inputs, poll) for inputs, programs in wanted.items() if programs}
        return [
            [
                _NO_EXPRESSION
                if form is None
                else _graded(problem, form, outcomes[tuple(map(tuple, problem.row["inputs"]))][form])
                for form in row
            ]
            for problem, row in zip(problems, forms, strict=True)
        ]

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
    """What the usual validation and test problems of a seed do; not the hard ones."""
    splits = _all_problems(seed)
    return frozenset(map(_behaviour, splits["validation"] + splits["test"]))


def _behaviour(problem: Problem) -> Behaviour:
    return tuple(tuple(output) if isinstance(output, list) else output for output in problem.row["outputs"])


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
def _all_problems(seed: int, is_hard: bool = False) -> dict[str, tuple[Problem, ...]]:
    """Draw distinct behaviours, each with the least surprising of the programs drawn for it; shuffle and split them."""
    # Seeding by a string is the same in every Python since 3.2.
    rng = Random(f"programs hard {seed}" if is_hard else f"programs {seed}")
    problems = _draw_problems(rng, usual=_all_problems(seed) if is_hard else None)
    for last in range(len(problems) - 1, 0, -1):  # behaviours that are drawn often come first: spread them evenly
        other = draw_index(rng, last + 1)
        problems[last], problems[other] = problems[other], problems[last]
    splits: dict[str, tuple[Problem, ...]] = {}
    for split, size in SPLIT_SIZES.items():
        splits[split], problems = tuple(problems[:size]), problems[size:]
    return splits


@lru_cache(maxsize=4)
def _more_trained(seed: int) -> tuple[Problem, ...]:
    """More usual problems to train on, as many functions: what is learned from a few does not carry over to others."""
    others = [
        problem for is_hard in (False, True) for split in _all_problems(seed, is_hard).values() for problem in split
    ]
    programs, shown = _draw_programs(
        Random(f"programs more {seed}"), TASK, NUM_MORE_TRAINED, excluded=frozenset(map(_behaviour, others))
    )
    return tuple(_problem(found, program, shown[found]) for found, program in programs.items())


def _draw_problems(rng: Random, *, usual: Mapping[str, Sequence[Problem]] | None) -> list[Problem]:
    """Draw as many problems as all splits have: usual ones, or, given those, hard ones."""
    weights = TASK if usual is None else HARD
    least_bits = 0.0 if usual is None else LEVEL_THRESHOLDS[-1]
    excluded = frozenset(_behaviour(problem) for split in (usual or {}).values() for problem in split)
    programs, shown = _draw_programs(rng, weights, sum(SPLIT_SIZES.values()), excluded, least_bits)
    return [_problem(found, program, shown[found]) for found, program in programs.items()]


def _draw_programs(
    rng: Random, weights: Weights, number: int, excluded: Collection[Behaviour], least_bits: float = 0.0
) -> tuple[dict[Behaviour, Program], dict[Behaviour, list[int]]]:
    """So many behaviours, each with the least surprising of the programs drawn for it, and what its problem shows."""
    programs: dict[Behaviour, Program] = {}
    shown: dict[Behaviour, list[int]] = {}
    known: set[str] = set()
    while len(programs) < number:
        program = draw_program(rng, weights)
        if len(program.text) > MAX_REFERENCE_LENGTH or program.text in known or program.bits < least_bits:
            continue
        known.add(program.text)
        found = behaviour_of(program.text)
        if found is None or found in excluded:
            continue
        if found not in programs:
            picks = _pick_shown(rng, found)
            if picks is None:
                continue
            shown[found] = picks
        elif program.bits >= programs[found].bits:
            continue
        programs[found] = program
    return programs, shown


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


def _graded(problem: Problem, form: str, outcome: Outcome) -> Grade:
    """The grade of a program, by what it returned or how it ended."""
    if outcome.verdict is Verdict.GRADER_ERROR:
        return Grade(reward=float("nan"), verdict=Verdict.GRADER_ERROR, reason=outcome.reason)
    if not outcome.passed:
        return Grade(reward=0.0, verdict=outcome.verdict, answer=form, reason=outcome.reason)
    outputs = outcome.answer.split(";")
    for given, wanted, got in zip(problem.row["inputs"], problem.row["outputs"], outputs, strict=True):
        if canonical(wanted) != got:
            reason = f"an assertion failed: wrong for {written(given)}"
            return Grade(reward=0.0, verdict=Verdict.FAILED, answer=form, reason=reason)
    return Grade(reward=1.0, verdict=Verdict.PASSED, answer=form)


_NO_EXPRESSION = Grade(reward=0.0, verdict=Verdict.FAILED, reason="not a Python expression")
