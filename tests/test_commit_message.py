"""The hook that checks commit messages, in repositories of its own, and how `make install` turns it on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pages import ROOT

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

BODY = "It was read twice.\nChecked: by a test."
ACCEPTED = [
    f"cli: name the file that is missing\n\n{BODY}",
    f"cli, tools: embed the problems of the task\n\n{BODY}\n\nSigned-off-by: A <a@b.c>",
    f"{'docs: ' + 66 * 'é'}\n\n{BODY}",
    "fixup! cli: name the file that is missing",
    'Revert "cli: name the file that is missing"',
    "Merge branch 'other'",
]
REFUSED = [
    ("Name the file that is missing\n\nbody", "does not begin with an area"),
    (f"{'docs: ' + 67 * 'é'}\n\n{BODY}", "its subject has 73 characters"),
    (f"cli: name the missing file.\n\n{BODY}", "ends with a full stop"),
    (f"cli: named the missing file\n\n{BODY}", "does not say what to do"),
    (f"cli: naming the missing file\n\n{BODY}", "does not say what to do"),
    ("cli: name the missing file\nbecause", "its second line is not blank"),
    ("cli: name the missing file", "it has no body"),
    ("cli: name the missing file\n\nSigned-off-by: A <a@b.c>\n", "it has no body"),
]


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    people = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    others = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=others | settings | people, capture_output=True, text=True, check=False
    )


def commit(folder: Path, message: str) -> subprocess.CompletedProcess[str]:
    return git(folder, "commit", "--allow-empty", "--message", message)


def installed(folder: Path) -> Path:
    """Run `make install` in a folder that has the Makefile, the hook and a virtual environment that is up to date."""
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "tools" / "hooks", folder / "tools" / "hooks")
    (folder / ".venv").mkdir()
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):
        (folder / name).touch()
    subprocess.run(["make", "install"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    assert git(tmp_path, "init", "--quiet").returncode == 0
    return installed(tmp_path)


def test_messages_of_the_form_are_accepted(repository: Path) -> None:
    for message in ACCEPTED:
        done = commit(repository, message)
        assert done.returncode == 0, done.stderr


def test_other_messages_are_refused_with_what_to_change(repository: Path) -> None:
    for message, reason in REFUSED:
        done = commit(repository, message)
        assert done.returncode != 0, message
        assert reason in done.stderr, done.stderr
        assert "CONTRIBUTING.md" in done.stderr
    assert git(repository, "rev-parse", "HEAD").returncode != 0, "nothing was committed"


def test_a_merge_keeps_its_own_words(repository: Path) -> None:
    commit(repository, ACCEPTED[0])
    git(repository, "switch", "--quiet", "--create", "other")
    commit(repository, ACCEPTED[1])
    git(repository, "switch", "--quiet", "-")
    done = git(repository, "merge", "--no-ff", "--message", "take the other one over", "other")
    assert done.returncode == 0, done.stderr


def test_a_copy_without_git_or_within_another_repository_is_installed_without_the_hook(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    installed(tmp_path / "plain")
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    git(tmp_path / "outer", "init", "--quiet")
    installed(tmp_path / "outer" / "inner")
    assert git(tmp_path / "outer", "config", "core.hooksPath").stdout == ""
