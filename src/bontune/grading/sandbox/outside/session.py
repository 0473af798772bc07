"""A conversation with one candidate over its two pipes: calls go over the wire, plain data comes back.

Every wait has a deadline on this side's clock, every reply a bound on its size, and every number in it is looked up.

An object that is not plain data (a class, an instance, a generator) stays on its side. Where a test uses classes of the
program's, a stand-in holds the object and forwards calls, attributes, items, length, truth and iteration. It never
forwards a comparison, a conversion to text, a hash or arithmetic, so no answer of the candidate's is mistaken for
another. Where a test expects plain data, an object can be called, or gone through once, and no more: its own
``startswith`` would say yes to everything.

Containers among the arguments are shared (``values.Shared``): what the candidate does to them in place is done to the
test's, in plain data. Its exceptions arrive as builtin classes or the standard library's, with their text.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Coroutine, Generator, Iterator
from typing import Any, TypeAlias

import bontune.grading.sandbox.inside.wire as wire
from bontune.grading.sandbox.inside.values import Shared, exception_of
from bontune.grading.verdict import Judgement, Verdict

MAX_THREADS = 500
WATCH_S = 0.05


class Faults(BaseException):
    """The conversation is over; not an ``Exception``, so that a test's own handlers let it through."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.judgement = Judgement(verdict=verdict, reason=reason)


class _EndOfIteration(Exception):
    """A generator has returned; the argument is its value."""


