"""Contract of sampling from servers, against a real server process with a real model behind it:

1. what is collected is what the server's model draws for the seeds of (key, sample), by either API, whatever `n` the
   server honours, in any order of arrival;
2. faults cost tries and change nothing; what is no completion never becomes one, and a server that gives none ends the
   drawing in one sentence that names the problem;
3. grading holds up no request; an interruption ends the requests;
4. replies of other servers' habits are read as they are meant.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from bontune.base.client import BadReply, Refused
from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.base.problems import Problem
from bontune.engines.contract import Completion, SamplingOptions, StopReason, check_vllm_sampling
from bontune.engines.openai import OpenAIEngine, Serving, read_completions
from bontune.engines.prompts import as_message, prompts_of
from bontune.engines.seeds import stream
from bontune.engines.transformers import TransformersEngine
from bontune.grading.verdict import Grade, Verdict
from bontune.models import load_model
from bontune.pools.collect import collect_streamed
from bontune.tasks import load_task, task_from_rows
from bontune.verifiers import load_verifier
from servers.openai_server import Server, server

OPTIONS = SamplingOptions(num_samples=5, max_new_tokens=16, temperature=0.9, top_p=0.95, stop=("+",))
PROMPTS = [p.prompt for p in load_task("countdown").problems("test")[:3]]
KEYS = [(0, "pool", i) for i in range(len(PROMPTS))]


@pytest.fixture
def served() -> Server:
    started = server()
    started.behave()
    return started


@pytest.fixture(scope="module")
def local() -> TransformersEngine:
    torch.set_num_threads(1)
    return TransformersEngine(*load_model("countdown-tiny", device="cpu"))


def seed_of(key: tuple[object, ...], sample: int) -> int:
    return int(stream(*key, sample).integers(2**31))


def drawn_here(local: TransformersEngine, groups: list[list[int]], *, has_logprobs: bool) -> list[list[Completion]]:
    """What the server's model draws for the seeds of the first sample of each group."""
    rows = []
    for prompt, key in zip(PROMPTS, KEYS, strict=True):
        row: list[Completion] = []
        for group in groups:
            options = SamplingOptions(
                num_samples=len(group), max_new_tokens=16, temperature=0.9, top_p=0.95, stop=OPTIONS.stop
            )
            row += local.draw([prompt], options, [("served", seed_of(key, group[0]))]).completions()[0]
        rows.append([c if has_logprobs else Completion(**(fields_of(c) | {"logprob": None})) for c in row])
    return rows


def fields_of(completion: Completion) -> dict[str, Any]:
    return {name: getattr(completion, name) for name in ("text", "stop", "num_tokens", "logprob")}


def assert_same(rows: list[list[Completion]], wanted: list[list[Completion]], *, is_counted: bool = True) -> None:
    for row, wanted_row in zip(rows, wanted, strict=True):
        for completion, other in zip(row, wanted_row, strict=True):
            assert (completion.text, completion.stop) == (other.text, other.stop)
            assert completion.num_tokens == (other.num_tokens if is_counted else None)
            assert completion.logprob == (None if other.logprob is None else pytest.approx(other.logprob, abs=1e-4))


def sample(served: Server, **options: Any) -> list[list[Completion]]:
    engine = OpenAIEngine(served.url, Serving(**({"concurrency": 4, "tries": 3} | options)))
    try:
        return engine.draw(PROMPTS, OPTIONS, KEYS).rows
    finally:
        engine.close()


# ---- 1: what is drawn ----


@pytest.mark.parametrize("api", ["completions", "auto", "chat"])
@pytest.mark.parametrize("has_logprobs", [False, True])
def test_every_sample_is_the_servers_draw_for_its_seed(
    served: Server, local: TransformersEngine, api: str, has_logprobs: bool
) -> None:
    rows = sample(served, api=api, has_logprobs=has_logprobs)
    wanted = drawn_here(local, [[i] for i in range(5)], has_logprobs=has_logprobs)
    assert_same(rows, wanted)
    assert {c.stop for row in rows for c in row} >= {StopReason.STOP, StopReason.END}
    told = served.told()
    assert {r["path"] for r in told["requests"]} == {"/v1/chat/completions" if api == "chat" else "/v1/completions"}
    assert {r["model"] for r in told["requests"]} == {"countdown-tiny"}
    assert sorted(r["seed"] for r in told["requests"]) == sorted(seed_of(k, i) for k in KEYS for i in range(5))
    assert 1 < told["most_at_once"] <= 4


