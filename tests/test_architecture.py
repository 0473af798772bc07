"""Who may import whom, read from the source.

1. Rooms have floors; a room imports rooms of its own floor or below, never above.
2. No room imports itself by way of another: there are no circles between rooms.
3. objectives imports torch, the standard library and itself; metrics adds NumPy and objectives. Nothing else, so that
   other frameworks can use the two alone.
4. Every room with a floor is read from where it stands; imports inside functions and under TYPE_CHECKING count too.

A module without a floor (errors, config…) is looked through: what it imports counts for those who import it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bestofn

PACKAGE = Path(bestofn.__file__).parent
FLOORS = {
    "objectives": 0,
    "metrics": 1, "grading": 1,
    "tasks": 2, "verifiers": 2, "sampling": 2, "scaling": 2,
    "training": 3, "integrations": 3, "report": 3,
    "reproduce": 4,
    "cli": 5,
}  # fmt: skip
ALLOWED = {"objectives": {"numpy", "torch", "bestofn.objectives"}, "metrics": {"numpy", "torch", "bestofn.objectives"}}


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
    """The room a dotted name lies in (bestofn.tasks.base.Task: tasks); None for other packages and bestofn itself."""
    parts = name.split(".")
    if parts[0] != "bestofn" or len(parts) < 2:
        return None
    path = PACKAGE / parts[1]
    return parts[1] if path.is_dir() or path.with_suffix(".py").is_file() else None


def modules() -> Iterator[tuple[str, str, list[str]]]:
    """(room, module, imported names) of every file of the package; the package's own __init__ belongs to no room."""
    for path in sorted(PACKAGE.rglob("*.py")):
        is_package = path.name == "__init__.py"
        inner = path.relative_to(PACKAGE).with_suffix("").parts
        parts = ("bestofn", *(inner[:-1] if is_package else inner))
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
    assert ("objectives", "bestofn.objectives.best_of_n") in {(room, module) for room, module, _ in MODULES}
    assert len(MODULES) >= 7


@pytest.mark.parametrize("room", sorted(FLOORS.keys() & EDGES.keys()))
def test_no_room_imports_upwards(room: str) -> None:
    for target, chain in reachable(room).items():
        if target in FLOORS:
            assert FLOORS[target] <= FLOORS[room], (
                f"{room} (floor {FLOORS[room]}) reaches {target} (floor {FLOORS[target]}): {'; '.join(chain)}"
            )


@pytest.mark.parametrize("room", sorted(EDGES))
def test_there_are_no_circles_between_rooms(room: str) -> None:
    chains = reachable(room)
    assert room not in chains, f"{room} imports itself: {'; '.join(chains[room])}"


@pytest.mark.parametrize("room", sorted(ALLOWED.keys() & EDGES.keys()))
def test_rooms_that_stand_alone(room: str) -> None:
    for importing, module, names in MODULES:
        if importing != room:
            continue
        for name in names:
            top = name.split(".")[0]
            own = f"bestofn.{room_of(name)}" if room_of(name) else None
            is_allowed = (
                top in sys.stdlib_module_names or top in ALLOWED[room] or own in {*ALLOWED[room], f"bestofn.{room}"}
            )
            assert is_allowed, f"{module} imports {name}; {room} may import {', '.join(sorted(ALLOWED[room]))} only"


@pytest.mark.parametrize(
    ("line", "module", "is_package", "expected"),
    [
        ("import torch.nn as nn", "bestofn.a.b", False, ["torch.nn"]),
        ("from bestofn import tasks, cli", "bestofn.a.b", False, ["bestofn.tasks", "bestofn.cli"]),
        ("from . import c", "bestofn.a.b", False, ["bestofn.a.c"]),
        ("from .c import d", "bestofn.a", True, ["bestofn.a.c.d"]),
        ("from ..cli import main", "bestofn.a.b", False, ["bestofn.cli.main"]),
        ("def f():\n    from bestofn.cli import main", "bestofn.a.b", False, ["bestofn.cli.main"]),
    ],
)
def test_imports_are_read_in_every_form(line: str, module: str, is_package: bool, expected: list[str]) -> None:
    assert list(imported_names(line, module, is_package)) == expected
