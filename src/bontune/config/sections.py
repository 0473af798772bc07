"""The parts of a recipe: what to train on, what selects, how to draw, and how to train."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic import NonNegativeFloat as NotNegative
from pydantic import NonNegativeInt as NotNegativeInt


class Section(BaseModel):
    """A part of a tree of settings: no unknown keys, nothing changes after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_flag(cls, given: Any, field: ValidationInfo) -> Any:
        """Hand a flag on as a word where none is asked for: pydantic takes ``true`` for the number 1."""
        is_flag = isinstance(given, bool) and "bool" not in str(cls.model_fields[str(field.field_name)].annotation)
        return str(given).lower() if is_flag else given


class TaskSection(Section):
    """What to train on. Further keys go to the task itself (``jsonl``: ``data``, ``prompt``, ``grader`` …)."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    name: str = "countdown"
    """A task's name; ``bontune tasks`` lists them."""
    split: str = "train"
    """Split to train on."""

    def options(self) -> dict[str, Any]:
        """The keys that belong to the task itself."""
        return dict(self.model_extra or {})


class RefitSection(Section):
    """How a verifier learns along with the policy."""

    every: PositiveInt = 50
    """Steps between two fits."""
    problems: PositiveInt = 512
    """Newest prompts whose samples it learns from; only those with right and wrong samples count."""
    first: NotNegativeInt = 512
    """Prompts from the beginning of the run that stay among its examples."""
    samples: PositiveInt = 16
    """Samples of each prompt that it learns from."""
    epochs: PositiveInt = 1
    """Passes over the examples in a fit."""
    batch_size: PositiveInt = 256
    """Completions per update."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate of a fit; a large verifier wants less, such as 1e-5."""


class VerifierSection(Section):
    """What Best-of-N selects by."""

    name: str = "oracle"
    """``oracle``: the reward itself; ``majority``: votes for the answer; ``reward_model``: a trained scorer;
    ``endpoint``: a judge behind a server; ``python``: your own function."""
    path: str | None = None
    """For ``reward_model``: a shipped name, a folder, or a Hugging Face hub id."""
    end: Literal["eos", "none"] | None = None
    """For ``reward_model``: what stands behind the texts that it was trained on: ``eos``, the end token, behind plain
    texts; ``none``, nothing; null: as the model's folder says, or its trainer's record."""
    function: str | None = None
    """For ``python``: ``module:function`` or ``file.py:function``, (problem, completion) -> float."""
    url: str | None = None
    """For ``endpoint``: the server's address, such as ``http://localhost:8000/v1``."""
    model: str | None = None
    """For ``endpoint``: the model's name there; null: its only one."""
    prompt: str | None = None
    """For ``endpoint``: what to ask, a text or a file; null: the judge's own."""
    refit: RefitSection | None = None
    """Fit a ``reward_model`` further on the policy's own samples during the training; null: it stays as it is."""

    def options(self) -> dict[str, str | None]:
        """What loads the verifier: all keys but the name and ``refit``."""
        return self.model_dump(exclude={"name", "refit"})


class SamplingSection(Section):
    """How completions are drawn in training."""

    samples: PositiveInt = 32
    """M, samples per prompt."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature T; the policy is trained at this temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the sampling; below 1 the gradient estimate is biased, because truncated tokens are never drawn."""
    max_new_tokens: PositiveInt = 24
    """Longest completion, in tokens."""
    token_budget: PositiveInt = 65_536
    """Tokens held in the engine's cache at once; bounds memory, not results."""


class EngineSection(Section):
    """What draws the completions of a training."""

    name: Literal["transformers", "vllm"] = "transformers"
    """``transformers``: the model itself, in this process, with a seed for every sample; ``vllm``: vLLM in this
    process, with a copy of the weights, for GPUs."""
    gpu_memory: float = Field(default=0.4, gt=0, le=1)
    """For ``vllm``: share of the GPU's memory that it holds while it draws, weights and cache together."""
    context: PositiveInt | None = None
    """For ``vllm``: longest prompt with its completion, in tokens; null: the model's own bound."""
    max_sequences: PositiveInt = 256
    """For ``vllm``: completions that are drawn at the same time."""

    @model_validator(mode="after")
    def _check_owner(self) -> EngineSection:
        """Refuse vLLM's options where another engine draws."""
        fields = type(self).model_fields
        given = [key for key in fields if key != "name" and getattr(self, key) != fields[key].default]
        if given and self.name != "vllm":
            raise ValueError(f"{given[0]} is for name=vllm; the engine {self.name} has no use for it")
        return self