def test_a_conversation_goes_to_chat(served: Server) -> None:
    conversation = ({"role": "system", "content": "Count."}, {"role": "user", "content": PROMPTS[0]})
    engine = OpenAIEngine(served.url, Serving(extra={"top_k": 20, "seed": None}))
    engine.draw([conversation], SamplingOptions(num_samples=1, max_new_tokens=3), [(0,)])
    (request,) = served.told()["requests"]
    assert request == {
        "path": "/v1/chat/completions",
        "model": "countdown-tiny",
        "messages": list(conversation),
        "max_tokens": 3,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 20,
    }
    engine.close()


@pytest.mark.parametrize(
    ("choices", "max_choices", "groups"),
    [
        (5, 1_000, [[0, 1, 2, 3, 4]]),
        (2, 1_000, [[0, 1], [2, 3], [4]]),
        (3, 2, [[0, 1], [2], [3, 4]]),
        (5, 1, [[0], [1], [2], [3], [4]]),
    ],
)
def test_choices_that_are_missing_are_asked_for(
    served: Server, local: TransformersEngine, choices: int, max_choices: int, groups: list[list[int]]
) -> None:
    served.behave(max_choices=max_choices)
    rows = sample(served, choices=choices, has_logprobs=True)
    # With log-probabilities, tokens can be counted even where the usage is that of several choices.
    assert_same(rows, drawn_here(local, groups, has_logprobs=True))
    rows = sample(served, choices=choices)
    counted = [[c.num_tokens is not None for c in row] for row in rows]
    assert counted == [[len(group) == 1 for group in groups for _ in group]] * len(PROMPTS)


# ---- 2: faults ----


@pytest.mark.parametrize("fault", ["drop", "half", "500", "json"])
def test_faults_change_nothing(served: Server, local: TransformersEngine, fault: str) -> None:
    served.behave(fault=fault, times=1, body={"choices": []})
    engine = OpenAIEngine(served.url, Serving(concurrency=8))
    rows = engine.draw(PROMPTS, OPTIONS, KEYS).rows
    assert engine.endpoint.num_retries == 15
    assert (engine.progress.num_samples, engine.progress.num_tokens) == (
        15,
        sum(c.num_tokens or 0 for r in rows for c in r),
    )
    engine.close()
    assert_same(rows, drawn_here(local, [[i] for i in range(5)], has_logprobs=False))


@pytest.mark.parametrize(
    ("choice", "phrase"),
    [
        ({"text": None}, "text is null"),
        ({"text": ["1"]}, "text is a list"),
        ({"message": {"content": None}}, "text is null"),
        ({"message": {}, "finish_reason": "stop"}, "text is null"),
        ({"message": {"content": 4}}, "text is a int"),
        ({"message": None}, "not of this API"),
        ({"text": "1", "finish_reason": "abort"}, "gave a completion up (finish_reason abort)"),
        ("1+2", "not of this API"),
        ({}, "not of this API"),
    ],
)
def test_what_is_no_completion_ends_the_drawing(served: Server, choice: Any, phrase: str) -> None:
    served.behave(fault="json", times=-1, body={"choices": [choice]})
    engine = OpenAIEngine(served.url, Serving(tries=2))
    with pytest.raises(RunStopped) as stopped:
        list(engine.as_completed(PROMPTS[:1], OPTIONS, KEYS[:1], names=["problem 17"]))
    assert phrase in str(stopped.value)
    assert "no usable answer to problem 17 in 2 tries" in str(stopped.value)
    engine.close()


