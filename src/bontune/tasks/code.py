"""From what a model wrote to the program in it, and a program's normal form."""

from __future__ import annotations

import ast
import math
import re
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.thoughts import Setting
from bontune.grading.sandbox.outside.check import Outcome, check_programs, sandbox_name
from bontune.grading.sandbox.outside.checker import Program
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.benchmark import Benchmark
from bontune.tasks.options import Format

MAX_PARSED_LENGTH = 20_000
"""Characters of a program that is put into normal form; Python's parser takes memory by the megabyte for more."""
_FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)
_BARE = re.compile(r"^(?:```|~~~)[`~]*\s*$", re.M)
_AFTER_PROSE = re.compile(r"[^`~]*\S[^`~]*?()(```+)(python3?|py|)\s*$", re.IGNORECASE)
"""A fence at the end of a line of prose; its group 1 is empty, as the block's lines have no indentation of its own."""
_OPENING = re.compile(r"( *)(`{3,}|~{3,})[ \t]*([\w+#.-]*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A fenced block of Markdown."""

    language: str
    """Word after the opening fence, in lower case."""
    text: str
    """Text between the fences."""


def fenced_blocks(text: str) -> list[Block]:
    """The fenced blocks of a text; the last may lack its closing fence, as where the text was cut off.

    Prose may stand before an opening fence on its line. Fences come in pairs: where one that names a language follows
    a bare one, the bare one has closed what came before.

    Example:
        >>> fenced_blocks("So:\\n```python\\nx = 1\\n```\\nDone.")
        [Block(language='python', text='x = 1\\n')]
    """
    blocks: list[Block] = []
    opening: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        begun = _OPENING.match(line)
        if opening is None or (begun is not None and begun[3] and not opening[3] and begun[2] == opening[2]):
            opening = begun or _AFTER_PROSE.match(line)
            lines = []
        elif line.strip().startswith(opening[2]) and not line.strip().strip(opening[2][0]):
            blocks.append(_block(opening, lines))
            opening = None
        else:
            lines.append(line)
    if opening is None:
        return blocks
    return [*blocks, _block(opening, lines[:-1] if lines[-1:] == [""] else lines)]


def extract_program(completion: str, entry_point: str) -> str:
    """The program in a completion.

    A text that begins with an indented line goes on from the prompt: it is the program, up to a fence. Otherwise, of
    the fenced blocks the last that defines the entry point; if none does, the last that says Python, else the last.
    Without fences the whole text; and where only a closing fence is there, because the prompt has opened it, what comes
    before it. Nothing else is taken off or put right.

    Example:
        >>> extract_program("Here it is:\\n```python\\ndef f():\\n    return 1\\n```\\nAnd f() is 1.", "f")
        'def f():\\n    return 1\\n'
        >>> extract_program("    return 1", "f")
        '    return 1'
    """
    first = next((line for line in completion.split("\n") if line.strip()), "")
    if first[:1] in (" ", "\t") and not _OPENING.match(first):
        return re.split(r"^```.*", completion, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = fenced_blocks(completion)
    defining = [block for block in blocks if defines(block.text, entry_point)]
    before = _BARE.split(completion, maxsplit=1)
    if not defining and len(before) > 1 and defines(before[0], entry_point):
        return before[0]
    python = [block for block in blocks if block.language in ("python", "py", "python3")]
    chosen = defining or python or blocks
    return chosen[-1].text if chosen else completion


def defines(program: str, name: str) -> bool:
    """Whether a program's text defines a function, or assigns, at its left edge.

    Example:
        >>> defines("import os\\ndef f(x):\\n    return x", "f"), defines("    def f(x): ...", "f")
        (True, False)
    """
    return re.search(rf"^(?:(?:async )?def {re.escape(name)}\b|{re.escape(name)}\s*=(?!=))", program, re.M) is not None


def joined(prompt: str, program: str) -> str:
    """The whole program: a prompt with the part that a model wrote after it.

    A part that starts at the left edge is set apart from a prompt without a line break at its end, and its imports
    from ``__future__`` go to the top, the only place where Python takes them.

    Example:
        >>> joined("def f():\\n", "    return 1")
        'def f():\\n    return 1'
    """
    if program[:1] in ("", " ", "\t"):
        return prompt + program
    futures = _FUTURE.findall(program)
    if futures:
        return "\n".join([*futures, prompt, _FUTURE.sub("", program)])
    return f"{prompt}\n{program}"


def normal_form(program: str) -> str | None:
    """A program without comments, docstrings and layout, by which two are counted as the same.

    Of functions that it defines twice only the last is kept, such as the one after a prompt's stub.

    Returns:
        None for a program that is none; a hash for one that is too long or too deep to be written out.

    Example:
        >>> normal_form("def f(x):\\n    '''Same.'''\\n    return (x)  # same")
        'def f(x):\\n    return x'
    """
    if len(program) > MAX_PARSED_LENGTH:
        return _hashed(program)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of "\d" and of 1is x, on the user's terminal
            tree = ast.parse(program)
    except (SyntaxError, ValueError):
        return None
    except (RecursionError, MemoryError):
        return _hashed(program)
    _drop_overwritten(tree)
    try:
        _drop_docstrings(tree)
        return ast.unparse(tree)
    except (RecursionError, MemoryError, ValueError):
        return _hashed(program)


def _block(opening: re.Match[str], lines: list[str]) -> Block:
    indent = len(opening[1])  # as CommonMark has it: a fence in a list takes its own indentation off its lines
    taken_off = [line[min(indent, len(line) - len(line.lstrip(" "))) :] for line in lines]
    return Block(language=opening[3].lower(), text="".join(line + "\n" for line in taken_off))


def _hashed(program: str) -> str:
    return "sha256:" + sha256(program.encode("utf-8", "surrogatepass")).hexdigest()


def _drop_overwritten(tree: ast.Module) -> None:
    """Keep the last of functions of one name and of equal imports: a model may write the prompt's part again."""
    last: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            last[node.name] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            last[ast.dump(node)] = node
    kept = {id(node) for node in last.values()}
    droppable = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Import, ast.ImportFrom)
    tree.body = [node for node in tree.body if id(node) in kept or not isinstance(node, droppable)]


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]


