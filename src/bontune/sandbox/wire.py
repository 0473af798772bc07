"""Plain data on the wire: one tag byte a value, so that decoding gives exact builtin types and nothing else.

Both sides of the wall between grader and model-written code speak this. What comes from the model's side is hostile
until decoded: lengths are checked before they are believed, nesting is bounded, and there is no tag for a function, a
code object or a class, but for the builtin types themselves, which tests pass as arguments. A value that is not plain
data crosses as the number of a *handle*, which means something only to the side that issued it.

    None N    bool T F    int i    float f    complex c    str s    bytes b    bytearray B    range r
    list l    tuple t     set S    frozenset Z    dict d    one of these types k    handle h

This file is also sent into the isolation, so it imports the standard library alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 64
"""Deepest nesting of containers."""

_LENGTH = struct.Struct("<I")
_HANDLE = struct.Struct("<Q")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_CONTAINERS: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}
_SEQUENCE_TAGS: dict[int, type] = {tag[0]: kind for kind, tag in _CONTAINERS.items()}
_TEXTS: dict[type, bytes] = {bytes: b"b", bytearray: b"B"}
_BASES: tuple[type, ...] = (bool, int, float, complex, str, bytes, bytearray, range, list, tuple, dict, set, frozenset)
_CLASSES = {kind.__name__: kind for kind in (*_BASES, type(None))}


class WireError(ValueError):
    """The bytes are no value, or a value does not fit the wire; the message is one phrase for people."""


class TooDeep(WireError):
    """Containers within containers beyond MAX_DEPTH."""


def _refuse(value: object) -> int:
    raise WireError(f"a value of type {type(value).__name__} is not plain data")


def encode(value: object, *, handle_for: Callable[[object], int] = _refuse, max_bytes: int | None = None) -> bytes:
    """Write a value.

    Args:
        value: builtin data, or a subclass of it (written as the builtin it extends).
        handle_for: gives the handle's number for anything else, or raises WireError.
        max_bytes: the longest message allowed; None: no bound.

    Raises:
        WireError: too deep, too long, or not plain data.

    Example:
        >>> decode(encode({(1, "a"): {2**200}, None: [float("inf")]}))
        {(1, 'a'): {1606938044258990275541962092341162602522202993782792835301376}, None: [inf]}
    """
    out = bytearray()
    _write(out, value, 0, handle_for, max_bytes)
    return bytes(out)


def _write(out: bytearray, value: Any, depth: int, handle_for: Callable[[object], int], max_bytes: int | None) -> None:
    if max_bytes is not None and len(out) > max_bytes:
        raise WireError(f"more than {max_bytes} bytes")
    kind = type(value)
    if kind not in _BASES:
        kind = next((base for base in _BASES if issubclass(kind, base)), type(None) if value is None else object)
    if value is None:
        out += b"N"
    elif kind is bool:
        out += b"T" if value else b"F"
    elif kind is int:
        number = int.__index__(value)
        _write_text(out, b"i", number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))
    elif kind is float:
        out += b"f" + _FLOAT.pack(value)
    elif kind is str:
        _write_text(out, b"s", str.encode(value, "utf-8", "surrogatepass"))
    elif kind in _CONTAINERS or kind is dict:
        if depth >= MAX_DEPTH:
            raise TooDeep(f"nested deeper than {MAX_DEPTH}")
        if kind is dict:
            out += b"d" + _LENGTH.pack(dict.__len__(value))
            for key, item in dict.items(value):
                _write(out, key, depth + 1, handle_for, max_bytes)
                _write(out, item, depth + 1, handle_for, max_bytes)
        else:
            items = list(kind.__iter__(value))
            out += _CONTAINERS[kind] + _LENGTH.pack(len(items))
            for item in items:
                _write(out, item, depth + 1, handle_for, max_bytes)
    elif kind in _TEXTS:
        _write_text(out, _TEXTS[kind], bytes(value))
    elif kind is complex:
        out += b"c" + _COMPLEX.pack(value.real, value.imag)
    elif kind is range:
        out += b"r"
        for number in (value.start, value.stop, value.step):
            _write(out, number, depth + 1, handle_for, max_bytes)
    elif type(value) is type and _CLASSES.get(value.__name__) is value:
        _write_text(out, b"k", value.__name__.encode())
    else:
        out += b"h" + _HANDLE.pack(handle_for(value))


def _write_text(out: bytearray, tag: bytes, text: bytes) -> None:
    out += tag
    out += _LENGTH.pack(len(text))
    out += text


def _no_handles(number: int) -> object:
    raise WireError(f"handle {number} where none is allowed")


def decode(data: bytes, *, handle: Callable[[int], object] = _no_handles) -> Any:
    """Read a value, from any bytes at all.

    Args:
        data: the whole message.
        handle: gives the object that stands for a handle's number.

    Raises:
        WireError: the bytes are no message: cut short, too long, too deep, unknown tag, unhashable key.
    """
    reader = _Reader(data, handle)
    value = reader.read(0)
    if reader.position != len(data):
        raise WireError(f"{len(data) - reader.position} bytes behind the value")
    return value


class _Reader:
    def __init__(self, data: bytes, handle: Callable[[int], object]) -> None:
        self.data = data
        self.position = 0
        self.handle = handle

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.data):
            raise WireError("cut short")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def count(self) -> int:
        number: int = _LENGTH.unpack(self.take(4))[0]
        if number > len(self.data) - self.position:  # every element and every character takes a byte at least
            raise WireError("cut short")
        return number

    def read(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise TooDeep(f"nested deeper than {MAX_DEPTH}")
        tag = self.take(1)[0]
        if tag in _SEQUENCE_TAGS:
            items = [self.read(depth + 1) for _ in range(self.count())]
            try:
                return items if tag == ord("l") else _SEQUENCE_TAGS[tag](items)
            except TypeError as error:
                raise WireError("a set of something unhashable") from error
        if tag == ord("d"):
            pairs = [(self.read(depth + 1), self.read(depth + 1)) for _ in range(self.count())]
            try:
                return dict(pairs)
            except TypeError as error:
                raise WireError("a key that is unhashable") from error
        return self.read_single(tag, depth)

    def read_single(self, tag: int, depth: int) -> Any:
        kind = chr(tag)
        if kind == "N":
            return None
        if kind in "TF":
            return kind == "T"
        if kind == "i":
            return int.from_bytes(self.take(self.count()), "little", signed=True)
        if kind == "f":
            return _FLOAT.unpack(self.take(8))[0]
        if kind == "s":
            try:
                return self.take(self.count()).decode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise WireError("text that is not UTF-8") from error
        if kind == "b":
            return self.take(self.count())
        if kind == "B":
            return bytearray(self.take(self.count()))
        if kind == "c":
            return complex(*_COMPLEX.unpack(self.take(16)))
        if kind == "k":
            name = self.take(self.count()).decode("ascii", "replace")
            if name not in _CLASSES:
                raise WireError("a class that is no builtin data's")
            return _CLASSES[name]
        if kind == "h":
            return self.handle(_HANDLE.unpack(self.take(8))[0])
        if kind == "r":
            start, stop, step = (self.read(depth + 1) for _ in range(3))
            if not (type(start) is type(stop) is type(step) is int) or step == 0:
                raise WireError("a range that is none")
            return range(start, stop, step)
        raise WireError(f"unknown tag {tag}")