def test_one_refused_prompt_does_not_end_the_others(served: Server) -> None:
    served.behave(refuses=[PROMPTS[1]])
    engine = OpenAIEngine(served.url, Serving(concurrency=2))
    kept: dict[int, dict[int, Completion]] = {}
    rows = dict(engine.as_completed(PROMPTS, OPTIONS, KEYS, keep=lambda p, new: kept.setdefault(p, {}).update(new)))
    assert sorted(rows) == list(range(len(PROMPTS)))
    assert {c.stop for c in rows[1]} == {StopReason.REFUSED}
    assert {c.text for c in rows[1]} == {""}
    assert all(c.stop is not StopReason.REFUSED for p, row in rows.items() if p != 1 for c in row)
    assert [kept[p][i] for p in rows for i in range(OPTIONS.num_samples)] == [c for row in rows.values() for c in row]
    assert engine.refusal is not None
    assert "status 400: this prompt is too long" in engine.refusal
    num_asked = len(served.told()["requests"])
    again = dict(engine.as_completed(PROMPTS, OPTIONS, KEYS, known=[kept[p] for p in range(len(PROMPTS))]))
    assert again == rows
    assert len(served.told()["requests"]) == num_asked, "what was refused is not asked again"
    engine.close()


def test_a_server_that_refuses_everything_is_no_matter_of_prompts(served: Server) -> None:
    served.behave(refuses=[""])
    engine = OpenAIEngine(served.url, Serving(concurrency=2))
    with pytest.raises(BontuneError, match="refuses prompt 1"):
        list(engine.as_completed(PROMPTS, OPTIONS, KEYS))
    assert len({json.dumps(request["prompt"]) for request in served.told()["requests"]}) <= 6
    engine.close()


def test_a_base_model_is_asked_to_continue_texts(served: Server) -> None:
    problem = Problem(id="a", prompt=PROMPTS[0], messages=as_message(PROMPTS[0]), reference="")
    for has_template, status, num_asked in ((True, 0, 1), (False, 400, 1), (False, 500, 2)):
        served.behave(has_template=has_template, status_of_chat=status)
        engine = OpenAIEngine(served.url)
        assert engine.takes_chat() == has_template
        engine.draw(prompts_of(engine, [problem]), OPTIONS, KEYS[:1])
        requests = served.told()["requests"]
        assert requests[-1]["path"] == ("/v1/chat/completions" if has_template else "/v1/completions")
        assert len(requests) == num_asked + OPTIONS.num_samples, "the server was asked at once what it can"
        engine.close()


def test_a_server_may_take_four_stop_strings_only(served: Server, local: TransformersEngine) -> None:
    stop = ("*", "1", "2", "/", "-", "7")
    options = replace(OPTIONS, stop=stop)
    served.behave(most_stops=4)
    engine = OpenAIEngine(served.url)
    drawn = engine.draw(PROMPTS, options, KEYS)
    assert all(len(request["stop"]) == 4 for request in served.told()["requests"])
    texts = [text for row in drawn.texts for text in row]
    assert not any(s in text for text in texts for s in stop)
    engine.close()


def test_a_temperature_that_vllm_raises_is_warned_of(served: Server) -> None:
    served.behave(owned_by="vllm")
    engine = OpenAIEngine(served.url)
    cold = replace(OPTIONS, temperature=0.001, num_samples=1)
    with pytest.warns(UserWarning, match=r"draws at temperature 0\.01 .* got 0\.001: take 0, or 0\.01"):
        engine.draw(PROMPTS[:1], cold, KEYS[:1])
    engine.close()
    with pytest.raises(BontuneError, match=r"got 0\.009"):
        check_vllm_sampling(0.009, 1.0)
    check_vllm_sampling(0.0, 1.0)
    check_vllm_sampling(0.01, 1.0)


