"""What can go wrong, for callers who want to catch it. Every message is one sentence that says what to do."""

from __future__ import annotations

import signal


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
