"""The process of one program, inside the isolation: it loads the source, then answers what the grader asks.

Nothing here is trusted once the program's first line has run: it shares this interpreter and may replace any of it,
or write to the reply pipe itself. That buys it nothing, since a reply is plain data and the answer is judged elsewhere.

Requests: ("load", source, names), ("call", handle, args, named args), ("get", handle, name),
("set", handle, name, value), ("item", handle, key), ("len", handle), ("bool", handle), ("iter", handle),
("next", handle), ("send", handle, value), ("await", handle).
Replies: ("value", value), ("end", value), ("raised", exception's name, message), ("exited",), ("unsendable", why),
and for "load" ("loaded", {name: value}) or ("unloadable", exception's name, message).
Both come as a pair with what has changed in the containers that the grader gave (see ``values.Shared``) before them.
"""

from __future__ import annotations

import io
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import bontune.grading.sandbox.inside.wire as wire
from bontune.grading.sandbox.inside.values import Shared, exception_name

MAX_MESSAGE_LENGTH = 300
RECURSION_LIMIT = 4_000


class _Objects:
    """Objects of the program that the grader holds a handle on."""

    def __init__(self) -> None:
        self.by_number: list[object] = []
        self.numbers: dict[int, int] = {}
        self.num_loaded = 0
        self.is_asked = False
        """Whether the latest reply holds a handle."""

    def number_of(self, value: object) -> int:
        self.is_asked = True
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.by_number)
            self.by_number.append(value)
        return self.numbers[id(value)]

    def may_keep(self, request: tuple[Any, ...]) -> bool:
        """Whether an object that the grader can reach may have kept a container of this request."""
        return self.is_asked or (request[0] != "load" and self.numbers[id(request[1])] >= self.num_loaded)


def answer_requests(request_fd: int, reply_fd: int, max_reply_bytes: int) -> None:
    """Answer requests until the grader hangs up."""
    sys.setrecursionlimit(RECURSION_LIMIT)
    requests, replies = os.fdopen(request_fd, "rb"), os.fdopen(reply_fd, "wb")
    objects, shared = _Objects(), Shared()
    while header := requests.read(wire.HEADER.size):
        body = requests.read(wire.HEADER.unpack(header)[0])
        # First the containers become what the test has made of them since, then the program runs.
        mark = shared.mark()
        changes, request = wire.decode(body, handle=objects.by_number.__getitem__, shared=shared, is_given=True)
        shared.apply(changes)
        shared.remember()
        answer = _answer(request)
        objects.is_asked = False
        try:
            reply = wire.encode(
                (shared.changes(), answer), handle_for=objects.number_of, max_bytes=max_reply_bytes, shared=shared
            )
        except wire.WireError as error:
            reply = wire.encode(((), ("unsendable", str(error))))
        except Exception as error:  # a subclass that fails while its contents are read
            reply = wire.encode(((), ("unsendable", type(error).__name__)))
        # Both sides forget the containers of this request by the same rule, or their numbers would part.
        if request[0] == "load":
            objects.num_loaded = len(objects.by_number)
        if not objects.may_keep(request):
            shared.forget_from(mark)
        replies.write(wire.HEADER.pack(len(reply)) + reply)
        replies.flush()


def _answer(request: tuple[Any, ...]) -> tuple[object, ...]:
    operation, *arguments = request
    try:
        if operation == "load":
            return _load(*arguments)
        if operation in ("next", "send"):
            try:
                return ("value", next(*arguments) if operation == "next" else arguments[0].send(arguments[1]))
            except StopIteration as end:
                return ("end", end.value)
        return ("value", _OPERATIONS[operation](*arguments))
    except Exception as error:
        return ("raised", *_describe(error))
    except BaseException:  # SystemExit, KeyboardInterrupt, or a class of the program's own
        return ("exited",)


def _load(source: str, names: tuple[str, ...]) -> tuple[object, ...]:
    """Execute the program as a module of its own; says which of the names it defines."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    if "async" in source:
        _allow_event_loop()
    try:
        # Without dont_inherit, compile() passes this file's own "from __future__ import annotations" on to the program.
        exec(compile(source, "<solution>", "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        return ("unloadable", *_describe(error))
    return ("loaded", {name: module.__dict__[name] for name in names if name in module.__dict__})


def _set(target: object, name: str, value: object) -> None:
    setattr(target, name, value)


def _await(target: Any) -> object:
    import asyncio

    return asyncio.run(target)


_OPERATIONS: dict[str, Callable[..., object]] = {
    "call": lambda function, args, named: function(*args, **dict(named)),
    "get": getattr,
    "set": _set,
    "item": lambda target, key: target[key],
    "len": len,
    "bool": bool,
    "iter": iter,
    "await": _await,
}


def _describe(error: Exception) -> tuple[str, str]:
    """The name of the nearest class that the grader knows, and the message."""
    name = exception_name(type(error))
    try:
        return name, str(str(error))[:MAX_MESSAGE_LENGTH]
    except Exception:
        return name, ""


class _PipeEnd(io.FileIO):
    """One end of a pipe with the methods of a socket that an event loop uses on its own pair."""

    recv = io.FileIO.read
    send = io.FileIO.write

    def setblocking(self, is_blocking: bool) -> None:
        """Set whether reading and writing wait."""
        os.set_blocking(self.fileno(), is_blocking)


def _pair() -> tuple[_PipeEnd, _PipeEnd]:
    reading, writing = os.pipe()
    return _PipeEnd(reading, "r"), _PipeEnd(writing, "w")


def _allow_event_loop() -> None:
    """Give asyncio pipes for the sockets that it makes for itself; other sockets stay refused."""
    import asyncio.selector_events as events
    import socket

    seen_by_asyncio = types.ModuleType("socket")
    seen_by_asyncio.__dict__.update(socket.__dict__, socketpair=_pair)
    events.__dict__["socket"] = seen_by_asyncio
