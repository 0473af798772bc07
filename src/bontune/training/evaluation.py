"""Evaluation during training: the policy on held-out problems, the best evaluations so far, and samples to read.

Shapes: ``_P`` problems, ``_M`` samples of one problem.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object

from bontune.base.errors import BontuneError
from bontune.base.files import replace_file
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.config import Recipe
from bontune.engines.contract import Engine
from bontune.metrics import reward_scale
from bontune.metrics.evaluation import Evaluation, evaluate_pool
from bontune.objectives.budgets import as_budgets
from bontune.pools.collect import Graded, collect
from bontune.pools.compare import aligned
from bontune.tasks.base import Task
from bontune.training import setup
from bontune.training.read_log import SAMPLES, read_samples
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
        self.task = task if recipe.eval.task is None else setup.make_task(recipe.eval.task)
        self.problems = setup.eval_problems_of(self.task, recipe) if recipe.eval.every else []
        self.verifier = verifier
        self.shown: list[dict[str, Any]] = []
        """Samples of the last evaluation for people to read; see :func:`sample_rows`."""
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
                self.shown += sample_rows(part, NUM_PROBLEMS - len(self.shown))
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


class BestSteps:
    """The best evaluations so far: one by the run's own aim, and one by each metric of ``eval.keep``.

    The run's own aim is best@k at the largest k up to N; with several budgets it is their weighted sum. A metric of
    ``eval.keep`` may join several by ``+``, such as ``pass@1+pass@16``: then their mean counts. Of equally good
    evaluations the earliest counts.
    """

    def __init__(self, recipe: Recipe) -> None:
        """
        Raises:
            BontuneError: ``eval.keep`` names a metric that the evaluations do not hold.
        """
        self.aim = _aim(recipe)
        self.metric = _written(self.aim)
        self.keep = tuple(recipe.eval.keep)
        self.own: dict[str, Any] = {}
        self.kept: dict[str, dict[str, Any]] = {}
        families = ["pass", "best", *(["majority"] if recipe.objective.row().needs_answers else [])]
        known = [f"{family}@{k}" for family in families for k in recipe.eval.k]
        for name in self.keep:
            if not set(name.split("+")) <= set(known):
                raise BontuneError(f"eval.keep names {name!r}, which is not evaluated; there are {', '.join(known)}.")
        if self.keep and not recipe.eval.every:
            raise BontuneError("eval.keep needs evaluations during training: set eval.every.")

    def note(self, step: int, measured: Mapping[str, float]) -> list[str]:
        """Remember an evaluation; returns the metrics of ``eval.keep`` by which it is the best so far."""
        reached = sum(weight * measured[name] for name, weight in self.aim.items())
        if reached > self.own.get("value", -math.inf):
            self.own = {"step": step, "metric": self.metric, "value": reached}
        better = []
        for name in self.keep:
            # Graded rewards have max@k, at every evaluation or at all but those where they happen to be 0 and 1.
            parts = [measured.get(part.replace("pass", "max"), measured.get(part)) for part in name.split("+")]
            value = sum(part for part in parts if part is not None) / len(parts)
            if value > self.kept.get(name, {}).get("value", -math.inf):
                self.kept[name] = {"step": step, "value": value}
                better.append(name)
        return better

    def state(self) -> dict[str, Any]:
        """The best evaluations as plain values, for a checkpoint."""
        return {"best": self.own, "kept": self.kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.own, self.kept = dict(state["best"]), dict(state.get("kept", {}))


def _aim(recipe: Recipe) -> dict[str, float]:
    """Metrics that the run trains for, each with its weight at the end of the training."""
    family = "majority" if recipe.objective.row().needs_answers else "best"
    aim: dict[str, float] = {}
    for budget, weight in as_budgets(recipe.objective.n_at()).items():
        within = max((k for k in recipe.eval.k if k <= budget), default=min(recipe.eval.k))
        aim[f"{family}@{within}"] = aim.get(f"{family}@{within}", 0.0) + weight
    return aim


def _written(aim: Mapping[str, float]) -> str:
    if len(aim) == 1:
        return next(iter(aim))
    return " + ".join(f"{weight:.3g}·{name}" for name, weight in aim.items())


FIRST = "first_evaluation.json"
FAMILIES = ("pass", "max", "best")

Gains = dict[str, tuple[float, float, float]]
"""Metric → its mean difference to the first evaluation, and the ends of the 95 % interval over problems."""


def gains_since_first(folder: Path, step: int, evaluation: Evaluation) -> Gains:
    """Compare an evaluation with the run's first, which is kept in ``first_evaluation.json``.

    Args:
        folder: of the run.
        step: of the evaluation; one at the first's step, or before it, becomes the first.
        evaluation: of the same problems.

    Returns:
        The gains in pass@k, max@k and best@k; none for the first.
    """
    path = folder / FIRST
    first = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if first is None or step <= first["step"]:
        values = {name: v.tolist() for name, v in evaluation.values.items() if name.partition("@")[0] in FAMILIES}
        replace_file(path, json.dumps({"step": step, "problems": evaluation.problem_ids, "values": values}))
        return {}
    before = Evaluation(
        problem_ids=first["problems"], values={name: np.asarray(v) for name, v in first["values"].items()}
    )
    if set(before.problem_ids) != set(evaluation.problem_ids):
        return {}
    first_values, now = aligned([before, evaluation])
    found = {name: now.difference(first_values, name) for name in first_values.values if name in now.values}
    return {name: (i.value, i.low, i.high) for name, i in found.items()}


NUM_PROBLEMS = 3
NUM_COMPLETIONS = 4


def sample_rows(graded: Graded, num_problems: int = NUM_PROBLEMS) -> list[dict[str, Any]]:
    """The first completions of the first problems, as plain data."""
    rows = []
    for problem, texts, grades in zip(graded.problems, graded.samples.texts, graded.grades, strict=True):
        shown = list(zip(texts, grades, strict=True))[:NUM_COMPLETIONS]
        rows.append(
            {
                "problem": problem.id,
                "prompt": problem.prompt,
                "reference": problem.reference,
                "completions": [
                    {
                        "text": text,
                        "verdict": grade.verdict.value,
                        "reward": None if math.isnan(grade.reward) else grade.reward,
                    }
                    for text, grade in shown
                ],
            }
        )
    return rows[:num_problems]


def append_samples(folder: Path, step: int, rows: Sequence[dict[str, Any]]) -> None:
    """Add the samples of an evaluation, in the place of those of this step or a later one.

    Raises:
        OSError: the file cannot be written.
    """
    kept = [row for row in read_samples(folder) if row["step"] < step]
    new = [{"step": step, **row} for row in rows]
    replace_file(folder / SAMPLES, "".join(json.dumps(row) + "\n" for row in [*kept, *new]))
