"""Contract: whatever ``--help`` and a recipe's keys say is a sentence that a stranger understands."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import click
import pytest
import typer.main
from pydantic import BaseModel

from bontune.base.text import field_docstrings
from bontune.cli import app
from bontune.config import Recipe
from bontune.objectives.table import ROWS
from commands import run_many
from pages import ROOT

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


NAMES = ("recipes", "tasks", "objectives", *(f"objectives show {row.name}" for row in ROWS))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What every ``--help`` and every page about a name prints on 80 columns."""
    lines = [
        *(f"{name} --help".removeprefix("bontune ") for name in COMMANDS),
        *NAMES,
        *(f"tasks show {name}" for name in ("countdown", "programs")),
        "recipes keys",
    ]
    done = run_many(tmp_path_factory.mktemp("help"), [line.split() for line in lines], columns=80)
    assert {result.returncode for result in done} == {0}
    return {line: result.stdout for line, result in zip(lines, done, strict=True)}


def test_a_page_about_a_name_fits_the_terminal(shown: dict[str, str]) -> None:
    for line, text in shown.items():
        if line.startswith("objectives show"):
            assert max(map(len, text.splitlines())) <= 80, line


def words_of(text: str) -> str:
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_brackets_in_a_help_text_are_no_markup(shown: dict[str, str]) -> None:
    for name, command in COMMANDS.items():
        page = words_of(shown[f"{name} --help".removeprefix("bontune ")])
        for text in [command.help or "", *(str(getattr(p, "help", "")) for p in command.params)]:
            for bracketed in re.findall(r"\S*\[\S*\]\S*", text):
                assert bracketed in page.replace(" ", "") or bracketed in page, f"{name}: {bracketed}"
    assert "bontune[vllm]" in shown["sample --help"]


def test_paragraphs_of_a_help_text_flow(shown: dict[str, str]) -> None:
    """No line ends early: the next word would not have fitted on it."""
    for name, command in COMMANDS.items():
        lines = [line.strip() for line in shown[f"{name} --help".removeprefix("bontune ")].splitlines()]
        for paragraph in (command.help or "").split("\n\n"):
            words = paragraph.split()
            if not words:
                continue
            start = next(i for i, line in enumerate(lines) if line.split()[:3] == words[:3])
            while words:
                taken = lines[start].split()
                assert taken == words[: len(taken)], f"{name}: {lines[start]!r}"
                words = words[len(taken) :]
                assert not words or len(lines[start]) + 1 + len(words[0]) > 78, f"{name}: {lines[start]!r}"
                start += 1


def test_what_is_shown_of_a_name_is_text(shown: dict[str, str]) -> None:
    for line, text in shown.items():
        if "--help" not in line:
            for markup in (r":\w+:`", "``", r"(?<![\w*])\*\w+\*"):
                assert not re.search(markup, text), f"{line}: {re.findall(markup, text)}"


def test_every_console_prints_texts_as_they_are() -> None:
    """Names and paths with brackets or colons are no markup and no emoji."""
    source = ROOT / "src" / "bontune"
    made = [
        (path.name, call)
        for path in source.rglob("*.py")
        if path.name != "progress.py"  # it prints with markup=False
        for call in re.findall(r"\bConsole\([^)]*\)", path.read_text(encoding="utf-8"))
    ]
    assert "terminal.py" in dict(made)
    assert [item for item in made if "markup=False" not in item[1] or "emoji=False" not in item[1]] == []
