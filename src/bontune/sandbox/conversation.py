"""A conversation with one candidate over its two pipes, seen from the trusted end.

Every wait has a deadline on this side's clock, every reply a bound on its size, and every number in it is looked up.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import time
from typing import Any

import bontune.sandbox.wire as wire
from bontune.base.grades import Verdict
from bontune.sandbox.remote import Faults, Made, Remote, Session, Stream, awaited, generator_of
from bontune.sandbox.shared import Shared

MAX_THREADS = 500
WATCH_S = 0.05
_HEADER = struct.Struct("<I")


class PipeSession(Session):
    """A session over the two pipes of one candidate."""

    def __init__(self, requests: int, replies: int, process: int, deadline: float, max_reply_bytes: int) -> None:
        self._requests = requests
        self._replies = replies
        self._process = process
        self._tasks = _tasks_of(process)
        self._max_reply_bytes = max_reply_bytes
        self.deadline = deadline
        self.fault: Faults | None = None
        self._remotes: dict[int, Remote] = {}
        self._made: dict[int, tuple[Made, int]] = {}
        self._shared = Shared()
        self._num_loaded = 0
        self._has_handle = False
        self.allows_objects = False
        self.num_values = 0
        os.set_blocking(requests, False)
        os.set_blocking(replies, False)

    def close(self) -> None:
        """Hang up."""
        os.close(self._requests)
        os.close(self._replies)
        os.close(self._process)
        # An exception's traceback leads to the test's variables and back here: the cycle would keep all that it got.
        self._remotes.clear()
        self._made.clear()
        self._shared = Shared()
        self.last_raised = None
        self.fault = Faults(Verdict.CRASHED, "the conversation is over")

    def remote(self, number: int) -> Remote:
        """The one stand-in for a handle."""
        self._has_handle = True
        if number not in self._remotes:
            self._remotes[number] = Remote(self, number)
        return self._remotes[number]

    def stream(self, number: int) -> Stream:
        """What a handle may be where plain data is expected; a new one each time, so that no two are the same."""
        self.has_given_object = True
        return Stream(self.remote(number))

    def exchange(self, *request: object) -> tuple[Any, ...]:
        if self.fault is not None:
            raise self.fault
        mark = self._shared.mark()
        try:
            message = wire.encode(
                (self._shared.changes(), request), handle_for=self._number_of, shared=self._shared, is_giving=True
            )
        except wire.WireError:
            self._shared.forget_from(mark)
            raise
        self._send(_HEADER.pack(len(message)) + message)
        (length,) = _HEADER.unpack(self._receive(_HEADER.size))
        if length > self._max_reply_bytes:
            raise self.fail(Verdict.FAILED, f"a reply of {length} bytes, more than {self._max_reply_bytes}")
        self._has_handle = False
        changes, reply = self._read(self._receive(length), request)
        try:
            self._shared.apply(changes)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self.fail(Verdict.FAILED, "it changed an argument into what that cannot be") from error
        self._forget(mark, request)
        return reply

    def _read(self, data: bytes, request: tuple[object, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """What has changed in the arguments, and the reply."""
        is_remote = request[0] in ("load", "iter")
        made = {} if is_remote else {"g": self._generator, "a": self._coroutine}
        handle = self.remote if self.allows_objects or is_remote else self.stream
        try:
            both = wire.decode(data, handle=handle, handles=made, shared=self._shared)
        except wire.WireError as error:
            raise self.fail(Verdict.FAILED, f"a reply that is no plain data: {error}") from error
        if type(both) is tuple and len(both) == 2 and type(both[0]) is type(both[1]) is tuple and both[1]:
            changes, reply = both
            is_pairs = all(type(change) is tuple and len(change) == 2 for change in changes)
            if is_pairs and type(reply[0]) is str:
                return changes, reply
        raise self.fail(Verdict.FAILED, "a reply of the wrong form")

    def _forget(self, mark: int, request: tuple[Any, ...]) -> None:
        """Share the containers of a request on only if an object that the test can reach may have kept them."""
        if request[0] == "load":
            self._num_loaded = len(self._remotes)
        elif not self._has_handle and self._number_of(request[1]) < self._num_loaded:
            self._shared.forget_from(mark)
        self._shared.remember()

    def _generator(self, number: int) -> Made:
        return self._keep(generator_of(self, self.remote(number)), number)

    def _coroutine(self, number: int) -> Made:
        return self._keep(awaited(self, self.remote(number)), number)

    def _keep(self, made: Made, number: int) -> Made:
        self._made[id(made)] = made, number
        return made

    def _number_of(self, value: object) -> int:
        if type(value) is Remote or type(value) is Stream:
            return value._number_in(self)
        if id(value) in self._made:
            return self._made[id(value)][1]
        raise wire.WireError(f"an argument of type {type(value).__name__} is not plain data")

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._requests, select.POLLOUT)
            try:
                view = view[os.write(self._requests, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise self.fail(Verdict.CRASHED, "the program's process ended") from error

    def _receive(self, length: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < length:
            self._wait(self._replies, select.POLLIN)
            piece = os.read(self._replies, min(length - len(pieces), 1 << 20))
            if not piece:
                raise self.fail(Verdict.CRASHED, "the program's process ended")
            pieces += piece
        return bytes(pieces)

    def _wait(self, descriptor: int, event: int) -> None:
        """Until the deadline; meanwhile count threads, which no limit of the kernel's does for root."""
        while not is_ready(descriptor, event, min(self.deadline, time.monotonic() + WATCH_S)):
            if time.monotonic() >= self.deadline:
                raise self.fail(Verdict.TIMEOUT, "the program ran out of time")
            with contextlib.suppress(OSError):  # it has ended, or there is no /proc
                if self._tasks and len(os.listdir(self._tasks)) > MAX_THREADS:
                    signal.pidfd_send_signal(self._process, signal.SIGKILL)
                    raise self.fail(Verdict.CRASHED, f"the program started more than {MAX_THREADS} threads")


def _tasks_of(process: int) -> str:
    """The folder that lists a process' threads, or "". Its descriptor tells the number that it has out here."""
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{process}", encoding="ascii") as about:
        for line in about:
            name, _, number = line.partition(":")
            if name == "Pid" and int(number) > 0:
                return f"/proc/{int(number)}/task"
    return ""


def is_ready(descriptor: int, event: int, deadline: float) -> bool:
    """Wait for an event of a descriptor; whether it came before the deadline."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
