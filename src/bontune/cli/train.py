"""``bontune train``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bontune.config import borrowed_rate, load_recipe
from bontune.models import quiet_libraries
from bontune.report.html import write_run_report
from bontune.training.trainer import Trainer


def run_train(recipe: str, overrides: Sequence[str]) -> None:
    """``bontune train``."""
    settings = load_recipe(recipe, overrides)
    quiet_libraries()
    if (note := borrowed_rate(recipe, overrides)) is not None:
        print(f"warning: {note}", file=sys.stderr)
    trainer = Trainer(settings, write_report=write_run_report)
    trainer.train()
    if trainer.is_main:
        print(f"{settings.run}/model holds the model, {settings.run}/report.html the report.")
    trainer.accelerator.end_training()
