"""The run around the loop: its folder and lock, signals, trackers, checkpoints, the written model and the stop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from filelock import BaseFileLock, FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor

import bontune.verifiers as verifiers
from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.base.files import hold, replace_file
from bontune.base.problems import Problem
from bontune.base.signals import StopSignals
from bontune.config import Recipe, TrainingSection, note_start
from bontune.engines.contract import WITHOUT_SEEDS, Engine, EngineFailed, Samples
from bontune.grading.verdict import Grade
from bontune.models.precision import reproducible, saved_dtype
from bontune.models.saving import lasting_base, save_model, write_base
from bontune.tasks.base import Task, isolation_of
from bontune.training import checkpoint, setup
from bontune.training.anchor import Anchor
from bontune.training.checkpoint import STEPS, Checkpoint, Identity, identity_of, load_optimizer, optimizer_tensors
from bontune.training.evaluation import BestSteps, Evaluator
from bontune.training.failure_rate import FailureRates, what_running_amounts_to
from bontune.training.first_step import FirstStep
from bontune.training.forward import CausalLM
from bontune.training.log import RunLog, log_report
from bontune.training.plan import sources_of, start_line
from bontune.training.processes import one_of_several
from bontune.training.read_log import LOCK
from bontune.training.refill import Refill
from bontune.training.refit import Refit
from bontune.training.schedules import learning_rate
from bontune.verifiers import Verifier


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """The parts of a run that change from step to step."""

    model: torch.nn.Module
    """The policy."""
    optimizer: torch.optim.Optimizer
    """The policy's optimizer."""
    anchor: Anchor
    """The KL reference."""
    failure_rates: FailureRates | None
    """Estimates of P_fail from earlier batches; None: the objective needs none, or takes the share in the batch."""
    refill: Refill | None
    """Draws further prompts, and knows how many they were; None: ``training.refill`` is off."""
    refit: Refit | None
    """The verifier, and the samples that it learns from."""
    best: BestSteps
    """The best evaluations so far."""
    identity: Identity
    """What decides the run."""

    @classmethod
    def at_start(
        cls,
        recipe: Recipe,
        model: torch.nn.Module,
        lm: CausalLM,
        identity: Identity,
        refit: Refit | None,
        accelerator: Any,
    ) -> RunState:
        """The state before the first step, for a model and its parts as they are now."""
        training, row = recipe.training, recipe.objective.row()
        source = row.p_fail_source(recipe.objective.options())
        rates, refill = None, None
        if source != "plugin":
            rates = FailureRates(source, lm, value_lr=training.value_lr, steps=training.steps)
        if training.refill is not None:
            processes = accelerator.num_processes, accelerator.process_index
            refill = Refill(training.refill, training.prompts_per_step, row, *processes)
        return cls(
            model=model,
            optimizer=setup.make_optimizer(recipe, model),
            anchor=Anchor(model, recipe.kl.anchor_ema),
            failure_rates=rates,
            refill=refill,
            refit=refit,
            best=BestSteps(recipe),
            identity=identity,
        )

    @property
    def num_refilled(self) -> int:
        """Further prompts that the run has drawn, over all processes."""
        return 0 if self.refill is None else self.refill.num_drawn

    @property
    def numbers(self) -> dict[str, float]:
        """What the parts that are on measured in the last step."""
        parts = (self.failure_rates, self.refill, self.refit)
        return {name: value for part in parts if part is not None for name, value in part.numbers.items()}

    def checkpoint(self, step: int) -> Checkpoint:
        """Return the state after a step, with its tensors on the CPU."""
        value_tensors, value_state = ({}, {}) if self.failure_rates is None else self.failure_rates.state()
        verifier_tensors, verifier_state = ({}, {}) if self.refit is None else self.refit.state()
        tensors = {
            "policy": _on_cpu(self.anchor.policy_weights()),
            "anchor": _on_cpu(self.anchor.weights()),
            "optimizer": _on_cpu(optimizer_tensors(self.optimizer, self.model)),
            **value_tensors,
            **verifier_tensors,
        }
        state = {"step": step, "refilled": self.num_refilled} | value_state | verifier_state | self.best.state()
        return Checkpoint(tensors=tensors, state=state, identity=self.identity)

    def summary(self, recipe: Recipe, step: int, drawn: int) -> dict[str, Any]:
        """Return the summary of a finished run; ``drawn``: completions that an engine drew for a prompt."""
        found = {
            "objective": recipe.objective.name,
            "n": recipe.objective.n,
            "steps": step,
            "best": self.best.own,
            "generations": (step * recipe.training.prompts_per_step + self.num_refilled) * drawn,
        }
        return found | ({"kept": self.best.kept} if self.best.kept else {})

    def restore(self, saved: Checkpoint) -> int:
        """Restore the state from a checkpoint; return its step."""
        self.anchor.restore(saved.tensors["policy"], saved.tensors["anchor"])
        load_optimizer(self.optimizer, self.model, saved.tensors["optimizer"])
        if self.failure_rates is not None:
            self.failure_rates.restore(saved.tensors, saved.state)
        if self.refill is not None:
            self.refill.num_drawn = int(saved.state["refilled"])
        if self.refit is not None:
            self.refit.restore(saved.tensors, saved.state)
        self.best.restore(saved.state)
        return int(saved.state["step"])


