"""Sampling from any Hugging Face causal LM in this process.

A prompt is computed once; its cache is then shared by its M samples. Completions that ended leave the batch. Tokens
are drawn by inverting the cumulative distribution at a uniform number that belongs to (key, sample, token), so what a
prompt yields does not depend on the batch it sits in (up to the rounding of the matrix products).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bontune.engines.cache import select_cache_with_room, shares_prompts
from bontune.engines.contract import Limits, Poll, Samples, SamplingOptions, StopReason, parameter_of
from bontune.engines.generate import can_keep_state, generate
from bontune.engines.prompts import Prompt, has_chat_template
from bontune.engines.seeds import stream
from bontune.engines.texts import Completions, context_of, encode_prompts, end_ids

COMPACT_AT = 0.125
"""Share of ended rows at which they are removed; with fewer, copying the cache costs more than computing them."""

SMALL_VOCABULARY = 4096
"""Number of tokens up to which all are looked through when one is drawn; of more, blocks of ``BLOCK`` first."""
BLOCK = 512

REASONS = (StopReason.LENGTH, StopReason.END, StopReason.STOP)
"""Stop reasons by the numbers that stand for them in tensors."""

RowTensors = tuple[Tensor, Tensor, Tensor, Tensor]
"""Tokens and log-probabilities (rows, new tokens), lengths and numbers of stop reasons (rows,)."""


class TransformersEngine:
    """Draws from a model in this process (see :class:`bontune.engines.contract.Engine`)."""

    def __init__(self, model: Any, tokenizer: Any, *, token_budget: int = 65_536) -> None:
        """
        Args:
            model: a Hugging Face causal LM (a peft model too); its device and dtype are used as they are.
            tokenizer: its tokenizer.
            token_budget: rows × (prompt + new tokens) held in the cache at once; bounds memory, not results.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.token_budget = token_budget
        self.limits = Limits(has_seeds=True, has_tokens=True, can_load=True, context=context_of(model))
        self._has_own_parameters = False

    def draw(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        keys: Sequence[tuple[object, ...]],
        poll: Poll | None = None,
    ) -> Samples:
        """Draw M completions of each prompt; see :meth:`bontune.engines.contract.Engine.draw`."""
        encoded = encode_prompts(self.model, self.tokenizer, prompts, options.max_new_tokens)
        shape = len(prompts) * options.num_samples, options.max_new_tokens
        tokens_BT, logprobs_BT = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
        lengths_B, reasons_B = torch.zeros(2, shape[0], dtype=torch.int64)
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for rows, drawn in self._batches(encoded, options, keys, poll):
                    for whole, part in zip((tokens_BT, logprobs_BT, lengths_B, reasons_B), drawn, strict=True):
                        whole[rows] = part.cpu()
        finally:
            self.model.train(was_training)
        longest = int(lengths_B.max())
        texts = Completions(self.tokenizer, options.stop).texts(encoded, tokens_BT, lengths_B)
        return Samples(
            prompts=encoded,
            tokens_BT=tokens_BT[:, :longest].contiguous(),
            lengths_B=lengths_B,
            logprobs_BT=logprobs_BT[:, :longest].contiguous(),
            stops=[REASONS[reason] for reason in reasons_B.tolist()],
            texts=[texts[i : i + options.num_samples] for i in range(0, len(texts), options.num_samples)],
        )

    def takes_chat(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return has_chat_template(self.tokenizer)

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Refuse a prompt that is empty or does not fit the context; see :func:`encode_prompts`."""
        encode_prompts(self.model, self.tokenizer, prompts, max_new_tokens)

    def origin(self) -> dict[str, Any]:
        """Return nothing: the model's name decides what this engine draws."""
        return {}

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Draw with these weights; see :meth:`bontune.engines.contract.Engine.load`.

        The first call gives the engine parameters of its own, which refer to the memory of the model's. The model that
        the engine was made with is never touched, and no weight is copied.
        """
        if not self._has_own_parameters:
            own = {id(p): nn.Parameter(p.data, requires_grad=False) for p in self.model.parameters()}
            shared = {id(buffer): buffer for buffer in self.model.buffers()}
            self.model = copy.deepcopy(self.model, {**own, **shared})
            self._has_own_parameters = True
        parameters = dict(self.model.named_parameters())
        for name, tensor in weights:
            parameter_of(parameters, name, tensor).data = tensor.detach()

    def _batches(
        self, encoded: list[list[int]], options: SamplingOptions, keys: Sequence[tuple[object, ...]], poll: Poll | None
    ) -> Iterator[tuple[Tensor, RowTensors]]:
        """Draw prompts of similar length together, within the budget; a prompt whose samples exceed it, in parts.

        Yields:
            Numbers of rows among all P·M, and what was drawn for them.
        """
        m = options.num_samples
        by_length = sorted(range(len(encoded)), key=lambda p: len(encoded[p]))
        while by_length:
            take = 1
            while take < len(by_length):
                row_tokens = len(encoded[by_length[take]]) + options.max_new_tokens
                if not self._shares_prompts and len(encoded[by_length[take]]) > len(encoded[by_length[0]]):
                    break
                if (take + 1) * m * row_tokens > self.token_budget:
                    break
                take += 1
            batch, by_length = by_length[:take], by_length[take:]
            longest = max(len(encoded[p]) for p in batch) + options.max_new_tokens
            rows_at_once = max(1, self.token_budget // longest)
            prefill = self._prefill([encoded[p] for p in batch]) if self._shares_prompts else None
            owner = torch.arange(take).repeat_interleave(m)
            rows = (torch.tensor(batch).unsqueeze(1) * m + torch.arange(m)).flatten()
            for start in range(0, len(rows), rows_at_once):
                part = slice(start, start + rows_at_once)
                draws = np.stack(
                    [stream(*keys[int(row) // m], int(row) % m).random(options.max_new_tokens) for row in rows[part]]
                )
                prompt_ids = [encoded[batch[p]] for p in owner[part].tolist()]
                drawing = _Drawing(
                    torch.from_numpy(draws).to(self.model.device),
                    options,
                    ends=end_ids(self.model, self.tokenizer),
                    pad=pad_id(self.tokenizer, self.model),
                    completions=Completions(self.tokenizer, options.stop),
                    prompt_ids=prompt_ids,
                    poll=poll,
                )
                if prefill is None:
                    generate(self.model, prompt_ids, drawing, keeps_state=self._keeps_state)
                else:
                    self._decode(prefill, owner[part], drawing)
                yield rows[part], drawing.result()

    @cached_property
    def _shares_prompts(self) -> bool:
        return shares_prompts(self.model)

    @cached_property
    def _keeps_state(self) -> bool:
        return can_keep_state(self.model)

    def _prefill(self, encoded: list[list[int]]) -> tuple[Any, Tensor, Tensor]:
        ids, mask = left_pad(encoded, pad_id(self.tokenizer, self.model), self.model.device)
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=True, logits_to_keep=1
        )
        return out.past_key_values, mask, out.logits[:, -1]

    def _decode(self, prefill: tuple[Any, Tensor, Tensor], owner: Tensor, drawing: _Drawing) -> None:
        """Draw the tokens of some rows; row b continues prompt ``owner[b]`` of the prefill."""
        owner = owner.to(self.model.device)
        cache = select_cache_with_room(prefill[0], owner, drawing.width)
        mask, logits = prefill[1][owner], prefill[2][owner]
        rows = torch.arange(len(owner), device=owner.device)  # that still run, and idle ones not yet removed
        position = mask.sum(-1)
        for t in range(drawing.width):
            token = drawing.draw(rows, t, logits)
            is_idle = drawing.has_ended_B[rows]
            num_idle = int(is_idle.sum())
            if num_idle == len(rows) or t + 1 == drawing.width:
                break
            if num_idle >= COMPACT_AT * len(rows):
                keep = (~is_idle).nonzero().squeeze(-1)
                cache.batch_select_indices(keep)
                rows, token, mask, position = (x[keep] for x in (rows, token, mask, position))
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
            out = self.model(
                input_ids=token.unsqueeze(-1),
                attention_mask=mask,
                position_ids=position.unsqueeze(-1),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits, position = out.logits[:, -1], position + 1


class _Drawing:
    """The tokens of a batch of rows as they are drawn, and why each row ended."""

    def __init__(
        self,
        draws_BT: Tensor,
        options: SamplingOptions,
        *,
        ends: list[int],
        pad: int,
        completions: Completions,
        prompt_ids: list[list[int]],
        poll: Poll | None,
    ) -> None:
        """
        Args:
            draws_BT: a uniform number for each token, on the model's device; the width is the longest completion.
            options: how to draw.
            ends: tokens that end a completion.
            pad: fills what follows a row's end.
            completions: finds stop strings.
            prompt_ids: each row's prompt.
            poll: called before each token.
        """
        self.draws_BT, self.options, self.completions, self.poll = draws_BT, options, completions, poll
        (num_rows, self.width), device = draws_BT.shape, draws_BT.device
        self.ends = torch.tensor(ends, device=device)
        self.fronts = [completions.front_of(prompt) for prompt in prompt_ids] if options.stop else []
        self.tokens_BT = torch.full((num_rows, self.width), pad, device=device)
        self.logprobs_BT = torch.zeros(num_rows, self.width, device=device)
        self.lengths_B = torch.full((num_rows,), self.width, device=device)
        self.reasons_B = torch.full_like(self.lengths_B, REASONS.index(StopReason.LENGTH))
        self.has_ended_B = torch.zeros(num_rows, dtype=torch.bool, device=device)

    def draw(self, rows: Tensor, t: int, logits: Tensor) -> Tensor:
        """Draw token t of these rows from their logits (rows, vocabulary); what has ended stays as it is."""
        if self.poll is not None:
            self.poll()
        token, logprob = draw_token(logits, self.draws_BT[rows, t], self.options.temperature, self.options.top_p)
        is_running = ~self.has_ended_B[rows]
        running = rows[is_running]
        self.tokens_BT[running, t] = token[is_running]
        self.logprobs_BT[running, t] = logprob[is_running]
        is_end = torch.isin(token[is_running], self.ends)
        self._end(running[is_end], t, StopReason.END)
        if self.options.stop:
            running = running[~is_end]
            fronts = [self.fronts[row] for row in running.tolist()]
            hits = self.completions.hits_stop(fronts, self.tokens_BT[running, : t + 1])
            self._end(running[torch.tensor(hits, dtype=torch.bool, device=rows.device)], t, StopReason.STOP)
        return token

    def result(self) -> RowTensors:
        """Tokens, log-probabilities, lengths and numbers of stop reasons of all rows."""
        return self.tokens_BT, self.logprobs_BT, self.lengths_B, self.reasons_B

    def _end(self, rows: Tensor, t: int, reason: StopReason) -> None:
        self.reasons_B[rows] = REASONS.index(reason)
        self.lengths_B[rows] = t + 1
        self.has_ended_B[rows] = True


def draw_token(logits: Tensor, uniform: Tensor, temperature: float, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the cumulative distribution at ``uniform``.

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
    """The place (rows,) where the cumulative sum of probs (rows, vocabulary) passes ``uniform`` times its total.

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
    """The first place where a cumulative sum exceeds the target; where rounding lets none, the last with any weight."""
    place = torch.searchsorted(cumulative, target, right=True)
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.minimum(place, last).clamp(max=cumulative.shape[-1] - 1)  # beyond it lies nothing but NaN


def left_pad(encoded: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    """Ids and attention mask (rows, longest), padded at the left so that all prompts end at the same place."""
    longest = max(len(ids) for ids in encoded)
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in encoded], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in encoded], device=device)
    return ids, mask


def positions_of(mask: Tensor) -> Tensor:
    """Position ids that count real tokens only."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def pad_id(tokenizer: Any, model: Any) -> int:
    """The padding token, or the end token for tokenizers without one; padding is masked, so any token will do.

    A padding token outside the model's vocabulary, such as one that was added to the tokenizer alone, becomes 0.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    return int(pad) if 0 <= pad < model.get_input_embeddings().weight.shape[0] else 0
