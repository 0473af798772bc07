"""Let asyncio's event loop run where there are no sockets: it wakes itself through a pipe in place of a socket pair.

This file is also sent into the isolation, so it imports the standard library alone.
"""

from __future__ import annotations

import os
import types


class _PipeEnd:
    """One end of a pipe with the methods of a socket that an event loop uses on its own pair."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The end's descriptor."""
        return self._descriptor

    def setblocking(self, is_blocking: bool) -> None:
        """Whether reading and writing wait."""
        os.set_blocking(self._descriptor, is_blocking)

    def recv(self, length: int) -> bytes:
        """Read at most so many bytes."""
        return os.read(self._descriptor, length)

    def send(self, data: bytes) -> int:
        """Write; returns the number of bytes."""
        return os.write(self._descriptor, data)

    def close(self) -> None:
        """Close the end; twice is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _pair() -> tuple[_PipeEnd, _PipeEnd]:
    reading, writing = os.pipe()
    return _PipeEnd(reading), _PipeEnd(writing)


def allow() -> None:
    """Give asyncio pipes for the sockets that it makes for itself; other sockets stay refused."""
    import asyncio.selector_events as events
    import socket

    seen_by_asyncio = types.ModuleType("socket")
    seen_by_asyncio.__dict__.update(socket.__dict__, socketpair=_pair)
    events.__dict__["socket"] = seen_by_asyncio
