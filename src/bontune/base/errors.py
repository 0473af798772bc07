"""The errors that callers may catch, and the nearest name for a message about a misspelt one.

Every message says what was wrong, what was given, and what to do.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from difflib import get_close_matches


class BontuneError(ValueError):
    """The user can fix this: an argument, a file, a setting. The commands exit with 2."""


class RunStopped(RuntimeError):
    """A run cannot continue: a full disk, a non-finite value, a broken grader. The commands exit with 1."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived, and the work reached a point where it can be left.

    It is not an ``Exception``, so that no handler of errors swallows it.
    """

    def __init__(self, name: str = "SIGTERM") -> None:
        """
        Args:
            name: the signal's name.
        """
        super().__init__(name)
        self.status = 128 + signal.Signals[name]
        """Exit status of the command: 130 after Ctrl-C, 143 after SIGTERM."""


def nearest(word: str, names: Iterable[object], cutoff: float = 0.6) -> str | None:
    """Find the name that is most similar to an unknown word.

    Args:
        word: the unknown word.
        names: the names that exist.
        cutoff: similarity from 0 to 1 below which nothing is suggested.

    Returns:
        The name; None if no name is similar enough.
    """
    matches = get_close_matches(word, [str(name) for name in names], n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(word: str, names: Iterable[object], cutoff: float = 0.6) -> str:
    """Return the part of an error message that suggests the nearest name; empty if no name is similar enough.

    Example:
        >>> did_you_mean("tset", ["train", "test"])
        ", did you mean 'test'?"
    """
    near = nearest(word, names, cutoff)
    return f", did you mean {near!r}?" if near else ""
