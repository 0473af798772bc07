"""Commands that lead out of the package: share a model, or train a recipe elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bontune.cli import options as shared


def push_run(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hugging Face hub.")],
    what: Annotated[str, typer.Option(help="Upload this part of the run: model, adapter, or best/METRIC.")] = "model",
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
) -> None:
    """Upload a trained model to the Hugging Face hub, with a model card made from its run.

    Example: bontune push runs/a me/my-model
    """
    from bontune.report import card

    print(card.push(run, repository, is_private=private, what=what))


def write_for_trainer(
    recipe: shared.RecipeSource,
    overrides: shared.KeyValues = None,
    to: Annotated[
        str, typer.Option("--to", help="Write for this trainer: trl, a YAML file; verl, a shell script.")
    ] = "trl",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write this file; default: print.", show_default=False)
    ] = None,
) -> None:
    """Write a recipe for TRL or verl, which train on clusters.

    What has no counterpart there is said in comments at the top.

    Example: bontune export gemma2-2b-math-bon-rl-s --to verl -o train.sh
    """
    from bontune.base.files import replace_file
    from bontune.config import load_recipe

    settings = load_recipe(recipe, overrides or [])  # before torch is loaded: names are answered at once
    from bontune.integrations.export import export_recipe

    text = export_recipe(settings, to)
    if out is None:
        print(text, end="")
    else:
        replace_file(out, text)
        print(f"{out} is for {to}.")
