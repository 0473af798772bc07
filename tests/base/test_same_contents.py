"""Contract of comparing settings: what files hold decides, and not how they are called."""

from __future__ import annotations

from typing import Any

import pytest

from bontune.base.settings import differing

HASHES = {"the problems": "1f", "the grader's code": "2f", "the model's weights": "3f", "what the verifier names": "4f"}


def pool(hashes: dict[str, str] = HASHES, **changed: Any) -> dict[str, Any]:
    options = {"data": "d.jsonl", "grader": "g.py:grade", "stop": "\n"}
    settings = {"model": "runs/a", "task": "jsonl", "task_options": options, "verifier": "v.py:score", "seed": 0}
    return {**settings, "contents": hashes, **changed}


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "../runs/a"},
        {"verifier": "/home/me/v.py:score"},
        {"task_options": {"data": "/home/me/d.jsonl", "grader": "../g.py:grade", "stop": "\n"}},
        {"task_options": {"data": {"train": "d.jsonl"}, "grader": "g.py:grade", "stop": "\n"}},
    ],
)
def test_the_same_contents_under_another_name_are_the_same(changed: dict[str, Any]) -> None:
    assert differing(pool(), pool(**changed)) == []
    for hashes in ({}, dict.fromkeys(HASHES, "")):
        assert differing(pool(hashes), pool(hashes, **changed)), "nothing is known of the contents"
    for name in HASHES:
        assert f"contents.{name}" in differing(pool(), pool({**HASHES, name: "other"}, **changed))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"verifier": "v.py:other"}, "verifier"),
        ({"model": "runs/b"}, "model"),
        ({"task": "math"}, "task"),
        ({"task_options": {"data": "d.jsonl", "grader": "g.py:other", "stop": "\n"}}, "task_options.grader"),
        ({"task_options": {"data": "d.jsonl", "grader": "g.py:grade", "stop": "."}}, "task_options.stop"),
        ({"task_options": {"data": "d.jsonl", "grader": "g.py:grade"}}, "task_options.stop"),
    ],
)
def test_other_settings_decide_by_themselves(changed: dict[str, Any], name: str) -> None:
    assert differing(pool(), pool(**changed)) == [name]


def test_a_grader_of_a_file_is_none_of_ours() -> None:
    built_in = pool(
        {**HASHES, "the grader's code": ""}, task_options={"data": "d.jsonl", "grader": "exact", "stop": "\n"}
    )
    assert differing(pool(), built_in) == ["contents.the grader's code", "task_options.grader"]
    modules = [pool(task_options={"grader": f"graders:{name}"}) for name in ("one", "other")]
    assert differing(*modules) == ["task_options.grader"]


def test_runs_are_compared_alike() -> None:
    run = {"task.data": "d.jsonl", "eval.task.data": "e.jsonl", "model": "m", "verifier.path": "v", "training.lr": 1e-4}
    hashes = {
        "the problems for training": "1f",
        "the problems for evaluation": "2f",
        "the weights of the model": "3f",
        "what the verifier names": "4f",
    }
    moved = {"task.data": "/d.jsonl", "eval.task.data": "../e.jsonl", "model": "../m", "verifier.path": "../v"}
    assert differing(run | hashes, run | moved | hashes) == []
    assert differing(run | hashes, run | moved | hashes | {"training.lr": 2e-4}) == ["training.lr"]
    other = run | moved | hashes | {"the problems for evaluation": "5f"}
    assert differing(run | hashes, other) == ["eval.task.data", "task.data", "the problems for evaluation"]
