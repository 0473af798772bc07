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
from functools import lru_cache
from types import CoroutineType, GeneratorType
from typing import Any

from bontune.grading.sandbox.inside.values import CODES, KINDS, Shared, is_named_tuple

MAX_DEPTH = 900
"""Deepest nesting of containers; Python itself compares lists up to its recursion limit of 1,000."""

_LENGTH = struct.Struct("<I")
_HANDLE = struct.Struct("<Q")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_CONTAINERS: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}
_TEXTS: dict[type, bytes] = {bytes: b"b", bytearray: b"B"}
_BASES: tuple[type, ...] = (bool, int, float, complex, str, bytes, bytearray, range, list, tuple, dict, set, frozenset)
_NONE = type(None)
_CLASSES = {kind.__name__: kind for kind in (*_BASES, *CODES, _NONE) if not kind.__name__.startswith("dict_")}
_MUTABLE = frozenset((list, dict, set, bytearray, *(kind.type for kind in KINDS.values() if kind.is_mutable)))
_HANDLES: dict[type, bytes] = {GeneratorType: b"g", CoroutineType: b"a"}


class WireError(ValueError):
    """The bytes are no value, or a value does not fit the wire; the message is one phrase for people."""


class TooDeep(WireError):
    """Containers within containers beyond MAX_DEPTH."""


def _refuse(value: object) -> int:
    raise WireError(f"a value of type {type(value).__name__} is not plain data")


@lru_cache(maxsize=256)
def _plain_kind(kind: Any) -> type:
    """The type that a value is written as: its own, the one that it extends, or ``object`` where it is no data."""
    found: type = next((base for base in (*CODES, *_BASES) if issubclass(kind, base)), object)
    return kind if kind in _BASES or kind in CODES or kind is _NONE else found


def encode(
    value: object,
    *,
    handle_for: Callable[[object], int] = _refuse,
    max_bytes: int | None = None,
    shared: Shared | None = None,
    is_giving: bool = False,
) -> bytes:
    """Write a value.

    Args:
        value: plain data, or a subclass of it (written as what it extends).
        handle_for: gives the handle's number for anything else, or raises WireError.
        max_bytes: the longest message allowed; None: no bound.
        shared: containers that the other side has too are written as their numbers.
        is_giving: containers that are not shared yet become so.

    Raises:
        WireError: too deep, too long, or not plain data.

    Example:
        >>> decode(encode({(1, "a"): {2**200}, None: [float("inf")]}))
        {(1, 'a'): {1606938044258990275541962092341162602522202993782792835301376}, None: [inf]}
    """
    writer = _Writer(handle_for, shared, is_giving)
    limit = sys.maxsize if max_bytes is None else max_bytes
    stack: list[Iterator[Any]] = [iter((value,))]
    while stack:
        for item in stack[-1]:
            if len(writer.out) > limit:
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


