"""``bontune train --plan``: what a recipe will draw and hold in memory, before it is run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bontune.base.errors import BontuneError
from bontune.config import Recipe
from bontune.engines.prompts import as_text, prompt_of
from bontune.models import load_model, quiet_libraries, resolve, shipped
from bontune.models.adapters import outer_base
from bontune.models.chat import has_chat_template
from bontune.models.gguf import source_of
from bontune.training import setup
from bontune.training.plan import Plan, Shape, count_of, device_of, estimate, least_memory, preflight, trained_share

KNOWN_SHAPES = {
    "google/gemma-2-2b-it": (26, 2304, 9216, 8, 4, 256, 256_000),
    "google/gemma-2-9b-it": (42, 3584, 14_336, 16, 8, 256, 256_000),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (30, 576, 1536, 9, 3, 64, 49_152),
    "Qwen/Qwen2.5-0.5B-Instruct": (24, 896, 4864, 14, 2, 64, 151_936),
}
"""Measures of the models in the shipped recipes, from their config.json: a plan needs no download (nor a licence)."""
ASSUMED_PROMPT = 200
"""Tokens of a prompt where the task's data or the tokenizer is not at hand."""


def run_plan(settings: Recipe) -> None:
    """Print the samples and the memory of a run, on a CPU and on a GPU."""
    quiet_libraries()
    shape = shape_of(settings.model)
    gpu_memory = _gpu_memory()
    memory = _main_memory() if gpu_memory is None else gpu_memory
    least = least_memory(settings, shape, is_gpu=gpu_memory is not None)
    is_here = settings.model in shipped() or Path(settings.model).exists()
    loaded = load_model(settings.model) if is_here and least < memory else None
    prompts = _prompts(settings, None if loaded is None else loaded[1])
    plans = {
        name: estimate(
            settings,
            shape,
            is_gpu=is_gpu,
            prompt_tokens=prompts.mean,
            longest_prompt=prompts.longest,
            num_eval_problems=prompts.num_evaluated,
        )
        for name, is_gpu in (("on a CPU", False), ("on a GPU (bf16)", True))
        if is_gpu or gpu_memory is None
    }
    console = Console(markup=False, emoji=False)
    _print_work(console, settings, shape, next(iter(plans.values())), prompts)
    if loaded is not None:
        console.print(_looked_at(settings, *loaded))
    console.print(_memory_table(plans, memory))
    if least >= memory:
        console.print(
            f"The model is too large for this machine: weights, gradient, AdamW and anchor alone take {_bytes(least)}, "
            f"and there are {_bytes(memory)}; train adapters (training.lora={{r: 16}}) or a smaller model.",
            style="bold red",
            markup=False,
        )
    console.print(
        "Completions are taken at their longest, and every sample as carrying weight. "
        "Each of several GPUs needs the memory of one.",
        style="dim",
    )


def shape_of(model: str) -> Shape:
    """Read the shape of a model, without its weights.

    Raises:
        BontuneError: there is no such model, its config cannot be fetched, or is of another kind.
    """
    known = next((s for tuned, s in KNOWN_SHAPES.items() if model in (tuned, tuned.rpartition("-")[0])), None)
    if known is not None:
        layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary = known
        return Shape(
            name=model,
            num_layers=layers,
            hidden=hidden,
            intermediate=intermediate,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            vocabulary=vocabulary,
        )
    config = _config_of(model)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    try:
        heads = config.num_attention_heads
        return Shape(
            name=model,
            num_layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            num_heads=heads,
            num_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocabulary=config.vocab_size,
            is_tied=bool(getattr(config, "tie_word_embeddings", True)),
        )
    except AttributeError as error:
        raise BontuneError(f"no plan for {model}: its config is of a kind without {error.name}") from None


def _config_of(model: str) -> Any:
    from transformers import AutoConfig

    where = resolve(model)
    if model in shipped():
        return load_model(model)[0].config
    base = outer_base(where)
    if base is not None:
        return _config_of(base)
    try:
        folder, options = source_of(where)
        return AutoConfig.from_pretrained(folder, **options)
    except Exception as error:  # an edge: the hub and its files fail in many types
        cause = str(error).strip().partition("\n")[0]
        raise BontuneError(f"the config of {model} cannot be read: {cause}") from error


def _gpu_memory() -> float | None:
    """Bytes of the first GPU; None without one."""
    import torch

    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def _main_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):  # not on every system
        return float("inf")


