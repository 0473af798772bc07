"""Evaluation during training: the policy on held-out problems.

Shapes: ``_P`` problems, ``_M`` samples of one problem.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from accelerate.utils import gather_object

from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.config import Recipe
from bontune.engines.contract import Engine
from bontune.metrics import reward_scale
from bontune.metrics.evaluation import Evaluation, evaluate_pool
from bontune.pools.collect import collect
from bontune.tasks.base import Task
from bontune.training import setup
from bontune.training.shown_samples import NUM_PROBLEMS, rows_of
from bontune.verifiers import Verifier


class Evaluator:
    """Measures pass@k and best@k of a policy, with the same draws each time: curves over steps are paired."""

    def __init__(self, recipe: Recipe, task: Task, verifier: Verifier, accelerator: Any) -> None:
        """
        Args:
            recipe: names the problems, how they are drawn and the budgets k.
            task: the task that is trained on; the one evaluated on too, unless the recipe names another.
            verifier: picks the best of k.
            accelerator: shares the problems out over the processes.

        Raises:
            BontuneError: there is no such task or split, or it has no problems.
        """
        self.recipe = recipe
        self.task = task if recipe.eval.task is None else setup.load_task(recipe.eval.task)
        self.problems = setup.eval_problems_of(self.task, recipe) if recipe.eval.every else []
        self.verifier = verifier
        self.shown: list[dict[str, Any]] = []
        """Samples of the last evaluation for people to read; see :mod:`bontune.training.shown_samples`."""
        self.accelerator = accelerator

    def is_due(self, step: int) -> bool:
        """Whether an evaluation belongs after this step: before the first, every so often, and after the last."""
        every = self.recipe.eval.every
        return every > 0 and (step % every == 0 or step == self.recipe.training.steps)

    def number(self) -> tuple[int, int]:
        """How many completions this process draws in an evaluation, and the most tokens that one may have."""
        mine = self.problems[self.accelerator.process_index :: self.accelerator.num_processes]
        return len(mine) * self.recipe.eval.samples, self.recipe.sampling.max_new_tokens

    def measure(self, engine: Engine, problems: Sequence[Problem], poll: Poll | None = None) -> Evaluation:
        """Draw, grade and score these problems, and evaluate them; every process gets the evaluation of all."""
        options = setup.eval_options(self.recipe, self.task, problems, engine)
        mine = problems[self.accelerator.process_index :: self.accelerator.num_processes]
        rows: list[tuple[Any, ...]] = []
        self.shown = []
        with self.accelerator.autocast():
            for part in collect(
                engine, self.task, self.verifier, mine, options, key=(self.recipe.seed, "eval"), poll=poll
            ):
                self.shown += rows_of(part, NUM_PROBLEMS - len(self.shown))
                ids = [problem.id for problem in part.problems]
                rows += zip(ids, part.graded_PM, part.scores, part.answers(), strict=True)
        place = {problem.id: i for i, problem in enumerate(problems)}
        rows = sorted(gather_object(rows), key=lambda row: place[row[0]])
        ids, rewards_PM, scores_PM, answers_PM = (list(column) for column in zip(*rows, strict=True))
        is_full = self.recipe.objective.row().needs_answers  # what is trained for is measured
        scale = reward_scale([rewards_PM], self.recipe.eval.solved_at)
        is_told = scale.is_binary or self.recipe.eval.solved_at is not None or scale.lowest < 0 < (scale.solved_at or 0)
        if not is_told:  # graded rewards that happen to have two values now may have three at the next evaluation
            scale = dataclasses.replace(scale, solved_at=None)
        return evaluate_pool(
            ids,
            rewards_PM,
            self.recipe.eval.k,
            scores_PM=scores_PM,
            answers_PM=answers_PM,
            is_full=is_full,
            scale=scale,
        )
