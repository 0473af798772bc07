"""Mutable containers that the test has given a program, held on both sides of the wall under the same number.

A program may sort a list in place, as Python's functions do; then the test's own list has to be sorted, too. Each side
numbers the containers of a request in the order in which they cross. With every message a side tells which of them
have changed, as their new contents in plain data, and the other fills its own objects with these: the type and the
identity of the test's object stay, and a container that the test has not given cannot be changed.

This file is also sent into the isolation, so it imports the standard library and its neighbours alone.
"""

from __future__ import annotations

import array
import operator
from collections import deque
from collections.abc import Iterable
from typing import Any

from bontune.sandbox.values import items_of

Contents = tuple[Any, ...]


class Shared:
    """Containers by number, with what they held at the last message. Each side keeps its own alive while they count."""

    def __init__(self) -> None:
        self._containers: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._seen: dict[int, Contents] = {}
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
        """A place to go back to with :meth:`forget_from`."""
        return self._next

    def forget_from(self, mark: int) -> None:
        """Share no container any longer that came after the mark; its number is given to none again."""
        for number in range(mark, self._next):
            container = self._containers.pop(number, None)
            self._numbers.pop(id(container), None)
            self._seen.pop(number, None)

    def remember(self) -> None:
        """Take what all containers hold now as what the other side knows."""
        self._seen = {number: contents_of(container) for number, container in self._containers.items()}

    def changes(self) -> tuple[tuple[int, Contents], ...]:
        """The number and the contents of each container that is no longer as it was remembered."""
        found = []
        for number, container in self._containers.items():
            now, before = contents_of(container), self._seen.get(number)
            if before is not None and not _is_same(before, now):
                found.append((number, now))
        return tuple(found)

    def apply(self, changes: Iterable[tuple[int, Contents]]) -> None:
        """Fill the containers with what they hold on the other side.

        Raises:
            KeyError: there is no container of a number.
            TypeError, ValueError: contents that the container cannot hold.
        """
        for number, contents in changes:
            if type(number) is not int or type(contents) is not tuple:
                raise TypeError("a change of the wrong form")
            _refill(self._containers[number], contents)


def contents_of(container: Any) -> Contents:
    """What a container holds, in order: a mapping's keys and values in turn, and bytes as one object."""
    if isinstance(container, dict):
        return tuple(part for item in items_of(container) for part in item)
    if isinstance(container, (bytearray, array.array)):
        return (bytes(container),)
    kind = next(kind for kind in (list, set, deque) if isinstance(container, kind))
    return tuple(kind.__iter__(container))


def _refill(container: Any, contents: Contents) -> None:
    if isinstance(container, dict):
        items = dict(zip(contents[::2], contents[1::2], strict=True))
        container.clear()
        for key, item in items.items():
            container[key] = item
    elif isinstance(container, (bytearray, array.array)):
        (held,) = contents
        if type(held) is not bytes:
            raise TypeError("bytes that are none")
        if isinstance(container, bytearray):
            container[:] = held
        else:
            container[:] = array.array(container.typecode, held)
    elif isinstance(container, list):
        list.__setitem__(container, slice(None), contents)
    elif isinstance(container, set):
        items_of_set = set(contents)
        set.clear(container)
        set.update(container, items_of_set)
    else:
        deque.clear(container)
        deque.extend(container, contents)


def _is_same(before: Contents, now: Contents) -> bool:
    """Whether these are the same objects in the same order; bytes are compared by value."""
    if len(before) != len(now):
        return False
    return all(map(operator.is_, before, now)) or (len(now) == 1 and type(now[0]) is bytes and before == now)
