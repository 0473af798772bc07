"""Tokens are sampled from logits, and rows end at end tokens, stop strings or the longest length.

Tokens are drawn by inverting the cumulative distribution at a uniform number that belongs to (key, sample, token).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from bontune.base.signals import Poll
from bontune.engines.contract import SamplingOptions, StopReason
from bontune.engines.texts import Decoder

BLOCK_OF_TOKENS = 8
"""Tokens after which an asynchronous device is asked which rows have ended."""

SMALL_VOCABULARY = 4096
"""Largest vocabulary that is searched in one step; in a larger one, a block of ``BLOCK`` tokens is found first."""
BLOCK = 512

REASONS = (StopReason.LENGTH, StopReason.END, StopReason.STOP)
"""Stop reasons; tensors store a reason as its index here."""

RowTensors = tuple[Tensor, Tensor, Tensor, Tensor]
"""Tokens and log-probabilities (rows, new tokens), lengths and indices of stop reasons (rows,)."""


class SamplingState:
    """The tokens of a batch of rows that is being sampled, and the reason why each row ended.

    Only the device knows which rows have ended. A CPU is asked after every token, other devices after every
    ``BLOCK_OF_TOKENS``, because the answer makes them wait; stop strings are searched at the same moments.
    """

    def __init__(
        self,
        draws_BT: Tensor,
        options: SamplingOptions,
        *,
        ends: list[int],
        pad: int,
        decoder: Decoder,
        prompt_ids: list[list[int]],
        poll: Poll | None,
        tell: Callable[[int, int], None] = lambda _, __: None,
        block: int | None = None,
    ) -> None:
        """
        Args:
            draws_BT: a uniform number for each token, on the model's device; the width is the longest completion.
            options: how to draw.
            ends: tokens that end a completion.
            pad: token that fills a row behind its end.
            decoder: finds stop strings.
            prompt_ids: token ids of each row's prompt.
            poll: called before each token.
            tell: receives the number of ended rows and of all tokens, whenever ended rows are counted.
            block: tokens after which ended rows are counted; None: by the device.
        """
        self.draws_BT, self.options, self.decoder, self.pad = draws_BT, options, decoder, pad
        self.poll, self.tell = poll, tell
        (num_rows, self.width), device = draws_BT.shape, draws_BT.device
        self.block = block or (1 if device.type == "cpu" else BLOCK_OF_TOKENS)
        self.ends = torch.tensor(ends, device=device)
        self.fronts = [decoder.front_of(prompt) for prompt in prompt_ids] if options.stop else []
        self.tokens_BT = torch.full((num_rows, self.width), pad, device=device)
        self.logprobs_BT = torch.zeros(num_rows, self.width, device=device)
        self.lengths_B = torch.full((num_rows,), self.width, device=device)
        self.reasons_B = torch.full_like(self.lengths_B, REASONS.index(StopReason.LENGTH))
        self.has_ended_B = torch.zeros(num_rows, dtype=torch.bool, device=device)

    def draw(self, rows: Tensor, t: int, logits: Tensor) -> Tensor:
        """Draw token t of these rows from their logits (rows, vocabulary); rows that have ended are padded."""
        if self.poll is not None:
            self.poll()
        token, logprob = draw_token(logits, self.draws_BT[rows, t], self.options.temperature, self.options.top_p)
        is_running = ~self.has_ended_B[rows]
        self.tokens_BT[rows, t] = torch.where(is_running, token, self.pad)
        self.logprobs_BT[rows, t] = torch.where(is_running, logprob, 0.0)
        is_end = is_running & torch.isin(token, self.ends)
        self._end(rows, is_end, t, StopReason.END)
        if self.options.stop and self.is_settled(t):
            self._find_stops(rows, t)
        if self.is_settled(t):
            self.tell(int(self.has_ended_B.sum()), int(self.lengths_B.clamp(max=t + 1).sum()))
        return token

    def is_settled(self, t: int) -> bool:
        """Return whether all ends up to token t are known, those by stop strings included."""
        return (t + 1) % self.block == 0 or t + 1 == self.width

    def result(self) -> RowTensors:
        """Return tokens, log-probabilities, lengths and indices of stop reasons of all rows."""
        return self.tokens_BT, self.logprobs_BT, self.lengths_B, self.reasons_B

    def _find_stops(self, rows: Tensor, last: int) -> None:
        """End rows at the first stop string that the last block of tokens completes, and erase the tokens behind it."""
        for t in range(last - last % self.block, last + 1):
            is_running = ~self.has_ended_B[rows] | (self.lengths_B[rows] > t + 1)
            running = rows[is_running]
            fronts = [self.fronts[row] for row in running.tolist()]
            hits = self.decoder.hits_stop(fronts, self.tokens_BT[running, : t + 1])
            stopped = running[torch.tensor(hits, dtype=torch.bool, device=rows.device)]
            self._end(stopped, torch.ones_like(stopped, dtype=torch.bool), t, StopReason.STOP)
            self.tokens_BT[stopped, t + 1 :] = self.pad
            self.logprobs_BT[stopped, t + 1 :] = 0.0

    def _end(self, rows: Tensor, is_end: Tensor, t: int, reason: StopReason) -> None:
        self.reasons_B[rows] = torch.where(is_end, REASONS.index(reason), self.reasons_B[rows])
        self.lengths_B[rows] = torch.where(is_end, t + 1, self.lengths_B[rows])
        self.has_ended_B[rows] |= is_end


def draw_token(logits: Tensor, uniform: Tensor, temperature: float, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Draw one token for each row by inverting the cumulative distribution at ``uniform``.

    Args:
        logits: (rows, vocabulary).
        uniform: (rows,) in [0, 1).
        temperature: 0 takes the most probable token and reports its log-probability at temperature 1.
        top_p: nucleus; 1 keeps all tokens.

    Returns:
        Token ids (rows,) and their log-probability under the full distribution at that temperature (rows,).

    References:
        Nucleus sampling: Holtzman et al., arXiv 1904.09751.
    """
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
    if temperature == 0:
        token = logprobs.argmax(-1)
        return token, logprobs.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    if top_p == 1:
        token = _place_of(logprobs.exp(), uniform)
        return token, logprobs.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    probs, order = logprobs.exp().double().sort(dim=-1, descending=True, stable=True)
    probs = torch.where(probs.cumsum(-1) - probs < top_p, probs, 0.0)
    token = order.gather(-1, _place_of(probs, uniform).unsqueeze(-1))
    return token.squeeze(-1), logprobs.gather(-1, token).squeeze(-1)


