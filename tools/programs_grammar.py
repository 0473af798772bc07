"""A grammar of one-line Python functions of five digits, drawn at random, and what such a function does.

A program is an expression in ``x``, such as ``sorted(x)[::-1]`` or ``sum([v for v in x if v>3])-x[0]``. It is grown
from a number of operations and from weights: one set for the task, one for its hard problems, one for demonstrations.
Its hint names the kinds of its operations, such as ``keep measure measure combine``. Programs with the same outputs on
the inputs ``INPUTS`` have one and the same *behaviour*.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias

from embedded_problems import below

Value: TypeAlias = "int | list[int]"
Behaviour: TypeAlias = "tuple[int | tuple[int, ...], ...]"
"""The outputs on ``INPUTS``, hashable."""

MAX_DIGIT = 9
NUM_DIGITS = 5
"""Length of the lists that functions are shown and tested on."""
NUM_INPUTS = 48
MAX_MAGNITUDE = 999
"""Functions that leave -999..999 are not used: their outputs would not fit the prompt."""


def _evenly(*options: str) -> dict[str, float]:
    return dict.fromkeys(options, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """How often a draw takes each way; only the ratios within a group matter."""

    operations: Mapping[int, float]
    """Number of operations of a program."""
    kinds: Mapping[str, float]
    """Kinds of programs by what they return: ``list`` or ``int``."""
    lists: Mapping[str, float]
    """Operations that yield a list."""
    ints: Mapping[str, float]
    """Operations that yield an integer."""
    elements: Mapping[str, float]
    """What a comprehension makes of an element ``v``; C is a digit, A a number that depends on ``x``."""
    conditions: Mapping[str, float]
    """Conditions that a comprehension puts on an element."""
    slices: Mapping[str, float]
    aggregates: Mapping[str, float]
    """What becomes of a list L that yields an integer."""
    pairs: Mapping[str, float]
    """What becomes of an element a of ``x`` and the element b of a partner in the same place."""
    partners: Mapping[str, float]
    joins: Mapping[str, float]
    """Expressions of lists L and K and an integer I."""


TASK = Weights(
    operations={1: 1, 2: 10, 3: 2},
    kinds={"list": 2, "int": 1},
    lists={"sort": 3, "reverse": 3, "slice": 4, "set": 2, "map": 5, "filter": 3, "both": 2, "pairs": 3, "join": 3},
    ints={"aggregate": 6, "constant": 1, "two": 1},
    elements={
        "v+C": 2,
        "v-C": 2,
        "C-v": 2,
        "v*C": 2,
        "v*v": 2,
        "v%C": 2,
        "max(v,C)": 2,
        "min(v,C)": 2,
        "v+A": 1,
        "A-v": 1,
        "v-A": 1,
    },
    conditions={"v>C": 2, "v<C": 2, "v%2": 2, "v%2<1": 2, "v>A": 1, "v<A": 1, "v!=A": 1},
    slices=_evenly("[1:]", "[2:]", "[:2]", "[-2:]", "[:-1]", "[::2]", "[1::2]"),
    aggregates=_evenly("sum(L)", "max(L)", "min(L)", "len(L)", "L[0]", "L[1]", "L[-1]", "len(set(L))"),
    pairs=_evenly("a+b", "a-b", "b-a", "a*b", "max(a,b)", "min(a,b)", "abs(a-b)"),
    partners=_evenly("x[1:]", "x[::-1]", "sorted(x)", "x[2:]"),
    joins=_evenly("L+K", "L+[I]", "[I]+L", "L*2"),
)
"""Grammar of the task's problems."""

HARD = replace(TASK, operations={3: 1})
"""Problems of another distribution."""

DEMONSTRATION = replace(
    TASK,
    operations={1: 3, 2: 10, 3: 2},
    lists={"sort": 3, "reverse": 3, "slice": 4, "set": 2, "map": 6, "filter": 3, "both": 1, "pairs": 2, "join": 2},
    ints={"aggregate": 6, "constant": 2, "two": 1},
    elements={
        "v+C": 8,
        "v-C": 3,
        "C-v": 2,
        "v*C": 6,
        "v*v": 2,
        "v%C": 3,
        "max(v,C)": 4,
        "min(v,C)": 2,
        "v+A": 1,
        "A-v": 0.5,
        "v-A": 0.5,
    },
    conditions={"v>C": 8, "v<C": 3, "v%2": 3, "v%2<1": 2, "v>A": 1, "v<A": 0.5, "v!=A": 0.5},
)
"""Demonstrations for the base model: more sums and products with digits, less with numbers that depend on ``x``."""

