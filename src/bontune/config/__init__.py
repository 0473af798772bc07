"""The recipe: one validated tree that says all of a run. Every key has a default; unknown keys name the nearest one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bontune.base.errors import BontuneError, nearest
from bontune.base.files import replace_file
from bontune.base.settings import apply_overrides, choose_size, explain, flat, ours, read_yaml
from bontune.config.objective import ObjectiveSection
from bontune.config.sections import (
    EngineSection,
    EvalSection,
    KLSection,
    LoraSection,
    SamplingSection,
    Section,
    TaskSection,
    TrainingSection,
    VerifierSection,
)
from bontune.models import is_shipped

__all__ = [
    "EngineSection",
    "EvalSection",
    "KLSection",
    "LoraSection",
    "ObjectiveSection",
    "Recipe",
    "SamplingSection",
    "Section",
    "TaskSection",
    "TrainingSection",
    "VerifierSection",
    "borrowed_rate",
    "is_run",
    "load_recipe",
    "read_recipe",
    "shipped_recipes",
]

_ROWS = (".jsonl", ".ndjson", ".csv", ".parquet", ".gz")
"""Endings of files that hold data."""
RECIPES = Path(__file__).parent.parent / "recipes"


class Recipe(Section):
    """All settings of one training run."""

    model: str = "countdown-tiny"
    """A shipped name, a folder, or a Hugging Face hub id."""
    task: TaskSection = TaskSection()
    verifier: VerifierSection = VerifierSection()
    objective: ObjectiveSection = ObjectiveSection()
    engine: EngineSection = EngineSection()
    sampling: SamplingSection = SamplingSection()
    training: TrainingSection = TrainingSection()
    kl: KLSection = KLSection()
    eval: EvalSection = EvalSection()
    seed: int = 0
    """Seed for everything random in the run."""
    run: str = "runs/run"
    """Folder that the run writes."""

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Recipe:
        """Build and validate.

        Raises:
            BontuneError: an unknown key (the nearest is named) or a value outside its range.
        """
        try:
            recipe = cls.model_validate(_without_shard(tree))
        except ValidationError as error:
            see = "`bontune recipes show countdown` prints a whole recipe."
            raise BontuneError(explain(cls, error, "recipe", see, ours)) from None
        if recipe.eval.every and max(recipe.eval.k) > recipe.eval.samples:
            raise BontuneError(
                f"eval.k asks for {max(recipe.eval.k)} of eval.samples = {recipe.eval.samples}: draw more or lower k."
            )
        from bontune.verifiers.load import check_verifier_options

        check_verifier_options(recipe.verifier.name, recipe.verifier.options())
        recipe.objective.options()
        return recipe

    def to_yaml(self) -> str:
        """The whole tree as YAML."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)

    def deciding(self) -> dict[str, Any]:
        """The settings that change results, by their dotted names; a run is not resumed under others.

        ``run``, how often to save, tracking, and budgets that bound memory do not change results; more ``steps`` do
        (the schedules stretch).
        """
        return flat(self._deciding_tree())

    def fingerprint(self) -> str:
        """Return a hash of the settings that :meth:`deciding` lists: equal for recipes that train the same."""
        return hashlib.sha256(json.dumps(self._deciding_tree(), sort_keys=True).encode()).hexdigest()

    def _deciding_tree(self) -> dict[str, Any]:
        tree = self.model_dump(mode="json")
        tree.pop("run")
        for section, key in (
            ("training", "checkpoint_every"),
            ("training", "keep_checkpoints"),
            ("training", "track"),
            ("training", "token_budget"),
            ("training", "first_step_kl"),
            ("sampling", "token_budget"),
        ):
            tree[section].pop(key)
        for key in ("keep", "solved_at"):
            if tree["eval"][key] in (None, []):  # as before there was such a key
                tree["eval"].pop(key)
        tree["engine"] = {"name": self.engine.name}
        if self.engine.name == "transformers":
            tree.pop("engine")
        for key in ("updates_per_batch", "minibatches", "clip", "clip_range", "importance", "importance_cap", "refill"):
            if tree["training"][key] == TrainingSection.model_fields[key].default:
                tree["training"].pop(key)
        for key in ("refit", "end"):
            if tree["verifier"][key] is None:
                tree["verifier"].pop(key)
        if tree["objective"].get("p_fail") != "value_head":
            tree["training"]["value_lr"] = 1e-5  # decides nothing; what it was before ``auto``
        if self.objective.name in ("bon_rlb", "bon_rlbp") and tree["objective"]["baseline"] == "none":  # the same
            tree["objective"].pop("baseline")
        return tree


