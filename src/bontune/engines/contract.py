"""The contract of engines: sampling options and prompts go in, completions come out, and limits say what is promised.

Shapes: ``_P`` prompts, ``_M`` samples of one prompt, ``_B`` = P·M flattened prompt by prompt, ``_T`` new tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.engines.prompts import Prompt

if TYPE_CHECKING:
    from torch import Tensor

    from bontune.engines.lower_layers import LowerStates


class EngineFailed(RunStopped):
    """An engine broke down while it drew or loaded weights; training saves its last step and can be resumed from it."""


class StopReason(str, Enum):
    """The reason why a completion ended."""

    END = "end"
    """The model wrote its end token; or a stop string, where a server does not distinguish the two."""
    STOP = "stop"
    """The model wrote a stop string."""
    LENGTH = "length"
    """The completion has as many tokens as it may."""
    OTHER = "other"
    """A server gave another reason, such as a content filter, or none."""
    REFUSED = "refused"
    """A server refused this prompt (too long, moderated) and answered others: there is no text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One completion as text, from any engine."""

    text: str
    """The text, without stop strings and special tokens."""
    stop: StopReason
    """Reason why the completion ended."""
    num_tokens: int | None
    """Number of tokens, the end token included; None where a server does not say."""
    logprob: float | None
    """Log-probability summed over the tokens: at the sampling temperature from a model in this process, as a server
    defines it (mostly at temperature 1) from a server; None where it was not requested or not returned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingOptions:
    """Settings with which completions are drawn."""

    num_samples: int
    """M, samples per prompt."""
    max_new_tokens: int
    """Longest completion, in tokens, the end token included."""
    temperature: float = 1.0
    """Temperature T; 0 takes the most probable token."""
    top_p: float = 1.0
    """Nucleus: tokens are drawn from the smallest set with at least this probability; 1: from all tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; they are cut off from its text but stay in its tokens."""

    def __post_init__(self) -> None:
        for name in ("num_samples", "max_new_tokens", "temperature", "top_p"):
            value, kind = getattr(self, name), Integral if name in ("num_samples", "max_new_tokens") else Real
            if isinstance(value, bool) or not isinstance(value, kind):
                raise BontuneError(f"{name} must be a {'whole ' if kind is Integral else ''}number, got {value!r}.")
        rules = (
            (self.num_samples >= 1, "num_samples must be at least 1", self.num_samples),
            (self.max_new_tokens >= 1, "max_new_tokens must be at least 1", self.max_new_tokens),
            (0 <= self.temperature < float("inf"), "temperature must be 0 or more", self.temperature),
            (0 < self.top_p <= 1, "top_p must lie in (0, 1]", self.top_p),
            (all(self.stop), "stop strings must not be empty", self.stop),
        )
        for holds, rule, value in rules:
            if not holds:
                raise BontuneError(f"{rule}, got {value!r}.")


WHOLE_DISTRIBUTION = (
    "The engine vllm draws with top_p = 1 only, got {top_p}: take the engine transformers, or give the address of "
    "a vLLM server."
)
"""Message where vLLM would draw by top-p: it returns log-probabilities of the truncated distribution."""
COLDEST = 0.01
TOO_COLD = (
    "vLLM draws at temperature 0.01 for any temperature between 0 and 0.01, got {temperature:g}: take 0, or "
    "0.01 or more."
)
"""Message about a temperature that vLLM silently raises."""


