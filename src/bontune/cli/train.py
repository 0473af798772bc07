"""Trains a model as a recipe says: the command ``bontune train``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bontune.cli import options as shared
from bontune.cli.terminal import warn

if TYPE_CHECKING:
    from bontune.config import Recipe


def train_recipe(
    recipe: shared.RecipeSource,
    overrides: shared.KeyValues = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the samples and memory to expect, and train nothing.")] = (
        False
    ),
) -> None:
    """Train a model as a recipe says.

    A run folder that holds a checkpoint is continued.

    Example: bontune train countdown run=runs/a training.steps=50
    """
    settings = _checked_recipe(recipe, overrides or [])
    if plan:
        from bontune.cli.plan import run_plan

        run_plan(settings)
        return
    from bontune import tasks
    from bontune.models import quiet_libraries, resolve

    if settings.verifier.path is not None:
        resolve(settings.verifier.path)
    task = tasks.load_task(settings.task.name, **settings.task.options())
    quiet_libraries()
    from bontune.report.run_page import write_run_report
    from bontune.training.trainer import Trainer

    trainer = Trainer(settings, task=task, write_report=write_run_report)
    trainer.train()
    if trainer.is_main:
        print(f"{settings.run}/model holds the model, {settings.run}/report.html the report.")
    trainer.accelerator.end_training()


def _checked_recipe(source: str, overrides: Sequence[str]) -> Recipe:
    """Read a recipe and look up its names, which takes no library that is slow to load.

    Raises:
        BontuneError: there is no such recipe, key, objective, verifier, task or model.
    """
    from bontune import tasks
    from bontune.config import borrowed_rate, load_recipe
    from bontune.models import resolve

    recipe = load_recipe(source, overrides)
    resolve(recipe.model)
    for section in (recipe.task, recipe.eval.task):
        if section is not None:
            tasks.options(section.name)
    if (note := borrowed_rate(source, overrides)) is not None:
        warn(note)
    return recipe
