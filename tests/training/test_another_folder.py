"""Contract of a run's files: they are found from any folder, and what they hold decides, not how they are called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from bontune import Trainer
from bontune.base.errors import BontuneError
from bontune.config import STARTED_IN, load_recipe

GRADER = "def grade(row, completion):\n    return row['answer'] in completion\n"


def project(folder: Path, run: str) -> Path:
    """A folder with data, a grader, and a run that names both, as a training writes it."""
    (folder / run).mkdir(parents=True)
    rows = [{"prompt": f"{i},3,2,1:{i}=", "answer": str(i)} for i in range(6)]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "g.py").write_text(GRADER)
    (folder / "v.py").write_text("def score(problem, completion):\n    return len(completion)\n")
    tree: dict[str, Any] = {
        "task": {"name": "jsonl", "data": "d.jsonl", "grader": "g.py:grade"},
        "verifier": {"name": "python", "function": "v.py:score"},
        "objective": {"n": 2},
        "sampling": {"samples": 4, "max_new_tokens": 4},
        "training": {"steps": 1, "prompts_per_step": 2, "device": "cpu"},
        "eval": {"every": 0, "task": {"name": "jsonl", "data": {"test": "./d.jsonl"}, "grader": "g.py:grade"}},
        "run": run,
    }
    (folder / run / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return folder / run


def test_files_are_found_from_the_folder_where_the_run_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = project(tmp_path / "project", "runs/a")
    home = run.parent.parent
    (home / "sub").mkdir()
    monkeypatch.chdir(home)
    assert load_recipe("runs/a").task.options()["data"] == "d.jsonl", "as it was written"
    for folder, name in ((home / "sub", "../runs/a"), (run, "."), (tmp_path, str(run)), (tmp_path, "project/runs/a")):
        monkeypatch.chdir(folder)
        recipe = load_recipe(name)
        assert recipe.model == "countdown-tiny"
        assert recipe.task.options() == {"data": str(home / "d.jsonl"), "grader": f"{home / 'g.py'}:grade"}
        assert recipe.verifier.function == f"{home / 'v.py'}:score"
        assert recipe.eval.task is not None
        assert recipe.eval.task.options()["data"] == {"test": str(home / "d.jsonl")}
        assert load_recipe(name, ["task.data=mine.jsonl"]).task.options()["data"] == "mine.jsonl"


def test_the_project_may_move_and_the_run_alone_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = project(tmp_path / "project", "r")
    (run / STARTED_IN).write_text(str(tmp_path / "project"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "elsewhere")  # named otherwise: its note tells
    assert load_recipe("elsewhere").task.options()["data"] == str(tmp_path / "project" / "d.jsonl")
    shutil.move(tmp_path / "project", tmp_path / "moved")
    assert load_recipe("moved/r").task.options()["data"] == str(tmp_path / "moved" / "d.jsonl")
    assert load_recipe("elsewhere").task.options()["data"] == "d.jsonl", "found nowhere: as it was written"


def test_a_run_goes_on_from_another_folder_and_not_with_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = project(tmp_path / "project", "r").parent
    (home / "sub").mkdir()
    outside = str(tmp_path / "far" / "run")  # a name that does not tell where it began
    monkeypatch.chdir(home)
    Trainer(load_recipe("r", [f"run={outside}"]), is_quiet=True).train()
    assert yaml.safe_load((Path(outside) / "recipe.yaml").read_text())["task"]["data"] == "d.jsonl"
    assert Path(outside, STARTED_IN).read_text() == str(home)
    monkeypatch.chdir(home / "sub")
    assert Trainer(load_recipe(outside, ["training.steps=2"]), is_quiet=True).train()["steps"] == 2
    shutil.copy(home / "d.jsonl", "copy.jsonl")
    grown = ["training.steps=3", "task.data=copy.jsonl", "eval.task.data=copy.jsonl"]
    assert Trainer(load_recipe(outside, grown), is_quiet=True).train()["steps"] == 3
    (home / "d.jsonl").write_text('{"prompt": "1,2=", "answer": "3"}\n')
    with pytest.raises(BontuneError, match="the problems for training changed"):
        Trainer(load_recipe(outside, ["task.data=../d.jsonl", "eval.task.data=../d.jsonl"]), is_quiet=True).train()
