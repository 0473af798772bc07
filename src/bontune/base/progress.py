"""Progress of long work on standard error: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

FIRST_LINE_S = 5.0
"""Seconds of silence before the first line where there is no terminal."""
LINE_EVERY_S = 30.0


class _Note(ProgressColumn):
    """What is said beside the bar; read anew at each refresh."""

    def __init__(self, bar: Bar) -> None:
        super().__init__()
        self.bar = bar

    def render(self, task: Task) -> Text:
        return Text(self.bar.note())


class Bar:
    """How far a piece of work is. Nothing is shown before the first :meth:`show`, so that a refusal stands alone.

    Use as a context; :meth:`tick` between smaller pieces lets the line come in time.
    """

    def __init__(self, label: str, *, is_quiet: bool = False) -> None:
        """
        Args:
            label: what the work is called.
            is_quiet: show nothing.
        """
        self.label = label
        self.note: Callable[[], str] = str
        self.console = Console(file=sys.stderr)
        self.is_quiet = is_quiet
        self._done, self._total, self._first = 0, 0, 0
        self._is_begun = False
        self._started = self._next_line = 0.0
        self._progress: Progress | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, done: int, total: int, note: Callable[[], str] | str | None = None, *, is_due: bool = False) -> None:
        """Say how far the work is.

        Args:
            done, total: pieces.
            note: what else there is to say, or a function that tells it.
            is_due: without a terminal, print a line now whatever the time.
        """
        if note is not None:
            self.note = note if callable(note) else lambda: note
        if not self._is_begun:
            self._begin(done)
        self._done, self._total = done, total
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total)
        else:
            self.tick(is_due=is_due)

    def tick(self, *, is_due: bool = False) -> None:
        """Print the line where there is no terminal, if it is time."""
        now = time.monotonic()
        if self.is_quiet or self._progress is not None or not self._is_begun or not (is_due or now >= self._next_line):
            return
        self._next_line = now + LINE_EVERY_S
        parts = [f"{self.label} {self._done}/{self._total}", self.note()]
        if self._done > self._first:
            left = int((now - self._started) / (self._done - self._first) * (self._total - self._done))
            parts.append(f"{left // 60}:{left % 60:02d} left")
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def _begin(self, done: int) -> None:
        self._is_begun, self._first = True, done
        self._started = time.monotonic()
        self._next_line = self._started + FIRST_LINE_S
        if not self.is_quiet and self.console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                _Note(self),
                console=self.console,
                refresh_per_second=4,
            )
            self._task = self._progress.add_task(self.label, total=None)
            self._progress.start()