MOST_LAYERS = 10_000
"""Largest range of layers that is written out; a longer one is a typing error."""


class LoraSection(Section):
    """How low-rank adapters (of peft) are laid into the model, where they are trained instead of all weights."""

    r: PositiveInt = 16
    """Rank of the adapters."""
    alpha: PositiveFloat = 32.0
    """Scale of the adapters: their update is multiplied by alpha / r."""
    targets: str | list[str] = "all-linear"
    """Names of the modules to adapt, or ``all-linear``."""
    layers: list[NotNegativeInt] | None = None
    """Decoder layers that get adapters, counted from 0: ``20-29`` (both included), a list, or one number; nothing is
    trained, and no gradient computed, below the lowest of them. null: all layers, with the embedding and the head if
    ``targets`` names them."""

    @field_validator("layers", mode="before")
    @classmethod
    def _read_layers(cls, given: Any) -> Any:
        """Write a range, a number or a list as the sorted numbers of the layers."""
        if given is None or isinstance(given, dict):
            return given
        if isinstance(given, (list, tuple)):
            layers = list(given)
        elif match := re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", str(given)):
            first, last = int(match[1]), int(match[2] or match[1])
            if last - first > MOST_LAYERS:
                raise ValueError(f"{given!r} are more layers than any model has")
            layers = list(range(first, last + 1))
        else:
            raise ValueError(f"must be a range such as 20-29, a list of layers or one number, got {given!r}")
        if not layers:
            raise ValueError(f"{given!r} contains no layer; write the lower number first, such as 20-29")
        return sorted(set(layers)) if all(isinstance(x, int) and x >= 0 for x in layers) else layers


class RefillSection(Section):
    """Further prompts in place of those whose samples carry no weight, such as all right or all wrong."""

    up_to: float = Field(default=2.0, gt=1)
    """Prompts that a step may draw in all, as a multiple of ``prompts_per_step``."""


class TrainingSection(Section):
    """The optimiser, its schedule, and what keeps a run safe."""

    steps: PositiveInt = 200
    """Number of updates."""
    prompts_per_step: PositiveInt = 32
    """P, prompts per update, over all processes together."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate of AdamW."""
    warmup: NotNegativeInt = 10
    """Number of steps in which the learning rate rises to its peak."""
    decay: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after the warm-up, down to ``lr_end``."""
    lr_end: NotNegative = 0.0
    """Learning rate that the decay ends at, one step after the last."""
    weight_decay: NotNegative = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients with a larger norm are scaled down to this one."""
    first_step_kl: PositiveFloat | None = 0.5
    """How far the first update may move the policy, in nats of KL for each completion, before the run stops, because
    the learning rate is too high for the model; null: not measured."""
    value_lr: PositiveFloat | Literal["auto"] = "auto"
    """Learning rate of the value head (``objective.p_fail: value_head``); ``auto``: one that learns within the run's
    steps, 1.1e-5 for 2,500 steps of Gemma 2B."""
    updates_per_batch: PositiveInt = 1
    """Optimizer steps that are taken on one batch of samples; more save generations, and need ``clip``."""
    minibatches: PositiveInt = 1
    """Parts of whole prompts into which a batch is split, each update taking one; the learning rate is as before."""
    clip: Literal["auto", "none", "token", "sequence"] = "auto"
    """Proximal clipping of the ratio to the policy that drew, for each token or for the whole sequence; ``auto``: by
    token where there are several updates per batch or minibatches, else none."""
    clip_range: PositiveFloat = 0.2
    """A ratio beyond 1 ± this moves no further away."""
    importance: Literal["none", "token_clip", "sequence_truncate"] = "none"
    """Weights that correct for an engine with other rounding than the trainer's: ratio of the two probabilities of each
    token, or of the whole sequence, no larger than ``importance_cap``."""
    importance_cap: float = Field(default=2.0, ge=1)
    """Largest importance weight."""
    refill: RefillSection | None = None
    """Draw further prompts until ``prompts_per_step`` of them carry weight; the gradient keeps its direction and gets
    longer. null: a step learns from those of its prompts that carry weight."""
    checkpoint_every: NotNegativeInt = 50
    """Steps between checkpoints; 0: only the last."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """Checkpoints kept; at least 2, because the newest may be damaged."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 on a GPU that has it, float32 elsewhere."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Whether to save memory by computing activations twice; ``auto``: on a GPU for models from 1e9 parameters."""
    token_budget: PositiveInt = 32_768
    """Tokens of a micro-batch; bounds memory, not results."""
    lora: LoraSection | None = None
    """Train low-rank adapters instead of all weights; null: all weights."""
    device: Literal["auto", "cpu"] = "auto"
    """``auto`` takes what accelerate finds: a GPU if there is one."""
    max_grader_errors: float = Field(default=0.05, ge=0, le=1)
    """Share of a step's samples that may fail to be graded before the run stops."""
    track: list[Literal["tensorboard", "wandb", "trackio"]] = []
    """Trackers that get the metrics beside ``metrics.jsonl``, with samples at each evaluation and the final report."""


