"""Export of a recipe to TRL or verl: their settings for it, and comments on what they cannot express."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bontune.base.errors import BontuneError
from bontune.config import Recipe
from bontune.integrations.groups import GroupObjective
from bontune.models import is_shipped, resolve
from bontune.models.adapters import is_adapter
from bontune.models.gguf import is_gguf
from bontune.tasks import load_task

ROWS_AT_ONCE = 8
"""Largest number of samples of one backward pass in an exported file; users will know better for their GPUs."""

_PLAIN = re.compile(r"(?:[A-Za-z_/]|\.{1,2}/)[A-Za-z0-9_./:-]*")
"""Matches texts that Hydra reads as they are."""
_WORDS = {"null", "true", "false", "nan", "inf"}
"""Words that match ``_PLAIN`` and that Hydra reads as another type of value."""


@dataclass
class Exported:
    """Settings for another trainer."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Keys and values, in order."""
    notes: list[str] = field(default_factory=list)
    """Sentences about settings that have no counterpart there, or another meaning."""


def export_recipe(recipe: Recipe, target: str) -> str:
    """Write a recipe as text for another trainer.

    Args:
        recipe: the recipe.
        target: ``trl``, a YAML file for ``accelerate launch -m bontune.integrations.trl --config``; ``verl``, a shell
            script.

    Raises:
        BontuneError: an objective or adapters that only this package has, or an unknown target.
    """
    targets: Mapping[str, Callable[[Recipe], str]] = {"trl": _trl_text, "verl": _verl_text}
    if target not in targets:
        raise BontuneError(f"--to must be {' or '.join(targets)}, got {target!r}.")
    section, lora = recipe.objective, recipe.training.lora
    if lora is not None and lora.layers is not None:
        # TRL's ModelConfig and verl's model section lack peft's layers_to_transform.
        raise BontuneError(
            "training.lora.layers: neither TRL's nor verl's settings choose layers for adapters; export without it, or "
            "train with `bontune train`."
        )
    GroupObjective.of(section.name, section.n, _options(recipe)).check(recipe.sampling.samples)
    return targets[target](recipe)


def trl_settings(recipe: Recipe) -> Exported:
    """Return the keys of ``BoNScriptArguments``, ``BoNGRPOConfig`` and TRL's ``ModelConfig``."""
    training, sampling, kl = recipe.training, recipe.sampling, recipe.kl
    made = Exported()
    samples = training.prompts_per_step * sampling.samples
    at_once = max(d for d in range(1, ROWS_AT_ONCE + 1) if samples % d == 0)
    made.settings = {
        "model_name_or_path": _name(recipe.model),
        "task": recipe.task.name,
        "task_split": recipe.task.split,
        "task_options": recipe.task.options(),
        "output_dir": recipe.run,
        "seed": recipe.seed,
        "objective": recipe.objective.name,
        "n": _n(recipe),
        "objective_options": _options(recipe),
        "num_generations": sampling.samples,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_completion_length": sampling.max_new_tokens,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": samples // at_once,
        "max_steps": training.steps,
        "learning_rate": training.lr,
        "warmup_steps": training.warmup,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(training.decay, training.decay),
        "weight_decay": training.weight_decay,
        # TRL divides its loss by the longest completion.
        "max_grad_norm": training.max_grad_norm / sampling.max_new_tokens,
        "num_iterations": training.updates_per_batch,
        "epsilon": training.clip_range,
        "beta": kl.start,
        "save_steps": training.checkpoint_every or training.steps,
        "save_total_limit": training.keep_checkpoints,
        "logging_steps": 1,
        "report_to": list(training.track) or "none",
        "sync_ref_model": kl.anchor_ema > 0 and kl.start > 0,
        "ref_model_mixup_alpha": kl.anchor_ema,
    }
    made.settings |= _trl_extras(recipe)
    if recipe.verifier.name == "reward_model":
        end = "" if recipe.verifier.end is None else f"#{recipe.verifier.end}"
        made.settings["verifier"] = _name(recipe.verifier.path or "") + end
    elif recipe.verifier.name != "oracle":
        made.notes.append(
            f"verifier {recipe.verifier.name}: in Python, BoNGRPOTrainer(verifier=…) takes a function as a reward is; "
            "without it the reward selects."
        )
    made.notes += [
        f"{training.prompts_per_step} prompts a step: with W processes divide gradient_accumulation_steps by W.",
        "max_grad_norm is the recipe's divided by max_completion_length, as TRL's loss is.",
    ]
    if training.decay != "constant" and training.lr_end:
        made.notes.append(f"training.lr_end = {training.lr_end:g}: TRL's schedule ends at 0.")
    if training.minibatches > 1:
        made.notes.append(f"training.minibatches = {training.minibatches}: TRL takes the whole batch for each update.")
    return _common(made, recipe)


