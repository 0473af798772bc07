"""Plain data on the wire: every value survives, no bytes do harm.

1. ``decode(encode(v))`` is v, with the same types throughout.
2. Any bytes decode to plain data or raise WireError, in time and memory proportional to their number.
3. What is not plain data does not cross without a handle.
"""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bontune.grading.sandbox.inside.wire as wire

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
plain |= st.text(st.characters(exclude_categories=[])) | st.binary() | st.builds(range, st.integers(), st.integers())
hashable = st.recursive(plain, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
values = st.recursive(
    hashable | st.builds(bytearray, st.binary()),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(hashable, inner) | st.sets(hashable),
    max_leaves=20,
)


@settings(max_examples=120, deadline=None)
@given(values)
def test_values_survive(value: object) -> None:
    got = wire.decode(wire.encode(value))
    assert got == value
    assert repr(got) == repr(value) or isinstance(value, (set, frozenset, dict, list, tuple))
    assert type(got) is type(value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    try:
        value = wire.decode(data)
    except wire.WireError:
        return
    assert wire.decode(wire.encode(value)) == value or value != value or "nan" in repr(value)


@settings(max_examples=120, deadline=None)
@given(values, st.data())
def test_damaged_messages_are_a_value_or_an_error(value: object, data: st.DataObject) -> None:
    message = bytearray(wire.encode(value))
    position = data.draw(st.integers(0, len(message) - 1))
    message[position] = data.draw(st.integers(0, 255))
    message = message[: data.draw(st.integers(0, len(message)))]
    with contextlib.suppress(wire.WireError):
        wire.decode(bytes(message))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"NN",
        b"rNNN",
        b"f1234567",
        b"l\xff\xff\xff\xff",
        b"i\xff\xff\xff\x7f",
        b"s\1\0\0\0\xff",
        b"l\1\0\0\0" * 10**5,
        b"r" * 10**5,
        b"S\1\0\0\0l\0\0\0\0",
        b"d\1\0\0\0l\0\0\0\0N",
        b"d\1\0\0\0N",
        b"h" + bytes(8),
        b"k\4\0\0\0type",
        b"k\4\0\0\0eval",
    ],
)
def test_hostile_bytes_are_refused_at_once(data: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(wire.WireError):
        wire.decode(data)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("value", [object(), print, lambda: 3, type, wire, iter([]), NotImplemented, ..., Exception()])
def test_what_is_no_plain_data_does_not_cross(value: object) -> None:
    with pytest.raises(wire.WireError, match="is not plain data"):
        wire.encode([value])
    assert wire.decode(wire.encode([value], handle_for=lambda _: 7), handle=lambda number: number + 1) == [8]


def test_subclasses_become_what_they_extend() -> None:
    class Text(str):
        def encode(self, *_: object) -> bytes:
            raise AssertionError

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    class Numbers(list):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            raise AssertionError

    got = wire.decode(wire.encode([Text("a"), Numbers([1, 2]), True]))
    assert [type(item) for item in got] == [str, list, bool]
    assert got == ["a", [1, 2], True]


def test_depth_and_size_are_bounded() -> None:
    value: list[object] = []
    for _ in range(wire.MAX_DEPTH - 1):
        value = [value]
    assert wire.decode(wire.encode(value)) == value
    with pytest.raises(wire.WireError, match="nested deeper"):
        wire.encode([value])
    with pytest.raises(wire.WireError, match="more than 1000 bytes"):
        wire.encode(["x" * 100] * 100, max_bytes=1000)
    doubling: list[object] = [0]
    for _ in range(60):
        doubling = [doubling, doubling]
    with pytest.raises(wire.WireError, match="more than"):
        wire.encode(doubling, max_bytes=10_000)
