"""What pydantic complains about, in one sentence: where, what was given, what is allowed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

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


def explain(section: type[BaseModel], error: ValidationError, what: str, see: str) -> str:
    """Pydantic's first complaint in one sentence.

    Args:
        section: what was validated.
        error: the complaints.
        what: "recipe", or what else people call it.
        see: a sentence that says where all keys are shown.
    """
    keys = known_keys(section)
    first, *others = error.errors()
    where = _where(keys, first)
    if first["type"] in ("model_type", "dict_type") and f"{where}.name" in keys and isinstance(first["input"], str):
        return f"{where} is a section of keys and values: write {where}.name={first['input']}."
    if first["type"] == "value_error":  # our own sentence
        return f"{where}: {str(first['ctx']['error']).rstrip('.')}."
    if first["type"] == "extra_forbidden":
        siblings = [key for key in keys if key.rpartition(".")[0] == where.rpartition(".")[0]]
        leaf = where.rpartition(".")[2]
        of_that_name = [key for key in keys if key.rpartition(".")[2] == leaf]
        near = min(of_that_name, key=lambda key: key.count("."), default=None) or nearest(where, siblings, 0.5)
        near = near or nearest(where, keys, 0.5)
        hint = f" Did you mean {near!r}?" if near else ""
        return f"The {what} has no key {where!r}.{hint} {see}"
    same_place = [other for other in others if _where(keys, other) == where]  # one for each form that is allowed
    rules = dict.fromkeys(rule_of(complaint) for complaint in (first, *same_place))
    return f"{where}: {', or '.join(rules)}, got {first['input']!r}."


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
