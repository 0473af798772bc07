"""The engine that samples from any Hugging Face causal LM in this process.

A prompt is computed once; its cache is then shared by its M samples. Completions that ended leave the batch. Tokens
are drawn by inverting the cumulative distribution at a uniform number that belongs to (key, sample, token), so what a
prompt yields does not depend on the batch it sits in (up to the rounding of the matrix products).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bontune.base.signals import Poll
from bontune.engines.cache import cache_of, decoding_cache, shares_prompts, with_cache
from bontune.engines.contract import Limits, Progress, Samples, SamplingOptions, parameter_of
from bontune.engines.decoding import REASONS, RowTensors, SamplingState, can_keep_state, generate
from bontune.engines.lower_layers import Recorder, watched
from bontune.engines.prompts import Prompt
from bontune.engines.seeds import stream
from bontune.engines.shared_attention import shares_attention, sharing
from bontune.engines.texts import Decoder, context_of, encode_prompts, end_ids
from bontune.models.adapters import copy_with, decoder_layers
from bontune.models.chat import has_chat_template

COMPACT_AT = 0.125
"""Share of ended rows from which they are removed; below it, copying the cache costs more than computing them."""

SHARED_FROM, SHARED_BY = 128, 4
"""Smallest prompt (tokens) and number of its samples for which the samples share its states instead of copying them."""


class TransformersEngine:
    """An engine that samples from a model in this process (see :class:`bontune.engines.contract.Engine`)."""

    def __init__(self, model: Any, tokenizer: Any, *, token_budget: int = 65_536) -> None:
        """
        Args:
            model: a Hugging Face causal LM (a peft model too), used on its device and in its dtype.
            tokenizer: the model's tokenizer.
            token_budget: rows × (prompt + new tokens) in the cache at once; it bounds memory, not results.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.token_budget = token_budget
        self.limits = Limits(has_seeds=True, has_tokens=True, can_load=True, context=context_of(model))
        self.progress = Progress()
        self._has_own_parameters = False
        self._kept_layer: int | None = None
        self._recorder: Recorder | None = None

    @contextmanager
    def keeping_states(self, layer: int | None) -> Iterator[None]:
        """Keep the hidden states that enter a decoder layer with the samples drawn meanwhile; None: no states."""
        self._kept_layer = layer
        try:
            yield
        finally:
            self._kept_layer = None

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
            with torch.inference_mode(), self._recording(len(prompts), *shape) as recorder:
                for rows, drawn in self._batches(encoded, options, keys, poll):
                    for whole, part in zip((tokens_BT, logprobs_BT, lengths_B, reasons_B), drawn, strict=True):
                        whole[rows] = part.cpu()
        finally:
            self.model.train(was_training)
        longest = int(lengths_B.max())
        texts = Decoder(self.tokenizer, options.stop).texts(encoded, tokens_BT, lengths_B)
        return Samples(
            prompts=encoded,
            tokens_BT=tokens_BT[:, :longest].contiguous(),
            lengths_B=lengths_B,
            logprobs_BT=logprobs_BT[:, :longest].contiguous(),
            stops=[REASONS[reason] for reason in reasons_B.tolist()],
            texts=[texts[i : i + options.num_samples] for i in range(0, len(texts), options.num_samples)],
            states=None if recorder is None else recorder.states(longest),
        )

    @contextmanager
    def _recording(self, num_prompts: int, num_rows: int, width: int) -> Iterator[Recorder | None]:
        """Give the recorder of a draw; None where no states are kept."""
        if self._kept_layer is None:
            yield None
            return
        self._recorder = Recorder(num_prompts, num_rows, width)
        try:
            with watched(decoder_layers(self.model)[1][self._kept_layer], self._recorder.see):
                yield self._recorder
        finally:
            self._recorder = None

    def takes_chat(self) -> bool:
        """Return whether the tokenizer has a chat template."""
        return has_chat_template(self.tokenizer)

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Refuse a prompt that is empty or does not fit the context; see :func:`encode_prompts`."""
        encode_prompts(self.model, self.tokenizer, prompts, max_new_tokens)

    def origin(self) -> dict[str, Any]:
        """Return nothing: the model's name decides what this engine draws."""
        return {}

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Sample from these weights; see :meth:`bontune.engines.contract.Engine.load`.

        The first call gives the engine its own parameters, which share the memory of the model's. The model that
        the engine was made with is never changed, and no weight is copied unless the engine has another dtype.
        """
        if not self._has_own_parameters:
            own = {id(p): nn.Parameter(p.data, requires_grad=False) for p in self.model.parameters()}
            self.model = copy_with(self.model, own)
            self._has_own_parameters = True
        parameters = dict(self.model.named_parameters())
        for name, tensor in weights:
            parameter = parameter_of(parameters, name, tensor)
            parameter.data = tensor.detach().to(parameter.dtype)

    def _batches(
        self, encoded: list[list[int]], options: SamplingOptions, keys: Sequence[tuple[object, ...]], poll: Poll | None
    ) -> Iterator[tuple[Tensor, RowTensors]]:
        """Draw prompts of similar length together, within the budget; the samples of a large prompt are split.

        Yields:
            The indices of the rows among all P·M, and their tensors.
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
            if self._recorder is not None and prefill is not None:
                self._recorder.keep_prompts(batch, [len(encoded[p]) for p in batch])
            owner = torch.arange(take).repeat_interleave(m)
            rows = (torch.tensor(batch).unsqueeze(1) * m + torch.arange(m)).flatten()
            for start in range(0, len(rows), rows_at_once):
                part = slice(start, start + rows_at_once)
                draws = np.stack(
                    [stream(*keys[int(row) // m], int(row) % m).random(options.max_new_tokens) for row in rows[part]]
                )
                prompt_ids = [encoded[batch[p]] for p in owner[part].tolist()]
                before = self.progress.num_samples
                state = SamplingState(
                    torch.from_numpy(draws).to(self.model.device),
                    options,
                    ends=end_ids(self.model, self.tokenizer),
                    pad=pad_id(self.tokenizer, self.model),
                    decoder=Decoder(self.tokenizer, options.stop),
                    prompt_ids=prompt_ids,
                    poll=poll,
                    tell=self._counter(),
                )
                if prefill is None:
                    generate(self.model, prompt_ids, state, keeps_state=self._keeps_state)
                else:
                    self._decode(prefill, owner[part], state, rows[part])
                self.progress.num_samples = before + len(prompt_ids)  # also counts rows that never ended
                yield rows[part], state.result()

    def _counter(self) -> Callable[[int, int], None]:
        """Return a function that updates the progress while a batch is drawn."""
        num_samples, num_tokens = self.progress.num_samples, self.progress.num_tokens

        def tell(num_ended: int, num_of_batch: int) -> None:
            self.progress.num_samples = num_samples + num_ended
            self.progress.num_tokens = num_tokens + num_of_batch

        return tell

    @cached_property
    def _shares_prompts(self) -> bool:
        return shares_prompts(self.model)

    @cached_property
    def _keeps_state(self) -> bool:
        return can_keep_state(self.model)

    def _prefill(self, encoded: list[list[int]]) -> _Prefill:
        ids, mask = left_pad(encoded, pad_id(self.tokenizer, self.model), self.model.device)
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=True, logits_to_keep=1
        )
        is_padded = min(map(len, encoded)) < max(map(len, encoded))
        return _Prefill(cache_of(out), mask if is_padded else None, mask.sum(-1), out.logits[:, -1])

    def _decode(self, prefill: _Prefill, owner: Tensor, state: SamplingState, indices: Tensor) -> None:
        """Draw the tokens of a batch of rows; row b, ``indices[b]`` of the draw, continues prompt ``owner[b]``."""
        num_prompts, longest = len(prefill.logits), prefill.cache.get_seq_length()
        is_worth_it = longest >= SHARED_FROM and len(owner) >= SHARED_BY * num_prompts
        is_shared = is_worth_it and self._shares_attention
        rows = _DecodingRows(prefill, owner.to(self.model.device), state.width, is_shared=is_shared)
        numbers = torch.arange(len(owner), device=self.model.device)  # rows: running, or idle and not removed
        logits = prefill.logits[rows.owner]
        with sharing(self.model) if is_shared else nullcontext():
            for t in range(state.width):
                token = state.draw(numbers, t, logits)
                if t + 1 == state.width:
                    break
                if state.is_settled(t):
                    is_idle = state.has_ended_B[numbers]
                    num_idle = int(is_idle.sum())
                    if num_idle == len(numbers):
                        break
                    if num_idle >= COMPACT_AT * len(numbers):
                        keep = (~is_idle).nonzero().squeeze(-1)
                        rows.keep(keep)
                        numbers, token = numbers[keep], token[keep]
                logits = rows.next_logits(self.model, token)
                if self._recorder is not None:
                    self._recorder.keep_tokens(indices.to(numbers.device)[numbers], t)

    @cached_property
    def _shares_attention(self) -> bool:
        """Return whether the model can share a prompt's states among its samples, tested on two short prompts."""
        prefill = self._prefill([[1, 2, 3], [0, 1]])
        owner = torch.tensor([0, 0, 1], device=self.model.device)

        def decode(is_shared: bool) -> Tensor:
            rows = _DecodingRows(prefill, owner, 2, is_shared=is_shared)
            return torch.stack([rows.next_logits(self.model, token).float() for token in (owner, owner + 1)])

        return shares_attention(self.model, decode)


@dataclass(frozen=True, slots=True)
class _Prefill:
    """The cache and the next logits of a batch of prompts."""

    cache: Any
    mask: Tensor | None
    """Attention mask (prompts, longest); None if no prompt is padded."""
    lengths: Tensor
    """Number of tokens of each prompt (prompts,)."""
    logits: Tensor
    """Logits of each prompt's first new token (prompts, vocabulary)."""


class _DecodingRows:
    """The caches, masks and positions of rows that are decoded, each behind its prompt."""

    def __init__(self, prefill: _Prefill, owner: Tensor, num_tokens: int, *, is_shared: bool) -> None:
        self.owner, num_prompts = owner, len(prefill.logits)
        self.cache = decoding_cache(prefill.cache, owner, num_tokens, num_prompts=num_prompts, is_shared=is_shared)
        self.mask = None if prefill.mask is None else prefill.mask[owner]
        self.position = prefill.lengths[owner]

    def keep(self, keep: Tensor) -> None:
        """Remove all rows but these."""
        self.cache.keep(keep)
        self.position = self.position[keep]
        self.mask = None if self.mask is None else self.mask[keep]

    def next_logits(self, model: Any, token: Tensor) -> Tensor:
        """Append a token to each row and return the logits (rows, vocabulary) of the next one."""
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(token), 1)], dim=-1)
        out = model(
            input_ids=token.unsqueeze(-1),
            attention_mask=self.mask,
            position_ids=self.position.unsqueeze(-1),
            use_cache=True,
            logits_to_keep=1,
            **with_cache(model, self.cache),
        )
        self.position = self.position + 1
        logits: Tensor = out.logits[:, -1]
        return logits


def left_pad(encoded: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask (rows, longest), padded at the left so that all prompts end in the same column."""
    longest = max(len(ids) for ids in encoded)
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in encoded], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in encoded], device=device)
    return ids, mask


def positions_of(mask: Tensor) -> Tensor:
    """Return position ids that count real tokens only."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def pad_id(tokenizer: Any, model: Any) -> int:
    """Return the padding token, or the end token of tokenizers without one; padding is masked, so any token will do.

    A padding token outside the model's vocabulary, such as one that was added to the tokenizer alone, becomes 0.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
    return int(pad) if 0 <= pad < model.get_input_embeddings().weight.shape[0] else 0
