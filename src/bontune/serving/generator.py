"""Best-of-N in use: a model draws N answers and the verifier picks one (Chow et al., arXiv 2412.15287, §2)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.problems import Message, Problem
from bontune.base.text import readable
from bontune.base.thoughts import Setting, thoughts_of
from bontune.engines.contract import Samples, SamplingOptions
from bontune.engines.opening import open_engine
from bontune.engines.prompts import Prompt, as_message, texts_of
from bontune.engines.seeds import stream
from bontune.grading.answers.math_answer import normal_answer
from bontune.grading.answers.notation import last_box
from bontune.grading.verdict import Grade, Verdict
from bontune.models import resolve
from bontune.pools.collect import score_all
from bontune.verifiers import Verifier, as_verifier, verifier_from_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One of the N answers."""

    text: str
    """Text that the model wrote."""
    score: float
    """Score by the verifier; −∞ if it has none for the candidate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The Best-of-N answer to a prompt."""

    winner: str
    """The candidate with the highest score; ties are broken uniformly."""
    score: float
    """Score of the winner."""
    candidates: list[Candidate]
    """All N candidates in the order in which they were drawn, or fewer if a round reached ``stop_at``."""
    prompt: Prompt
    """Prompt of the answer."""


class BestOfN:
    """A model that is used as it was trained: it draws N answers and the verifier picks one.

    Example:
        >>> from bontune import BestOfN
        >>> def shorter(problem, completion):
        ...     return -len(completion)
        >>> best = BestOfN("countdown-tiny", shorter, 8, max_new_tokens=24)
        >>> answer = best.generate("3,7,2,9:48=")
        >>> answer.score == max(candidate.score for candidate in answer.candidates)
        True
    """

    def __init__(
        self,
        model: Any,
        verifier: Verifier | Callable[[Problem, str], float] | tuple[Any, Any] | str,
        n: int,
        *,
        stop_at: float | None = None,
        round_size: int | None = None,
        tokenizer: Any = None,
        engine: str = "auto",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 512,
        stop: Sequence[str] = (),
        seed: int | None = None,
        read_answer: Callable[[str], str | None] | None = None,
        thoughts: Setting = "auto",
    ) -> None:
        """
        Args:
            model: a shipped name, folder or hub id; the address of an OpenAI-compatible server
                (``http://host:8000/v1#model``); or a loaded model, with its tokenizer.
            verifier: a verifier, a function (problem, completion) -> float, a loaded classifier with its tokenizer
                as a pair, or what ``--verifier`` takes: ``majority``, a reward model's folder, ``file.py:function`` …
            n: N ≥ 1.
            stop_at: a score that ends the sampling, so that N is the maximum; None: always N. ``bontune adaptive``
                finds one and measures what it saves.
            round_size: answers drawn between two checks of ``stop_at``; None: N / 8.
            tokenizer: a loaded model's tokenizer.
            engine: ``transformers`` or ``vllm`` for a model that is not a server; ``auto``: transformers.
            temperature, top_p, max_new_tokens, stop: sampling options.
            seed: seed for sampling; with a seed every call gives a prompt the same answer, if the engine has
                seeds. None: every call draws new answers.
            read_answer: returns the answer in a completion that is voted for (``majority``); None: the content of the
                last ``\\boxed{}``, else the whole text behind the thoughts, in normal form.
            thoughts: see :func:`bontune.base.thoughts.thoughts_of`. ``read_answer`` gets the text as it is.

        Raises:
            BontuneError: an option outside its range, a model or verifier that cannot be loaded, ``oracle``, or
                ``stop_at`` with votes.
        """
        self.options = SamplingOptions(
            num_samples=n, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, stop=tuple(stop)
        )
        if isinstance(model, str) and ":" not in model:
            resolve(model)  # a misspelt name is refused before a verifier is loaded
        self.verifier = verifier_from_text(verifier) if isinstance(verifier, str) else as_verifier(verifier)
        if self.verifier.name == "oracle":
            raise BontuneError("The oracle needs right answers, which nobody has in use: name another verifier.")
        _check_stopping(self.verifier, stop_at, round_size)
        self._stop_at = math.inf if stop_at is None else stop_at
        self._round_size = n if stop_at is None else round_size or -(-n // 8)
        self.seed = seed
        self._read_answer = read_answer
        self._thoughts = thoughts_of(thoughts)
        self.engine = open_engine(model, tokenizer, engine=engine)

    def generate(self, prompts: str | Iterable[str | Message] | Iterable[Iterable[Message]]) -> Any:
        """Answer one prompt or several.

        Args:
            prompts: a text, a conversation (messages such as ``{"role": "user", "content": …}``, in a list or tuple),
                or several of these. A text becomes a user's message if the model has a chat template.

        Returns:
            An :class:`Answer` for one prompt, a list of them for a list.

        Raises:
            BontuneError: no prompt, neither a text nor a conversation, or a prompt that is too long for the model.
            RunStopped: the verifier or the server failed, or the model's probabilities are not finite.
        """
        if isinstance(prompts, str):
            return self._generate([_as_prompt(prompts)])[0]
        if isinstance(prompts, (Mapping, bytes)) or not isinstance(prompts, Iterable):
            raise BontuneError(f"{_EXPECTED}, got {_shortly(prompts)}.")
        requested = list(prompts)
        if not requested:
            raise BontuneError(f"{_EXPECTED}, got nothing.")
        if isinstance(requested[0], Mapping):
            return self._generate([_as_prompt(requested)])[0]
        return self._generate([_as_prompt(prompt) for prompt in requested])

    def _generate(self, prompts: list[Prompt]) -> list[Answer]:
        asked = [self._as_asked(prompt) for prompt in prompts]
        keys = [(self.seed, "answer", repr(prompt)) for prompt in asked] if self.seed is not None else _fresh(asked)
        problems = [_problem(prompt) for prompt in prompts]
        texts: list[list[str]] = [[] for _ in prompts]
        scores: list[list[float]] = [[] for _ in prompts]
        n, running = self.options.num_samples, list(range(len(prompts)))
        for start in range(0, n, self._round_size):
            options = replace(self.options, num_samples=min(self._round_size, n - start))
            # The first round has the keys of a draw without stop_at: N answers in one round are the same as without it.
            drawn = self.engine.draw(
                [asked[i] for i in running], options, [(*keys[i], start) if start else keys[i] for i in running]
            )
            if isinstance(drawn, Samples):
                drawn.check_finite()
            scores_PM = self._scores([problems[i] for i in running], [asked[i] for i in running], drawn.texts)
            for i, row_texts, row_scores in zip(running, drawn.texts, scores_PM, strict=True):
                texts[i] += row_texts
                scores[i] += row_scores
            running = [i for i in running if max(scores[i]) < self._stop_at]
            if not running:
                break
        return [self._choose(*row) for row in zip(prompts, keys, texts, scores, strict=True)]

    def _as_asked(self, prompt: Prompt) -> Prompt:
        return as_message(prompt) if isinstance(prompt, str) and self.engine.takes_chat() else prompt

    def _scores(self, problems: list[Problem], asked: list[Prompt], texts: list[list[str]]) -> list[list[float]]:
        grades = [
            [
                Grade(reward=math.nan, verdict=Verdict.GRADER_ERROR, answer=self._answer(seen, text), reason="ungraded")
                for text in row
            ]
            for seen, row in zip(texts_of(self.engine, asked), texts, strict=True)
        ]
        return score_all(self.verifier, problems, texts, grades)

    def _answer(self, seen: str, text: str) -> str | None:
        """Return the answer of a completion, which is voted for."""
        if self._read_answer is not None:
            return self._read_answer(text)
        if self._thoughts is None:
            return _boxed_or_whole(text)
        answer = self._thoughts.answer(self._thoughts.opened_by(seen) + text)
        return None if answer is None else _boxed_or_whole(answer)

    def _choose(self, prompt: Prompt, key: tuple[object, ...], texts: list[str], scores: list[float]) -> Answer:
        best = max(scores)
        if best == -math.inf:
            raise RunStopped(f"The verifier {self.verifier.name} could score none of the {len(texts)} candidates.")
        tied = [i for i, score in enumerate(scores) if score == best]
        winner = tied[int(stream(*key, "tie").integers(len(tied)))]
        candidates = [Candidate(text=text, score=score) for text, score in zip(texts, scores, strict=True)]
        return Answer(winner=texts[winner], score=best, candidates=candidates, prompt=prompt)


def _check_stopping(verifier: Verifier, stop_at: float | None, round_size: int | None) -> None:
    """Refuse a score to stop at, or a size of rounds, that cannot be used.

    Raises:
        BontuneError: no number, rounds without a draw or without ``stop_at``, or votes.
    """
    if stop_at is None and round_size is not None:
        raise BontuneError("The round_size counts draws between two checks of stop_at: give stop_at, too.")
    if stop_at is not None and (math.isnan(stop_at) or (round_size is not None and round_size < 1)):
        raise BontuneError(f"stop_at must be a number and round_size at least 1, got {stop_at} and {round_size}.")
    if stop_at is not None and verifier.name == "majority":
        raise BontuneError("Votes count all N answers: stop_at needs a verifier that scores each answer by itself.")


_EXPECTED = (
    'A prompt is a text, or a conversation such as [{"role": "user", "content": "…"}]; give one, or a list of several'
)


def _as_prompt(value: Any) -> Prompt:
    """Check a prompt: a text, or a conversation, whose messages are returned as a tuple.

    Raises:
        BontuneError: it is neither, or empty.
    """
    if isinstance(value, str):
        if not value:
            raise BontuneError(f"{_EXPECTED}, got an empty text.")
        return readable(value)
    turns = list(value) if isinstance(value, Iterable) and not isinstance(value, (Mapping, bytes)) else []
    if not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise BontuneError(f"{_EXPECTED}, got {_shortly(value)}.")
    for turn in turns:
        if not all(isinstance(turn.get(key), str) and turn[key] for key in ("role", "content")):
            raise BontuneError(f"A message must have the texts role and content, got {_shortly(turn)}.")
    return tuple({**turn, "content": readable(turn["content"])} for turn in turns)


def _shortly(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:79] + '…'}"


def _fresh(asked: Sequence[Prompt]) -> list[tuple[object, ...]]:
    """Return seed keys that no other call has, nor another prompt of this call."""
    call = secrets.randbits(64)
    return [(call, "answer", place) for place in range(len(asked))]


def _problem(prompt: Prompt) -> Problem:
    """Return the prompt as a problem for the verifier."""
    if isinstance(prompt, str):
        return Problem(id=prompt, prompt=prompt, messages=as_message(prompt), reference="")
    text = "\n\n".join(message["content"] for message in prompt)
    return Problem(id=text, prompt=text, messages=prompt, reference="")


def _boxed_or_whole(text: str) -> str | None:
    boxed = last_box(text)
    return normal_answer(boxed) if boxed is not None else text.strip() or None
