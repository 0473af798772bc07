"""What the pages name is there: modules and functions, files, links, and every room in the drawing."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from pages import DOCS, PAGES, ROOT
from test_architecture import EDGES, FLOORS

TEXTS = {page: re.sub(r"```(?:diff|python).*?```", "", text, flags=re.DOTALL) for page, text in PAGES.items()}
NAMED = {page: sorted({*re.findall(r"\bbontune(?:\.\w+)+", text)}) for page, text in TEXTS.items()}

OPTIONAL = {"trl", "datasets", "verl"}
"""Packages that are not installed with the tests."""


def resolve(name: str) -> object:
    """The module, function, class or attribute of a dotted name."""
    module, *parts = name.split(".")
    found: object = import_module(module)
    for part in parts:
        module = f"{module}.{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = import_module(module)
            except ModuleNotFoundError as error:
                if error.name not in OPTIONAL:
                    raise
                return module  # `make test-trl` and `make test-verl` import them
    return found


@pytest.mark.parametrize("page", [page for page, names in NAMED.items() if names])
def test_every_dotted_name_resolves(page: str) -> None:
    assert all(resolve(name) is not None for name in NAMED[page])


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_and_path_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    links = [target for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", TEXTS[page]) if "://" not in target]
    missing = [target for target in links if not (folder / target).exists() and "/reference/" not in f"/{target}"]
    assert missing == []
    paths = re.findall(r"`((?:src|tests|docs|tools|benchmarks|results)/[\w./-]+)`", TEXTS[page])
    assert [path for path in paths if not (ROOT / path).exists() and not path.startswith("docs/_build")] == []


def test_the_drawing_has_every_room_on_its_floor() -> None:
    text = (DOCS / "pictures" / "rooms.svg").read_text(encoding="utf-8")
    places = re.findall(r'class="room" x="\d+" y="(\d+)"[^>]*>(\w+)<', text)
    rooms = {room: floor for room, floor in FLOORS.items() if room in EDGES}
    assert sorted(room for _, room in places) == sorted(rooms), "docs/pictures/rooms.svg draws other rooms"
    # The lower a room stands, the larger its y.
    heights = sorted({int(y) for y, _ in places}, reverse=True)
    assert {room: heights.index(int(y)) for y, room in places} == rooms
