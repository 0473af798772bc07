"""The commands that have commands of their own: recipes, objectives, tasks, verify and pools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bontune.cli import options as given
from bontune.cli.plain_help import PlainTyper

recipes_app = PlainTyper(
    help="List the recipes that ship with the package, show one, or explain the keys.", invoke_without_command=True
)
objectives_app = PlainTyper(help="List the objectives, or show one and its options.", invoke_without_command=True)
tasks_app = PlainTyper(help="List the tasks that ship with the package, or show one.", invoke_without_command=True)
verify_app = PlainTyper(help="Train a verifier on pools, or score a pool with one.", no_args_is_help=True)

pools_app = PlainTyper(help="Put the shards of a pool together.", no_args_is_help=True)


@pools_app.callback()
def pools() -> None:
    """Put the shards of a pool together."""


@pools_app.command("merge")
def merge(
    parts: Annotated[list[Path], typer.Argument(help="The shards, all of them, in any order.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write this pool, .parquet.")],
) -> None:
    """Write the pool that one machine would have drawn.

    Example: bontune pools merge pools/part-*.parquet -o pools/all.parquet
    """
    from bontune.pools.merge import merge_pools

    num_problems, num_samples = merge_pools(parts, out)
    typer.echo(f"{out}: {num_problems} problems × {num_samples} samples")


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes that ship with the package, show one, or explain the keys."""
    if context.invoked_subcommand is None:
        from bontune.cli.recipes import list_recipes

        list_recipes()


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A shipped recipe, a YAML file, or a run folder.")],
    overrides: given.KeyValues = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also say what each key means.")] = False,
) -> None:
    """Print a recipe with every key and its value."""
    from bontune.cli.recipes import show

    show(name, overrides or [], explains=explain)


@recipes_app.command("keys")
def recipe_keys(
    prefix: Annotated[str, typer.Argument(help="Only keys that begin with this, such as `training.`.")] = "",
) -> None:
    """Print the keys of a recipe with their defaults and what they mean.

    Example: bontune recipes keys training.lora
    """
    from bontune.cli.recipes import list_keys

    list_keys(prefix)


@objectives_app.callback()
def objectives(context: typer.Context) -> None:
    """List the objectives, or show one and its options."""
    if context.invoked_subcommand is None:
        from bontune.cli.objectives import list_objectives

        list_objectives()


@objectives_app.command("show")
def show_objective(
    name: Annotated[str, typer.Argument(help="The objective's name; `bontune objectives` lists them.")],
) -> None:
    """Print what an objective trains for, its source, its mathematics, and its keys in a recipe."""
    from bontune.cli.objectives import show_objective

    show_objective(name)


@tasks_app.callback()
def tasks(context: typer.Context) -> None:
    """List the tasks that ship with the package, or show one."""
    if context.invoked_subcommand is None:
        from bontune.cli.recipes import print_names
        from bontune.tasks import describe

        print_names(describe())


@tasks_app.command("show")
def show_task(
    name: given.TaskName,
    options: given.KeyValues = None,
    split: given.Split = "test",
    index: Annotated[int, typer.Option(min=0, help="Show this problem of the split, counted from 0.")] = 0,
    problem_id: Annotated[str | None, typer.Option("--id", help="Show the problem with this id instead.")] = None,
    form: Annotated[
        Literal["both", "base", "chat"],
        typer.Option("--format", help="Show the text for base models, the chat messages, or both."),
    ] = "both",
    check: Annotated[bool, typer.Option("--check", help="Also grade every reference of the split.")] = False,
) -> None:
    """Print a problem as a model sees it, its reference, and the task's splits and options.

    KEY=VALUE are options of the task.

    Example: bontune tasks show math data=DATA --index 3 --format chat
    """
    from bontune.cli.tasks import show_problem

    show_problem(name, options or [], split, index=index, problem_id=problem_id, form=form, is_checked=check)


@verify_app.command("fit")
def verify_fit(
    pools: Annotated[list[Path], typer.Argument(help="Pools with prompts, completions and rewards from 0 to 1.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Start from this model: a shipped one, a folder, or a hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the verifier into this folder.")],
    epochs: Annotated[int, typer.Option(help="Pass over the completions at most this many times.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Update on this many completions at a time.")] = 64,
    lr: Annotated[float, typer.Option(help="Reach this learning rate at the peak.")] = 2e-5,
    held_out: Annotated[float, typer.Option(help="Hold out this share of the problems to decide when to stop.")] = 0.15,
    evaluations: Annotated[int, typer.Option(help="Compute the held-out loss this many times per epoch.")] = 1,
    patience: Annotated[int, typer.Option(help="Stop after this many evaluations without a lower loss.")] = 3,
    separator: Annotated[
        str, typer.Option(help="Put this text between prompt and completion, where a model has no chat template.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed for the held-out problems, the order and the new head.")] = 0,
) -> None:
    """Train an outcome verifier on graded pools.

    Reports AUC, calibration and what a perfect verifier would add (gap@k) on held-out problems.

    Example: bontune verify fit pools/base.parquet --model countdown-tiny --lr 1e-3 --out runs/verifier
    """
    from bontune.cli.verify import run_fit
    from bontune.verifiers.fit import FitOptions

    options = FitOptions(
        epochs=epochs, batch_size=batch_size, lr=lr, evaluations_per_epoch=evaluations, patience=patience, seed=seed
    )
    run_fit(pools, model, out, options, held_out=held_out, separator=separator)


@verify_app.command("score")
def verify_score(
    pool: given.PoolPath,
    verifier: given.Verifier,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the pool with the new scores: .parquet or .jsonl.")],
) -> None:
    """Score a pool's completions with another verifier.

    Reports AUC, calibration and what a perfect verifier would add (gap@k). A stopped command goes on where it was when
    it is given again.

    Example: bontune verify score pools/base.parquet --verifier countdown-verifier --out pools/scored.parquet
    """
    from bontune.cli.verify import run_score

    run_score(pool, verifier, out)
