"""Programs that are not run again: the verdicts are those of running each for each problem; the file stays whole."""

from __future__ import annotations

import ast
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

import bontune.tasks.programs_running as programs_running
from bontune.base.errors import BontuneError
from bontune.base.grades import Grade, Verdict
from bontune.base.problems import Problem
from bontune.engines.contract import SamplingOptions
from bontune.engines.transformers import TransformersEngine
from bontune.models import load_model
from bontune.pools.collect import grade_all
from bontune.sandbox.programs import Outcome, Program, check_programs, sandbox_name
from bontune.tasks.programs import Programs, normal_form
from bontune.tasks.programs_grammar import INPUTS
from bontune.tasks.programs_outcomes import FILE_VARIABLE, MEMORY, OutcomeMemory, Remembered, is_repeatable, key_prefix
from bontune.tasks.programs_running import is_plain_expression, run_programs

TEST = """
def is_same(wanted, got):
    if isinstance(wanted, list):
        return type(got) is list and len(got) == len(wanted) and all(map(is_same, wanted, got))
    return type(got) is int and got == wanted

def check(candidate):
    found = candidate([list(given) for given in {inputs!r}])
    wanted = {outputs!r}
    assert type(found) is list and len(found) == len(wanted)
    assert all(map(is_same, wanted, found))
"""
"""The whole comparison by the sandbox's trusted side, problem by problem: another implementation."""

ODD = (
    # change their input, or keep something between calls
    "x.append(x[0])",
    "x.sort() or x",
    "x.reverse() or x",
    "[x.pop(), x.pop()]",
    "(x.clear(), 1)[1]",
    "x.insert(0,1) or x",
    "[x.pop(0) for v in list(x)]",
    "globals().setdefault('n',[]).append(1) or len(globals()['n'])",
    "globals().setdefault('n',[]).append(x[0]) or globals()['n'][0]",
    "(lambda a=[]: a.append(1) or len(a))()",
    "setattr(f,'n',getattr(f,'n',0)+1) or f.n",
    "f.__dict__.setdefault('seen',[]).append(x) or f.seen[0]",
    # types, sizes, no plain data
    "True",
    "1.0",
    "x[0]*1.0",
    "tuple(x)",
    "set(x)",
    "None",
    "'1'",
    "b'1'",
    "[v==1 for v in x]",
    "[[v] for v in x]",
    "[[]]",
    "(v for v in x)",
    "map(int,x)",
    "iter(x)",
    "len",
    "lambda:1",
    "object()",
    "10**400",
    "10**5000",
    "-10**5000",
    "1<<3000",
    "x*10**9",
    "x*10**5",
    "[0]*300000",
    "range(3)",
    "{}",
    "{1:2}",
    "1j",
    "float('nan')",
    "[x,x]",
    "x.append(x) or x",
    "...",
    # raise, exit, end the process, run on
    "1/0",
    "x[9]",
    "x.foo",
    "undefined",
    "f(x)",
    "(lambda f:f(f))(lambda f:f(f))",
    "exit()",
    "__import__('sys').exit(0)",
    "__import__('os')._exit(0)",
    "__import__('os').abort()",
    "10**10**10",
    "(yield)",
    "await x",
    "(yield x)",
    "int('x')",
    # try to cheat
    "globals().update(outputs=lambda i:0)",
    "globals().update(outputs=lambda i:[0]*len(i))",
    "globals().__setitem__('f',lambda x:1) or 0",
    "type('L',(list,),{'__eq__':lambda s,o:True})(x)",
    "type('I',(int,),{'__eq__':lambda s,o:True})(1)",
    "type('L',(list,),{'__iter__':lambda s:iter([])})(x)",
    "__import__('sys')._getframe(2).f_locals",
    "__import__('sys')._getframe(1).f_locals['inputs']",
    "__import__('os').write(4,b'0'*8) or 0",
    "__import__('builtins').__dict__.update(list=set) or x",
    "open('y','w') and 1",
    "';'.join(map(str,x))",
    "'?'",
    "['?']",
    "str(x)",
    "f'{x}'",
    "__import__('sys').modules['solution']",
    "x.append(9) or len(x)-1",
    "sum(x)",
    "sorted(x)",
    "sorted(set(x))",
    "[v for v in x if v>3]",
    "x[::-1]",
    "len(x)",
    "x",
)


