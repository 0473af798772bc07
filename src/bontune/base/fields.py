"""Docstrings for people: those under the fields of a class, which Python itself drops, and any as plain text."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from itertools import pairwise

_ROLE = re.compile(r":\w+:`~?([^`<]+)(?: <[^`]*>)?`")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=\S)([^*\n]+?)(?<=\S)\1(?![\w*])")


def without_markup(text: str) -> str:
    """A docstring as it is read in a terminal.

    Example:
        >>> without_markup("*Not* the case of :func:`bontune.objectives.rank` with ``n=2``.")
        'Not the case of bontune.objectives.rank with n=2.'
    """
    return _EMPHASIS.sub(r"\2", _ROLE.sub(r"\1", text).replace("``", ""))


def field_docstrings(cls: type) -> dict[str, str]:
    """Read the text under each field of a class from its source, as one line.

    Example:
        >>> from bontune.base.problems import Problem
        >>> field_docstrings(Problem)["id"]
        'Unique in its task; seeds, pools and paired comparisons go by it.'
    """
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in pairwise(definition.body):
        is_text = (
            isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
        )
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = " ".join(text.value.value.split())  # type: ignore[attr-defined]
    return found