@pytest.mark.parametrize(
    ("status", "body", "num_more"),
    [
        (401, "no key", 2),
        (402, {"error": {"message": "nothing left to pay with"}}, 2),
        (403, {"error": {"message": "the key was withdrawn"}}, 20),
        (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, 2),
    ],
)
def test_a_refusal_of_the_account_ends_the_drawing_at_once(
    served: Server, status: int, body: object, num_more: int
) -> None:
    served.behave(fault=str(status), times=-1, fault_after=5, body=body)
    engine = OpenAIEngine(served.url, Serving(concurrency=2))
    kept: list[Completion] = []
    with pytest.raises(Refused, match=f"status {status}"):
        list(engine.as_completed(PROMPTS * 3, OPTIONS, KEYS * 3, keep=lambda p, new: kept.extend(new.values())))
    assert len(kept) >= 4
    assert all(completion.stop is not StopReason.REFUSED for completion in kept)
    assert len(served.told()["requests"]) <= 5 + num_more
    engine.close()


def test_a_refusal_names_the_problem_and_the_other_api(served: Server) -> None:
    served.behave(fault="404", times=-1, body={"detail": "Not Found"})
    with pytest.raises(BontuneError, match=r"refuses prompt 1: POST .*/completions → .*Not Found; .* try api chat\."):
        sample(served)


def test_what_keep_raises_ends_the_drawing(served: Server) -> None:
    def keep(p: int, new: dict[int, Completion]) -> None:
        raise RunStopped("full disk")

    engine = OpenAIEngine(served.url, Serving(concurrency=2))
    with pytest.raises(RunStopped, match="full disk"):
        list(engine.as_completed(PROMPTS, OPTIONS, KEYS, keep=keep))
    assert len(served.told()["requests"]) <= 4
    engine.close()


# ---- 3: grading and interruptions ----


def test_requests_go_on_while_a_problem_is_graded(served: Server) -> None:
    """The grader of the first problem waits until the server has been asked for all others."""

    def patient(row: dict[str, Any], completion: str) -> Grade:
        end = time.monotonic() + 60
        while len(served.told()["requests"]) < 12:
            assert time.monotonic() < end, "requests wait for the grader"
        return Grade(reward=1.0, verdict=Verdict.PASSED, answer=threading.current_thread().name)

    task = task_from_rows({"test": [{"prompt": prompt} for prompt in PROMPTS]}, patient)
    problems = task.problems("test")
    assert len(problems) == 3
    engine = OpenAIEngine(served.url, Serving(concurrency=2))
    options = SamplingOptions(num_samples=4, max_new_tokens=4)
    graded = list(collect_streamed(engine, task, load_verifier("oracle"), problems, options, key=(0,)))
    engine.close()
    assert {problem.id for problem, *_ in graded} == {problem.id for problem in problems}
    assert {grade.answer for _, _, grades, _ in graded for grade in grades} == {"MainThread"}
    assert {grade.reward for _, _, grades, _ in graded for grade in grades} == {1.0}


def test_an_interruption_ends_the_requests(served: Server) -> None:
    served.behave(fault="hang", times=-1)

    def poll() -> None:
        if served.told()["requests"]:
            raise Interrupted("SIGTERM")

    engine = OpenAIEngine(served.url, Serving(concurrency=4))
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        engine.draw(PROMPTS, OPTIONS, KEYS, poll)
    assert time.monotonic() - begun < 20
    served.behave()
    assert len(engine.draw(PROMPTS, OPTIONS, KEYS).rows) == 3, "and the engine can be used again"
    engine.close()


# ---- 4: replies ----


def read(choice: dict[str, Any], stop: tuple[str, ...] = (), **reply: Any) -> dict[str, Any]:
    (completion,) = read_completions({"choices": [choice], **reply}, stop, 1)
    return fields_of(completion)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"text": "a", "finish_reason": "stop"}, StopReason.END),
        ({"text": "a", "finish_reason": "eos"}, StopReason.END),
        ({"text": "a", "finish_reason": "length"}, StopReason.LENGTH),
        ({"text": "a", "finish_reason": "stop", "stop_reason": ";"}, StopReason.STOP),
        ({"text": "a", "finish_reason": "stop", "stop_reason": 151645}, StopReason.END),
        ({"text": "a", "finish_reason": "stop", "matched_stop": ";"}, StopReason.STOP),
        ({"text": "a", "finish_reason": "stop", "matched_stop": 2}, StopReason.END),
        ({"text": "a;b", "finish_reason": "length"}, StopReason.STOP),
        ({"text": "a;", "finish_reason": "stop"}, StopReason.STOP),
        ({"text": "a", "finish_reason": "content_filter"}, StopReason.OTHER),
        ({"text": "a", "finish_reason": None}, StopReason.OTHER),
        ({"text": "a"}, StopReason.OTHER),
    ],
)
def test_stop_reasons(choice: dict[str, Any], expected: StopReason) -> None:
    assert read(choice, (";",)) == {"text": "a", "stop": expected, "num_tokens": None, "logprob": None}


