"""The site: its reference has everything that the code has, and it builds without a warning."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bontune import tasks
from bontune.cli import app
from bontune.config import Recipe, shipped_recipes
from bontune.objectives.table import ROWS
from pages import ROOT
from reference import CONTRACTS, PUBLIC, pages, walk


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    return pages()


def test_every_command_is_there_with_its_options(reference: dict[str, str]) -> None:
    commands = dict(walk(typer.main.get_command(app), "bontune"))
    assert {"bontune train", "bontune verify fit", "bontune recipes", "bontune recipes show"} <= commands.keys()
    for name, command in commands.items():
        part = reference["commands"].partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
        assert [p.opts for p in options if f"`{p.opts[0]}`" not in part] == [], name


def test_every_recipe_and_every_key_is_there_with_what_it_means(reference: dict[str, str]) -> None:
    assert [name for name in shipped_recipes() if f"| `{name}` |" not in reference["recipes"]] == []

    def keys(tree: dict[str, object], prefix: str = "") -> list[str]:
        nested = [keys(v, f"{prefix}{k}.") if isinstance(v, dict) and v else [f"{prefix}{k}"] for k, v in tree.items()]
        return [key for part in nested for key in part]

    rows = [line for line in reference["recipes"].splitlines() if line.startswith("| `")]
    assert [row for row in rows if not row.split("|")[-2].strip()] == [], "every row says what it is about"
    own = {f for row in ROWS for f in row.options.__dataclass_fields__}
    written = keys(Recipe().model_dump())
    missing = [key for key in written if not any(row.startswith(f"| `{key}` |") for row in rows)]
    assert [key for key in missing if key.removeprefix("objective.") not in own] == []


def test_every_objective_task_and_public_name_is_there(reference: dict[str, str]) -> None:
    assert [row.name for row in ROWS if f"## `{row.name}`" not in reference["objectives"]] == []
    options = {field for row in ROWS for field in row.options.__dataclass_fields__}
    assert [option for option in options if f"| `{option}` |" not in reference["objectives"]] == []
    assert [name for name in tasks.names() if f"## `{name}`" not in reference["tasks"]] == []
    public = [f"{module}.{name}" for module, names in PUBLIC.items() for name in names]
    shown = re.findall(r"^\.\. auto\w+:: ([\w.]+)", reference["python"], flags=re.MULTILINE)
    assert sorted(shown) == sorted([*public, *CONTRACTS])


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "reference"))
    for name in ("src", "results", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", "site"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "reference" / "commands.html").is_file()
