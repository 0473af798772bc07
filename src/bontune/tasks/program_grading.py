"""What tasks share whose completions are Python programs: tests are run in the sandbox, equal programs once."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.thoughts import Setting
from bontune.grading.sandbox.outside.check import Outcome, check_programs, sandbox_name
from bontune.grading.sandbox.outside.checker import Program
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.benchmark import Benchmark
from bontune.tasks.code import extract_program, normal_form
from bontune.tasks.options import Format

MAX_REPLY_BYTES = 64_000_000
"""Most bytes of one answer of a program; some tests of HumanEval+ and MBPP+ ask for megabytes."""

_CLOSE = "assert np.allclose(out, exp, rtol=1e-07, atol=atol)"
_CLOSE_AND_OF_ONE_SHAPE = "assert np.shape(out) == np.shape(exp) and np.allclose(out, exp, rtol=1e-07, atol=atol)"


def strict(test: str) -> str:
    """A test of HumanEval+ or MBPP+ (0.1.10, 0.2.0) that compares numbers of one shape only.

    As published it broadcasts: an empty list is close to every number, and passed 21 problems.
    """
    return test.replace(_CLOSE, _CLOSE_AND_OF_ONE_SHAPE)


class ProgramBenchmark(Benchmark):
    """A known data set of programming problems.

    Args:
        name: written into pools and reports.
        splits: that there are.
        stop: strings that end a continued text.
        format: of prompts, see ``options.Format``.
        thoughts: what marks thoughts; see :func:`bontune.base.thoughts.thoughts_of`.
        timeout_s: that a program has for its tests.
        memory_mb: that it has.
        check_references: whether a split's references are run when it is read.
    """

    def __init__(
        self,
        *,
        name: str,
        splits: Sequence[str],
        stop: Sequence[str],
        format: Format,
        thoughts: Setting,
        timeout_s: float,
        memory_mb: int,
        check_references: bool,
    ) -> None:
        self._format = format
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        super().__init__(
            name=name,
            splits=splits,
            stop=() if self._format == "chat" else stop,
            thoughts=thoughts,
            check_references=check_references,
        )

    @property
    def isolation(self) -> str:
        """What programs run in, for the record of a run or pool."""
        return sandbox_name()

    @abstractmethod
    def source(self, problem: Problem, program: str) -> str:
        """The whole program: what stands in the completion with what the problem gives."""

    def _grade(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]], poll: Poll | None
    ) -> list[list[Grade]]:
        """Reward 1 for a program that passes the tests, else 0; equal programs of a problem run once."""
        sources = [
            [self.source(problem, extract_program(text, problem.row["entry_point"])) for text in row]
            for problem, row in zip(problems, answers, strict=True)
        ]
        programs = {
            (problem.id, source): self._program(problem, source)
            for problem, row in zip(problems, sources, strict=True)
            for source in row
        }
        outcomes = dict(zip(programs, check_programs(programs.values(), poll=poll), strict=True))
        return [
            [_graded(outcomes[problem.id, source], source) for source in row]
            for problem, row in zip(problems, sources, strict=True)
        ]

    def reference_completion(self, problem: Problem) -> str:
        """Build the completion that the row's solution is."""
        return problem.reference

    def _program(self, problem: Problem, source: str) -> Program:
        return Program(
            source=source,
            entry_point=problem.row["entry_point"],
            check=problem.row["test"],
            other_names=tuple(problem.row.get("other_names", ())),
            helpers=problem.row.get("helpers", ""),
            timeout_s=self._timeout_s,
            memory_mb=self._memory_mb,
            max_reply_bytes=MAX_REPLY_BYTES,
        )


def _graded(outcome: Outcome, source: str) -> Grade:
    if outcome.verdict is Verdict.GRADER_ERROR:
        return Grade(reward=math.nan, verdict=outcome.verdict, reason=outcome.reason)
    return Grade(
        reward=float(outcome.passed), verdict=outcome.verdict, answer=normal_form(source), reason=outcome.reason
    )
