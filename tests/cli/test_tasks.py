"""``bontune tasks show``: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError, RunStopped
from bontune.cli.catalogue import show_task
from bontune.tasks import describe, names, options

ROWS = [
    {"problem": "What is [bold]1+1[/bold] :smile:?" + " long" * 60, "answer": "2", "unique_id": "first"},
    {"problem": "What is $2+2$?", "answer": "4", "unique_id": "second", "level": 3},
]


def shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str, **arguments: Any) -> str:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    show_task("math", [f"data={path}", *more], "test", **arguments)
    return capsys.readouterr().out


def test_a_problem_as_a_model_sees_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(tmp_path, capsys)
    assert text.startswith("math, split test: 2 problems (splits: test 2)\n── problem 0: first\n")
    assert f"\nProblem:\n{ROWS[0]['problem']}\n\nSolution:\n" in text  # neither wrapped nor read as markup
    assert "a text to continue, which ends at '\\nProblem:'\n" in text
    assert f"── conversation, user\n{ROWS[0]['problem']}\n\nReason" in text
    assert "── reference\n2\n" in text
    assert "format=auto" in text
    by_id, by_index = shown(tmp_path, capsys, problem_id="second"), shown(tmp_path, capsys, index=1)
    assert by_id == by_index
    assert "── problem 1: second, level 3\n" in by_id


def test_one_form_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "conversation, user" not in shown(tmp_path, capsys, form="base")
    assert "── prompt" not in shown(tmp_path, capsys, form="chat")
    few = shown(tmp_path, capsys, "shots=2", form="chat")
    assert (few.count("conversation, user"), few.count("conversation, assistant")) == (3, 2)


def test_references_are_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(tmp_path, capsys, check=True).endswith("── references\n2 of 2 pass\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "answer": "yes"}\n{"prompt": "b", "answer": "no"}\n')
    (tmp_path / "own.py").write_text("def grade(row, completion):\n    return completion == 'yes'\n")
    with pytest.raises(RunStopped, match="1 of 2 references of task jsonl do not pass"):
        show_task("jsonl", [f"data={rows}", f"grader={tmp_path}/own.py:grade"], "all", check=True)
    assert ": failed: reward 0\n1 of 2 pass\n" in capsys.readouterr().out


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"index": 2}, "Split test has 2 problems; --index goes to 1"),
        ({"problem_id": "frist"}, "no problem 'frist', did you mean 'first'"),
    ]
    for arguments, phrase in cases:
        with pytest.raises(BontuneError, match=phrase):
            shown(tmp_path, capsys, **arguments)
    with pytest.raises(BontuneError, match="offers no conversation here"):
        shown(tmp_path, capsys, "format=base", form="chat")


def test_every_option_of_every_task_is_explained() -> None:
    for name in names():
        assert describe()[name].endswith(".")
        for option in options(name):
            assert option.summary, f"{name}: {option.name}"
    by_name = {option.name: option for option in options("jsonl")}
    assert (by_name["data"].default, by_name["hold_out"].default) == ("", "0.1")
    assert by_name["answer"].summary.startswith("the column with the right answer. A grader of your own does without")
