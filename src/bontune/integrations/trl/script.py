"""Training in TRL from one file: ``accelerate launch -m bontune.integrations.trl --config bon.yaml``.

The file contains TRL's own keys (GRPOConfig and ModelConfig), ours (:class:`bontune.integrations.trl.BoNGRPOConfig`),
and the data: a ``task`` of this package with its grader, or ``dataset_name`` and ``reward_funcs`` as in TRL.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, load_dataset
from trl import ModelConfig, ScriptArguments, TrlParser, get_peft_config, get_quantization_config
from yaml import YAMLError

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.engines.contract import cut_before
from bontune.integrations.trl.settings import BoNGRPOConfig
from bontune.integrations.trl.trainer import BoNGRPOTrainer
from bontune.models import is_shipped, resolve
from bontune.tasks import load_task
from bontune.tasks.base import Task


@dataclass
class BoNScriptArguments(ScriptArguments):
    """The data, the rewards and the verifier."""

    dataset_name: str | None = field(default=None, metadata={"help": "A data set with prompts, without task."})
    task: str | None = field(default=None, metadata={"help": "A task of `bontune tasks`, which rewards by its grader."})
    task_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'The task\'s own keys, such as {"data": "rows.jsonl"}.'}
    )
    task_split: str = field(default="train", metadata={"help": "Split of the task to train on."})
    reward_funcs: list[str] | None = field(
        default=None, metadata={"help": "Without task: reward functions as module.function, or reward models."}
    )
    verifier: str | None = field(
        default=None, metadata={"help": "What Best-of-N selects by: module.function, or what --verifier takes."}
    )


def run_script(arguments: Sequence[str] | None = None) -> None:
    """Train; an error that the user can fix is printed as one sentence, with exit status 2."""
    try:
        parser = TrlParser((BoNScriptArguments, BoNGRPOConfig, ModelConfig))
        script, config, model = parser.parse_args_and_config(arguments, fail_with_unknown_args=True)
    except (ValueError, OSError, YAMLError) as error:  # also TRL's and argparse's own
        raise _exit(error) from None
    try:
        trainer = make_trainer(script, config, model)
    except BontuneError as error:
        raise _exit(error) from None
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    trainer.save_model(config.output_dir)
    trainer.accelerator.print(f"The model is in {config.output_dir}.")
    trainer.accelerator.end_training()


def _exit(error: Exception) -> SystemExit:
    print(f"error: {error}", file=sys.stderr)
    return SystemExit(2)


def make_trainer(script: BoNScriptArguments, config: BoNGRPOConfig, model: ModelConfig) -> BoNGRPOTrainer:
    """Make the trainer that the three parts of a file describe."""
    if model.model_name_or_path is None:
        raise BontuneError("model_name_or_path is missing: name the model to train.")
    config.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(config.model_init_kwargs or {}),
    }
    if script.task is not None:
        options = script.task_options or {}
        task = load_task(script.task, **(json.loads(options) if isinstance(options, str) else options))
        rewards: list[Any] = [task_reward(task, script.task_split)]
        dataset = task_dataset(task, script.task_split)
    elif script.dataset_name is not None and script.reward_funcs:
        rewards = [_function(name) for name in script.reward_funcs]
        dataset = load_dataset(script.dataset_name, name=script.dataset_config)[script.dataset_train_split]
    else:
        raise BontuneError("Give task, or dataset_name and reward_funcs.")
    name = model.model_name_or_path
    return BoNGRPOTrainer(
        resolve(name) if is_shipped(name) else name,
        rewards,
        config,
        train_dataset=dataset,
        verifier=_verifier(script.verifier),
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
    )


def task_dataset(task: Task, split: str = "train") -> Dataset:
    """Return a task's problems as TRL's data set with ``prompt`` (conversations if all have one) and ``problem_id``."""
    problems = task.problems(split)
    asks_chat = all(problem.messages for problem in problems)

    def prompt(problem: Problem) -> Any:
        return [dict(message) for message in problem.messages] if asks_chat else problem.prompt

    return Dataset.from_list([{"prompt": prompt(problem), "problem_id": problem.id} for problem in problems])


def task_reward(task: Task, split: str = "train") -> Callable[..., list[float | None]]:
    """Return a reward function for TRL that grades as the task does; it returns None for an ungraded completion."""
    problems = {problem.id: problem for problem in task.problems(split)}

    def reward(completions: Sequence[Any], problem_id: Sequence[str], **_: Any) -> list[float | None]:
        texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
        grades = task.grade([problems[i] for i in problem_id], [[cut_before(text, task.stop)] for text in texts])
        return [None if grade.reward != grade.reward else grade.reward for (grade,) in grades]

    reward.__name__ = task.name
    return reward


def _verifier(name: str | None) -> Any:
    """Return a function by its dotted name, or what ``--verifier`` takes."""
    return name if name is None or {*name} & {*":#"} else _function(name)


def _function(name: str) -> Any:
    """Return a function by its dotted name; any other name is a model's, for TRL to load."""
    module, _, function = name.rpartition(".")
    if not module or "/" in name or os.path.exists(name):
        return name
    sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BontuneError(f"{name} cannot be loaded: {error}.") from error
