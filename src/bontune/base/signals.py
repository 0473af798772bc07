"""SIGINT and SIGTERM end a command after its piece of work, with status 130 or 143; and the cores that it may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TypeAlias

from bontune.base.errors import Interrupted

Poll: TypeAlias = Callable[[], None]
"""Called between chunks of work; it raises :class:`bontune.base.errors.Interrupted` when the work should stop."""
_STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Raise :class:`Interrupted` as soon as a signal arrives, for work that has nothing to save.

    A signal that this process was started to ignore stays ignored. Outside the main thread, where Python allows no
    handlers, signals are left alone.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    previous: dict[signal.Signals, object] = {}
    with suppress(ValueError):
        for number in _STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


class StopSignals:
    """While the context lasts, :meth:`poll` raises once a signal has arrived; a second signal ends the process at once.

    Outside the main thread, where Python allows no handlers, no signal ever arrives here.
    """

    def __init__(self, on_poll: Callable[[], object] | None = None) -> None:
        """
        Args:
            on_poll: called at the start of every :meth:`poll`.
        """
        self.on_poll = on_poll
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        for number in _STOPPING:
            try:
                self._previous[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not the main thread
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + self.received)
        self.received = signal.Signals(number)

    def poll(self) -> None:
        """Raise if a signal has arrived.

        Raises:
            Interrupted: SIGINT or SIGTERM has arrived.
        """
        if self.on_poll is not None:
            self.on_poll()
        if self.received is not None:
            raise Interrupted(self.received.name)

    def poll_between_steps(self) -> None:
        """Poll between two steps; several processes agree here on whether to stop, and one process just polls."""
        self.poll()


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
