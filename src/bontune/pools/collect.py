"""Sample, grade and score the problems of a task: the pool in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.user_code import what_was_raised
from bontune.engines.contract import Completion, Engine, Samples, SamplingOptions, StreamingEngine
from bontune.engines.prompts import prompts_of, texts_of
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.base import HasThoughts, Task
from bontune.verifiers import Verifier

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Graded:
    """P problems with M graded and scored completions each."""

    problems: list[Problem]
    """The P problems."""
    samples: Samples
    """Their completions."""
    grades: list[list[Grade]]
    """Grades, P × M."""
    scores: list[list[float]]
    """P × M, the verifier's."""

    @property
    def num_grader_errors(self) -> int:
        """Completions about which nothing is known, because the grader failed."""
        return sum(grade.verdict is Verdict.GRADER_ERROR for row in self.grades for grade in row)

    @cached_property
    def is_graded_P(self) -> Tensor:
        """Whether all completions of a prompt were graded, for each prompt."""
        import torch

        return torch.tensor([all(g.verdict is not Verdict.GRADER_ERROR for g in row) for row in self.grades])

    @cached_property
    def rewards_PM(self) -> Tensor:
        """float64 rewards; one that could not be graded counts as the lowest of them, 0 at most, never as correct."""
        import torch

        from bontune.metrics import reward_scale

        return torch.tensor(reward_scale([self.graded_PM]).filled(self.graded_PM), dtype=torch.float64)

    @property
    def graded_PM(self) -> list[list[float]]:
        """P × M rewards, NaN where the grader failed."""
        return [[grade.reward for grade in row] for row in self.grades]

    @cached_property
    def scores_PM(self) -> Tensor:
        """Scores in float64: scores that differ must not become ties."""
        import torch

        return torch.tensor(self.scores, dtype=torch.float64)

    def answers(self) -> list[list[str | None]]:
        """P × M answers in normal form."""
        return [[grade.answer for grade in row] for row in self.grades]


def grade_all(
    task: Task,
    problems: Sequence[Problem],
    texts: Sequence[Sequence[str]],
    poll: Poll | None,
    prompts: Sequence[str] | None = None,
) -> list[list[Grade]]:
    """Grade P × M completions, and hold the grader to its contract.

    Args:
        task: grades.
        problems: P problems.
        texts: M completions of each.
        poll: called between pieces of work.
        prompts: the texts that the model went on from, as far as they are known: where one opens a thought, its
            completions begin within it.

    Raises:
        RunStopped: a grader returned another number of grades than it was given completions, or a reward that is not
            finite.
    """
    if prompts is not None and isinstance(task, HasThoughts) and task.thoughts is not None:
        opened = [task.thoughts.opened_by(prompt) for prompt in prompts]
        texts = [[tag + text for text in row] if tag else row for tag, row in zip(opened, texts, strict=True)]
    rows = task.grade(problems, texts, poll)
    if len(rows) != len(problems):
        raise RunStopped(f"The grader of task {task.name} returned {len(rows)} rows for {len(problems)} problems.")
    for problem, completions, row in zip(problems, texts, rows, strict=True):
        if len(row) != len(completions):
            raise RunStopped(
                f"The grader of task {task.name} returned {len(row)} grades for {len(completions)} completions."
            )
        for grade in row:
            if not math.isfinite(grade.reward) and grade.verdict is not Verdict.GRADER_ERROR:
                raise RunStopped(
                    f"The grader of task {task.name} gave a completion of problem {problem.id} the reward "
                    f"{grade.reward}; a reward is a finite number."
                )
    # Where the grader failed, no number of its is a reward.
    return [[replace(g, reward=math.nan) if g.verdict is Verdict.GRADER_ERROR else g for g in row] for row in rows]


