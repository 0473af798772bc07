"""The pages on how to add something are right: their changes apply to the source as it is, and what they show runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pages import PAGES, ROOT, blocks, run_page

EXTEND = [page for page in PAGES if page.startswith("docs/extend/")]


def test_there_is_a_page_for_each_seam() -> None:
    assert [Path(page).stem for page in EXTEND] == ["engine", "objective", "task", "verifier"]


@pytest.mark.parametrize("page", EXTEND)
def test_the_change_applies_and_works(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    change = "".join(blocks(page, "diff"))
    subprocess.run(["git", "apply", "--verbose", "-"], cwd=tmp_path, input=change, text=True, check=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "src"), prepend=os.pathsep)
    for example, done in run_page(page, tmp_path):
        example.check(done)
