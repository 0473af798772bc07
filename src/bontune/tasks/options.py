"""Options that several tasks share, and the check of every task's options: recipes and command lines hold anything."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, SkipValidation, TypeAdapter, ValidationError

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.settings import rule_of
from bontune.base.thoughts import Setting

Format = Literal["auto", "base", "chat"]
"""Of prompts. ``auto`` offers the text to continue and the conversation, ``base`` the text only; ``chat`` has the
conversation, and its words as the text too, for models tuned to follow instructions that have no chat template."""
WordProblemFormat = Literal["auto", "base", "chat", "equations"]
"""Of prompts of word problems: as ``Format``, and ``equations``: text and conversation ask for equations only."""
ThoughtTags = Annotated[Setting, SkipValidation()]
"""Of thoughts; see :func:`bontune.base.thoughts.thoughts_of`, which says what it can be in one sentence."""
Seed = Annotated[int, Field(ge=0)]
"""Seed that draws a task's problems."""
TimeLimit = Annotated[float, Field(gt=0, le=600)]
"""Seconds that a program has for its tests."""
MemoryLimit = Annotated[int, Field(ge=64, le=65_536)]
"""MiB of memory that a program has."""

_Self = TypeVar("_Self")
_Options = ParamSpec("_Options")


def checked(init: Callable[Concatenate[_Self, _Options], None]) -> Callable[Concatenate[_Self, _Options], None]:
    """Decorate a task's ``__init__`` so that each option must be of its annotated type, strictly.

    ``True`` is no count, an integer is no flag, and a number is no text. The values are passed on unchanged.
    """

    @functools.wraps(init)
    def checked_init(self: _Self, *args: _Options.args, **options: _Options.kwargs) -> None:
        for name, value in options.items():
            if name in (types := _types(init)):
                try:
                    types[name][1].validate_python(value)
                except ValidationError as error:
                    refusal = _refusal(name, value, error, types[name][0])
                    raise BontuneError(f"Task {type(self).__name__.lower()}: {refusal}") from None
        init(self, *args, **options)

    return checked_init  # type: ignore[return-value]


@functools.cache
def _types(init: Callable[..., None]) -> dict[str, tuple[Any, TypeAdapter[Any]]]:
    hints = get_type_hints(init, include_extras=True)
    config = ConfigDict(strict=True, allow_inf_nan=False)
    names = inspect.signature(init).parameters.keys() & hints.keys()
    return {name: (hints[name], TypeAdapter(hints[name], config=config)) for name in names}


def _refusal(name: str, value: Any, error: ValidationError, hint: Any) -> str:
    """Say what an option must be; a wrong word is told the nearest one, and what YAML read as no text its remedy."""
    complaints = [complaint for complaint in error.errors() if complaint["type"] != "is_instance_of"]
    rules = dict.fromkeys(rule_of(complaint) for complaint in complaints)
    remedy = ""
    if isinstance(value, str) and get_origin(hint) is Literal:
        remedy = did_you_mean(value, get_args(hint))
    elif any(complaint["type"] == "string_type" for complaint in complaints):
        remedy = f'; in YAML put it in quotes: {name}: "…"'
    return f"{name} {', or '.join(rules)}, not {value!r}{remedy}"
