"""Contract of prompts that are conversations: every kind of file gives the same messages; what nobody can go on with is
refused with its place."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bontune.base.errors import BontuneError
from bontune.engines.prompts import prompts_of
from bontune.tasks import Jsonl, RowsTask, task_from_rows

SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": 'What is "1+1", in\nwords?'}
ANSWER = {"role": "assistant", "content": "two"}
AGAIN = {"role": "user", "content": "And 2+2?"}
TALK = [SYSTEM, ASK, ANSWER, AGAIN]


def always(row: dict[str, Any], completion: str) -> bool:
    return True


def task_of(tmp_path: Path, kind: str, prompt: Any, **more: Any) -> RowsTask:
    """A task of one row, with the prompt as this kind of file holds it."""
    row = {"prompt": prompt, "answer": "four", **more}
    path = tmp_path / f"rows.{kind.removesuffix(' in Python')}"
    if kind == "rows":
        return task_from_rows([row], always)
    if kind == "array":  # as pandas reads a list from a Parquet file
        return task_from_rows([{**row, "prompt": np.array(prompt, dtype=object)}], always)
    if kind == "table":
        return task_from_rows(pa.Table.from_pylist([row]), always)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif kind.startswith("csv"):
        text = str(prompt) if kind == "csv in Python" else json.dumps(prompt)  # str: as pandas writes a list
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(row), [text, "four", *map(str, more.values())]])
    else:
        path.write_text(json.dumps(row) + "\n")
    return Jsonl(data=path)


KINDS = ["jsonl", "csv", "csv in Python", "parquet", "rows", "array", "table"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turns", [[ASK], [SYSTEM, ASK], TALK], ids=["user", "system", "talk"])
def test_a_conversation_is_the_same_from_every_kind_of_file(tmp_path: Path, kind: str, turns: list[Any]) -> None:
    (problem,) = task_of(tmp_path, kind, turns).problems("all")
    assert problem.messages == tuple(turns)
    assert problem.reference == "four"


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_text_are_joined(tmp_path: Path, kind: str) -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "1+1?"}]
    (problem,) = task_of(tmp_path, kind, [{"role": "user", "content": parts}]).problems("all")
    assert problem.messages == ({"role": "user", "content": "What is 1+1?"},)
    assert problem.prompt == "What is 1+1?"


class Continues:
    """An engine that takes no conversations."""

    def takes_chat(self) -> bool:
        """No."""
        return False


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        ([ASK], ASK["content"]),
        ([SYSTEM, AGAIN], "Be brief.\n\nAnd 2+2?"),
        ([AGAIN, ANSWER, AGAIN], "User: And 2+2?\n\nAssistant: two\n\nUser: And 2+2?\n\nAssistant:"),
    ],
)
def test_a_model_without_a_chat_template_is_asked_a_text(turns: list[Any], text: str) -> None:
    problems = task_from_rows([{"prompt": turns}], always).problems("all")
    assert prompts_of(Continues(), problems) == [text]


@pytest.mark.parametrize(
    ("turns", "phrase"),
    [
        ([], "holds a conversation without a turn"),
        ([*TALK, ANSWER], "ends with a turn of the assistant, so that nothing is asked: take it off"),
        ([SYSTEM], "ends with a turn of the system; a turn of the user must follow"),
        ([ASK, SYSTEM, ASK], "turn 2 has the role system, which only the first may have"),
        ([{"role": "usr", "content": "x"}], "turn 1 has the role 'usr', did you mean 'user'?; roles are system,"),
        ([{"role": None, "content": "x"}], "turn 1 has the role None; roles are"),
        ([{"content": "x"}], "turn 1 has the role None"),
        ([SYSTEM, {"role": "user", "content": None}], "turn 2 has no content; write its text"),
        ([{"role": "user"}], "turn 1 has no content"),
        ([{"role": "user", "content": " \n"}], "the last turn is empty"),
        ([{"role": "user", "content": 5}], "turn 1 has a content of type int, not a text or a list of parts"),
        (
            [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}],
            "turn 1 has a part of type 'image'; only parts with a text can be shown",
        ),
        ([ASK, {**ANSWER, "tool_calls": [{"name": "add"}]}, AGAIN], "turn 2 calls tools"),
    ],
)
def test_a_conversation_that_cannot_go_on_is_refused_with_its_place(
    tmp_path: Path, turns: list[Any], phrase: str
) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"prompt": [ASK], "answer": "two"}
    path.write_text(json.dumps(good) + "\n" + json.dumps({"prompt": turns, "answer": "two"}) + "\n")
    with pytest.raises(BontuneError, match=re.escape(phrase)) as caught:
        Jsonl(data=path)
    assert "line 2: column 'prompt'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_that_only_looks_like_a_conversation_is_refused(tmp_path: Path) -> None:
    """As pandas writes an array of turns into a CSV file: without commas."""
    broken = "[{'role': 'user', 'content': 'a'}\n {'role': 'user', 'content': 'b'}]"
    with pytest.raises(BontuneError, match="row 1: column 'prompt' looks like a conversation, but is no JSON"):
        task_from_rows([{"prompt": broken}], always)


@pytest.mark.parametrize(
    "text", ["[1, 2]", "[]", '{"role": "user"}', '[{"a": 1}]', 'Fix [{"role": "user"}]', "[{role}]"]
)
def test_other_texts_stay_texts(text: str) -> None:
    (problem,) = task_from_rows([{"prompt": text}], always).problems("all")
    assert (problem.prompt, problem.messages) == (text, ())


def test_texts_and_conversations_do_not_mix() -> None:
    rows = [{"prompt": [ASK]}, {"prompt": "1+1?"}]
    with pytest.raises(BontuneError, match="row 2: column 'prompt' holds a text, and a conversation in the first row"):
        task_from_rows(rows, always)
    with pytest.raises(BontuneError, match="row 2: column 'prompt' holds a conversation, and a text in the first row"):
        task_from_rows(rows[::-1], always)


@pytest.mark.parametrize("tools", [[{"type": "function"}], '[{"type": "function"}]'])
def test_tools_are_refused_and_not_dropped(tools: Any) -> None:
    with pytest.raises(BontuneError, match="row 1: the column 'tools' holds tools, which cannot be offered"):
        task_from_rows([{"prompt": [ASK], "tools": tools}], always)
    for nothing in (None, [], "[]", "", float("nan")):
        assert task_from_rows([{"prompt": [ASK], "tools": nothing}], always).problems("all")[0].messages == (ASK,)
    assert task_from_rows([{"prompt": "1+1?", "tools": tools}], always).problems("all")[0].prompt == "1+1?"


def test_the_template_is_of_the_last_turn(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": TALK, "answer": "four", "hint": "count"}))
    (problem,) = Jsonl(data=path, template="{prompt} ({hint}; use \\boxed{})").problems("all")
    assert problem.messages == (*TALK[:-1], {"role": "user", "content": "And 2+2? (count; use \\boxed{})"})
    assert "User: And 2+2? (count; use \\boxed{})" in problem.prompt


def test_prompt_and_completion_rows_are_graded_and_imitated(tmp_path: Path) -> None:
    """As TRL's trainers take them: texts, or a conversation and its last turn."""
    path = tmp_path / "rows.jsonl"
    for prompt, completion in (("2+2?", " four"), ([AGAIN], [{"role": "assistant", "content": " four"}])):
        path.write_text(json.dumps({"prompt": prompt, "completion": completion}))
        task = Jsonl(data=path)
        (problem,) = task.problems("all")
        assert (problem.reference, task.demonstration(problem)) == (" four", " four")
        assert [grade.reward for grade in task.grade([problem], [["four", "five", ""]])[0]] == [1, 0, 0]
        own = task_from_rows([{"prompt": prompt, "completion": completion}], always)
        assert own.demonstration(own.problems("all")[0]) == " four"
    path.write_text(json.dumps({"prompt": [AGAIN], "completion": [AGAIN]}))
    with pytest.raises(BontuneError, match="'completion' holds neither a text nor one turn of the assistant"):
        Jsonl(data=path)
    task = task_from_rows([{"prompt": "p", "completion": [AGAIN]}], always)
    with pytest.raises(BontuneError, match="has no demonstration"):
        task.demonstration(task.problems("all")[0])
