"""The engine for any server with OpenAI's API: vLLM, SGLang, llama.cpp, ``transformers serve``, hosted ones.

A problem with a conversation is sent to ``/chat/completions``, any other to ``/completions``. Every request has a
seed that follows from (key, sample), so that a server that honours seeds draws the same pool again, however often the
collection was stopped.
"""

from __future__ import annotations

import asyncio
import math
import queue
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bontune.base.client import Address, BadReply, Endpoint, Refused
from bontune.base.errors import BontuneError, RunStopped
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.text import readable
from bontune.engines.contract import (
    COLDEST,
    TOO_COLD,
    Completion,
    Completions,
    Limits,
    Progress,
    SamplingOptions,
    StopReason,
    cut_before,
)
from bontune.engines.prompts import Prompt, as_message
from bontune.engines.seeds import stream

if TYPE_CHECKING:
    from torch import Tensor

APIS = ("auto", "chat", "completions")
OWN_FIELDS = ("model", "prompt", "messages", "n", "stream", "stop")
POLL_S = 0.1
OF_ONE_PROMPT = (400, 403, 413, 422, 451)
"""Statuses with which a server may refuse one prompt, because it is too long or moderated, and answer others."""
NO_ANSWERS = 4
"""Refused prompts, with none answered yet, after which the server is assumed to refuse everything."""
FORBIDDEN = 403
"""Status for one prompt, or for an account from some moment on: then no prompt is answered any more."""
MOST_STOPS = 4
"""Stop strings that OpenAI's API accepts; completions are cut at the others here."""
CANNOT_CHAT, BROKEN = (400, 404, 405, 422), (500, 501)
"""Statuses with which a server refuses every conversation, and with which ``transformers serve`` fails on one."""

Keep = Callable[[int, dict[int, Completion]], None]
"""Stores a prompt's new completions by sample; called in another thread as soon as they have arrived."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """Settings of the requests to a server."""

    served_model: str | None = None
    """Name of the model at the server; None: the only one there."""
    api: str = "auto"
    """``auto`` sends conversations to ``/chat/completions`` and texts to ``/completions``; ``chat`` sends texts as a
    user's message; ``completions`` accepts texts only."""
    concurrency: int = 32
    """Number of requests at a time, to each server."""
    timeout_s: float = 600.0
    """Seconds for a whole request."""
    tries: int = 8
    """Number of tries for each request."""
    choices: int = 1
    """Completions per request (``n``). More than one spare a server without a prompt cache reading the prompt again;
    but then it counts the tokens of all of them together, and some servers draw all of them with one seed."""
    has_logprobs: bool = False
    """Whether log-probabilities are requested."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More fields for every request (``{"top_k": 20}``); None omits one of the usual fields."""

    def __post_init__(self) -> None:
        if self.api not in APIS:
            raise BontuneError(f"The api must be one of {', '.join(APIS)}, got {self.api!r}.")
        if self.choices < 1:
            raise BontuneError(f"The choices of a request must be at least 1, got {self.choices}.")
        owned = sorted(set(OWN_FIELDS) & set(self.extra))
        if owned:
            raise BontuneError(f"The field {owned[0]!r} of a request cannot be set: every request has its own.")


