"""The errors that callers may catch, and the nearest name for a message about a misspelt one.

Every message says what was wrong, what was given, and what to do.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from difflib import get_close_matches


class BontuneError(ValueError):
    """Something the user can put right: an argument, a file, a setting. The commands print it and exit with 2."""


class RunStopped(RuntimeError):
    """A run had to stop: a full disk, a non-finite value, a broken grader. The commands print it and exit with 1."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived and the work reached a point where it can be left.

    Not an ``Exception``, so that no handler for errors swallows it.
    """

    def __init__(self, name: str = "SIGTERM") -> None:
        """
        Args:
            name: of the signal.
        """
        super().__init__(name)
        self.status = 128 + signal.Signals[name]
        """Exit status of a command that ends so: 130 after Ctrl-C, 143 after SIGTERM."""


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
