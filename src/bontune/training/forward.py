"""The policy on completions: hidden states first, logits only in chunks.

The prompt is computed once and its cache shared by all samples that continue it, under autograd: the samples' backward
passes leave their gradients at the cache, and one backward pass through the prompts takes them further. Where that
cannot be (gradient checkpointing switches the cache off, recurrent layers keep states of other kinds), prompt and
completion are run together.

Rows are taken by ``index_select``, never by ``x[indices]``: on a CPU with several threads the gradient of the latter is
added up in any order, so that no two runs would be equal.

Shapes: ``_P`` distinct prompts, ``_R`` rows (samples), ``_T`` tokens, ``H`` hidden, ``V`` vocabulary.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bontune.base.errors import BontuneError
from bontune.engines.cache import cache_of, select_cache, shares_prompts, with_cache
from bontune.engines.contract import Samples
from bontune.engines.lower_layers import LowerLayers
from bontune.engines.transformers import left_pad, positions_of
from bontune.models.adapters import is_adapted


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Samples, and the prompts that they continue."""

    owner_R: Tensor
    """Index of the prompt that each row continues."""
    tokens_RT: Tensor
    """Completions, padded at the right."""
    lengths_R: Tensor
    """Number of tokens of each completion."""
    states_RTH: Tensor | None = None
    """Hidden states that enter the first trained layer; None where all layers are computed."""

    @classmethod
    def of(cls, samples: Samples) -> Rows:
        """All completions of these samples."""
        owner_R = torch.arange(len(samples.lengths_B)) // samples.num_samples
        states_RTH = None if samples.states is None else samples.states.rows_BTH
        return cls(owner_R=owner_R, tokens_RT=samples.tokens_BT, lengths_R=samples.lengths_B, states_RTH=states_RTH)

    def select(self, rows: Tensor) -> Rows:
        """These rows alone, no wider than the longest of them."""
        lengths_R = self.lengths_R[rows]
        width = int(lengths_R.max())
        states_RTH = None if self.states_RTH is None else self.states_RTH[rows, :width]
        return Rows(
            owner_R=self.owner_R[rows],
            tokens_RT=self.tokens_RT[rows, :width],
            lengths_R=lengths_R,
            states_RTH=states_RTH,
        )

    def to(self, device: Any) -> Rows:
        """The same rows on another device."""
        return Rows(
            owner_R=self.owner_R.to(device),
            tokens_RT=self.tokens_RT.to(device),
            lengths_R=self.lengths_R.to(device),
            states_RTH=None if self.states_RTH is None else self.states_RTH.to(device),
        )

    @property
    def is_token_RT(self) -> Tensor:
        """True on tokens, False on padding."""
        return torch.arange(self.tokens_RT.shape[1], device=self.tokens_RT.device) < self.lengths_R.unsqueeze(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """Encoded prompts, and what the model's body has computed for them."""

    ids: Tensor
    """Token ids (P, longest), padded at the left."""
    mask: Tensor
    """Attention mask (P, longest), 1 on tokens and 0 on padding."""
    cache: Any = None
    """Keys and values of the prompts; None where prompt and completion are run together."""
    last_hidden_PH: Tensor | None = None
    """The hidden state at each prompt's end, which predicts the first token of the completion."""
    states: Tensor | None = None
    """Hidden states (P, longest, H) that enter the first trained layer; None where all layers are computed."""

    def as_leaf(self) -> Prefix:
        """The same values without their graph; rows that continue this prefix leave their gradients here."""
        if self.cache is None or self.last_hidden_PH is None:
            return self
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        for layer in cache.layers:
            layer.keys, layer.values = _leaf(layer.keys), _leaf(layer.values)
        return Prefix(ids=self.ids, mask=self.mask, cache=cache, last_hidden_PH=_leaf(self.last_hidden_PH))

    def backward_from(self, leaf: Prefix) -> None:
        """Run the prompts' backward pass, from the gradients that rows have left at the leaf."""
        pairs = list(zip(self._tensors(), leaf._tensors(), strict=True))
        # Frozen layers leave keys and values without a graph.
        used = [(whole, part.grad) for whole, part in pairs if part.grad is not None]
        if used:
            torch.autograd.backward([whole for whole, _ in used], [grad for _, grad in used])

    def _tensors(self) -> list[Tensor]:
        if self.cache is None or self.last_hidden_PH is None:
            return []
        return [t for layer in self.cache.layers for t in (layer.keys, layer.values)] + [self.last_hidden_PH]


def _leaf(tensor: Tensor) -> Tensor:
    """Return a tensor without its graph; only one that had a graph collects a gradient."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


class CausalLM:
    """A Hugging Face causal LM taken apart into body (hidden states) and head (logits)."""

    def __init__(self, model: Any, *, pad: int, share_prompt: bool = True, first_trained: int | None = None) -> None:
        """
        Args:
            model: a causal LM, or a peft model around one.
            pad: padding token.
            share_prompt: compute each prompt once; False runs prompt + completion together, which a model whose layers
                keep more than keys and values does in any case.
            first_trained: lowest decoder layer of which something is trained, nothing being trained outside the
                layers; what the layers below it compute is used again. None: all layers are computed.

        Raises:
            BontuneError: the model's logits are not finite, or not head(body): it cannot be trained in chunks.
        """
        self.model = model
        self.core = model.get_base_model() if is_adapted(model) else model
        decoder = self.core.get_decoder()
        self.body = self.core.model if decoder is self.core and hasattr(self.core, "model") else decoder
        self.head = self.core.get_output_embeddings()
        config = self.core.config.get_text_config()
        caps = [getattr(config, name, None) for name in ("final_logit_softcapping", "logits_soft_cap")]
        self.soft_cap: float | None = caps[0] or caps[1]
        self.scale = 1.0
        for name, power in (("logit_scale", 1), ("lm_head_multiplier", 1), ("logits_scaling", -1)):  # Cohere, Granite …
            self.scale *= (getattr(config, name, None) or 1.0) ** power
        self.pad = pad
        self._check_head()
        self.share_prompt = share_prompt and shares_prompts(self.core)
        self.lower: LowerLayers | None = None
        if first_trained:
            self._part_at(first_trained)

    @torch.no_grad()
    def _check_head(self) -> None:
        """Refuse a model whose logits are not head(body): some families change theirs in ways of their own."""
        ids = torch.arange(min(4, self.head.weight.shape[0]), device=self.core.device).unsqueeze(0)
        theirs = self.core(input_ids=ids, use_cache=False).logits.float()
        if not bool(theirs.isfinite().all()):
            raise BontuneError("The model's logits are not finite: its weights are broken, or beyond their dtype.")
        tolerance = 1e-4 if self.core.dtype == torch.float32 and not torch.is_autocast_enabled() else 1e-2
        hidden = getattr(self.body(input_ids=ids, use_cache=False), "last_hidden_state", None)
        if hidden is None or not torch.allclose(
            self.logits(hidden), theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max())
        ):
            raise BontuneError(
                f"{type(self.core).__name__} computes its logits in a way of its own, which is not supported in "
                "training; docs/models.md lists the families that are."
            )

    def logits(self, hidden: Tensor, head_parameters: dict[str, Tensor] | None = None) -> Tensor:
        """Logits (…, V) in float32 for hidden states (…, H), optionally with other weights of the head."""
        if head_parameters is None:
            logits = self.head(hidden)
        else:
            logits = torch.func.functional_call(self.head, head_parameters, (hidden,))
        logits = logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.soft_cap is None else torch.tanh(logits / self.soft_cap) * self.soft_cap

    def encode(self, prompts: Sequence[Sequence[int]], lower: Prefix | None = None) -> Prefix:
        """Compute the prompts, with a graph where gradients are on.

        Args:
            prompts: token ids.
            lower: what the frozen lower layers compute for them, see :meth:`lower_prefix`; None: all is computed.
        """
        ids, mask = left_pad(prompts, self.pad, self.core.device)
        states = None if lower is None else lower.states
        if not self.share_prompt:
            return Prefix(ids=ids, mask=mask, states=states)
        with self._above(states):
            out = self.body(input_ids=ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=True)
        return Prefix(ids=ids, mask=mask, cache=cache_of(out), last_hidden_PH=out.last_hidden_state[:, -1])

    def _above(self, states: Tensor | None) -> AbstractContextManager[None]:
        """Compute the trained layers alone, from these states, while the context lasts; None: all layers."""
        return nullcontext() if self.lower is None or states is None else self.lower.replaced_by(states)

    def lower_prefix(self, samples: Samples, numbers: Sequence[int]) -> Prefix | None:
        """Return what the frozen lower layers compute for some of the samples' prompts, recorded or computed.

        Returns:
            What policy and anchor share; None where all layers are computed.
        """
        recorded = None if samples.states is None else [samples.states.prompts[p] for p in numbers]
        return self._lower_prefix([samples.prompts[p] for p in numbers], recorded)

    @torch.no_grad()
    def _lower_prefix(self, prompts: Sequence[Sequence[int]], recorded: Sequence[Tensor] | None) -> Prefix | None:
        if self.lower is None:
            return None
        ids, mask = left_pad(prompts, self.pad, self.core.device)
        if recorded is not None:
            places = mask.bool()
            states = recorded[0].new_zeros(*ids.shape, recorded[0].shape[-1])
            states[places] = torch.cat(list(recorded))
            return Prefix(ids=ids, mask=mask, states=states)
        with self.lower.alone() as seen:
            if self.share_prompt:
                prefix = self.encode(prompts)
                return dataclasses.replace(prefix, states=seen[0])
            lengths_P = mask.sum(-1)
            place = torch.arange(ids.shape[1], device=ids.device) + (ids.shape[1] - lengths_P).unsqueeze(-1)
            self.body(input_ids=ids.gather(-1, place.clamp(max=ids.shape[1] - 1)), use_cache=False)
        states = torch.zeros_like(seen[0])
        is_token = torch.arange(ids.shape[1], device=ids.device) < lengths_P.unsqueeze(-1)
        states[mask.bool()] = seen[0][is_token]
        return Prefix(ids=ids, mask=mask, states=states)

    @torch.no_grad()
    def with_lower(self, lower: Prefix | None, rows: Rows) -> Rows:
        """Return rows with what the frozen lower layers compute for them, which is computed unless it was recorded."""
        if self.lower is None or lower is None or rows.states_RTH is not None or rows.tokens_RT.shape[1] == 1:
            return rows
        rows = rows.to(self.core.device)
        with self.lower.alone() as seen:
            if self.share_prompt:
                self.hidden(lower, rows)
                states = seen[0]
            else:
                whole = dataclasses.replace(lower, states=None)
                self._hidden_of_whole(whole, rows)
                first_R = lower.mask.sum(-1)[rows.owner_R].unsqueeze(-1)
                place = first_R + torch.arange(rows.tokens_RT.shape[1] - 1, device=first_R.device)
                states = seen[0].gather(1, place.unsqueeze(-1).expand(-1, -1, seen[0].shape[-1]))
        return dataclasses.replace(rows, states_RTH=states)

    @torch.no_grad()
    def _part_at(self, first: int) -> None:
        """Let the layers below this one be computed once, if they can be parted from the others.

        Layers may share more than the hidden states (Gemma 3n's keys and values, recurrent states), or be called in
        ways of their own. Two short prompts are computed in one piece and in two.
        """
        prompts = [[1, 2, 3], [0, 1]]
        tokens_RT = torch.tensor([[1, 2, 3], [0, 0, 0], [2, 1, 0]])
        rows = Rows(owner_R=torch.tensor([0, 0, 1]), tokens_RT=tokens_RT, lengths_R=torch.tensor([3, 3, 3]))
        rows = rows.to(self.core.device)
        whole = self.hidden(self.encode(prompts), rows).float()
        is_same = False
        try:
            self.lower = LowerLayers(self.core, first)
            prefix = self._lower_prefix(prompts, None)
            parted = self.hidden(self.encode(prompts, prefix), self.with_lower(prefix, rows)).float()
            tolerance = 1e-4 if self.core.dtype == torch.float32 else 1e-2
            is_same = torch.allclose(parted, whole, rtol=tolerance, atol=tolerance * float(whole.abs().max()))
        except (
            ValueError,
            RuntimeError,
            AttributeError,
            TypeError,
            IndexError,
            KeyError,
        ):  # families fail in many ways
            pass
        if not is_same:
            self.lower = None

    def hidden_of_tokens(self, prefix: Prefix, rows: Rows) -> Tensor:
        """Hidden states (N, H) that predict each completion token, without those of the padding."""
        places = rows.is_token_RT.flatten().nonzero().squeeze(-1)
        return self.hidden(prefix, rows).flatten(0, 1).index_select(0, places)

    def hidden(self, prefix: Prefix, rows: Rows) -> Tensor:
        """Hidden states (R, T, H) that predict each completion token."""
        if prefix.cache is None or prefix.last_hidden_PH is None:
            return self._hidden_of_whole(prefix, rows)
        mask_R = prefix.mask[rows.owner_R]
        mask = torch.cat([mask_R, rows.is_token_RT[:, :-1].to(mask_R.dtype)], dim=-1)
        num_prompt = mask_R.shape[1]
        first = prefix.last_hidden_PH.index_select(0, rows.owner_R).unsqueeze(1)
        if rows.tokens_RT.shape[1] == 1:
            return first
        with self._above(None if rows.states_RTH is None else rows.states_RTH[:, : rows.tokens_RT.shape[1] - 1]):
            out = self.body(
                input_ids=rows.tokens_RT[:, :-1],
                attention_mask=mask,
                position_ids=positions_of(mask)[:, num_prompt:],
                use_cache=True,
                **with_cache(self.body, select_cache(prefix.cache, rows.owner_R)),
            )
        return torch.cat([first, out.last_hidden_state], dim=1)

    def _hidden_of_whole(self, prefix: Prefix, rows: Rows) -> Tensor:
        """The same with prompt and completion run together.

        Padding comes after all tokens, so that nothing needs to be masked; recurrent layers could not mask it.
        """
        num_prompt_R = prefix.mask.sum(-1)[rows.owner_R].unsqueeze(-1)
        ids = torch.cat([prefix.ids[rows.owner_R], rows.tokens_RT[:, :-1]], dim=-1)
        place = torch.arange(ids.shape[1], device=ids.device) + (prefix.ids.shape[1] - num_prompt_R)
        ids = ids.gather(-1, place.clamp(max=ids.shape[1] - 1))
        states = None
        if prefix.states is not None and rows.states_RTH is not None:
            states = torch.cat([prefix.states[rows.owner_R], rows.states_RTH[:, : rows.tokens_RT.shape[1] - 1]], dim=1)
            at = place.clamp(max=ids.shape[1] - 1).unsqueeze(-1)
            states = states.gather(1, at.expand(-1, -1, states.shape[-1]))
        with self._above(states):
            hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
        wanted_RT = num_prompt_R - 1 + torch.arange(rows.tokens_RT.shape[1], device=ids.device)
        whole: Tensor = hidden.gather(1, wanted_RT.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return whole

    @torch.no_grad()
    def prompt_features(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states (P, H) in float32 at the prompts' ends, where a value head reads."""
        prefix = self.encode(prompts)
        if prefix.last_hidden_PH is not None:
            return prefix.last_hidden_PH.float()
        end = torch.zeros(len(prompts), 1, dtype=torch.int64, device=prefix.ids.device)
        rows = Rows(owner_R=torch.arange(len(prompts), device=end.device), tokens_RT=end, lengths_R=end[:, 0] + 1)
        return self._hidden_of_whole(prefix, rows)[:, 0].float()


def disable_dropout(model: torch.nn.Module) -> None:
    """Switch dropout off for good: a policy gradient needs the policy that was sampled, also in train mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):  # a rate that the layer's own code applies
                setattr(module, name, 0.0)
