"""Programs: functions that differ, tests that tell them apart, grades from the real sandbox."""

from __future__ import annotations

import ast
import gzip
import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import programs_problems as drawing
import pytest
from embedded_problems import as_lines, write_problems
from programs_grammar import INPUTS, TASK, behaviour_of, compile_own, draw_input, draw_program
from programs_problems import demonstrations, held_out_behaviours

import bontune.tasks.programs as programs
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.grading.verdict import Verdict
from bontune.tasks.base import Task
from bontune.tasks.embedded import FOLDER
from bontune.tasks.programs import Programs, normal_form

SPLITS = ("train", "validation", "test")
CHANGE_WORDS = {ast.Add: "add", ast.Sub: "add", ast.Mult: "times", ast.Mod: "rest"}
HINT_WORDS = {
    "sort",
    "reverse",
    "cut",
    "unique",
    "keep",
    "pairs",
    "join",
    "measure",
    "combine",
    "from",
    "limit",
    *CHANGE_WORDS.values(),
}


def everything() -> list[Problem]:
    return [problem for split in SPLITS for problem in Programs().problems(split)]


def custom(outputs: list[Any], inputs: tuple[tuple[int, ...], ...] = ((3, 1, 2), (5, 0, 4))) -> Problem:
    return Problem(id="x", prompt="", reference="", row={"inputs": inputs, "outputs": outputs, "shown": [0]})


def drawn(folder: Path, seed: int, *, is_hard: bool = False) -> Programs:
    """The task with problems of another seed, by way of a file."""
    path = folder / f"{seed}-{is_hard}.jsonl.gz"
    write_problems(path, drawing.problem_rows(seed, is_hard))
    return Programs(data=path)


@cache
def fresh_inputs() -> list[list[int]]:
    rng = random.Random(7)
    return [draw_input(rng) for _ in range(400)]


def outputs_of(text: str, inputs: Sequence[Sequence[int]]) -> list[object]:
    """What a program of ours, or a mutant of one, does; failing counts as a value."""
    function = compile_own(text)
    outputs: list[object] = []
    for given in inputs:
        try:
            outputs.append(function(list(given)))
        except (IndexError, ValueError, ZeroDivisionError, TypeError, AttributeError) as error:
            outputs.append(type(error).__name__)
    return outputs


def mutants(text: str) -> set[str]:
    """Programs one small slip away: another digit, the other comparison, max for min, an operation left out."""
    found = set()
    for match in re.finditer(r"\d", text):
        for digit in (int(match.group()) - 1, int(match.group()) + 1):
            if 1 <= digit <= 9:
                found.add(text[: match.start()] + str(digit) + text[match.end() :])
    swaps = [
        ("<", ">"),
        (">", "<"),
        ("max(", "min("),
        ("min(", "max("),
        ("sum(", "max("),
        ("+", "-"),
        ("-", "+"),
        ("*", "+"),
        ("[::-1]", ""),
        ("sorted(", "("),
        ("[1:]", "[:-1]"),
        ("[0]", "[-1]"),
        ("v%2", "v%3<1"),
    ]
    for old, new in swaps:
        for match in re.finditer(re.escape(old), text):
            found.add(text[: match.start()] + new + text[match.end() :])
    return found - {text}


def compiles(text: str) -> bool:
    try:
        compile_own(text)
    except SyntaxError:
        return False
    return True


# ---- the problems ----


def test_is_a_task_with_the_promised_splits() -> None:
    task = Programs()
    assert isinstance(task, Task)
    assert (task.name, task.stop, task.splits) == ("programs", (), SPLITS)
    assert {split: len(task.problems(split)) for split in SPLITS} == {"train": 6400, "validation": 300, "test": 300}
    with pytest.raises(BontuneError, match="train, validation, test"):
        task.problems("tset")
    with pytest.raises(BontuneError, match="seed"):
        Programs(seed=-1)
    with pytest.raises(BontuneError, match="hard must be true or false, not 'yes'"):
        Programs(hard="yes")  # type: ignore[arg-type]


def test_problems_are_distinct_by_behaviour_across_splits() -> None:
    problems = everything()
    assert len({repr(problem.row["outputs"]) for problem in problems}) == len({p.id for p in problems}) == 7000
    assert len(set(INPUTS)) == 48
    assert all(len(given) == 5 and set(given) <= set(range(10)) for given in INPUTS)


