"""The commands. Each is a function in a module of this room; nothing slow is imported before a command needs it."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.base.signals import leaving_at_once
from bontune.base.text import never_fail_to_print
from bontune.cli.adaptive import study_early_stopping
from bontune.cli.answer import answer_prompt
from bontune.cli.catalogue import objectives_app, recipes_app, tasks_app
from bontune.cli.compare import compare_runs
from bontune.cli.doctor import report_on_machine
from bontune.cli.evaluate import evaluate_pools
from bontune.cli.models import models_app
from bontune.cli.report import report_on, watch_runs
from bontune.cli.reproduce import quickstart, reproduce_suite
from bontune.cli.sample import pools_app, sample_pool
from bontune.cli.share import push_run, write_for_trainer
from bontune.cli.sweep import sweep_temperatures
from bontune.cli.terminal import PlainTyper, print_error, warn
from bontune.cli.train import train_recipe
from bontune.cli.verify import verify_app

COMMANDS = {
    "quickstart": quickstart,
    "train": train_recipe,
    "sample": sample_pool,
    "eval": evaluate_pools,
    "report": report_on,
    "watch": watch_runs,
    "sweep": sweep_temperatures,
    "reproduce": reproduce_suite,
    "compare": compare_runs,
    "adaptive": study_early_stopping,
    "answer": answer_prompt,
    "push": push_run,
    "export": write_for_trainer,
    "doctor": report_on_machine,
    "recipes": recipes_app,
    "objectives": objectives_app,
    "tasks": tasks_app,
    "models": models_app,
    "verify": verify_app,
    "pools": pools_app,
}
"""Every command in the order of the help, and the groups of commands behind them."""

app = PlainTyper(
    name="bontune",
    help="Fine-tune a language model for the way it will be sampled: draw N, let a verifier pick one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, command in COMMANDS.items():
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


def _print_version(value: bool) -> None:
    if value:
        from bontune import __version__

        print(f"bontune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error becomes one sentence and an exit status that tells its kind."""
    never_fail_to_print()
    warnings.showwarning = _show_warning
    try:
        with leaving_at_once():
            app()
    except (BontuneError, RunStopped) as error:
        print_error(str(error))
        sys.exit(2 if isinstance(error, BontuneError) else 1)
    except Interrupted as stop:
        sys.exit(stop.status)
    except BrokenPipeError:  # `bontune eval … | head`
        sys.stderr.close()
        sys.exit(141)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show people the sentence of a warning, and not the line of code that it comes from."""
    warn(str(message))
