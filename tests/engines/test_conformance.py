"""The contract that every engine keeps (:class:`bontune.engines.contract.Engine`), on real models:

1. a draw has M completions for each prompt, in the prompts' order; limits say truly what comes with them;
2. where seeds are promised, a completion follows from its key and sample alone, and ends where a shorter limit cuts it;
3. completions end at the end token, before a stop string, or at the longest allowed, and say which;
4. tokens are the text's, and log-probabilities are the model's own;
5. what does not fit is refused before anything is drawn;
6. new weights are drawn from, or refused in one sentence;
7. a streaming engine yields each prompt once, complete, and draws nothing again that is known;
8. a poll that raises ends the drawing, and the engine can be used again.

A new engine joins by one more entry of ``SUBJECTS``.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch

import tiny
from bontune.base.errors import BontuneError, Interrupted
from bontune.engines.contract import (
    Completion,
    Completions,
    DrawResult,
    Engine,
    Samples,
    SamplingOptions,
    StopReason,
    StreamingEngine,
)
from bontune.engines.openai import OpenAIEngine, Serving
from bontune.engines.transformers import TransformersEngine
from bontune.engines.vllm import VLLMEngine
from bontune.models import load_model
from servers.openai_server import server


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An engine under test, and the same model where the test can look into it."""

    engine: Engine
    """The engine."""
    model: Any
    """The model that it draws from."""
    tokenizer: Any
    """The model's tokenizer."""
    prompts: tuple[str, ...]
    """Prompts of different lengths."""
    stop: tuple[str, ...]
    """Strings that the model likes to write."""
    context: int
    """The model's context, whether the engine knows it or not."""
    other: Any = None
    """A model of the same shape with other weights, for an engine that can load them."""
    temperatures: tuple[float, ...] = (1.0,)
    """Temperatures at which the engine's log-probabilities are defined as the model's own."""

    @property
    def keys(self) -> list[tuple[object, ...]]:
        """A seed key for each prompt."""
        return [(0, "conformance", i) for i in range(len(self.prompts))]

    def draw(self, num_samples: int = 4, max_new_tokens: int = 12, **options: Any) -> DrawResult:
        """Completions of all prompts."""
        options = {"num_samples": num_samples, "max_new_tokens": max_new_tokens} | options
        return self.engine.draw(self.prompts, SamplingOptions(**options), self.keys)

    def rows(self, *counts: int, **options: Any) -> list[list[Completion]]:
        """Completions of all prompts, P × M."""
        return rows_of(self.draw(*counts, **options))


def rows_of(drawn: DrawResult) -> list[list[Completion]]:
    return drawn.completions() if isinstance(drawn, Samples) else drawn.rows  # type: ignore[attr-defined]


def in_this_process(family: str) -> Subject:
    model, tokenizer = tiny.model(family, max_position_embeddings=64), tiny.tokenizer()
    return Subject(
        engine=TransformersEngine(model, tokenizer),
        model=model,
        tokenizer=tokenizer,
        prompts=("3,7,2,9:45=", "a", "what is 12+30?", "xyz" * 9),
        stop=("a", "7b", "Z+"),
        context=64,
        other=tiny.model(family, seed=1, max_position_embeddings=64),
        temperatures=(1.0, 0.6),
    )


def behind_a_server() -> Subject:
    """The shipped model in a server process, asked over HTTP."""
    served = server()
    served.behave()
    torch.set_num_threads(1)
    model, tokenizer = load_model("countdown-tiny", device="cpu")
    return Subject(
        engine=OpenAIEngine(served.url, Serving(concurrency=4, has_logprobs=True)),
        model=model,
        tokenizer=tokenizer,
        prompts=("3,7,2,9:45=", "1,2:3=", "10,4,6,8:24=", "25,3,9:84="),
        stop=("+",),
        context=64,
    )