def _trl_extras(recipe: Recipe) -> dict[str, Any]:
    """Return the keys for which TRL's defaults apply unless the recipe sets them."""
    training, kl, engine = recipe.training, recipe.kl, recipe.engine
    extras: dict[str, Any] = {}
    if training.precision != "auto":
        extras["bf16"] = training.precision == "bf16"
    if training.gradient_checkpointing != "auto":
        extras["gradient_checkpointing"] = training.gradient_checkpointing
    if kl.start > 0:
        extras |= {"beta_end": kl.end, "beta_delay": kl.delay, "beta_steps": kl.steps, "beta_shape": kl.shape}
    if training.lora is not None:
        extras |= {"use_peft": True, "lora_r": training.lora.r, "lora_alpha": training.lora.alpha}
        extras["lora_target_modules"] = training.lora.targets
    if engine.name == "vllm":
        extras |= {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": engine.gpu_memory}
        if engine.context is not None:
            extras["vllm_max_model_length"] = engine.context
    return extras


def verl_settings(recipe: Recipe) -> Exported:
    """Return keys of verl's configuration; those that begin with + are added by this package."""
    training, sampling, kl = recipe.training, recipe.sampling, recipe.kl
    made = Exported()
    has_kl = kl.start > 0
    made.settings = {
        "algorithm.adv_estimator": f"bontune_{recipe.objective.name}",
        "+algorithm.bon_n": _n(recipe),
        "+algorithm.bon_options": _options(recipe),
        "+algorithm.bon_seed": recipe.seed,
        "algorithm.use_kl_in_reward": False,
        "data.train_files": f"data/{recipe.task.split}.parquet",
        "data.val_files": f"data/{_held_out(recipe)}.parquet",
        "data.train_batch_size": training.prompts_per_step,
        "data.max_prompt_length": 1024,
        "data.max_response_length": sampling.max_new_tokens,
        "data.seed": recipe.seed,
        "reward.custom_reward_function.path": "pkg://bontune.integrations.verl_reward",
        "reward.custom_reward_function.name": "compute_score",
        "actor_rollout_ref.model.path": _name(recipe.model),
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.n": sampling.samples,
        "actor_rollout_ref.rollout.temperature": sampling.temperature,
        "actor_rollout_ref.rollout.top_p": sampling.top_p,
        "actor_rollout_ref.rollout.gpu_memory_utilization": recipe.engine.gpu_memory,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum-norm",
        "actor_rollout_ref.actor.loss_scale_factor": 1,
        "actor_rollout_ref.actor.ppo_mini_batch_size": training.prompts_per_step // training.minibatches,
        "actor_rollout_ref.actor.ppo_epochs": max(training.updates_per_batch // training.minibatches, 1),
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "actor_rollout_ref.actor.clip_ratio": training.clip_range,
        "actor_rollout_ref.actor.grad_clip": training.max_grad_norm,
        "actor_rollout_ref.actor.use_kl_loss": has_kl,
        "actor_rollout_ref.actor.kl_loss_coef": kl.end if has_kl else 0.0,
        "actor_rollout_ref.actor.optim.lr": training.lr,
        "actor_rollout_ref.actor.optim.lr_warmup_steps": training.warmup,
        "actor_rollout_ref.actor.optim.weight_decay": training.weight_decay,
        "actor_rollout_ref.actor.optim.lr_scheduler_type": "cosine" if training.decay == "cosine" else "constant",
        "trainer.total_training_steps": training.steps,
        "trainer.save_freq": training.checkpoint_every or training.steps,
        "trainer.max_actor_ckpt_to_keep": training.keep_checkpoints,
        "trainer.test_freq": recipe.eval.every or -1,
        "trainer.default_local_dir": recipe.run,
        "trainer.project_name": "bontune",
        "trainer.experiment_name": recipe.objective.name,
        "trainer.logger": ["console", *(name for name in training.track if name == "wandb")],
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": 8,
    }
    _say_what_verl_lacks(made, recipe)
    return _common(made, recipe)


def _say_what_verl_lacks(made: Exported, recipe: Recipe) -> None:
    training, kl = recipe.training, recipe.kl
    has_kl = kl.start > 0
    if training.lora is not None:
        made.settings["actor_rollout_ref.model.lora_rank"] = training.lora.r
        made.settings["actor_rollout_ref.model.lora_alpha"] = training.lora.alpha
    if recipe.verifier.name != "oracle":
        made.notes.append(
            f"verifier {recipe.verifier.name}: verl 0.9.1 passes only the reward to estimators, so the reward "
            "selects; a verl that passes on what the reward function returns takes +algorithm.bon_verifier=KEY."
        )
    if has_kl and kl.start != kl.end:
        made.notes.append(
            f"kl: verl's coefficient is constant; {kl.end:g} is where the recipe's ends, from {kl.start:g}."
        )
    if has_kl and kl.anchor_ema:
        made.notes.append(f"kl.anchor_ema = {kl.anchor_ema:g}: verl's reference stays the first model.")
    if training.decay == "linear":
        made.notes.append("training.decay = linear: verl has constant and cosine; constant is set.")
    if training.decay == "cosine" and training.lr_end:
        made.settings["actor_rollout_ref.actor.optim.min_lr_ratio"] = training.lr_end / training.lr
    made.notes.append("data.max_prompt_length is a guess: set it to the longest prompt's tokens.")


def _common(made: Exported, recipe: Recipe) -> Exported:
    """Add the notes that apply to both trainers."""
    if not is_shipped(recipe.model) and is_adapter(Path(resolve(recipe.model))):
        made.notes.append("model: it is an adapter, which is not merged there; name a folder with the merged model.")
    if is_gguf(recipe.model):
        made.notes.append("model: a GGUF file is not read there; name the model's Hugging Face folder.")
    if recipe.kl.start > 0 and recipe.kl.share < 1:
        made.notes.append(f"kl.share = {recipe.kl.share:g}: there the KL is estimated on all samples.")
    if recipe.training.refill is not None:
        made.notes.append("training.refill: not carried over.")
    if recipe.training.importance != "none":
        made.notes.append(f"training.importance = {recipe.training.importance}: set theirs, which truncates, too.")
    made.notes.append("eval: measure the model that comes out with `bontune sample` and `bontune eval`.")
    return made


def _name(model: str) -> str:
    """Return a model's name for another trainer: the name of a shipped model, or a folder or hub id."""
    return model if is_shipped(model) else resolve(model)


def _held_out(recipe: Recipe) -> str:
    splits = load_task(recipe.task.name, **recipe.task.options()).splits
    return recipe.eval.split or next((split for split in ("validation", "test") if split in splits), splits[-1])


def _options(recipe: Recipe) -> dict[str, Any]:
    section = recipe.objective
    options = dict(section.model_extra or {})
    return options | ({"reward": section.reward} if section.reward != "environment" else {})


def _n(recipe: Recipe) -> Any:
    return recipe.objective.model_dump(mode="json")["n"]


def _trl_text(recipe: Recipe) -> str:
    made = trl_settings(recipe)
    head = "accelerate launch -m bontune.integrations.trl --config FILE"
    lines = [f"# {head}", *(f"# {note}" for note in made.notes)]
    return "\n".join(lines) + "\n" + yaml.safe_dump(made.settings, sort_keys=False, allow_unicode=True)


def _verl_text(recipe: Recipe) -> str:
    made = verl_settings(recipe)
    options = json.dumps(recipe.task.options())
    data = shlex.join(
        ["python", "-m", "bontune.integrations.verl_reward", recipe.task.name, "data", "--options", options]
    )
    lines = ["#!/usr/bin/env bash", "set -euo pipefail", *(f"# {note}" for note in made.notes)]
    words = [shlex.quote(f"{k}={hydra(v)}") for k, v in made.settings.items()]
    if is_shipped(recipe.model):  # its folder is another one on another machine
        lines.append(f"MODEL=$(python -c 'from bontune.models import resolve; print(resolve(\"{recipe.model}\"))')")
        words = ["\"actor_rollout_ref.model.path='$MODEL'\"" if "model.path=" in word else word for word in words]
    return "\n".join([*lines, data, " \\\n    ".join(["python -m verl.trainer.main_ppo", *words])]) + "\n"


def hydra(value: Any) -> str:
    """Write a value for Hydra's command line.

    A text that could be read as something else is quoted. Inside, a quote gets a backslash, and so does the dollar sign
    of what OmegaConf would take for a reference to another key.

    >>> hydra({"baseline": "loo", 4: 0.5}), hydra(None), hydra([1, True])
    ('{baseline:loo,4:0.5}', 'null', '[1,true]')
    >>> print(hydra("runs/lr=1e-6"), hydra("it's"), hydra("true"), hydra("${x}"))
    'runs/lr=1e-6' 'it\\'s' 'true' '\\${x}'
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(hydra, value)) + "]"
    if not isinstance(value, str) or (_PLAIN.fullmatch(value) and value.lower() not in _WORDS):
        return str(value)
    escaped = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + "\\${", value)
    escaped = re.sub(r"(\\+)(?='|\Z)", lambda match: 2 * match[1], escaped)
    return "'" + escaped.replace("'", "\\'") + "'"