SHARING = (
    # a name that one lambda binds, free outside it: another program, the table of them, the builtins
    "(lambda f0: 0, f0(x))[1]",
    "(lambda f: 0, f(x))[1]",
    "(lambda FUNCTIONS: 0, FUNCTIONS[0](x))[1]",
    "(lambda __builtins__: 0, [0 for __builtins__[max(dict(sorted=0))] in [lambda *a, **k: [4, 2]]])[1]",
    "(lambda __builtins__: 0, __builtins__[max(dict(id=0))](x))[1]",
    "[is_plain for is_plain in x] and is_plain(x)",
    # addresses: in a set's order, through frames, in text
    "[g(x) for g in {lambda v: 1, lambda v: 2, lambda v: 3}]",
    "[i for i, v in enumerate({(None,), *x})]",
    "list({len, abs, max}).index(len)",
    "list(set(map(float, x)))",
    "{v: 0 for v in {range(0), range(1)}}",
    "(v for v in x).gi_frame.f_builtins[max(dict(id=0))](x)",
    "(1).to_bytes(1, max(dict(big=0)))",
)
"""Expressions without text or names of their own that an earlier rule let share a process, or be remembered."""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    MEMORY.forget()
    yield
    MEMORY.forget()


@cache
def sampled() -> list[tuple[Problem, list[str]]]:
    """What the shipped model writes for some problems."""
    problems = Programs().problems("validation")[:32]
    model, tokenizer = load_model("programs-tiny")
    options = SamplingOptions(num_samples=40, max_new_tokens=32, temperature=1.2)
    keys = [(0, problem.id) for problem in problems]
    samples = TransformersEngine(model, tokenizer).draw([problem.prompt for problem in problems], options, keys)
    return list(zip(problems, samples.texts, strict=True))


def verdicts_one_by_one(problem: Problem, forms: Sequence[str], texts: Sequence[str]) -> dict[str, Verdict]:
    test = TEST.format(inputs=problem.row["inputs"], outputs=problem.row["outputs"])
    jobs = [
        Program(
            source=programs_running._ALONE.format(expression=text.strip()),
            entry_point="outputs",
            check=test,
            timeout_s=programs_running.TIMEOUT_S,
            memory_mb=programs_running.MEMORY_MB,
        )
        for text in texts
    ]
    return {form: outcome.verdict for form, outcome in zip(forms, check_programs(jobs), strict=True)}


def assert_same_verdicts(problem: Problem, completions: Sequence[str]) -> int:
    """Against each program run for this problem; returns how many there were."""
    by_form = {form: text for text in completions if (form := normal_form(text)) is not None}
    expected = verdicts_one_by_one(problem, list(by_form), list(by_form.values()))
    grades = Programs().grade(problem, completions)
    found = {grade.answer: grade.verdict for grade in grades if grade.answer is not None}
    assert found == expected
    return len(expected)


def custom(outputs: Sequence[object]) -> Problem:
    return Problem(id="x", prompt="", reference="", row={"inputs": ((3, 1, 2), (5, 0, 4)), "outputs": outputs})


# ---- verdicts ----


def test_what_the_model_writes_gets_the_verdict_that_it_gets_when_run_for_each_problem() -> None:
    num_compared = sum(assert_same_verdicts(problem, texts) for problem, texts in sampled())
    assert num_compared >= 400, "distinct completions"
    problem, texts = sampled()[0]
    others = [text for _, other in sampled()[1:18] for text in other]
    assert assert_same_verdicts(problem, [*texts, *others, problem.reference]) > 200, "all of these are remembered"


