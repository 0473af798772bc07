"""What a method is called and how it looks: one label, family, colour and marker in every figure, page and table.

Colours go by the family of the objective: plain RL is vermilion, Best-of-N is blue, and so on. They are those of Okabe
and Ito, each dark enough to be read as text on white (4.5 : 1); markers tell lines apart without colour.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bontune.objectives.table import TABLE

INK, QUIET, HAIRLINE, GRID = "#1f2933", "#5b6673", "#9aa5b1", "#e6eaee"
"""Text, secondary text, lines that mark a place, grid lines."""
FOCUS = "bon_rl"
"""The model that sentences start with."""
ONE_SAMPLE = ("reinforce", "rloo", "grpo", "dr_grpo")
EXACT = ("bon_rl", "rank")
CLOSED = ("bon_rlb", "bon_rlbp", "bon_rl_variational")
_LONGEST_NAME = 28


class Family(Enum):
    """Purpose that a method trains for, and by whose estimator; the value is its name for people."""

    SEVERAL = "several N at once (ours)"
    BEST_OF_N = "one N, exact (ours)"
    PAPER = "one N, the paper's forms"
    VERIFIER = "a verifier that errs"
    PASS_AT_K = "other objectives for many samples"
    ONE_SAMPLE = "one sample"
    IMITATION = "imitation"
    BASE = "not trained"

    @property
    def colour(self) -> str:
        """Colour of the family; in one figure, its first member has it."""
        return _SHADES[self][0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How a method is drawn."""

    colour: str
    """Colour, as matplotlib and CSS take it."""
    marker: str
    """Marker that tells lines apart without colour."""


_SHADES = {
    Family.SEVERAL: ("#6f4aa8", "#412a66", "#9b51c4"),
    Family.BEST_OF_N: ("#0072b2", "#003f66", "#3d6fd6"),
    Family.PAPER: ("#00795a", "#004735", "#4d7c0f"),
    Family.VERIFIER: ("#a83c78", "#6b1f49", "#c2185b"),
    Family.PASS_AT_K: ("#85661a", "#54400f", "#a15c00"),
    Family.ONE_SAMPLE: ("#c75000", "#7a2f00", "#d0342c"),
    Family.IMITATION: ("#5d7a00", "#3b4d00", "#7d6b00"),
    Family.BASE: ("#5b6673", "#333c46"),
}
"""Colours of the members of a family that meet in one figure, in their order."""
_MARKERS = {
    Family.SEVERAL: "P",
    Family.BEST_OF_N: "o",
    Family.PAPER: "D",
    Family.VERIFIER: "v",
    Family.PASS_AT_K: "X",
    Family.ONE_SAMPLE: "^",
    Family.IMITATION: "p",
    Family.BASE: "s",
}
_OTHER_COLOURS = ("#00795a", "#a83c78", "#6f4aa8", "#85661a", "#6e2c1b", "#5d7a00")
_OTHER_MARKERS = ("D", "v", "P", "X", "<", ">", "p", "h", "d", "8")
_FAMILIES = {"base": Family.BASE, "rloo": Family.ONE_SAMPLE, "rl": Family.ONE_SAMPLE, "bon_rl": Family.BEST_OF_N}
"""Models that are known by their name: those of the quickstart."""
_LABELS = {"base": "base model", "rloo": "plain RL", "rl": "plain RL", "bon_rl": "Best-of-N RL"}
_SUBJECTS = _LABELS | {"base": "the base model", "bon_rl": "Best-of-N-aware training"}


# ---- names ----


def has_label(name: str) -> bool:
    """Check whether a model has a label of its own, other than its name."""
    return name in _LABELS


def label(name: str) -> str:
    """A model's name in tables and figures."""
    return _LABELS.get(name, name)


def heading(name: str) -> str:
    """The label at the start of a line; a name without a label of its own stays as it is."""
    text = label(name)
    return text[:1].upper() + text[1:] if name in _LABELS else name


def subject(name: str) -> str:
    """A model's name inside a sentence."""
    return _SUBJECTS.get(name, name)


def shortened(name: str) -> str:
    """A name that fits into a figure: on one line, its middle left out if it is long."""
    name = " ".join(name.split())
    half = (_LONGEST_NAME - 1) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


# ---- looks ----


def family_of(recipe: Mapping[str, Any]) -> Family | None:
    """The family of the method that a recipe trains by.

    Args:
        recipe: its tree of settings; what is missing has its usual value.

    Returns:
        The family; None if the recipe names no objective.
    """
    objective, verifier = recipe.get("objective") or {}, recipe.get("verifier") or {}
    name, n = objective.get("name"), objective.get("n")
    if name not in TABLE:
        return None
    if not TABLE[name].is_policy_gradient:
        return Family.IMITATION
    if verifier.get("name", "oracle") != "oracle":
        return Family.VERIFIER
    if isinstance(n, Mapping):
        return Family.SEVERAL if name in EXACT else Family.PASS_AT_K
    if name in ONE_SAMPLE or (name in EXACT and n == 1):
        return Family.ONE_SAMPLE
    if name in CLOSED or objective.get("draw") == "winner":
        return Family.PAPER
    return Family.BEST_OF_N if name in EXACT else Family.PASS_AT_K


def in_legend_order(families: Iterable[Family | None]) -> list[Family]:
    """Families of trained methods, each once, in the order of the definition."""
    present = set(families)
    return [family for family in Family if family in present and family is not Family.BASE]


def looks(families: Mapping[str, Family | None]) -> dict[str, Look]:
    """A look for each method of a figure, by its family.

    The first of a family has the family's own colour and marker; further ones have other shades of it, and markers that
    are not taken yet. Where a family has more members than shades, they take the colours of families that are not in
    the figure, too. A name of no family, such as that of a pool, has a colour by its checksum, so that it is the same
    on every page; where two of a figure collide, the later moves on.

    Args:
        families: method → its family; None: it is looked up by the method's name, if that is a known one.
    """
    families = {name: family or _FAMILIES.get(name) for name, family in families.items()}
    members: dict[Family, int] = {}
    colours: dict[str, str] = {}
    absent = [family.colour for family in Family if family not in {*families.values(), Family.BASE}]
    for name, family in families.items():
        if family is not None:
            place = members[family] = members.get(family, -1) + 1
            own, is_many = _SHADES[family], list(families.values()).count(family) > len(_SHADES[family])
            shades = (own[0], *absent, *own[1:]) if is_many else own
            colours[name] = shades[place % len(shades)]
    for name, family in families.items():
        if family is None:
            colours[name] = _spread(name, _OTHER_COLOURS, colours.values())
    firsts = {family: name for name, family in reversed(families.items()) if family is not None}
    markers = {name: _MARKERS[family] for family, name in firsts.items()}
    for name in families:
        if name not in markers:
            markers[name] = _spread(name, _OTHER_MARKERS, markers.values())
    return {name: Look(colour=colours[name], marker=markers[name]) for name in families}


def _spread(name: str, choices: tuple[str, ...], taken: Iterable[str]) -> str:
    """One of the choices by the name's checksum; the next free one where it is taken."""
    place, taken = zlib.crc32(name.encode("utf-8", "surrogatepass")) % len(choices), set(taken)
    rotated = (*choices[place:], *choices[:place])
    return next((choice for choice in rotated if choice not in taken), rotated[0])