@pytest.mark.parametrize(
    ("message", "finish", "text"),
    [
        ({"content": None, "reasoning_content": "hm"}, "stop", ""),
        ({"content": None, "reasoning": "hm"}, "length", ""),
        ({"content": None}, "length", ""),
        ({"content": None, "tool_calls": [{}]}, "tool_calls", ""),
        ({"content": None, "refusal": "no"}, "stop", ""),
        ({"content": ""}, "stop", ""),
        ({"content": None}, "stop", ""),
        ({"content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}, "stop", "42"),
        ({"content": [{"type": "output_text", "text": "4"}, {"type": "image"}]}, "stop", "4"),
        ({"content": []}, "stop", ""),
        ({"content": "4", "reasoning_content": "2+2"}, "stop", "4"),
    ],
)
def test_an_empty_answer_is_one(message: dict[str, Any], finish: str, text: str) -> None:
    assert read({"message": message, "finish_reason": finish})["text"] == text


def test_half_of_a_pair_of_surrogates_becomes_text_that_files_can_hold() -> None:
    assert read({"text": "a\ud83d b\ud83d\ude00 \udc00"})["text"] == "a\ufffd b\U0001f600 \ufffd"


@pytest.mark.parametrize(
    ("logprobs", "logprob"),
    [
        ({"token_logprobs": [-0.5, -1.25]}, -1.75),
        ({"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1}]}, -1.5),
        ({"token_logprobs": [None, -1.25]}, None),
        ({"token_logprobs": [float("-inf")]}, None),
        ({"token_logprobs": []}, None),
        ({"content": None}, None),
        ("none", None),
    ],
)
def test_logprobs(logprobs: Any, logprob: float | None) -> None:
    told = read({"text": "ab", "logprobs": logprobs})
    assert told["logprob"] == logprob
    assert told["num_tokens"] == (None if logprob is None else 2)


@pytest.mark.parametrize(
    ("usage", "num_tokens"),
    [
        ({"completion_tokens": 3}, 3),
        ({"completion_tokens": "3"}, None),
        ({"completion_tokens": -1}, None),
        ({"completion_tokens": True}, None),
        ({}, None),
        (None, None),
        ([3], None),
    ],
)
def test_usage(usage: Any, num_tokens: int | None) -> None:
    assert read({"text": "ab"}, usage=usage)["num_tokens"] == num_tokens


def test_more_choices_than_were_asked_for() -> None:
    reply = {"choices": [{"text": "a"}, {"text": "b"}, {"text": "c"}], "usage": {"completion_tokens": 9}}
    completions = read_completions(reply, (), 2)
    assert [(c.text, c.num_tokens) for c in completions] == [("a", None), ("b", None)]
    with pytest.raises(BadReply):
        read_completions({"choices": []}, (), 1)


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"api": "responses"}, "The api must be one of auto, chat, completions, got 'responses'"),
        ({"choices": 0}, "The choices of a request must be at least 1"),
        ({"extra": {"n": 4}}, "'n' of a request cannot be set"),
        ({"served_model": "other"}, "Two names"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        OpenAIEngine("http://h/v1#m", Serving(**options))
    engine = OpenAIEngine("http://h/v1#m", Serving(api="completions"))
    with pytest.raises(BontuneError, match="takes texts"):
        engine.request(({"role": "user", "content": "a"},), OPTIONS, (0,), [0])