@pytest.mark.parametrize(
    "outputs",
    [
        [[1, 2, 3], [0, 4, 5]],
        [1, 1],
        [3, 3],
        [6, 9],
        [1, 2],
        [[1, 2, 3, 3], [0, 4, 5, 5]],
        [[2, 1, 3], [4, 0, 5]],
        [[[3], [1], [2]], [[5], [0], [4]]],
        [1 << 3000, 1 << 3000],
        [[3, 1, 2], [5, 0, 4]],
    ],
)
def test_odd_and_hostile_programs_get_the_verdict_that_they_get_alone(outputs: list[object]) -> None:
    slow = {"10**10**10"} if outputs != [1, 1] else set[str]()  # takes the whole time: once is enough
    assert assert_same_verdicts(custom(outputs), [text for text in ODD if text not in slow]) > 70


def test_remembering_changes_no_grade() -> None:
    """Asked twice, in another order, of another problem first: every field of a grade is the same."""
    for problem, other in [(custom([6, 9]), custom([[1, 2, 3], [0, 4, 5]])), (custom([1, 2]), custom([3, 3]))]:
        texts = [text for text in ODD if text != "10**10**10"]
        MEMORY.forget()
        alone = Programs().grade(problem, texts)
        MEMORY.forget()
        Programs().grade(other, texts[::-1])
        after: list[Grade] = [Programs().grade(problem, [text])[0] for text in texts]
        reasons = [(one, two) for one, two in zip(alone, after, strict=True) if one != two]
        # An address, or the moment in which a process is noticed dead, may stand in a reason; nothing else differs.
        assert [(one.verdict, one.answer) for one, _ in reasons] == [(two.verdict, two.answer) for _, two in reasons]
        assert len(reasons) <= 3, reasons


# ---- programs that share a process ----


def test_a_program_in_a_group_ends_as_it_does_alone() -> None:
    """Every field of an outcome, of what the model writes and of odd and hostile programs in the same groups."""
    written = list(dict.fromkeys(f for _, texts in sampled() for t in texts if (f := normal_form(t)) is not None))
    unsteady = [normal_form(text) for text in SHARING]
    odd = [form for text in (*ODD, *SHARING) if text != "10**10**10" and (form := normal_form(text)) is not None]
    for forms, inputs in [(written, INPUTS), ([*odd, *written[:60]], ((3, 1, 2), (5, 0, 4)))]:
        together = run_programs(forms, inputs)
        alone = {form: run_programs([form], inputs)[form] for form in forms}
        assert set(together) == set(forms)
        lasting = [form for form in forms if form not in unsteady]
        differ = [form for form in lasting if _told(together[form]) != _told(alone[form])]
        # An address, or the moment in which a process is noticed dead, may stand in a reason; nothing else differs.
        assert [_told(together[form])[:-1] for form in differ] == [_told(alone[form])[:-1] for form in differ]
        assert not any(is_repeatable(form) for form in differ if " at 0x" not in alone[form].reason)
        assert len(differ) <= 6, [(together[form], alone[form]) for form in differ]
    assert sum(map(is_plain_expression, written)) > 0.8 * len(written), "most share a process"


def _told(outcome: Outcome) -> tuple[object, ...]:
    return outcome.passed, outcome.verdict, outcome.isolation, outcome.answer, outcome.reason


def test_what_ends_a_group_ends_none_of_its_other_programs() -> None:
    """Out of time, out of memory, too long an answer, too deep to compile: the others get their outcomes."""
    others = [f"sorted(x)[{number}:]" for number in range(20)]
    endless, huge, long, deep = "[v for v in range(10 ** 12)][0]", "[0] * 10 ** 12", "[0] * 300000", "[" * 90 + "]" * 90
    forms = [endless, *others[:7], huge, *others[7:15], long, deep, *others[15:]]
    assert all(map(is_plain_expression, forms))
    outcomes = run_programs(forms, ((3, 1, 2),))
    assert outcomes[endless].verdict is not Verdict.PASSED
    assert outcomes[huge].reason.startswith("the program raised MemoryError")
    assert [outcomes[text].answer for text in others[:4]] == ["[1,2,3]", "[2,3]", "[3]", "[]"]
    assert all(outcomes[text].passed for text in others)


