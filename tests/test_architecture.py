"""Who may import whom, read from the source.

1. Every module lies in a room, and every room has a floor; a room imports rooms of lower floors only.
2. Rooms of one floor do not import each other, directly or by way of others: there are no circles between rooms. The
   one exception is in BESIDE: a comparison of runs in pools reads their recipes.
3. objectives imports torch, NumPy, the standard library and itself; metrics adds objectives. Nothing else, so that
   other frameworks can use the two alone. grading adds base, so that it could be a package of its own; what the sandbox
   sends through its wall imports the standard library and its neighbours alone.
4. Modules of one room do not import each other in circles either; a package's own ``__init__`` is none of them.
5. Imports inside functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bontune

PACKAGE = Path(bontune.__file__).parent
FLOORS = {
    "base": 0,
    "objectives": 0,
    "metrics": 1,
    "grading": 1,
    "models": 1,
    "tasks": 2,
    "verifiers": 2,
    "engines": 2,
    "pools": 3,
    "config": 3,
    "training": 4,
    "integrations": 4,
    "scaling": 4,
    "report": 5,
    "serving": 5,
    "experiments": 6,
    "cli": 7,
}
BESIDE = {("pools", "config")}
ALLOWED = {
    "objectives": {"numpy", "torch", "bontune.objectives"},
    "metrics": {"numpy", "torch", "bontune.objectives"},
    "grading": {"math_verify", "pyseccomp", "sympy", "bontune.base"},
}
INSIDE = "bontune.grading.sandbox.inside"
"""The package whose files are sent into the isolation."""


def imported_names(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names that a module's source imports, relative imports resolved, ``from a import b`` as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base]) if base else ".".join(parts)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str | None:
    """The room a dotted name lies in (bontune.tasks.base.Task: tasks); None for other packages and bontune itself."""
    parts = name.split(".")
    if parts[0] != "bontune" or len(parts) < 2:
        return None
    if parts[1] == "__main__":
        return "cli"
    path = PACKAGE / parts[1]
    return parts[1] if path.is_dir() or path.with_suffix(".py").is_file() else None


def modules() -> Iterator[tuple[str, str, list[str]]]:
    """(room, module, imported names) of every file of the package; the package's own __init__ belongs to no room."""
    for path in sorted(PACKAGE.rglob("*.py")):
        is_package = path.name == "__init__.py"
        inner = path.relative_to(PACKAGE).with_suffix("").parts
        parts = ("bontune", *(inner[:-1] if is_package else inner))
        module = ".".join(parts)
        room = room_of(module)
        if room is not None:
            yield room, module, list(imported_names(path.read_text(encoding="utf-8"), module, is_package))


MODULES = list(modules())
EDGES: dict[str, dict[str, str]] = {room: {} for room, _, _ in MODULES}
for importing_room, importing_module, imports in MODULES:
    for imported in imports:
        target = room_of(imported)
        if target is not None and target != importing_room:
            EDGES[importing_room][target] = f"{importing_module} imports {imported}"


def reachable(room: str) -> dict[str, list[str]]:
    """Every room that this one imports, directly or not, with the chain that leads there."""
    chains: dict[str, list[str]] = {}
    waiting = [(target, [why]) for target, why in EDGES[room].items()]
    while waiting:
        found, chain = waiting.pop()
        if found not in chains:
            chains[found] = chain
            waiting += [(target, [*chain, why]) for target, why in EDGES.get(found, {}).items()]
    return chains


def test_the_source_was_read() -> None:
    assert ("objectives", "bontune.objectives.best_of_n") in {(room, module) for room, module, _ in MODULES}
    assert len(MODULES) >= 7


@pytest.mark.parametrize("room", sorted(EDGES))
def test_every_room_has_a_floor_and_imports_lower_floors_only(room: str) -> None:
    assert room in FLOORS, f"{room} has no floor: move it into a room, or give it one here and in docs/architecture.md"
    for target, where in EDGES[room].items():
        assert target in FLOORS, where
        assert FLOORS[target] < FLOORS[room] or (room, target) in BESIDE, (
            f"{where}: {target} (floor {FLOORS[target]}) does not lie below {room} (floor {FLOORS[room]})"
        )


@pytest.mark.parametrize("room", sorted(EDGES))
def test_there_are_no_circles_between_rooms(room: str) -> None:
    chains = reachable(room)
    assert room not in chains, f"{room} imports itself: {'; '.join(chains[room])}"


def test_there_are_no_circles_between_modules() -> None:
    files = {module for _, module, _ in MODULES if not (PACKAGE.parent / module.replace(".", "/")).is_dir()}
    graph = {module: {_module_of(name, files) for name in names} & files for _, module, names in MODULES}
    try:
        TopologicalSorter({module: graph[module] for module in files}).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def _module_of(name: str, files: set[str]) -> str:
    """The module that an imported name lies in."""
    return name if name in files else name.rpartition(".")[0]


@pytest.mark.parametrize("room", sorted(ALLOWED.keys() & EDGES.keys()))
def test_rooms_that_stand_alone(room: str) -> None:
    for importing, module, names in MODULES:
        if importing != room:
            continue
        for name in names:
            top = name.split(".")[0]
            own = f"bontune.{room_of(name)}" if room_of(name) else None
            is_allowed = (
                top in sys.stdlib_module_names or top in ALLOWED[room] or own in {*ALLOWED[room], f"bontune.{room}"}
            )
            assert is_allowed, f"{module} imports {name}; {room} may import {', '.join(sorted(ALLOWED[room]))} only"


def test_what_is_sent_through_the_wall_needs_nothing_from_outside() -> None:
    sent = [(module, names) for _, module, names in MODULES if module == INSIDE or module.startswith(INSIDE + ".")]
    assert len(sent) > 1
    for module, names in sent:
        for name in names:
            is_allowed = name.split(".")[0] in sys.stdlib_module_names or name.startswith(INSIDE + ".")
            assert is_allowed, f"{module} imports {name}, which does not exist inside the isolation"


@pytest.mark.parametrize(
    ("line", "module", "is_package", "expected"),
    [
        ("import torch.nn as nn", "bontune.a.b", False, ["torch.nn"]),
        ("from bontune import tasks, cli", "bontune.a.b", False, ["bontune.tasks", "bontune.cli"]),
        ("from . import c", "bontune.a.b", False, ["bontune.a.c"]),
        ("from .c import d", "bontune.a", True, ["bontune.a.c.d"]),
        ("from ..cli import main", "bontune.a.b", False, ["bontune.cli.main"]),
        ("def f():\n    from bontune.cli import main", "bontune.a.b", False, ["bontune.cli.main"]),
    ],
)
def test_imports_are_read_in_every_form(line: str, module: str, is_package: bool, expected: list[str]) -> None:
    assert list(imported_names(line, module, is_package)) == expected
