"""What a recipe will draw and hold in memory, and what is found out about its model, before it is run.

Counts are exact. Memory adds up what training holds at its peak in one process. Completions are taken at their longest,
and every sample as carrying weight. Time is not estimated: the progress line of a run tells it after a few steps.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bontune.base.errors import BontuneError
from bontune.config import Recipe
from bontune.engines.cache import shares_prompts
from bontune.engines.texts import context_of, end_ids
from bontune.engines.transformers import pad_id
from bontune.models.adapters import check_targets
from bontune.models.chat import has_chat_template, holds_date
from bontune.models.precision import saved_dtype
from bontune.objectives.batch import Sources
from bontune.training.forward import CausalLM
from bontune.training.losses import CHUNK_ELEMENTS, GPU_CHUNK_ELEMENTS
from bontune.training.setup import LARGE

EVALUATED_AT_A_TIME = 64
"""Problems of an evaluation whose samples are drawn together."""


def sources_of(recipe: Recipe) -> Sources:
    """The sequences that a prompt has in a step of this recipe."""
    return recipe.objective.row().sources_per_prompt(recipe.objective.options(), recipe.sampling.samples)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The measures of a decoder-only transformer."""

    name: str
    """Name of the model."""
    num_layers: int
    """Number of blocks."""
    hidden: int
    """Width of the residual stream."""
    intermediate: int
    """Width of the feed-forward part (gated: three matrices)."""
    num_heads: int
    """Number of query heads."""
    num_kv_heads: int
    """Number of key and value heads."""
    head_dim: int
    """Width of a head."""
    vocabulary: int
    """Number of tokens."""
    is_tied: bool = True
    """Whether the output layer is the embedding."""

    @property
    def body_parameters(self) -> int:
        """Parameters of all blocks (norms and biases, some 0.01 %, left out)."""
        attention = self.hidden * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        return self.num_layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """Number of all parameters: the blocks', the embeddings' and the head's."""
        return self.body_parameters + self.vocabulary * self.hidden * (1 if self.is_tied else 2)

    def lora_parameters(self, rank: int, num_layers: int | None = None) -> int:
        """Parameters of adapters on all linear layers of the blocks, or of so many of the blocks."""
        heads, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = 2 * (self.hidden + heads) + 2 * (self.hidden + kv)
        return (num_layers or self.num_layers) * rank * (attention + 3 * (self.hidden + self.intermediate))

    def cache_bytes(self, element_bytes: int) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * element_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """How much is drawn and computed."""

    generations: int
    """Completions in training."""
    tokens: int
    """Their tokens, at most."""
    eval_generations: int
    """Completions in evaluations."""
    prompt_tokens: int
    """Mean length of a prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The counts and the memory of a run."""

    work: Work
    """Samples and tokens."""
    trainable: int
    """Parameters that are trained."""
    memory: dict[str, float]
    """Part → bytes at the peak, in one process."""


def estimate(
    recipe: Recipe,
    shape: Shape,
    *,
    is_gpu: bool,
    prompt_tokens: int,
    longest_prompt: int | None = None,
    num_eval_problems: int | None = None,
) -> Plan:
    """Say what a run draws, and what it holds on one device.

    Args:
        recipe: the run.
        shape: the model's shape.
        is_gpu: whether bf16 and gradient checkpointing apply by default.
        prompt_tokens: mean length of a prompt.
        longest_prompt: length of the longest prompt; None: twice the mean.
        num_eval_problems: problems of an evaluation; None: ``eval.problems``, or 500 if that is null.
    """
    longest = longest_prompt or 2 * prompt_tokens
    if num_eval_problems is None:
        num_eval_problems = recipe.eval.problems or 500
    lora = recipe.training.lora
    num_layers = None if lora is None or lora.layers is None else len(lora.layers)
    trainable = shape.lora_parameters(lora.r, num_layers) if lora is not None else shape.parameters
    return Plan(
        work=_work(recipe, prompt_tokens, num_eval_problems),
        trainable=trainable,
        memory=_memory(recipe, shape, trainable, longest, is_gpu=is_gpu),
    )


