"""The policy on completions: hidden states first, logits only in chunks.

The prompt is computed once and its cache shared by all samples that continue it, under autograd. Where that cannot be
(gradient checkpointing switches the cache off; a model has no ordinary cache), prompt and completion are run together.

Shapes: ``_P`` distinct prompts of a micro-batch, ``_R`` its rows (samples), ``_T`` tokens, ``H`` hidden, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bestofn.errors import BestofnError
from bestofn.sampling.transformers import left_pad, positions_of, select_cache


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """Some samples, and the prompts that they continue."""

    prompts: Sequence[Sequence[int]]
    """P distinct prompts as token ids."""
    owner_R: Tensor
    """Which prompt each row continues."""
    tokens_RT: Tensor
    """Completions, padded at the right."""
    lengths_R: Tensor
    """Their lengths."""

    def to(self, device: Any) -> MicroBatch:
        """On that device."""
        return MicroBatch(
            prompts=self.prompts, owner_R=self.owner_R.to(device),
            tokens_RT=self.tokens_RT.to(device), lengths_R=self.lengths_R.to(device),
        )  # fmt: skip

    @property
    def is_token_RT(self) -> Tensor:
        """True on tokens, False on padding."""
        return torch.arange(self.tokens_RT.shape[1], device=self.tokens_RT.device) < self.lengths_R.unsqueeze(-1)


class CausalLM:
    """A Hugging Face causal LM taken apart into body (hidden states) and head (logits)."""

    def __init__(self, model: Any, *, pad: int, share_prompt: bool = True) -> None:
        """
        Args:
            model: a causal LM, or a peft model around one.
            pad: padding token.
            share_prompt: compute each prompt once; False runs prompt + completion together.

        Raises:
            BestofnError: the model's logits are not head(body): it cannot be trained in chunks.
        """
        self.model = model
        self.core = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.body = self.core.get_decoder()
        self.head = self.core.get_output_embeddings()
        self.soft_cap: float | None = getattr(self.core.config, "final_logit_softcapping", None)
        self.pad = pad
        self.share_prompt = share_prompt
        self._check_head()

    @torch.no_grad()
    def _check_head(self) -> None:
        """Some families scale their logits in ways of their own: find out before training, not from a bad run."""
        ids = torch.arange(min(4, self.core.config.vocab_size), device=self.core.device).unsqueeze(0)
        ours = self.logits(self.body(input_ids=ids, use_cache=False).last_hidden_state)
        theirs = self.core(input_ids=ids, use_cache=False).logits.float()
        if not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2 * float(theirs.abs().max())):
            raise BestofnError(
                f"{type(self.core).__name__} changes its logits after the output layer in a way that is not supported; "
                "Llama, Qwen, Gemma, Mistral and their like are."
            )

    def logits(self, hidden: Tensor, head_parameters: dict[str, Tensor] | None = None) -> Tensor:
        """float32 logits (…, V) of hidden states (…, H), optionally with other head weights."""
        if head_parameters is None:
            logits = self.head(hidden)
        else:
            logits = torch.func.functional_call(self.head, head_parameters, (hidden,))
        logits = logits.float()
        return logits if self.soft_cap is None else torch.tanh(logits / self.soft_cap) * self.soft_cap

    def hidden(self, batch: MicroBatch) -> Tensor:
        """Hidden states (R, T, H) that predict each completion token (the first one's comes from the prompt's end)."""
        return self._hidden_shared(batch) if self.share_prompt else self._hidden_plain(batch)

    def _hidden_shared(self, batch: MicroBatch) -> Tensor:
        ids, mask_P = left_pad(batch.prompts, self.pad, batch.tokens_RT.device)
        prompt = self.body(input_ids=ids, attention_mask=mask_P, position_ids=positions_of(mask_P), use_cache=True)
        first = prompt.last_hidden_state[:, -1:][batch.owner_R]
        if batch.tokens_RT.shape[1] == 1:
            return first
        mask_R = mask_P[batch.owner_R]
        mask = torch.cat([mask_R, batch.is_token_RT[:, :-1].to(mask_R.dtype)], dim=-1)
        rest = self.body(
            input_ids=batch.tokens_RT[:, :-1], attention_mask=mask, position_ids=positions_of(mask)[:, mask_R.shape[1] :],
            past_key_values=select_cache(prompt.past_key_values, batch.owner_R), use_cache=True,
        )  # fmt: skip
        return torch.cat([first, rest.last_hidden_state], dim=1)

    def _hidden_plain(self, batch: MicroBatch) -> Tensor:
        ids, mask = left_pad(batch.prompts, self.pad, batch.tokens_RT.device)
        num_prompt = ids.shape[1]
        ids = torch.cat([ids[batch.owner_R], batch.tokens_RT[:, :-1]], dim=-1)
        mask = torch.cat([mask[batch.owner_R], batch.is_token_RT[:, :-1].to(mask.dtype)], dim=-1)
        out = self.body(input_ids=ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=False)
        return out.last_hidden_state[:, num_prompt - 1 :]

    @torch.no_grad()
    def prompt_features(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """float32 (P, H): the hidden state at each prompt's end, where a value head reads."""
        ids, mask = left_pad(prompts, self.pad, self.core.device)
        out = self.body(input_ids=ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=False)
        return out.last_hidden_state[:, -1].float()


def disable_dropout(model: torch.nn.Module) -> None:
    """Dropout off for good: a policy gradient needs the policy that was sampled, also in train mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