@pytest.mark.parametrize("text", SHARING[:6])
def test_no_program_takes_from_another_or_changes_what_it_does(text: str) -> None:
    """What an attack could do when names were not told apart by scope."""
    victims = ["sorted(x)", "len(x)", "sorted(x)[::-1]"]
    outcomes = run_programs([victims[0], str(normal_form(text)), *victims[1:]], ((3, 1, 2),))
    assert not is_repeatable(str(normal_form(text)))
    assert [outcomes[victim].answer for victim in victims] == ["[1,2,3]", "3", "[3,2,1]"]


def test_a_timeout_does_not_make_its_group_wait_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    real = programs_running.check_programs
    monkeypatch.setattr(programs_running, "check_programs", lambda jobs: (rounds.append(len(jobs)), real(jobs))[1])
    forms = [f"x[0] + {number}" for number in range(30)] + ["any(v < 0 for v in range(10 ** 11))"]
    outcomes = run_programs(forms, ((3, 1, 2),))
    assert outcomes[forms[-1]].verdict is Verdict.TIMEOUT
    assert [outcomes[form].answer for form in forms[:3]] == ["3", "4", "5"]
    assert len(rounds) == 2


@pytest.mark.parametrize(
    "text",
    [
        "x.append(1)",
        "(v for v in x).gi_frame",
        "(lambda: 0).f",
        "[].copy()",
        "id(x)",
        "'a'",
        "f0(x)",
        "FUNCTIONS",
        "is_plain(x)",
        "(f:=x)",
        "__builtins__",
        *SHARING,
    ],
)
def test_what_may_reach_another_program_does_not_share_its_process(text: str) -> None:
    assert not is_plain_expression(text)


def test_grading_many_problems_together_gives_the_grades_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    problems, texts = [problem for problem, _ in sampled()], [completions for _, completions in sampled()]
    separate = [Programs().grade(problem, completions) for problem, completions in sampled()]
    MEMORY.forget()
    polled: list[None] = []
    grades = grade_all(Programs(), problems, texts, lambda: polled.append(None))
    assert [[astuple(g) for g in row] for row in grades] == [[astuple(g) for g in row] for row in separate]
    assert len(polled) >= len(problems) + 1
    MEMORY.forget()
    Programs().prepare_grades(problems, texts)
    monkeypatch.setattr(programs_running, "check_programs", None)
    lasting = [text for text in texts[0] if (form := normal_form(text)) is not None and is_repeatable(form)]
    assert len(grade_all(Programs(), problems[:1], [lasting], None)[0]) > 20, "nothing of these is left to run"


# ---- what is remembered ----


def test_what_may_differ_between_runs_runs_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    real = programs_running.check_programs

    def counted(jobs: list[Program]) -> list[Outcome]:
        ran.extend(text for job in jobs for text in re.findall(r"return \(\n(.*)\n    \)", job.source))
        return real(jobs)

    monkeypatch.setattr(programs_running, "check_programs", counted)
    every_time = [
        "id(x)%7",
        "hash('a')",
        "__import__('random').random()",
        "__import__('os')._exit(0)",
        "str(object())",
        "10**10**10",
        "x*10**8",
        "open('y')",
        "f(x)",
        "'{0.append}'.format(x)",
    ]
    once = ["sorted(x)", "x[9]", "[v * v for v in x]", "x.pop()", "True", "max(x, key=lambda v: -v)"]
    Programs().grade(custom([1, 1]), [*every_time, *once])
    assert {normal_form(text) for text in ran} == {normal_form(text) for text in (*every_time, *once)}
    ran.clear()
    Programs().grade(custom([2, 2]), [*every_time, *once])
    assert {normal_form(text) for text in ran} == {normal_form(text) for text in every_time}