@functools.cache  # opening one takes seconds
def in_vllm() -> Subject:
    made = partial(tiny.model, hidden_size=128, max_position_embeddings=64, tie_word_embeddings=False)
    model, tokenizer = made(), tiny.tokenizer()
    return Subject(
        engine=VLLMEngine(model, tokenizer),
        model=model,
        tokenizer=tokenizer,
        prompts=("3,7,2,9:45=", "a", "what is 12+30?", "xyz" * 9),
        stop=("a", "7b", "Z+"),
        context=64,
        other=made(seed=1),
        temperatures=(1.0, 0.6),
    )


SUBJECTS: dict[str, Callable[[], Subject]] = {
    **{f"transformers-{family}": partial(in_this_process, family) for family in tiny.FAMILIES},
    "openai": behind_a_server,
    "vllm": in_vllm,
}
NEEDS_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed; `make test-vllm` installs it")
NAMES = [pytest.param(name, marks=NEEDS_VLLM if name == "vllm" else ()) for name in SUBJECTS]


@pytest.fixture(scope="module", params=NAMES)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with opened(request.param) as found:
        yield found


@contextmanager
def opened(name: str) -> Iterator[Subject]:
    found = SUBJECTS[name]()
    yield found
    if isinstance(found.engine, StreamingEngine):
        found.engine.close()


def direct_logprobs(subject: Subject, prompt: list[int], tokens: list[int], temperature: float) -> torch.Tensor:
    """log π_T of each token, from one plain forward pass over prompt and completion."""
    ids = torch.tensor([prompt + tokens])
    with torch.no_grad():
        logprobs = (subject.model(ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    return logprobs.gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)


# ---- 1: what comes ----


def test_a_draw_is_whole_and_limits_say_what_is_in_it(subject: Subject) -> None:
    drawn = subject.draw(3, 5)
    limits = subject.engine.limits
    assert isinstance(drawn, Samples if limits.has_tokens else Completions)
    assert limits.context in (None, subject.context)
    rows = rows_of(drawn)
    assert [len(row) for row in rows] == [3] * len(subject.prompts)
    assert [[c.text for c in row] for row in rows] == drawn.texts
    assert json.loads(json.dumps(subject.engine.origin())) == subject.engine.origin()


def test_completions_are_in_the_prompts_order(subject: Subject) -> None:
    """At temperature 0 there is one completion for each prompt: what the model's own greedy decoding writes."""
    greedy = []
    for prompt in subject.prompts:
        ids = torch.tensor([subject.tokenizer(prompt)["input_ids"]])
        written = subject.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        greedy.append(subject.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))
    assert len(set(greedy)) > 1
    assert [[c.text for c in row] for row in subject.rows(2, 8, temperature=0)] == [[text] * 2 for text in greedy]


def test_samples_differ(subject: Subject) -> None:
    assert all(len({c.text for c in row}) > 1 for row in subject.rows(8))


# ---- 2: seeds ----


def test_a_completion_follows_from_its_key_alone(subject: Subject) -> None:
    if not subject.engine.limits.has_seeds:
        pytest.skip("the engine promises no seeds")
    options = SamplingOptions(num_samples=6, max_new_tokens=16)
    whole = subject.draw(6, 16)
    assert whole.texts == subject.draw(6, 16).texts
    assert [row[:2] for row in whole.texts] == subject.draw(2, 16).texts
    for prompt, key, row in zip(subject.prompts, subject.keys, whole.texts, strict=True):
        assert subject.engine.draw([prompt], options, [key]).texts == [row]
        assert subject.engine.draw([prompt], options, [(1, *key[1:])]).texts != [row]
    short = subject.draw(6, 7)
    assert isinstance(whole, Samples)
    assert isinstance(short, Samples)
    assert torch.equal(whole.tokens_BT[:, :7], short.tokens_BT)


# ---- 3: ends ----


def test_completions_end_where_they_should_and_say_why(subject: Subject) -> None:
    longest, seen = 8, set()
    for row in subject.rows(32, longest):
        for completion in row:
            seen.add(completion.stop)
            assert completion.num_tokens is not None
            assert 1 <= completion.num_tokens <= longest
            if completion.stop is StopReason.LENGTH:
                assert completion.num_tokens == longest
    assert seen == {StopReason.END, StopReason.LENGTH}
    assert {c.num_tokens for row in subject.rows(2, 1) for c in row} == {1}


