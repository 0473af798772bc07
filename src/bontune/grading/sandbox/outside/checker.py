"""The checker: a trusted process that judges one program after another, each in a fresh isolated process.

It executes the row's own code here and the program in there. A test runs against stand-ins (``session``). How it ends
decides:

- it returns, and the conversation had no fault: passed;
- an assertion fails, or what the candidate raised comes through: failed;
- the candidate runs out of time, or its process ends: timeout, crashed;
- the test raises anything else: failed once the candidate has given a value or raised, since on the reference's
  values it raises nothing; a grader error before, and always for a name or module that the test itself lacks, or a
  test that does not compile. A data set's references, checked when it loads, tell which tests are broken.

A test may hang on what a program returned, in C code that no signal interrupts; then this process is killed, and with
it the isolation. Jobs come in as pickles, from the process that started this one and from nowhere else; results go out
as JSON, because they are made of what a model wrote.
"""

from __future__ import annotations

import ast
import ctypes
import dataclasses
import json
import os
import pickle
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any, BinaryIO

import bontune.grading.sandbox.inside.wire as wire
from bontune.base.errors import BontuneError
from bontune.grading.sandbox.outside.interpreter import Sandbox, SandboxFailure
from bontune.grading.sandbox.outside.isolation import BACKENDS
from bontune.grading.sandbox.outside.probe import probe
from bontune.grading.sandbox.outside.session import Remote, Session
from bontune.grading.verdict import Judgement, Verdict
from bontune.grading.workers import FRAME

Check = Callable[[Callable[..., Any]], object]

_TEST_FILE = "<test>"
_HELPERS_FILE = "<helpers>"
_MEMORY_BYTES = 4 << 30
"""Soft limit of the checker's own address space: what a test makes of an answer must not fill the machine."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A program and what it is asked."""

    source: str
    """The whole program: the prompt's part and the model's continuation."""
    entry_point: str
    """The function that the program must define; ``check`` gets a stand-in for it."""
    check: str | Check
    """The test: source that defines ``check(candidate)``, or source that asserts by the entry point's name, or a
    function of a module that can be imported (or a ``functools.partial`` of one). It fails by ``AssertionError``; text
    that a function returns becomes the outcome's ``answer``."""
    other_names: tuple[str, ...] = ()
    """More names that the program must define, because a test in source form uses them, such as a class ``Node``. Only
    then may its values be objects of its own; else a test can call them or go through them once, and no more."""
    helpers: str = ""
    """Trusted source that is executed before a test in source form: the row's prompt, imports."""
    timeout_s: float = 5.0
    """Seconds for everything: loading, every call, the test's own work."""
    memory_mb: int = 1024
    """Address space of the program's process."""
    max_reply_bytes: int = 1_000_000
    """Most bytes of one answer of the program."""


