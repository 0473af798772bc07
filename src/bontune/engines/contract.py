"""What an engine hands on.

Shapes: ``_P`` prompts, ``_M`` samples of one prompt, ``_B`` = P·M flattened prompt by prompt, ``_T`` new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.engines.prompts import Prompt


class StopReason(str, Enum):
    """Why a completion ended."""

    END = "end"
    """The model's end token; also a stop string, behind a server that does not tell the two apart."""
    STOP = "stop"
    """A stop string."""
    LENGTH = "length"
    """``max_new_tokens`` were drawn."""
    OTHER = "other"
    """What only servers know: a content filter, a call of a tool, or no reason given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One completion as text, wherever it was drawn."""

    text: str
    """Decoded, stop strings and special tokens removed."""
    stop: StopReason
    """Why it ended."""
    num_tokens: int | None
    """Its tokens, the end token included; None where a server does not say."""
    logprob: float | None
    """Its log-probability, summed over its tokens: at the sampling temperature from a model in this process, as the
    server defines it (mostly at temperature 1) from a server; None where it was not asked for or not given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingOptions:
    """How completions are drawn."""

    num_samples: int
    """M, samples per prompt."""
    max_new_tokens: int
    """Longest completion, in tokens, the end token included."""
    temperature: float = 1.0
    """T; 0 takes the most probable token."""
    top_p: float = 1.0
    """Nucleus: the smallest set of tokens with at least this probability; 1 is all."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; cut off the text, kept in the tokens."""

    def __post_init__(self) -> None:
        rules = (
            (self.num_samples >= 1, "num_samples must be at least 1", self.num_samples),
            (self.max_new_tokens >= 1, "max_new_tokens must be at least 1", self.max_new_tokens),
            (0 <= self.temperature < float("inf"), "temperature must be 0 or more", self.temperature),
            (0 < self.top_p <= 1, "top_p must lie in (0, 1]", self.top_p),
            (all(self.stop), "stop strings must not be empty", self.stop),
        )
        for holds, rule, given in rules:
            if not holds:
                raise BontuneError(f"{rule}, got {given!r}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """P·M completions with what training needs of them."""

    prompts: list[list[int]]
    """Token ids of each of the P prompts."""
    tokens_BT: Tensor
    """int64 (B, T), on the CPU, padded at the right; the end token is part of a completion."""
    lengths_B: Tensor
    """int64 (B,), tokens of each completion, ≥ 1."""
    logprobs_BT: Tensor
    """float32 (B, T), log π_T of each drawn token (at the sampling temperature, before top-p); 0 on padding."""
    stops: list[StopReason]
    """B reasons."""
    texts: list[list[str]] = field(repr=False)
    """P lists of M decoded completions, stop strings and special tokens removed."""

    @property
    def num_samples(self) -> int:
        """M."""
        return len(self.texts[0])

    def completions(self) -> list[list[Completion]]:
        """P × M, without the tensors."""
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
    """P × M."""

    @property
    def texts(self) -> list[list[str]]:
        """P lists of M texts."""
        return [[completion.text for completion in row] for row in self.rows]


Poll = Callable[[], None]
"""Called between chunks of work; raises :class:`bontune.base.errors.Interrupted` when the run should stop."""


class Drawn(Protocol):
    """What every engine returns from :meth:`Engine.draw`: :class:`Samples`, or :class:`Completions` from a server."""

    @property
    def texts(self) -> list[list[str]]:
        """P lists of M texts."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What an engine can promise; callers ask here instead of asking which engine it is."""

    has_seeds: bool
    """Whether a completion follows from its seed key alone, whatever else is drawn with it."""
    has_tokens: bool
    """Whether it returns token ids with their log-probabilities (:class:`Samples`), which training needs."""
    can_load: bool
    """Whether :meth:`Engine.load` can replace the weights."""
    context: int | None
    """Longest prompt with its completion, in tokens; None where the engine does not know."""


class Engine(Protocol):
    """A language model that draws M completions per prompt. The only door to sampling in the whole package."""

    limits: Limits
    """What this engine can promise."""
    uses_chat: bool
    """Whether it takes conversations; see :func:`bontune.engines.prompts.prompt_of`."""

    def draw(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        keys: Sequence[tuple[object, ...]],
        poll: Poll | None = None,
    ) -> Drawn:
        """Draw ``options.num_samples`` completions of each prompt.

        Args:
            prompts: P texts or conversations.
            options: how to draw.
            keys: P seed keys, one a prompt; sample i of a prompt uses the stream (*key, i) and nothing else.
            poll: called between chunks of work.

        Raises:
            BontuneError: a prompt is empty or does not fit the context.
        """
        ...

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Find what cannot be drawn before anything is.

        Raises:
            BontuneError: a prompt is empty or does not fit the context, or a server does not answer.
        """
        ...

    def origin(self) -> dict[str, Any]:
        """What the engine adds to the settings of a pool, as JSON: whatever changes the completions."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Draw with these weights from now on.

        Args:
            weights: (name, tensor) pairs, named as ``model.named_parameters()`` names them. Parameters that are not
                among them keep their weights. An engine in this process refers to the tensors and does not copy
                them, so later changes in place are seen.

        Raises:
            BontuneError: the engine cannot change its weights, or has no parameter of that name and shape.
        """
        ...


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine whose completions arrive one by one, such as a server's: each is kept as soon as it is there."""

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
        """Draw, and yield each prompt's number and M completions when it has them all.

        Args:
            prompts: P texts or conversations.
            options: how to draw.
            keys: P seed keys; sample i of a prompt uses (*key, i).
            names: P names for messages.
            known: completions by sample that are there already and are not drawn again.
            keep: gets every reply's completions at once, before they count; what it raises ends the drawing.
            poll: called several times a second while waiting.
        """
        ...

    def as_asked(self, problem: Problem) -> Problem:
        """The problem as the engine asks it, such as a text as a user's message."""
        ...

    def notes(self) -> dict[str, Any]:
        """What a pool remembers of the engine although it may change before the pool is complete."""
        ...

    def status(self) -> str:
        """What happens now, for people."""
        ...

    def close(self) -> None:
        """End all that is under way; the engine can be used again."""
        ...
