"""The options of tasks: of their annotated types, strictly, whether a recipe, a command line or Python gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bontune.base.errors import BontuneError
from bontune.cli import app
from bontune.tasks import load_task


@pytest.mark.parametrize(
    ("task", "options", "phrase"),
    [
        ("countdown", {"seed": True}, "Task countdown: seed must be a whole number, not True"),
        ("countdown", {"seed": 1.0}, "seed must be a whole number, not 1.0"),
        ("countdown", {"seed": "1"}, "seed must be a whole number, not '1'"),
        ("countdown", {"seed": -1}, "seed must be at least 0, not -1"),
        ("programs", {"seed": True}, "Task programs: seed must be a whole number, not True"),
        ("programs", {"hard": 1}, "hard must be true or false, not 1"),
        ("math", {"shots": True}, "shots must be a whole number, not True"),
        ("math", {"shots": -1}, "shots must be at least 0, not -1"),
        ("math", {"data": 5}, "Task math: data must be text"),
        ("gsm8k", {"shots": 9}, "shots must be at most 8, not 9"),
        ("gsm8k", {"format": None}, "format must be 'auto', 'base', 'chat' or 'equations', not None"),
        ("mbpp", {"shots": 11}, "shots must be at most 10, not 11"),
        ("mbpp", {"memory_mb": True}, "memory_mb must be a whole number, not True"),
        ("mbpp", {"memory_mb": 63}, "memory_mb must be at least 64, not 63"),
        ("humaneval", {"train_share": True}, "train_share must be a number, not True"),
        ("humaneval", {"train_share": -0.1}, "train_share must be at least 0, not -0.1"),
        ("humaneval", {"timeout_s": 601}, "timeout_s must be at most 600, not 601"),
        ("humaneval", {"memory_mb": 65_537}, "memory_mb must be at most 65536, not 65537"),
        ("jsonl", {"limit": True}, "limit must be a whole number, not True"),
        ("jsonl", {"limit": 0}, "limit must be at least 1, not 0"),
        ("jsonl", {"template": {"prompt": None}}, "template must be text, .*; in YAML put it in quotes"),
        ("jsonl", {"grader": 5}, "grader must be text, or must be callable, not 5"),
    ],
)
def test_what_is_refused(tmp_path: Path, task: str, options: dict[str, Any], phrase: str) -> None:
    given = {"data": str(tmp_path / "absent.jsonl")} | options if task == "jsonl" else options
    with pytest.raises(BontuneError, match=phrase):
        load_task(task, **given)


def test_a_whole_number_is_a_number_of_seconds() -> None:
    assert load_task("mbpp", timeout_s=7).name == "mbpp"


def test_an_unknown_format_of_tasks_show_names_the_formats() -> None:
    done = CliRunner().invoke(app, ["tasks", "show", "countdown", "--format", "chta"])
    assert done.exit_code == 2
    assert all(word in done.output for word in ("--format", "chta", "both", "base", "chat"))
