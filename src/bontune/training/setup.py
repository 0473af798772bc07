"""The parts of a run, made from its recipe, with every check that is possible before work begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

import bontune.tasks as tasks
import bontune.verifiers as verifiers
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.config import Recipe, TaskSection, TrainingSection
from bontune.engines.contract import Engine, SamplingOptions, check_vllm_sampling
from bontune.engines.prompts import asks_chat, prompts_of, stop_of
from bontune.engines.transformers import TransformersEngine, pad_id
from bontune.models import load_model
from bontune.models.adapters import add_lora, copy_with, linear_only
from bontune.models.precision import check_trainable
from bontune.tasks.base import Task
from bontune.training.forward import CausalLM, disable_dropout

LARGE = 1_000_000_000
"""Number of parameters from which ``gradient_checkpointing: auto`` trades time for memory on a GPU."""


def check_objective(recipe: Recipe) -> None:
    """Let the objective weigh zeros, so that it refuses now whatever it would refuse during the run.

    Raises:
        BontuneError: unknown objective, n > M, too few samples for the baseline, or options that it does not have.
    """
    section = recipe.objective
    options = section.options()
    try:
        section.row().check(section.n_at(), options, recipe.sampling.samples)
    except ValueError as error:
        raise BontuneError(
            f"objective {section.name}, n = {section.n}, sampling.samples = {recipe.sampling.samples}: {error}"
        ) from None


def make_task(section: TaskSection) -> Task:
    """Load the task that a section of the recipe names."""
    return tasks.load_task(section.name, **section.options())


def make_verifier(recipe: Recipe) -> verifiers.Verifier:
    """Load the recipe's verifier."""
    device = "cpu" if recipe.training.device == "cpu" else None
    return verifiers.load_verifier(recipe.verifier.name, **recipe.verifier.options(), device=device)


def split_problems(task: Task, split: str) -> list[Problem]:
    """The problems of a split.

    Raises:
        BontuneError: the task has no such split, or the split is empty.
    """
    problems = task.problems(split)
    if not problems:
        raise BontuneError(f"Split {split!r} of task {task.name} has no problems.")
    return problems


def eval_problems_of(task: Task, recipe: Recipe) -> list[Problem]:
    """The first ``eval.problems`` of the evaluation split (``validation`` where there is one, else ``test``)."""
    split = recipe.eval.split
    if split is None:
        split = next((name for name in ("validation", "test") if name in task.splits), None)
    if split is None:
        raise BontuneError(
            f"Task {task.name} has only {', '.join(task.splits)}: set eval.split to one, or eval.every=0."
        )
    return split_problems(task, split)[: recipe.eval.problems]


def make_accelerator(recipe: Recipe) -> Any:
    """Make the accelerator, which knows the device, the precision, the processes and the trackers.

    Raises:
        BontuneError: a tracker is not installed, or the prompts of a step cannot be shared out evenly.
    """
    for name in recipe.training.track:
        if find_spec(name) is None:
            raise BontuneError(f"training.track names {name}, which is not installed: pip install 'bontune[tracking]'.")
    for library in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{library}", "false") == "true":
            raise BontuneError(
                f"accelerate is set to use {library}, but bontune keeps a full copy of the policy in each "
                "process: leave that out of accelerate's settings, or train large models inside TRL or verl "
                "(`bontune export`), see docs/clusters.md."
            )
    # Apple's GPUs lack float64, in which tokens are drawn. On a CPU accelerate joins processes only if cpu=True.
    on_cpu = (
        recipe.training.device == "cpu" or torch.backends.mps.is_available() or not torch.accelerator.is_available()
    )
    precision = recipe.training.precision
    if precision == "auto":
        has_bf16 = not on_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if has_bf16 else "fp32"
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "fp32" else "bf16",
        log_with=list(recipe.training.track) or None,
        project_dir=recipe.run,
    )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise BontuneError(
            f"{started} processes were started, but they do not find each other; start them with torchrun or "
            "`accelerate launch`."
        )
    if recipe.training.prompts_per_step % accelerator.num_processes:
        raise BontuneError(
            f"training.prompts_per_step = {recipe.training.prompts_per_step} must be a multiple of the "
            f"{accelerator.num_processes} processes."
        )
    if recipe.training.prompts_per_step % (accelerator.num_processes * recipe.training.minibatches):
        raise BontuneError(
            f"training.prompts_per_step = {recipe.training.prompts_per_step} does not split evenly into "
            f"training.minibatches = {recipe.training.minibatches} parts on {accelerator.num_processes} process(es)."
        )
    return accelerator


