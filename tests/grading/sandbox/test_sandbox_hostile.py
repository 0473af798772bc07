"""The conformance suite of isolations: what any of them must stop, and what none may break.

1. No program of ``hostile/judging`` or ``hostile/exhausting`` passes, in whatever way it tries; the grader itself does
   not fail over it, and the time that was given is kept.
2. Nothing that a program of ``hostile/escaping`` tries succeeds, nothing outside is touched.
3. What a program leaves behind, the next one does not find.
4. After all of them an honest program still passes, and no process, file or folder is left.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import bontune
from bontune.grading.sandbox.outside.check import GRACE_S, Checkers, Outcome
from bontune.grading.sandbox.outside.checker import Program
from bontune.grading.sandbox.outside.isolation import ISOLATING
from bontune.grading.verdict import Verdict
from grading.sandbox.hostile import escaping, exhausting, judging, lingering
from grading.sandbox.hostile.processes import pool_or_skip, processes_of, wait_until

HONEST = "def solve(x): return 1000003 * x + 17"
TEST = """
def check(candidate):
    inputs = [3, 0, -5, 10**30]
    for given, got in zip(inputs, map(candidate, inputs)):
        assert got == 1000003 * given + 17
    assert list(map(candidate, inputs)) == [1000003 * given + 17 for given in inputs]
    assert all(candidate(given) == 1000003 * given + 17 for given in inputs)
    for given in inputs:
        try:
            assert candidate(given) - 17 == 1000003 * given
        except ValueError:
            assert False
"""
NOTHING_ACHIEVED = "def check(candidate):\n    achieved = candidate(3)\n    assert achieved == [], achieved\n"
TIMEOUT_S = 1.0


@pytest.fixture(scope="module", params=ISOLATING)
def pool(request: pytest.FixtureRequest) -> Iterator[Checkers]:
    """A pool on each isolation that this machine offers."""
    pool = pool_or_skip(request.param)
    yield pool
    pool.close()


def program(source: str, check: str = TEST, timeout_s: float = TIMEOUT_S) -> Program:
    return Program(source=source, entry_point="solve", check=check, timeout_s=timeout_s, memory_mb=512)


def check_all(pool: Checkers, sources: dict[str, str], check: str = TEST) -> dict[str, Outcome]:
    outcomes = pool.check([program(source, check) for source in sources.values()], num_workers=2)
    return dict(zip(sources, outcomes, strict=True))


def assert_still_honest(pool: Checkers) -> None:
    outcome = pool.check([program(HONEST, timeout_s=10.0)], num_workers=1)[0]
    assert outcome.passed, outcome
    outcome = pool.check([program("def solve(x): return 1", timeout_s=10.0)], num_workers=1)[0]
    assert outcome.verdict is Verdict.FAILED, outcome


def test_the_suite_is_large_enough() -> None:
    assert len(judging.PROGRAMS) + len(exhausting.PROGRAMS) + len(escaping.PROGRAMS) >= 100


@pytest.mark.parametrize("family", [judging, exhausting], ids=["judging", "exhausting"])
def test_no_hostile_program_passes(pool: Checkers, family: object) -> None:
    programs: dict[str, tuple[str, str]] = family.PROGRAMS  # type: ignore[attr-defined]
    outcomes = check_all(pool, {name: source for name, (_, source) in programs.items()})
    wrong = {
        name: (programs[name][0], outcome)
        for name, outcome in outcomes.items()
        if outcome.verdict not in (Verdict.FAILED, Verdict.TIMEOUT, Verdict.CRASHED)
        or outcome.passed
        or outcome.seconds > TIMEOUT_S + GRACE_S + 1.0
        or outcome.isolation != pool.name
    }
    assert wrong == {}
    assert_still_honest(pool)


def test_reasons_carry_no_control_characters_and_stay_short(pool: Checkers) -> None:
    source = "def solve(x): raise ValueError('\\x1b[2J\\n\\r\\0' + '\\ud800' + 'x' * 10**6)"
    (outcome,) = check_all(pool, {"a": source}, "def check(candidate):\n    candidate(1)\n").values()
    assert outcome.verdict is Verdict.FAILED
    assert outcome.reason.isprintable()
    assert len(outcome.reason) < 400


DEEP = "def solve(x):\n  a = []\n  for _ in range(62): a = [a]\n  return a"


@pytest.mark.parametrize(
    ("source", "check"),
    [
        (DEEP, "def check(f):\n    assert f(f(1)) == 1\n"),  # what was let in cannot be sent back
        ("def solve(x): return []", "def check(f):\n    for last in f(1):\n        pass\n    assert last == 1\n"),
        (
            "def solve(x): raise KeyError",
            "def check(f):\n    try:\n        f(1)\n    except KeyError:\n        raise OSError from None\n",
        ),
    ],
    ids=["deep", "unbound", "translated"],
)
def test_no_program_makes_its_failure_the_graders(pool: Checkers, source: str, check: str) -> None:
    (outcome,) = pool.check([program(source, check)], num_workers=1)
    assert outcome.verdict is Verdict.FAILED, outcome


@pytest.mark.parametrize("end", ["import os; os._exit(0)", "raise ValueError", "return 1"])
@pytest.mark.parametrize(
    "check", ["def check(f):\n    g = f(1)\n    assert f(2) == g\n", "g = solve(1)\nassert solve(2) == g\n"]
)
def test_what_a_program_gave_is_forgotten(pool: Checkers, end: str, check: str) -> None:
    source = f"def solve(x):\n  if x == 1: return bytes(50_000_000)\n  {end}"
    large = Program(source=source, entry_point="solve", check=check, timeout_s=10.0, max_reply_bytes=64_000_000)
    for _ in range(6):
        assert not pool.check([large], num_workers=1)[0].passed
    resident = int(Path(f"/proc/{pool._idle[-1].pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 150_000_000


class Bait:
    """Things outside that an attack would touch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o777)
        self.secret = folder / "secret"
        self.secret.write_text("the answer is 42")
        self.secret.chmod(0o644)
        self.stream = socket.create_server(("127.0.0.1", 0))
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", 0))
        self.local = socket.socket(socket.AF_UNIX)
        self.local.bind(str(folder / "socket"))
        self.local.listen()
        for listener in (self.stream, self.datagrams, self.local):
            listener.setblocking(False)
        self.before = self.state()

    def state(self) -> tuple[object, ...]:
        about = self.secret.stat()
        return (
            sorted(os.listdir(self.folder)),
            self.secret.read_text(),
            about.st_mode,
            about.st_uid,
            about.st_mtime_ns,
            self.folder.stat().st_mode,
            os.listxattr(self.secret),
        )

    def fill_in(self, source: str) -> str:
        for name, value in {
            "SECRET": self.secret,
            "FOLDER": self.folder,
            "PORT": self.stream.getsockname()[1],
            "DATAGRAM_PORT": self.datagrams.getsockname()[1],
            "SOCKET": self.folder / "socket",
            "GRADER": os.getpid(),
            "PACKAGE": bontune.__file__,
        }.items():
            source = source.replace(f"{{{name}}}", str(value))
        return source


