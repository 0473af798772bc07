"""The training loop: sample, grade, score, weigh, update, log, save.

Shapes: ``_P`` prompts of a step (this process's share), ``_M`` samples of one prompt.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bontune.base.errors import RunStopped
from bontune.base.problems import Problem
from bontune.base.signals import StopSignals
from bontune.config import Recipe
from bontune.engines.contract import Engine, Samples
from bontune.engines.prompts import prompts_of, texts_of
from bontune.engines.seeds import order_of
from bontune.metrics.evaluation import Evaluation
from bontune.objectives.budgets import largest_budget
from bontune.pools.collect import Graded, grade_all, score_all
from bontune.tasks.base import Task
from bontune.training.advantages import Advantages
from bontune.training.batches import prompts_of_updates, ratio_options
from bontune.training.evaluation import append_samples, gains_since_first
from bontune.training.log import Stages, batch_numbers, log_samples
from bontune.training.rollouts import Rollouts, encode_demonstrations
from bontune.training.run import Run
from bontune.training.schedules import kl_coefficient, learning_rate
from bontune.training.update import Updater, UpdateResult
from bontune.verifiers import Verifier


class Trainer(Run):
    """Fine-tunes a model by a recipe; ``objective.name`` is Best-of-N (Chow et al., arXiv 2412.15287) or another."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        task: Task | None = None,
        verifier: Verifier | Callable[[Problem, str], float] | tuple[Any, Any] | None = None,
        model: Any = None,
        tokenizer: Any = None,
        engine: Engine | None = None,
        is_quiet: bool = False,
        write_report: Callable[[Path], Path] | None = None,
    ) -> None:
        """
        Args:
            recipe: all settings.
            task: instead of the recipe's.
            verifier: instead of the recipe's; a function (problem, completion) -> float or (model, tokenizer) will do.
            model, tokenizer: instead of loading ``recipe.model``.
            engine: draws the samples; None: the model itself draws, in this process. It must return tokens with their
                log-probabilities, and take the policy's weights after each step.
            is_quiet: show no progress.
            write_report: writes the page of the finished run from its folder, for the run's trackers, too.

        Raises:
            BontuneError: a setting that cannot work; nothing has been written then.
        """
        super().__init__(
            recipe,
            task=task,
            verifier=verifier,
            model=model,
            tokenizer=tokenizer,
            engine=engine,
            is_quiet=is_quiet,
            write_report=write_report,
        )
        self.advantages = Advantages(recipe, self.lm, self.anchor, self.accelerator.autocast)
        self.sources = self.advantages.sources
        known = self.problems if self.sources.demonstrated else []
        demonstrations = encode_demonstrations(self.task, known, self.model, self.tokenizer)
        # An engine from outside may draw in another precision, whose states the policy's upper layers do not fit.
        kept = self.lm.lower.first if self.lm.lower is not None and engine is None else None
        self.rollouts = Rollouts(
            self.sources, self.engine, self.model, self.tokenizer, self.anchor, self.options, demonstrations, kept
        )
        self.updater = Updater(
            self.lm,
            self.optimizer,
            self.anchor,
            self.accelerator,
            temperature=recipe.sampling.temperature,
            token_budget=recipe.training.token_budget,
            kl_share=self.sources.kl_share(recipe.kl.share),
            max_grad_norm=recipe.training.max_grad_norm,
            ratios=ratio_options(recipe),
            measures_ratios=not self.engine.limits.has_seeds and recipe.objective.row().is_policy_gradient,
        )

    def train(self) -> dict[str, Any]:
        """Run to the end, from the last checkpoint if there is one, and write the model.

        Returns:
            What is written to ``summary.json``.

        Raises:
            BontuneError: another process trains in this folder, or its checkpoint belongs to other settings.
            RunStopped: non-finite numbers, too many grader errors, or a checkpoint that cannot be written.
            Interrupted: SIGINT or SIGTERM; the last completed step has been saved.
        """
        every, total = self.recipe.training.checkpoint_every, self.recipe.training.steps
        with self.running() as signals:
            self.resume()
            if self.evaluator.is_due(self.step):  # a run may have been stopped between a step and its evaluation
                self.evaluate(signals, self.log.evaluation_at(self.step))
            while self.step < total:
                step, stages = self.step + 1, Stages(self.log.stage)
                draw = partial(self.draw, step, stages=stages, signals=signals)
                graded, advantages_PM = draw(self.draws(step))
                if self.state.refill is not None:
                    graded, advantages_PM = self.state.refill.fill(step, graded, advantages_PM, self.draws(step), draw)
                with stages("update"):
                    result = self.update(step, graded, advantages_PM, signals)
                self.step = step
                if self.state.refit is not None:
                    with stages("refit"):
                        self.state.refit.learn(step, graded)
                self.record(graded, result, stages)
                if self.evaluator.is_due(step):
                    self.evaluate(signals)
                if (every and step % every == 0) or step == total:
                    self.save()
                signals.poll_between_steps()
            return self.finish()

    # ---- the stages ----

    def draws(self, step: int) -> range:
        """Numbers of this process's draws in a step, from the endless stream of problems, shuffled anew each epoch."""
        per_step = self.recipe.training.prompts_per_step
        first = (step - 1) * per_step
        return range(first + self.accelerator.process_index, first + per_step, self.accelerator.num_processes)

    def problems_of(self, draws: Sequence[int]) -> list[Problem]:
        """The problems of these draws; they follow from the run's seed alone."""
        num = len(self.problems)
        return [self.problems[int(order_of(num, self.recipe.seed, i // num)[i % num])] for i in draws]

    def draw(self, step: int, draws: Sequence[int], *, stages: Stages, signals: StopSignals) -> tuple[Graded, Tensor]:
        """Sample, grade and weigh the problems of these draws; returns them with advantages (P, M)."""
        problems = self.problems_of(draws)
        with stages("sample"):
            samples = self.sample(step, problems, draws, signals)
        graded = self.grade(step, problems, samples, stages, signals)
        with stages("weigh"):
            return graded, self.weigh(step, graded, draws)

    def sample(self, step: int, problems: list[Problem], draws: Sequence[int], signals: StopSignals) -> Samples:
        """Draw the sequences of each problem: M completions, and what else a supervised objective trains on.

        A completion's seed is (run seed, "train", draw of the problem, problem, sample).
        """
        with self.accelerator.autocast(), self.log.watching("sampling", self.engine, self.rollouts.number(problems)):
            samples = self.rollouts.of(problems, self.recipe.seed, draws, signals.poll)
        if not bool(samples.logprobs_BT.isfinite().all()):
            self.stop(step, "A sampled token's log-probability is not finite", samples, None)
        return samples

    def grade(
        self, step: int, problems: list[Problem], samples: Samples, stages: Stages, signals: StopSignals
    ) -> Graded:
        """Grade and score the samples; a grader or verifier that breaks its contract stops the run."""
        grades = None
        try:
            with stages("grade"):
                prompts = texts_of(self.engine, prompts_of(self.engine, problems))
                grades = grade_all(self.task, problems, samples.texts, signals.poll, prompts)
            with stages("score"):
                scores = score_all(self.verifier, problems, samples.texts, grades)
        except RunStopped as error:
            self.stop(step, str(error).removesuffix("."), samples, None, grades)
        return Graded(problems=problems, samples=samples, grades=grades, scores=scores)

    def weigh(self, step: int, graded: Graded, draws: Sequence[int]) -> Tensor:
        """Advantages (P, M) in mean form; prompts with a completion that could not be graded carry no weight."""
        rewards_PM, is_known_P = graded.rewards_PM, graded.is_graded_P
        if self.recipe.objective.reward == "verifier":
            is_known_P = graded.scores_PM.isfinite().all(-1)
            rewards_PM = torch.where(is_known_P.unsqueeze(-1), graded.scores_PM, 0.0)
        share = graded.num_grader_errors / max(rewards_PM.numel(), 1)
        if share > self.recipe.training.max_grader_errors:
            reason = next(g.reason for row in graded.grades for g in row if math.isnan(g.reward))
            what = f"{share:.0%} of the completions could not be graded ({reason})"
            self.stop(step, what, graded.samples, None, graded.grades)
        p_fail = None if self.state.failure_rates is None else self.state.failure_rates.estimate(graded)
        try:
            advantages_PM = self.advantages.advantages(
                graded.samples,
                rewards_PM,
                graded.scores_PM,
                p_fail,
                answers_PS=graded.answers(),
                step=step,
                keys_P=[(self.recipe.seed, "ties", i) for i in draws],
            )
        except ValueError as error:  # such as a reward of ½ where the objective is derived for 0 and 1
            what = f"The objective cannot take these grades: {str(error).rstrip('.')}"
            self.stop(step, what, graded.samples, None, graded.grades)
        return advantages_PM * is_known_P.unsqueeze(-1)

    def update(self, step: int, graded: Graded, advantages_PM: Tensor, signals: StopSignals) -> UpdateResult:
        """Take the optimizer's steps on −ΣA·log π + β·KL(anchor), and let engine and P_fail know."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.recipe.training)
        results: list[UpdateResult] = []
        num_prompts, num_regular = len(graded.problems), len(self.draws(step))
        has_kl_P = torch.arange(num_prompts) < num_regular
        try:
            for chosen in prompts_of_updates(self.recipe, num_prompts, step, self.accelerator.process_index):
                is_whole = len(chosen) == num_prompts
                result = self.updater.step(
                    graded.samples if is_whole else graded.samples.of_prompts(chosen),
                    advantages_PM[chosen],
                    kl_coef=kl_coefficient(step, self.recipe.kl),
                    num_prompts=self.recipe.training.prompts_per_step // self.recipe.training.minibatches,
                    has_kl_P=has_kl_P[chosen],
                    check=partial(self._check_first, step, graded) if self.first_step.is_due and not results else None,
                    # A step that has changed the model is finished, because what is saved are whole steps.
                    poll=signals.poll if not results else None,
                )
                results.append(result)
        except RunStopped as error:
            self.stop(step, str(error), graded.samples, advantages_PM, graded.grades)
        self.engine.load(self.anchor.policy_weights())
        if self.state.failure_rates is not None:
            self.state.failure_rates.learn(graded, self.accelerator)
        return UpdateResult.mean(results)

    def _check_first(self, step: int, graded: Graded) -> None:
        with self.accelerator.autocast():
            self.first_step.check(graded.samples, self.recipe.sampling.temperature, step)

    def record(self, graded: Graded, result: UpdateResult, stages: Stages) -> None:
        """Write the step's row in ``metrics.jsonl``; its means are over all processes."""
        numbers = batch_numbers(
            graded, self.sources.measured, largest_budget(self.recipe.objective.n_at()), self.accelerator
        )
        if not self.is_main:
            return
        num_tokens = numbers["length"] * numbers["samples"]
        self.log.step(
            {
                "step": self.step,
                **numbers,
                **self.state.numbers,
                **self.first_step.numbers(self.step),
                **{name: value for name, value in dataclasses.asdict(result).items() if value is not None},
                "lr": learning_rate(self.step, self.recipe.training),
                "kl_coef": kl_coefficient(self.step, self.recipe.kl),
                "tokens_per_s": num_tokens / sum(stages.seconds.values()),
                "seconds": stages.seconds,
            }
        )

    def evaluate(self, signals: StopSignals, measured: dict[str, float] | None = None) -> None:
        """Evaluate the policy, unless it was ``measured`` at this step already, and keep the best models."""
        if measured is None:
            with self.log.watching("evaluating", self.engine, self.evaluator.number()):
                evaluation = self.evaluator.measure(self.engine, self.evaluator.problems, signals.poll)
            measured = evaluation.means()
            if self.is_main:
                intervals = {name: (i.low, i.high) for name, i in evaluation.intervals().items()}
                gains = gains_since_first(self.folder, self.step, evaluation)
                self.log.evaluation(self.step, measured, intervals, gains, len(evaluation.problem_ids))
                append_samples(self.folder, self.step, self.evaluator.shown)
                if self.log.trackers is not None:
                    log_samples(self.log.trackers, self.step, self.evaluator.shown)
        for name in self.state.best.note(self.step, measured):
            folder = self.folder / "best" / name
            self.write_model(folder, adapter=folder / "adapter")

    def evaluate_problems(self, problems: list[Problem]) -> Evaluation:
        """Evaluate the policy as it is now on any problems of the evaluation's task."""
        return self.evaluator.measure(self.engine, problems)
