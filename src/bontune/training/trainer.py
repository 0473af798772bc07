"""The training loop: sample, grade, score, weigh, update, log, save.

Shapes: ``_P`` prompts of a step (this process's share), ``_M`` samples of one prompt.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from torch import Tensor

import bontune.verifiers as verifiers
from bontune.base.errors import Interrupted, RunStopped
from bontune.base.files import replace_file
from bontune.base.problems import Problem
from bontune.base.signals import StopSignals
from bontune.config import Recipe
from bontune.engines.contract import WITHOUT_SEEDS, Engine, EngineFailed, Samples
from bontune.engines.prompts import prompts_of, texts_of
from bontune.engines.seeds import order_of
from bontune.grading.verdict import Grade
from bontune.metrics.evaluation import Evaluation
from bontune.models.precision import reproducible, saved_dtype
from bontune.models.saving import lasting_base, save_model, write_base
from bontune.objectives.budgets import largest_budget
from bontune.pools.collect import Graded, grade_all, score_all
from bontune.tasks.base import Task
from bontune.training import checkpoint, setup
from bontune.training.advantages import Weighing
from bontune.training.batches import prompts_of_updates
from bontune.training.checkpoint import STEPS, identity_of
from bontune.training.evaluation import Evaluator, append_samples, gains_since_first
from bontune.training.failure_rate import what_running_amounts_to
from bontune.training.first_step import FirstStep
from bontune.training.log import RunLog, Stages, batch_numbers, log_report, log_samples
from bontune.training.plan import start_line
from bontune.training.processes import JointSignals, one_of_several
from bontune.training.refit import Refit
from bontune.training.rollouts import Sequences, encode_demonstrations
from bontune.training.run import RunState, how_it_goes_on
from bontune.training.schedules import kl_coefficient, learning_rate
from bontune.training.sharding import Sharding
from bontune.training.update import Updater, UpdateResult
from bontune.verifiers import Verifier


class Trainer:
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
        setup.check_objective(recipe)
        self.recipe, self.folder, self.step = recipe, Path(recipe.run), 0
        self.task = setup.load_task(recipe.task) if task is None else task
        self.verifier = setup.load_verifier(recipe) if verifier is None else verifiers.as_verifier(verifier)
        # Of a task that runs programs: refused here where none holds, and part of the result where one does.
        self.isolation: str | None = getattr(self.task, "isolation", None)
        self.problems = setup.problems_of(self.task, recipe.task.split)
        self.accelerator = setup.make_accelerator(recipe)
        self.is_main = bool(self.accelerator.is_main_process)
        self.evaluator = Evaluator(recipe, self.task, self.verifier, self.accelerator)
        # A model that was given keeps its dtype, and its adapter the name of its base.
        self.dtype = saved_dtype(recipe.model) if model is None else None
        self.base = lasting_base(recipe.model, self.folder / "base") if model is None else None
        self.model, self.tokenizer, self.lm = setup.make_policy(recipe, model, tokenizer, self.accelerator)
        self.engine, self.sharding = self._engine(engine)
        options = setup.sampling_options(recipe, self.task, self.problems, self.engine)
        setup.check_engine(self.engine, [*self.problems, *self.evaluator.problems], options.max_new_tokens)
        problems = {"training": self.problems, "evaluation": self.evaluator.problems}
        refit = Refit(recipe, self.verifier, self.problems, self.accelerator)
        identity = identity_of(recipe, [self.task, self.evaluator.task], problems)
        self.state = RunState.at_start(recipe, self.model, self.lm, identity, refit, self.accelerator, self.sharding)
        self.anchor, self.optimizer = self.state.anchor, self.state.optimizer
        self.weighing = Weighing(recipe, self.lm, self.anchor, self.accelerator.autocast)
        self.columns = self.weighing.columns
        known = self.problems if self.columns.demonstrated else []
        demonstrations = encode_demonstrations(self.task, known, self.model, self.tokenizer)
        self.sequences = Sequences(
            self.columns, self.engine, self.model, self.tokenizer, self.anchor, options, demonstrations
        )
        self.updater = Updater.of(
            recipe, self.lm, self.state, self.columns, self.engine, self.accelerator, sharding=self.sharding
        )
        self.first_step = FirstStep(recipe.training, self.lm, self.anchor, self.accelerator)
        is_quiet = is_quiet or not self.is_main
        self.write_report = write_report
        self.log = RunLog(self.folder, recipe.training.steps, label=recipe.objective.name, is_quiet=is_quiet)

    def _engine(self, given: Engine | None) -> tuple[Engine, Sharding | None]:
        """Make what draws, and then lay the policy in parts if it is to lie so."""
        recipe, accelerator = self.recipe, self.accelerator
        drawing = setup.drawing_model(recipe, self.model, accelerator) if given is None else None
        sharding = Sharding(recipe, self.model, self.lm, accelerator) if recipe.training.shard else None
        return given or setup.make_engine(recipe, drawing, self.tokenizer, accelerator), sharding

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
                graded, advantages_PM = self.state.refill.fill(step, graded, advantages_PM, self.draws(step), draw)
                with stages("update"):
                    result = self.update(step, graded, advantages_PM, signals)
                self.step = step
                with stages("refit") if self.recipe.verifier.refit else nullcontext():
                    self.state.refit.learn(step, graded)
                self.record(graded, result, stages)
                if self.evaluator.is_due(step):
                    self.evaluate(signals)
                if (every and step % every == 0) or step == total:
                    self.save()
                signals.poll_between_steps()
            return self.finish()

    @contextmanager
    def running(self) -> Iterator[StopSignals]:
        """Hold the run's folder, trackers, signals and log; an interrupted run is saved, a full disk is explained."""
        with (
            one_of_several(self.accelerator),
            setup.run_folder(self.recipe, self.is_main),
            setup.tracking(self.recipe, self.accelerator) as self.log.trackers,
            self._signals() as signals,
            self.log,
            reproducible(self.accelerator.device),
        ):
            try:
                yield signals
            except Interrupted:
                self.save()
                saved = f"step {self.step} is saved, the same command continues from there"
                self.log.say(f"stopped by a signal; {saved if self.step else 'no step was complete yet'}")
                raise
            except EngineFailed:
                if self.sharding is None:  # parts are not put together while one process is in trouble
                    self.save()
                raise
            except BrokenPipeError:
                raise
            except (OSError, SafetensorError) as error:  # of metrics, model or report; save() has its own
                reason = f"{error.strerror} ({error.filename or self.folder})" if isinstance(error, OSError) else error
                raise RunStopped(
                    f"The run had to stop after step {self.step}: {reason}; its checkpoints are intact: put that right "
                    "and start the same command again."
                ) from error

    def _signals(self) -> StopSignals:
        if self.sharding is None:
            return StopSignals(self.log.bar.tick)
        return JointSignals(self.accelerator, self.log.bar.tick)

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
        with self.accelerator.autocast(), self.log.watching("sampling", self.engine, self.sequences.number(problems)):
            samples = self.sequences.of(problems, self.recipe.seed, draws, signals.poll)
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
        p_fail = self.state.failure_rates.estimate(graded)
        try:
            advantages_PM = self.weighing.advantages(
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
        self.state.failure_rates.learn(graded, self.accelerator)
        return UpdateResult.mean(results)

    def _check_first(self, step: int, graded: Graded) -> None:
        with self.accelerator.autocast():
            self.first_step.check(graded.samples, self.recipe.sampling.temperature, step)

    def record(self, graded: Graded, result: UpdateResult, stages: Stages) -> None:
        """Write the step's row in ``metrics.jsonl``; its means are over all processes."""
        numbers = batch_numbers(
            graded, self.columns.measured, largest_budget(self.recipe.objective.n_at()), self.accelerator
        )
        if not self.is_main:
            return
        num_tokens = numbers["length"] * numbers["samples"]
        self.log.step(
            {
                "step": self.step,
                **numbers,
                **self.state.failure_rates.numbers,
                **self.state.refill.numbers,
                **self.state.refit.numbers,
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

    # ---- what keeps a run alive ----

    def save(self) -> None:
        """Checkpoint the last completed step."""
        if self.step > 0 and (self.is_main or self.sharding is not None):
            state = self.state.checkpoint(self.step, is_wanted=self.is_main)
            if self.is_main:
                keep = self.recipe.training.keep_checkpoints
                checkpoint.save(self.folder / "checkpoints", self.step, state, keep=keep)
        self.accelerator.wait_for_everyone()

    def write_model(self, folder: Path, *, adapter: Path) -> None:
        """Write the policy in the dtype in which the model came; adapters are merged in, and kept apart as well."""
        model = self.model if self.sharding is None else self.sharding.whole_model(is_wanted=self.is_main)
        if self.is_main:
            if self.recipe.training.lora is not None:
                write_base(self.recipe.model, self.base, self.dtype)
            save_model(model, self.tokenizer, folder, base=self.base, adapter=adapter, dtype=self.dtype)

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, if there is one."""
        self.log.say(start_line(self.recipe, self.model, len(self.problems)))
        found = checkpoint.load_latest(self.folder / "checkpoints", self.state.identity)
        if found is not None:
            self.step = self.state.restore(found)
            self.first_step.is_due = False
            self.engine.load(self.anchor.policy_weights())
            self.log.say(how_it_goes_on(self.step, found.identity[STEPS], self.recipe.training))
        elif (note := what_running_amounts_to(self.recipe, len(self.problems))) is not None:
            self.log.say(note)
        self.accelerator.wait_for_everyone()  # all have read what the main process now tidies
        if self.is_main:
            checkpoint.set_aside_after(self.folder / "checkpoints", self.step)
            self.log.cut_after(self.step if found is not None else -1)
            if found is not None:
                setup.write_recipe(self.folder, self.recipe)  # a finished run may have got more steps
        if not self.engine.limits.has_seeds:
            self.log.say(WITHOUT_SEEDS[0].lower() + WITHOUT_SEEDS[1:-1])
        self.log.begin(self.step)
        self.accelerator.wait_for_everyone()

    def stop(
        self,
        step: int,
        reason: str,
        samples: Samples,
        advantages_PM: Tensor | None,
        grades: Sequence[Sequence[Grade]] | None = None,
    ) -> NoReturn:
        """Keep the offending batch for inspection and stop; the model has not been changed by it.

        Raises:
            RunStopped: always.
        """
        path = self.log.write_stopped_batch(step, reason, samples, advantages_PM, grades)
        raise RunStopped(f"{reason} at step {step}; the step was not taken, its batch is in {path}.")

    def finish(self) -> dict[str, Any]:
        """Write the final model and the summary."""
        summary = self.state.summary(self.recipe, self.step, self.columns.drawn)
        if self.isolation is not None:
            summary["isolation"] = self.isolation
        self.write_model(self.folder / "model", adapter=self.folder / "adapter")
        if self.is_main:
            self.state.refit.write(self.folder / "verifier")
            replace_file(self.folder / "summary.json", json.dumps(summary, indent=1), is_synced=True)
            page = None if self.write_report is None else self.write_report(self.folder)
            if page is not None and self.log.trackers is not None:
                log_report(self.log.trackers, page, self.step)
        self.accelerator.wait_for_everyone()
        return summary
