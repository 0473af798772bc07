"""Progress of long work on standard error: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

FIRST_LINE_S = 5.0
"""Seconds of silence before the first line where there is no terminal."""
LINE_EVERY_S = 30.0
REFRESH_S = 0.25
NARROW = 60
"""Columns of a terminal below which the bar is left out and only its numbers are shown."""


class Measure(NamedTuple):
    """The progress of a piece of work."""

    done: int
    """Pieces that are done."""
    total: int
    """Pieces in all."""
    share: float
    """Share of the work since this start that is done, between 0 and 1; it may count parts of pieces."""
    note: str
    """A phrase to show beside the numbers."""


class _TextColumn(ProgressColumn):
    """A column of the bar whose text is computed anew at each refresh."""

    def __init__(self, say: Callable[[], str], *, may_be_cut: bool = False) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis" if may_be_cut else "fold"))
        self.say = say

    def render(self, task: Task) -> Text:
        return Text(self.say())


class Bar:
    """The progress of a piece of work, as a context. Nothing is shown before the first :meth:`show`.

    A refusal before that stands alone on the screen. Call :meth:`tick` between smaller pieces to keep the line current.
    """

    def __init__(self, label: str, *, unit: str = "", is_quiet: bool = False) -> None:
        """
        Args:
            label: name of the work.
            unit: name of its pieces, written behind their number.
            is_quiet: show nothing.
        """
        self.label = label
        self.unit = unit
        self.note: Callable[[], str] = str
        self.console = Console(file=sys.stderr)
        self.is_quiet = is_quiet
        self._measure: Callable[[], Measure] | None = None
        self._done, self._total, self._first = 0, 0, 0
        self._is_begun = False
        self._started = self._next_line = self._next_refresh = 0.0
        self._progress: Progress | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._refresh()
            self._progress.stop()

    def show(self, done: int, total: int, note: Callable[[], str] | str | None = None, *, is_due: bool = False) -> None:
        """Show the progress.

        Args:
            done, total: pieces.
            note: a phrase to show beside the numbers, or a function that returns it.
            is_due: without a terminal, print a line now, however recent the last one is.
        """
        if note is not None:
            self.note = note if callable(note) else lambda: note
        if not self._is_begun:
            self._begin(done)
        self._done, self._total = done, total
        if self._progress is not None:
            self._refresh()
        else:
            self.tick(is_due=is_due)

    def follow(self, measure: Callable[[], Measure]) -> None:
        """Call ``measure`` whenever something is shown, for work that advances without calling :meth:`show`."""
        self._measure = measure
        now = measure()
        self.show(now.done, now.total)

    def tick(self, *, is_due: bool = False) -> None:
        """Move the bar, or without a terminal print a line if one is due."""
        now = time.monotonic()
        if self.is_quiet or not self._is_begun:
            return
        if self._progress is not None:
            if now >= self._next_refresh:
                self._next_refresh = now + REFRESH_S
                self._refresh()
            return
        if not (is_due or now >= self._next_line):
            return
        self._next_line = now + LINE_EVERY_S
        parts = [f"{self.label} {self._counted()}", self._now().note, self._time_left()]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def _now(self) -> Measure:
        if self._measure is not None:
            return self._measure()
        share = (self._done - self._first) / max(self._total - self._first, 1)
        return Measure(self._done, self._total, share, self.note())

    def _counted(self) -> str:
        now = self._now()
        return f"{now.done}/{now.total} {self.unit}".rstrip()

    def _time_left(self) -> str:
        share = self._now().share
        if share <= 0:
            return ""
        seconds = int((time.monotonic() - self._started) * (1 - share) / share + 1e-6)
        return f"{seconds // 60}:{seconds % 60:02d} left"

    def _refresh(self) -> None:
        if self._progress is not None:
            now = self._now()
            self._progress.update(self._task, completed=now.done, total=now.total)

    def _begin(self, done: int) -> None:
        self._is_begun, self._first = True, done
        self._started = time.monotonic()
        self._next_line = self._started + FIRST_LINE_S
        if not self.is_quiet and self.console.is_terminal:
            has_room = self.console.width >= NARROW
            self._progress = Progress(
                TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True)),
                *([BarColumn(bar_width=None)] if has_room else []),
                _TextColumn(self._counted),
                _TextColumn(self._time_left),
                _TextColumn(lambda: self._now().note, may_be_cut=True),
                console=self.console,
                refresh_per_second=4,
                expand=has_room,
            )
            self._task = self._progress.add_task(self.label, total=None)
            self._progress.start()
