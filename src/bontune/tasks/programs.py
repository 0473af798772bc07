"""Programs: write a short Python function of five digits from a hint and two or three examples; graded in the sandbox.

The prompt ``sort cut:f([3,1,2,0,9])=[1,2,3,9];f([5,8,4,4,7])=[4,5,7,8];f(x)=`` asks for an expression in ``x``, such as
``sorted(x)[1:]``: the kinds of operations are named, in order, but not what exactly they do. Hidden functions are drawn
from a grammar (``tools/programs_grammar.py``) and are distinct by behaviour, across splits too: no two do the
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
import functools
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.thoughts import thoughts_of
from bontune.grading.sandbox.outside.check import Outcome, check_programs, sandbox_name
from bontune.grading.sandbox.outside.checker import Program
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.base import grade_answers
from bontune.tasks.embedded import SPLITS, embedded_file, read_embedded, readable_problems
from bontune.tasks.options import Seed, ThoughtTags, checked
from bontune.tasks.reading import FilePath

MAX_COMPLETION_LENGTH = 300
"""Characters; a longer completion is no answer."""
Inputs = Sequence[Sequence[int]]
TIMEOUT_S = 2.0
"""Seconds for all tests of a program, which take a millisecond; the rest is for a busy machine."""
MEMORY_MB = 256
_SOURCE = "def f(x):\n    return (\n{expression}\n    )\n\n\ndef outputs(inputs):\n    return [f(x) for x in inputs]\n"


class Programs:
    """The embedded code task: 6,400 train, 300 validation and 300 test problems, the same for the same seed everywhere.

    Args:
        seed: 0, the problems that ship. The shipped model has not seen the test and validation behaviours.
        hard: other, harder problems instead, in as many splits: three operations, level 5 only, and none of the usual
            behaviours. For testing what was trained on the usual ones; the shipped model may have seen them.
        data: a file of other problems, drawn by ``tools/programs_problems.py --seed``; None: those that ship.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``.

    Example:
        >>> task = Programs()
        >>> problem = task.problems("test")[0]
        >>> [grade.verdict.value for grade in task.grade([problem], [[problem.reference, "x*0", "x["]])[0]]
        ['passed', 'failed', 'failed']
    """

    @checked
    def __init__(
        self, *, seed: Seed = 0, hard: bool = False, data: FilePath | None = None, thoughts: ThoughtTags = "auto"
    ) -> None:
        self.name = "programs"
        self.stop: tuple[str, ...] = ()
        self.splits: tuple[str, ...] = SPLITS
        self.thoughts = thoughts_of(thoughts)
        self._file = embedded_file("programs", seed, hard, data)

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
                f"Task programs has no split {split!r}{did_you_mean(split, self.splits)}; it has {known}."
            )
        return list(_problems_of(self._file)[split])

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


@lru_cache(maxsize=4)
def _problems_of(file: Path) -> dict[str, tuple[Problem, ...]]:
    with readable_problems(file):
        first, *rows = read_embedded(file)
        inputs = tuple(map(tuple, first["inputs"]))
        splits: dict[str, list[Problem]] = {}
        for row in rows:
            outputs, shown = row["outputs"], row["shown"]
            problem = Problem(
                id=sha256(";".join(map(written, outputs)).encode()).hexdigest()[:12],
                prompt=format_prompt(row["hint"], [(inputs[i], outputs[i]) for i in shown]),
                reference=row["solution"],
                level=row["level"],
                row={"inputs": inputs, "outputs": outputs, "shown": shown},
            )
            splits.setdefault(row["split"], []).append(problem)
        return {split: tuple(splits[split]) for split in SPLITS}


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
