"""Contract of the digest of problems: plain values keep the digest that they had, and any change of a value shows."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bontune.base.problems import Problem, content_ids, contents_digest


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Point:
    x: Any


def problem(**row: Any) -> Problem:
    return Problem(id="p", prompt="q", reference="4", messages=({"role": "user", "content": "q"},), level=2, row=row)


def test_digests_of_plain_values_stay_what_they_were() -> None:
    """The numbers were taken before further types were told apart: pools and runs that were begun then go on."""
    row = {
        "a": 1,
        "b": [1.5, None, True, "é\u2028"],
        "c": {"d": (1, 2), "3": float("nan")},
        "4": np.int64(3),
        "e": np.array([[1.0, 2]]),
        "f": np.float32(0.5),
        "g": torch.tensor([1, 2]),
        "h": np.datetime64("2024-05-01", "ns"),
        "i": np.str_("x"),
        "j": object(),
    }
    assert content_ids([row]) == ["8dd92b2187fc"]
    assert contents_digest([problem(**row)]) == "adc4535eb325e5d0"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Decimal("1.0"), Decimal("1.5")),
        (Decimal(1), Fraction(1)),
        (date(2024, 5, 1), date(2024, 5, 2)),
        (date(2024, 5, 1), datetime(2024, 5, 1)),
        (datetime(2024, 5, 1, 10), datetime(2024, 5, 1, 10, tzinfo=timezone.utc)),
        (time(10, 0, 0, 1), time(10, 0, 0, 2)),
        (timedelta(days=1), timedelta(days=1, microseconds=1)),
        (b"a", b"b"),
        (bytearray(b"a"), bytearray(b"b")),
        (np.bytes_(b"a"), np.bytes_(b"b")),
        (np.datetime64("2024-05-01", "s"), np.datetime64("2024-05-02", "s")),
        (np.timedelta64(1, "s"), np.timedelta64(2, "s")),
        (np.array([Decimal(1)], dtype=object), np.array([Decimal(2)], dtype=object)),
        (np.longdouble(1), np.longdouble(2)),
        (1j, 2j),
        ({1, 2}, {1, 3}),
        (Colour.RED, Colour.BLUE),
        (Path("a"), Path("b")),
        (uuid.UUID(int=1), uuid.UUID(int=2)),
        (range(2), range(3)),
        (Point(Decimal(1)), Point(Decimal(2))),
    ],
)
@pytest.mark.parametrize("nested", [lambda value: value, lambda value: [{"x": (value,)}]])
def test_another_value_of_any_type_is_other_data(one: Any, other: Any, nested: Any) -> None:
    assert contents_digest([problem(a=nested(one))]) != contents_digest([problem(a=nested(other))])
    assert contents_digest([problem(a=nested(one))]) == contents_digest([problem(a=nested(one))])
    assert len({name[:12] for name in content_ids([{"a": nested(one)}, {"a": nested(other)}])}) == 2


def test_the_order_of_a_set_makes_no_difference() -> None:
    one, other = {"a", "b", "c", "d"}, {"d", "c", "b", "a"}
    assert content_ids([{"a": one}]) == content_ids([{"a": other}])
