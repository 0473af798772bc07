"""Training of an outcome verifier: a sequence classifier on prompt and completion, by the log-loss of the reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.models.precision import reproducible
from bontune.verifiers.examples import Examples, WeightedCompletion
from bontune.verifiers.input_format import InputFormat
from bontune.verifiers.reward_model import batches_by_length, classifier_logits, encode_texts


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    """Settings of a verifier's training."""

    epochs: int = 3
    """Largest number of passes over the examples."""
    batch_size: int = 64
    """Completions per update."""
    lr: float = 2e-5
    """Peak learning rate of AdamW: linear warm-up over a twentieth of the updates, linear decay to 0."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    evaluations_per_epoch: int = 1
    """Evaluations of the held-out loss per epoch."""
    patience: int = 3
    """Evaluations without a lower held-out loss after which training ends."""
    seed: int = 0
    """Seed for the order, and for dropout where the model has it."""
    token_budget: int = 16_384
    """Tokens computed at once; it bounds memory and changes results only by rounding."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluations_per_epoch", "patience", "token_budget"):
            if getattr(self, name) < 1:
                raise BontuneError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.lr < math.inf:
            raise BontuneError(f"lr must be above 0, got {self.lr:g}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """The course of the training; the model has the weights of the best evaluation."""

    history: list[dict[str, float]]
    """A row for each evaluation: epoch, held-out loss and, from the second on, training loss since the previous one."""
    best: dict[str, float]
    """Row of the lowest held-out loss."""
    was_stopped: bool
    """Whether a signal ended the training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitProgress:
    """The progress of the training."""

    step: int
    """Updates made so far."""
    total: int
    """Largest number of updates."""
    held_out_loss: float
    """Held-out loss at the last evaluation."""


def fit(
    model: Any,
    tokenizer: Any,
    examples: Examples,
    options: FitOptions,
    *,
    input_format: InputFormat | None = None,
    poll: Callable[[], None] | None = None,
    show: Callable[[FitProgress], None] | None = None,
) -> FitResult:
    """Train a classifier with one label, in place.

        loss = mean over problems of ½·mean over right of log(1 + e^−s) + ½·mean over wrong of log(1 + e^s)

    The held-out loss before training is the first to beat; a chance verifier has log 2 = 0.693.

    Args:
        model: classifier on the device to train on, weights in float32; a GPU computes in bfloat16 if it can.
        tokenizer: its tokenizer.
        examples: result of :func:`bontune.verifiers.examples.make_examples`.
        options: settings of the training.
        input_format: format of the texts; None: the default one.
        poll: called before each update; :class:`Interrupted` from it ends the training with the best weights so far.
        show: called after each update.

    Raises:
        BontuneError: a text cannot be encoded.
        RunStopped: the loss is not finite.
        Interrupted: ``poll`` raised it before the first evaluation after the start.
    """
    form = input_format or InputFormat()
    train, held_out = (_Texts.of(e, model, tokenizer, form) for e in (examples.train, examples.held_out))
    torch.manual_seed(options.seed)
    order = torch.Generator().manual_seed(options.seed)
    per_epoch = -(-len(train.encoded) // options.batch_size)
    total = per_epoch * options.epochs
    every = max(1, per_epoch // options.evaluations_per_epoch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    search = _Search(model, held_out, options)
    losses: list[float] = []
    was_stopped = False
    for step in range(total):
        if was_stopped := _is_interrupted(poll, has_result=len(search.history) > 1):
            break
        if step % per_epoch == 0:
            shuffled = torch.randperm(len(train.encoded), generator=order).tolist()
        start = step % per_epoch * options.batch_size
        for group in optimizer.param_groups:
            group["lr"] = options.lr * _share_of_rate(step, total)
        losses.append(_update(model, optimizer, train, shuffled[start : start + options.batch_size], options))
        if show is not None:
            show(FitProgress(step=step + 1, total=total, held_out_loss=search.history[-1]["held_out_loss"]))
        if (step + 1) % every == 0 or step + 1 == total:
            search.evaluate({"epoch": (step + 1) / per_epoch, "loss": sum(losses) / len(losses)})
            losses.clear()
            if search.is_over:
                break
    model.load_state_dict(search.best_weights)
    model.eval()
    return FitResult(history=search.history, best=search.best, was_stopped=was_stopped)


class _Search:
    """The evaluations so far, and the weights with the lowest held-out loss."""

    def __init__(self, model: Any, held_out: _Texts, options: FitOptions) -> None:
        self._model, self._held_out, self._options = model, held_out, options
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, torch.Tensor] = {}
        self.evaluate({"epoch": 0.0})

    def evaluate(self, row: dict[str, float]) -> None:
        """Add the held-out loss to a row of the history, and keep the weights if it is the lowest."""
        self.history.append({**row, "held_out_loss": _held_out_loss(self._model, self._held_out, self._options)})
        if not self.best or self.history[-1]["held_out_loss"] < self.best["held_out_loss"]:
            self.best, self.best_weights = self.history[-1], _copy_of(self._model)

    @property
    def is_over(self) -> bool:
        """Return whether the patience is exhausted."""
        return len(self.history) - 1 - self.history.index(self.best) >= self._options.patience


def _is_interrupted(poll: Callable[[], None] | None, *, has_result: bool) -> bool:
    """Return whether a signal has arrived; without a result to keep, its exception is raised."""
    try:
        if poll is not None:
            poll()
    except Interrupted:
        if not has_result:
            raise
        return True
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Texts:
    """Examples as token ids with the weights of their loss."""

    encoded: list[list[int]]
    """Token ids of each example."""
    weights_B2: Tensor
    """Weights (B, 2) of being right and of being wrong."""
    num_problems: int
    """Number of problems, to which the weights sum."""

    @classmethod
    def of(
        cls, examples: Sequence[WeightedCompletion], model: Any, tokenizer: Any, input_format: InputFormat
    ) -> _Texts:
        """Encode examples; a model without a padding token gets the tokenizer's."""
        if model.config.get_text_config().pad_token_id is None:
            model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        texts = [input_format.text(e.problem, e.completion, tokenizer) for e in examples]
        return cls(
            encoded=encode_texts(model, tokenizer, texts, is_chat=input_format.is_chat(tokenizer))[0],
            weights_B2=torch.tensor([(e.weight_right, e.weight_wrong) for e in examples]),
            num_problems=len({e.problem.id for e in examples}),
        )


def _update(model: Any, optimizer: Any, texts: _Texts, rows: list[int], options: FitOptions) -> float:
    """Update the model on a batch of rows, in pieces within the token budget; return the loss before the update."""
    model.train()
    # The batch is a share of all completions: this factor makes its sum estimate the mean over problems.
    scale = len(texts.encoded) / texts.num_problems / len(rows)
    total = 0.0
    with reproducible(model.device):
        for piece in batches_by_length([texts.encoded[i] for i in rows], options.token_budget):
            loss = _loss(model, texts, [rows[i] for i in piece]) * scale
            loss.backward()
            total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if not (math.isfinite(total) and bool(norm.isfinite())):
        raise RunStopped("The verifier's loss or gradient is not finite: use a lower learning rate.")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


@torch.no_grad()
def _held_out_loss(model: Any, texts: _Texts, options: FitOptions) -> float:
    model.eval()
    pieces = batches_by_length(texts.encoded, options.token_budget)
    return sum(_loss(model, texts, piece).item() for piece in pieces) / texts.num_problems


def _loss(model: Any, texts: _Texts, rows: list[int]) -> Tensor:
    """Return the weighted loss summed over rows."""
    has_bf16 = model.device.type == "cuda" and torch.cuda.is_bf16_supported()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=has_bf16):
        scores = classifier_logits(model, [texts.encoded[i] for i in rows])[:, 0]
    right, wrong = texts.weights_B2[rows].to(scores.device).unbind(-1)
    return (right * softplus(-scores) + wrong * softplus(scores)).sum()


def _share_of_rate(step: int, total: int) -> float:
    warmup = max(1, total // 20)
    return min((step + 1) / warmup, (total - step) / max(1, total - warmup))


def _copy_of(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