@pytest.fixture
def bait() -> Iterator[Bait]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others: that would protect them
        bait = Bait(Path(folder))
        yield bait
        for listener in (bait.stream, bait.datagrams, bait.local):
            listener.close()


def test_nothing_outside_is_reached(pool: Checkers, bait: Bait) -> None:
    outcomes = check_all(
        pool, {name: bait.fill_in(source) for name, (_, source) in escaping.PROGRAMS.items()}, NOTHING_ACHIEVED
    )
    assert {name: outcome for name, outcome in outcomes.items() if not outcome.passed} == {}
    assert bait.state() == bait.before
    for listener in (bait.stream, bait.local):
        with pytest.raises(BlockingIOError):
            listener.accept()
    with pytest.raises(BlockingIOError):
        bait.datagrams.recv(1)
    assert_still_honest(pool)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of another processor")
def test_calls_of_another_instruction_set_are_the_end(pool: Checkers) -> None:
    (outcome,) = check_all(pool, {"a": escaping.MACHINE_CODE}, NOTHING_ACHIEVED).values()
    assert outcome.verdict is Verdict.CRASHED
    assert "SIGSYS" in outcome.reason or "SIGSEGV" in outcome.reason  # the latter where the kernel has no such calls


def test_the_next_program_finds_nothing(pool: Checkers) -> None:
    done = f"def check(candidate):\n    assert candidate({lingering.PLACES!r}) == 'done'\n"
    nothing = f"def check(candidate):\n    found = candidate({lingering.PLACES!r})\n    assert found == [], found\n"
    programs = [program(lingering.LOOK, nothing), program(lingering.LEAVE, done), program(lingering.LOOK, nothing)] * 2
    outcomes = pool.check(programs, num_workers=1)
    assert [outcome.reason for outcome in outcomes] == [""] * 6


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that is ours alone, and that an isolated process of another user gets through."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_a_closed_pool_leaves_nothing(pool: Checkers, temporary: Path) -> None:
    before = processes_of(os.getpid())
    own = Checkers(pool.name)
    sources = [exhausting.PROGRAMS[name][1] for name in ("busy", "deep_folders", "locked_folders", "many_files")]
    own.check([program(source, timeout_s=0.5) for source in sources], num_workers=2)
    assert processes_of(os.getpid()) > before
    assert len(list(temporary.iterdir())) == 2
    own.close()
    wait_until(lambda: processes_of(os.getpid()) <= before)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("victim", ["checker", "isolation"])
def test_a_killed_part_is_replaced(pool: Checkers, victim: str, temporary: Path) -> None:
    own = Checkers(pool.name)
    (checker,) = (checker.pid for checker in own._idle)
    isolation = processes_of(checker)
    for pid in {checker} if victim == "checker" else isolation:
        with contextlib.suppress(ProcessLookupError):  # the death of one ends the other
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in isolation))
    assert own.check([program(HONEST, timeout_s=10.0)], num_workers=1)[0].passed
    assert len(list(temporary.iterdir())) == 1  # the dead one's folder went when its successor made its own
    own.close()
    assert list(temporary.iterdir()) == []
