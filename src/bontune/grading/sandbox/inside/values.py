"""What crosses the wall beside plain data: values of the standard library, shared containers, exceptions.

Values (fractions, dates, named tuples, queues and the like) cross as their parts. The parts are plain data, and each
value is built anew from them by its own constructor, so that what arrives is exactly of the standard library's type,
whatever it was on the other side. Parts from the model's side are hostile: a constructor that refuses them raises, and
no field of a named tuple may be called, or a program could bring a ``startswith`` of its own.

Mutable containers that the test has given a program are held on both sides under the same number. A program may sort a
list in place, as Python's functions do; then the test's own list has to be sorted, too. Each side numbers the
containers of a request in the order in which they cross. With every message a side tells which of them have changed,
as their new contents in plain data, and the other fills its own objects with these: the type and the identity of the
test's object stay, and a container that the test has not given cannot be changed.

Exceptions of the builtins and of the standard library cross by name, any other as the nearest of them. StopIteration
arrives as RuntimeError, since it would end the loop of a test early and so pass it.
"""

from __future__ import annotations

import array
import binascii
import builtins
import collections
import copy
import decimal
import ipaddress
import json
import operator
import pathlib
import queue
import re
import statistics
import struct
import uuid
import zoneinfo
from collections import deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from types import FunctionType
from typing import Any, NamedTuple

MAX_FIELDS = 100
"""Most fields of a named tuple, and longest name of one."""
MAX_DEFAULT_DEPTH = 8
"""Deepest nesting of the value that a default dictionary's function makes."""
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*", re.ASCII)
_FACTORIES: tuple[type, ...] = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)


class LibraryType(NamedTuple):
    """A type of the standard library whose values cross as their parts."""

    type: type
    parts: Callable[[Any], tuple[Any, ...]]
    build: Callable[..., Any]
    is_mutable: bool = False
    """Whether a value is an object that both sides share (see :class:`Shared`)."""


def is_named_tuple(kind: type) -> bool:
    """Whether the type is a named tuple's."""
    fields = getattr(kind, "_fields", None)
    return issubclass(kind, tuple) and type(fields) is tuple and all(type(name) is str for name in fields)


@lru_cache(maxsize=256)
def _named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    if max(map(len, (name, fields, *fields))) > MAX_FIELDS:
        raise ValueError("a named tuple with too much of a name")
    return collections.namedtuple(name, fields)


