"""Values of the standard library as their parts, and back: fractions, dates, named tuples, queues and the like.

The parts are plain data, and each value is built anew from them by its own constructor, so that what arrives is exactly
of the standard library's type, whatever it was on the other side. Parts from the model's side are hostile: a
constructor that refuses them raises, and no field of a named tuple may be called, or a program could bring a
``startswith`` of its own.

This file is also sent into the isolation, so it imports the standard library alone.
"""

from __future__ import annotations

import array
import collections
import copy
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Callable
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


class Kind(NamedTuple):
    """A type whose values cross as parts."""

    type: type
    parts: Callable[[Any], tuple[Any, ...]]
    build: Callable[..., Any]
    is_mutable: bool = False
    """Whether a value is an object that both sides share (see ``shared``)."""


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
    """A factory as (True, a builtin type or None) or as (False, a value that it has made)."""
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


def items_of(mapping: Any) -> tuple[tuple[Any, Any], ...]:
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


KINDS: dict[str, Kind] = {
    "F": Kind(Fraction, lambda v: (v.numerator, v.denominator), lambda n, d: Fraction(int(n), int(d))),
    "D": Kind(Decimal, lambda v: (Decimal.__str__(v),), lambda text: Decimal(str(text))),
    "t": Kind(
        datetime,
        lambda v: (v.year, v.month, v.day, *_clock(v), *_zoned(v)),
        lambda *parts: datetime(*parts[:-1], fold=parts[-1]),
    ),
    "d": Kind(date, lambda v: (v.year, v.month, v.day), date),
    "c": Kind(time, lambda v: (*_clock(v), *_zoned(v)), lambda *parts: time(*parts[:-1], fold=parts[-1])),
    "e": Kind(timedelta, lambda v: (v.days, v.seconds, v.microseconds), timedelta),
    "o": Kind(timezone, lambda v: v.__getinitargs__(), timezone),
    "z": Kind(zoneinfo.ZoneInfo, lambda v: (v.key,), _build_zone),
    "u": Kind(uuid.UUID, lambda v: (v.int,), lambda number: uuid.UUID(int=number)),
    "4": Kind(ipaddress.IPv4Address, lambda v: (int(v),), ipaddress.IPv4Address),
    "6": Kind(ipaddress.IPv6Address, lambda v: (int(v),), ipaddress.IPv6Address),
    "p": Kind(pathlib.PurePosixPath, lambda v: (str(v),), lambda text: pathlib.PurePosixPath(text)),
    "k": Kind(type({}.keys()), lambda v: (tuple(v),), lambda keys: dict.fromkeys(keys).keys()),
    "i": Kind(type({}.items()), lambda v: (tuple(v),), lambda items: dict(items).items()),
    "v": Kind(type({}.values()), lambda v: (tuple(v),), lambda items: dict(enumerate(items)).values()),
    "q": Kind(collections.deque, lambda v: (tuple(v), v.maxlen), collections.deque, is_mutable=True),
    "a": Kind(array.array, lambda v: (v.typecode, tuple(v)), array.array, is_mutable=True),
    "O": Kind(collections.OrderedDict, lambda v: (items_of(v),), collections.OrderedDict, is_mutable=True),
    "C": Kind(collections.Counter, lambda v: (items_of(v),), _counter, is_mutable=True),
    "f": Kind(
        collections.defaultdict,
        lambda v: (*_default_of(v.default_factory), items_of(v)),
        _build_default_dict,
        is_mutable=True,
    ),
    "n": Kind(tuple, lambda v: (type(v).__name__, type(v)._fields, tuple(tuple.__iter__(v))), _build_named_tuple),
}
"""By the letter on the wire. Of two types that extend one another the more special one comes first."""

CODES: dict[type, str] = {kind.type: code for code, kind in KINDS.items() if code != "n"}
