"""The sandbox's contract, for those who grade with it.

1. ``check_program`` takes a HumanEval row and a completion; the outcome says how it ended, and in what it ran.
2. What is the program's fault is failed, timeout or crashed; what is the row's fault is a grader error.
3. A test may be source with ``check``, source that asserts by name, or a function; names it needs come from where
   they should.
4. Outcomes keep the order of the programs; many threads may ask at once; a forked process has checkers of its own.
5. No process outlives the one that asked, even one that was killed.
6. Without an isolation that holds nothing runs, unless told so, and then every outcome says so.
7. All of the folder ``inside`` is sent through the wall, and nothing else.
"""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bontune.grading as grading
import bontune.grading.sandbox.inside as inside
from bontune.base.errors import BontuneError
from bontune.grading.sandbox.outside.check import (
    CheckerProcess,
    Checkers,
    check_program,
    check_programs,
    humaneval_program,
    sandbox_name,
)
from bontune.grading.sandbox.outside.checker import Program, requirements
from bontune.grading.sandbox.outside.interpreter import sources_inside
from bontune.grading.sandbox.outside.isolation import BACKENDS, ISOLATING
from bontune.grading.verdict import Verdict
from grading.sandbox.hostile.processes import pool_or_skip, processes_of, wait_until

pytestmark = pytest.mark.skipif(
    all(BACKENDS[name].unavailable() for name in ISOLATING), reason="no isolation can be tried on this machine"
)

ROW = {
    "prompt": 'def helper(x):\n    return x + 1\n\ndef double(x):\n    """Twice."""\n',
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert double(helper(2)) == 6\n",
}


def run(source: str, check: str | Callable[..., object], **options: Any) -> grading.Outcome:
    return check_programs([Program(source=source, entry_point="f", check=check, **options)])[0]


@pytest.mark.parametrize(
    ("completion", "verdict", "reason"),
    [
        ("    return 2 * x\n", Verdict.PASSED, ""),
        ("    return x + 2\n", Verdict.FAILED, "an assertion failed at line 3 of the test"),
        ("    return x +\n", Verdict.FAILED, "loading it raised SyntaxError"),
        ("    return y\n", Verdict.FAILED, "raised NameError: name 'y' is not defined"),
        # Annotations are evaluated, as Python does where a program does not import them from __future__.
        ("    return x * 2\ndef g() -> Lost: ...\n", Verdict.FAILED, "raised NameError: name 'Lost' is not defined"),
        ("    return x * 2\n1 / 0\n", Verdict.FAILED, "loading it raised ZeroDivisionError: division by zero"),
        ("    return 2 * x\ndel double\n", Verdict.FAILED, "does not define double"),
        ("    return 2 * x\nhelper = lambda x: 0\n", Verdict.PASSED, ""),  # the test's helper is the row's
        ("    while True: pass\n", Verdict.TIMEOUT, "the program ran out of time"),
        ("    import os; os._exit(3)\n", Verdict.CRASHED, "exit status 3"),
        ("    import os; os.abort()\n", Verdict.CRASHED, "SIG"),
        ("    return [0] * 10**9\n", Verdict.FAILED, "raised MemoryError"),
        ("    return bytes(2 * 10**6)\n", Verdict.FAILED, "more than 1000000"),
    ],
)
def test_how_a_completion_ends(completion: str, verdict: Verdict, reason: str) -> None:
    outcome = check_program(ROW, completion, timeout=2.0, memory_mb=512)
    assert outcome.verdict is verdict
    assert outcome.passed == (verdict is Verdict.PASSED)
    assert reason in outcome.reason
    assert 0 < outcome.seconds < 4.0
    assert outcome.isolation == sandbox_name()
    assert outcome.isolation in ISOLATING


def test_the_names_of_the_package() -> None:
    assert grading.check_program is check_program
    assert grading.Outcome(passed=True, reason="", seconds=0.0, verdict=Verdict.PASSED, isolation="x").passed


def test_a_row_without_a_key_is_refused() -> None:
    with pytest.raises(BontuneError, match="lacks test"):
        check_program({"prompt": "", "entry_point": "f"}, "")


