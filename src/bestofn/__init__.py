"""Fine-tune a language model for the way it will be sampled: draw N, let a verifier pick one.

The names below are imported when they are first used, so that ``import bestofn`` and ``bestofn --help`` stay quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bestofn.best_of_n import BestOfN as BestOfN
    from bestofn.config import Recipe as Recipe
    from bestofn.config import load_recipe as load_recipe
    from bestofn.models import load_model as load_model
    from bestofn.tasks import load_task as load_task
    from bestofn.tasks import task_from_rows as task_from_rows
    from bestofn.training.trainer import Trainer as Trainer

_HOME = {
    "BestOfN": "bestofn.best_of_n",
    "Recipe": "bestofn.config",
    "load_recipe": "bestofn.config",
    "load_model": "bestofn.models",
    "load_task": "bestofn.tasks",
    "task_from_rows": "bestofn.tasks",
    "Trainer": "bestofn.training.trainer",
}
_ROOMS = ("objectives", "metrics", "grading")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _ROOMS:
        return import_module(f"bestofn.{name}")
    raise AttributeError(f"module 'bestofn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_ROOMS])