def test_references_do_what_the_rows_say_and_prompts_show_a_part_of_it() -> None:
    for problem in everything():
        function = compile_own(problem.reference)
        assert [function(list(given)) for given in problem.row["inputs"]] == problem.row["outputs"]
        examples = re.findall(r"f\(([^)]*)\)=([^;]*);", problem.prompt)
        assert len(examples) in (2, 3)
        hint, shown_text = problem.prompt.split(":", 1)
        assert shown_text == "".join(f"f({given})={output};" for given, output in examples) + "f(x)="
        assert set(hint.split()) <= HINT_WORDS
        shown = [(list(INPUTS[i]), problem.row["outputs"][i]) for i in problem.row["shown"]]
        assert [(f"{given}".replace(" ", ""), f"{output}".replace(" ", "")) for given, output in shown] == examples
        assert len({output for _, output in examples}) == len(examples)
        assert normal_form(problem.reference) is not None


def test_problems_are_the_same_on_every_machine() -> None:
    """Pinned: pools and the shipped model rely on these very problems. A change is a new task."""
    lines = [
        f"{split} {problem.id} {problem.prompt} {problem.reference} {problem.level}"
        for split in SPLITS
        for problem in Programs().problems(split)
    ]
    drawn_together = [*lines[:1600], *lines[6400:]]
    assert sha256("\n".join(drawn_together).encode()).hexdigest() == (
        "1ddc4f46dbe9e26772fccfea5c68357365ffa21f8accc1bba0e6381c73c07671"
    )
    assert sha256("\n".join(lines).encode()).hexdigest() == (
        "ad18b27d2247e2fc3f9e95fa151edcad6d65e6dd09aac906f4fda6a29db2e658"
    )


@pytest.mark.parametrize("is_hard", [False, True])
def test_the_script_draws_the_problems_that_ship(is_hard: bool) -> None:
    shipped = gzip.decompress((FOLDER / f"programs{'-hard' * is_hard}.jsonl.gz").read_bytes())
    assert as_lines(drawing.problem_rows(0, is_hard)) == shipped


def test_problems_of_another_seed_come_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match=r"only the problems of seed 0 ship, got seed=1.*programs_problems.py"):
        Programs(seed=1)
    other = drawn(tmp_path, 2, is_hard=True).problems("test")
    assert len(other) == 300
    assert [p.id for p in other] != [p.id for p in Programs(hard=True).problems("test")]


def test_hard_problems_are_the_same_on_every_machine() -> None:
    """Pinned as the usual ones are."""
    lines = [
        f"{split} {problem.id} {problem.prompt} {problem.reference} {problem.level}"
        for split in SPLITS
        for problem in Programs(hard=True).problems(split)
    ]
    assert sha256("\n".join(lines).encode()).hexdigest() == (
        "dbb9813ff555680759a6993f13716851de7ae4481f3ce256fa4b07df3c6293af"
    )


@pytest.mark.parametrize("seed", [0, 2])
def test_hard_problems_are_hard_and_none_is_a_usual_one(seed: int, tmp_path: Path) -> None:
    usual, hard = drawn(tmp_path, seed), drawn(tmp_path, seed, is_hard=True)
    assert {split: len(hard.problems(split)) for split in SPLITS} == drawing.SPLIT_SIZES
    problems = [problem for split in SPLITS for problem in hard.problems(split)]
    ids = {problem.id for problem in problems}
    assert len(ids) == len({repr(problem.row["outputs"]) for problem in problems}) == 2200
    assert ids.isdisjoint(problem.id for split in SPLITS for problem in usual.problems(split))
    for problem in problems:
        assert problem.level == 5
        words = problem.prompt.partition(":")[0].split()
        assert len(words) == 3
        assert set(words) <= HINT_WORDS
        assert [compile_own(problem.reference)(list(given)) for given in INPUTS] == problem.row["outputs"]
        assert len(problem.reference) <= drawing.MAX_REFERENCE_LENGTH
        assert len(problem.prompt.partition(":")[2]) <= drawing.MAX_PROMPT_LENGTH
    assert [grade.reward for p in problems[:5] for grade in hard.grade([p], [[p.reference, "x"]])[0]] == [1.0, 0.0] * 5