def _on_cpu(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors}


def how_it_resumes(step: int, planned: int, training: TrainingSection) -> str:
    """Say how a run resumes after a step; ``planned``: the steps that it was to have until now."""
    if planned < training.steps:
        rate = learning_rate(step + 1, training)
        return (
            f"finished with {planned} steps, going on to {training.steps}; schedules are those of {training.steps} "
            f"steps, so that the learning rate goes on at {rate:.2g}"
        )
    if step == training.steps:
        return f"already finished: all {step} steps are done; training.steps=… gives it more"
    return f"continuing after step {step}"


@contextmanager
def tracking(recipe: Recipe, accelerator: Any) -> Iterator[Any]:
    """Start the recipe's trackers and close them in the end; gives the accelerator, or None without trackers."""
    if not recipe.training.track:
        yield None
        return
    tree = recipe.model_dump(mode="json")
    flat = {f"{name}.{key}": v for name, part in tree.items() if isinstance(part, dict) for key, v in part.items()}
    flat |= {name: value for name, value in tree.items() if not isinstance(value, dict)}
    config = {name: v if isinstance(v, (bool, int, float, str)) else json.dumps(v) for name, v in flat.items()}
    name = Path(recipe.run).name
    accelerator.init_trackers(
        "bontune", config=config, init_kwargs={"wandb": {"name": name, "dir": recipe.run}, "trackio": {"name": name}}
    )
    try:
        yield accelerator
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


@contextmanager
def run_folder(recipe: Recipe, is_main: bool) -> Iterator[Path]:
    """Make the run's folder with its resolved ``recipe.yaml``, and lock it against a second process.

    Raises:
        BontuneError: another process trains in the folder, or it cannot be made or written.
    """
    folder = Path(recipe.run)
    if not is_main:
        yield folder
        return
    lock = FileLock(folder / LOCK)
    try:
        _prepare(folder, recipe, lock)
        yield folder
    finally:
        lock.release()


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write a run's ``recipe.yaml``."""
    replace_file(folder / "recipe.yaml", recipe.to_yaml(), is_synced=True)


def _prepare(folder: Path, recipe: Recipe, lock: BaseFileLock) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hold(lock, timeout_s=0.5)  # a page that watches may hold it for an instant
        # Left by a process that was killed: the lock says that no other process is writing here.
        for leftover in (*folder.glob(".tmp-*"), *folder.glob("best/.tmp-*")):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if not any((folder / "checkpoints").glob("step_*")):
            write_recipe(folder, recipe)
            note_start(recipe.model_dump(), folder)
    except Timeout:
        raise BontuneError(
            f"Another process is training in {folder}: wait for it, stop it, or choose another run=…"
        ) from None
    except OSError as error:
        raise BontuneError(f"The run folder {folder} cannot be made or written: {error.strerror}.") from None


