"""What programs did on the task's inputs, remembered: the same text in another problem or step is not run again.

The outputs of a program do not depend on the problem, so a program runs once and its outputs are compared with those
that each problem wants. Remembered are programs that cannot but do the same again (:func:`is_repeatable`), and of those
the ones that gave outputs or failed: a timeout, a crash or a grader error may be the machine's doing.

In memory always; also in the SQLite file that the environment variable ``BONTUNE_PROGRAMS_CACHE`` names, which runs on
one machine may share, at the same time too. The file is trusted: who can write it can decide what passes. Programs in
the sandbox cannot; where they run unisolated (``unsafe``), the file is left alone.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import os
import sqlite3
import symtable
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bontune.base.errors import BontuneError
from bontune.base.grades import Verdict
from bontune.sandbox.programs import Outcome

FILE_VARIABLE = "BONTUNE_PROGRAMS_CACHE"
MAX_REMEMBERED = 50_000
"""Programs in memory, at about a kilobyte each."""
MAX_ANSWER_LENGTH = 4_000
"""Characters of outputs that are worth remembering; right ones take under 1,000."""
_VERSION = 2
"""Of what the file's keys and rows mean."""
_WAIT_S = 10.0
"""For another process that writes to the file."""
_MAX_VARIABLES = 500
"""In one query; SQLite allows 999 at least."""

_PURE_NAMES = {
    "abs",
    "all",
    "any",
    "bool",
    "dict",
    "divmod",
    "enumerate",
    "filter",
    "float",
    "int",
    "len",
    "list",
    "map",
    "max",
    "min",
    "pow",
    "range",
    "reversed",
    "round",
    "set",
    "sorted",
    "sum",
    "tuple",
    "x",
    "zip",
}
_ALLOWED_CONSTANTS = (int, float, type(None))  # bool is an int
_PURE_METHODS = {
    "add",
    "append",
    "bit_count",
    "bit_length",
    "clear",
    "copy",
    "count",
    "difference",
    "extend",
    "get",
    "index",
    "insert",
    "intersection",
    "issubset",
    "issuperset",
    "items",
    "keys",
    "pop",
    "remove",
    "reverse",
    "sort",
    "union",
    "values",
}
_NOT_NUMBERS = {"range", "map", "zip", "filter", "enumerate", "reversed", "float"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Remembered:
    """What a program did."""

    answer: str
    """Its outputs as :func:`bontune.tasks.programs_running.canonical` writes them; empty if it failed."""
    reason: str
    """Why it failed; empty if it did not."""


def is_repeatable(form: str) -> bool:
    """Whether an expression in ``x`` does the same every time and to nothing but its input.

    Every name is ``x``, a pure builtin, or its own; no name is given a second meaning; the attributes are methods of
    lists, dictionaries, sets and numbers; no text is made, in which an address could stand; and no set holds what is
    hashed by its address, which decides the set's order.

    Example:
        >>> is_repeatable("sorted([v for v in x if v > 3])"), is_repeatable("id(x)"), is_repeatable("x.__class__")
        (True, False, False)
    """
    try:
        nodes = list(ast.walk(ast.parse(form, mode="eval")))
        scopes = symtable.symtable(f"def f(x):\n    return (\n{form}\n    )\n", "<program>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a normal form may be deeper than what it is of
        return False
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    if any(name in ("f", "outputs") or name.startswith("_") or hasattr(builtins, name) for name in bound):
        return False
    # By scope: what one lambda binds is another name outside it.
    if not set(_free_names(scopes)) <= _PURE_NAMES:
        return False
    if any(isinstance(node, ast.Attribute) and node.attr not in _PURE_METHODS for node in nodes):
        return False
    if any(isinstance(node, ast.Constant) and not isinstance(node.value, _ALLOWED_CONSTANTS) for node in nodes):
        return False
    if any(isinstance(node, ast.JoinedStr | ast.Yield | ast.YieldFrom | ast.Await) for node in nodes):
        return False
    has_set = any(isinstance(node, ast.Set | ast.SetComp) for node in nodes) or any(name.id == "set" for name in names)
    return not (has_set and _may_hash_addresses(nodes))


def _free_names(scope: symtable.SymbolTable) -> Iterator[str]:
    """Names that the functions in a scope take from outside all of them."""
    for child in scope.get_children():
        yield from (symbol.get_name() for symbol in child.get_symbols() if symbol.is_global())
        yield from _free_names(child)


def _may_hash_addresses(nodes: Sequence[ast.AST]) -> bool:
    """Whether there is more than whole numbers, lists and tuples: functions, None, NaN, iterators, methods' Nones."""
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    gone_through = {
        id(node.iter.func) for node in nodes if isinstance(node, ast.comprehension) and isinstance(node.iter, ast.Call)
    }
    for node in nodes:
        if isinstance(node, ast.Lambda | ast.GeneratorExp | ast.Attribute):
            return True
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, float)):
            return True
        if isinstance(node, ast.Name) and (
            (node.id in _NOT_NUMBERS and id(node) not in gone_through)
            or (node.id in _PURE_NAMES and node.id != "x" and id(node) not in called)
        ):
            return True
    return False


def key_prefix(*about: object) -> str:
    """What decides, beside a program's text, what it does: the interpreter and what is given here, as a digest."""
    return sha256(repr((_VERSION, sys.version, *about)).encode()).hexdigest()