MAX_REPLY_BYTES = 64_000_000
"""Most bytes of one answer of a program; some tests of HumanEval+ and MBPP+ ask for megabytes."""

_CLOSE = "assert np.allclose(out, exp, rtol=1e-07, atol=atol)"
_CLOSE_AND_OF_ONE_SHAPE = "assert np.shape(out) == np.shape(exp) and np.allclose(out, exp, rtol=1e-07, atol=atol)"


def strict(test: str) -> str:
    """A test of HumanEval+ or MBPP+ (0.1.10, 0.2.0) that compares numbers of one shape only.

    As published it broadcasts: an empty list is close to every number, and passed 21 problems.
    """
    return test.replace(_CLOSE, _CLOSE_AND_OF_ONE_SHAPE)


class ProgramBenchmark(Benchmark):
    """A known data set of programming problems.

    Args:
        name: written into pools and reports.
        splits: that there are.
        stop: strings that end a continued text.
        format: of prompts, see ``options.Format``.
        thoughts: what marks thoughts; see :func:`bontune.base.thoughts.thoughts_of`.
        timeout_s: that a program has for its tests.
        memory_mb: that it has.
        check_references: whether a split's references are run when it is read.
    """

    def __init__(
        self,
        *,
        name: str,
        splits: Sequence[str],
        stop: Sequence[str],
        format: Format,
        thoughts: Setting,
        timeout_s: float,
        memory_mb: int,
        check_references: bool,
    ) -> None:
        self._format = format
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        super().__init__(
            name=name,
            splits=splits,
            stop=() if self._format == "chat" else stop,
            thoughts=thoughts,
            check_references=check_references,
        )

    @property
    def isolation(self) -> str:
        """What programs run in, for the record of a run or pool."""
        return sandbox_name()

    @abstractmethod
    def source(self, problem: Problem, program: str) -> str:
        """The whole program: what stands in the completion with what the problem gives."""

    def _grade(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]], poll: Poll | None
    ) -> list[list[Grade]]:
        """Reward 1 for a program that passes the tests, else 0; equal programs of a problem run once."""
        sources = [
            [self.source(problem, extract_program(text, problem.row["entry_point"])) for text in row]
            for problem, row in zip(problems, answers, strict=True)
        ]
        programs = {
            (problem.id, source): self._program(problem, source)
            for problem, row in zip(problems, sources, strict=True)
            for source in row
        }
        outcomes = dict(zip(programs, check_programs(programs.values(), poll=poll), strict=True))
        return [
            [_graded(outcomes[problem.id, source], source, problem.row["entry_point"]) for source in row]
            for problem, row in zip(problems, sources, strict=True)
        ]

    def reference_completion(self, problem: Problem) -> str:
        """Build the completion that the row's solution is."""
        return problem.reference

    def _program(self, problem: Problem, source: str) -> Program:
        return Program(
            source=source,
            entry_point=problem.row["entry_point"],
            check=problem.row["test"],
            other_names=tuple(problem.row.get("other_names", ())),
            helpers=problem.row.get("helpers", ""),
            timeout_s=self._timeout_s,
            memory_mb=self._memory_mb,
            max_reply_bytes=MAX_REPLY_BYTES,
        )


def _graded(outcome: Outcome, source: str, entry_point: str) -> Grade:
    if outcome.verdict is Verdict.GRADER_ERROR:
        return Grade(reward=math.nan, verdict=outcome.verdict, reason=outcome.reason)
    form = normal_form(source)
    reason = outcome.reason
    stub = rf"^def {re.escape(entry_point)}\(.*\n    pass$"
    if outcome.verdict is Verdict.FAILED and re.search(stub, form or "", re.MULTILINE):
        reason += "; the function has no body"  # often the prompt's own, where the model wrote another function
    return Grade(reward=float(outcome.passed), verdict=outcome.verdict, answer=form, reason=reason)
