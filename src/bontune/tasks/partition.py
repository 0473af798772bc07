"""Splits that a data set does not come with: the same rows on every machine, and equal questions on one side."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256


def held_out(questions: Sequence[str], num_held_out: int, *, seed: int = 0) -> set[int]:
    """Choose rows to hold out: those whose questions have the smallest hashes.

    Questions that are equal up to case and white space fall on one side. A row added elsewhere hardly changes where
    the others go.

    Args:
        questions: of each row.
        num_held_out: how many rows; fewer are chosen where equal questions would go beyond it.
        seed: of the hash.

    Returns:
        Indices of the rows.

    Example:
        >>> sorted(held_out(["one", "two", "One ", "three", "four"], 2))
        [3, 4]
        >>> sorted(held_out(["one", "One "], 2)), held_out(["one", "One "], 1)
        ([0, 1], set())
    """
    groups: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(" ".join(question.lower().split()), []).append(index)
    chosen: set[int] = set()
    for key in sorted(groups, key=lambda key: sha256(f"{seed}\n{key}".encode("utf-8", "surrogatepass")).digest()):
        if len(chosen) + len(groups[key]) <= num_held_out:
            chosen.update(groups[key])
        if len(chosen) == num_held_out:
            break
    return chosen


def choose_rows(split: str, questions: Sequence[str], num_validation: int) -> list[int]:
    """The rows of ``test`` (all of its file), or of ``train`` or ``validation`` (parts of a file), in the file's order.

    Of a file with few rows at most a tenth is ``validation``.
    """
    if split == "test":
        return list(range(len(questions)))
    validation = held_out(questions, min(num_validation, len(questions) // 10))
    return [index for index in range(len(questions)) if (index in validation) == (split == "validation")]