class Run:
    """The parts of a run, made from its recipe, and what keeps it alive; :class:`Trainer` adds the loop."""

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
        """Make the parts; see :class:`bontune.training.trainer.Trainer` for the arguments."""
        setup.check_objective(recipe)
        self.recipe, self.folder, self.step = recipe, Path(recipe.run), 0
        self.task = setup.make_task(recipe.task) if task is None else task
        self.verifier = setup.make_verifier(recipe) if verifier is None else verifiers.as_verifier(verifier)
        # A task that runs programs refuses here if no isolation is available; its name becomes part of the summary.
        self.isolation = isolation_of(self.task)
        self.problems = setup.split_problems(self.task, recipe.task.split)
        self.accelerator = setup.make_accelerator(recipe)
        self.is_main = bool(self.accelerator.is_main_process)
        self.evaluator = Evaluator(recipe, self.task, self.verifier, self.accelerator)
        # A model that was given keeps its dtype, and its adapter the name of its base.
        self.dtype = saved_dtype(recipe.model) if model is None else None
        self.base = lasting_base(recipe.model, self.folder / "base") if model is None else None
        self.model, self.tokenizer, self.lm = setup.make_policy(recipe, model, tokenizer, self.accelerator)
        if engine is None:
            drawing = setup.drawing_model(recipe, self.model, self.accelerator)
            engine = setup.make_engine(recipe, drawing, self.tokenizer, self.accelerator)
        self.engine = engine
        options = setup.sampling_options(recipe, self.task, self.problems, self.engine)
        setup.check_engine(self.engine, [*self.problems, *self.evaluator.problems], options.max_new_tokens)
        problems = {"training": self.problems, "evaluation": self.evaluator.problems}
        refit = None
        if recipe.verifier.refit is not None:
            refit = Refit(recipe.verifier.refit, recipe.seed, self.verifier, self.problems, self.accelerator)
        identity = identity_of(recipe, [self.task, self.evaluator.task], problems)
        self.state = RunState.at_start(recipe, self.model, self.lm, identity, refit, self.accelerator)
        self.anchor, self.optimizer = self.state.anchor, self.state.optimizer
        self.first_step = FirstStep(recipe.training, self.lm, self.anchor, self.accelerator)
        self.options = options
        is_quiet = is_quiet or not self.is_main
        self.write_report = write_report
        self.log = RunLog(self.folder, recipe.training.steps, label=recipe.objective.name, is_quiet=is_quiet)

    @contextmanager
    def running(self) -> Iterator[StopSignals]:
        """Hold the run's folder, trackers, signals and log; an interrupted run is saved, a full disk is explained."""
        with (
            one_of_several(self.accelerator),
            run_folder(self.recipe, self.is_main),
            tracking(self.recipe, self.accelerator) as self.log.trackers,
            StopSignals(self.log.bar.tick) as signals,
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
                self.save()
                raise
            except BrokenPipeError:
                raise
            except (OSError, SafetensorError) as error:  # writing metrics, model or report; save() reports its own
                reason = f"{error.strerror} ({error.filename or self.folder})" if isinstance(error, OSError) else error
                raise RunStopped(
                    f"The run had to stop after step {self.step}: {reason}; its checkpoints are intact: put that right "
                    "and start the same command again."
                ) from error

    def save(self) -> None:
        """Checkpoint the last completed step."""
        if self.step > 0 and self.is_main:
            state, keep = self.state.checkpoint(self.step), self.recipe.training.keep_checkpoints
            checkpoint.save(self.folder / "checkpoints", self.step, state, keep=keep)
        self.accelerator.wait_for_everyone()

    def write_model(self, folder: Path, *, adapter: Path) -> None:
        """Write the policy in the dtype in which the model came; adapters are merged in, and kept apart as well."""
        if self.is_main:
            if self.recipe.training.lora is not None:
                write_base(self.recipe.model, self.base, self.dtype)
            save_model(self.model, self.tokenizer, folder, base=self.base, adapter=adapter, dtype=self.dtype)

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, if there is one."""
        self.log.say(start_line(self.recipe, self.model, len(self.problems)))
        found = checkpoint.load_latest(self.folder / "checkpoints", self.state.identity)
        if found is not None:
            self.step = self.state.restore(found)
            self.first_step.is_due = False
            self.engine.load(self.anchor.policy_weights())
            self.log.say(how_it_resumes(self.step, found.identity[STEPS], self.recipe.training))
        elif (note := what_running_amounts_to(self.recipe, len(self.problems))) is not None:
            self.log.say(note)
        self.accelerator.wait_for_everyone()  # all have read what the main process now tidies
        if self.is_main:
            checkpoint.set_aside_after(self.folder / "checkpoints", self.step)
            self.log.cut_after(self.step if found is not None else -1)
            if found is not None:
                write_recipe(self.folder, self.recipe)  # a finished run may have got more steps
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
        summary = self.state.summary(self.recipe, self.step, sources_of(self.recipe).drawn)
        if self.isolation is not None:
            summary["isolation"] = self.isolation
        self.write_model(self.folder / "model", adapter=self.folder / "adapter")
        if self.is_main:
            if self.state.refit is not None:
                self.state.refit.write(self.folder / "verifier")
            replace_file(self.folder / "summary.json", json.dumps(summary, indent=1), is_synced=True)
            page = None if self.write_report is None else self.write_report(self.folder)
            if page is not None and self.log.trackers is not None:
                log_report(self.log.trackers, page, self.step)
        self.accelerator.wait_for_everyone()
        return summary