def _looked_at(recipe: Recipe, model: Any, tokenizer: Any) -> Table:
    """What can be seen of the model and its tokenizer before work starts."""
    try:
        asks_chat = any(p.messages for p in setup.make_task(recipe.task).problems(recipe.task.split))
    except BontuneError:
        asks_chat = False
    table = Table(title="what can be seen now", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in preflight(recipe, model, tokenizer, asks_chat=asks_chat):
        style = "bold red" if finding.is_problem else ""
        table.add_row(finding.what, Text(("problem: " if finding.is_problem else "") + finding.found, style=style))
    return table


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prompts:
    """What is known of the prompts of a run."""

    mean: int
    """Mean length in tokens."""
    longest: int | None = None
    """Length of the longest; None: not known."""
    num_problems: int | None = None
    """Problems to train on; None: not known."""
    num_evaluated: int | None = None
    """Problems of an evaluation; None: not known."""
    note: str = ""
    """What was assumed for want of data or of a tokenizer."""


def _prompts(recipe: Recipe, tokenizer: Any) -> _Prompts:
    """Look at the prompts of a run, as far as data and tokenizer are at hand."""
    try:
        task = setup.make_task(recipe.task)
        problems = setup.split_problems(task, recipe.task.split)
        eval_task = setup.make_task(recipe.eval.task) if recipe.eval.task is not None else task
        num_eval = len(setup.eval_problems_of(eval_task, recipe)) if recipe.eval.every else 0
    except BontuneError as error:
        note = f"assumed: prompts of {ASSUMED_PROMPT} tokens, because {error}"
        return _Prompts(mean=ASSUMED_PROMPT, note=note)
    if tokenizer is None:
        # Four characters a token is the rule of thumb for English and code in large vocabularies.
        lengths = [max(1, len(problem.prompt) // 4) for problem in problems]
        note = "prompt lengths: characters / 4, the tokenizer is not here"
    else:
        uses_chat = has_chat_template(tokenizer)
        texts = [as_text(prompt_of(problem, uses_chat), tokenizer) for problem in problems]
        lengths, note = [len(ids) for ids in tokenizer(texts)["input_ids"]], ""
    return _Prompts(
        mean=max(1, round(sum(lengths) / len(lengths))),
        longest=max(lengths),
        num_problems=len(problems),
        num_evaluated=num_eval,
        note=note,
    )


def _print_work(console: Console, recipe: Recipe, shape: Shape, plan: Plan, prompts: _Prompts) -> None:
    table = Table(title=f"{recipe.model}, {recipe.task.name}, {recipe.objective.name}", title_justify="left")
    table.add_column("what")
    table.add_column("how much", justify="right")
    table.add_row("parameters", f"{count_of(shape.parameters)}, {trained_share(plan.trainable, shape.parameters)}")
    table.add_row("device", device_of(recipe))
    table.add_row("problems", "not known" if prompts.num_problems is None else f"{prompts.num_problems:,}")
    table.add_row("N and M", f"{recipe.objective.n}, from {recipe.sampling.samples} samples of a prompt")
    table.add_row("learning rate", f"{recipe.training.lr:g}")
    per_step = plan.work.generations // recipe.training.steps
    table.add_row("samples", f"{count_of(plan.work.generations)} ({recipe.training.steps:,} steps × {per_step:,})")
    table.add_row("prompt tokens", f"{plan.work.prompt_tokens} on average")
    table.add_row("new tokens", f"at most {count_of(plan.work.tokens)} ({recipe.sampling.max_new_tokens} a sample)")
    if recipe.verifier.refit is not None:
        table.add_row("fits of the verifier", str(recipe.training.steps // recipe.verifier.refit.every))
    if recipe.training.refill is not None:
        table.add_row("samples with refill", f"up to {recipe.training.refill.up_to:g} times as many")
    table.add_row("samples in evaluations", count_of(plan.work.eval_generations))
    console.print(table)
    if prompts.note:
        console.print(prompts.note, style="yellow", markup=False)


def _memory_table(plans: Mapping[str, Plan], here: float) -> Table:
    table = Table(title="memory of one process, at its peak", title_justify="left")
    table.add_column("part")
    for name in plans:
        table.add_column(name, justify="right")
    for part in next(iter(plans.values())).memory:
        table.add_row(part, *(_bytes(plan.memory[part]) for plan in plans.values()))
    table.add_section()
    table.add_row("together", *(_bytes(sum(plan.memory.values())) for plan in plans.values()))
    table.add_row("this machine has", _bytes(here))
    return table


def _bytes(number: float) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**28 else f"{number / 2**20:.1f} MiB"