def _without_shard(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out ``training.shard: false``, which recipes of earlier versions contain.

    Raises:
        BontuneError: the recipe asks for a sharded policy.
    """
    training = tree.get("training")
    if not isinstance(training, Mapping) or "shard" not in training:
        return tree
    if training["shard"]:
        raise BontuneError(
            "The recipe asks for training.shard, which is gone. Large models train inside TRL or verl "
            "(`bontune export`), see docs/clusters.md."
        )
    return {**tree, "training": {key: value for key, value in training.items() if key != "shard"}}


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(source: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides.

    Args:
        source: a shipped name, a YAML file, or a run folder.
        overrides: like ``training.steps=50``; values are YAML. In a recipe with sizes, ``size=NAME`` chooses one.

    Raises:
        BontuneError: no such recipe, broken YAML, or an override that is not ``key=value``; and see
            :meth:`Recipe.from_dict`.
    """
    return Recipe.from_dict(apply_overrides(*_in_size(source, overrides)))


def borrowed_rate(source: str, overrides: Iterable[str]) -> str | None:
    """Say that a recipe's learning rate was chosen for another model on another task; None where that is not so."""
    if is_run(Path(source)):
        return None
    written, overrides = _in_size(source, overrides)
    before, now = Recipe.model_validate(written), Recipe.model_validate(apply_overrides(written, overrides))
    is_set = any(override.partition("=")[0].strip() in ("training.lr", "training") for override in overrides)
    if is_set or before.model == now.model or before.task.name == now.task.name:
        return None
    return (
        f"training.lr = {now.training.lr:g} is what {source} takes for {before.model} on {before.task.name}; a rate "
        "that suits one model may ruin another: set training.lr, or begin with the recipe own"
    )


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a training run."""
    return path.is_dir() and any((path / name).is_file() for name in ("recipe.yaml", "metrics.jsonl"))


def read_recipe(source: str) -> dict[str, Any]:
    """The recipe's own tree, as written, in its first size.

    The tree of a run folder has ``run`` and the run's files as they are called from here.
    """
    return _in_size(source, ())[0]


def _in_size(source: str, overrides: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """The recipe's own tree in the size that an override asks for, and the other overrides."""
    path, folder = Path(source), None
    if source in shipped_recipes():
        path = RECIPES / f"{source}.yaml"
    elif path.is_dir() and (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
        folder = source
    elif path.suffix in _ROWS:
        raise BontuneError(
            f"{source} holds rows and no recipe: name a recipe and give it task.name=jsonl task.data={source}."
        )
    elif not path.is_file():
        near = nearest(source, shipped_recipes())
        hint = f" Did you mean {near!r}?" if near else ""
        raise BontuneError(
            f"No recipe {source!r}.{hint} It is neither a file nor one of {', '.join(shipped_recipes())}."
        )
    tree, others = choose_size(read_yaml(path), overrides)
    return (tree if folder is None else found_from_here(tree, Path(folder)) | {"run": folder}), others


STARTED_IN = ".started_in"
"""File in a run's folder that holds the folder in which the run was begun."""
_TASKS = ((), ("eval",))
_OF_TASK = ("data", "test_data", "hub", "grader")
_OF_VERIFIER = ("path", "function", "prompt")


def note_start(tree: Mapping[str, Any], run: Path) -> None:
    """Write down in which folder a run begins, if its recipe names files in it.

    Raises:
        OSError: it cannot be written.
    """
    if _found_in([Path.cwd()], tree) != tree:
        replace_file(run / STARTED_IN, os.getcwd())


def found_from_here(tree: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """A run's recipe with the names of its files as they are called from the current folder.

    A name is looked up where the run was begun, which its own folder's name tells or else a note in it; what is not
    there stays as it is written.

    Args:
        tree: the recipe as the run has written it.
        run: the folder of the run.
    """
    starts = _starts(tree, run)
    return dict(tree) if not starts or starts[0] == Path.cwd() else _found_in(starts, tree)


def _found_in(starts: list[Path], tree: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with the names of files that are in one of these folders, in full."""

    def found(value: Any) -> Any:
        return _found(value, starts)

    made = _changed(tree, ("model",), found)
    for section in _TASKS:
        for key in _OF_TASK:
            made = _changed(made, (*section, "task", key), found)
    for key in _OF_VERIFIER:
        made = _changed(made, ("verifier", key), found)
    return made


def _starts(tree: Mapping[str, Any], run: Path) -> list[Path]:
    """Folders in which the run may have been begun, the likeliest first."""
    starts = []
    here, called = Path(os.path.abspath(run)), Path(str(tree.get("run", ""))).parts
    if called and here.parts[-len(called) :] == called and not Path(*called).is_absolute():
        starts.append(here.parents[len(called) - 1])
    note = run / STARTED_IN
    if note.is_file():
        starts.append(Path(note.read_text(encoding="utf-8", errors="replace")))
    return starts


def _changed(tree: Mapping[str, Any], keys: tuple[str, ...], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The tree with a changed value at a place, if there is something."""
    key, *further = keys
    value = tree.get(key)
    if further:
        return {**tree, key: _changed(value, tuple(further), change)} if isinstance(value, Mapping) else dict(tree)
    return dict(tree) if value is None else {**tree, key: change(value)}


def _found(value: Any, starts: list[Path]) -> Any:
    """The name of a file or a folder as it is called from here; any other value as it is."""
    if isinstance(value, Mapping):
        return {key: _found(item, starts) for key, item in value.items()}
    if not isinstance(value, str) or not value or "\n" in value:
        return value
    source, colon, function = value.rpartition(":") if value.partition(":")[0].endswith(".py") else (value, "", "")
    path = Path(source).expanduser()
    if path.is_absolute() or is_shipped(source):
        return value
    for start in starts:
        try:
            if (start / path).exists():
                return f"{start / path}{colon}{function}"
        except OSError:  # a text that is too long for a name
            return value
    return value