class OutcomeMemory:
    """What programs did: the latest used ones in memory, all in a file if there is one. Safe to use from threads."""

    def __init__(self, *, max_remembered: int = MAX_REMEMBERED) -> None:
        """
        Args:
            max_remembered: programs in memory.
        """
        self._max_remembered = max_remembered
        self._recent: OrderedDict[str, Remembered] = OrderedDict()
        self._lock = threading.Lock()
        self._file: _File | None = None

    def find(self, prefix: str, forms: Collection[str], *, isolation: str) -> dict[str, Remembered]:
        """What is known of these programs.

        Args:
            prefix: from :func:`key_prefix`.
            forms: normal forms.
            isolation: that programs run in.

        Raises:
            BontuneError: the file that the environment names cannot be opened.
        """
        with self._lock:
            keys = {prefix + form: form for form in forms}
            found: dict[str, Remembered] = {}
            for key, form in keys.items():
                if key in self._recent:
                    self._recent.move_to_end(key)
                    found[form] = self._recent[key]
            file = self._opened(isolation)
            unknown = [key for key, form in keys.items() if form not in found] if file is not None else []
            if file is not None and unknown:
                for key, remembered in file.read(unknown).items():
                    found[keys[key]] = remembered
                    self._keep(key, remembered)
            return found

    def add(self, prefix: str, outcomes: Mapping[str, Outcome], *, isolation: str) -> None:
        """Remember the outcomes, by normal form, that will be the same again."""
        fresh = {
            prefix + form: Remembered(answer=outcome.answer, reason=outcome.reason)
            for form, outcome in outcomes.items()
            if _is_lasting(outcome) and is_repeatable(form)
        }
        with self._lock:
            for key, remembered in fresh.items():
                self._keep(key, remembered)
            file = self._opened(isolation)
            if file is not None and fresh:
                file.write(fresh)

    def forget(self) -> None:
        """Empty the memory and close the file, which stays as it is."""
        with self._lock:
            self._recent.clear()
            if self._file is not None:
                self._file.close()
            self._file = None

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._file = None  # SQLite's connections do not survive a fork

    def _keep(self, key: str, remembered: Remembered) -> None:
        self._recent[key] = remembered
        self._recent.move_to_end(key)
        while len(self._recent) > self._max_remembered:
            self._recent.popitem(last=False)

    def _opened(self, isolation: str) -> _File | None:
        wanted = os.environ.get(FILE_VARIABLE, "") if isolation != "unsafe" else ""
        if self._file is not None and self._file.name != wanted:
            self._file.close()
            self._file = None
        if self._file is None and wanted:
            self._file = _File(wanted)
        return self._file


def _is_lasting(outcome: Outcome) -> bool:
    if len(outcome.answer) > MAX_ANSWER_LENGTH or "MemoryError" in outcome.reason or tells_address(outcome.reason):
        return False
    return outcome.verdict in (Verdict.PASSED, Verdict.FAILED)


def tells_address(reason: str) -> bool:
    """Whether an exception's text names an object by where it lies, which is elsewhere the next time."""
    return " at 0x" in reason


class _File:
    """A table of outcomes in SQLite's write-ahead mode: a row is there whole or not at all, whoever is killed when."""

    def __init__(self, name: str) -> None:
        self.name = name
        path = Path(name).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection: sqlite3.Connection | None = sqlite3.connect(
                path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS outcomes (key BLOB PRIMARY KEY, answer TEXT, reason TEXT) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise BontuneError(
                f"the file of remembered programs {name} cannot be used: {error}; let {FILE_VARIABLE} name a file in "
                "a folder that can be written, or delete what is there"
            ) from error

    def read(self, keys: Sequence[str]) -> dict[str, Remembered]:
        """Those of the keys that are there."""
        digests = {_digest(key): key for key in keys}
        found = {}
        wanted = list(digests)
        for start in range(0, len(wanted), _MAX_VARIABLES):
            part = wanted[start : start + _MAX_VARIABLES]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, answer, reason FROM outcomes WHERE key IN ({marks})"
            for key, answer, reason in self._run(query, part):
                is_text = isinstance(answer, str) and isinstance(reason, str)
                if isinstance(key, bytes) and is_text and bool(answer) != bool(reason):
                    found[digests[key]] = Remembered(answer=str(answer), reason=str(reason))
        return found

    def write(self, rows: Mapping[str, Remembered]) -> None:
        """Add what is not there yet, all in one transaction."""
        values = [value for key, row in rows.items() for value in (_digest(key), row.answer, row.reason)]
        size = 3 * (_MAX_VARIABLES // 3)
        for start in range(0, len(values), size):
            part = values[start : start + size]
            marks = ",".join(["(?,?,?)"] * (len(part) // 3))
            self._run(f"INSERT OR IGNORE INTO outcomes VALUES {marks}", part)

    def _run(self, query: str, values: Sequence[object]) -> list[tuple[object, ...]]:
        """Nothing, from the first error on: the file saves time, and a run goes on without."""
        if self._connection is None:
            return []
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            warnings.warn(f"the file of remembered programs {self.name} is no longer used: {error}", stacklevel=2)
            self.close()
            return []

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


MEMORY = OutcomeMemory()
"""This process's."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=MEMORY._after_fork)