def test_hard_problems_are_hit_less_often_than_usual_ones() -> None:
    """By random programs of the task's own grammar."""
    rng = random.Random(13)
    found = Counter(behaviour_of(draw_program(rng, TASK).text) for _ in range(1500))
    usual, hard = (
        sum(found[drawing.behaviour_in(problem)] for split in SPLITS for problem in task.problems(split))
        for task in (Programs(), Programs(hard=True))
    )
    assert usual > 1000
    assert hard < 50


def test_levels_fall_as_the_chance_rises_and_all_occur() -> None:
    """A level's problems are hit less often by random programs of the grammar than those of the level below."""
    levels = {
        tuple(tuple(o) if isinstance(o, list) else o for o in p.row["outputs"]): p.level or 0 for p in everything()
    }
    rng, hits, known = random.Random(11), Counter[int](), {}
    for _ in range(12_000):
        text = draw_program(rng, TASK).text
        if text not in known:
            known[text] = behaviour_of(text)
        hits[levels.get(known[text], 0)] += 1
    sizes = Counter(levels.values())
    assert all(sizes[level] > 300 for level in range(1, 6)), sizes
    rates = [hits[level] / sizes[level] for level in range(1, 6)]
    assert all(easier > 1.3 * harder for easier, harder in pairwise(rates)), rates


def test_near_misses_are_told_apart_by_the_tests() -> None:
    """Of the slips that change what a function does at all, nearly all change it on the task's 48 inputs."""
    rng = random.Random(3)
    num_different = num_missed = 0
    for problem in rng.sample(everything(), 120):
        for mutant in sorted(mutants(problem.reference)):
            if compiles(mutant) and outputs_of(mutant, fresh_inputs()) != outputs_of(problem.reference, fresh_inputs()):
                num_different += 1
                num_missed += outputs_of(mutant, INPUTS) == problem.row["outputs"]
    assert num_different > 500
    assert num_missed / num_different < 0.01


def test_prompts_leave_more_than_one_function_open() -> None:
    """Examples alone often leave several functions of the grammar: that makes many attempts worth while."""
    rng = random.Random(5)
    outputs_by_text: dict[str, Any] = {}
    while len(outputs_by_text) < 6000:
        text = draw_program(rng, TASK).text
        outputs_by_text[text] = behaviour_of(text)
    behaviours = {found for found in outputs_by_text.values() if found is not None}
    fitting = []
    for problem in Programs().problems("test")[:100]:
        wanted = tuple(tuple(o) if isinstance(o, list) else o for o in problem.row["outputs"])
        shown = problem.row["shown"]
        fitting.append(sum(all(found[i] == wanted[i] for i in shown) for found in behaviours | {wanted}))
    assert sum(count > 1 for count in fitting) / len(fitting) > 0.25, Counter(fitting)


def test_hints_name_the_operations_in_order() -> None:
    """Against a second reading, from the syntax tree of each reference."""
    for problem in everything():
        assert problem.prompt.partition(":")[0].split() == words_of(ast.parse(problem.reference, mode="eval").body)


def words_of(node: ast.expr) -> list[str]:
    """Kinds of operations of an expression of the grammar, innermost first."""
    match node:
        case ast.Name() | ast.Constant():
            return []
        case ast.Call(func=ast.Name(id="sorted"), args=[ast.Call(func=ast.Name(id="set"), args=[inner])]):
            return [*words_of(inner), "unique"]
        case ast.Call(func=ast.Name(id="sorted"), args=[inner]):
            return [*words_of(inner), "sort"]
        case ast.Call(func=ast.Name(id="len"), args=[ast.Call(func=ast.Name(id="set"), args=[inner])]):
            return [*words_of(inner), "measure"]
        case ast.Call(func=ast.Name(), args=[inner]):
            return [*words_of(inner), "measure"]
        case ast.Subscript(value=inner, slice=ast.Slice(lower=None, upper=None, step=ast.UnaryOp())):
            return [*words_of(inner), "reverse"]
        case ast.Subscript(value=inner, slice=ast.Slice()):
            return [*words_of(inner), "cut"]
        case ast.Subscript(value=inner):
            return [*words_of(inner), "measure"]
        case ast.ListComp(generators=[ast.comprehension(target=ast.Tuple())]):
            return ["pairs"]
        case ast.ListComp(elt=element, generators=[ast.comprehension(iter=inner, ifs=conditions)]):
            return [*words_of(inner), *["keep"] * len(conditions), *change_words(element)]
        case ast.List(elts=[element]):
            return words_of(element)
        case ast.BinOp(left=left, right=right):
            if isinstance(right, ast.List):  # a number that is joined on comes first
                left, right = right, left
            words = words_of(left) + words_of(right)
            is_list = any(isinstance(side, ast.List | ast.ListComp) or gives_list(side) for side in (left, right))
            if not is_list and isinstance(right, ast.Constant):
                return [*words, CHANGE_WORDS[type(node.op)]]
            return [*words, "join" if is_list else "combine"]
    raise AssertionError(ast.dump(node))