def requirements(tests: str, reference: str) -> tuple[tuple[str, ...], str]:
    """Find out what tests that were written against a reference need: of a program, and besides.

    A test that asserts by name, like MBPP's, may use a class that the reference defines, or a module that it imports.
    The names are the program's to define; the modules are imported on the trusted side, or a program could bring a
    ``math`` of its own, whose ``isclose`` says yes.

    Args:
        tests: their source.
        reference: a program that passes them.

    Returns:
        The functions and classes that the reference defines and the tests use, in order of definition, and the import
        statements of the reference that the tests rely on: ``other_names``, ``entry_point`` and ``helpers`` of Program.

    Raises:
        SyntaxError: the tests or the reference are no Python.

    Example:
        >>> requirements("assert isclose(area(Box(2)), 4)", "from math import *\\nclass Box: ...\\ndef area(box): ...")
        (('Box', 'area'), 'from math import *')
    """
    used = {node.id for node in ast.walk(_parse(tests)) if isinstance(node, ast.Name)}
    names = []
    imports = []
    for statement in _parse(reference).body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and statement.name in used:
            names.append(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            bound = {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
            if "*" in bound or bound & used:
                imports.append(ast.unparse(statement))
    return tuple(dict.fromkeys(names)), "\n".join(imports)


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():  # other people's code: its odd escapes are not our user's business
        warnings.simplefilter("ignore")
        return ast.parse(source)


def compile_test(program: Program) -> Judgement | Callable[[dict[str, Any]], object]:
    """Compile the test. Returns a function that runs it on the stand-ins by name; or the grader error."""
    if callable(program.check):
        function = program.check
        return lambda stand_ins: function(stand_ins[program.entry_point])
    try:
        test = _compile(program.check, _TEST_FILE)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Judgement(verdict=Verdict.GRADER_ERROR, reason=f"the test does not compile: {error}")
    source = program.check

    def run(stand_ins: dict[str, Any]) -> object:
        names: dict[str, Any] = {"__name__": "bontune_test"}
        helpers = _compile_helpers(program.helpers)
        if helpers is not None:
            exec(helpers, names)
        names.update(stand_ins)
        try:
            exec(test, names)
            return names["check"](stand_ins[program.entry_point]) if _defines_check(source) else None
        finally:  # its functions refer to it: a cycle that keeps what the program gave, gigabytes, until a collection
            names.clear()

    return run


@lru_cache(maxsize=64)
def _compile(source: str, file: str) -> CodeType:
    return compile(source, file, "exec", dont_inherit=True)


@lru_cache(maxsize=64)
def _compile_helpers(source: str) -> CodeType | None:
    """A prompt ends in the middle of a function: with a docstring it compiles as it stands, else with a body added."""
    for text in (source, f"{source}\n    pass\n"):
        try:
            return _compile(text, _HELPERS_FILE)
        except (SyntaxError, ValueError):
            continue
    return None  # no Python: it can define no helper either; a test that needs one is a grader error


@lru_cache(maxsize=64)
def _defines_check(source: str) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in ast.parse(source).body)


def run_test(session: Session, program: Program, run: Callable[[dict[str, Any]], object]) -> Judgement:
    """Load the program and run the test against it."""
    session.allows_objects = bool(program.other_names)
    try:
        answer = run(_load(session, program))
    except BaseException as error:
        if session.fault is None:
            return _judge_error(session, error)
    if session.fault is not None:  # even if a bare ``except:`` of the test's has swallowed it
        return session.fault.judgement
    if time.monotonic() > session.deadline:
        return Judgement(verdict=Verdict.TIMEOUT, reason="the test ran out of time")
    is_answer = callable(program.check) and type(answer) is str  # of a test in source form it may be the program's text
    return Judgement(verdict=Verdict.PASSED, answer=str(answer) if is_answer else "")


def _load(session: Session, program: Program) -> dict[str, Any]:
    names = (program.entry_point, *program.other_names)
    stand_ins = session.load(program.source, names)
    missing = [name for name in names if name not in stand_ins]
    if missing:
        raise session.fail(Verdict.FAILED, f"the program does not define {', '.join(missing)}")
    if type(stand_ins[program.entry_point]) is not Remote:
        raise session.fail(Verdict.FAILED, f"{program.entry_point} is no function")
    return {name: stand_ins[name] for name in names}


def _judge_error(session: Session, error: BaseException) -> Judgement:
    where = _where(error)
    if error is session.last_raised:
        return Judgement(verdict=Verdict.FAILED, reason=f"the program raised {_phrase(error)}{where}")
    note = "; the program returned an object that is no plain data" if session.has_given_object else ""
    if isinstance(error, AssertionError):
        message = _phrase(error).removeprefix("AssertionError").removeprefix(": ")
        reason = f"an assertion failed{where}: {message}".removesuffix(": ") + note
        return Judgement(verdict=Verdict.FAILED, reason=reason)
    has_given = session.num_values > 0 or session.last_raised is not None
    if isinstance(error, wire.WireError) and not (isinstance(error, wire.TooDeep) and has_given):
        return Judgement(verdict=Verdict.GRADER_ERROR, reason=f"the test cannot ask this{where}: {_phrase(error)}")
    is_lacking = isinstance(error, (NameError, ImportError)) and not isinstance(error, UnboundLocalError)
    if not has_given or is_lacking or not isinstance(error, Exception):
        return Judgement(verdict=Verdict.GRADER_ERROR, reason=f"the test raised {_phrase(error)}{where}")
    reason = f"the test raised {_phrase(error)}{where} on the program's values{note}"
    return Judgement(verdict=Verdict.FAILED, reason=reason)


def _where(error: BaseException) -> str:
    lines = [
        number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == _TEST_FILE
    ]
    return f" at line {lines[-1]} of the test" if lines else ""


def _phrase(error: BaseException) -> str:
    """Type and message of what a test or a candidate raised.

    The message is made of plain data and stand-ins, neither of which runs code of the model's.
    """
    try:
        message = repr(str(error))[1:-1][:200]
    except Exception:  # such as an int of more digits than Python writes, or a class of the test's own
        message = ""
    return f"{type(error).__name__}: {message}".removesuffix(": ")


def judge_program(
    sandbox: Sandbox, program: Program, tell: Callable[[str], None] = lambda _: None
) -> tuple[Judgement, float]:
    """Judge a program, with one more try if the isolation breaks down. Returns the judgement and the seconds it took.

    Args:
        sandbox: where the program runs; it is replaced if it breaks down.
        program: what is judged.
        tell: called with "started" when its clock starts, and "stopped" when it stops: then comes the cleaning.
    """
    test = compile_test(program)
    started = time.monotonic()
    if isinstance(test, Judgement):
        return test, 0.0
    reason = ""
    for _ in range(2):
        started = time.monotonic()
        tell("started")
        try:
            session = sandbox.zygote().open(
                timeout_s=program.timeout_s, memory_mb=program.memory_mb, max_reply_bytes=program.max_reply_bytes
            )
        except (SandboxFailure, BontuneError) as error:
            reason = str(error)
            sandbox.discard()
            continue
        # The clock stops before the cleaning, which is not the program's.
        judgement = run_test(session, program, test)
        elapsed = time.monotonic() - started
        tell("stopped")
        session.close()
        try:
            status, note = sandbox.zygote().end()
        except SandboxFailure as error:
            reason = str(error)
            sandbox.discard()
            if judgement.verdict is Verdict.PASSED:  # it came from the isolation as it was before it broke
                continue
            return judgement, elapsed
        return _with_cause(judgement, status, note), elapsed
    return Judgement(verdict=Verdict.GRADER_ERROR, reason=f"the sandbox broke down: {reason}"), 0.0


def _with_cause(judgement: Judgement, status: int, note: str) -> Judgement:
    """The judgement with what ended the process, where it ended by itself."""
    if judgement.verdict is not Verdict.CRASHED:
        return judgement
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if note:
        cause = f": {note}"
    elif number in set(signal.Signals):
        cause = f" by {signal.Signals(number).name}"
    else:
        cause = f": signal {number}" if number else f": exit status {os.WEXITSTATUS(status)}"
    return dataclasses.replace(judgement, reason=judgement.reason + cause)


def judge_jobs(backend_name: str, parent: int, path: list[str]) -> None:
    """Judge programs until the pool hangs up or its process ends.

    Args:
        backend_name: the isolation.
        parent: the process that started this one.
        path: its ``sys.path``, so that functions that it names can be imported here.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    sys.path.extend(entry for entry in path if entry not in sys.path)
    jobs, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES if hard == -1 else min(hard, _MEMORY_BYTES), hard))
    try:
        sandbox = Sandbox(BACKENDS[backend_name])
    except (BontuneError, OSError) as error:
        _tell(results, {"event": "unavailable", "reason": str(error)})
        return
    os.dup2(null, 2)
    _tell(results, {"event": "ready"})
    try:
        while header := jobs.read(FRAME.size):
            _do(sandbox, jobs.read(FRAME.unpack(header)[0]), results)
    finally:
        sandbox.discard()


def _do(sandbox: Sandbox, message: bytes, results: BinaryIO) -> None:
    try:
        job = pickle.loads(message)
    except Exception as error:  # unpickling imports the module of a check: it may fail in any way
        reason = f"the check cannot be imported by another process: {type(error).__name__}: {error}"
        judgement, seconds = Judgement(verdict=Verdict.GRADER_ERROR, reason=reason), 0.0
    else:
        if job == "probe":
            _tell(results, {"event": "probed", "attacks": [dataclasses.asdict(attack) for attack in probe(sandbox)]})
            return
        judgement, seconds = judge_program(sandbox, job, lambda event: _tell(results, {"event": event}))
    _tell(results, {"event": "judged", "seconds": seconds, **dataclasses.asdict(judgement)})


def _tell(results: BinaryIO, event: dict[str, Any]) -> None:
    data = json.dumps(event).encode()
    results.write(FRAME.pack(len(data)) + data)
    results.flush()