@pytest.mark.parametrize(
    "text",
    [
        *SHARING,
        "id(x)",
        "hash(x[0])",
        "x.__class__",
        "x.__len__()",
        "f(x)",
        "outputs",
        "globals()",
        "'a'",
        "f'{x}'",
        "b'a'",
        "str(x)",
        "[id for id in x]",
        "[f for f in x]+[f]",
        "(lambda id:1)(1)+id(x)",
        "y",
        "print(x)",
        "getattr(x,'pop')",
        "repr(x)",
        "type(x)",
        "(hash:=1)",
        "object()",
        "(yield)",
        "__import__",
        "[0 for v in x if __debug__]",
        "vars()",
        "open",
    ],
)
def test_what_reaches_beyond_its_input_is_not_repeatable(text: str) -> None:
    assert not is_repeatable(text)


def test_what_the_grammar_and_the_model_write_is_repeatable() -> None:
    texts = [problem.reference for problem in Programs().problems("train")]
    assert all(map(is_repeatable, texts))
    written = {form for _, completions in sampled() for text in completions if (form := normal_form(text)) is not None}
    assert sum(map(is_repeatable, written)) > 0.95 * len(written)
    assert is_repeatable("(lambda a,b=1:[c for c in map(lambda v:v+b,a)])(x)")
    assert not is_repeatable("-" * 5000 + "x")


def test_repeatable_programs_have_no_name_that_they_do_not_define() -> None:
    """A second reading of the rule: the interpreter's own list of the global names that an expression uses."""
    for text in ODD:
        form = normal_form(text)
        if form is None or not is_repeatable(form):
            continue
        codes = [compile(ast.parse(form, mode="eval"), "", "eval")]
        for code in codes:
            codes += [const for const in code.co_consts if isinstance(const, type(code))]
            assert not any(name.startswith("_") for name in code.co_names)
            assert not set(code.co_names) & {"f", "outputs", "globals", "open", "id", "hash", "getattr", "setattr"}


def test_memory_is_bounded_and_keeps_what_was_used_last() -> None:
    memory = OutcomeMemory(max_remembered=10)
    outcome = Outcome(passed=True, reason="", seconds=0.0, verdict=Verdict.PASSED, isolation="x", answer="1;2")
    for number in range(30):
        memory.add("p", {f"x[{number}]": outcome}, isolation="x")
        memory.find("p", ["x[0]"], isolation="x")
    assert set(memory.find("p", [f"x[{number}]" for number in range(30)], isolation="x")) == {
        "x[0]",
        *(f"x[{number}]" for number in range(21, 30)),
    }
    memory.add("p", {"x": replace(outcome, answer="1" * 5000)}, isolation="x")
    for verdict in (Verdict.TIMEOUT, Verdict.CRASHED, Verdict.GRADER_ERROR):
        memory.add("p", {"x": replace(outcome, verdict=verdict)}, isolation="x")
    assert not memory.find("p", ["x"], isolation="x")
    assert not memory.find("q", ["x[0]"], isolation="x")


def test_keys_tell_apart_what_decides() -> None:
    assert len({key_prefix("a", 1), key_prefix("a", 2), key_prefix("b", 1), key_prefix()}) == 4
    assert key_prefix("a", [[1]]) == key_prefix("a", [[1]])


# ---- the file ----