def _build_named_tuple(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(callable(value) for value in values):
        return values
    built: tuple[Any, ...] = _named_tuple(name, fields)(*values)
    return built


def _default_of(factory: Any) -> tuple[bool, Any]:
    """Write a factory as (True, a builtin type or None) or as (False, a value that it has made)."""
    if factory is None or any(factory is kind for kind in _FACTORIES):
        return True, factory
    made = factory() if isinstance(factory, (type, FunctionType)) else None
    return (False, made) if made is not None and _can_be_copied(made, 0) else (True, None)


def _can_be_copied(value: Any, depth: int) -> bool:
    """Whether the value is plain data, and no tree whose every branch makes others."""
    kind = type(value)
    if depth > MAX_DEFAULT_DEPTH:
        return False
    if kind in (list, tuple, set, frozenset, collections.deque):
        return all(_can_be_copied(item, depth + 1) for item in value)
    if issubclass(kind, dict):
        factory: Any = getattr(value, "default_factory", None)
        is_simple = factory is None or any(factory is kind for kind in _FACTORIES)
        return not value and (is_simple or _can_be_copied(factory(), depth + 1))
    return value is None or kind in (bool, int, float, complex, str, bytes, Fraction, Decimal)


def _build_default_dict(is_type: bool, default: Any, items: tuple[tuple[Any, Any], ...]) -> Any:
    if is_type:
        return collections.defaultdict(default if default in _FACTORIES else None, items)
    if not _can_be_copied(default, 0):
        raise ValueError("a default that is no plain data")
    return collections.defaultdict(lambda: copy.deepcopy(default), items)


def _build_zone(key: str) -> zoneinfo.ZoneInfo:
    if not _ZONE.fullmatch(key):
        raise ValueError("no time zone's name")
    return zoneinfo.ZoneInfo(key)


def _counter(items: tuple[tuple[Any, Any], ...]) -> Any:
    counter: Any = collections.Counter()
    dict.update(counter, items)
    return counter


def _items_of(mapping: Any) -> tuple[tuple[Any, Any], ...]:
    """A mapping's items in its own order, whatever methods a subclass has."""
    kind = collections.OrderedDict if isinstance(mapping, collections.OrderedDict) else dict
    return tuple(kind.items(mapping))


def _zoned(value: Any) -> tuple[Any, int]:
    zone = value.tzinfo
    if zone is not None and not isinstance(zone, (timezone, zoneinfo.ZoneInfo)):
        zone = timezone(zone.utcoffset(value))
    return zone, value.fold


def _clock(value: Any) -> tuple[int, int, int, int]:
    return value.hour, value.minute, value.second, value.microsecond


LIBRARY_TYPES: dict[str, LibraryType] = {
    "F": LibraryType(Fraction, lambda v: (v.numerator, v.denominator), lambda n, d: Fraction(int(n), int(d))),
    "D": LibraryType(Decimal, lambda v: (Decimal.__str__(v),), lambda text: Decimal(str(text))),
    "t": LibraryType(
        datetime,
        lambda v: (v.year, v.month, v.day, *_clock(v), *_zoned(v)),
        lambda *parts: datetime(*parts[:-1], fold=parts[-1]),
    ),
    "d": LibraryType(date, lambda v: (v.year, v.month, v.day), date),
    "c": LibraryType(time, lambda v: (*_clock(v), *_zoned(v)), lambda *parts: time(*parts[:-1], fold=parts[-1])),
    "e": LibraryType(timedelta, lambda v: (v.days, v.seconds, v.microseconds), timedelta),
    "o": LibraryType(timezone, lambda v: v.__getinitargs__(), timezone),
    "z": LibraryType(zoneinfo.ZoneInfo, lambda v: (v.key,), _build_zone),
    "u": LibraryType(uuid.UUID, lambda v: (v.int,), lambda number: uuid.UUID(int=number)),
    "4": LibraryType(ipaddress.IPv4Address, lambda v: (int(v),), ipaddress.IPv4Address),
    "6": LibraryType(ipaddress.IPv6Address, lambda v: (int(v),), ipaddress.IPv6Address),
    "p": LibraryType(pathlib.PurePosixPath, lambda v: (str(v),), lambda text: pathlib.PurePosixPath(text)),
    "k": LibraryType(type({}.keys()), lambda v: (tuple(v),), lambda keys: dict.fromkeys(keys).keys()),
    "i": LibraryType(type({}.items()), lambda v: (tuple(v),), lambda items: dict(items).items()),
    "v": LibraryType(type({}.values()), lambda v: (tuple(v),), lambda items: dict(enumerate(items)).values()),
    "q": LibraryType(collections.deque, lambda v: (tuple(v), v.maxlen), collections.deque, is_mutable=True),
    "a": LibraryType(array.array, lambda v: (v.typecode, tuple(v)), array.array, is_mutable=True),
    "O": LibraryType(collections.OrderedDict, lambda v: (_items_of(v),), collections.OrderedDict, is_mutable=True),
    "C": LibraryType(collections.Counter, lambda v: (_items_of(v),), _counter, is_mutable=True),
    "f": LibraryType(
        collections.defaultdict,
        lambda v: (*_default_of(v.default_factory), _items_of(v)),
        _build_default_dict,
        is_mutable=True,
    ),
    "n": LibraryType(
        tuple, lambda v: (type(v).__name__, type(v)._fields, tuple(tuple.__iter__(v))), _build_named_tuple
    ),
}
"""Types by their letter on the wire. Of two types that extend one another the more special one comes first."""

CODES: dict[type, str] = {kind.type: code for code, kind in LIBRARY_TYPES.items() if code != "n"}


_Contents = tuple[Any, ...]


class Shared:
    """Containers by number, with their contents at the last message. Each side keeps its own containers alive."""

    def __init__(self) -> None:
        self._containers: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._seen: dict[int, _Contents] = {}
        self._next = 0

    def number_of(self, container: object) -> int | None:
        """The container's number, if it has one."""
        return self._numbers.get(id(container))

    def container(self, number: int) -> Any:
        """The container of a number.

        Raises:
            KeyError: there is none.
        """
        return self._containers[number]

    def reserve(self) -> int:
        """The next number, for a container that is still being built."""
        self._next += 1
        return self._next - 1

    def bind(self, number: int, container: object) -> None:
        """Give a container its number."""
        self._containers[number] = container
        self._numbers[id(container)] = number

    def add(self, container: object) -> None:
        """Give a container the next number."""
        self.bind(self.reserve(), container)

    def mark(self) -> int:
        """The next number, to go back to with :meth:`forget_from`."""
        return self._next

    def forget_from(self, mark: int) -> None:
        """Share no container any longer that came after the mark; its number is given to none again."""
        for number in range(mark, self._next):
            container = self._containers.pop(number, None)
            self._numbers.pop(id(container), None)
            self._seen.pop(number, None)

    def remember(self) -> None:
        """Remember the contents of all containers: the other side knows them."""
        self._seen = {number: _contents_of(container) for number, container in self._containers.items()}

    def changes(self) -> tuple[tuple[int, _Contents], ...]:
        """The number and the contents of each container that is no longer as it was remembered."""
        changes = []
        for number, container in self._containers.items():
            now, before = _contents_of(container), self._seen.get(number)
            if before is not None and not _is_same(before, now):
                changes.append((number, now))
        return tuple(changes)

    def apply(self, changes: Iterable[tuple[int, _Contents]]) -> None:
        """Fill the containers with their contents on the other side.

        Raises:
            KeyError: there is no container of a number.
            TypeError, ValueError: the container cannot hold the contents.
        """
        for number, contents in changes:
            if type(number) is not int or type(contents) is not tuple:
                raise TypeError("a change of the wrong form")
            _refill(self._containers[number], contents)


def _contents_of(container: Any) -> _Contents:
    """The contents of a container, in order: a mapping's keys and values in turn, and bytes as one object."""
    if isinstance(container, dict):
        return tuple(part for item in _items_of(container) for part in item)
    if isinstance(container, (bytearray, array.array)):
        return (bytes(container),)
    kind = next(kind for kind in (list, set, deque) if isinstance(container, kind))
    return tuple(kind.__iter__(container))


def _refill(container: Any, contents: _Contents) -> None:
    if isinstance(container, dict):
        items = dict(zip(contents[::2], contents[1::2], strict=True))
        container.clear()
        for key, item in items.items():
            container[key] = item
    elif isinstance(container, (bytearray, array.array)):
        (data,) = contents
        if type(data) is not bytes:
            raise TypeError("bytes that are none")
        if isinstance(container, bytearray):
            container[:] = data
        else:
            container[:] = array.array(container.typecode, data)
    elif isinstance(container, list):
        list.__setitem__(container, slice(None), contents)
    elif isinstance(container, set):
        items_of_set = set(contents)
        set.clear(container)
        set.update(container, items_of_set)
    else:
        deque.clear(container)
        deque.extend(container, contents)


def _is_same(before: _Contents, now: _Contents) -> bool:
    """Whether these are the same objects in the same order; bytes are compared by value."""
    if len(before) != len(now):
        return False
    return all(map(operator.is_, before, now)) or (len(now) == 1 and type(now[0]) is bytes and before == now)


_NOT_RAISED = (StopIteration, StopAsyncIteration, UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)
_NAMED = {
    name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
}
_STANDARD: dict[str, type[Exception]] = {
    "binascii.Error": binascii.Error,
    "decimal.DivisionByZero": decimal.DivisionByZero,
    "decimal.InvalidOperation": decimal.InvalidOperation,
    "decimal.Overflow": decimal.Overflow,
    "json.JSONDecodeError": json.JSONDecodeError,
    "queue.Empty": queue.Empty,
    "queue.Full": queue.Full,
    "re.error": re.error,
    "statistics.StatisticsError": statistics.StatisticsError,
    "struct.error": struct.error,
}
_NAMES = {kind: name for name, kind in (*_NAMED.items(), *_STANDARD.items())}
_GROUP: type = getattr(builtins, "BaseExceptionGroup", StopIteration)


def exception_name(kind: type[BaseException]) -> str:
    """The name of the nearest class that has one here."""
    return next(_NAMES[base] for base in kind.__mro__ if base in _NAMES)


def exception_of(name: str, message: str) -> Exception:
    """The exception that a name and a message from the model's side stand for."""
    kind = _STANDARD.get(name) or _NAMED.get(name, RuntimeError)
    if issubclass(kind, json.JSONDecodeError):
        return kind(message, "", 0)
    if issubclass(kind, UnicodeError):
        return UnicodeError(message)
    if issubclass(kind, (*_NOT_RAISED, _GROUP)) or not issubclass(kind, Exception):
        return RuntimeError(message)
    return kind(message)