def _place_of(probs: Tensor, uniform: Tensor) -> Tensor:
    """Return the index (rows,) where the cumulative sum of probs (rows, vocabulary) passes ``uniform`` times its total.

    A large vocabulary is searched in two steps, the block first and then the token in it: a cumulative sum in float64
    over 262,144 tokens costs several times what the probabilities themselves cost.
    """
    rows, size = probs.shape
    uniform = uniform.double().unsqueeze(-1)
    if size <= SMALL_VOCABULARY:
        cumulative = probs.double().cumsum(-1)
        return _first_beyond(cumulative, uniform * cumulative[:, -1:]).squeeze(-1)
    blocks = torch.nn.functional.pad(probs, (0, -size % BLOCK)).view(rows, -1, BLOCK)
    sums = blocks.sum(-1).double()
    ends = sums.cumsum(-1)
    target = uniform * ends[:, -1:]
    block = _first_beyond(ends, target)
    share = (target - (ends - sums).gather(-1, block)) / sums.gather(-1, block)
    inside = blocks[torch.arange(rows, device=probs.device), block.squeeze(-1)].double().cumsum(-1)
    return (block * BLOCK + _first_beyond(inside, share * inside[:, -1:])).squeeze(-1)


def _first_beyond(cumulative: Tensor, target: Tensor) -> Tensor:
    """Return the first index whose cumulative sum exceeds the target; if rounding leaves none, the last with weight."""
    place = torch.searchsorted(cumulative, target, right=True)
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.minimum(place, last).clamp(max=cumulative.shape[-1] - 1)  # NaN probabilities would lead beyond


class _Sampler(LogitsProcessor):
    """A processor that masks all tokens but the one it draws, so that greedy ``generate`` takes that one."""

    def __init__(self, state: SamplingState, num_prompt: int) -> None:
        self.state = state
        self.num_prompt = num_prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = torch.arange(len(input_ids), device=input_ids.device)
        token = self.state.draw(rows, input_ids.shape[1] - self.num_prompt, scores)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token.unsqueeze(-1), 0.0)


class _Ended(StoppingCriteria):
    def __init__(self, state: SamplingState) -> None:
        self.state = state

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        return self.state.has_ended_B


def generate(model: Any, prompt_ids: Sequence[Sequence[int]], state: SamplingState, *, keeps_state: bool) -> None:
    """Draw one completion of each prompt with ``model.generate``, for recurrent and hybrid models.

    Their prompt states cannot be shared: every sample computes its prompt anew. All rows of a batch have prompts of one
    length, so that nothing is padded, because not every recurrent layer skips padding.

    Args:
        model: a causal LM.
        prompt_ids: B prompts of one length.
        state: the B rows, which are filled in place.
        keeps_state: whether the model's state from token to token is reliable; else everything is computed anew for
            each token.
    """
    ids = torch.tensor(prompt_ids, device=model.device)
    if keeps_state:
        _greedy(model, ids, state.width, [_Sampler(state, ids.shape[1])], [_Ended(state)])
        return
    rows = torch.arange(len(ids), device=ids.device)
    for t in range(state.width):
        token = state.draw(rows, t, model(input_ids=ids, use_cache=False).logits[:, -1])
        if bool(state.has_ended_B.all()):
            break
        ids = torch.cat([ids, token.unsqueeze(-1)], dim=-1)


@torch.no_grad()
def can_keep_state(model: Any) -> bool:
    """Return whether a model's state from token to token gives the logits that a full forward pass gives.

    In some families ``generate`` loses the state between two tokens, mixes rows up, or fails.
    """
    ids = torch.tensor([[0, 1, 2], [3, 2, 1]], device=model.device)
    kept = _Logits()
    try:
        _greedy(model, ids, 4, [kept], [])
    except (ValueError, RuntimeError, AttributeError, TypeError, IndexError):  # families fail in many ways
        return False
    whole = torch.cat([ids, torch.arange(1, 4, device=ids.device).expand(2, -1)], dim=-1)
    anew = model(input_ids=whole, use_cache=False).logits[:, 2:].float()
    return torch.allclose(torch.stack(kept.seen, dim=1), anew, rtol=1e-2, atol=1e-2 * float(anew.abs().max()))


class _Logits(LogitsProcessor):
    """A processor that stores the logits of each step and forces the tokens 1, 2, 3, …"""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(scores.float())
        token = torch.full_like(input_ids[:, :1], len(self.seen))
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)


def _greedy(model: Any, ids: Tensor, num_tokens: int, processors: list[Any], criteria: list[Any]) -> None:
    own = model.generation_config
    model.generation_config = GenerationConfig()  # switches the model's own penalties and truncations off
    try:
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=GenerationConfig(max_new_tokens=num_tokens, do_sample=False, use_cache=True),
            logits_processor=processors,
            stopping_criteria=criteria,
        )
    finally:
        model.generation_config = own