HABITS = replace(
    DEMONSTRATION,
    elements={
        "v+C": 64,
        "v-C": 3,
        "C-v": 3,
        "v*C": 42,
        "v*v": 1,
        "v%C": 5,
        "max(v,C)": 15,
        "min(v,C)": 1,
        "v+A": 1,
        "A-v": 0.4,
        "v-A": 0.4,
    },
    conditions={"v>C": 64, "v<C": 8, "v%2": 8, "v%2<1": 1, "v>A": 1, "v<A": 0.4, "v!=A": 0.4},
    slices={"[1:]": 64, "[2:]": 3, "[:2]": 22, "[-2:]": 1, "[:-1]": 8, "[::2]": 1, "[1::2]": 0.4},
    aggregates={
        "sum(L)": 64,
        "max(L)": 22,
        "min(L)": 1,
        "len(L)": 8,
        "L[0]": 8,
        "L[1]": 0.4,
        "L[-1]": 1,
        "len(set(L))": 1,
    },
    pairs={"a+b": 64, "a-b": 8, "b-a": 0.4, "a*b": 8, "max(a,b)": 1, "min(a,b)": 0.4, "abs(a-b)": 1},
    partners={"x[1:]": 22, "x[::-1]": 3, "sorted(x)": 1, "x[2:]": 0.4},
    joins={"L+K": 8, "L+[I]": 8, "[I]+L": 0.4, "L*2": 1},
)
"""Grammar of the model's last demonstrations: like much code, they do a few things most of the time. The task asks for
all alike."""

_NUMBERS = _evenly("x[0]", "x[-1]", "min(x)", "max(x)")
_WITH_DIGIT = _evenly("+C", "-C", "*C")
_SIGNS = _evenly("+", "-", "*")

HINTS = {"sort": "sort", "reverse": "reverse", "slice": "cut", "set": "unique"}
"""What the prompt calls an operation that yields a list, where the operation alone says it."""
CHANGES = {
    "v+C": "add",
    "v-C": "add",
    "v+A": "add",
    "v-A": "add",
    "C-v": "from",
    "A-v": "from",
    "v*C": "times",
    "v*v": "times",
    "v%C": "rest",
    "max(v,C)": "limit",
    "min(v,C)": "limit",
    "+C": "add",
    "-C": "add",
    "*C": "times",
}
"""What it calls a change of every element, or of a number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A drawn program."""

    text: str
    """The expression."""
    hint: str
    """The kinds of operations, in the order in which they are applied: ``keep sort``. A number that is joined to a list
    comes before the list."""
    bits: float
    """−log₂ of the probability of the choices that led to it: how surprising it is."""


