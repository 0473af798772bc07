"""``bontune train --plan``: what a recipe will draw and hold in memory, before it is run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bontune.base.errors import BontuneError
from bontune.config import Recipe, load_recipe
from bontune.engines.prompts import as_text, prompt_of
from bontune.models import load_model, quiet_libraries, resolve, shipped
from bontune.models.adapters import base_of, is_adapter
from bontune.models.chat import has_chat_template
from bontune.training import setup
from bontune.training.cost import Plan, Shape, estimate
from bontune.training.preflight import preflight

KNOWN_SHAPES = {
    "google/gemma-2-2b": (26, 2304, 9216, 8, 4, 256, 256_000),
    "google/gemma-2-9b": (42, 3584, 14_336, 16, 8, 256, 256_000),
}
"""Measures of the models in the shipped recipes, from their config.json: a plan needs no download (nor a licence)."""
ASSUMED_PROMPT = 200
"""Tokens of a prompt where the task's data or the tokenizer is not at hand."""


def run_plan(recipe: str, overrides: Sequence[str]) -> None:
    """Print the samples and the memory of a run, on a CPU and on a GPU."""
    settings = load_recipe(recipe, overrides)
    quiet_libraries()
    shape = shape_of(settings.model)
    loaded = load_model(settings.model) if settings.model in shipped() or Path(settings.model).is_dir() else None
    prompt_tokens, longest, num_problems, note = _prompts(settings, None if loaded is None else loaded[1])
    gpu_memory = _gpu_memory()
    plans = {
        name: estimate(
            settings,
            shape,
            is_gpu=is_gpu,
            prompt_tokens=prompt_tokens,
            longest_prompt=longest,
            num_eval_problems=num_problems,
        )
        for name, is_gpu in (("on a CPU", False), ("on a GPU (bf16)", True))
        if is_gpu or gpu_memory is None
    }
    console = Console()
    _print_work(console, settings, shape, next(iter(plans.values())), note)
    if loaded is not None:
        console.print(_looked_at(settings, *loaded))
    console.print(_memory_table(plans, gpu_memory))
    console.print(
        f"Completions are taken at their longest, and every sample as carrying weight. {_of_several(settings)}",
        style="dim",
    )


def _of_several(recipe: Recipe) -> str:
    if not recipe.training.shard:
        return "Each of several GPUs needs the memory of one."
    return (
        "Of several GPUs each holds its share of weights, gradient, AdamW and anchor, and a whole copy of the weights."
    )


def shape_of(model: str) -> Shape:
    """Read the shape of a model, without its weights.

    Raises:
        BontuneError: there is no such model, its config cannot be fetched, or is of another kind.
    """
    known = next((s for name, s in KNOWN_SHAPES.items() if model in (name, f"{name}-it")), None)
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
    if is_adapter(Path(where)):
        return _config_of(base_of(Path(where)))
    if model in shipped():
        return load_model(model)[0].config
    try:
        return AutoConfig.from_pretrained(where)
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
        asks_chat = any(p.messages for p in setup.load_task(recipe.task).problems(recipe.task.split))
    except BontuneError:
        asks_chat = False
    table = Table(title="what can be seen now", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in preflight(recipe, model, tokenizer, asks_chat=asks_chat):
        style = "bold red" if finding.is_problem else ""
        table.add_row(finding.what, Text(("problem: " if finding.is_problem else "") + finding.found, style=style))
    return table


def _prompts(recipe: Recipe, tokenizer: Any) -> tuple[int, int | None, int | None, str]:
    """Mean and longest prompt in tokens, problems of an evaluation, and what was assumed for want of data."""
    try:
        task = setup.load_task(recipe.task)
        problems = setup.problems_of(task, recipe.task.split)
        eval_task = setup.load_task(recipe.eval.task) if recipe.eval.task is not None else task
        num_eval = len(setup.eval_problems_of(eval_task, recipe)) if recipe.eval.every else 0
    except BontuneError as error:
        return ASSUMED_PROMPT, None, None, f"assumed: prompts of {ASSUMED_PROMPT} tokens, because {error}"
    if tokenizer is None:
        # Four characters a token is the rule of thumb for English and code in large vocabularies.
        lengths = [max(1, len(problem.prompt) // 4) for problem in problems]
        return _mean(lengths), max(lengths), num_eval, "prompt lengths: characters / 4, the tokenizer is not here"
    uses_chat = has_chat_template(tokenizer)
    texts = [as_text(prompt_of(problem, uses_chat), tokenizer) for problem in problems]
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    return _mean(lengths), max(lengths), num_eval, ""


def _mean(lengths: list[int]) -> int:
    return max(1, round(sum(lengths) / len(lengths)))


def _print_work(console: Console, recipe: Recipe, shape: Shape, plan: Plan, note: str) -> None:
    table = Table(title=f"{recipe.model}, {recipe.task.name}, {recipe.objective.name}", title_justify="left")
    table.add_column("what")
    table.add_column("how much", justify="right")
    trained = "" if plan.trainable == shape.parameters else f", {_count(plan.trainable)} trained (adapters)"
    table.add_row("parameters", f"{_count(shape.parameters)}{trained}")
    per_step = plan.work.generations // recipe.training.steps
    table.add_row("samples", f"{_count(plan.work.generations)} ({recipe.training.steps:,} steps × {per_step:,})")
    table.add_row("prompt tokens", f"{plan.work.prompt_tokens} on average")
    table.add_row("new tokens", f"at most {_count(plan.work.tokens)} ({recipe.sampling.max_new_tokens} a sample)")
    if recipe.verifier.refit is not None:
        table.add_row("fits of the verifier", str(recipe.training.steps // recipe.verifier.refit.every))
    if recipe.training.refill is not None:
        table.add_row("samples with refill", f"up to {recipe.training.refill.up_to:g} times as many")
    table.add_row("samples in evaluations", _count(plan.work.eval_generations))
    console.print(table)
    if note:
        console.print(note, style="yellow", markup=False)


def _memory_table(plans: Mapping[str, Plan], gpu_memory: float | None) -> Table:
    table = Table(title="memory of one process, at its peak", title_justify="left")
    table.add_column("part")
    for name in plans:
        table.add_column(name, justify="right")
    for part in next(iter(plans.values())).memory:
        table.add_row(part, *(_bytes(plan.memory[part]) for plan in plans.values()))
    table.add_section()
    table.add_row("together", *(_bytes(sum(plan.memory.values())) for plan in plans.values()))
    here = [_main_memory() if gpu_memory is None else gpu_memory]
    table.add_row("this machine has", *(_bytes(memory) for memory in here))
    return table


def _count(number: float) -> str:
    for scale, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.0f}"


def _bytes(number: float) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**28 else f"{number / 2**20:.1f} MiB"