def change_words(element: ast.expr) -> list[str]:
    """What becomes of an element ``v``."""
    match element:
        case ast.Name():
            return []
        case ast.Call():
            return ["limit"]
        case ast.BinOp(op=ast.Sub(), right=ast.Name(id="v")):
            return ["from"]
        case ast.BinOp():
            return [CHANGE_WORDS[type(element.op)]]
    raise AssertionError(ast.dump(element))


def gives_list(node: ast.expr) -> bool:
    return isinstance(compile_own(ast.unparse(node))([1, 2, 3, 4, 5]), list)


# ---- the demonstrations ----


def test_demonstrations_are_right_short_and_never_held_out() -> None:
    excluded = held_out_behaviours()
    assert len(excluded) == 600
    known = {}
    for prompt, completion in islice(demonstrations(random.Random(0), excluded), 4000):
        examples = re.findall(r"f\(\[([^)]*)\]\)=([^;]*);", prompt)
        assert 2 <= len(examples) <= 3
        function = compile_own(completion)
        for given, output in examples:
            assert str(function([int(digit) for digit in given.split(",")])).replace(" ", "") == output
        if completion not in known:
            known[completion] = behaviour_of(completion)
            assert known[completion] is not None
            assert known[completion] not in excluded
        assert len(completion) <= drawing.MAX_REFERENCE_LENGTH
        assert len(prompt.partition(":")[2]) <= drawing.MAX_PROMPT_LENGTH


def test_demonstrations_follow_their_generator_and_would_hit_held_out_behaviours() -> None:
    one, other = (list(islice(demonstrations(random.Random(3)), 1000)) for _ in range(2))
    assert one == other
    excluded = held_out_behaviours()
    assert any(behaviour_of(text) in excluded for text in {text for _, text in one}), "else the exclusion is not tested"


def test_demonstrations_have_another_distribution_than_the_task() -> None:
    def share_of_filters(texts: list[str]) -> float:
        return sum(" if " in text for text in texts) / len(texts)

    shown = [text for _, text in islice(demonstrations(random.Random(1)), 2000)]
    assert share_of_filters(shown) < 0.7 * share_of_filters([problem.reference for problem in everything()])


# ---- the grades, from the real sandbox ----


def test_references_pass_and_other_functions_fail() -> None:
    task = Programs()
    problems = random.Random(0).sample(everything(), 12)
    for problem in problems:
        others = [other.reference for other in problems if other is not problem][:3]
        grades = task.grade([problem], [[problem.reference, *others]])[0]
        assert [grade.verdict for grade in grades] == [Verdict.PASSED, *[Verdict.FAILED] * 3]
        assert [grade.reward for grade in grades] == [1.0, 0.0, 0.0, 0.0]
        assert grades[0].answer == normal_form(problem.reference)
        assert not grades[0].reason


def test_types_are_part_of_a_value() -> None:
    task = Programs()
    ones = custom([1, 1])
    completions = ["1", "True", "1.0", "[1]", "'1'", "None", "len(x)//3"]
    assert [grade.reward for grade in task.grade([ones], [completions])[0]] == [1.0, *[0.0] * 5, 1.0]
    lists = custom([[3, 1], [5, 0]])
    completions = ["x[:2]", "tuple(x[:2])", "[float(v) for v in x[:2]]", "[x[0],x[1]]", "[[v] for v in x[:2]]"]
    assert [grade.reward for grade in task.grade([lists], [completions])[0]] == [1.0, 0.0, 0.0, 1.0, 0.0]
    booleans = custom([1, 0], inputs=((1, 2), (2, 1)))
    assert [grade.reward for grade in task.grade([booleans], [["x[0]<x[1]", "int(x[0]<x[1])"]])[0]] == [0.0, 1.0]