def make_policy(recipe: Recipe, model: Any, tokenizer: Any, accelerator: Any) -> tuple[Any, Any, CausalLM]:
    """Load the model, add adapters, and choose how it is run.

    Returns:
        Model, tokenizer, and the model taken apart for training.

    Raises:
        BontuneError: there is no such model, its weights are quantised, or adapters fit none of its modules.
    """
    training = recipe.training
    if model is None:
        check_trainable(recipe.model)
        # With adapters the base is frozen and may live in bf16; weights that are trained stay in float32.
        is_small = training.lora is not None and accelerator.mixed_precision == "bf16"
        model, tokenizer = load_model(recipe.model, dtype=torch.bfloat16 if is_small else torch.float32)
    if tokenizer is None:
        raise BontuneError("A model was given without its tokenizer: give tokenizer=…, too.")
    if training.lora is not None:
        torch.manual_seed(recipe.seed)
        lora = training.lora
        model = add_lora(model, r=lora.r, alpha=lora.alpha, targets=lora.targets, layers=lora.layers)
    if not any(p.requires_grad for p in model.parameters()):
        raise BontuneError("No parameter of the model is trained: all of them have requires_grad=False.")
    model = model.to(accelerator.device)
    disable_dropout(model)
    model.eval()
    checkpointing = training.gradient_checkpointing
    if checkpointing == "auto":
        size = sum(p.numel() for p in model.parameters())
        checkpointing = accelerator.device.type == "cuda" and size >= LARGE
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        # transformers makes the embedding's output need a gradient, which only reentrant checkpointing asks for; it
        # would take the backward pass through layers of which nothing is trained.
        model.disable_input_require_grads()
        model.train()  # transformers checkpoints in train mode only; dropout is off for good
    # Checkpointing switches the cache off inside transformers, and with it the sharing of the prompt.
    lm = CausalLM(
        model, pad=pad_id(tokenizer, model), share_prompt=not checkpointing, first_trained=_first_trained(training)
    )
    return model, tokenizer, lm


def _first_trained(training: TrainingSection) -> int | None:
    """Lowest layer of which something is trained; None if nothing lies below it that is computed once only."""
    if training.lora is None or not training.lora.layers:
        return None
    return training.lora.layers[0] or None


def make_optimizer(recipe: Recipe, model: Any) -> torch.optim.Optimizer:
    """Make AdamW for the parameters that are trained."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=recipe.training.lr, weight_decay=recipe.training.weight_decay)


def drawing_model(recipe: Recipe, model: Any, accelerator: Any) -> Any:
    """The model that is drawn from: the policy itself, or a copy of it.

    Under bf16, autocast would cast float32 weights for each token anew; the copy has what it casts them to, and shares
    the others, so that it draws the same. vLLM keeps weights of its own.
    """
    is_cast = accelerator.mixed_precision == "bf16" and recipe.engine.name == "transformers"
    if not is_cast:
        return model
    cast = linear_only(model)
    own = {
        id(p): nn.Parameter(p.detach().to(torch.bfloat16 if id(p) in cast else None), False) for p in model.parameters()
    }
    return copy_with(model, own)


def make_engine(recipe: Recipe, model: Any, tokenizer: Any, accelerator: Any) -> Engine:
    """Make the engine that draws from the policy in this process.

    Raises:
        BontuneError: vLLM cannot be opened, does not compute what the model computes, or draws otherwise than asked.
    """
    section = recipe.engine
    if section.name == "transformers":
        return TransformersEngine(model, tokenizer, token_budget=recipe.sampling.token_budget)
    check_vllm_sampling(recipe.sampling.temperature, recipe.sampling.top_p)
    if recipe.eval.every:
        check_vllm_sampling(recipe.eval.temperature, 1.0)
    from bontune.engines.vllm import VLLMEngine, VLLMOptions

    options = VLLMOptions(**section.model_dump(exclude={"name"}))
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    return VLLMEngine(model, tokenizer, options, dtype=dtype, is_replica=accelerator.num_processes > 1)


def check_engine(engine: Engine, problems: Sequence[Problem], max_new_tokens: int) -> None:
    """Refuse an engine that cannot serve a training, and problems that it cannot draw, before work begins.

    Raises:
        BontuneError: the engine returns no tokens or takes no weights, or a prompt is empty or too long.
    """
    for is_able, what in ((engine.limits.has_tokens, "return tokens"), (engine.limits.can_load, "load weights")):
        if not is_able:
            raise BontuneError(f"The engine {type(engine).__name__} cannot {what}, which training needs of an engine.")
    engine.check(prompts_of(engine, problems), max_new_tokens)


def sampling_options(recipe: Recipe, task: Task, problems: Sequence[Problem], engine: Engine) -> SamplingOptions:
    """Options by which training draws."""
    sampling = recipe.sampling
    return SamplingOptions(
        num_samples=sampling.samples,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop=stop_of(task, problems, asks_chat(engine, problems)),
    )


def eval_options(recipe: Recipe, task: Task, problems: Sequence[Problem], engine: Engine) -> SamplingOptions:
    """Options by which evaluation draws."""
    return SamplingOptions(
        num_samples=recipe.eval.samples,
        max_new_tokens=recipe.sampling.max_new_tokens,
        temperature=recipe.eval.temperature,
        stop=stop_of(task, problems, asks_chat(engine, problems)),
    )
