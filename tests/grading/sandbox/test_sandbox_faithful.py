"""Honest programs pass, whatever they do that honest programs do; every isolation, and every kind of value."""

# ruff: noqa: E501  (programs, kept to a line each)

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bontune.grading.sandbox.outside.check import Checkers
from bontune.grading.sandbox.outside.checker import Program
from bontune.grading.sandbox.outside.isolation import ISOLATING
from grading.sandbox.hostile.processes import pool_or_skip

VALUES = [
    "None",
    "True",
    "False",
    "0",
    "-1",
    "2**200",
    "-(2**63)",
    "255",
    "-128",
    "0.1",
    "float('inf')",
    "-0.0",
    "1e308",
    "3 - 4j",
    "''",
    "'λ\\n\\0'",
    "'\\ud800'",
    "b''",
    "b'\\xff\\0'",
    "bytearray(b'x')",
    "[]",
    "[[1], [2, [3]]]",
    "()",
    "(1,)",
    "((), [()])",
    "set()",
    "{1, 'a', (2, 3)}",
    "frozenset({1})",
    "{frozenset({1}), frozenset()}",
    "{}",
    "{None: 1, 2: None, (3, 4): [5], 'k': {6: {7}}, 1.5: 'x', b'y': True, frozenset({8}): ()}",
    "range(3, 30, 7)",
    "[None] * 10_000",
    "'x' * 500_000",
    "int",
    "[str, list, type(None)]",
    "[[]] * 3",
]

PROGRAMS = {
    "prints": "import sys\ndef solve(x):\n  print('x' * 10**5); sys.stderr.write('y'); sys.stdout.flush(); return x",
    "prints_while_loading": "for i in range(1000): print(i)\ndef solve(x): return x",
    "reads_input": "def solve(x):\n  try: input()\n  except EOFError: return x",
    "recurses_3000_deep": "def down(n): return 0 if n == 0 else 1 + down(n - 1)\ndef solve(x): return x if down(3000) == 3000 else 0",
    "raises_the_recursion_limit": "import sys\nsys.setrecursionlimit(20000)\ndef down(n): return n and 1 + down(n - 1)\ndef solve(x): return x if down(9000) else 0",
    "uses_100_mb": "def solve(x):\n  a = bytearray(10**8); a[::4096] = b'x' * len(a[::4096]); return x if len(a) == 10**8 else 0",
    "one_second_of_processor": "import time\ndef solve(x):\n  while time.process_time() < 1.0: pass\n  return x",
    "scratch_file": "def solve(x):\n  with open('a.txt', 'w') as f: f.write('hello')\n  return x if open('a.txt').read() == 'hello' else 0",
    "temporary_files": "import tempfile, os, shutil\ndef solve(x):\n  with tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile('w+', dir=d) as f:\n    f.write('x'); os.makedirs(d + '/a/b'); os.rename(d + '/a', d + '/c')\n  d = tempfile.mkdtemp(); shutil.rmtree(d); return x",
    "threads": "import threading, queue\ndef solve(x):\n  q = queue.Queue(); t = [threading.Thread(target=q.put, args=(x,)) for _ in range(8)]\n  [u.start() for u in t]; [u.join() for u in t]; return q.get()",
    "thread_pool": "import time\nfrom concurrent.futures import ThreadPoolExecutor\ndef solve(x):\n  with ThreadPoolExecutor(64) as p: return list(p.map(lambda y: time.sleep(0.001) or y, [x] * 200))[5]",
    "standard_library": (
        "import abc, argparse, array, ast, base64, bisect, bz2, calendar, cmath, collections, colorsys, configparser, copy, csv, ctypes,"
        " dataclasses, datetime, decimal, difflib, email, enum, fractions, functools, gzip, hashlib, heapq, hmac, html, inspect, io,"
        " ipaddress, itertools, json, keyword, lzma, math, numbers, operator, pathlib, pickle, platform, pprint, queue, random, re,"
        " secrets, shlex, sqlite3, statistics, string, struct, sys, tempfile, textwrap, time, timeit, tokenize, typing, unicodedata,"
        " unittest, urllib.parse, uuid, warnings, weakref, xml.etree.ElementTree, zlib, zoneinfo, asyncio, logging, multiprocessing\n"
        "def solve(x):\n  assert hashlib.sha256(b'').hexdigest()[:4] == 'e3b0' and decimal.Decimal('0.1') * 3 == decimal.Decimal('0.3')\n"
        "  assert sqlite3.connect(':memory:').execute('select 1').fetchone() == (1,)\n  return x"
    ),
    "randomness": "import random, secrets, os, uuid\ndef solve(x): random.random(), secrets.token_hex(), os.urandom(8), uuid.uuid4(); return x",
    "time_and_dates": "import datetime, time\ndef solve(x): time.sleep(0.01); datetime.datetime.now(); time.strftime('%c'); return x",
    "dataclass_and_typing": "from dataclasses import dataclass\nfrom typing import *\n@dataclass\nclass P:\n  a: List[int]\n  b: 'Optional[P]' = None\nT = NamedTuple('T', [('a', int)])\ndef solve(x): return get_type_hints(P) and P([x]).a[0]",
    "pickles_its_own": "import pickle\nclass C:\n  def __init__(s, v): s.v = v\ndef solve(x): return pickle.loads(pickle.dumps(C(x))).v",
    "main_guard": "def solve(x): return x\nif __name__ == '__main__':\n  print(input())",
    "recursion_through_a_global": "memo = {}\ndef solve(x, n=5):\n  global memo\n  memo[n] = x\n  return solve(x, n - 1) if n else memo[3]",
    "named_tuple_is_a_tuple": "from collections import namedtuple\nP = namedtuple('P', 'a')\ndef solve(x): return P(x)[0]",
    "future_import": "from __future__ import annotations\ndef solve(x: int | None) -> 'int': return x",
    "crlf": "def solve(x):\r\n\treturn x\r\n",
    "encoding_comment": "# -*- coding: latin-1 -*-\ndef solve(x): return x",
    "alarm": "import signal\ndef solve(x): signal.signal(signal.SIGALRM, lambda *a: None); signal.alarm(1); signal.alarm(0); return x",
    "long_source": "a = [" + "1, " * 100_000 + "]\ndef solve(x): return x",
    "catches_its_own_errors": "def solve(x):\n  try: return {}[x]\n  except KeyError: return x",
    "shallow_resource_use": "import resource, os\ndef solve(x): resource.getrusage(resource.RUSAGE_SELF); resource.getrlimit(resource.RLIMIT_AS); os.cpu_count(); os.getpid(); return x",
}

