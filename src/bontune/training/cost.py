"""What a recipe will cost before it is run: samples, memory, time. A roofline estimate, not a measurement.

Memory adds up what training holds at its peak in one process. Time is, for each forward or backward pass, the larger of
arithmetic over the device's rate and bytes read over its bandwidth, plus a fixed cost for every kernel that is started;
the last is what small models are made of. Completions are taken at their longest, and every sample as carrying weight.
On Countdown it said 67 s of sampling and 120 s of updates where 74 s and 109 s were measured (``docs/LOG.md``); on GPUs
it has not been compared with a run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bontune.config import Recipe
from bontune.objectives.batch import Columns
from bontune.training.losses import CHUNK_ELEMENTS, GPU_CHUNK_ELEMENTS
from bontune.training.setup import LARGE

KERNELS_PER_LAYER = 20
"""Kernels that one layer starts in a forward pass (attention, norms, projections, activation)."""
EVALUATED_AT_A_TIME = 64
"""Problems of an evaluation whose samples are drawn together."""


def columns_of(recipe: Recipe) -> Columns:
    """The sequences that a prompt has in a step of this recipe."""
    return recipe.objective.row().columns(recipe.objective.options(), recipe.sampling.samples)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The measures of a decoder-only transformer."""

    name: str
    """Of the model."""
    num_layers: int
    """Blocks."""
    hidden: int
    """Width."""
    intermediate: int
    """Width of the feed-forward part (gated: three matrices)."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key and value heads."""
    head_dim: int
    """Width of a head."""
    vocabulary: int
    """Tokens."""
    is_tied: bool = True
    """Whether the output layer is the embedding."""

    @property
    def body_parameters(self) -> int:
        """Parameters of all blocks (norms and biases, some 0.01 %, left out)."""
        attention = self.hidden * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        return self.num_layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.body_parameters + self.vocabulary * self.hidden * (1 if self.is_tied else 2)

    def lora_parameters(self, rank: int) -> int:
        """Parameters of adapters on all linear layers of the blocks."""
        heads, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = 2 * (self.hidden + heads) + 2 * (self.hidden + kv)
        return self.num_layers * rank * (attention + 3 * (self.hidden + self.intermediate))

    def cache_bytes(self, element_bytes: int) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * element_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What a device can do in practice."""

    name: str
    """For people."""
    flops: float
    """Floating-point operations a second that training reaches."""
    bandwidth: float
    """Bytes a second."""
    launch_s: float
    """Seconds to start a kernel from Python."""
    memory: float
    """Bytes."""
    is_gpu: bool = True
    """Whether bf16 and gradient checkpointing apply by default."""


# Memory as drivers report it. Rates by the makers' data sheets (dense bf16, HBM), at 40 % and 60 % of them, which a
# well-kept training loop reaches. Started from Python one by one, 26 layers take about 26 ms a decoding step anywhere.
GPUS = {
    name: Device(
        name=name,
        flops=0.4 * teraflops * 1e12,
        bandwidth=0.6 * terabytes * 1e12,
        launch_s=5e-5,
        memory=gibibytes * 2**30,
    )
    for name, teraflops, terabytes, gibibytes in (
        ("L4", 121, 0.30, 22),
        ("A100-40GB", 312, 1.56, 40),
        ("A100-80GB", 312, 2.04, 80),
        ("H100", 989, 3.35, 80),
        ("H200", 989, 4.8, 140),
    )
}


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
    """The estimate."""

    work: Work
    """Samples and tokens."""
    trainable: int
    """Parameters that are trained."""
    memory: dict[str, float]
    """Part → bytes at the peak, in one process."""
    seconds: dict[str, float]
    """Stage → seconds of the whole run on one device."""


def estimate(
    recipe: Recipe,
    shape: Shape,
    device: Device,
    *,
    prompt_tokens: int,
    longest_prompt: int | None = None,
    num_eval_problems: int | None = None,
) -> Plan:
    """What the run takes on one device.

    Args:
        recipe: the run.
        shape: the model's.
        device: where.
        prompt_tokens: mean length of a prompt.
        longest_prompt: of them; None: twice the mean.
        num_eval_problems: problems of an evaluation; None: ``eval.problems``, or 500 if that is null.
    """
    longest = longest_prompt or 2 * prompt_tokens
    if num_eval_problems is None:
        num_eval_problems = recipe.eval.problems or 500
    work = _work(recipe, prompt_tokens, num_eval_problems)
    lora = recipe.training.lora
    trainable = shape.lora_parameters(lora.r) if lora is not None else shape.parameters
    return Plan(
        work=work,
        trainable=trainable,
        memory=_memory(recipe, shape, device, trainable, longest),
        seconds=_seconds(recipe, shape, device, work),
    )


def _work(recipe: Recipe, prompt_tokens: int, num_eval_problems: int) -> Work:
    every, steps = recipe.eval.every, recipe.training.steps
    num_evaluations = 1 + math.ceil(steps / every) if every else 0
    generations = steps * recipe.training.prompts_per_step * columns_of(recipe).drawn
    return Work(
        generations=generations,
        tokens=generations * recipe.sampling.max_new_tokens,
        eval_generations=num_evaluations * num_eval_problems * recipe.eval.samples,
        prompt_tokens=prompt_tokens,
    )


def _uses_bf16(recipe: Recipe, device: Device) -> bool:
    return recipe.training.precision == "bf16" or (recipe.training.precision == "auto" and device.is_gpu)


def _checkpoints(recipe: Recipe, shape: Shape, device: Device) -> bool:
    setting = recipe.training.gradient_checkpointing
    return device.is_gpu and shape.parameters >= LARGE if setting == "auto" else bool(setting)


def _memory(recipe: Recipe, shape: Shape, device: Device, trainable: int, longest: int) -> dict[str, float]:
    is_bf16 = _uses_bf16(recipe, device)
    element = 2 if is_bf16 else 4
    frozen = 0 if recipe.training.lora is None else shape.parameters
    row = longest + recipe.sampling.max_new_tokens
    drawn = recipe.training.prompts_per_step * columns_of(recipe).drawn
    if drawn == 0 and recipe.eval.every:  # demonstrations alone are trained on
        drawn = EVALUATED_AT_A_TIME * recipe.eval.samples
    rows_at_once = min(max(1, recipe.sampling.token_budget // row), drawn)
    cache = rows_at_once * row * shape.cache_bytes(element)
    # Logits, their log-softmax (float32), probabilities and their running sum (float64).
    drawing = rows_at_once * shape.vocabulary * (4 + 4 + 8 + 8)
    tokens = max(recipe.training.token_budget, row)
    of_a_layer = tokens * element * (8 * shape.hidden + 4 * shape.intermediate)
    if _checkpoints(recipe, shape, device):
        activations = tokens * element * shape.hidden * shape.num_layers + of_a_layer
    else:
        activations = shape.num_layers * of_a_layer
    chunk = GPU_CHUNK_ELEMENTS if device.is_gpu else CHUNK_ELEMENTS
    head = min(max(chunk, shape.vocabulary), tokens * shape.vocabulary) * 4 * 4
    return {
        "weights": 4.0 * trainable + (element * frozen),
        "bf16 copies": (2.0 * trainable if is_bf16 else 0.0),
        "gradient": 4.0 * trainable,
        "AdamW": 8.0 * trainable,
        "anchor": 4.0 * trainable,
        "sampling or update": float(max(cache + drawing, activations + head)),
    }


def _seconds(recipe: Recipe, shape: Shape, device: Device, work: Work) -> dict[str, float]:
    element = 2 if _uses_bf16(recipe, device) else 4
    new, prompt = recipe.sampling.max_new_tokens, work.prompt_tokens
    row = prompt + new
    rows_at_once = max(1, recipe.sampling.token_budget // row)

    def one_pass(tokens: float, context_rows: float, context: float) -> float:
        """Seconds of a forward pass of ``tokens`` tokens that read ``context_rows`` caches of ``context`` tokens."""
        arithmetic = 2 * (shape.body_parameters + shape.vocabulary * shape.hidden) * tokens
        arithmetic += 4 * shape.num_layers * shape.num_heads * shape.head_dim * tokens * context
        read = shape.parameters * element + context_rows * context * shape.cache_bytes(element)
        started = shape.num_layers * KERNELS_PER_LAYER * device.launch_s
        return max(arithmetic / device.flops, read / device.bandwidth) + started

    def drawing(generations: int, per_batch: int) -> float:
        rows = min(rows_at_once, per_batch)
        return generations / rows * new * one_pass(rows, rows, prompt + new / 2) if generations else 0.0

    columns = columns_of(recipe)
    per_step = recipe.training.prompts_per_step * columns.total
    calls = max(1, math.ceil(per_step * row / recipe.training.token_budget))
    tokens_per_call = per_step * new / calls + recipe.training.prompts_per_step * prompt / calls
    forward = one_pass(tokens_per_call, 0, row)
    # Forward, backward (twice), once more if recomputed; the anchor and its share.
    passes = 3 + _checkpoints(recipe, shape, device) + (recipe.kl.share if recipe.kl.start or recipe.kl.end else 0)
    return {
        "sampling": drawing(work.generations, recipe.training.prompts_per_step * columns.drawn),
        "updates": recipe.training.steps * calls * passes * forward,
        "evaluations": drawing(work.eval_generations, EVALUATED_AT_A_TIME * recipe.eval.samples),
    }