def test_every_input_counts_and_none_is_seen_changed() -> None:
    task = Programs()
    problem = custom([[1, 2, 3], [0, 4, 5]])
    assert [grade.reward for grade in task.grade([problem], [["sorted(x)", "[1,2,3]"]])[0]] == [1.0, 0.0]
    (grade,) = task.grade([custom([3, 3])], [["x.append(9) or len(x)-1"]])[0]
    assert grade.reward == 1.0


def test_white_space_and_parentheses_do_not_matter_and_equal_programs_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []

    def counted(jobs: list[Any], **options: Any) -> list[Any]:
        batches.append(len(jobs))
        return real(jobs, **options)

    real = programs.check_programs
    monkeypatch.setattr(programs, "check_programs", counted)
    problem = custom([[1, 2, 3], [0, 4, 5]])
    spellings = ["sorted(x)", " sorted( x )\n", "(sorted(x))", "sorted(x) # up", "sorted(x"]
    grades = Programs().grade([problem], [spellings * 20])[0]
    assert [grade.reward for grade in grades] == [1.0, 1.0, 1.0, 1.0, 0.0] * 20
    assert {grade.answer for grade in grades} == {"sorted(x)", None}
    assert batches == [1]
    Programs().grade([problem], [["sorted(x", "return x", ""]])[0]
    assert batches == [1], "what is no expression never gets there"
    other = custom([[3, 2, 1], [5, 4, 0]])
    rows = Programs().grade([problem, other], [["sorted(x)"], ["sorted(x)", "sorted(x)[::-1]"]])
    assert [[grade.reward for grade in row] for row in rows] == [[1.0], [0.0, 1.0]]
    assert batches == [1, 2], "a program runs once for all problems of a batch"


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "x[",
        "return x",
        "x=1",
        "x;x",
        "x\nx",
        "def f(x): return x",
        "import os",
        "\0",
        "x+" * 200 + "x",
        "(" * 250 + "x" + ")" * 250,
        "(" * 149 + "x" + ")" * 148,
        "-" * 299,
        "x)\n    import os\n    (x",
        "'\ud800",
        "x if",
        "lambda:",
        "9" * 299 + "j.",
    ],
)
def test_what_is_no_expression_fails_without_a_sandbox(completion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONTUNE_SANDBOX", "none of that name")
    (grade,) = Programs().grade([custom([1, 1])], [[completion]])[0]
    assert (grade.verdict, grade.reward, grade.answer) == (Verdict.FAILED, 0.0, None)
    assert grade.reason == "not a Python expression"


def test_hostile_completions_fail_and_do_no_harm(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    task = Programs()
    problem = Programs().problems("test")[0]
    hostile = {
        f"__import__('os').system('touch {canary}')": Verdict.FAILED,
        f"open({str(canary)!r},'w')": Verdict.FAILED,
        "exit()": Verdict.FAILED,
        "__import__('sys').exit(0)": Verdict.FAILED,
        "__import__('os')._exit(0)": Verdict.CRASHED,
        "(lambda:1)()": Verdict.FAILED,
        "10**10**10": Verdict.TIMEOUT,
        "[v for v in iter(int,1) if v]": Verdict.TIMEOUT,
        "x*10**9": Verdict.FAILED,
        "f(x)": Verdict.FAILED,
        "(yield)": Verdict.FAILED,
        "await x": Verdict.FAILED,
        "globals().update(outputs=lambda i:0)": Verdict.FAILED,
        "type('L',(list,),{'__eq__':lambda s,o:True})()": Verdict.FAILED,
        "__import__('sys')._getframe(2).f_locals": Verdict.FAILED,
    }
    grades = task.grade([problem], [[*hostile, problem.reference]])[0]
    assert {text: grade.verdict for text, grade in zip(hostile, grades, strict=False)} == hostile
    assert [grade.reward for grade in grades] == [0.0] * len(hostile) + [1.0]
    assert all(grade.reason for grade in grades[:-1])
    assert not canary.exists()


def test_without_a_sandbox_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONTUNE_SANDBOX", "bubblewrap")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("bontune.grading.sandbox.outside.check._pools", {})
    with pytest.raises(BontuneError, match=r"No isolation for model-written programs holds here.*BONTUNE_SANDBOX"):
        Programs().grade([custom([1, 1])], [["1"]])[0]