class OpenAIEngine:
    """An engine that samples from a server (see :class:`bontune.engines.contract.StreamingEngine`).

    Options that a request does not set are the server's: vLLM and SGLang take ``top_k`` and ``repetition_penalty`` from
    the model's ``generation_config.json``; ``extra={"top_k": -1}`` or a server option draws from the model itself.
    ``transformers serve`` decodes greedily unless that file sets ``do_sample``, and its seed is the whole process's, so
    that only ``concurrency=1`` draws the same again.

    Example:
        >>> engine = OpenAIEngine("http://127.0.0.1:8000/v1#my-model", Serving(api="chat"))
        >>> engine.model, engine.takes_chat()
        ('my-model', True)
    """

    def __init__(self, url: str, serving: Serving | None = None, *, api_key: str | None = None) -> None:
        """
        Args:
            url: such as ``http://127.0.0.1:8000/v1``; ``#model`` may follow. Of several servers of the same model,
                separated by commas, the least busy gets a request, and one that does not answer is dropped.
            serving: settings of the requests.
            api_key: see :class:`bontune.base.client.Endpoint`.

        Raises:
            BontuneError: an invalid address or option, no server answers, or it has several models and none is named.
        """
        self.serving = serving = serving or Serving()
        address = Address.parse(url, serving.served_model)
        self.endpoint = Endpoint(
            address.url,
            api_key=api_key,
            concurrency=serving.concurrency,
            timeout_s=serving.timeout_s,
            num_tries=serving.tries,
        )
        self.model = address.model or self.endpoint.only_model()
        self.progress = Progress()
        self.refusal: str | None = None
        self.limits = Limits(has_seeds=False, has_tokens=False, can_load=False, context=None)

    def takes_chat(self) -> bool:
        """Return whether conversations are sent as such; with ``api="auto"`` this is tested once at the server.

        A base model has no chat template, and its server refuses every conversation.
        """
        return self._can_chat if self.serving.api == "auto" else self.serving.api == "chat"

    @cached_property
    def _can_chat(self) -> bool:
        options = SamplingOptions(num_samples=1, max_new_tokens=1)
        path, body = self.request(as_message("Hi"), options, ("first word",), [0])
        status = self.endpoint.status_of(path, body)
        if status in BROKEN:
            return self.endpoint.status_of(*self.request("Hi", options, ("first word",), [0])) != 200
        if status == 200 or status in CANNOT_CHAT:
            return status == 200
        try:
            self.endpoint.submit(self.endpoint.post(path, body, lambda reply: reply, "a first word")).result()
        except Refused as refusal:
            return refusal.status not in CANNOT_CHAT
        except RunStopped:
            pass  # the first problem will raise a better message
        return True

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Ask the server for its models, so that a missing server is noticed at once, and not after all tries."""
        self.endpoint.models()

    def origin(self) -> dict[str, Any]:
        """Return the model at the server and the options of a request, without the address, which may change."""
        return {
            "model": self.model,
            "api": self.serving.api,
            "choices": self.serving.choices,
            "logprobs": self.serving.has_logprobs,
            "extra": dict(self.serving.extra),
        }

    def notes(self) -> dict[str, Any]:
        """Return the address of the server."""
        return {"server": self.endpoint.url}

    def as_asked(self, problem: Problem) -> Problem:
        """Return the problem with its text as a user's message, if ``api`` is ``chat`` and it has no conversation."""
        if self.serving.api != "chat" or problem.messages:
            return problem
        return replace(problem, messages=as_message(problem.prompt))

    def status(self) -> str:
        """Return the number of retries, and the servers that were dropped."""
        parts = [f"{self.endpoint.num_retries} retries"] if self.endpoint.num_retries else []
        return ", ".join([*parts, *self.endpoint.servers.left_out()])

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Refuse: a server loads its own weights.

        Raises:
            BontuneError: always.
        """
        raise BontuneError(f"The server at {self.endpoint.url} cannot load weights: start it with the new model.")

    def draw(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        keys: Sequence[tuple[object, ...]],
        poll: Poll | None = None,
    ) -> Completions:
        """Draw M completions of each prompt; see :meth:`bontune.engines.contract.Engine.draw`.

        Raises:
            BontuneError: the server refuses a request.
            RunStopped: a request failed too often.
        """
        rows: list[list[Completion]] = [[] for _ in prompts]
        for p, row in self.as_completed(prompts, options, keys, poll=poll):
            rows[p] = row
        return Completions(rows=rows)

    def as_completed(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        keys: Sequence[tuple[object, ...]],
        *,
        names: Sequence[str] | None = None,
        known: Sequence[Mapping[int, Completion]] | None = None,
        keep: Keep | None = None,
        poll: Poll | None = None,
    ) -> Generator[tuple[int, list[Completion]], None, None]:
        """Yield each prompt when it is complete; see :meth:`bontune.engines.contract.StreamingEngine.as_completed`."""
        if "vllm" in self.endpoint.kinds and 0 < options.temperature < COLDEST:
            warnings.warn(TOO_COLD.format(temperature=options.temperature), stacklevel=2)
        known = known or [{} for _ in prompts]
        rows = [dict(row) for row in known]
        complete = [p for p, row in enumerate(rows) if len(row) == options.num_samples]
        has_answers = any(c.stop is not StopReason.REFUSED for row in rows for c in row.values())
        names = names or [f"prompt {p + 1}" for p in range(len(prompts))]
        requests = _Requests(self, prompts, options, keys, names, keep, has_answers=has_answers)
        groups = [
            (p, samples)
            for p, row in enumerate(rows)
            for samples in _missing(set(row), options.num_samples, self.serving.choices)
        ]
        for p in complete:
            yield p, [rows[p][i] for i in range(options.num_samples)]
        if not groups:
            return
        running = self.endpoint.submit(requests.run(iter(groups)))
        try:
            missing = len(rows) - len(complete)
            while missing:
                if poll is not None:
                    poll()
                try:
                    p, drawn = requests.arrived.get(timeout=POLL_S)
                except queue.Empty:
                    if running.done() and requests.arrived.empty():
                        running.result()  # raises what went wrong
                    continue
                rows[p] |= drawn
                if len(rows[p]) == options.num_samples:
                    missing -= 1
                    yield p, [rows[p][i] for i in range(options.num_samples)]
            running.result()
        finally:
            self.endpoint.submit(requests.stop()).result()

    def left_out(self) -> Sequence[str]:
        """Return a sentence for each server that did not answer and was dropped."""
        return self.endpoint.servers.left_out()

    def close(self) -> None:
        """End all requests and connections; the engine can be used again."""
        self.endpoint.close()

    def request(
        self, prompt: Prompt, options: SamplingOptions, key: tuple[object, ...], samples: Sequence[int]
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of the request for these samples."""
        if isinstance(prompt, str) and self.serving.api == "chat":
            prompt = as_message(prompt)
        if not isinstance(prompt, str) and self.serving.api == "completions":
            raise BontuneError("The api completions takes texts to continue, not conversations; use api=chat.")
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": int(stream(*key, samples[0]).integers(2**31)),
        }
        if options.stop:
            body["stop"] = list(options.stop[:MOST_STOPS])
        if len(samples) > 1:
            body["n"] = len(samples)
        if isinstance(prompt, str):
            path, body["prompt"] = "/completions", prompt
            if self.serving.has_logprobs:
                body["logprobs"] = 1
        else:
            path, body["messages"] = "/chat/completions", [dict(message) for message in prompt]
            if self.serving.has_logprobs:
                body["logprobs"] = True
        return path, {name: value for name, value in (body | dict(self.serving.extra)).items() if value is not None}


