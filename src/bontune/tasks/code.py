"""From what a model wrote to the program in it, and a program's normal form."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from hashlib import sha256

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