OWN_TESTS = {
    "subclasses_arrive_as_what_they_extend": (
        "import collections, enum\nclass E(enum.IntEnum):\n  A = 3\nclass D(dict): pass\nclass L(list): pass\nclass C(collections.Counter): pass\n"
        "def solve(k): return [E.A, D(a=1), L([2]), C('aab')][k]",
        "import collections\ndef check(f):\n    assert [f(k) for k in range(4)] == [3, {'a': 1}, [2], {'a': 2, 'b': 1}]\n"
        "    assert [type(f(k)) for k in range(4)] == [int, dict, list, collections.Counter]\n",
    ),
    "iterators": (
        "def solve(n):\n  for i in range(n): yield i, [i]",
        "def check(f):\n    assert list(f(3)) == [(0, [0]), (1, [1]), (2, [2])]\n    assert sorted(f(2))[0] == (0, [0])\n"
        "    assert next(f(1)) == (0, [0])\n    assert f(3) != [(0, [0])]\n",
    ),
    "exceptions_arrive_as_builtin_classes": (
        "class Mine(KeyError): pass\ndef solve(k):\n  if k == 0: raise ValueError('bad')\n  if k == 1: raise Mine('key')\n  if k == 2: return 1 // 0\n  raise UnicodeDecodeError('a', b'b', 0, 1, 'c')",
        "def check(f):\n    for k, kind in enumerate([ValueError, KeyError, ZeroDivisionError, UnicodeError]):\n"
        "        try:\n            f(k)\n        except kind as error:\n            assert k != 0 or str(error) == 'bad'\n"
        "        else:\n            assert False\n",
    ),
    "keyword_arguments": (
        "def solve(a, *b, c=1, **d): return a, b, c, d",
        "def check(f):\n    assert f(1, 2, 3, c=4, e={5}) == (1, (2, 3), 4, {'e': {5}})\n",
    ),
    "state_lasts_for_one_program": (
        "n = 0\ndef solve():\n  global n\n  n += 1\n  return n",
        "def check(f):\n    assert [f(), f(), f()] == [1, 2, 3]\n",
    ),
    "order_of_sets_is_the_same_everywhere": (
        "def solve(): return list({'a', 'b', 'c', 'd', 'e', 'f'}), list(frozenset(['x', 'y', 'z']))",
        "def check(f):\n    assert f() == (list({'a', 'b', 'c', 'd', 'e', 'f'}), list(frozenset(['x', 'y', 'z'])))\n",
    ),
    "returns_a_function": (
        "def solve(n): return lambda m: n + m",
        "def check(f):\n    assert f(2)(3) == 5\n    assert f(2) is not None\n",
    ),
}


