"""What can be seen of a run before work starts, when its model is at hand: `bontune train --plan` prints it."""

from __future__ import annotations

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
from bontune.training.forward import CausalLM


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
        names = check_targets(model, targets)
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