class _Writer:
    def __init__(self, handle_for: Callable[[object], int], shared: Shared | None, is_giving: bool) -> None:
        self.out = bytearray()
        self.handle_for = handle_for
        self.shared = shared
        self.is_giving = is_giving

    def write(self, value: Any) -> Iterator[Any] | None:
        """Write a value, or the head of a container; returns what is in it."""
        out = self.out
        kind: Any = type(value)
        if kind is int:
            self._text(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif kind is str:
            self._text(b"s", value.encode("utf-8", "surrogatepass"))
        elif kind is float:
            out += b"f" + _FLOAT.pack(value)
        elif kind is bool:
            out += b"T" if value else b"F"
        elif value is None:
            out += b"N"
        else:
            return self._other(value, kind if is_named_tuple(kind) else _plain_kind(kind))
        return None

    def _other(self, value: Any, kind: type) -> Iterator[Any] | None:
        if self.shared is not None and kind in _MUTABLE:
            number = self.shared.number_of(value)
            if number is not None:
                self.out += b"m" + _LENGTH.pack(number)
                return None
            if self.is_giving:
                self.shared.add(value)
        if kind in _CONTAINERS or kind is dict:
            plain: Any = kind
            items = [p for item in dict.items(value) for p in item] if kind is dict else list(plain.__iter__(value))
            self.out += _CONTAINERS.get(kind, b"d") + _LENGTH.pack(len(items) // (2 if kind is dict else 1))
            return iter(items)
        code = CODES.get(kind) or ("n" if issubclass(kind, tuple) else None)
        if code is not None:
            parts = KINDS[code].parts(value)
            self.out += b"x" + code.encode() + _LENGTH.pack(len(parts))
            return iter(parts)
        return self._single(value, kind)

    def _single(self, value: Any, kind: type) -> Iterator[Any] | None:
        out = self.out
        if kind is bool or kind is int or kind is float or kind is str:  # a subclass: as what it extends
            base: Any = {int: int.__index__, float: float.__float__, str: str.__str__}.get(kind, bool)
            return self.write(base(value))
        if kind in _TEXTS:
            self._text(_TEXTS[kind], bytes(value))
        elif kind is complex:
            out += b"c" + _COMPLEX.pack(value.real, value.imag)
        elif kind is range:
            out += b"r"
            return iter((value.start, value.stop, value.step))
        elif type(value) is type and _CLASSES.get(value.__name__) is value:
            self._text(b"k", value.__name__.encode())
        else:
            out += _HANDLES.get(type(value), b"h") + _HANDLE.pack(self.handle_for(value))
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
    reader = _Reader(data, {tag: (handles or {}).get(tag, handle) for tag in "hga"}, shared, is_given)
    value = reader.read()
    if reader.position != len(data):
        raise WireError(f"{len(data) - reader.position} bytes behind the value")
    return value


class _Open:
    """A container of which some values are still to be read."""

    __slots__ = ("build", "items", "left", "number", "target")

    def __init__(self, left: int, build: Callable[[Any], Any], target: Any, number: int | None) -> None:
        self.left = left
        self.items: list[Any] = target if type(target) is list else []
        self.build = build
        self.target = target
        self.number = number

    def close(self) -> Any:
        """The finished container."""
        try:
            return self.build(self.items) if self.target is None else self.build((self.target, self.items))
        except TypeError as error:
            raise WireError("a set, a key or a value of something that it cannot hold") from error
        except WireError:
            raise
        except Exception as error:  # a constructor of the standard library's that refuses hostile parts
            raise WireError("a value of the standard library that is none") from error


def _filled_list(both: tuple[Any, list[Any]]) -> Any:
    return both[0]


def _filled_dict(both: tuple[dict[Any, Any], list[Any]]) -> Any:
    target, items = both
    target.update(zip(items[::2], items[1::2], strict=True))
    return target


def _filled_set(both: tuple[set[Any], list[Any]]) -> Any:
    target, items = both
    target.update(items)
    return target


def _range(items: list[Any]) -> range:
    if not all(type(item) is int for item in items) or items[2] == 0:
        raise WireError("a range that is none")
    return range(*items)


_BUILDS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "l": (list, _filled_list),
    "d": (dict, _filled_dict),
    "S": (set, _filled_set),
    "t": (lambda: None, tuple),
    "Z": (lambda: None, frozenset),
}


class _Reader:
    def __init__(
        self, data: bytes, handles: Mapping[str, Callable[[int], object]], shared: Shared | None, is_given: bool
    ) -> None:
        self.data = data
        self.position = 0
        self.handles = handles
        self.shared = shared
        self.is_given = is_given and shared is not None

    def read(self) -> Any:
        """One value, with all that is in it."""
        stack: list[_Open] = []
        while True:
            value = self._begin(chr(self.take(1)[0]))
            if type(value) is _Open:
                if len(stack) >= MAX_DEPTH:
                    raise TooDeep(f"nested deeper than {MAX_DEPTH}")
                if value.left:
                    stack.append(value)
                    continue
                value = self._close(value)
            while stack:
                top = stack[-1]
                top.items.append(value)
                top.left -= 1
                if top.left:
                    break
                value = self._close(stack.pop())
            else:
                return value

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

    def _begin(self, tag: str) -> Any:
        """A value, or an open container."""
        if tag == "i":
            return int.from_bytes(self.take(self.count()), "little", signed=True)
        if tag == "s":
            try:
                return self.take(self.count()).decode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise WireError("text that is not UTF-8") from error
        if tag == "f":
            return _FLOAT.unpack(self.take(8))[0]
        if tag in "TF":
            return tag == "T"
        if tag == "N":
            return None
        if tag in _BUILDS:
            make, build = _BUILDS[tag]
            target = make()
            number = self._share(target) if target is not None else None
            return _Open(self.count() * (2 if tag == "d" else 1), build, target, number)
        if tag == "x":
            return self._standard()
        return self._single(tag)

    def _share(self, target: Any) -> int | None:
        if self.is_given and self.shared is not None:
            self.shared.add(target)
        return None

    def _standard(self) -> _Open:
        kind = KINDS.get(chr(self.take(1)[0]))
        if kind is None:
            raise WireError("a type that is none of the standard library's")
        is_shared = self.is_given and self.shared is not None and kind.is_mutable
        number = self.shared.reserve() if is_shared and self.shared is not None else None
        return _Open(self.count(), lambda items: kind.build(*items), None, number)

    def _close(self, opened: _Open) -> Any:
        value = opened.close()
        if opened.number is not None and self.shared is not None:
            self.shared.bind(opened.number, value)
        return value

    def _single(self, tag: str) -> Any:
        if tag == "b":
            return self.take(self.count())
        if tag == "B":
            held = bytearray(self.take(self.count()))
            self._share(held)
            return held
        if tag == "c":
            return complex(*_COMPLEX.unpack(self.take(16)))
        if tag == "k":
            name = self.take(self.count()).decode("ascii", "replace")
            if name not in _CLASSES:
                raise WireError("a class that is no builtin data's")
            return _CLASSES[name]
        if tag in self.handles:
            return self.handles[tag](_HANDLE.unpack(self.take(8))[0])
        if tag == "r":
            return _Open(3, _range, None, None)
        if tag == "m" and self.shared is not None:
            try:
                return self.shared.container(_LENGTH.unpack(self.take(4))[0])
            except KeyError:
                raise WireError("a container that was not given") from None
        raise WireError(f"unknown tag {tag!r}")
