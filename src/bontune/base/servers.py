"""Several servers that hold the same model: which is asked next, and which is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

MOST_FAILURES = 2
"""Connections in a row that may fail, or requests wait in vain, before a server is left out, where others are left."""


@dataclass
class Server:
    """One of several servers that hold the same model."""

    url: str
    """The server's address, as a request is sent to it."""
    num_busy: int = 0
    """Requests that it holds."""
    num_answers: int = 0
    """Requests that it answered."""
    num_failures: int = 0
    """Connections that failed in a row, and requests during which it answered nobody."""
    reason: str = ""
    """Why it is left out; empty: it is not."""


class Servers:
    """Shares requests out, to the least busy first."""

    def __init__(self, urls: Sequence[str]) -> None:
        """
        Args:
            urls: their addresses.
        """
        self.all = [Server(url) for url in urls]

    @property
    def answering(self) -> list[Server]:
        """Those that are not left out."""
        return [server for server in self.all if not server.reason]

    @contextmanager
    def least_busy(self) -> Iterator[Server]:
        """Hold the server that holds the fewest requests."""
        server = min(self.answering, key=lambda server: server.num_busy)
        server.num_busy += 1
        try:
            yield server
        finally:
            server.num_busy -= 1

    def answered(self, server: Server) -> None:
        """A request was answered."""
        server.num_answers += 1
        server.num_failures = 0

    def failed(self, server: Server, reason: str) -> None:
        """A connection failed, or a request waited in vain for a silent server.

        A server that fails again and again is left out, but the last one never.
        """
        server.num_failures += 1
        if server.num_failures >= MOST_FAILURES and len(self.answering) > 1:
            server.reason = reason

    def left_out(self) -> list[str]:
        """A sentence for each server that is left out."""
        return [f"{server.url} was left out ({server.reason})" for server in self.all if server.reason]