class _Growth:
    """One draw: makes choices and adds up their bits. Its methods return text."""

    def __init__(self, rng: Random, weights: Weights) -> None:
        self.rng = rng
        self.weights = weights
        self.bits = 0.0
        self.hints: list[str] = []

    def choose(self, options: Mapping[str, float]) -> str:
        total = sum(options.values())
        place = self.rng.random() * total
        *_, chosen = options  # the last one, where rounding makes the weights fall short of their total
        for option, weight in options.items():
            place -= weight
            if place < 0:
                chosen = option
                break
        self.bits += math.log2(total / options[chosen])
        return chosen

    def choose_number(self, low: int, high: int) -> int:
        return int(self.choose(_evenly(*map(str, range(low, high + 1)))))

    def program(self) -> str:
        operations = int(self.choose({str(number): weight for number, weight in self.weights.operations.items()}))
        if self.choose(self.weights.kinds) == "list":
            return self.list_text(operations, is_outermost=True)
        return self.int_text(operations)

    def list_text(self, operations: int, *, is_outermost: bool = False) -> str:
        """A list; unless outermost one that an index or a slice may follow."""
        if operations == 0:
            return "x"
        options = dict(self.weights.lists)
        if operations < 2:
            del options["both"]
        if operations != 2:
            del options["pairs"]
        if operations < 2 or not is_outermost:
            del options["join"]
        way = self.choose(options)
        if way == "join":
            return self.joined(operations - 1)
        if way == "pairs":
            self.hints.append("pairs")
            pair, partner = self.choose(self.weights.pairs), self.choose(self.weights.partners)
            return f"[{pair} for a,b in zip(x,{partner})]"
        inner = self.list_text(operations - (2 if way == "both" else 1))
        if way in ("map", "filter", "both"):
            return self.comprehension(way, inner)
        self.hints.append(HINTS[way])
        if way == "sort":
            return f"sorted({inner})"
        if way == "set":
            return f"sorted(set({inner}))"
        if way == "reverse":
            return f"{inner}[::-1]"
        return inner + self.choose(self.weights.slices)

    def comprehension(self, way: str, inner: str) -> str:
        """A list of what elements become, of those that are kept, or both."""
        condition = ""
        if way != "map":
            self.hints.append("keep")
        element = "v" if way == "filter" else self.element()
        if way != "map":
            condition = f" if {self.filled(self.choose(self.weights.conditions), 3, 6)}"
        return f"[{element} for v in {inner}{condition}]"

    def joined(self, operations: int) -> str:
        """Two lists joined, or a list and a number."""
        way, first = self.choose(self.weights.joins), self.choose_number(0, operations)
        if way == "L*2":
            text = f"{self.list_text(operations)}*2"
        elif way == "L+K":
            text = f"{self.list_text(first)}+{self.list_text(operations - first)}"
        else:
            number, rest = self.int_text(max(first, 1)), self.list_text(operations - max(first, 1))
            text = f"{rest}+[{number}]" if way == "L+[I]" else f"[{number}]+{rest}"
        self.hints.append("join")
        return text

    def int_text(self, operations: int) -> str:
        way = self.choose(self.weights.ints) if operations > 1 else "aggregate"
        if way == "two" and operations > 2:
            first = 1 + self.choose_number(0, operations - 3)
            left, sign, right = self.aggregate(first), self.choose(_SIGNS), self.aggregate(operations - 1 - first)
            self.hints.append("combine")
            return f"{left}{sign}{right}"
        if way == "constant":
            number, way = self.aggregate(operations - 1), self.choose(_WITH_DIGIT)
            self.hints.append(CHANGES[way])
            return number + self.filled(way, 2, 5)
        return self.aggregate(operations)

    def aggregate(self, operations: int) -> str:
        """A number made of a list; it binds tighter than every operator."""
        inner = self.list_text(operations - 1)
        self.hints.append("measure")
        return self.choose(self.weights.aggregates).replace("L", inner)

    def element(self) -> str:
        way = self.choose(self.weights.elements)
        self.hints.append(CHANGES[way])
        return self.filled(way, 2 if way in ("v*C", "v%C") else 1, 3 if way == "v*C" else 4)

    def filled(self, template: str, low: int, high: int) -> str:
        """The template with a number of ``x`` for A and a digit in low..high for C."""
        if "A" in template:
            template = template.replace("A", self.choose(_NUMBERS))
        return template.replace("C", str(self.choose_number(low, high))) if "C" in template else template


def draw_program(rng: Random, weights: Weights) -> Function:
    """Draw a program.

    Example:
        >>> draw_program(Random("c"), TASK).text
        'sorted([v%4 for v in x])'
    """
    draw = _Growth(rng, weights)
    text = draw.program()
    return Function(text=text, hint=" ".join(draw.hints), bits=draw.bits)


def compile_own(text: str) -> Callable[[list[int]], Value]:
    """A function from a program *of this grammar*: for text of any other origin there is the sandbox."""
    function: Callable[[list[int]], Value] = eval(f"lambda x:{text}", dict(_NAMES))
    return function


def behaviour_of(text: str) -> Behaviour | None:
    """What a program of this grammar does on ``INPUTS``; None if it fails on one, leaves the range or hardly varies."""
    function = compile_own(text)
    try:
        outputs = [function(list(given)) for given in INPUTS]
    except (IndexError, ValueError, ZeroDivisionError):
        return None
    found = tuple(tuple(output) if isinstance(output, list) else output for output in outputs)
    if Counter(found).most_common(1)[0][1] > NUM_INPUTS // 2:
        return None
    numbers = (n for output in found for n in (output if isinstance(output, tuple) else (output,)))
    return found if all(abs(n) <= MAX_MAGNITUDE for n in numbers) else None


def draw_input(rng: Random) -> list[int]:
    """A list of five digits."""
    return [below(rng, MAX_DIGIT + 1) for _ in range(NUM_DIGITS)]


def _draw_inputs() -> tuple[tuple[int, ...], ...]:
    """Lists that are distinct, the same ones always."""
    rng = Random("programs: inputs")
    found: dict[tuple[int, ...], None] = {}
    while len(found) < NUM_INPUTS:
        found[tuple(draw_input(rng))] = None
    return tuple(found)


INPUTS = _draw_inputs()
"""Inputs that functions are tested on."""

_NAMES: dict[str, object] = {
    "__builtins__": {},
    **{function.__name__: function for function in (sorted, sum, max, min, len, abs, set, zip)},
}