IN_PLACE = {
    "sorts_in_place": ("def solve(x): x.sort()", "x = [3, 1, 2]\nassert solve(x) is None\nassert x == [1, 2, 3]"),
    "returns_its_argument": (
        "def solve(x):\n  x.sort(); return x",
        "x = [3, 1, 2]\nassert solve(x) is x and x == [1, 2, 3]",
    ),
    "returns_a_copy": ("def solve(x): return list(x)", "x = [3]\nassert solve(x) == x and solve(x) is not x"),
    "inner_lists": (
        "def solve(x):\n  for r in x: r.reverse()\n  x.append([9])",
        "x = [[1, 2], [3]]\na = x[0]\nsolve(x)\nassert x == [[2, 1], [3], [9]] and x[0] is a",
    ),
    "one_list_twice": (
        "def solve(x, y):\n  x.append(1); return len(y)",
        "x = []\nassert solve(x, y=x) == 1 and x == [1]",
    ),
    "a_list_that_holds_itself": ("def solve(x): return x[0]", "x = []\nx.append(x)\nassert solve(x) is x"),
    "dictionaries_and_sets": (
        "def solve(x):\n  x['k'].add(3); x['z'] = x['k']; del x['y']",
        "s = {1}\nx = {'k': s, 'y': 0}\nsolve(x)\nassert x == {'k': {1, 3}, 'z': {1, 3}} and x['z'] is s",
    ),
    "queues_and_bytes": (
        "def solve(x, y, z):\n  x.appendleft(0); y += b'a'; z[0] = 9",
        "import array, collections\nx, y, z = collections.deque([5], maxlen=3), bytearray(), array.array('i', [1, 2])\nsolve(x, y, z)\nassert x == collections.deque([0, 5]) and x.maxlen == 3 and y == b'a' and z == array.array('i', [9, 2])",
    ),
    "order_of_a_dictionary": (
        "def solve(x): x.move_to_end('a')",
        "import collections\nx = collections.OrderedDict(a=1, b=2)\nsolve(x)\nassert list(x) == ['b', 'a']",
    ),
    "before_an_exception": (
        "def solve(x):\n  x.append(1); raise ValueError",
        "x = []\ntry: solve(x)\nexcept ValueError: pass\nassert x == [1]",
    ),
    "closure_over_an_argument": (
        "def solve(x):\n  def add(y):\n    x.append(y); return len(x)\n  return add",
        "x = []\nadd = solve(x)\nadd(1)\nx.append(5)\nassert add(2) == 3 and x == [1, 5, 2]",
    ),
    "generator_over_an_argument": (
        "def solve(x):\n  while x: yield x.pop()",
        "x = [1, 2]\ng = solve(x)\nassert next(g) == 2 and x == [1] and list(g) == [1] and x == []",
    ),
    "only_what_changed": ("def solve(x, y): y.clear()", "x, y = [1], [2]\nsolve(x, y)\nassert (x, y) == ([1], [])"),
}