def test_the_file_serves_another_process_and_another_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "deep" / "c.sqlite"))
    texts = ["sorted(x)", "x[9]", "10**400", "id(x)%2", "__import__('os')._exit(0)"]
    first = Programs().grade(custom([[1, 2, 3], [0, 4, 5]]), texts)
    script = (
        "import bontune.tasks.programs as p, bontune.tasks.programs_running as r, re\n"
        "ran = []\nreal = r.check_programs\n"
        "expressions = lambda job: re.findall(r'return \\(\\n(.*)\\n    \\)', job.source)\n"
        "r.check_programs = lambda jobs: (ran.extend(e for j in jobs for e in expressions(j)), real(jobs))[1]\n"
        "from bontune.base.problems import Problem\n"
        "problem = Problem(id='x', prompt='', reference='', row={'inputs': ((3, 1, 2), (5, 0, 4)),"
        " 'outputs': [[1, 2, 3], [0, 4, 6]]})\n"
        f"grades = p.Programs().grade(problem, {texts!r})\n"
        "print([g.verdict.value for g in grades], grades[1].reason, ran, sep='|')\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    verdicts, reason, ran = said.split("|")
    assert ast.literal_eval(verdicts) == ["failed", "failed", "failed", "failed", "crashed"]
    assert reason == first[1].reason
    assert ast.literal_eval(ran) == ["id(x) % 2", "__import__('os')._exit(0)"]
    assert first[0].verdict is Verdict.PASSED


def test_unisolated_programs_leave_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.sqlite"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    outcome = Outcome(passed=True, reason="", seconds=0.0, verdict=Verdict.PASSED, isolation="unsafe", answer="1")
    memory = OutcomeMemory()
    memory.add("p", {"x": outcome}, isolation="unsafe")
    assert memory.find("p", ["x"], isolation="unsafe")
    assert not file.exists()


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.sqlite"
    file.write_text("this is no database " * 100)
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    with pytest.raises(BontuneError, match=f"{FILE_VARIABLE} name a file"):
        Programs().grade(custom([1, 1]), ["1"])
    monkeypatch.setenv(FILE_VARIABLE, str(file / "under a file"))
    with pytest.raises(BontuneError, match="remembered programs"):
        Programs().grade(custom([1, 1]), ["1"])


def test_a_file_that_breaks_or_lies_later_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.sqlite"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    assert Programs().grade(custom([[1, 2, 3], [0, 4, 5]]), ["sorted(x)"])[0].reward == 1.0
    MEMORY.forget()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE outcomes SET answer = NULL")
    connection.close()
    (grade,) = Programs().grade(custom([[1, 2, 3], [0, 4, 5]]), ["sorted(x)"])
    assert grade.reward == 1.0, "a row of no meaning is none"
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE outcomes")
    connection.close()
    with pytest.warns(UserWarning, match="no longer used"):
        assert Programs().grade(custom([[1, 2, 3], [0, 4, 5]]), ["sorted(x)", "x"])[0].reward == 1.0


WRITER = """
import sys
from bontune.sandbox.programs import Outcome
from bontune.base.grades import Verdict
from bontune.tasks.programs_outcomes import OutcomeMemory
memory = OutcomeMemory()
print("ready", flush=True)
for round in range(100_000):
    outcomes = {}
    for number in range(round * 7, round * 7 + 40):
        about = dict(passed=True, reason="", seconds=0.0, verdict=Verdict.PASSED, isolation="x")
        outcomes[f"x[{number}]"] = Outcome(**about, answer=";".join([str(number)] * 48))
    memory.add("p", outcomes, isolation="x")
    print(round, flush=True)
"""


def test_writers_at_the_same_time_that_are_killed_leave_whole_rows(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    environment = {**os.environ, FILE_VARIABLE: str(file)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITER], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(3)
    ]
    rounds = []
    for writer in writers:
        assert writer.stdout is not None
        lines = list(islice(writer.stdout, 26))
        rounds.append(int(lines[-1]))
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL, "it ran until it was killed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FILE_VARIABLE, str(file))
        numbers = range(min(rounds) * 7 + 40)
        found = OutcomeMemory().find("p", [f"x[{number}]" for number in numbers], isolation="x")
    assert found == {f"x[{n}]": Remembered(answer=";".join([str(n)] * 48), reason="") for n in numbers}
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_the_isolation_is_part_of_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = []
    real = MEMORY.find

    def spied(prefix: str, forms: Sequence[str], *, isolation: str) -> dict[str, Remembered]:
        prefixes.append((prefix, isolation))
        return real(prefix, forms, isolation=isolation)

    monkeypatch.setattr(MEMORY, "find", spied)
    Programs().grade(custom([1, 1]), ["1"])
    Programs().grade(Problem(id="y", prompt="", reference="", row={"inputs": ((1,),), "outputs": [1]}), ["1"])
    assert prefixes[0][1] == sandbox_name()
    assert prefixes[0][0] != prefixes[1][0]
