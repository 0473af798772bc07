"""Fine-tune a language model for the way it will be sampled: draw N, let a verifier pick one.

The names below are imported when they are first used, so that ``import bontune`` and ``bontune --help`` stay quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bontune.config import Recipe as Recipe
    from bontune.config import load_recipe as load_recipe
    from bontune.models import load_model as load_model
    from bontune.serving.generator import BestOfN as BestOfN
    from bontune.tasks import load_task as load_task
    from bontune.tasks import task_from_rows as task_from_rows
    from bontune.training.trainer import Trainer as Trainer

_HOME = {
    "BestOfN": "bontune.serving.generator",
    "Recipe": "bontune.config",
    "load_recipe": "bontune.config",
    "load_model": "bontune.models",
    "load_task": "bontune.tasks",
    "task_from_rows": "bontune.tasks",
    "Trainer": "bontune.training.trainer",
}
_ROOMS = ("objectives", "metrics", "grading")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _ROOMS:
        return import_module(f"bontune.{name}")
    raise AttributeError(f"module 'bontune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_ROOMS])
