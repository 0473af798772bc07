"""Draw the problems of the task ``countdown``, and demonstrations for its base model.

    python tools/countdown_problems.py src/bontune/tasks/data/countdown.jsonl.gz
    python tools/countdown_problems.py src/bontune/tasks/data/countdown-hard.jsonl.gz --hard
    python tools/countdown_problems.py other.jsonl.gz --seed 1    # for the task's option data

A problem is drawn as four numbers and a random expression over them whose value becomes the target, so each has a
solution; problems are distinct by sorted numbers and target, across splits too. Hard problems come from expressions
with twice as many products, are of the two hardest levels, and none is a usual problem of the same seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from functools import lru_cache
from itertools import islice, permutations
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np
from embedded_problems import below, write_problems
from numpy.typing import NDArray

from bontune.tasks.countdown import Countdown, format_prompt

SPLIT_SIZES = {"test": 500, "validation": 500, "train": 4000}
"""Problems a split, in the order in which they are drawn."""
MAX_NUMBER = 13
MAX_TARGET = 99
TASK_OPERATORS = "+-*"
"""The task's problems come from expressions with these, drawn evenly."""
DEMONSTRATION_OPERATORS = "+++++---*"
"""Demonstrations come from expressions with these: fewer products than the task has."""
HARD_OPERATORS = "+-**"
"""Hard problems come from expressions with these: more products than the task has."""
LEVEL_THRESHOLDS = (140, 90, 50, 26)
"""Hits among ``NUM_EXPRESSIONS`` that levels 1 to 4 need at least; level 5 is the rest."""
HARD_HITS = LEVEL_THRESHOLDS[2]
"""Hard problems have fewer hits: levels 4 and 5. Level 5 alone is beyond the shipped model (0.15 solved within 32)."""
NUM_EXPRESSIONS = 3888
"""Equally likely random expressions: 24 orders × 6 shapes (5, one of them twice as likely) × 27 operators."""
Key: TypeAlias = tuple[tuple[int, ...], int]
"""Identity of a problem: the sorted numbers and the target."""
Draws: TypeAlias = dict[Key, tuple[list[int], str]]
"""Problems in the order in which they are drawn: the numbers in the prompt's order, and a solution."""


def problem_rows(seed: int = 0, is_hard: bool = False) -> list[dict[str, Any]]:
    """Draw all problems of a seed, with their splits, as the task's file holds them."""
    draws = _hard_draws(seed) if is_hard else _usual_draws(seed)
    splits = [split for split, size in SPLIT_SIZES.items() for _ in range(size)]
    return [
        {"split": split, "numbers": numbers, "target": target, "solution": solution, "level": level}
        for split, ((_, target), (numbers, solution)), level in zip(
            splits, draws.items(), _levels(list(draws)), strict=True
        )
    ]


def demonstrations(rng: Random, exclude: Collection[Key] = ()) -> Iterator[tuple[str, str]]:
    """Yield pairs (prompt, completion) without end: correct answers to random prompts, to train a base model on.

    Drawn like the task's problems but with operators from ``DEMONSTRATION_OPERATORS``.

    Args:
        rng: consumed as the pairs are drawn.
        exclude: problems that must not appear; see :func:`held_out_keys`.
    """
    while True:
        numbers, target, expression = _draw(rng, DEMONSTRATION_OPERATORS)
        if (tuple(sorted(numbers)), target) not in exclude:
            yield format_prompt(numbers, target), expression


@lru_cache(maxsize=1)
def held_out_keys() -> frozenset[Key]:
    """The sorted numbers and target of every usual validation and test problem that ships; not of the hard ones."""
    task = Countdown()
    return frozenset(
        (tuple(sorted(problem.row["numbers"])), problem.row["target"])
        for problem in task.problems("validation") + task.problems("test")
    )