@pytest.mark.parametrize(
    ("test", "verdict"),
    [
        ("def check(f):\n    assert f(1) == 1 +\n", Verdict.GRADER_ERROR),
        ("def check(f):\n    assert f(1) == missing\n", Verdict.GRADER_ERROR),
        ("import no_such_module\ndef check(f): pass\n", Verdict.GRADER_ERROR),
        ("def check(f):\n    len(3)\n", Verdict.GRADER_ERROR),  # before the program has given anything
        ("def check(f):\n    assert len(f(3)) == 1\n", Verdict.FAILED),  # len(3), of the program's 3
        ("def check(f):\n    assert f(3) + 'a'\n", Verdict.FAILED),
        ("def check(f):\n    assert f(lambda: 3) == 3\n", Verdict.GRADER_ERROR),  # code does not cross
        ("def check(f):\n    raise SystemExit\n", Verdict.GRADER_ERROR),
        ("def check(f):\n    try:\n        f(1) / 0\n    except ZeroDivisionError:\n        pass\n", Verdict.PASSED),
        ("def check(f):\n    f(1)\n    print('x' * 10**6)\n    import sys; sys.stdin.read()\n", Verdict.PASSED),
        ("assert f(1) == 1\n", Verdict.PASSED),
        ("assert f(1) == 2\n", Verdict.FAILED),
    ],
)
def test_who_is_at_fault(test: str, verdict: Verdict) -> None:
    outcome = run("def f(x): return x", test)
    assert outcome.verdict is verdict, outcome


def test_a_bare_except_of_the_test_does_not_hide_a_crash() -> None:
    test = "def check(f):\n    try:\n        f(1)\n    except:\n        pass\n"
    assert run("import os\ndef f(x): os._exit(0)", test).verdict is Verdict.CRASHED
    assert run("def f(x): 1 / 0", test).verdict is Verdict.PASSED


def test_a_test_that_hangs_on_an_answer_is_ended() -> None:
    outcome = run("def f(): return 10**9", "def check(f):\n    n = f()\n    3 ** n\n", timeout_s=0.5)
    assert outcome.verdict is Verdict.TIMEOUT
    assert run("def f(): return 1", "def check(f):\n    assert f() == 1\n").passed


def test_a_test_that_is_slow_after_the_last_answer_counts_as_out_of_time() -> None:
    test = "import time\ndef check(f):\n    f()\n    until = time.monotonic() + 0.6\n"
    test += "    while time.monotonic() < until: pass\n"
    assert run("def f(): return 1", test, timeout_s=0.3).verdict is Verdict.TIMEOUT


def test_a_function_as_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_checks.py").write_text(
        "def is_right(f, expected=(0, 2, 4)):\n    assert tuple(map(f, range(3))) == expected\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import own_checks

    with_path = Checkers()  # the default pool's checkers know the path of when they were started
    programs = [
        Program(source="def f(x): return 2 * x", entry_point="f", check=check)
        for check in (own_checks.is_right, functools.partial(own_checks.is_right, expected=(0, 1, 2)))
    ]
    outcomes = with_path.check(programs, num_workers=1)
    with_path.close()
    assert [outcome.verdict for outcome in outcomes] == [Verdict.PASSED, Verdict.FAILED]


def test_what_a_function_returns_is_told_if_it_is_text_and_the_program_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_answers.py").write_text(
        "def told(f):\n    value = f(2)\n    assert value < 10\n    return f'it is {value}'\n\n\n"
        "def number(f):\n    return f(2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import own_answers

    double = "def f(x): return 2 * x\n"
    programs = [
        Program(source=double, entry_point="f", check=own_answers.told),
        Program(source=double, entry_point="f", check=own_answers.number),
        Program(source="def f(x): return 5 * x\n", entry_point="f", check=own_answers.told),
        Program(source="def f(x): return 'mine'\n", entry_point="f", check="def check(f):\n    return f(1)\n"),
    ]
    with_path = Checkers()
    outcomes = with_path.check(programs, num_workers=1)
    with_path.close()
    assert [(outcome.passed, outcome.answer) for outcome in outcomes] == [
        (True, "it is 4"),
        (True, ""),
        (False, ""),
        (True, ""),
    ]


def test_a_function_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(BontuneError, match="module-level function"):
        run("def f(): pass", lambda f: None)


def test_objects_of_the_programs_own_classes() -> None:
    reference = (
        "import math\nclass Node:\n  def __init__(self, data):\n    self.data = data; self.left = None\n"
        "def f(node): return 0 if node is None else 1 + f(node.left)\ndef unused(): pass\n"
    )
    tests = (
        "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node([3])\nassert f(root) == 3\nassert f(None) == 0\n"
        "assert root.left.left.data == [3] and root.left is root.left and root != Node(1)\n"
        "assert math.isclose(f(root), 3.0)\n"
    )
    names, helpers = requirements(tests, reference)
    assert (names, helpers) == (("Node", "f"), "import math")
    assert run(reference, tests, other_names=("Node",), helpers=helpers).passed
    assert "does not define Node" in run("def f(node): return 3", tests, other_names=("Node",), helpers=helpers).reason
    lying = "class math:\n  isclose = staticmethod(lambda *a: True)\n"
    lying += "class Node:\n  def __init__(s, d): s.data = d; s.left = None\n"
    lying += "def f(node): return 4 if node else 0\n"
    assert not run(lying, tests.replace("== 3\n", "== 4\n"), other_names=("Node",), helpers=helpers).passed


