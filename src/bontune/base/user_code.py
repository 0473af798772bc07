"""The user's own functions: graders and verifiers named in a recipe or on the command line."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from bontune.base.errors import BontuneError, did_you_mean

_NOT_THE_USERS = (
    str(Path(__file__).parents[1]),
    "<frozen ",
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)
"""Beginnings of the paths of files that are not the user's: this package, Python's own, and installed packages."""


def load_function(spec: str, *, what: str) -> Callable[..., Any]:
    """Import ``module:function`` or ``path/to/file.py:function``.

    Args:
        spec: the function's module or file, and its name.
        what: the function's role in messages, such as "grader".

    Raises:
        BontuneError: no such module, file or function (the nearest is named), or importing it fails.
    """
    who = f"The {what} {spec!r}"
    source, _, attribute = spec.rpartition(":")
    if not source or not attribute:
        raise BontuneError(f"{who} does not name a function: write module:function or file.py:function.")
    module = _import_source(source, who)
    function = getattr(module, attribute, None)
    if not callable(function):
        candidates = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        hint = did_you_mean(attribute, candidates)
        raise BontuneError(f"{who} cannot be loaded: {source} has no function {attribute!r}{hint or '.'}")
    loaded: Callable[..., Any] = function
    return loaded


def what_was_raised(error: BaseException) -> str:
    """Describe in a line the exception that a user's function raised, with the file and line of the user's own code.

    The innermost frame that is neither ours nor an installed package's is named: a helper that the function calls, and
    not the library that the helper calls.
    """
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    if not own:
        return text
    path = Path(own[-1].filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{text} ({shown}, line {own[-1].lineno})"


def code_digest(spec: str) -> str:
    """Hash the code of a user's function; a restart notices by it that the code has changed.

    Args:
        spec: as :func:`load_function` takes it. The hash of a file covers the neighbours that it imports, too; the hash
            of a module covers its file.
    """
    total = sha256()
    source = spec.rpartition(":")[0]
    if source.endswith(".py"):
        path: Path | None = Path(source).expanduser()
    else:
        module_spec = importlib.util.find_spec(source)
        path = Path(module_spec.origin) if module_spec is not None and module_spec.origin is not None else None
    for file in [] if path is None else _with_neighbours(path):
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def _with_neighbours(path: Path) -> list[Path]:
    """Return a file and the files beside it that it imports, directly or through each other."""
    files, todo = [], [path]
    while todo:
        file = todo.pop(0)
        if file in files or not file.is_file():
            continue
        files.append(file)
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            todo += [path.parent / f"{name.replace('.', '/')}.py" for name in names]
    return files


def _import_source(source: str, who: str) -> ModuleType:
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        path = Path(source).expanduser().resolve()
        if not path.is_file():
            raise BontuneError(f"{who} cannot be loaded: there is no file {source}.")
        name = f"bontune_user_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
        module_spec = importlib.util.spec_from_file_location(name, path)
        assert module_spec is not None
        assert module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[name] = module  # dataclasses and pickle look a function's module up here
        with _neighbours_of(path):
            module_spec.loader.exec_module(module)
        return module
    except BontuneError:
        raise
    except (Exception, SystemExit) as error:  # the user's module: it may fail in any way
        raise BontuneError(f"{who} cannot be imported: {what_was_raised(error)}.") from error


@contextmanager
def _neighbours_of(path: Path) -> Iterator[None]:
    """Let a file import the files beside it, as if it were run as a script.

    Its folder comes first on the import path while the file is loaded, and last afterwards.
    """
    folder = str(path.parent)
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = before if folder in before else [*before, folder]
