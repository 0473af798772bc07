"""What the commands print, and how their help and their hints look on a terminal."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from bontune.base.errors import BontuneError, nearest


def console(*, stderr: bool = False) -> Console:
    """Make a console that prints texts as they are: brackets are no markup, and colons no emoji."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def warn(sentence: str) -> None:
    """Print a warning on standard error."""
    _say(f"warning: {sentence}")


def print_error(sentence: str) -> None:
    """Print why the command ends on standard error."""
    _say(f"error: {sentence}")


def _say(line: str) -> None:
    """Print a line on standard error; a terminal breaks it between words, a file or a pipe gets it whole."""
    console(stderr=True).print(line, soft_wrap=not sys.stderr.isatty())


def print_names(rows: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
    """Print names, each with the sentence that explains it beside it."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, sentence in rows.items() if isinstance(rows, Mapping) else rows:
        table.add_row(Text(name), Text(sentence))
    console().print(table)


class PlainTyper(typer.Typer):
    """An app whose help is plain text: rich would take ``[vllm]`` for markup and keep the source's line breaks."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a function as a command."""
        return super().command(name, cls=_Command, **settings)


class _Command(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        TyperCommand.format_help(_for_rich(self), ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except Exception as error:  # of click, which typer depends on or brings along
            option = getattr(error, "option_name", None)
            hint = None if option is None else _hint(self, ctx.command_path, option, words, error)
            if hint is None:
                raise
            raise BontuneError(hint) from None
        if any(parameter.name in ("options", "arguments") for parameter in self.params):
            _refuse_options_as_settings(self, ctx.command_path, words)
        return rest


class _Group(TyperGroup):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        shown = _for_rich(self)
        shown.commands = {name: _for_rich(command) for name, command in self.commands.items()}
        TyperGroup.format_help(shown, ctx, formatter)


def _for_rich(command: Any) -> Any:
    """Copy a command so that rich shows its texts as they are, every paragraph on as many lines as it needs."""
    shown = copy.copy(command)
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    shown.help = escape("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))
    shown.params = [copy.copy(parameter) for parameter in command.params]
    for parameter in shown.params:
        if getattr(parameter, "help", None):
            parameter.help = escape(parameter.help)
    return shown


# ---- options and settings that were taken for each other ----


def _hint(command: Any, path: str, option: str, words: list[str], error: Exception) -> str | None:
    """Say what an unknown option should have been; None if click's own message says it."""
    place = next(i for i, word in enumerate(words) if word.partition("=")[0] == option)
    value = words[place].partition("=")[2] or next(iter(words[place + 1 :]), "")
    value = value if value and not value.startswith("-") else "VALUE"
    if (meant := _option_of(command, option)) is not None:
        return f"{path} has no option {option}: give {'/'.join(meant)}, here {meant[0]} {value}."
    options = [name.lstrip("-") for name in getattr(error, "possibilities", None) or () if name != "--help"]
    takes_settings = any(parameter.name in ("overrides", "options") for parameter in command.params)
    if not takes_settings or nearest(option.lstrip("-"), options, 0.7) is not None:
        return None
    return _as_setting(path, option, value)


def _option_of(command: Any, word: str) -> list[str] | None:
    """Find the option of a command that a word stands for, such as ``n`` or another trainer's ``num_generations``.

    Returns:
        The option's spellings, the shortest first; None if the command has no such option.
    """
    from bontune.base.settings import ours

    here = ours(word)
    meanings = {word.lstrip("-").replace("-", "_"), *([here.key.rpartition(".")[2]] if here and here.key else ())}
    for parameter in command.params:
        spellings = [spelling for spelling in parameter.opts if spelling.startswith("-")]
        if meanings & {spelling.lstrip("-").replace("-", "_") for spelling in spellings}:
            return sorted(spellings, key=len)
    return None


def _refuse_options_as_settings(command: Any, path: str, words: list[str]) -> None:
    """Refuse ``n=4`` beside a task that has no option ``n`` where the command itself has ``-n``.

    Raises:
        BontuneError: there is such a word; the message names the command's option.
    """
    for word in words:
        key, equals, value = word.partition("=")
        meant = _option_of(command, key) if equals and not key.startswith("-") else None
        if meant is None:
            continue
        from bontune import tasks

        task = next((name for name in words if name in tasks.names()), None)
        if task is not None and key not in {option.name for option in tasks.options(task)}:
            raise BontuneError(
                f"Task {task} has no option {key!r}, but {path} has: give {'/'.join(meant)}, here {meant[0]} {value}."
            )


def _as_setting(path: str, option: str, value: str) -> str:
    """Say how a setting is given that was written as an option."""
    from bontune.base.settings import known_keys, ours
    from bontune.config import Recipe

    key = option.lstrip("-").replace("-", "_")
    if any(f" {name}" in path for name in ("train", "recipes", "export")):
        keys = sorted(known_keys(Recipe), key=lambda known: known.count("."))
        theirs = ours(key)
        named = next((known for known in keys if known in (key, option.lstrip("-"))), None)
        named = named or (theirs and theirs.key) or next((k for k in keys if k.endswith(f".{key}")), None)
        if theirs is not None and theirs.key is None and named is None:
            return f"{path} has no option {option}. {theirs.note}"
        key = named or key
    return f"{path} has no option {option}: settings are given as key=value, here {key}={value}."
