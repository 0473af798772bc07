"""Commands whose help is plain text, and which say how a setting is given that was written as an option."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from bontune.base.errors import BontuneError, nearest


class PlainTyper(typer.Typer):
    """An app of such commands: rich would take ``[vllm]`` in a help text for markup, and keep the source's lines."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a function as a command."""
        return super().command(name, cls=_Command, **settings)


class _Command(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        TyperCommand.format_help(_for_rich(self), ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # of click, which typer depends on or brings along
            option = getattr(error, "option_name", None)
            takes_settings = any(parameter.name in ("overrides", "options") for parameter in self.params)
            if not option or not takes_settings or _is_near(option, error):
                raise
            raise BontuneError(_as_setting(ctx.command_path, option, given)) from None


class _Group(TyperGroup):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        shown = _for_rich(self)
        shown.commands = {name: _for_rich(command) for name, command in self.commands.items()}
        TyperGroup.format_help(shown, ctx, formatter)


def _for_rich(command: Any) -> Any:
    """A copy of a command whose texts rich shows as they are, every paragraph on as many lines as it needs."""
    shown = copy.copy(command)
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    shown.help = escape("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))
    shown.params = [copy.copy(parameter) for parameter in command.params]
    for parameter in shown.params:
        if getattr(parameter, "help", None):
            parameter.help = escape(parameter.help)
    return shown


def _is_near(option: str, error: Exception) -> bool:
    """Whether an unknown option is nearly one that there is, which click suggests by itself."""
    there = [name.lstrip("-") for name in getattr(error, "possibilities", None) or () if name != "--help"]
    return nearest(option.lstrip("-"), there, 0.7) is not None


def _as_setting(command: str, option: str, args: list[str]) -> str:
    """How a setting is given that was written as an option, in a sentence."""
    from bontune.base.settings import known_keys, ours
    from bontune.config import Recipe

    place = next(i for i, arg in enumerate(args) if arg.partition("=")[0] == option)
    value = args[place].partition("=")[2] or next(iter(args[place + 1 :]), "")
    value = value if value and not value.startswith("-") else "VALUE"
    key = option.lstrip("-").replace("-", "_")
    if any(f" {name}" in command for name in ("train", "recipes", "export")):
        keys = sorted(known_keys(Recipe), key=lambda known: known.count("."))
        theirs = ours(key)
        named = next((known for known in keys if known in (key, option.lstrip("-"))), None)
        named = named or (theirs and theirs.key) or next((k for k in keys if k.endswith(f".{key}")), None)
        if theirs is not None and theirs.key is None and named is None:
            return f"{command} has no option {option}. {theirs.note}"
        key = named or key
    return f"{command} has no option {option}: settings are given as key=value, here {key}={value}."
