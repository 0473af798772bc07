"""Supervised objectives: weights on log π(y|x) of an expert's answer, or of own samples that are kept.

Weights are in *sum form*: a prompt's loss is −Σ_i w_i log π(y_i|x), log π summed over tokens, and a batch's loss is the
mean over its prompts. (Advantages elsewhere in this package are in mean form, A_i = M w_i.) The weights of own samples
are constants, not differentiated; each function names the objective that the expected update climbs.
Notation: samples y_1..y_M ~ π(.|x), verifier scores r, budget N, s = P_π(R = 1), q = 1 − s, expert's answer y*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import as_advantages, as_binary_rewards, as_samples, as_scores
from bontune.objectives.subsets import subset_ratios, tie_groups

TINY_LOGPROB = -600.0
"""Below this, 1 − (1−p)^N equals N p to more digits than float64 has, and p itself soon underflows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceLoss:
    """A loss of log-probabilities, and the weights with which their weighted sum has the same gradient."""

    loss: Tensor
    """Loss of each prompt (or pair), to be minimised."""
    weights: Tensor
    """−∂loss/∂log π of each sequence, in the shape of the log-probabilities."""


def sft(logprobs: Any) -> SequenceLoss:
    """Supervised fine-tuning on expert answers.   loss = −log π(y*),  w = 1

    Maximises E_{y*} log π(y*); its maximiser is the expert's own law, whatever π will be sampled by.

    Args:
        logprobs: (...), log π(y*|x) of whole answers, at most 0.

    Returns:
        Loss and weights (...).

    Raises:
        ValueError: NaN or a positive log-probability.

    >>> sft([-2.0, -0.5]).weights.tolist()
    [1.0, 1.0]
    """
    logps = _as_logprobs(logprobs)
    return SequenceLoss(loss=as_advantages(-logps, logprobs), weights=as_advantages(torch.ones_like(logps), logprobs))


def dco(logprobs: Any, n: int) -> SequenceLoss:
    """Direct coverage optimisation: SFT for pass@N.   loss = −log(1 − (1−p)^N),  p = π(y*|x)

        w = N (1−p)^{N−1} p / (1 − (1−p)^N)

    The weight falls from 1 at p = 0 to 0 at p = 1 (half at p ≈ 1.26/N): answers that N draws reproduce anyway are
    left alone. N = 1 is SFT. The event is *exactly this answer*: for long answers p is tiny, every weight is 1 within
    N p, and the loss differs from SFT by the constant log N; it acts on short answers or memorised ones.
    Deterministic in y*, no estimate, no bias. Log-probabilities down to −1e300 and p = 1 give finite values.

    Args:
        logprobs: (...), log π(y*|x) of whole answers, at most 0.
        n: N ≥ 1.

    Returns:
        Loss and weights (...), weights in [0, 1].

    Raises:
        ValueError: NaN or a positive log-probability, n below 1.

    References:
        Chen et al., "Rethinking Fine-Tuning when Scaling Test-Time Compute", arXiv 2502.07154.

    >>> dco([-1e4, 0.0], n=8).weights.tolist()
    [1.0, 0.0]
    """
    n = check_budget(n, None)
    logps = _as_logprobs(logprobs)
    if n == 1:
        return sft(logprobs)
    p = logps.exp()
    log_miss = torch.where(p < 0.5, torch.log1p(-p), torch.log(-torch.expm1(logps)))  # log(1 − p)
    log_all_miss = n * log_miss
    is_tiny = logps < TINY_LOGPROB
    covered = torch.where(is_tiny, 1.0, -torch.expm1(log_all_miss))
    likely = -torch.log1p(-log_all_miss.exp())
    loss = torch.where(log_all_miss < -math.log(2.0), likely, -covered.log())
    loss = torch.where(is_tiny, -(logps + math.log(n)), loss)
    weights = torch.where(is_tiny, 1.0, n * torch.exp((n - 1) * log_miss + logps) / covered)
    return SequenceLoss(loss=as_advantages(loss, logprobs), weights=as_advantages(weights, logprobs))


def star(rewards: Any) -> Tensor:
    """STaR's filter: the first correct sample of each prompt.   w_i = 1{i is the first with R_i = 1}

    Expected gradient: (1−q^M)/s ∇s, unbiased for log s truncated at order M, Σ_{k≤M} −q^k/k (as
    :func:`bontune.objectives.maxrl` without a baseline). Prompts without a correct sample get weight 0.

    Args:
        rewards: (..., M), 0 or 1, in the order drawn.

    Returns:
        (..., M) weights, sum form.

    Raises:
        ValueError: rewards other than 0/1.

    References:
        Zelikman et al., "STaR: Bootstrapping Reasoning With Reasoning", arXiv 2203.14465 (without rationalisation).

    >>> star([0, 1, 1]).tolist()
    [0.0, 1.0, 0.0]
    """
    correct = as_binary_rewards(rewards, "star")
    return as_advantages(correct * (correct.cumsum(-1) == 1), rewards)


