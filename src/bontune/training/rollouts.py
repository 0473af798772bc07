"""The sequences that a step trains on: own samples, samples of the anchor, and the task's demonstrations.

Shapes: ``_P`` prompts, ``_S`` sequences of one prompt, ``_B`` = P·S flattened prompt by prompt, ``_T`` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.engines.contract import Engine, Samples, SamplingOptions, StopReason
from bontune.engines.lower_layers import joined
from bontune.engines.prompts import Prompt, as_text, prompt_of, prompts_of
from bontune.engines.texts import Decoder, context_of, encode_prompts, encode_text, end_ids
from bontune.engines.transformers import TransformersEngine, pad_id
from bontune.models.chat import has_chat_template
from bontune.objectives.batch import Sources
from bontune.pools.collect import Graded
from bontune.tasks.base import HasDemonstrations, HasThoughts, Task
from bontune.training.anchor import Anchor


class Rollouts:
    """Draws and joins the sequences of a step; each draw has a seed of its own."""

    def __init__(
        self,
        sources: Sources,
        engine: Engine,
        model: Any,
        tokenizer: Any,
        anchor: Anchor,
        options: SamplingOptions,
        demonstrations: Mapping[str, Sequence[int]],
        kept_layer: int | None = None,
    ) -> None:
        """
        Args:
            sources: how many sequences of each source a prompt has.
            engine: draws the samples.
            model, tokenizer: the policy's, for demonstrations.
            anchor: draws the samples of the reference.
            options: how to draw; the number of samples follows from ``sources``.
            demonstrations: tokens by problem, with the end token; not read if that source has none.
            kept_layer: decoder layer whose entering states the samples bring along, if the model itself draws; None:
                no states.
        """
        self.sources = sources
        self.engine = engine
        self.model = model
        self.tokenizer = tokenizer
        self.anchor = anchor
        self.options = options
        self.demonstrations = demonstrations
        self.kept_layer = kept_layer

    def number(self, problems: Sequence[Problem]) -> tuple[int, int]:
        """How many completions are drawn for some problems, and the most tokens that one may have."""
        return len(problems) * (self.sources.own + self.sources.reference), self.options.max_new_tokens

    def of(self, problems: Sequence[Problem], seed: int, draws: Sequence[int], poll: Poll | None = None) -> Samples:
        """Draw and join the sequences of some problems, S of each.

        Args:
            problems: P problems.
            seed: the run's seed.
            draws: the number of each problem's draw in the run; it differs from step to step, and where a problem
                occurs twice in a step, so that no samples are drawn twice.
            poll: called between pieces of work.
        """
        prompts = prompts_of(self.engine, problems)

        def draw(purpose: str, number: int) -> Samples:
            keys = [(seed, purpose, i, problem.id) for i, problem in zip(draws, problems, strict=True)]
            keeping: AbstractContextManager[None] = nullcontext()
            if self.kept_layer is not None and isinstance(self.engine, TransformersEngine):
                keeping = self.engine.keeping_states(self.kept_layer)
            with keeping:
                drawn = self.engine.draw(prompts, replace(self.options, num_samples=number), keys, poll)
            assert isinstance(drawn, Samples), "the trainer has checked that the engine returns tokens"
            return drawn

        parts = [draw("train", self.sources.own)] if self.sources.own else []
        if self.sources.reference:
            self.engine.load(self.anchor.weights())
            try:
                parts.append(draw("reference", self.sources.reference))
            finally:
                self.engine.load(self.anchor.policy_weights())
        if self.sources.demonstrated:
            encoded = (
                parts[0].prompts
                if parts
                else encode_prompts(self.model, self.tokenizer, prompts, self.options.max_new_tokens)
            )
            parts.append(self._demonstrated(problems, encoded))
        return join(parts, pad_id(self.tokenizer, self.model))

    def _demonstrated(self, problems: Sequence[Problem], encoded: list[list[int]]) -> Samples:
        """The demonstrations in the form of one sample per prompt, with log-probabilities of 0: they were not drawn.

        Their texts are decoded from the tokens as those of samples are, so that the grader and the verifier see what
        they would see if the model had written them.
        """
        rows = [torch.tensor(self.demonstrations[problem.id]) for problem in problems]
        lengths_B = torch.tensor([len(row) for row in rows])
        pad = pad_id(self.tokenizer, self.model)
        tokens_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        texts = Decoder(self.tokenizer, self.options.stop).texts(encoded, tokens_BT, lengths_B)
        return Samples(
            prompts=encoded,
            tokens_BT=tokens_BT,
            lengths_B=lengths_B,
            logprobs_BT=torch.zeros(tokens_BT.shape),
            stops=[StopReason.END] * len(rows),
            texts=[[t] for t in texts],
        )


def join(parts: Sequence[Samples], pad: int) -> Samples:
    """Put samples of the same prompts side by side; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    num_prompts, width = len(parts[0].prompts), max(part.tokens_BT.shape[1] for part in parts)

    def beside(tensor_of: Callable[[Samples], Tensor], fill: float) -> Tensor:
        wide = [
            torch.nn.functional.pad(t, (0, width - t.shape[1]), value=fill).view(num_prompts, -1, width)
            for t in map(tensor_of, parts)
        ]
        return torch.cat(wide, dim=1).flatten(0, 1)

    return Samples(
        prompts=parts[0].prompts,
        tokens_BT=beside(lambda part: part.tokens_BT, pad),
        lengths_B=torch.cat([part.lengths_B.view(num_prompts, -1) for part in parts], dim=1).flatten(),
        logprobs_BT=beside(lambda part: part.logprobs_BT, 0.0),
        stops=[
            stop
            for p in range(num_prompts)
            for part in parts
            for stop in part.stops[p * part.num_samples : (p + 1) * part.num_samples]
        ],
        texts=[[text for part in parts for text in part.texts[p]] for p in range(num_prompts)],
        states=joined([part.states for part in parts], num_prompts),
    )