def least_memory(recipe: Recipe, shape: Shape, *, is_gpu: bool) -> float:
    """Bytes that a run cannot do without, whatever it draws: weights, gradient, AdamW and anchor."""
    plan = estimate(recipe, shape, is_gpu=is_gpu, prompt_tokens=1)
    return sum(size for part, size in plan.memory.items() if part != "sampling or update")


def _work(recipe: Recipe, prompt_tokens: int, num_eval_problems: int) -> Work:
    every, steps = recipe.eval.every, recipe.training.steps
    num_evaluations = 1 + math.ceil(steps / every) if every else 0
    generations = steps * recipe.training.prompts_per_step * sources_of(recipe).drawn
    return Work(
        generations=generations,
        tokens=generations * recipe.sampling.max_new_tokens,
        eval_generations=num_evaluations * num_eval_problems * recipe.eval.samples,
        prompt_tokens=prompt_tokens,
    )


def _memory(recipe: Recipe, shape: Shape, trainable: int, longest: int, *, is_gpu: bool) -> dict[str, float]:
    is_bf16 = recipe.training.precision == "bf16" or (recipe.training.precision == "auto" and is_gpu)
    setting = recipe.training.gradient_checkpointing
    has_checkpointing = is_gpu and shape.parameters >= LARGE if setting == "auto" else bool(setting)
    element = 2 if is_bf16 else 4
    frozen = 0 if recipe.training.lora is None else shape.parameters
    row = longest + recipe.sampling.max_new_tokens
    drawn = recipe.training.prompts_per_step * sources_of(recipe).drawn
    if drawn == 0 and recipe.eval.every:  # demonstrations alone are trained on
        drawn = EVALUATED_AT_A_TIME * recipe.eval.samples
    rows_at_once = min(max(1, recipe.sampling.token_budget // row), drawn)
    cache = rows_at_once * row * shape.cache_bytes(element)
    # Logits, their log-softmax (float32), probabilities and their running sum (float64).
    drawing = rows_at_once * shape.vocabulary * (4 + 4 + 8 + 8)
    tokens = max(recipe.training.token_budget, row)
    of_a_layer = tokens * element * (8 * shape.hidden + 4 * shape.intermediate)
    if has_checkpointing:
        activations = tokens * element * shape.hidden * shape.num_layers + of_a_layer
    else:
        activations = shape.num_layers * of_a_layer
    chunk = GPU_CHUNK_ELEMENTS if is_gpu else CHUNK_ELEMENTS
    head = min(max(chunk, shape.vocabulary), tokens * shape.vocabulary) * 4 * 4
    return {
        "weights": 4.0 * trainable + (element * frozen),
        "bf16 copies": (4.0 * trainable if is_bf16 else 0.0),  # autocast's in an update, and the engine's
        "gradient": 4.0 * trainable,
        "AdamW": 8.0 * trainable,
        "anchor": 4.0 * trainable,
        "sampling or update": float(max(cache + drawing, activations + head)),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    """Name of the thing."""
    found: str
    """What was seen, as a phrase for people."""
    is_problem: bool = False
    """Whether the run would fail by it, or not do what was meant."""


def preflight(recipe: Recipe, model: Any, tokenizer: Any, *, asks_chat: bool) -> list[Finding]:
    """Look at a model and its tokenizer as a run would use them.

    Args:
        recipe: the run's.
        model, tokenizer: loaded.
        asks_chat: whether the task has conversations.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    findings = [
        Finding(what="weights", found=_dtypes(recipe, model)),
        Finding(what="device", found=device_of(recipe)),
        Finding(what="context", found=f"{context_of(model) or 'no bound'} tokens"),
        _ends(model, tokenizer),
        _padding(tokenizer, vocabulary),
        Finding(what="chat template", found=_template(tokenizer, asks_chat=asks_chat)),
        _prompts(model, tokenizer),
    ]
    if recipe.training.lora is not None:
        findings.append(_adapters(recipe, model))
    return [*findings, _disk(recipe, model)]


def _dtypes(recipe: Recipe, model: Any) -> str:
    stored = str(saved_dtype(recipe.model) or model.dtype).removeprefix("torch.")
    return f"stored in {stored}, trained in float32, written in {stored}"


def device_of(recipe: Recipe) -> str:
    """What a run computes on, in words."""
    if recipe.training.device == "cpu" or not torch.accelerator.is_available():
        return "CPU"
    kind = torch.accelerator.current_accelerator()
    return f"{torch.accelerator.device_count()} × {kind.type if kind is not None else 'accelerator'}"


def count_of(number: float) -> str:
    """A number of parameters or samples as people say it.

    >>> count_of(134_515_008), count_of(320)
    ('135 M', '320')
    """
    for scale, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.0f}"


def trained_share(trained: int, total: int) -> str:
    """How many of a model's parameters are trained, in words."""
    return "all trained" if trained == total else f"{count_of(trained)} trained"


def start_line(recipe: Recipe, model: Any, num_problems: int) -> str:
    """What a run is about to do, in one line: model, parameters, device, problems, N, M, learning rate and steps."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    objective, training = recipe.objective, recipe.training
    n = objective.n if isinstance(objective.n, int) else ", ".join(map(str, objective.n))
    return (
        f"{recipe.model} ({count_of(total)} parameters, {trained_share(trained, total)}) on {device_of(recipe)}, "
        f"{num_problems:,} problems, {training.prompts_per_step} a step, N = {n}, M = {recipe.sampling.samples}, "
        f"learning rate {training.lr:g}, {training.steps:,} steps"
    )


def _ends(model: Any, tokenizer: Any) -> Finding:
    ends = end_ids(model, tokenizer)
    if not ends:
        return Finding(
            what="end tokens", found="none: every completion runs to its longest, or a stop string", is_problem=True
        )
    return Finding(what="end tokens", found=", ".join(repr(tokenizer.convert_ids_to_tokens(end)) for end in ends))


def _padding(tokenizer: Any, vocabulary: int) -> Finding:
    pad = tokenizer.pad_token_id
    if pad is None:
        return Finding(what="padding", found="no token of its own; padding is masked, so that another does")
    beyond = f", beyond the model's vocabulary of {vocabulary}; it is masked" if not 0 <= pad < vocabulary else ""
    return Finding(what="padding", found=f"{tokenizer.pad_token!r} ({pad}){beyond}")


def _template(tokenizer: Any, *, asks_chat: bool) -> str:
    if not has_chat_template(tokenizer):
        return "none: prompts are texts to continue"
    if not asks_chat:
        return "yes, but the task has texts only"
    date = ", with the day's date: a run that goes on on another day reads others" if holds_date(tokenizer) else ""
    return f"yes, and the task's conversations are put into it{date}"


def _prompts(model: Any, tokenizer: Any) -> Finding:
    try:
        CausalLM(model, pad=pad_id(tokenizer, model))
    except BontuneError as error:
        return Finding(what="training", found=str(error), is_problem=True)
    way = (
        "computed once for all its samples"
        if shares_prompts(model)
        else "computed with each sample: its layers keep more"
    )
    return Finding(what="a prompt is", found=way)


def _adapters(recipe: Recipe, model: Any) -> Finding:
    assert recipe.training.lora is not None
    targets = recipe.training.lora.targets
    try:
        names = check_targets(model, targets, recipe.training.lora.layers)
    except BontuneError as error:
        return Finding(what="adapters", found=str(error), is_problem=True)
    return Finding(
        what="adapters", found=f"on {len(names)} modules: {targets if isinstance(targets, str) else ', '.join(targets)}"
    )


def _disk(recipe: Recipe, model: Any) -> Finding:
    """Policy, anchor and two moments of the optimizer in float32, as often as checkpoints are kept, and the model."""
    size = sum(p.numel() for p in model.parameters())
    trained = size
    if recipe.training.lora is not None:
        rows = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        trained = recipe.training.lora.r * sum(m.in_features + m.out_features for m in rows)
        layers = recipe.training.lora.layers
        if layers is not None:
            trained = trained * len(layers) // model.config.get_text_config().num_hidden_layers
    needed = 16 * trained * (recipe.training.keep_checkpoints + 1) + 4 * size * (1 + len(recipe.eval.keep))
    folder = Path(recipe.run).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Finding(
        what="disk",
        found=f"about {needed / 2**30:.2f} GiB for checkpoints and models, {free / 2**30:.1f} GiB are free",
        is_problem=needed > free,
    )
