"""Plain data on the wire: one tag byte a value, so that decoding gives exact builtin types and nothing else.

Both sides of the wall between grader and model-written code speak this. What comes from the model's side is hostile
until decoded: lengths are checked before they are believed, nesting is bounded, and there is no tag for a function, a
code object or a class, but for the builtin types themselves, which tests pass as arguments. A value that is not plain
data crosses as the number of a *handle*, which means something only to the side that issued it.

    None N    bool T F    int i    float f    complex c    str s    bytes b    bytearray B    range r
    list l    tuple t     set S    frozenset Z    dict d    one of these types k    handle h
    a value of the standard library x (see ``values``)    a container that both sides share m (see ``values.Shared``)
    handle of a generator g, of a coroutine a
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import CoroutineType, GeneratorType, NoneType
from typing import Any

from bontune.grading.sandbox.inside.values import CODES, LIBRARY_TYPES, Shared, is_named_tuple

MAX_DEPTH = 900
"""Deepest nesting of containers; Python itself compares lists up to its recursion limit of 1,000."""

HEADER = struct.Struct("<I")
"""Length in bytes that stands before each message on a pipe."""
_LENGTH = struct.Struct("<I")
_HANDLE = struct.Struct("<Q")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_CONTAINERS: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z", dict: b"d"}
_TEXTS: dict[type, bytes] = {bytes: b"b", bytearray: b"B"}
_BASES: tuple[type, ...] = (bool, int, float, complex, str, bytes, bytearray, range, list, tuple, dict, set, frozenset)
_CLASSES = {kind.__name__: kind for kind in (*_BASES, *CODES, NoneType) if not kind.__name__.startswith("dict_")}
_MUTABLE = frozenset((list, dict, set, bytearray, *(kind.type for kind in LIBRARY_TYPES.values() if kind.is_mutable)))
_HANDLES: dict[type, bytes] = {GeneratorType: b"g", CoroutineType: b"a"}


class WireError(ValueError):
    """The bytes are no value, or a value does not fit the wire; the message is one phrase for people."""


class TooDeep(WireError):
    """Containers within containers beyond MAX_DEPTH."""


@lru_cache(maxsize=256)
def _plain_kind(kind: Any) -> type:
    """The type that a value is written as: its own, the one that it extends, or ``object`` where it is no data."""
    if kind in _BASES or kind in CODES:
        return kind
    return next((base for base in (*CODES, *_BASES) if issubclass(kind, base)), object)


def _refuse(value: object) -> int:
    raise WireError(f"a value of type {type(value).__name__} is not plain data")


def encode(
    value: object,
    *,
    handle_for: Callable[[object], int] = _refuse,
    max_bytes: int = sys.maxsize,
    shared: Shared | None = None,
    is_giving: bool = False,
) -> bytes:
    """Write a value.

    Args:
        value: plain data, or a subclass of it (written as what it extends).
        handle_for: gives the handle's number for anything else, or raises WireError.
        max_bytes: the longest message allowed.
        shared: containers that the other side has too are written as their numbers.
        is_giving: containers that are not shared yet become so.

    Raises:
        WireError: the value is too deep, too long, or no plain data.

    Example:
        >>> decode(encode({(1, "a"): {2**200}, None: [float("inf")]}))
        {(1, 'a'): {1606938044258990275541962092341162602522202993782792835301376}, None: [inf]}
    """
    writer = _WireWriter(handle_for, shared or Shared(), is_giving)
    stack: list[Iterator[Any]] = [iter((value,))]
    while stack:
        for item in stack[-1]:
            if len(writer.out) > max_bytes:
                raise WireError(f"more than {max_bytes} bytes")
            inside = writer.write(item)
            if inside is not None:
                if len(stack) > MAX_DEPTH:
                    raise TooDeep(f"nested deeper than {MAX_DEPTH}")
                stack.append(inside)
                break
        else:
            stack.pop()
    return bytes(writer.out)


class _WireWriter:
    def __init__(self, handle_for: Callable[[object], int], shared: Shared, is_giving: bool) -> None:
        self.out = bytearray()
        self.handle_for = handle_for
        self.shared = shared
        self.is_giving = is_giving

    def write(self, value: Any) -> Iterator[Any] | None:
        """Write a value, or the head of a container; returns what is in the container."""
        kind: Any = type(value)
        if kind is int:
            self._text(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif kind is str:
            self._text(b"s", value.encode("utf-8", "surrogatepass"))
        elif kind is float:
            self.out += b"f" + _FLOAT.pack(value)
        elif kind is bool:
            self.out += b"T" if value else b"F"
        elif value is None:
            self.out += b"N"
        else:
            return self._other(value, kind if is_named_tuple(kind) else _plain_kind(kind))
        return None

    def _other(self, value: Any, kind: type) -> Iterator[Any] | None:
        if kind in _MUTABLE:
            number = self.shared.number_of(value)
            if number is not None:
                self.out += b"m" + _LENGTH.pack(number)
                return None
            if self.is_giving:
                self.shared.add(value)
        if kind in _CONTAINERS:
            plain: Any = kind  # its own methods, whatever a subclass has
            items = [part for item in dict.items(value) for part in item] if kind is dict else [*plain.__iter__(value)]
            self.out += _CONTAINERS[kind] + _LENGTH.pack(len(items) // (2 if kind is dict else 1))
            return iter(items)
        code = CODES.get(kind) or ("n" if issubclass(kind, tuple) else None)
        if code is not None:
            parts = LIBRARY_TYPES[code].parts(value)
            self.out += b"x" + code.encode() + _LENGTH.pack(len(parts))
            return iter(parts)
        return self._single(value, kind)

    def _single(self, value: Any, kind: type) -> Iterator[Any] | None:
        if kind is bool or kind is int or kind is float or kind is str:  # a subclass: as what it extends
            base: Any = {int: int.__index__, float: float.__float__, str: str.__str__}.get(kind, bool)
            return self.write(base(value))
        if kind is range:
            self.out += b"r"
            return iter((value.start, value.stop, value.step))
        if kind in _TEXTS:
            self._text(_TEXTS[kind], bytes(value))
        elif kind is complex:
            self.out += b"c" + _COMPLEX.pack(value.real, value.imag)
        elif type(value) is type and _CLASSES.get(value.__name__) is value:
            self._text(b"k", value.__name__.encode())
        else:
            self.out += _HANDLES.get(type(value), b"h") + _HANDLE.pack(self.handle_for(value))
        return None

    def _text(self, tag: bytes, text: bytes) -> None:
        self.out += tag
        self.out += _LENGTH.pack(len(text))
        self.out += text


def _no_handles(number: int) -> object:
    raise WireError(f"handle {number} where none is allowed")


def decode(
    data: bytes,
    *,
    handle: Callable[[int], object] = _no_handles,
    handles: Mapping[str, Callable[[int], object]] | None = None,
    shared: Shared | None = None,
    is_given: bool = False,
) -> Any:
    """Read a value, from any bytes at all.

    Args:
        data: the whole message.
        handle: gives the object that stands for a handle's number.
        handles: the same by tag, where generators and coroutines are stood for otherwise.
        shared: containers that may be meant by their numbers.
        is_given: containers become shared as they are read.

    Raises:
        WireError: the bytes are no message: cut short, too long, too deep, unknown tag, unhashable key.
    """
    reader = _WireReader(data, {tag: (handles or {}).get(tag, handle) for tag in "hga"}, shared or Shared(), is_given)
    value = reader.read()
    if reader.position != len(data):
        raise WireError(f"{len(data) - reader.position} bytes behind the value")
    return value


@dataclass(slots=True)
class _Open:
    """A container of which some items are still to be read."""

    num_missing: int
    build: Callable[[list[Any]], Any]
    """Makes the container of its items."""
    number: int | None = None
    """Number under which the finished container is shared."""
    items: list[Any] = field(default_factory=list)


def _filled(tag: str, target: Any, items: list[Any]) -> Any:
    if tag == "d":
        target.update(zip(items[::2], items[1::2], strict=True))
    elif tag == "l":
        target += items
    elif tag == "S":
        target.update(items)
    return target


def _range(items: list[Any]) -> range:
    if not all(type(item) is int for item in items) or items[2] == 0:
        raise WireError("a range that is none")
    return range(*items)


class _WireReader:
    def __init__(
        self, data: bytes, handles: Mapping[str, Callable[[int], object]], shared: Shared, is_given: bool
    ) -> None:
        self.data = data
        self.position = 0
        self.handles = handles
        self.shared = shared
        self.is_given = is_given

    def read(self) -> Any:
        """One value, with all that is in it."""
        stack: list[_Open] = []
        while True:
            value = self._begin(chr(self._take(1)[0]))
            if type(value) is _Open:
                if len(stack) >= MAX_DEPTH:
                    raise TooDeep(f"nested deeper than {MAX_DEPTH}")
                if value.num_missing:
                    stack.append(value)
                    continue
                value = self._close(value)
            while stack:
                top = stack[-1]
                top.items.append(value)
                top.num_missing -= 1
                if top.num_missing:
                    break
                value = self._close(stack.pop())
            else:
                return value

    def _take(self, length: int) -> bytes:
        start, self.position = self.position, self.position + length
        if self.position > len(self.data):
            raise WireError("cut short")
        return self.data[start : self.position]

    def _count(self) -> int:
        number: int = _LENGTH.unpack(self._take(4))[0]
        if number > len(self.data) - self.position:  # every element and every character takes a byte at least
            raise WireError("cut short")
        return number

    def _begin(self, tag: str) -> Any:
        """A value, or an open container."""
        if tag == "i":
            return int.from_bytes(self._take(self._count()), "little", signed=True)
        if tag == "s":
            try:
                return self._take(self._count()).decode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise WireError("text that is not UTF-8") from error
        if tag == "f":
            return _FLOAT.unpack(self._take(8))[0]
        if tag in "TF":
            return tag == "T"
        if tag == "N":
            return None
        if tag in "ldS":  # shared before they are filled: a container may hold itself
            target = self._shared({"l": list, "d": dict, "S": set}[tag]())
            return _Open(self._count() * (2 if tag == "d" else 1), partial(_filled, tag, target))
        if tag in "tZ":
            return _Open(self._count(), tuple if tag == "t" else frozenset)
        return self._single(tag)

    def _single(self, tag: str) -> Any:
        if tag == "x":
            return self._library_value()
        if tag == "b":
            return self._take(self._count())
        if tag == "B":
            return self._shared(bytearray(self._take(self._count())))
        if tag == "c":
            return complex(*_COMPLEX.unpack(self._take(16)))
        if tag == "r":
            return _Open(3, _range)
        if tag == "k":
            name = self._take(self._count()).decode("ascii", "replace")
            if name not in _CLASSES:
                raise WireError("a class that is no builtin data's")
            return _CLASSES[name]
        if tag in self.handles:
            return self.handles[tag](_HANDLE.unpack(self._take(8))[0])
        if tag == "m":
            try:
                return self.shared.container(_LENGTH.unpack(self._take(4))[0])
            except KeyError:
                raise WireError("a container that was not given") from None
        raise WireError(f"unknown tag {tag!r}")

    def _shared(self, container: Any) -> Any:
        if self.is_given:
            self.shared.add(container)
        return container

    def _library_value(self) -> _Open:
        kind = LIBRARY_TYPES.get(chr(self._take(1)[0]))
        if kind is None:
            raise WireError("a type that is none of the standard library's")
        number = self.shared.reserve() if self.is_given and kind.is_mutable else None
        return _Open(self._count(), lambda items: kind.build(*items), number)

    def _close(self, opened: _Open) -> Any:
        try:
            value = opened.build(opened.items)
        except WireError:
            raise
        except TypeError as error:
            raise WireError("a set, a key or a value of something that it cannot hold") from error
        except Exception as error:  # a constructor of the standard library's that refuses hostile parts
            raise WireError("a value of the standard library that is none") from error
        if opened.number is not None:
            self.shared.bind(opened.number, value)
        return value