class _Requests:
    """The requests of one draw; its coroutines run in the endpoint's loop."""

    def __init__(
        self,
        engine: OpenAIEngine,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        keys: Sequence[tuple[object, ...]],
        names: Sequence[str],
        keep: Keep | None,
        *,
        has_answers: bool,
    ) -> None:
        self.engine, self.prompts, self.options, self.keys, self.names = engine, prompts, options, keys, names
        self.keep = keep
        self.has_answers = has_answers
        self.refused: list[tuple[int, list[int], Refused]] = []
        self.forbidden: set[int] = set()
        self.arrived: queue.SimpleQueue[tuple[int, dict[int, Completion]]] = queue.SimpleQueue()
        self.workers: list[asyncio.Future[None]] = []

    async def run(self, groups: Iterator[tuple[int, list[int]]]) -> None:
        """Request all groups, with one worker for each request at a time; the first failure ends all."""
        self.workers = [asyncio.ensure_future(self._worker(groups)) for _ in range(self.engine.endpoint.concurrency)]
        try:
            await asyncio.gather(*self.workers)
            if self.refused and not self.has_answers:
                raise self.refused[0][2]
            for p, samples, refusal in self.refused:
                self.engine.refusal = self.engine.refusal or str(refusal)
                nothing = Completion(text="", stop=StopReason.REFUSED, num_tokens=None, logprob=None)
                await self._take(p, dict.fromkeys(samples, nothing))
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End the workers and wait until they have ended."""
        for worker in self.workers:
            worker.cancel()
        await asyncio.gather(*self.workers, return_exceptions=True)

    async def _worker(self, groups: Iterator[tuple[int, list[int]]]) -> None:
        for p, samples in groups:
            while samples:  # a server may return fewer than requested, at least one
                try:
                    drawn = await self._ask(p, samples)
                except Refused as refusal:
                    if refusal.status not in OF_ONE_PROMPT:
                        raise
                    self.refused.append((p, samples, refusal))
                    if not self.has_answers and len({other for other, _, _ in self.refused}) >= NO_ANSWERS:
                        raise
                    self.forbidden |= {p} if refusal.status == FORBIDDEN else set()
                    if len(self.forbidden) >= NO_ANSWERS:
                        raise
                    break
                self.has_answers = True
                self.forbidden.clear()
                new = dict(zip(samples, drawn, strict=False))
                samples = samples[len(new) :]
                await self._take(p, new)

    async def _take(self, p: int, new: dict[int, Completion]) -> None:
        if self.keep is not None:
            # In a thread: an fsync in the loop would hold up the other requests.
            await asyncio.get_running_loop().run_in_executor(None, self.keep, p, new)
        self.engine.progress.num_samples += len(new)
        self.engine.progress.num_tokens += sum(c.num_tokens or 0 for c in new.values())
        self.arrived.put((p, new))

    async def _ask(self, p: int, samples: list[int]) -> list[Completion]:
        path, body = self.engine.request(self.prompts[p], self.options, self.keys[p], samples)

        def read(reply: Any) -> list[Completion]:
            return read_completions(reply, self.options.stop, len(samples))

        try:
            return await self.engine.endpoint.post(path, body, read, self.names[p])
        except Refused as refusal:
            other = "chat" if path == "/completions" else "completions"
            if refusal.status in (404, 405):
                raise BontuneError(f"{refusal}; if the server does not offer {path}, try api {other}.") from None
            raise


def _missing(there: set[int], num_samples: int, size: int) -> Iterator[list[int]]:
    """Group the samples that are missing; the groups do not depend on when an earlier draw was stopped."""
    for start in range(0, num_samples, size):
        group = [i for i in range(start, min(start + size, num_samples)) if i not in there]
        if group:
            yield group


def read_completions(reply: Any, stop: Sequence[str], num_asked: int) -> list[Completion]:
    """Read the completions in a reply of either API, at most as many as were requested.

    Raises:
        BadReply: the reply has no completion, or one of them cannot be read.
    """
    choices = reply["choices"]
    if not isinstance(choices, list) or not choices:
        raise BadReply("a reply without choices")
    usage = reply.get("usage") or {}
    num_tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) and len(choices) == 1 else None
    return [_completion(choice, stop, num_tokens) for choice in choices[:num_asked]]


def _completion(choice: Any, stop: Sequence[str], num_tokens: Any) -> Completion:
    finish = choice.get("finish_reason")
    if finish in ("abort", "error"):
        raise BadReply(f"the server gave a completion up (finish_reason {finish})")
    text = _text(choice, finish)
    kept = cut_before(text, stop)
    logprobs = _token_logprobs(choice.get("logprobs"))
    if not isinstance(num_tokens, int) or isinstance(num_tokens, bool) or num_tokens < 0:
        num_tokens = len(logprobs) if logprobs else None
    return Completion(
        text=kept,
        stop=_stop_reason(choice, finish, stop, is_cut=len(kept) < len(text)),
        num_tokens=num_tokens,
        logprob=math.fsum(logprobs) if logprobs else None,
    )


def _text(choice: Mapping[str, Any], finish: Any) -> str:
    if "message" in choice:
        message = choice["message"]
        text = _joined(message.get("content"))
        # The model may have used all its tokens to reason, called a tool or been silenced: that is an empty answer.
        # Where a stop string is the first word, some servers return null for the text before it.
        has_other = any(message.get(name) for name in ("refusal", "reasoning_content", "reasoning", "tool_calls"))
        empty = ("stop", "length", "content_filter", "tool_calls", "function_call")
        if text is None and (has_other or (finish in empty and "content" in message)):
            text = ""
    else:
        text = choice["text"]
    if not isinstance(text, str):
        raise BadReply(f"a completion whose text is {'null' if text is None else f'a {type(text).__name__}'}")
    return readable(text)


def _joined(content: Any) -> Any:
    """Join a content that comes in parts."""
    if not isinstance(content, list):
        return content
    return "".join(part["text"] for part in content if part.get("type") in ("text", "output_text"))


def _stop_reason(choice: Mapping[str, Any], finish: Any, stop: Sequence[str], *, is_cut: bool) -> StopReason:
    if is_cut:
        return StopReason.STOP
    if finish == "length":
        return StopReason.LENGTH
    if finish in ("stop", "eos"):
        matched = choice.get("stop_reason", choice.get("matched_stop"))  # vLLM, SGLang: the string, or a token's id
        return StopReason.STOP if isinstance(matched, str) and matched in stop else StopReason.END
    return StopReason.OTHER


def _token_logprobs(logprobs: Any) -> list[float]:
    """Return the log-probabilities of the tokens; empty if the reply lacks one of them."""
    if not isinstance(logprobs, Mapping):
        return []
    if isinstance(logprobs.get("content"), list):
        values = [part.get("logprob") for part in logprobs["content"]]
    else:
        values = logprobs.get("token_logprobs") or []
    is_whole = all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    return [float(value) for value in values] if is_whole else []
