"""Exceptions that cross the wall: builtin ones and the standard library's, by name; any other as the nearest of them.

StopIteration arrives as RuntimeError, since it would end the loop of a test early and so pass it.

This file is also sent into the isolation, so it imports the standard library alone.
"""

from __future__ import annotations

import binascii
import builtins
import decimal
import json
import queue
import re
import statistics
import struct

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


def name_of(kind: type[BaseException]) -> str:
    """The name of the nearest class that has one here."""
    return next(_NAMES[base] for base in kind.__mro__ if base in _NAMES)


def from_name(name: str, message: str) -> Exception:
    """The exception that a name and a message from the model's side stand for."""
    kind = _STANDARD.get(name) or _NAMED.get(name, RuntimeError)
    if issubclass(kind, json.JSONDecodeError):
        return kind(message, "", 0)
    if issubclass(kind, UnicodeError):
        return UnicodeError(message)
    if issubclass(kind, (*_NOT_RAISED, _GROUP)) or not issubclass(kind, Exception):
        return RuntimeError(message)
    return kind(message)
