"""``bontune recipes``: what ships, and what each key of a recipe means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.text import field_docstrings, without_markup
from bontune.config import RECIPES, Recipe, load_recipe, shipped_recipes


def print_names(rows: Mapping[str, str]) -> None:
    """Print names, each with the sentence that says what it is, on lines that break between words."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, sentence in rows.items():
        table.add_row(name, Text(sentence))
    Console(highlight=False, markup=False, emoji=False).print(table)


def list_recipes() -> None:
    """Print the recipes that ship with the package."""
    print_names(
        {
            name: (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
            for name in shipped_recipes()
        }
    )


def list_keys(prefix: str) -> None:
    """Print the keys of a recipe that begin with this, with their defaults and what they mean.

    Raises:
        BontuneError: no key begins so.
    """
    found = {key: (default, text) for key, default, text in keys_of(Recipe) if key.startswith(prefix)}
    if not found:
        hint = did_you_mean(prefix, [key for key, _, _ in keys_of(Recipe)], 0.5)
        raise BontuneError(f"no key of a recipe begins with {prefix!r}{hint}")
    console = Console(highlight=False, markup=False, emoji=False)
    for key, (default, text) in found.items():
        console.print(Text.assemble((key, "bold"), f" = {_written(default)}"))
        console.print(Text(f"  {text}"))
    if "objective".startswith(prefix) or prefix.startswith("objective"):
        console.print("More keys of objective depend on its name: `bontune objectives show NAME`.")
    if "task".startswith(prefix) or prefix.startswith("task"):
        console.print("More keys of task depend on its name: `bontune tasks show NAME`.")


def show(name: str, overrides: list[str], *, explains: bool) -> None:
    """Print a recipe with every key and its value, and what each means above it."""
    recipe = load_recipe(name, overrides)
    text = recipe.to_yaml()
    if not explains:
        print(text, end="")
        return
    meanings = {key: meaning for key, _, meaning in keys_of(Recipe)}
    options = field_docstrings(recipe.objective.row().options)
    meanings |= {f"objective.{key}": without_markup(meaning) for key, meaning in options.items()}
    parents: list[str] = []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        key = line.strip().partition(":")[0]
        parents = [*parents[:depth], key]
        meaning = meanings.get(".".join(parents)) if not line.lstrip().startswith("-") else None
        if meaning:
            indent = line[: len(line) - len(line.lstrip())]
            print("\n".join(textwrap.wrap(meaning, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")))
        print(line)


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted key, default, meaning) of a section and of those within it."""
    for name, field in section.model_fields.items():
        inner = _section_in(field.annotation)
        default = field.get_default(call_default_factory=True)
        if inner is None or prefix or default is None:
            yield prefix + name, default, without_markup(" ".join((field.description or "").split()))
        if inner is not None and not (prefix and inner.__name__ == "TaskSection"):
            yield from keys_of(inner, f"{prefix}{name}.")


def _section_in(annotation: Any) -> type[BaseModel] | None:
    kinds = [annotation, *getattr(annotation, "__args__", ())]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _written(default: Any) -> str:
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    return yaml.safe_dump(default, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()
