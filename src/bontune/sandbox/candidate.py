"""Runs inside the isolation, one process a program: load the source, then answer what the grader asks.

Nothing here is trusted once the program's first line has run: it shares this interpreter and may replace any of it,
or write to the reply pipe itself. That buys it nothing, since a reply is plain data and the answer is judged elsewhere.

Requests: ("load", source, names), ("call", handle, args, kwargs), ("get", handle, name), ("set", handle, name, value),
("item", handle, key), ("len", handle), ("bool", handle), ("iter", handle), ("next", handle).
Replies: ("value", value), ("end",), ("raised", builtin exception's name, message), ("exited",), ("unsendable", why),
and for "load" ("loaded", {name: value}) or ("unloadable", exception's name, message).

This file is sent into the isolation, so it imports the standard library and its neighbours alone.
"""

from __future__ import annotations

import builtins
import os
import struct
import sys
import types
from collections.abc import Callable
from typing import Any

import bontune.sandbox.wire as wire

MAX_MESSAGE_LENGTH = 300
RECURSION_LIMIT = 4_000
_HEADER = struct.Struct("<I")


class _Objects:
    """Objects of the program that the grader holds a handle on."""

    def __init__(self) -> None:
        self.by_number: list[object] = []
        self.numbers: dict[int, int] = {}

    def number_of(self, value: object) -> int:
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.by_number)
            self.by_number.append(value)
        return self.numbers[id(value)]


def serve(request_fd: int, reply_fd: int, max_reply_bytes: int) -> None:
    """Answer requests until the grader hangs up."""
    sys.setrecursionlimit(RECURSION_LIMIT)
    objects = _Objects()
    while True:
        header = _read_exactly(request_fd, _HEADER.size)
        if header is None:
            return
        body = _read_exactly(request_fd, _HEADER.unpack(header)[0])
        if body is None:
            return
        request = wire.decode(body, handle=objects.by_number.__getitem__)
        try:
            reply = wire.encode(_answer(request), handle_for=objects.number_of, max_bytes=max_reply_bytes)
        except wire.WireError as error:
            reply = wire.encode(("unsendable", str(error)))
        except Exception as error:  # a subclass that fails while its contents are read
            reply = wire.encode(("unsendable", type(error).__name__))
        _write_all(reply_fd, _HEADER.pack(len(reply)) + reply)


def _answer(request: tuple[Any, ...]) -> tuple[object, ...]:
    operation, *arguments = request
    try:
        if operation == "load":
            return _load(*arguments)
        if operation == "next":
            try:
                return ("value", next(arguments[0]))
            except StopIteration:
                return ("end",)
        return ("value", _OPERATIONS[operation](*arguments))
    except Exception as error:
        return ("raised", *_describe(error))
    except BaseException:  # SystemExit, KeyboardInterrupt, or a class of the program's own
        return ("exited",)


def _load(source: str, names: tuple[str, ...]) -> tuple[object, ...]:
    """Execute the program as a module of its own; says which of the names it defines."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        exec(compile(source, "<solution>", "exec"), module.__dict__)
    except Exception as error:
        return ("unloadable", *_describe(error))
    return ("loaded", {name: module.__dict__[name] for name in names if name in module.__dict__})


def _set(target: object, name: str, value: object) -> None:
    setattr(target, name, value)


_OPERATIONS: dict[str, Callable[..., object]] = {
    "call": lambda function, args, kwargs: function(*args, **kwargs),
    "get": getattr,
    "set": _set,
    "item": lambda target, key: target[key],
    "len": len,
    "bool": bool,
    "iter": iter,
}


def _describe(error: Exception) -> tuple[str, str]:
    """The nearest builtin class's name, and the message."""
    name = next(kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)
    try:
        return name, str(str(error))[:MAX_MESSAGE_LENGTH]
    except Exception:
        return name, ""


def _read_exactly(descriptor: int, length: int) -> bytes | None:
    pieces = bytearray()
    while len(pieces) < length:
        piece = os.read(descriptor, min(length - len(pieces), 1 << 20))
        if not piece:
            return None
        pieces += piece
    return bytes(pieces)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