def between(start: float, end: float, progress: float, shape: str) -> float:
    """The value at a share ``progress`` of the way from start to end; it stays within the two.

    >>> between(1.0, 0.0, 0.25, "linear"), round(between(1.0, 0.01, 0.5, "exponential"), 6)
    (0.75, 0.1)
    """
    progress = min(max(progress, 0.0), 1.0)
    if shape == "exponential":
        return start * (end / start) ** progress
    if shape == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return start + (end - start) * progress


class KLSection(Section):
    """The pull of the policy to its anchor, a moving average of itself: KL of whole completions, in nats."""

    start: NotNegative = 1.0
    """Coefficient β of the KL at the beginning."""
    end: NotNegative = 0.075
    """Coefficient β of the KL at the end."""
    steps: PositiveInt = 200
    """Number of steps in which β moves from ``start`` to ``end``."""
    delay: NotNegativeInt = 10
    """Number of steps at ``start`` before β begins to move."""
    shape: Literal["linear", "cosine", "exponential"] = "linear"
    """Shape of the schedule of β between ``start`` and ``end``."""
    anchor_ema: float = Field(default=0.01, ge=0, le=1)
    """anchor ← ema·θ + (1 − ema)·anchor after each step; 0: the anchor stays the initial model."""
    share: float = Field(default=0.25, gt=0, le=1)
    """Share of each prompt's samples on which the KL is estimated (the first ones: they are exchangeable)."""


class EvalSection(Section):
    """Evaluation on held-out problems."""

    every: NotNegativeInt = 50
    """Steps between evaluations; 0: none during training."""
    task: TaskSection | None = None
    """Another task to evaluate on, such as ``humaneval`` after training on ``mbpp``; null: the one trained on."""
    split: str | None = None
    """Split to evaluate on; null: ``validation`` where the task has it, else ``test``."""
    problems: PositiveInt | None = 200
    """Number of problems to evaluate on, the first of the split; null: all."""
    k: list[PositiveInt] = Field(default=[1, 4, 16, 32], min_length=1)
    """Budgets k for which pass@k and best@k are reported."""
    samples: PositiveInt = 64
    """Samples per problem; at least the largest k, better twice as many."""
    temperature: NotNegative = 1.0
    """Sampling temperature T of the evaluation."""
    solved_at: float | None = None
    """Reward from which on a sample counts as solved in pass@k; null: 1 for rewards of 0 and 1, the larger one of two
    values such as −1 and 1, and no pass@k for graded rewards."""
    keep: list[str] = []
    """Metrics such as ``pass@32``: the best model by each is kept in ``best/``, a folder for each."""
