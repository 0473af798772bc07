"""The commands that have commands of their own: recipes, tasks, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

recipes_app = typer.Typer(help="The recipes that ship with the package.", invoke_without_command=True)
tasks_app = typer.Typer(help="The tasks that ship with the package.", invoke_without_command=True)
verify_app = typer.Typer(help="Train a verifier on pools; score a pool with one.", no_args_is_help=True)

KeyValues = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)]


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes."""
    if context.invoked_subcommand is None:
        from bontune.config import RECIPES, shipped_recipes

        for name in shipped_recipes():
            first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
            typer.echo(f"{name:<32}{first.removeprefix('#').strip()}")


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A shipped recipe, a YAML file, or a run folder.")],
    overrides: KeyValues = None,
) -> None:
    """Print a whole recipe, every key with its value."""
    from bontune.config import load_recipe

    typer.echo(load_recipe(name, overrides or []).to_yaml(), nl=False)


@tasks_app.callback()
def tasks(context: typer.Context) -> None:
    """List the tasks."""
    if context.invoked_subcommand is None:
        from bontune.tasks import describe

        for name, summary in describe().items():
            typer.echo(f"{name:<24}{summary}")


@tasks_app.command("show")
def show_task(
    name: Annotated[str, typer.Argument(help="A task.")],
    options: KeyValues = None,
    split: Annotated[str, typer.Option(help="Which problems.")] = "test",
    index: Annotated[int, typer.Option(min=0, help="Which problem of the split, from 0.")] = 0,
    problem_id: Annotated[str | None, typer.Option("--id", help="The problem of this id instead.")] = None,
    form: Annotated[str, typer.Option("--format", help="base, chat, or both: what there is.")] = "both",
    check: Annotated[bool, typer.Option("--check", help="Grade every reference of the split.")] = False,
) -> None:
    """Print a problem as a model sees it, its reference, and the task's splits and options.

    KEY=VALUE are options of the task. Example: bontune tasks show math data=DATA --index 3 --format chat
    """
    from bontune.cli.tasks import show_problem

    show_problem(name, options or [], split, index=index, problem_id=problem_id, form=form, is_checked=check)


@verify_app.command("fit")
def verify_fit(
    pools: Annotated[list[Path], typer.Argument(help="Pools with prompts, completions and rewards from 0 to 1.")],
    model: Annotated[str, typer.Option("--model", "-m", help="To start from: a shipped model, a folder, or a hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the verifier.")],
    epochs: Annotated[int, typer.Option(help="Passes over the completions at most.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Completions an update.")] = 64,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-5,
    held_out: Annotated[float, typer.Option(help="Share of the problems that decide when to stop.")] = 0.15,
    evaluations: Annotated[int, typer.Option(help="Looks at the held-out loss per epoch.")] = 1,
    patience: Annotated[int, typer.Option(help="Looks without a lower loss after which it stops.")] = 3,
    separator: Annotated[str, typer.Option(help="Between prompt and completion, for models that do not chat.")] = "",
    seed: Annotated[int, typer.Option(help="Of the held-out problems, the order and the new head.")] = 0,
) -> None:
    """Train an outcome verifier on graded pools; reports AUC, calibration and regret on held-out problems.

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
    pool: Annotated[Path, typer.Argument(help="A pool with prompts and completions.")],
    verifier: Annotated[
        str,
        typer.Option(
            help="oracle, majority, a reward model (name, folder, hub id), file.py:function, http://…/v1#model."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The pool with the new scores: .parquet or .jsonl.")],
) -> None:
    """Score a pool's completions with another verifier, restartable; reports AUC, calibration and regret.

    Example: bontune verify score pools/base.parquet --verifier countdown-verifier --out pools/scored.parquet
    """
    from bontune.cli.verify import run_score

    run_score(pool, verifier, out)
