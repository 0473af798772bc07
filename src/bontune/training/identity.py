"""What decides a run: its settings, and the contents of the files and weights that they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from bontune.base.problems import Problem, contents_digest
from bontune.base.settings import differing
from bontune.config import Recipe
from bontune.models import weights_digest
from bontune.tasks.base import Task
from bontune.verifiers import load as verifiers

Identity: TypeAlias = dict[str, Any]
"""Settings by their dotted names, and hashes of contents by what people call them."""
STEPS = "training.steps"


def identity_of(recipe: Recipe, tasks: Sequence[Task], problems: Mapping[str, Sequence[Problem]]) -> Identity:
    """Everything that decides a run.

    Args:
        recipe: its settings.
        tasks: the tasks that grade.
        problems: by what they are for, such as training and evaluation.
    """
    contents = {f"the problems for {what}": contents_digest(part) for what, part in problems.items()}
    contents["the weights of the model"] = weights_digest(recipe.model)
    contents["what the verifier names"] = verifiers.verifier_digest(recipe.verifier.name, **recipe.verifier.options())
    contents["the grader's code"] = "-".join(getattr(task, "code", "") for task in tasks)
    return recipe.deciding() | contents


def digest(identity: Identity) -> str:
    """Hash of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(saved: Identity, now: Identity) -> list[str]:
    """Say in a few words each what is not as it was; a file under another name is, if it holds the same."""
    return [
        f"{name} changed"
        if name.startswith(("the ", "what "))
        else f"{name} {now.get(name)!r}, was {saved.get(name)!r}"
        for name in differing(saved, now)
    ]


def grown_from(saved: Identity, now: Identity, step: int) -> int | None:
    """The number of steps that a finished run had, if it now has more and nothing else changed; else None."""
    old, new = saved.get(STEPS, 0), now.get(STEPS, 0)
    return old if step == old < new and not differing(saved | {STEPS: new}, now) else None