def check_vllm_sampling(temperature: float, top_p: float) -> None:
    """Refuse options with which vLLM would not sample as requested.

    Raises:
        BontuneError: ``top_p`` is below 1, where vLLM returns log-probabilities of a truncated distribution, not the
            model's; or the temperature is one that vLLM raises.
    """
    if top_p < 1:
        raise BontuneError(WHOLE_DISTRIBUTION.format(top_p=top_p))
    if 0 < temperature < COLDEST:
        raise BontuneError(TOO_COLD.format(temperature=temperature))


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """P·M completions with their tokens and log-probabilities, as training needs them."""

    prompts: list[list[int]]
    """Token ids of each of the P prompts."""
    tokens_BT: Tensor
    """int64 (B, T), on the CPU, padded at the right; the end token is part of a completion."""
    lengths_B: Tensor
    """int64 (B,), number of tokens of each completion, at least 1."""
    logprobs_BT: Tensor
    """float32 (B, T), log π_T of each drawn token (at the sampling temperature, before top-p); 0 on padding."""
    stops: list[StopReason]
    """Reason why each of the B completions ended."""
    texts: list[list[str]] = field(repr=False)
    """P lists of M decoded completions, stop strings and special tokens removed."""
    states: LowerStates | None = field(default=None, repr=False)
    """Hidden states that enter the first trained layer, where an engine was asked to keep them."""

    @property
    def num_samples(self) -> int:
        """M, the number of completions of each prompt."""
        return len(self.texts[0])

    def of_prompts(self, chosen: Sequence[int]) -> Samples:
        """Return the samples of the chosen prompts only."""
        m = self.num_samples
        rows = [p * m + i for p in chosen for i in range(m)]
        return Samples(
            prompts=[self.prompts[p] for p in chosen],
            tokens_BT=self.tokens_BT[rows],
            lengths_B=self.lengths_B[rows],
            logprobs_BT=self.logprobs_BT[rows],
            stops=[self.stops[b] for b in rows],
            texts=[self.texts[p] for p in chosen],
            states=None if self.states is None else self.states.of_prompts(chosen, rows),
        )

    def check_finite(self) -> None:
        """
        Raises:
            RunStopped: a log-probability is not finite, so that the samples mean nothing.
        """
        if not bool(self.logprobs_BT.isfinite().all()):
            raise RunStopped(
                "The model's probabilities are not finite: its weights are broken, or overflow their dtype (try "
                "another one than float16)."
            )

    def completions(self) -> list[list[Completion]]:
        """Return the completions without tensors, P × M."""
        logprobs, lengths, m = self.logprobs_BT.double().sum(-1).tolist(), self.lengths_B.tolist(), self.num_samples
        return [
            [
                Completion(text=text, stop=self.stops[b], num_tokens=lengths[b], logprob=logprobs[b])
                for b, text in enumerate(row, start=p * m)
            ]
            for p, row in enumerate(self.texts)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Completions:
    """P·M completions without tensors, from a server."""

    rows: list[list[Completion]]
    """The completions, P × M."""

    @property
    def texts(self) -> list[list[str]]:
        """P lists of M texts."""
        return [[completion.text for completion in row] for row in self.rows]


def cut_before(text: str, stop: Sequence[str]) -> str:
    """Return the text before the first stop string in it.

    >>> cut_before("1+2;3", (";", "3"))
    '1+2'
    """
    return text[: min([place for s in stop if (place := text.find(s)) >= 0], default=len(text))]


def parameter_of(parameters: Mapping[str, Tensor], name: str, weights: Tensor) -> Tensor:
    """Return the model's parameter that these weights replace.

    Raises:
        BontuneError: the model has no parameter of that name and shape.
    """
    parameter = parameters.get(name)
    if parameter is None or parameter.shape != weights.shape:
        raise BontuneError(
            f"The weights {name} of shape {tuple(weights.shape)} do not fit the engine's model, which has "
            + ("no parameter of that name." if parameter is None else f"shape {tuple(parameter.shape)} there.")
        )
    return parameter


class DrawResult(Protocol):
    """The result of :meth:`Engine.draw`: :class:`Samples`, or :class:`Completions` from a server."""

    @property
    def texts(self) -> list[list[str]]:
        """P lists of M texts."""
        ...


@dataclass(kw_only=True, slots=True)
class Progress:
    """The amount that an engine has drawn since it was made; it is read while the engine draws."""

    num_samples: int = 0
    """Completions that are complete."""
    num_tokens: int = 0
    """Tokens of all completions, complete or not, as far as the engine knows them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The promises of an engine; callers read them instead of asking which engine it is."""

    has_seeds: bool
    """Whether a completion follows from its seed key alone, whatever else is in the batch."""
    has_tokens: bool
    """Whether the engine returns token ids with their log-probabilities (:class:`Samples`), which training needs."""
    can_load: bool
    """Whether :meth:`Engine.load` can replace the weights."""
    context: int | None
    """Longest prompt with its completion, in tokens; None where the engine does not know."""


WITHOUT_SEEDS = (
    "The engine has no seed for each sample: a run that is resumed draws other samples than it would have "
    "drawn without the stop; none is lost or drawn twice."
)
"""Message of a run whose engine has no seeds."""


class Engine(Protocol):
    """A language model that draws M completions of each prompt; everything in this package samples through an engine.

    An engine that counts what it draws has an attribute ``progress`` (:class:`Progress`), which the commands show.
    """

    limits: Limits
    """The promises of this engine."""

    def takes_chat(self) -> bool:
        """Return whether the engine takes conversations; see :func:`bontune.engines.prompts.prompt_of`."""
        ...

    def draw(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        keys: Sequence[tuple[object, ...]],
        poll: Poll | None = None,
    ) -> DrawResult:
        """Draw ``options.num_samples`` completions of each prompt.

        Args:
            prompts: P texts or conversations.
            options: how to draw.
            keys: P seed keys, one each; sample i of a prompt uses the stream ``(*key, i)`` and nothing else.
            poll: called between chunks of work.

        Raises:
            BontuneError: a prompt is empty or does not fit the context.
        """
        ...

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Refuse prompts that cannot be continued, before anything is drawn.

        Raises:
            BontuneError: a prompt is empty or does not fit the context, or a server does not answer.
        """
        ...

    def origin(self) -> dict[str, Any]:
        """Return the settings of the engine that change its completions, as JSON; a pool keeps them."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Sample from these weights from now on.

        Args:
            weights: (name, tensor) pairs with the names of ``model.named_parameters()``. Parameters that are not among
                them keep their weights. An engine may or may not notice later changes in place, so that the caller
                loads the weights again after each change.

        Raises:
            BontuneError: the engine cannot change its weights, or has no parameter of that name and shape.
        """
        ...


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine whose completions arrive one by one, such as a server's: each is stored as soon as it arrives."""

    refusal: str | None
    """Message about the first prompt that was refused while others were answered; None if there is none."""

    def as_completed(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        keys: Sequence[tuple[object, ...]],
        *,
        names: Sequence[str] | None = None,
        known: Sequence[Mapping[int, Completion]] | None = None,
        keep: Callable[[int, dict[int, Completion]], None] | None = None,
        poll: Poll | None = None,
    ) -> Generator[tuple[int, list[Completion]], None, None]:
        """Draw, and yield each prompt's number and M completions once all of them have arrived.

        Args:
            prompts: P texts or conversations.
            options: how to draw.
            keys: P seed keys; sample i of a prompt uses (*key, i).
            names: P names for messages.
            known: completions by sample that exist already and are not drawn again.
            keep: receives the completions of every reply at once, before they are counted; an exception ends the draw.
            poll: called several times a second while waiting.
        """
        ...

    def as_asked(self, problem: Problem) -> Problem:
        """Return the problem as the engine sends it, such as a text as a user's message."""
        ...

    def notes(self) -> dict[str, Any]:
        """Return facts for a pool's records that may change before the pool is complete, such as a server's address."""
        ...

    def status(self) -> str:
        """Return a remark for users beside the progress, such as the number of retries; mostly empty."""
        ...

    def left_out(self) -> Sequence[str]:
        """Return a sentence for each of several servers that did not answer and was dropped."""
        ...

    def close(self) -> None:
        """End all requests; the engine can be used again afterwards."""
        ...


class DrawingCount:
    """A count of what an engine draws from now on."""

    def __init__(self, engine: object, total: int, *, longest: int, kept: int = 0) -> None:
        """
        Args:
            engine: the engine whose ``progress`` is read.
            total: completions that are requested.
            longest: largest number of tokens of a completion.
            kept: completions that exist already.
        """
        self.total = total
        self._longest = longest
        self._kept = min(kept, total)
        progress = getattr(engine, "progress", None)
        self._progress = progress if isinstance(progress, Progress) else Progress()  # one that stays at zero
        self._num_samples, self._num_tokens = self._progress.num_samples, self._progress.num_tokens
        self._started = time.monotonic()

    @property
    def done(self) -> int:
        """Number of completions that exist."""
        return min(self.total, self._kept + self._progress.num_samples - self._num_samples)

    @property
    def share(self) -> float:
        """Share of the draw that is done, between 0 and 1; rather underestimated than overestimated.

        While no completion has ended, the tokens count, as if each completion became as long as allowed.
        """
        left = self.total - self._kept
        if left <= 0:
            return 1.0
        return max((self.done - self._kept) / left, min(1.0, self._tokens() / (left * self._longest)))

    def note(self) -> str:
        """Return the number of tokens and their rate."""
        tokens = self._tokens()
        rate = tokens / max(time.monotonic() - self._started, 1e-3)
        return f"{short(tokens)} tokens, {short(rate)}/s" if tokens else ""

    def text(self) -> str:
        """Return completions, tokens and time left in a phrase.

        Example:
            >>> DrawingCount(None, 192, longest=8).text()
            '0/192'
        """
        seconds, share = time.monotonic() - self._started, self.share
        parts = [f"{self.done}/{self.total}", self.note()]
        if 0 < share < 1:
            left = int(seconds * (1 - share) / share)
            parts.append(f"{left // 60}:{left % 60:02d}")
        return ", ".join(part for part in parts if part)

    def _tokens(self) -> int:
        return self._progress.num_tokens - self._num_tokens


def short(number: float) -> str:
    """Write a number in about four characters.

    Example:
        >>> short(7.4), short(950), short(12_345), short(4_500_000)
        ('7', '950', '12.3k', '4.5M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"
