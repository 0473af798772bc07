"""What somebody probably meant: the nearest of the names that there are."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(given: str, known: Iterable[object], cutoff: float = 0.6) -> str | None:
    """Find the name that is most like what was given.

    Args:
        given: the word that is not known.
        known: the names that there are.
        cutoff: likeness from 0 to 1 below which nothing is suggested.

    Returns:
        The name; None if none is like it.
    """
    matches = get_close_matches(given, [str(name) for name in known], n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(given: str, known: Iterable[object], cutoff: float = 0.6) -> str:
    """Put the nearest name into the middle of an error message; empty if there is none.

    Example:
        >>> did_you_mean("tset", ["train", "test"])
        ", did you mean 'test'?"
    """
    near = nearest(given, known, cutoff)
    return f", did you mean {near!r}?" if near else ""
