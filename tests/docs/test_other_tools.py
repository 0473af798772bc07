"""The page on other tools: every line names what holds it, and the folder of scripts has a line for each."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pages import DOCS, ROOT

HEADER = ["tool", "input", "a good guess", "what happens", "bontune", "source", "held by"]
FINDINGS = ROOT / "findings"
SCRIPTS = sorted(FINDINGS.glob("*.sh"))
PARTS = ("# Guess:", "# Reality:", "# Seen:", "# Version:", "# Source:")


def cells(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


TABLES = [cells(line) for line in (DOCS / "other-tools.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
LINES = [line for line in TABLES if line != HEADER and set(line) != {"---"}]


@pytest.mark.parametrize("line", LINES, ids=[f"{line[0]}: {line[1]}"[:60] for line in LINES])
def test_every_line_is_whole_and_names_a_test_or_a_script_that_there_is(line: list[str]) -> None:
    assert len(line) == len(HEADER)
    assert all(line)
    assert re.search(r"\d+\.\d+", line[0]), "a tool without its version"
    assert re.search(r"\]\(https://", line[5]), "a line without its source"
    held = re.findall(r"`([^`]+)`", line[6])
    assert held
    for name in held:
        path, _, function = name.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert path.startswith("findings/") or re.search(rf"^def {function or 'test_'}", text, re.MULTILINE), name


def test_there_is_a_line_for_each_script() -> None:
    readme = (FINDINGS / "README.md").read_text(encoding="utf-8")
    assert [script.name for script in SCRIPTS] == sorted(set(re.findall(r"`(\w+\.sh)`", readme)))
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_a_script_says_what_it_shows_and_pins_what_it_installs(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    head = text.partition("\n. ")[0]
    assert [part for part in PARTS if part not in head] == []
    assert os.access(script, os.X_OK)
    packages = " ".join(re.findall(r"^install (.+)$", text, re.MULTILINE)).split()
    assert packages
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", package) for package in packages)
    assert "bontune" not in text
