"""``bestofn train``."""

from __future__ import annotations

from collections.abc import Sequence

from bestofn.commands.common import quiet_libraries
from bestofn.config import load_recipe


def run_train(recipe: str, overrides: Sequence[str]) -> None:
    """``bestofn train``."""
    settings = load_recipe(recipe, overrides)
    quiet_libraries()
    from bestofn.training.trainer import Trainer

    trainer = Trainer(settings)
    trainer.train()
    if trainer.is_main:
        print(f"{settings.run}/model holds the model, {settings.run}/report.html the report.")
    trainer.accelerator.end_training()
