"""How far a drawing is, for people: completions of all, tokens, and what is left to wait."""

from __future__ import annotations

import time

from bontune.engines.contract import progress_of


class DrawingCount:
    """Counts what an engine draws from now on."""

    def __init__(self, engine: object, total: int, *, longest: int, kept: int = 0) -> None:
        """
        Args:
            engine: draws; its ``progress`` is read.
            total: completions that are wanted.
            longest: tokens that a completion may have.
            kept: completions that are there already.
        """
        self.total = total
        self._longest = longest
        self._kept = min(kept, total)
        self._progress = progress_of(engine)
        self._num_samples, self._num_tokens = self._progress.num_samples, self._progress.num_tokens
        self._started = time.monotonic()

    @property
    def done(self) -> int:
        """Completions that are there."""
        return min(self.total, self._kept + self._progress.num_samples - self._num_samples)

    @property
    def share(self) -> float:
        """How much of the drawing is done, between 0 and 1; less rather than more.

        While no completion has ended, their tokens tell, as if each had to become as long as it may be.
        """
        left = self.total - self._kept
        if left <= 0:
            return 1.0
        return max((self.done - self._kept) / left, min(1.0, self._tokens() / (left * self._longest)))

    def note(self) -> str:
        """Tokens, and how many a second."""
        tokens = self._tokens()
        rate = tokens / max(time.monotonic() - self._started, 1e-3)
        return f"{short(tokens)} tokens, {short(rate)}/s" if tokens else ""

    def text(self) -> str:
        """All of it in a phrase.

        Example:
            >>> DrawingCount(None, 192, longest=8).text()
            '0/192'
        """
        seconds, share = time.monotonic() - self._started, self.share
        parts = [f"{self.done}/{self.total}", self.note()]
        if 0 < share < 1:
            left = int(seconds * (1 - share) / share)
            parts.append(f"{left // 60}:{left % 60:02d}")
        return ", ".join(part for part in parts if part)

    def _tokens(self) -> int:
        return self._progress.num_tokens - self._num_tokens


def short(number: float) -> str:
    """A number in at most four characters or so.

    Example:
        >>> short(7.4), short(950), short(12_345), short(4_500_000)
        ('7', '950', '12.3k', '4.5M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"