def test_a_builtin_that_the_program_defines_is_not_the_tests() -> None:
    lying = "def set(x): return 1\ndef f(x): return [7]\n"
    assert not run(lying, "assert set(f([1, 2])) == set([1, 2])").passed
    named = Program(source="def sum(a, b): return a - b", entry_point="sum", check="assert sum(3, 1) == 2")
    assert check_programs([named])[0].passed  # only the entry point may have a builtin's name


def test_order_and_number_of_workers() -> None:
    programs = [
        Program(
            source=f"import time\ndef f(): time.sleep({(7 * i) % 5 / 50}); return {i}",
            entry_point="f",
            check=f"def check(f):\n    assert f() == {i if i % 3 else -1}\n",
        )
        for i in range(20)
    ]
    for num_workers in (1, 3):
        outcomes = check_programs(programs, num_workers=num_workers)
        assert [outcome.passed for outcome in outcomes] == [i % 3 != 0 for i in range(20)]
    assert check_programs([]) == []


def test_many_threads_at_once() -> None:
    results: list[bool] = []

    def ask() -> None:
        results.append(check_program(ROW, "    return 2 * x\n", timeout=20.0).passed)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 6


def test_a_forked_process_has_checkers_of_its_own() -> None:
    assert check_program(ROW, "    return 2 * x\n").passed
    pid = os.fork()
    if pid == 0:
        os._exit(0 if check_program(ROW, "    return 2 * x\n", timeout=20.0).passed else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert check_program(ROW, "    return 2 * x\n").passed


_ASKING = """
from bontune.grading.sandbox.outside.check import Program, check_programs
program = Program(source="def f():\\n  while True: pass", entry_point="f", check="def check(f): f()", timeout_s=60.0)
check_programs([program, program], num_workers=2)
"""


@pytest.mark.parametrize("backend", ISOLATING)
def test_nothing_outlives_a_killed_process(backend: str) -> None:
    pool_or_skip(backend).close()
    asking = subprocess.Popen([sys.executable, "-c", _ASKING], env={**os.environ, "BONTUNE_SANDBOX": backend})
    own = {asking.pid}

    def num_running() -> int:
        """Living descendants; after its end they no longer descend from it, so their numbers are kept."""
        running = processes_of(asking.pid)
        own.update(running)
        return len(running)

    def is_alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    # Two checkers, and per checker an isolated interpreter (bubblewrap: two more) with a program that is running.
    wait_until(lambda: num_running() >= 2 * (5 if backend == "bubblewrap" else 3), timeout_s=60.0)
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in own))


def test_the_probe_sees_what_is_not_stopped() -> None:
    checker = CheckerProcess("unsafe")
    checker.give(pickle.dumps("probe"))
    attacks = checker.event(60.0)["attacks"]
    checker.close()
    assert len(attacks) >= 15
    # Which takes a privilege that even root may lack.
    assert {attack["name"] for attack in attacks if attack["is_stopped"]} <= {"raise its limits"}


def test_without_isolation_nothing_runs_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONTUNE_SANDBOX", "unsafe")
    outcome = check_program(ROW, "    return 2 * x\n")
    assert outcome.passed
    assert outcome.isolation == sandbox_name() == "unsafe"
    monkeypatch.setenv("BONTUNE_SANDBOX", "docker")
    with pytest.raises(BontuneError, match="No sandbox is called 'docker': choose auto, bubblewrap, landlock, unsafe"):
        sandbox_name()


def test_a_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no bwrap here
    with pytest.raises(BontuneError, match=r"bubblewrap: bwrap is not installed.*apt install bubblewrap.*unsafe"):
        Checkers("bubblewrap")
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(BontuneError, match="No permissions to create new namespace"):
        Checkers("bubblewrap")


def test_humaneval_program_is_prompt_and_completion() -> None:
    program = humaneval_program(ROW, "    return 1\n", timeout_s=3.0, memory_mb=99)
    assert program.source == ROW["prompt"] + "    return 1\n"
    assert (program.timeout_s, program.memory_mb, program.entry_point) == (3.0, 99, "double")


def test_all_of_the_folder_inside_is_sent_and_nothing_else() -> None:
    files = {path.name: path.read_text() for path in Path(inside.__path__[0]).iterdir() if path.is_file()}
    sent = {name: source for name, source in sources_inside().items() if source}
    assert {f"{name.removeprefix(inside.__name__).lstrip('.') or '__init__'}.py" for name in sent} == files.keys()
    assert sorted(sent.values()) == sorted(files.values())