def test_stop_strings_are_cut(subject: Subject) -> None:
    free, stopped = subject.rows(16), subject.rows(16, stop=subject.stop)
    seen = set()
    for row, free_row in zip(stopped, free, strict=True):
        for completion, whole in zip(row, free_row, strict=True):
            seen.add(completion.stop)
            assert not any(s in completion.text for s in subject.stop)
            if subject.engine.limits.has_seeds:
                cut = min((whole.text.find(s) for s in subject.stop if s in whole.text), default=None)
                assert completion.text == whole.text[:cut]
                assert completion.stop is (whole.stop if cut is None else StopReason.STOP)
    assert seen >= {StopReason.STOP, StopReason.END}


# ---- 4: tokens and log-probabilities ----


def test_tokens_are_the_texts(subject: Subject) -> None:
    drawn = subject.draw(16)
    if not isinstance(drawn, Samples):
        pytest.skip("the engine returns no tokens")
    assert drawn.prompts == [subject.tokenizer(prompt)["input_ids"] for prompt in subject.prompts]
    lengths = drawn.lengths_B.tolist()
    assert drawn.tokens_BT.shape == drawn.logprobs_BT.shape == (len(lengths), max(lengths))
    for b, (tokens, length) in enumerate(zip(drawn.tokens_BT.tolist(), lengths, strict=True)):
        assert drawn.texts[b // 16][b % 16] == subject.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        ends = [t for t, token in enumerate(tokens[:length]) if token == subject.tokenizer.eos_token_id]
        assert ends == ([length - 1] if drawn.stops[b] is StopReason.END else [])
        assert not drawn.logprobs_BT[b, length:].any()


def test_logprobs_are_the_models(subject: Subject) -> None:
    for temperature in subject.temperatures:
        check_logprobs(subject, temperature)


def check_logprobs(subject: Subject, temperature: float) -> None:
    drawn = subject.draw(8, temperature=temperature)
    for p, row in enumerate(rows_of(drawn)):
        prompt = subject.tokenizer(subject.prompts[p])["input_ids"]
        for m, completion in enumerate(row):
            if isinstance(drawn, Samples):
                length = int(drawn.lengths_B[p * 8 + m])
                tokens = drawn.tokens_BT[p * 8 + m, :length].tolist()
            else:
                tokens = subject.tokenizer(completion.text)["input_ids"]
                tokens += [subject.tokenizer.eos_token_id] * (completion.stop is StopReason.END)
            expected = direct_logprobs(subject, prompt, tokens, temperature)
            assert completion.logprob == pytest.approx(float(expected.double().sum()), abs=1e-4)
            if isinstance(drawn, Samples):
                found = drawn.logprobs_BT[p * 8 + m, :length]
                torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


# ---- 5: what is refused ----


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens", "phrase"),
    [("1" * 50, 20, "context of 64"), ("", 3, "no tokens")],
    ids=["long", "empty"],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(
    subject: Subject, prompt: str, max_new_tokens: int, phrase: str
) -> None:
    engine, polls = subject.engine, []
    subject.engine.check(subject.prompts, 5)
    if engine.limits.context is not None:
        with pytest.raises(BontuneError, match=phrase):
            engine.check([*subject.prompts, prompt], max_new_tokens)
    options = SamplingOptions(num_samples=1, max_new_tokens=max_new_tokens)
    with pytest.raises(BontuneError, match=phrase):
        engine.draw([prompt], options, [(0,)], lambda: polls.append(0))
    if engine.limits.context is not None:
        assert not polls, "nothing was drawn"


def test_options_out_of_range_are_refused() -> None:
    for bad in ({"num_samples": 0}, {"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0.0}, {"stop": ("",)}):
        with pytest.raises(BontuneError, match=next(iter(bad)).replace("stop", "stop strings")):
            SamplingOptions(**({"num_samples": 1, "max_new_tokens": 1} | bad))


# ---- 6: new weights ----


@pytest.mark.parametrize("name", NAMES)
def test_new_weights_are_drawn_from_or_refused_in_a_sentence(name: str) -> None:
    with opened(name) as subject:
        if subject.engine.limits.can_load:
            check_new_weights(subject)
            return
        with pytest.raises(BontuneError, match=r"^[^\n]*cannot load weights[^\n]*\.$"):
            subject.engine.load(list(subject.model.named_parameters()))


def check_new_weights(subject: Subject) -> None:
    engine, has_seeds = subject.engine, subject.engine.limits.has_seeds
    named = dict(subject.model.named_parameters())
    before = subject.draw(6).texts
    kept = {key: value.clone() for key, value in subject.model.state_dict().items()}
    engine.load((key, parameter.data) for key, parameter in subject.other.named_parameters())
    check_draws_from(subject, subject.other)
    if has_seeds:
        options = SamplingOptions(num_samples=6, max_new_tokens=12)
        drawn = TransformersEngine(subject.other, subject.tokenizer).draw(subject.prompts, options, subject.keys)
        assert before != subject.draw(6).texts == drawn.texts
    assert all(torch.equal(value, kept[key]) for key, value in subject.model.state_dict().items())
    some, weights = next(iter(named.items()))
    engine.load([(some, weights.data)])  # the other parameters keep their weights
    mixed = copy.deepcopy(subject.other)
    dict(mixed.named_parameters())[some].data = weights.data.clone()
    check_draws_from(subject, mixed)
    engine.load((key, parameter.data) for key, parameter in named.items())
    check_draws_from(subject, subject.model)
    with torch.no_grad():
        weights.mul_(-1.0)  # a step of training changes weights in place, and loads them again
        engine.load((key, parameter.data) for key, parameter in named.items())
        check_draws_from(subject, subject.model)
        weights.mul_(-1.0)
    engine.load((key, parameter.data) for key, parameter in named.items())
    if has_seeds:
        assert subject.draw(6).texts == before
    for bad, phrase in (("no.such.weight", "no parameter of that name"), (some, "shape")):
        with pytest.raises(BontuneError, match=phrase):
            engine.load([(bad, torch.zeros(1))])


def check_draws_from(subject: Subject, model: Any) -> None:
    """The engine's log-probabilities of what it draws now are those of this model."""
    check_logprobs(replace(subject, model=model), 1.0)


# ---- 7: streams ----


def test_a_streaming_engine_yields_each_prompt_once_and_draws_nothing_twice(subject: Subject) -> None:
    engine = subject.engine
    if not isinstance(engine, StreamingEngine):
        pytest.skip("the engine does not stream")
    options = SamplingOptions(num_samples=5, max_new_tokens=12)
    whole = rows_of(engine.draw(subject.prompts, options, subject.keys))
    known = [{i: whole[0][i] for i in range(5)}, {3: whole[1][3], 0: whole[1][0]}, {}, {4: whole[3][4]}]
    kept: list[tuple[int, int, Completion]] = []
    yielded = list(
        engine.as_completed(
            subject.prompts,
            options,
            subject.keys,
            known=known,
            keep=lambda p, new: kept.extend((p, i, completion) for i, completion in new.items()),
        )
    )
    assert yielded[0][0] == 0, "what is complete from the start comes first"
    assert sorted(p for p, _ in yielded) == [0, 1, 2, 3]
    missing = [(p, i) for p in range(4) for i in range(5) if i not in known[p]]
    assert sorted((p, i) for p, i, _ in kept) == missing, "each completion is kept once, and only what was missing"
    rows = dict(yielded)
    assert [rows[p] for p in range(4)] == whole, "in the samples' order; this server honours seeds"
    assert all(rows[p][i] == completion for p, i, completion in kept)


# ---- 8: interruptions ----


def test_a_poll_that_raises_ends_the_drawing(subject: Subject) -> None:
    calls = []

    def poll() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted

    options = SamplingOptions(num_samples=32, max_new_tokens=9)
    with pytest.raises(Interrupted):
        subject.engine.draw(subject.prompts, options, subject.keys, poll)
    assert len(calls) == 3
    assert [len(row) for row in subject.rows(2, 3)] == [2] * len(subject.prompts), "and the engine can be used again"
