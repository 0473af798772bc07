"""What a program may return where a test expects plain data.

1. An object's own methods, length, items and identity answer no test's question: no class of the program's says yes.
2. What can be gone through once is as good as the list of its items (generator, map, view); a function can be called.
3. Where the test itself uses a class of the program's, its objects work.
"""

from __future__ import annotations

import pytest

from bontune.grading.sandbox.outside.check import check_programs
from bontune.grading.sandbox.outside.checker import Program
from bontune.grading.verdict import Verdict

LIAR = """
class Yes(str):
    pass
class Liar:
    def __getattr__(self, name): return lambda *a, **k: True
    def __len__(self): return 3
    def __iter__(self): return iter(())
    def __getitem__(self, key): return Liar()
    def __bool__(self): return True
    def __contains__(self, item): return True
    def __call__(self, *a): return True
ONE = Liar()
def f(x): return ONE
"""
SWITCH = """
class Switch:
    turns = [[1, 2, 3], [4, 4, 4]]
    def __iter__(self): return iter(self.turns.pop(0))
def f(x): return Switch()
"""


def judged(source: str, test: str, **options: object) -> Verdict:
    program = Program(source=source, entry_point="f", check=f"def check(f):\n    {test}\n", **options)  # type: ignore[arg-type]
    return check_programs([program])[0].verdict


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1).startswith('zz')",
        "assert len(f(1)) == 3 and all(a == b for a, b in zip(f(1), [1, 2, 3]))",
        "assert f(1) == f(2)",
        "assert f(1) is f",
        "assert f(1) is f(1)",
        "assert f(1)[0] == 7",
        "assert 7 in f(1)",
        "assert f(1).value == 7",
        "assert f(1)['key'].is_integer()",
    ],
)
def test_an_object_answers_no_question(test: str) -> None:
    assert judged(LIAR, test) is Verdict.FAILED


@pytest.mark.parametrize("value", ["lambda *a: True", "bool", "str", "P(bool, 1)", "Fraction"])
def test_a_field_of_a_named_tuple_cannot_be_called(value: str) -> None:
    source = "from collections import namedtuple\nfrom fractions import Fraction\nP = namedtuple('P', 'startswith x')\n"
    assert judged(f"{source}def f(x): return P({value}, 1)", "assert f(1).startswith('zz')") is Verdict.FAILED


def test_a_default_does_not_ask_the_program() -> None:
    source = "from collections import defaultdict\nturns = iter([0, 1, 2, 3])\n"
    source += "def f(x): return defaultdict(lambda: next(turns))"
    assert judged(source, "d = f(1); assert d['a'] == d['b'] - 1") is Verdict.FAILED


def test_the_reason_names_an_object() -> None:
    program = Program(source=LIAR, entry_point="f", check="assert f(1) == 3")
    assert "the program returned an object that is no plain data" in check_programs([program])[0].reason


def test_an_object_cannot_be_two_things() -> None:
    test = "r = f(1); assert list(r) == [1, 2, 3] and list(r) == [4, 4, 4]"
    assert judged(SWITCH, test) is Verdict.FAILED


@pytest.mark.parametrize(
    ("source", "test"),
    [
        ("def f(x): return (i * i for i in range(x))", "assert list(f(3)) == [0, 1, 4]"),
        ("def f(x): return map(str, range(x))", "assert sorted(f(3)) == ['0', '1', '2']"),
        ("def f(x): return {i: 0 for i in range(x)}.keys()", "assert set(f(3)) == {0, 1, 2}"),
        ("def f(x): return [iter('ab')]", "assert [''.join(part) for part in f(3)] == ['ab']"),
        ("def f(x): return f if x is None else x", "assert f(3) == 3 and f(None)"),
        ("def f(x): return lambda y: x + y", "assert f(3)(4) == 7"),
        ("def f(x): return list(x) if not isinstance(x, int) else iter([x])", "assert f(f(3)) == [3]"),
    ],
)
def test_what_can_be_gone_through_is_as_good_as_a_list(source: str, test: str) -> None:
    assert judged(source, test) is Verdict.PASSED


def test_objects_work_where_the_test_uses_their_class() -> None:
    source = "class Box:\n    def __init__(self, x): self.x = x\ndef f(box): return Box(box.x + 1)\n"
    program = Program(source=source, entry_point="f", check="assert f(Box(2)).x == 3", other_names=("Box",))
    assert check_programs([program])[0].passed