STANDARD_VALUES = {
    "numbers": (
        "from fractions import *\nfrom decimal import *\ndef solve(x, y): return x / 3, [y * Decimal('1.10')]",
        "from fractions import *\nfrom decimal import *\na, (b,) = solve(Fraction(1, 2), Decimal(2))\nassert a == Fraction(1, 6) and a.denominator == 6 and str(b) == '2.20' and type(b) is Decimal",
    ),
    "dates": (
        "from datetime import *\nfrom zoneinfo import ZoneInfo\ndef solve(x): return x + timedelta(days=1), datetime(2024, 7, 1, tzinfo=ZoneInfo('Europe/Berlin')), time(1, 2, fold=1)",
        "from datetime import *\na, b, c = solve(date(2024, 2, 28))\nassert a == date(2024, 2, 29) and type(a) is date and b.utcoffset() == timedelta(hours=2) and c == time(1, 2) and c.fold\n"
        "a, *_ = solve(datetime(2024, 1, 1, 5, tzinfo=timezone.utc))\nassert a == datetime(2024, 1, 2, 5, tzinfo=timezone.utc) and a.tzinfo is timezone.utc",
    ),
    "named_tuples": (
        "import collections, typing\nP = collections.namedtuple('P', 'x y')\nclass Q(typing.NamedTuple):\n  a: int\n  b: str = 'z'\ndef solve(x): return [P(x, Q(2))]",
        "(p,) = solve(1)\nassert p == (1, (2, 'z')) and (p.x, p.y.b) == (1, 'z') and p._asdict() == {'x': 1, 'y': p.y} and repr(p.y) == \"Q(a=2, b='z')\"",
    ),
    "dictionaries": (
        "from collections import *\ndef solve(x):\n  o = OrderedDict(a=1, b=2); o.move_to_end('a')\n  d = defaultdict(lambda: defaultdict(int)); d['a']['b'] = 1\n  return Counter(x), o, d, defaultdict(list)",
        "import collections\nc, o, d, l = solve('aab')\nassert c.most_common(1) == [('a', 2)] and c['z'] == 0 and o == collections.OrderedDict(b=2, a=1) and o.popitem(last=False) == ('b', 2)\n"
        "assert d == {'a': {'b': 1}} and d['y']['z'] == 0 and l['k'] == []",
    ),
    "views": (
        "def solve(x): return x.keys(), x.values(), x.items()",
        "k, v, i = solve({'a': 1})\nassert k == {'a'} and len(v) == 1 and 1 in v and i == {('a', 1)}",
    ),
    "others": (
        "import uuid, ipaddress, pathlib\ndef solve(x): return uuid.UUID(int=x), ipaddress.ip_address('::1'), pathlib.Path('a', 'b')",
        "import uuid, ipaddress, pathlib\nassert solve(5) == (uuid.UUID(int=5), ipaddress.ip_address('::1'), pathlib.PurePosixPath('a/b'))",
    ),
    "generators": (
        "def solve(x):\n  y = yield x\n  yield y\n  return 7",
        "import types\ng = solve(1)\nassert isinstance(g, types.GeneratorType) and next(g) == 1 and g.send(5) == 5\ntry: next(g)\nexcept StopIteration as end: assert end.value == 7\nelse: assert False",
    ),
    "its_own_event_loop": (
        "import asyncio\nasync def one(x):\n  await asyncio.sleep(0.001); return x + await asyncio.to_thread(int, 1)\ndef solve(x):\n  async def both(): return await asyncio.gather(one(x), one(2))\n  return asyncio.run(both())",
        "assert solve(1) == [2, 3]",
    ),
    "coroutines": (
        "import asyncio\nasync def solve(x):\n  await asyncio.sleep(0); return [x]",
        "import asyncio\nassert asyncio.run(solve(1)) == [1]\nasync def both(): return await asyncio.gather(solve(1), solve(2))\nassert asyncio.run(both()) == [[1], [2]]",
    ),
    "deep": (
        "def solve(x):\n  a = []\n  for _ in range(x): a = [a]\n  return a",
        "a = []\nfor _ in range(300): a = [a]\nassert solve(300) == a\nb, depth = solve(800), 0\nwhile b: b, depth = b[0], depth + 1\nassert depth == 800",
    ),
    "errors": (
        "import json, statistics\ndef solve(x): return statistics.mean(x) if isinstance(x, list) else json.loads(x)",
        "import json, statistics\ntry: solve('{')\nexcept json.JSONDecodeError: pass\ntry: solve([])\nexcept statistics.StatisticsError: pass",
    ),
}


@pytest.fixture(scope="module", params=[*ISOLATING, "unsafe"])
def pool(request: pytest.FixtureRequest) -> Iterator[Checkers]:
    pool = pool_or_skip(request.param)
    yield pool
    pool.close()


def test_every_value_survives_both_ways(pool: Checkers) -> None:
    test = f"def check(f):\n    for value in [{', '.join(VALUES)}]:\n        got = f(value)\n        assert got == value and type(got) is type(value) and repr(got) == repr(value)\n"
    (outcome,) = pool.check([Program(source="def solve(x): return x", entry_point="solve", check=test)], num_workers=1)
    assert outcome.passed, outcome


def test_nan_survives(pool: Checkers) -> None:
    test = "def check(f):\n    got = f(float('nan'))\n    assert got != got and type(got) is float\n"
    (outcome,) = pool.check([Program(source="def solve(x): return x", entry_point="solve", check=test)], num_workers=1)
    assert outcome.passed, outcome


def test_honest_programs_pass(pool: Checkers) -> None:
    same = "def check(f):\n    assert f(3) == 3\n    assert f('a') == 'a'\n"
    cases = {**{name: (source, same) for name, source in PROGRAMS.items()}, **OWN_TESTS, **IN_PLACE, **STANDARD_VALUES}
    programs = [
        Program(source=source, entry_point="solve", check=check, timeout_s=15.0) for source, check in cases.values()
    ]
    outcomes = dict(zip(cases, pool.check(programs, num_workers=2), strict=True))
    assert {name: outcome for name, outcome in outcomes.items() if not outcome.passed} == {}
