"""``bontune train``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import bontune.tasks as tasks
from bontune.config import Recipe, borrowed_rate, load_recipe
from bontune.models import quiet_libraries, resolve


def named_recipe(source: str, overrides: Sequence[str]) -> Recipe:
    """Read a recipe and look up its names, which takes no library that is slow to load.

    Raises:
        BontuneError: there is no such recipe, key, objective, verifier, task or model.
    """
    recipe = load_recipe(source, overrides)
    resolve(recipe.model)
    for section in (recipe.task, recipe.eval.task):
        if section is not None:
            tasks.options(section.name)
    if (note := borrowed_rate(source, overrides)) is not None:
        print(f"warning: {note}", file=sys.stderr)
    return recipe


def run_train(recipe: Recipe) -> None:
    """``bontune train``."""
    if recipe.verifier.path is not None:
        resolve(recipe.verifier.path)
    task = tasks.load_task(recipe.task.name, **recipe.task.options())
    quiet_libraries()
    from bontune.report.run_page import write_run_report
    from bontune.training.trainer import Trainer

    trainer = Trainer(recipe, task=task, write_report=write_run_report)
    trainer.train()
    if trainer.is_main:
        print(f"{recipe.run}/model holds the model, {recipe.run}/report.html the report.")
    trainer.accelerator.end_training()