def score_all(
    verifier: Verifier, problems: Sequence[Problem], texts: Sequence[Sequence[str]], grades: Sequence[Sequence[Grade]]
) -> list[list[float]]:
    """Score P × M completions.

    Raises:
        BontuneError: from the verifier, such as a server that refuses a judge's request.
        RunStopped: the verifier raised, or did not return one number per completion.
    """
    try:
        scores = verifier.score(problems, texts, grades)
    except (BontuneError, RunStopped):
        raise
    except Exception as error:  # the user's own code may raise anything
        raise RunStopped(f"The verifier {verifier.name} failed: {what_was_raised(error)}.") from error
    if [len(row) for row in scores] != [len(row) for row in texts]:
        raise RunStopped(f"The verifier {verifier.name} did not return one score per completion.")
    is_known = [[g.verdict is not Verdict.GRADER_ERROR for g in row] for row in grades]
    if any(
        math.isnan(s) and known
        for row, k in zip(scores, is_known, strict=True)
        for s, known in zip(row, k, strict=True)
    ):
        raise RunStopped(f"The verifier {verifier.name} returned NaN; every completion needs a number.")
    # The oracle has no score for what could not be graded: last place, never the winner over anything graded.
    return [[-math.inf if math.isnan(s) else s for s in row] for row in scores]


def collect(
    engine: Engine,
    task: Task,
    verifier: Verifier,
    problems: Sequence[Problem],
    options: SamplingOptions,
    *,
    key: tuple[object, ...],
    batch_size: int = 64,
    poll: Poll | None = None,
) -> Iterator[Graded]:
    """Draw, grade and score, ``batch_size`` problems at a time.

    Args:
        engine: π.
        task: grades.
        verifier: scores.
        problems: which.
        options: how to draw; the task's stop strings should be in it.
        key: seed key; problem p uses (*key, p.id).
        batch_size: problems at a time: the granularity of progress and of restarts, not of results.
        poll: called between pieces of work.
    """
    for start in range(0, len(problems), batch_size):
        batch = list(problems[start : start + batch_size])
        prompts = prompts_of(engine, batch)
        samples = engine.draw(prompts, options, [(*key, p.id) for p in batch], poll)
        assert isinstance(samples, Samples), "a streaming engine is collected by collect_streamed"
        samples.check_finite()
        grades = grade_all(task, batch, samples.texts, poll, texts_of(engine, prompts))
        yield Graded(
            problems=batch, samples=samples, grades=grades, scores=score_all(verifier, batch, samples.texts, grades)
        )


def collect_streamed(
    engine: StreamingEngine,
    task: Task,
    verifier: Verifier,
    problems: Sequence[Problem],
    options: SamplingOptions,
    *,
    key: tuple[object, ...],
    known: Mapping[str, Mapping[int, Completion]] | None = None,
    keep: Callable[[str, dict[int, Completion]], None] | None = None,
    poll: Poll | None = None,
) -> Iterator[tuple[Problem, list[Completion], list[Grade], list[float]]]:
    """Draw from a streaming engine; grade and score each problem when it is complete, while others are being drawn.

    Args:
        engine: π.
        task: grades.
        verifier: scores.
        problems: which; they come in the order in which they are complete.
        options: how to draw; the task's stop strings should be in it.
        key: seed key; problem p uses (*key, p.id).
        known: completions that are there already, by problem and sample.
        keep: gets completions by problem as they arrive, in another thread.
        poll: called between pieces of work.
    """
    prompts = prompts_of(engine, problems)
    drawn = engine.as_completed(
        prompts,
        options,
        [(*key, p.id) for p in problems],
        names=[f"problem {p.id}" for p in problems],
        known=[(known or {}).get(p.id, {}) for p in problems],
        keep=None if keep is None else (lambda p, completions: keep(problems[p].id, completions)),
        poll=poll,
    )
    with closing(drawn):
        for p, completions in drawn:
            texts = [[completion.text for completion in completions]]
            grades = grade_all(task, [problems[p]], texts, poll, texts_of(engine, [prompts[p]]))
            scores = score_all(verifier, [problems[p]], texts, grades)
            yield problems[p], completions, grades[0], scores[0]
