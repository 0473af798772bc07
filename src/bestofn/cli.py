"""The commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="bestofn",
    help="Fine-tune a language model for the way it will be sampled: draw N, let a verifier pick one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes_app = typer.Typer(help="The recipes that ship with the package.", invoke_without_command=True)
tasks_app = typer.Typer(help="The tasks that ship with the package.", invoke_without_command=True)
app.add_typer(recipes_app, name="recipes")
app.add_typer(tasks_app, name="tasks")

KeyValues = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)]


def _print_version(value: bool) -> None:
    if value:
        from bestofn import __version__

        typer.echo(f"bestofn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the runs, the summary, the report and the pictures.")] = Path(
        "runs/quickstart"
    ),
    full: Annotated[bool, typer.Option("--full", help="Longer training and three seeds.")] = False,
) -> None:
    """Train the embedded model by plain RL and for Best-of-N, and show the difference: offline, CPU, minutes."""
    from bestofn.quickstart import run_quickstart

    run_quickstart(out, is_full=full)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (`bestofn recipes`), a YAML file, or a run folder.")],
    overrides: KeyValues = None,
) -> None:
    """Train by a recipe; continues by itself if the run folder holds a checkpoint.

    Example: bestofn train countdown run=runs/a training.steps=50
    """
    from bestofn.commands.train import run_train

    run_train(recipe, overrides or [])


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="A shipped model, a folder, or a Hugging Face hub id.")],
    task: Annotated[str, typer.Argument(help="A task (`bestofn tasks`).")],
    options: KeyValues = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The pool: .parquet or .jsonl.")] = Path("pool.parquet"),
    samples: Annotated[int, typer.Option("--samples", "-n", help="Completions per prompt.")] = 64,
    temperature: Annotated[float, typer.Option("--temperature", "-t", help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion, in tokens.")] = 24,
    split: Annotated[str, typer.Option(help="Which problems.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    verifier: Annotated[str, typer.Option(help="oracle, majority, or file.py:function.")] = "oracle",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Draw a pool of completions per prompt, graded; restartable. KEY=VALUE are options of the task.

    Example: bestofn sample countdown-tiny countdown -o pools/base.parquet
    """
    from bestofn.commands.sample import run_sample
    from bestofn.sampling.samples import SamplingOptions

    drawing = SamplingOptions(num_samples=samples, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    run_sample(model, task, options or [], drawing, out=out, split=split, limit=limit, verifier=verifier, seed=seed)


@app.command("eval")
def evaluate(
    pools: Annotated[list[Path], typer.Argument(help="Pools of `bestofn sample`; more than one are compared.")],
    k: Annotated[str | None, typer.Option("--k", help="Budgets, like 1,4,16; default: powers of two.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write it as .json or .csv.")] = None,
) -> None:
    """Every metric of a pool for every k, with 95 % intervals; paired differences between pools."""
    from bestofn.commands.evaluate import run_eval

    run_eval(pools, k, out)


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes."""
    if context.invoked_subcommand is None:
        from bestofn.config import RECIPES, shipped_recipes

        for name in shipped_recipes():
            first = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
            typer.echo(f"{name:<24}{first.removeprefix('#').strip()}")


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A shipped recipe, a YAML file, or a run folder.")],
    overrides: KeyValues = None,
) -> None:
    """Print a whole recipe, every key with its value."""
    from bestofn.config import load_recipe

    typer.echo(load_recipe(name, overrides or []).to_yaml(), nl=False)


@tasks_app.callback()
def tasks(context: typer.Context) -> None:
    """List the tasks."""
    if context.invoked_subcommand is None:
        from bestofn.tasks import describe

        for name, summary in describe().items():
            typer.echo(f"{name:<24}{summary}")


@tasks_app.command("show")
def show_task(
    name: Annotated[str, typer.Argument(help="A task.")],
    options: KeyValues = None,
    split: Annotated[str, typer.Option(help="Which problems.")] = "test",
) -> None:
    """Print a task's first prompt and reference. KEY=VALUE are options of the task."""
    from bestofn.commands.tasks import show_problem

    show_problem(name, options or [], split)


def main() -> None:
    """Entry point: errors in one sentence, and an exit status that says which kind."""
    from bestofn.errors import BestofnError, Interrupted, RunStopped

    try:
        app()
    except BestofnError as error:
        _fail(str(error), 2)
    except RunStopped as error:
        _fail(str(error), 1)
    except Interrupted:
        sys.exit(143)
    except BrokenPipeError:  # `bestofn eval … | head`
        sys.stderr.close()
        sys.exit(141)


def _fail(message: str, status: int) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