def rft(rewards: Any, identities: Any = None, is_normalised: bool = True) -> Tensor:
    """Rejection-sampling fine-tuning (RFT, ReST-EM): all correct samples, or the distinct ones.

        w_i = R_i,  divided by the number of kept samples of the prompt if ``is_normalised``

    Expected gradient, samples i.i.d. from π:

        all, normalised           (1−q^M)/s ∇s: log s truncated at order M, as :func:`star` with less noise
        all, not normalised       M ∇s: easy prompts weigh most
        distinct, not normalised  ∇ Σ_{y correct} Σ_{k≤M} −(1−π(y))^k/k: the truncated log of *every* correct answer,
                                  which rewards knowing many of them
        distinct, normalised      no objective in closed form; one prompt counts once

    Args:
        rewards: (..., M), 0 or 1.
        identities: (..., M) integers, equal for samples of a prompt with the same answer; of these only the first
            correct one is kept. None: all are kept.
        is_normalised: whether the weights of a prompt with a correct sample sum to 1.

    Returns:
        (..., M) weights, sum form; 0 for prompts without a correct sample.

    Raises:
        ValueError: rewards other than 0/1, identities of another shape.

    References:
        Yuan et al., arXiv 2308.01825 (RFT, distinct); Singh et al., "Beyond Human Data", arXiv 2312.06585 (ReST-EM).

    >>> rft([1, 0, 1, 1], identities=[7, 8, 7, 9]).tolist()
    [0.5, 0.0, 0.0, 0.5]
    """
    correct = as_binary_rewards(rewards, "rft")
    m = correct.shape[-1]
    kept = correct
    if identities is not None:
        same = as_samples(identities, "identities").to(correct.device)
        if same.shape != correct.shape:
            raise ValueError(
                f"identities and rewards need one shape, got {tuple(same.shape)} and {tuple(correct.shape)}."
            )
        is_same = (same.unsqueeze(-1) == same.unsqueeze(-2)) & (correct.unsqueeze(-2) == 1)
        is_earlier = torch.ones(m, m, dtype=torch.bool, device=correct.device).tril(-1)
        kept = correct * ~(is_same & is_earlier).any(-1)
    if is_normalised:
        kept = kept / kept.sum(-1, keepdim=True).clamp(min=1.0)
    return as_advantages(kept, rewards)


def bon_distillation(scores: Any, n: int, rewards: Any = None) -> Tensor:
    """Best-of-N distillation over all subsets: SFT on the verifier's winner of N, averaged over the C(M, N) subsets.

        w_i = P(i wins a random N-subset) = [C(L+m, N) − C(L, N)] / (m C(M, N)),  L below i, m tied with it

    Expected gradient: E_{π_bon}[∇log π(y)] = −∇KL(π_bon‖π) with π_bon held fixed, exactly (a U-statistic), for any
    scores and ties; averaging over all subsets has the least variance of the ways to use the pool. Σ_i w_i = 1.
    For r = R ∈ {0, 1} this is (1−q^{N−1})/s ∇s, because all-wrong subsets train on a wrong winner; with ``rewards``
    those winners are dropped: (1−q^N)/s ∇s.

    Args:
        scores: (..., M); only order and ties matter.
        n: N ≤ M.
        rewards: (..., M), 0 or 1: winners of reward 0 get weight 0. None: every winner counts.

    Returns:
        (..., M) weights, sum form, float64 unless the scores are of another floating dtype.

    Raises:
        ValueError: n > M, NaN, rewards other than 0/1 or of another shape.

    References:
        Chow et al., arXiv 2412.15287 (baseline); the mean over subsets: docs/estimators.md.

    >>> bon_distillation([3.0, 1.0, 1.0], n=2).round(decimals=4).tolist()
    [0.6667, 0.1667, 0.1667]
    """
    ranks = as_samples(scores, "scores")
    m = ranks.shape[-1]
    n = check_budget(n, m)
    groups = tie_groups(torch.zeros(ranks.shape, dtype=torch.float64, device=ranks.device), ranks)
    ratios = subset_ratios(m, n).to(ranks.device)
    weights = groups.unsort((ratios[groups.upto] - ratios[groups.below]) / groups.num_tied)
    if rewards is not None:
        correct = as_binary_rewards(rewards, "bon_distillation")
        as_scores(ranks, correct)
        weights = weights * correct
    return as_advantages(weights, scores)


def winner_weights(winners: Tensor, num_samples: int) -> Tensor:
    """SFT on winners of Best-of-N draws, the mean over G draws.   w_i = #{winners that are i} / G

    It has the expectation of :func:`bon_distillation`, with more noise.

    Args:
        winners: (..., G) indices from :func:`bontune.objectives.draw_winners`.
        num_samples: M.

    Returns:
        (..., M) float64 weights, sum form; they sum to 1.

    Raises:
        ValueError: no winner, or an index outside the samples.

    >>> winner_weights(torch.tensor([0, 3]), num_samples=4).tolist()
    [0.5, 0.0, 0.0, 0.5]
    """
    if not winners.numel() or not bool(((winners >= 0) & (winners < num_samples)).all()):
        raise ValueError(f"winners must be indices below M = {num_samples}, shape (..., G), got {winners.tolist()}.")
    weights = torch.zeros(*winners.shape[:-1], num_samples, dtype=torch.float64, device=winners.device)
    share = torch.full(winners.shape, 1.0 / winners.shape[-1], dtype=torch.float64, device=winners.device)
    return weights.scatter_add(-1, winners, share)


def _as_logprobs(logprobs: Any, name: str = "logprobs") -> Tensor:
    """Convert log-probabilities to float64; rounding may leave the sum of a certain answer slightly above 0."""
    logps = as_samples(logprobs, name).to(torch.float64)
    if bool((logps > 1e-4).any()) or bool(logps.isinf().any()):
        worst = logps[(logps > 1e-4) | logps.isinf()].flatten()[0].item()
        raise ValueError(f"{name} are log-probabilities of whole answers, finite and at most 0, got {worst:g}.")
    return logps.clamp(max=0.0)
