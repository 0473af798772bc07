"""MBPP: write a Python function from a sentence and three tests (Austin et al., 2021, arXiv 2108.07732), and MBPP+.

MBPP+ (Liu et al., 2023, arXiv 2305.01210) has 378 of the problems, mended, with about 35 times as many tests.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from bontune.base.errors import BontuneError
from bontune.base.problems import Message, Problem
from bontune.grading.sandbox.outside.checker import requirements
from bontune.tasks.code import ProgramBenchmark, strict
from bontune.tasks.columns import column
from bontune.tasks.fewshot import offered
from bontune.tasks.options import Format, MemoryLimit, ThoughtTags, TimeLimit, checked
from bontune.tasks.reading import Data, PlacedRow, Source, SourceTable

SPLIT_IDS = {"train": range(601, 975), "validation": range(511, 601), "test": range(11, 511), "prompt": range(1, 11)}
"""Task ids of each split, as the authors divide them."""
EXAMPLE_IDS = (2, 3, 4, 1, 5, 6, 7, 8, 9, 10)
"""Task ids of worked examples, in the order in which they are used; the authors used the first three."""
STOP = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n```")
"""Ends of a program that goes on from a docstring."""
FEW_SHOT_STOP = ("[DONE]",)
"""Ends of a program after worked examples."""
REQUEST = "Answer with the whole program in one ```python block."

_SHORTENED_TEST = (
    "for i, inp in enumerate(inputs):",
    "for i, inp in enumerate(inp for inp in inputs if (len(inp[0]), inp[1]) != (5, 77)):",
)
"""Of task 255 of MBPP+ 0.2.0: one of its inputs asks for 1.7 million tuples of 77, more than the sandbox hands over."""
_DATA_LINE = re.compile(r"^(inputs|results) = .*$", re.MULTILINE)

_TABLES = {
    "full": SourceTable(
        files=("mbpp",),
        columns=("task_id", "text", "code", "test_list"),
        configuration="full",
        hub_split="all",
        repository="google-research-datasets/mbpp",
    ),
    "sanitized": SourceTable(
        files=("mbpp_sanitized", "sanitized-mbpp"),
        columns=("task_id", "prompt", "code", "test_imports", "test_list"),
        configuration="sanitized",
        hub_split="all",
        repository="google-research-datasets/mbpp",
    ),
    "plus": SourceTable(
        files=("mbpp_plus_originfmt", "MbppPlus-OriginFmt"),
        columns=("task_id", "prompt", "code", "test_list", "test"),
        hub_split="test",
        repository="evalplus/mbppplus",
    ),
}


class Mbpp(ProgramBenchmark):
    """Short Python programs from a sentence and three tests, graded by those tests in a sandbox.

    Splits, by task id: ``train`` (601 to 974), ``validation`` (511 to 600), ``test`` (11 to 510) and ``prompt`` (1 to
    10, for worked examples); the sanitized and the plus variant have 427 and 378 of these problems.

    The program of a completion is its text, or of fenced blocks the last that defines the function. Two programs count
    as the same if they differ in comments, docstrings and layout only.

    Args:
        data: the file ``mbpp.jsonl``, ``mbpp_sanitized.json`` or ``mbpp_plus_originfmt.jsonl`` (``.json`` and ``.gz``
            too), or a folder that holds it. None: the Hugging Face hub (google-research-datasets/mbpp,
            evalplus/mbppplus).
        hub: another repository on the hub with the same columns.
        variant: ``full``, ``sanitized`` (verified by hand) or ``plus`` (the many tests of MBPP+).
        shots: worked examples before the task, 0 to 10, from the ``prompt`` split of the same data.
        format: ``auto``: a text to continue, and a conversation for models with a chat template; ``base``: the text
            only; ``chat``: the conversation, also as text where a model has no template.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``.
        timeout_s: seconds that a program has for its tests; None: 10, and 60 for ``plus``.
        memory_mb: memory that it has; None: 1024, and 4096 for ``plus``.
        check_references: run every reference solution when a split is read, and refuse a split where one fails.
    """

    @checked
    def __init__(
        self,
        *,
        data: Data = None,
        hub: str | None = None,
        variant: Literal["full", "sanitized", "plus"] = "full",
        shots: Annotated[int, Field(ge=0, le=len(EXAMPLE_IDS))] = 0,
        format: Format = "auto",
        thoughts: ThoughtTags = "auto",
        timeout_s: TimeLimit | None = None,
        memory_mb: MemoryLimit | None = None,
        check_references: bool = False,
    ) -> None:
        self._variant = variant
        self._num_shots = shots
        self._source = Source("mbpp", {variant: _TABLES[variant]}, data, hub)
        self._rows: dict[int, PlacedRow] | None = None
        super().__init__(
            name={"full": "mbpp", "sanitized": "mbpp-sanitized", "plus": "mbpp+"}[variant],
            splits=tuple(SPLIT_IDS),
            stop=FEW_SHOT_STOP if shots else STOP,
            format=format,
            thoughts=thoughts,
            timeout_s=(60.0 if variant == "plus" else 10.0) if timeout_s is None else timeout_s,
            memory_mb=(4096 if variant == "plus" else 1024) if memory_mb is None else memory_mb,
            check_references=check_references,
        )

    def load(self, split: str) -> list[Problem]:
        """Read a split.

        Raises:
            BontuneError: there is no row of it, or there are too few worked examples.
        """
        rows = self._all_rows()
        problems = [self._problem(*rows[number]) for number in rows if number in SPLIT_IDS[split]]
        if not problems:
            ids = SPLIT_IDS[split]
            raise BontuneError(
                f"Task {self.name}: the data hold no row of split {split} (task ids {ids[0]} to {ids[-1]}); "
                "give the whole data set."
            )
        return problems

    def source(self, problem: Problem, program: str) -> str:
        """Take the program out of a completion."""
        return program

    def _all_rows(self) -> dict[int, PlacedRow]:
        """Rows by task id."""
        if self._rows is None:
            rows: dict[int, PlacedRow] = {}
            for place, row in self._source.rows(self._variant):
                number = row.get("task_id")
                if isinstance(number, bool) or not isinstance(number, int):
                    raise BontuneError(f"{place}: task_id must be a whole number, not {number!r}.")
                if number in rows:
                    raise BontuneError(f"{place}: task_id {number} was already in {rows[number][0]}; remove one row.")
                rows[number] = (place, row)
            self._rows = rows
        return self._rows

    def _examples(self, number: int) -> list[PlacedRow]:
        """Worked examples for a problem; it is not among its own."""
        rows = self._all_rows()
        found = [rows[wanted] for wanted in EXAMPLE_IDS if wanted in rows and wanted != number]
        if len(found) < self._num_shots:
            raise BontuneError(
                f"Task {self.name}: shots={self._num_shots}, but the data hold {len(found)} other rows of the prompt "
                "split (task ids 1 to 10); give a smaller number or the whole data set."
            )
        return found[: self._num_shots]

    def _problem(self, place: str, row: dict[str, Any]) -> Problem:
        code = _plain(column(row, "code", place))
        examples = self._examples(row["task_id"])
        text, messages = offered(_text(place, row, examples), _messages(place, row, examples), self._format)
        return Problem(
            id=f"mbpp/{row['task_id']}",
            prompt=text,
            messages=messages,
            reference=code,
            row={**row, **_test_of(place, row, code)},
        )


def _text(place: str, row: dict[str, Any], examples: Iterable[PlacedRow]) -> str:
    shots = [f"{_asked(*example)}{_plain(column(example[1], 'code', example[0]))}\n[DONE]" for example in examples]
    if shots:  # the authors' form
        return "\n\n".join([*shots, _asked(place, row)])
    return f'"""\n{_instruction(place, row)}\n{_tests(place, row)}\n"""\n'


def _asked(place: str, row: dict[str, Any]) -> str:
    return (
        f"You are an expert Python programmer, and here is your task: {_instruction(place, row)} "
        f"Your code should pass these tests:\n\n{_tests(place, row)}\n[BEGIN]\n"
    )


def _messages(place: str, row: dict[str, Any], examples: Iterable[PlacedRow]) -> tuple[Message, ...]:
    turns: list[Message] = []
    for example in examples:
        code = _plain(column(example[1], "code", example[0]))
        turns += [_question(*example), {"role": "assistant", "content": f"```python\n{code}\n```"}]
    return (*turns, _question(place, row))


def _question(place: str, row: dict[str, Any]) -> Message:
    content = (
        f"{_instruction(place, row)}\n\nYour code should pass these tests:\n\n```python\n{_tests(place, row)}\n```\n\n"
        f"{REQUEST}"
    )
    return {"role": "user", "content": content}


def _instruction(place: str, row: dict[str, Any]) -> str:
    return column(row, "text" if "text" in row else "prompt", place).strip()


def _tests(place: str, row: dict[str, Any]) -> str:
    tests = row["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise BontuneError(f"{place}: test_list must be a list of texts that is not empty; correct or remove the row.")
    return "\n".join(_plain(test) for test in tests)


def _plain(text: str) -> str:
    """The originals have carriage returns, which a model would learn to write."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")