class Session:
    """A conversation with one candidate. The first fault ends it, and stays.

    Args:
        requests: descriptor that requests are written to.
        replies: descriptor that replies are read from.
        process: descriptor of the candidate's process.
        deadline: time at which the session ends at the latest (monotonic clock).
        max_reply_bytes: a longer reply is a fault.
    """

    def __init__(self, requests: int, replies: int, process: int, deadline: float, max_reply_bytes: int) -> None:
        self.deadline = deadline
        self.fault: Faults | None = None
        """Why the session is over, once it is."""
        self.allows_objects = False
        """Whether the test uses objects of the candidate's; else what is no plain data comes as a :class:`Stream`."""
        self.num_values = 0
        """Number of values that the candidate has given: before the first, a failing test fails by itself."""
        self.has_given_object = False
        """Whether the candidate has given an object of its own where plain data was expected."""
        self.last_raised: Exception | None = None
        """The latest exception that was the candidate's."""
        self._requests, self._replies, self._process = requests, replies, process
        self._threads = _threads_of(process)
        self._max_reply_bytes = max_reply_bytes
        self._remotes: dict[int, Remote] = {}
        self._proxies: dict[int, tuple[Proxy, int]] = {}
        self._shared = Shared()
        self._num_loaded = 0
        self._has_handle = False
        os.set_blocking(requests, False)
        os.set_blocking(replies, False)

    def load(self, source: str, names: tuple[str, ...]) -> dict[str, Any]:
        """Execute the program; returns those of the names that it defines.

        Raises:
            Faults: the program cannot be executed.
        """
        kind, *parts = self._exchange("load", source, names)
        if kind == "unloadable" and len(parts) == 2:
            raise self.fail(Verdict.FAILED, f"loading it raised {_words(parts[0])}: {_words(parts[1])}")
        if kind == "loaded" and len(parts) == 1 and type(parts[0]) is dict:
            return parts[0]
        if kind == "exited":
            raise self.fail(Verdict.FAILED, "the program exited while loading")
        raise self.fail(Verdict.FAILED, _words(f"loading it gave no module ({kind})"))

    def ask(self, *request: object) -> Any:
        """Ask for a value.

        Raises:
            Exception: what the candidate raised, as a builtin class.
            Faults: no value came, nor an exception.
            WireError: the request holds what cannot cross.
        """
        kind, *parts = self._exchange(*request)
        if kind == "value" and len(parts) == 1:
            self.num_values += 1
            return parts[0]
        if kind == "raised" and len(parts) == 2 and type(parts[0]) is str and type(parts[1]) is str:
            self.last_raised = exception_of(parts[0], parts[1][:300])
            raise self.last_raised
        if kind == "end" and request[0] in ("next", "send") and len(parts) == 1:
            raise _EndOfIteration(parts[0])
        if kind == "exited":
            raise self.fail(Verdict.FAILED, "the program exited")
        if kind == "unsendable" and len(parts) == 1:
            raise self.fail(Verdict.FAILED, f"it returned what cannot be sent: {_words(parts[0])}")
        raise self.fail(Verdict.FAILED, "a reply of the wrong form")

    def fail(self, verdict: Verdict, reason: str) -> Faults:
        """End the conversation; returns the fault that is to be raised."""
        if self.fault is None:
            self.fault = Faults(verdict, reason)
        return self.fault

    def close(self) -> None:
        """Close the pipes to the sandbox and forget the objects that live there."""
        for descriptor in (self._requests, self._replies, self._process):
            os.close(descriptor)
        # An exception's traceback leads to the test's variables and back here: the cycle would keep all that it got.
        self._remotes.clear()
        self._proxies.clear()
        self._shared = Shared()
        self.last_raised = None
        self.fault = Faults(Verdict.CRASHED, "the conversation is over")

    def _exchange(self, *request: object) -> tuple[Any, ...]:
        """Send a request, and wait for the parts of the reply: plain data and stand-ins."""
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
        self._send(wire.HEADER.pack(len(message)) + message)
        (length,) = wire.HEADER.unpack(self._receive(wire.HEADER.size))
        if length > self._max_reply_bytes:
            raise self.fail(Verdict.FAILED, f"a reply of {length} bytes, more than {self._max_reply_bytes}")
        self._has_handle = False
        changes, reply = self._decoded(self._receive(length), request)
        try:
            self._shared.apply(changes)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self.fail(Verdict.FAILED, "it changed an argument into what that cannot be") from error
        self._forget(mark, request)
        return reply

    def _decoded(self, data: bytes, request: tuple[object, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The changes of shared containers, and the reply."""
        is_remote = request[0] in ("load", "iter")
        proxies = {} if is_remote else {"g": self._generator, "a": self._coroutine}
        handle = self._remote if self.allows_objects or is_remote else self._stream
        try:
            both = wire.decode(data, handle=handle, handles=proxies, shared=self._shared)
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

    def _remote(self, number: int) -> Remote:
        """The one stand-in for a handle."""
        self._has_handle = True
        if number not in self._remotes:
            self._remotes[number] = Remote(self, number)
        return self._remotes[number]

    def _stream(self, number: int) -> Stream:
        """A stand-in where plain data is expected; a new one each time, so that no two are the same."""
        self.has_given_object = True
        return Stream(self._remote(number))

    def _generator(self, number: int) -> Proxy:
        return self._keep(_generator_of(self, self._remote(number)), number)

    def _coroutine(self, number: int) -> Proxy:
        return self._keep(_awaited(self, self._remote(number)), number)

    def _keep(self, proxy: Proxy, number: int) -> Proxy:
        self._proxies[id(proxy)] = proxy, number
        return proxy

    def _number_of(self, value: object) -> int:
        if type(value) is Remote or type(value) is Stream:
            return value._number_in(self)
        if id(value) in self._proxies:
            return self._proxies[id(value)][1]
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
        """Wait until the deadline; meanwhile count threads, which no limit of the kernel's does for root."""
        while not is_ready(descriptor, event, min(self.deadline, time.monotonic() + WATCH_S)):
            if time.monotonic() >= self.deadline:
                raise self.fail(Verdict.TIMEOUT, "the program ran out of time")
            with contextlib.suppress(OSError):  # the process has ended, or there is no /proc
                if self._threads and len(os.listdir(self._threads)) > MAX_THREADS:
                    signal.pidfd_send_signal(self._process, signal.SIGKILL)
                    raise self.fail(Verdict.CRASHED, f"the program started more than {MAX_THREADS} threads")


def _words(text: object) -> str:
    """Text of the candidate's for a reason: short, one line, escaped."""
    return repr(text)[1:-1][:200] if type(text) is str else "?"


def _threads_of(process: int) -> str:
    """The folder that lists a process' threads, or "". Its descriptor tells the number that it has out here."""
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{process}", encoding="ascii") as lines:
        for line in lines:
            name, _, number = line.partition(":")
            if name == "Pid" and int(number) > 0:
                return f"/proc/{int(number)}/task"
    return ""


def is_ready(descriptor: int, event: int, deadline: float) -> bool:
    """Wait for an event of a descriptor; says whether it came before the deadline (monotonic clock)."""
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


class Remote:
    """Stands for an object of the candidate's."""

    __slots__ = ("_Remote__number", "_Remote__session")

    def __init__(self, session: Session, number: int) -> None:
        object.__setattr__(self, "_Remote__session", session)
        object.__setattr__(self, "_Remote__number", number)

    def _number_in(self, session: Session) -> int:
        if self.__session is not session:
            raise ValueError("A stand-in of another session cannot be passed on.")
        return self.__number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__session.ask("call", self, args, tuple(kwargs.items()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols of numpy, copy and pickle must not find answers there
            raise AttributeError(name)
        return self.__session.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__session.ask("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self.__session.ask("item", self, key)

    def __len__(self) -> int:
        length = self.__session.ask("len", self)
        if type(length) is not int or not 0 <= length < 2**62:
            raise self.__session.fail(Verdict.FAILED, "a length that is none")
        return length

    def __bool__(self) -> bool:
        return self.__session.ask("bool", self) is True

    def __iter__(self) -> Iterator[Any]:
        iterator = self.__session.ask("iter", self)
        if type(iterator) is not Remote:
            raise self.__session.fail(Verdict.FAILED, "an iterator that is none")
        while True:
            try:
                item = self.__session.ask("next", iterator)
            except _EndOfIteration:
                return
            yield item

    def __next__(self) -> Any:
        try:
            return self.__session.ask("next", self)
        except _EndOfIteration:
            raise StopIteration from None

    def __repr__(self) -> str:
        return "<an object of the program>"


class Stream:
    """Stands for an object where plain data was expected: its items, once, as a generator has them; or a function."""

    __slots__ = ("_items", "_remote")

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._items: Iterator[Any] | None = None

    def _number_in(self, session: Session) -> int:
        return self._remote._number_in(session)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._remote(*args, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._items is None:
            self._items = iter(self._remote)
        return next(self._items)

    def __repr__(self) -> str:
        return "<an object of the program>"


Proxy: TypeAlias = Generator[Any, Any, Any] | Coroutine[Any, Any, Any]
"""A generator or a coroutine of the trusted side that stands for one of the candidate's."""


def _generator_of(session: Session, remote: Remote) -> Generator[Any, Any, Any]:
    """A generator of the trusted side whose items, and whose value in the end, are the candidate's."""
    sent = None
    while True:
        try:
            item = session.ask("send", remote, sent)
        except _EndOfIteration as end:
            return end.args[0]
        sent = yield item


async def _awaited(session: Session, remote: Remote) -> Any:
    """What a coroutine of the candidate's returns; it runs on its own side to its end."""
    return session.ask("await", remote)
