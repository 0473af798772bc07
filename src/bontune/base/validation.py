"""What pydantic complains about, in one sentence: where, what was given, what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from bontune.base.other_words import Ours
from bontune.base.overrides import flat
from bontune.base.suggest import nearest

_OUR_WORDS = {
    "be text": "be a valid string",
    "be a whole number": "be a valid integer",
    "be a number": "be a valid number",
    "be true or false": "be a valid boolean",
    "be at least": "be greater than or equal to",
    "be above": "be greater than",
    "be at most": "be less than or equal to",
    "be below": "be less than",
}
"""For pydantic's words, the longer before what they contain."""


def known_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys of a section and the ones inside it, dotted."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += known_keys(kind, f"{prefix}{name}.")
    return keys


def explain(
    section: type[BaseModel],
    error: ValidationError,
    what: str,
    see: str,
    ours: Callable[[str], Ours | None] = lambda _: None,
) -> str:
    """Pydantic's first complaint in one sentence.

    Args:
        section: what was validated.
        error: the complaints.
        what: "recipe", or what else people call it.
        see: a sentence that says where all keys are shown.
        ours: says what stands for a word of other trainers, where the keys are those of a recipe.
    """
    keys = known_keys(section)
    first, *others = error.errors()
    where = _where(keys, first)
    if first["type"] in ("model_type", "dict_type") and f"{where}.name" in keys and isinstance(first["input"], str):
        return f"{where} is a section of keys and values: write {where}.name={first['input']}."
    if first["type"] == "value_error":  # our own sentence
        return f"{where}: {str(first['ctx']['error']).rstrip('.')}."
    if first["type"] == "extra_forbidden":
        return " ".join(
            filter(None, (f"The {what} has no key {where!r}.", _hint(where, first["input"], keys, ours), see))
        )
    same_place = [other for other in others if _where(keys, other) == where]  # one for each form that is allowed
    rules = dict.fromkeys(rule_of(complaint) for complaint in (first, *same_place))
    return f"{where}: {', or '.join(rules)}, got {shown(first['input'])}."


def _hint(where: str, given: Any, keys: list[str], ours: Callable[[str], Ours | None]) -> str:
    """What may have been meant by an unknown key: one of that name, another's word for it, or a key that is like it."""
    section, _, leaf = where.rpartition(".")
    within = f"{section}." if section else ""
    by_leaf: dict[str, list[str]] = {}
    for key in sorted(keys, key=lambda key: (not key.startswith(within), key.count("."))):
        by_leaf.setdefault(key.rpartition(".")[2], []).append(key)
    of_that_name = by_leaf.get(leaf, [])
    near_sibling = nearest(leaf, [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == section])
    inner = flat(given) if isinstance(given, dict) and not near_sibling else ()  # "rollout.n=8" is an unknown section
    theirs = next(filter(None, map(ours, (leaf, *inner))), None)
    is_inside = bool(within and of_that_name and of_that_name[0].startswith(within))
    if theirs is not None and not is_inside:
        here = f"{within}{(theirs.key or '').rpartition('.')[2]}"
        return Ours(here, theirs.note).hint() if within and here in keys else theirs.hint()
    near = leaf if of_that_name else near_sibling or nearest(leaf, by_leaf)
    return f"Did you mean {by_leaf[near][0]!r}?" if near else ""


def shown(value: Any) -> str:
    """A value as a command line writes it.

    >>> shown("many"), shown(None), shown(True)
    ("'many'", 'nothing', 'true')
    """
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _where(keys: list[str], complaint: Any) -> str:
    """The dotted key of a complaint, without the names that pydantic gives to the forms of a value."""
    where, parts = "", complaint["loc"]
    for number, part in enumerate(parts, start=1):
        dotted = f"{where}.{part}" if where else str(part)
        if isinstance(part, int):
            where += f"[{part}]"
        elif dotted in keys or (complaint["type"] == "extra_forbidden" and number == len(parts)):
            where = dotted
    return where


def rule_of(complaint: Any) -> str:
    """What is allowed, in pydantic's words but for its own class names."""
    kind, given = complaint["type"], complaint["input"]
    if kind in ("model_type", "dict_type"):
        return "must be a section of keys and values"
    if kind == "list_type":
        return f"must be a list such as [{given}]"
    if kind == "too_short":
        return "must not be empty"
    message = complaint["msg"].removeprefix("Input ")
    if kind != "literal_error":  # what follows the comma repeats what was given
        message = message.partition(", ")[0]
    for ours, theirs in _OUR_WORDS.items():
        message = message.replace(theirs, ours)
    return message.replace("should", "must", 1)
