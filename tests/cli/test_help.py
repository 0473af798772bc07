"""Contract: whatever ``--help`` and a recipe's keys say is a sentence that a stranger understands."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import click
import pytest
import typer.main
from pydantic import BaseModel

from bontune.base.fields import field_docstrings
from bontune.cli import app
from bontune.config import Recipe
from bontune.objectives.table import ROWS

RIDDLES = {"of", "what", "which", "where", "how", "when", "who", "whose", "both"}
"""First words that make a phrase of what should be a sentence."""


def commands(command: click.Command, name: str = "bontune") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for sub, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {sub}")


COMMANDS = dict(commands(typer.main.get_command(app)))
ARGUMENTS = [
    (f"{name} {parameter.opts[0]}", str(parameter.help))  # type: ignore[attr-defined]
    for name, command in COMMANDS.items()
    for parameter in command.params
    if "--help" not in parameter.opts
]


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of the recipe with its description; sections are described by their class."""
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield prefix + name, str(section.__doc__)
            yield from keys_of(section, f"{prefix}{name}.")
        else:
            yield prefix + name, str(field.description)


KEYS = [
    *keys_of(Recipe),
    *(
        (f"{row.name}.{f.name}", field_docstrings(row.options)[f.name])
        for row in ROWS
        for f in dataclasses.fields(row.options)
    ),
]


def is_sentence(text: str) -> bool:
    """Whether a text has three words or more, a beginning and an end, and its first word does not need another."""
    words = re.findall(r"[\w./|×←-]+", text)
    return len(words) >= 3 and bool(re.match(r"[A-Z`0-9]|anchor ←", text)) and text.rstrip().endswith((".", ")"))


@pytest.mark.parametrize(("name", "command"), COMMANDS.items(), ids=list(COMMANDS))
def test_a_command_says_what_it_does(name: str, command: click.Command) -> None:
    first = (command.help or "").split("\n\n")[0].replace("\n", " ")
    assert is_sentence(first), f"{name}: {first!r}"


@pytest.mark.parametrize(("name", "text"), ARGUMENTS, ids=[name for name, _ in ARGUMENTS])
def test_an_option_says_what_it_does(name: str, text: str) -> None:
    assert is_sentence(text), f"{name}: {text!r}"
    assert text.split()[0].lower() not in RIDDLES, f"{name}: {text!r}"


@pytest.mark.parametrize(("name", "text"), KEYS, ids=[name for name, _ in KEYS])
def test_a_recipe_key_says_what_it_means(name: str, text: str) -> None:
    assert is_sentence(text), f"{name}: {text!r}"


def test_every_example_in_a_help_text_names_a_command() -> None:
    examples = [line for command in COMMANDS.values() for line in re.findall(r"bontune [a-z]\w+.*", command.help or "")]
    assert len(examples) > 8
    assert all(any(example.startswith(f"{name} ") for name in COMMANDS if " " in name) for example in examples)