def _test_of(place: str, row: dict[str, Any], code: str) -> dict[str, Any]:
    """The row's tests as one source, the function that they call, and what else of the program they use."""
    imports = row.get("test_imports") or []
    if not isinstance(imports, list) or not all(isinstance(line, str) for line in imports):
        raise BontuneError(f"{place}: test_imports must be a list of texts; correct or remove the row.")
    if row["task_id"] == 255 and "test" in row:
        row = {**row, "test": str(row["test"]).replace(*_SHORTENED_TEST)}
    setup = _plain(str(row.get("test_setup_code") or ""))  # two rows build arguments with a class of the solution's
    test = strict(_plain(str(row["test"]))) if "test" in row else "\n".join([*imports, setup, _tests(place, row)])
    short = _DATA_LINE.sub(r"\1 = []", test)  # up to 0.8 MB, slow to parse
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of "\\d" without an r, which some references have
            needed, modules = requirements(short, code)
            own = _names_defined(ast.parse(short))
            functions = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    except (SyntaxError, ValueError) as error:
        raise BontuneError(f"{place}: code and tests must be Python: {error}; correct or remove the row.") from None
    names = sorted((name for name in needed if name not in own), key=short.index)
    entry_point = next((name for name in names if name in functions), None)
    if entry_point is None:
        raise BontuneError(f"{place}: the tests call no function that the code defines; correct or remove the row.")
    return {
        "test": test,
        "entry_point": entry_point,
        "other_names": [name for name in names if name != entry_point],
        "helpers": modules,
    }


def _names_defined(tree: ast.Module) -> set[str]:
    """Names that a module defines itself, such as the ``adjac`` of a test of MBPP+ whose reference has one, too."""
    names: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            names.add(statement.name)
        else:
            names |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names