def append(parts: Sequence[Graded]) -> Graded:
    """Put graded samples of different prompts one after the other; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    samples = [part.samples for part in parts]
    width = max(part.tokens_BT.shape[1] for part in samples)

    def below(tensors: list[Tensor]) -> Tensor:
        return torch.cat([torch.nn.functional.pad(t, (0, width - t.shape[1])) for t in tensors])

    return Graded(
        problems=[problem for part in parts for problem in part.problems],
        samples=Samples(
            prompts=[prompt for part in samples for prompt in part.prompts],
            tokens_BT=below([part.tokens_BT for part in samples]),
            lengths_B=torch.cat([part.lengths_B for part in samples]),
            logprobs_BT=below([part.logprobs_BT for part in samples]),
            stops=[stop for part in samples for stop in part.stops],
            texts=[row for part in samples for row in part.texts],
            states=joined([part.states for part in samples]),
        ),
        grades=[row for part in parts for row in part.grades],
        scores=[row for part in parts for row in part.scores],
    )


def encode_demonstrations(task: Task, problems: Sequence[Problem], model: Any, tokenizer: Any) -> dict[str, list[int]]:
    """Tokens of each problem's demonstration as a continuation of its prompt, closed by the model's end token.

    Args:
        task: has ``demonstration(problem)``; see :class:`bontune.tasks.base.HasDemonstrations`.
        problems: which.
        model, tokenizer: the policy's.

    Returns:
        Token ids by problem id.

    Raises:
        BontuneError: the task has no demonstrations, one is missing, empty or too long for the model's context, or the
            model has no end token.
    """
    if not problems:
        return {}
    if not isinstance(task, HasDemonstrations):
        raise BontuneError(
            f"Task {task.name} has no demonstrations, and this objective trains on them: give the task a method "
            "demonstration(problem) -> str, or choose an objective that trains on samples."
        )
    prompts = [prompt_of(problem, has_chat_template(tokenizer)) for problem in problems]
    encoded = encode_prompts(model, tokenizer, prompts, max_new_tokens=1)
    context = context_of(model) or float("inf")
    ends: dict[bool, int] = {}
    found = {}
    for problem, prompt, prompt_ids in zip(problems, prompts, encoded, strict=True):
        is_text = isinstance(prompt, str)
        if is_text not in ends:
            ends[is_text] = _end_after(prompt, model, tokenizer)
        answer = task.demonstration(problem)
        if not answer.strip():
            raise BontuneError(f"The demonstration of problem {problem.id} is empty: correct or remove the row.")
        if not is_text and answer.startswith(" ") and not answer.startswith("  "):
            answer = answer[1:]  # it parts an answer from the text that it continues; two or more are an indentation
        answer = _closing(task, as_text(prompt, tokenizer), answer) + answer
        tokens = [*_continuation(prompt, prompt_ids, answer, tokenizer), ends[is_text]]
        if len(prompt_ids) + len(tokens) > context:
            raise BontuneError(
                f"The prompt and the demonstration of problem {problem.id} have {len(prompt_ids)} + {len(tokens)} "
                f"tokens, more than the model's context of {context}: shorten or remove the row."
            )
        found[problem.id] = tokens
    return found


def _closing(task: Task, prompt: str, answer: str) -> str:
    """What closes the thought that a prompt opens and an answer leaves open, for graders that look behind thoughts."""
    thoughts = task.thoughts if isinstance(task, HasThoughts) else None
    if thoughts is None or thoughts.answer(thoughts.opened_by(prompt) + answer) is not None:
        return ""
    closing = thoughts.closing_after(prompt)
    return closing and f"{closing}\n\n"


def _continuation(prompt: Prompt, prompt_ids: list[int], answer: str, tokenizer: Any) -> list[int]:
    """Tokens of the answer behind the prompt's tokens, which must stay as they are in sampling."""
    whole = encode_text(tokenizer, as_text(prompt, tokenizer) + answer, prompt)
    if whole[: len(prompt_ids)] == prompt_ids and len(whole) > len(prompt_ids):
        return list(whole[len(prompt_ids) :])
    # The last token of the prompt and the first of the answer have become one.
    return list(tokenizer(answer, add_special_tokens=False)["input_ids"])


def _end_after(prompt: Prompt, model: Any, tokenizer: Any) -> int:
    """The token that ends an answer; in a conversation the one that closes a turn, which need not be the tokenizer's.

    Raises:
        BontuneError: the model and its tokenizer name no end token.
    """
    ends = end_ids(model, tokenizer)
    if not ends:
        raise BontuneError("The model and its tokenizer name no end token: demonstrations cannot be closed.")
    if not isinstance(prompt, str):
        try:
            turns = [as_text(p, tokenizer) for p in (prompt, (*prompt, {"role": "assistant", "content": "x"}))]
        except BontuneError:
            turns = ["", ""]
        before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in turns)
        closing = next((token for token in after[len(before) :] if token in ends), None)
        if closing is not None:
            return int(closing)
    return int(ends[0] if tokenizer.eos_token_id is None else tokenizer.eos_token_id)
