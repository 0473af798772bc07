"""The kinds of answers there are, and the normal form of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from bontune.answers.exact_value import Tree, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One value."""

    tree: Tree
    """Tree of the expression as written."""
    value: Value = field(compare=False)
    """Exact value."""
    unit: str | None = None
    """Canonical name of the unit that followed, ``$`` and ``%`` included."""
    is_unit_known: bool = True
    """False for words that are no unit of the list."""
    word: str | None = None
    """The letters, if it is nothing but letters: ``AB`` may be a product or a word."""

    def key(self) -> str:
        """Normal form, equal for equal answers."""
        return self.value.key()


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """An answer in words, or ±∞, ∅ and numerals of another base, which are what they are called."""

    text: str

    def key(self) -> str:
        """Normal form, equal for equal answers."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Several answers in one."""

    kind: str
    """list (any order; sets too), union (any order), tuple (open intervals too), interval or matrix."""
    items: tuple[Answer, ...]
    """A matrix's row by row."""
    shape: str = ""
    """Brackets of a tuple or interval, columns of a matrix."""

    def key(self) -> str:
        """Normal form, equal for equal answers."""
        keys = [item.key() for item in self.items]
        if self.kind in ("list", "union"):
            return (", " if self.kind == "list" else " u ").join(sorted(keys))
        if self.kind == "matrix":
            return f"matrix{self.shape}[{', '.join(keys)}]"
        return f"{self.shape[0]}{', '.join(keys)}{self.shape[1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """``x = 5``: a value and what it is called."""

    name: str
    value: Answer

    def key(self) -> str:
        """Normal form: the value's."""
        return self.value.key()


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """An equation or inequality that is no name for a value: left − right, compared with 0."""

    operator: str
    """``=``, ``<``, ``<=`` or ``!=``."""
    difference: Value = field(compare=False)

    def key(self) -> str:
        """Normal form; equations that differ by a constant factor keep different ones."""
        return f"{self.difference.key()}{self.operator}0"


Answer: TypeAlias = Scalar | Words | Collection | Named | Relation
