"""The loss −ΣA·log π + β·KL, taken through the output layer chunk by chunk.

Logits of samples × length × vocabulary are never held at once: a chunk of tokens goes through the head forwards and
backwards, leaves its gradient with respect to the hidden states, and is dropped; the body's backward pass then starts
from the collected gradient. The result equals the plain computation up to rounding.

Shapes: ``_N`` tokens of all rows, flattened; ``H`` hidden, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bontune.training.forward import CausalLM
from bontune.training.importance import RatioSums

CHUNK_ELEMENTS = 15 * 2**19
"""Logits held at once: large enough to keep the matrix products busy. 30 MiB of float32 stay below the 32 MiB from
which glibc hands every block back to the system, to be faulted in anew for each chunk."""
SMALL_CHUNK_ELEMENTS = 6 * 2**19
"""The same above frozen layers, where the chunk's dozen tensors of this size are most of what a step holds."""
GPU_CHUNK_ELEMENTS = 2**27
"""The same on a GPU: 512 tokens of a vocabulary of 262,144, half a GiB of float32 each for logits and gradient. Every
chunk reads the whole output layer, so that the 15 tokens of the CPU's size would wait for memory."""


@dataclass(kw_only=True, slots=True)
class LossSums:
    """Sums over tokens, added up over chunks, micro-batches and processes."""

    policy: float = 0.0
    """The policy's part, −Σ weight·log π."""
    kl: float = 0.0
    """The KL's part before its coefficient, Σ kl_weight·KL_t."""
    entropy: float = 0.0
    """Sum of the entropies of the next-token distributions, in nats."""
    tokens: float = 0.0
    """Number of tokens that ``entropy`` sums over."""
    ratios: RatioSums = field(default_factory=RatioSums)
    """Of the policy to the engine that drew; zeros where nobody asks."""

    def add(self, other: LossSums) -> None:
        """Add other sums to these."""
        self.policy += other.policy
        self.kl += other.kl
        self.entropy += other.entropy
        self.tokens += other.tokens
        self.ratios.add(other.ratios)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What the anchor makes of the same tokens."""

    hidden_NH: Tensor
    """The anchor's hidden states for the tokens with a KL weight, without gradient."""
    head_parameters: dict[str, Tensor]
    """The anchor's output layer."""

    @torch.no_grad()
    def logprobs(self, lm: CausalLM, places: Tensor, temperature: float) -> Tensor:
        """The anchor's log-probabilities over the vocabulary for some of the tokens."""
        return _log_softmax(lm.logits(self.hidden_NH[places], self.head_parameters), temperature)


def backward_through_head(
    lm: CausalLM,
    hidden_NH: Tensor,
    targets_N: Tensor,
    weight_N: Tensor,
    *,
    temperature: float,
    kl_weight_N: Tensor | None = None,
    kl_coef: float = 0.0,
    reference: Reference | None = None,
    chunk_elements: int | None = None,
) -> tuple[Tensor, LossSums]:
    """Gradient of the loss with respect to the hidden states; the head's own parameters get theirs on the way.

        L = −Σ_t weight_t · log π_T(y_t)  +  β Σ_t kl_weight_t · Σ_v π_T(v) log(π_T(v) / ref_T(v))

    The KL is exact in each token's distribution given the drawn prefix (no sampling noise from y_t itself); the
    dependence of later tokens' KL on earlier choices is not credited to them.

    Args:
        lm: the model.
        hidden_NH: hidden states that predict the targets; no graph is needed.
        targets_N: the drawn tokens.
        weight_N: A_i over the number of samples, repeated over the sample's tokens.
        temperature: T at which was sampled.
        kl_weight_N: zero where no KL is estimated; the reference holds the non-zero ones in order.
        kl_coef: β.
        reference: the anchor, needed if β > 0.
        chunk_elements: logits held at once; None: as suits the device.

    Returns:
        Gradient (N, H), and the sums.
    """
    grad_NH = torch.empty_like(hidden_NH)
    sums = LossSums()
    has_kl = kl_coef > 0 and kl_weight_N is not None and reference is not None
    ref_place_N = kl_weight_N.ne(0).cumsum(0) - 1 if has_kl and kl_weight_N is not None else None
    for part in chunks(hidden_NH, lm.head.weight.shape[0], chunk_elements):
        hidden = hidden_NH[part].detach().requires_grad_()
        logprobs = _log_softmax(lm.logits(hidden), temperature)
        drawn = logprobs.gather(-1, targets_N[part].unsqueeze(-1)).squeeze(-1)
        policy = -(weight_N[part] * drawn).sum()
        loss = policy
        with torch.no_grad():
            sums.entropy -= float((logprobs.exp() * logprobs).sum())
        sums.tokens += len(hidden)
        if has_kl:
            assert kl_weight_N is not None and ref_place_N is not None and reference is not None  # noqa: PT018
            rows = kl_weight_N[part].nonzero().squeeze(-1)
            if len(rows):
                ref = reference.logprobs(lm, ref_place_N[part][rows], temperature)
                kl = _weighted_kl(logprobs.index_select(0, rows), ref, kl_weight_N[part][rows])
                loss = loss + kl_coef * kl
                sums.kl += float(kl.detach())
        loss.backward()
        assert hidden.grad is not None
        grad_NH[part] = hidden.grad
        sums.policy += float(policy.detach())
    return grad_NH, sums


@torch.no_grad()
def drawn_logprobs(lm: CausalLM, hidden_NH: Tensor, targets_N: Tensor, temperature: float) -> Tensor:
    """log π_T of each drawn token (N,), from the hidden states that predict it."""
    return torch.cat(
        [
            _log_softmax(lm.logits(hidden_NH[part]), temperature).gather(-1, targets_N[part, None])
            for part in chunks(hidden_NH, lm.head.weight.shape[0])
        ]
    ).squeeze(-1)


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """log π_T over the vocabulary; at T = 1 logits are not divided, which would copy them once more."""
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


def _weighted_kl(own: Tensor, ref: Tensor, weight: Tensor) -> Tensor:
    """Σ_t weight_t Σ_v π(v) log(π(v)/ref(v)) from log-probabilities (tokens, vocabulary)."""
    return ((own.exp() * (own - ref)).sum(-1) * weight).sum()


@torch.no_grad()
def kl_to_reference(lm: CausalLM, hidden_NH: Tensor, reference: Reference, temperature: float) -> float:
    """Sum over tokens of KL(π_T ‖ reference) between the next-token distributions, from hidden states of the tokens."""
    total = 0.0
    for part in chunks(hidden_NH, lm.head.weight.shape[0]):
        places = torch.arange(len(hidden_NH), device=hidden_NH.device)[part]
        own = _log_softmax(lm.logits(hidden_NH[part]), temperature)
        ones = torch.ones(len(places), device=own.device)
        total += float(_weighted_kl(own, reference.logprobs(lm, places, temperature), ones))
    return total


def chunks(hidden_NH: Tensor, vocabulary: int, chunk_elements: int | None = None) -> Iterator[slice]:
    """Slices of tokens whose logits may be held at once."""
    if chunk_elements is None:
        chunk_elements = GPU_CHUNK_ELEMENTS if hidden_NH.is_cuda else CHUNK_ELEMENTS
    size = max(1, chunk_elements // vocabulary)
    for start in range(0, len(hidden_NH), size):
        yield slice(start, start + size)
