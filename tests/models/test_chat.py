"""A conversation in the model's own format:

1. the question is in it, whether the template takes a turn's content as a text or in parts;
2. what a template refuses, fails on or leaves out is one sentence;
3. a stop string of the user's holds in a conversation, one that parts a text's examples does not;
4. prompts belong to a pool as they were rendered: with others it is not continued.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from bontune.base.errors import BontuneError, Interrupted
from bontune.base.problems import Message, Problem
from bontune.engines.contract import SamplingOptions
from bontune.engines.prompts import as_text, stop_of
from bontune.engines.transformers import TransformersEngine
from bontune.models.chat import render_conversation
from bontune.models.saving import save_model
from bontune.pools.draw import PoolRequest, draw_pool
from bontune.pools.pool import RENDERED
from bontune.pools.read import read_pool
from bontune.tasks import load_task, task_from_rows

TURN = (
    "{% for m in messages %}<{{ m['role'] }}>{{ CONTENT }}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXT = TURN.replace("CONTENT", "m['content']")
PARTS = TURN.replace(
    "{{ CONTENT }}", "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}"
)
STRICT_PARTS = TURN.replace("CONTENT", "m['content'][0]['text'] | trim")
EITHER = TURN.replace("CONTENT", "m['content'] if m['content'] is string else m['content'][0]['text']")
QUESTION: tuple[Message, ...] = ({"role": "user", "content": " what is 1+2? "},)
ASKED: tuple[Message, ...] = ({"role": "system", "content": "be brief"}, *QUESTION)
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant.') }}{% endif %}"
    "{{ m['content'] }}{% endfor %}"
)
FORGETFUL = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"


def tokenizer(template: Any) -> Any:
    made = tiny.tokenizer()
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    ("template", "question"),
    [
        (TEXT, " what is 1+2? "),
        (PARTS, " what is 1+2? "),
        (STRICT_PARTS, "what is 1+2?"),
        (EITHER, " what is 1+2? "),
        ({"default": PARTS, "tool_use": TEXT}, " what is 1+2? "),
    ],
    ids=["text", "parts", "strict parts", "either", "several"],
)
def test_the_question_is_asked(template: Any, question: str) -> None:
    assert as_text(ASKED, tokenizer(template)) == f"<system>be brief\n<user>{question}\n<assistant>"
    complete = render_conversation(tokenizer(template), [*QUESTION, {"role": "assistant", "content": "3"}], asks=False)
    assert complete == f"<user>{question}\n<assistant>3\n"


@pytest.mark.parametrize(
    ("template", "messages", "phrase"),
    [
        (ALTERNATING, ASKED, "Conversation roles must alternate user/assistant"),
        (ALTERNATING, QUESTION * 2, "Conversation roles must alternate user/assistant"),
        (FORGETFUL, ASKED, "leaves out the turn of role 'system'"),
        ("{{ messages[0]['role'] }}", QUESTION, "leaves out the turn of role 'user'"),
        (TEXT + "{{ messages[0]['content'] + 1 }}", QUESTION, "refuses the conversation: "),
        (TEXT + "{{ 1 / 0 }}", QUESTION, "refuses the conversation: division by zero; change its turns"),
        (TEXT + "{{ messages[7]['content']['x'] }}", QUESTION, "refuses the conversation: "),
        (TEXT + "{% if %}", QUESTION, "refuses the conversation: "),
        ({"tool_use": TEXT, "rag": TEXT}, QUESTION, "refuses the conversation: "),
        (TEXT + "{{ tools | length }}", QUESTION, "refuses the conversation: "),
    ],
)
def test_what_a_template_does_not_take_is_one_sentence(
    template: Any, messages: tuple[Message, ...], phrase: str
) -> None:
    with pytest.raises(BontuneError) as refused:
        as_text(messages, tokenizer(template))
    assert phrase in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")
    engine = TransformersEngine(tiny.model(), tokenizer(template))
    with pytest.raises(BontuneError, match="chat template"):
        engine.check([messages], 4)


def test_whose_stop_strings_hold_in_a_conversation() -> None:
    own = task_from_rows([{"prompt": "1+2="}] * 10, lambda *_: True, stop="END")
    problems = [Problem(id="a", prompt="1+2=", messages=QUESTION, reference="3")]
    for uses_chat in (True, False):
        assert stop_of(own, problems, uses_chat) == ("END",)

    class Benchmark:
        stop = ("\nQuestion:",)
        stop_is_for_texts = True

    assert stop_of(Benchmark(), problems, True) == ()
    assert stop_of(Benchmark(), problems, False) == ("\nQuestion:",)
    assert getattr(load_task("countdown"), "stop_is_for_texts", False) is False


def test_a_pool_goes_on_with_the_prompts_that_it_was_begun_with(tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    rows = [{"id": str(i), "prompt": "what is 1+2?", "answer": "3"} for i in range(3)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tmp_path / "model"
    save_model(tiny.model(), tokenizer(TEXT), model)
    sampling = SamplingOptions(num_samples=2100, max_new_tokens=1)
    options = {"data": {"test": str(data)}, "chat": True}
    request = PoolRequest(model=str(model), task="jsonl", task_options=options, sampling=sampling)
    out = tmp_path / "pool.parquet"

    def begin() -> None:
        num_polls = iter(range(4))
        with pytest.raises(Interrupted):
            draw_pool(request, out, poll=lambda: None if next(num_polls, None) is not None else interrupt())

    def interrupt() -> None:
        raise Interrupted

    begin()
    partial = out.with_name("pool.parquet.partial.jsonl")
    head, *entries = partial.read_text().splitlines(keepends=True)
    assert entries
    tokenizer(TEXT.replace("<", "[")).save_pretrained(model)
    with pytest.raises(BontuneError, match=r"the prompts as the model's chat template writes them .* changed"):
        draw_pool(request, out)
    assert partial.read_text() == head + "".join(entries), "nothing is lost"
    earlier = json.loads(head)
    del earlier["settings"]["contents"][RENDERED]  # as an earlier version wrote it
    partial.write_text(json.dumps(earlier) + "\n" + "".join(entries))
    draw_pool(request, out)
    assert len(read_pool(out).problem_ids) == 3
    assert dataclasses.asdict(sampling)["num_samples"] == len(read_pool(out).columns["reward"][0])


def test_a_model_without_a_chat_template_says_so() -> None:
    with pytest.raises(BontuneError, match="The model has no chat template and takes no conversations"):
        render_conversation(tiny.tokenizer(), [{"role": "user", "content": "1+1="}], asks=True)