def count_hits(numbers: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the ``NUM_EXPRESSIONS`` equally likely expressions over four numbers equal the target.

    Args:
        numbers: shape (problems, 4).
        targets: shape (problems,).

    Returns:
        Counts, shape (problems,). A balanced expression, (a∘b)∘(c∘d), counts twice: it is drawn twice as often.

    Example:
        >>> count_hits(np.array([[13, 13, 13, 13], [1, 1, 1, 1]]), np.array([13**4, 4]))
        array([144, 192])
    """
    columns = numbers.astype(np.int32).T  # values reach 13⁴
    wanted = targets.astype(np.int32)
    hits = np.zeros(len(targets), dtype=np.int64)
    for order in permutations(range(4)):
        a, b, c, d = (columns[i] for i in order)
        ab, bc, cd = _apply_all([a], [b]), _apply_all([b], [c]), _apply_all([c], [d])
        abc = _apply_all(ab, [c]) + _apply_all([a], bc)
        bcd = _apply_all(bc, [d]) + _apply_all([b], cd)
        for weight, lefts, rights in ((1, abc, [d]), (1, [a], bcd), (2, ab, cd)):
            for value in _apply_all(lefts, rights):
                hits += weight * (value == wanted)
    return hits


def _apply_all(lefts: list[NDArray[np.int32]], rights: list[NDArray[np.int32]]) -> list[NDArray[np.int32]]:
    """Every operator between every left and every right operand."""
    return [value for left in lefts for right in rights for value in (left + right, left - right, left * right)]


def _usual_draws(seed: int) -> Draws:
    rng = Random(f"countdown {seed}")  # seeding by a string is the same in every Python since 3.2
    draws: Draws = {}
    while len(draws) < sum(SPLIT_SIZES.values()):
        numbers, target, expression = _draw(rng, TASK_OPERATORS)
        draws.setdefault((tuple(sorted(numbers)), target), (numbers, expression))
    return draws


def _hard_draws(seed: int) -> Draws:
    rng = Random(f"countdown hard {seed}")
    usual = _usual_draws(seed)
    draws: Draws = {}
    while len(draws) < sum(SPLIT_SIZES.values()):
        batch: Draws = {}
        for _ in range(1000):  # hits are counted for many at once; the result does not depend on how many
            numbers, target, expression = _draw(rng, HARD_OPERATORS)
            key = tuple(sorted(numbers)), target
            if key not in usual:
                batch.setdefault(key, (numbers, expression))
        hits = _count_hits_of(list(batch))
        for (key, draw), count in zip(batch.items(), hits, strict=True):
            if count < HARD_HITS:
                draws.setdefault(key, draw)
    return dict(islice(draws.items(), sum(SPLIT_SIZES.values())))


def _levels(keys: list[Key]) -> list[int]:
    return [1 + sum(count < threshold for threshold in LEVEL_THRESHOLDS) for count in _count_hits_of(keys)]


def _count_hits_of(keys: list[Key]) -> list[int]:
    hits = count_hits(np.array([key[0] for key in keys]), np.array([key[1] for key in keys]))
    return [int(count) for count in hits]


def _draw(rng: Random, operators: str) -> tuple[list[int], int, str]:
    """Draw four numbers and an expression over them until its value is a target: (numbers, target, expression)."""
    while True:
        numbers = [1 + below(rng, MAX_NUMBER) for _ in range(4)]
        leaves = list(numbers)
        for last in range(3, 0, -1):
            other = below(rng, last + 1)
            leaves[last], leaves[other] = leaves[other], leaves[last]
        value, expression, _ = _random_expression(rng, leaves, operators)
        if 1 <= value <= MAX_TARGET:
            return numbers, value, expression


def _random_expression(rng: Random, leaves: list[int], operators: str) -> tuple[int, str, str]:
    """A random binary tree over ``leaves`` in order: (value, text with the fewest parentheses, outermost operator)."""
    if len(leaves) == 1:
        return leaves[0], str(leaves[0]), ""
    split = 1 + below(rng, len(leaves) - 1)
    left, left_text, left_operator = _random_expression(rng, leaves[:split], operators)
    right, right_text, right_operator = _random_expression(rng, leaves[split:], operators)
    operator = operators[below(rng, len(operators))]
    if operator == "*" and left_operator in ("+", "-"):
        left_text = f"({left_text})"
    if right_operator in ("+", "-") and operator != "+":
        right_text = f"({right_text})"
    value = left + right if operator == "+" else left - right if operator == "-" else left * right
    return value, f"{left_text}{operator}{right_text}", operator


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the problems of the task countdown.")
    parser.add_argument("out", type=Path, help="write this file, .jsonl.gz")
    parser.add_argument("--seed", type=int, default=0, help="draw the problems of this seed")
    parser.add_argument("--hard", action="store_true", help="draw the other, harder problems")
    arguments = parser.parse_args()
    write_problems(arguments.out, problem_rows(arguments.seed, arguments.hard))
