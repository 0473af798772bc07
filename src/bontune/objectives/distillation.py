"""Distilling Best-of-N into one draw: BoNBoN, variational Best-of-N (vBoN) and BOND.

The target is π_bon of a *reference* policy (the anchor), so that one draw from π is worth N from the reference.
Advantages are in mean form, ∇J ≈ (1/M) Σ_i A_i ∇log π(y_i|x); weights are in sum form, loss = −Σ_i w_i log π(y_i|x).
Notation: F(v) = P_ref(r ≤ v), p_< = P_ref(r < v); the reference's samples may be the pool itself (a moving reference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bontune.objectives.budgets import check_budget
from bontune.objectives.imitation import SequenceLoss, bon_distillation
from bontune.objectives.inputs import as_advantages, as_rewards, as_samples
from bontune.objectives.likelihood import best_of_n_log_ratio
from bontune.objectives.policy_gradient import minus_others
from bontune.objectives.subsets import tie_groups
from bontune.objectives.winners import draw_winners

Estimate = Literal["plugin", "harmonic"]

BONBON_ALPHA = 0.005
"""α of the authors' own training command (with n = 8)."""


def bonbon_gap(n: int) -> float:
    """1/(2β) of BoNBoN: E[log-ratio(best) − log-ratio(worst)] under π_bon without ties.   (n−1) Σ_{k<n} 1/k

    Args:
        n: n ≥ 2.

    References:
        Gui et al., arXiv 2406.00832; n = 8 gives the β = 0.0275482 of the authors' command.

    >>> round(1 / (2 * bonbon_gap(8)), 7)
    0.0275482
    """
    n = check_budget(n, None, smallest=2)
    return (n - 1) * sum(1.0 / k for k in range(1, n))


def best_and_worst(scores: Any, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Return the indices of the best and worst in each of the M // n consecutive groups of n, ties broken uniformly.

    Args:
        scores: (..., M).
        n: 2 ≤ n ≤ M; a rest of M mod n samples is not used.
        generator: breaks the ties.

    Returns:
        (..., M // n, 2) int64, [best, worst]; in a group of equal scores both may be the same sample.

    Raises:
        ValueError: n out of range, NaN.

    >>> best_and_worst([0.3, 0.1, 0.2, 5.0, 4.0, 6.0], n=3).tolist()
    [[0, 1], [5, 4]]
    """
    ranks = as_samples(scores, "scores")
    n = check_budget(n, ranks.shape[-1], smallest=2)
    if not ranks.is_floating_point():
        ranks = ranks.to(torch.int64)  # bool has no minus, and uint8 wraps around
    return torch.stack([draw_winners(ranks, n, generator), draw_winners(-ranks, n, generator)], dim=-1)


def bonbon(
    logprobs: Any, ref_logprobs: Any, n: int, alpha: float = BONBON_ALPHA, has_contrast: Any = None
) -> SequenceLoss:
    """BoNBoN alignment on the best and the worst of n reference samples.

        loss = −α log π(y_best) + (1−α)(h − 1/(2β))²,   h = log π/ref (y_best) − log π/ref (y_worst)
        w_best = α − 2(1−α)(h − 1/(2β)),   w_worst = 2(1−α)(h − 1/(2β))

    Deterministic in the pair: no estimate, no bias. α = 1 is SFT on winners. The target 1/(2β) is the *mean* of h under
    π_bon; π_bon is not the minimiser of the squared term, for h varies from pair to pair. At n = 2 and α = 0 the
    minimiser is ``ref·exp(p_< − p_>)``, a tilt by the win rate; π_bon is ref·(p_< + p_≤), which is close but not equal.

    Args:
        logprobs: (..., 2), log π of [best, worst], whole answers.
        ref_logprobs: (..., 2), log-probabilities under the reference that drew them.
        n: number of samples drawn for the pair, n ≥ 2.
        alpha: weight of the SFT term, in [0, 1].
        has_contrast: (...) bool, False where best and worst have equal scores: such a pair has no information on the
            order, and only its SFT term counts. With 0/1 scores these are all-right and all-wrong groups. None: True.

    Returns:
        Loss (...), weights (..., 2).

    Raises:
        ValueError: wrong shapes, NaN or infinite log-probabilities, alpha outside [0, 1], n < 2.

    References:
        Gui et al., "BoNBoN Alignment", arXiv 2406.00832; α: the authors' command at github.com/gl-ybnbxb/BoNBoN.

    >>> bonbon([[-10.0, -12.0]], [[-10.0, -12.0]], n=2).weights.round(decimals=3).tolist()
    [[1.995, -1.99]]
    """
    policy, reference = _pairs(logprobs, "logprobs"), _pairs(ref_logprobs, "ref_logprobs")
    if policy.shape != reference.shape:
        raise ValueError(
            f"logprobs and ref_logprobs need one shape, got {tuple(policy.shape)} and {tuple(reference.shape)}."
        )
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha weighs two losses and must lie in [0, 1], got {alpha!r}.")
    log_ratio = policy - reference
    excess = log_ratio[..., 0] - log_ratio[..., 1] - bonbon_gap(n)
    if has_contrast is not None:
        mask = torch.as_tensor(has_contrast, device=excess.device)
        if mask.shape != excess.shape:
            raise ValueError(f"has_contrast needs shape {tuple(excess.shape)}, got {tuple(mask.shape)}.")
        excess = torch.where(mask.to(torch.bool), excess, 0.0)
    loss = -alpha * policy[..., 0] + (1 - alpha) * excess.square()
    pull = 2 * (1 - alpha) * excess
    weights = torch.stack([alpha - pull, pull], dim=-1)
    return SequenceLoss(loss=as_advantages(loss, logprobs), weights=as_advantages(weights, logprobs))


def vbon(
    scores: Any, n: int, reference_scores: Any = None, log_ratios: Any = None, estimate: Estimate = "plugin"
) -> Tensor:
    """Variational Best-of-N: REINFORCE on the log-quantile of a sample's score, with a leave-one-out baseline.

        J = E_π[log F(r(y))] − 1/(N−1) KL(π‖ref);   its maximiser is ref F^{N−1} / Z = π_bon without ties
        plugin    log F̂_i = log (1 + #{others ≤ r_i})/(1 + #others), between log 1/(1 + #others) and 0
        harmonic  log F̂_i = H_c − H_K,  c = #{others ≤ r_i} of K others,  H the harmonic numbers

    The others are ``reference_scores``, or the rest of the pool if there are none (then the reference is the present
    policy). Ties count as "≤". The gradient is unbiased for J with E[log F̂] in place of log F, the sampling law of
    the others held fixed; the baseline of i is independent of y_i, also in a pool that is its own reference (for M = 2
    the better one then gets 0: no sample remains to compare the other with). ``harmonic`` makes E[log F̂] the series of
    log F truncated at order K exactly, Σ_{k≤K} −(1−F)^k/k. All scores tied: all advantages 0.

    With ties the maximiser is not π_bon (see :func:`bond`): at 0/1 scores a wrong sample earns log q, a correct one 0.

    Args:
        scores: (..., M ≥ 2) of samples from π.
        n: N ≥ 2; enters only through the KL coefficient 1/(N−1).
        reference_scores: (..., K ≥ 1) of samples from the reference.
        log_ratios: (..., M) log π(y_i) − log ref(y_i) of whole answers: −log_ratio/(N−1) is added to the reward,
            so that the advantages include the KL. None: add 1/(N−1) KL(π‖ref) to the loss yourself.
        estimate: see above.

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: N = 1 (infinite KL coefficient), fewer than two samples, wrong shapes, NaN, unknown estimate.

    References:
        Amini et al., "Variational Best-of-N Alignment", arXiv 2407.06057.

    >>> vbon([0.0, 1.0], n=4, reference_scores=[0.5]).round(decimals=4).tolist()  # log 1/2 against log 1
    [-0.6931, 0.6931]
    """
    n = check_budget(n, None, smallest=2)
    ranks = as_samples(scores, "scores", min_samples=2)
    advantages = _ranked(ranks, reference_scores, n, estimate, law="no_ties") / (n - 1)
    if log_ratios is not None:
        advantages = advantages - minus_others(_log_ratios(log_ratios, ranks)) / (n - 1)
    return as_advantages(advantages, scores)


@dataclass(frozen=True, kw_only=True, slots=True)
class BondWeights:
    """The advantages and weights of BOND on one prompt's samples."""

    advantages: Tensor
    """(..., M) on samples from π, mean form: the backward KL."""
    kl_coefficient: float
    """Coefficient of KL(π‖ref) in the loss; 0 if the advantages include it already."""
    weights: Tensor
    """(..., K) on samples from the reference, sum form: the forward KL, (1−β) times the chance to win."""


def bond(
    scores: Any,
    reference_scores: Any = None,
    n: int | None = None,
    beta: float = 0.5,
    law: Literal["exact", "no_ties"] = "exact",
    log_ratios: Any = None,
    estimate: Estimate = "plugin",
) -> BondWeights:
    """BOND: both directions of the KL to the reference's Best-of-N law (J-BOND's Jeffreys mixture).

        minimise  β KL(π‖π_bon) + (1−β) KL(π_bon‖π)
        backward  KL(π‖π_bon) = KL(π‖ref) − E_π[log π_bon/ref]; reward log[(F^N − p_<^N)/(F − p_<)] (``exact``) or
                  (N−1) log F + log N (``no_ties``: log F with KL coefficient 1/(N−1), times N−1)
        forward   KL(π_bon‖π): SFT on Best-of-N draws from the reference, averaged over its N-subsets

    π_bon is the minimiser, with ties too under ``exact`` (F and p_< known); ``no_ties`` leads to ref F^{N−1}/Z. The
    forward part is unbiased; the backward part as in :func:`vbon`, its bias that of log F̂ from K reference samples. A
    sample is counted into its own tie group, which keeps F̂ > 0. N = 1 pulls π to the reference.

    Args:
        scores: (..., M ≥ 2) of samples from π.
        reference_scores: (..., K ≥ N) of samples from the reference, for both parts; None: the samples from π
            themselves (a moving reference), to which ``weights`` belong then.
        n: N ≥ 1. Required.
        beta: share of the backward part, in [0, 1]; 1: mode-seeking, 0: mode-covering. The default weighs both alike.
        law: see above.
        log_ratios: as in :func:`vbon`.
        estimate: estimator of log F, as in :func:`vbon`; ρ = p_</F is a plain ratio with either.

    Returns:
        Advantages for samples from π, KL coefficient, and weights for samples from the reference.

    Raises:
        ValueError: K < N, fewer than two samples, wrong shapes, NaN, beta outside [0, 1], unknown option.

    References:
        Sessa et al., "BOND: Aligning LLMs with Best-of-N Distillation", arXiv 2407.14622. β is
        oriented as defined above.

    >>> bond([0.0, 1.0], [0.0, 1.0, 2.0], n=2).weights.round(decimals=4).tolist()
    [0.0, 0.1667, 0.3333]
    """
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta mixes two divergences and must lie in [0, 1], got {beta!r}.")
    if law not in ("exact", "no_ties"):
        raise ValueError(f"law must be 'exact' or 'no_ties', got {law!r}.")
    n = check_budget(n, None)
    ranks = as_samples(scores, "scores", min_samples=2)
    forward = bon_distillation(scores if reference_scores is None else reference_scores, n)
    backward = _ranked(ranks, reference_scores, n, estimate, law)
    if log_ratios is not None:
        backward = backward - minus_others(_log_ratios(log_ratios, ranks))
    return BondWeights(
        advantages=as_advantages(beta * backward, scores),
        kl_coefficient=beta if log_ratios is None else 0.0,
        weights=(1 - beta) * forward,
    )


def _ranked(ranks: Tensor, reference_scores: Any, n: int, estimate: str, law: str) -> Tensor:
    """Return leave-one-out advantages of the reward log π_bon/ref (up to a constant)."""
    if estimate not in ("plugin", "harmonic"):
        raise ValueError(f"estimate must be 'plugin' or 'harmonic', got {estimate!r}.")
    if reference_scores is None:
        return _ranked_in_pool(ranks, n, estimate, law)
    others = as_samples(reference_scores, "reference_scores").to(ranks.device)
    if others.shape[:-1] != ranks.shape[:-1]:
        raise ValueError(
            f"reference_scores need the scores' leading shape {tuple(ranks.shape[:-1])}, got {tuple(others.shape)}."
        )
    # Compare in the coarser of two floating dtypes: 0.1 in float32 and 0.1 as a double are the same score.
    if ranks.is_floating_point() and others.is_floating_point():
        coarse = min(ranks.dtype, others.dtype, key=lambda dtype: torch.finfo(dtype).bits)
        ranks, others = ranks.to(coarse), others.to(coarse)
    common = torch.promote_types(ranks.dtype, others.dtype)
    common = torch.int64 if common == torch.bool else common
    ordered, ranks = others.to(common).sort(-1).values, ranks.to(common).contiguous()
    below, upto = torch.searchsorted(ordered, ranks), torch.searchsorted(ordered, ranks, right=True)
    return minus_others(_log_law(below, upto, others.shape[-1], n, estimate, law))


def _ranked_in_pool(ranks: Tensor, n: int, estimate: str, law: str) -> Tensor:
    """Take the pool as its own reference: i is compared with the others, its baseline with the pool without i."""
    m = ranks.shape[-1]
    groups = tie_groups(torch.zeros(ranks.shape, dtype=torch.float64, device=ranks.device), ranks)
    below, others = groups.below, groups.upto - 1  # number of the others that are < and ≤
    reward = _log_law(below, others, m - 1, n, estimate, law)
    # The baseline of i averages j's reward in the pool without i. It depends on i only by whether i is above, tied
    # with, or below j; counts are clamped where no such i exists.
    if_above = _log_law(below.clamp(max=m - 2), others.clamp(max=m - 2), m - 2, n, estimate, law)
    if_tied = _log_law(below.clamp(max=m - 2), (others - 1).clamp(min=0), m - 2, n, estimate, law)
    if_below = _log_law((below - 1).clamp(min=0), (others - 1).clamp(min=0), m - 2, n, estimate, law)
    total_below = _sum_of_lower(if_above, groups.below)
    total_above = if_below.sum(-1, keepdim=True) - _sum_of_lower(if_below, groups.upto)
    baseline = (total_below + (groups.num_tied - 1) * if_tied + total_above) / (m - 1)
    return groups.unsort(reward - baseline)


def _sum_of_lower(values: Tensor, end: Tensor) -> Tensor:
    """Return the sum of the values at sorted places before ``end``."""
    running = torch.cat([torch.zeros_like(values[..., :1]), values.cumsum(-1)], dim=-1)
    return running.gather(-1, end)


def _log_law(below: Tensor, upto: Tensor, num_others: int, n: int, estimate: str, law: str) -> Tensor:
    """Return log π_bon/ref from counts among the others, up to the constant log N for ``no_ties``."""
    num_upto, num_below = upto.to(torch.float64), below.to(torch.float64)
    if estimate == "harmonic":
        log_f = torch.special.digamma(num_upto + 1) - torch.special.digamma(torch.tensor(num_others + 1.0).to(num_upto))
    else:
        log_f = torch.log((num_upto + 1) / (num_others + 1))
    if law == "no_ties":
        return (n - 1) * log_f
    ratio = num_below / (num_upto + 1)
    return (n - 1) * log_f + best_of_n_log_ratio(ratio, torch.ones_like(ratio), n)


def _pairs(logprobs: Any, name: str) -> Tensor:
    pairs = as_samples(logprobs, name, min_samples=2).to(torch.float64)
    if pairs.shape[-1] != 2 or bool(pairs.isinf().any()):
        raise ValueError(f"{name} must be finite, shape (..., 2) with [best, worst] last, got {tuple(pairs.shape)}.")
    return pairs


def _log_ratios(log_ratios: Any, ranks: Tensor) -> Tensor:
    ratios = as_rewards(log_ratios)
    if ratios.shape != ranks.shape:
        raise ValueError(f"log_ratios need the scores' shape {tuple(ranks.shape)}, got {tuple(ratios.shape)}.")
    return ratios.to(ranks.device)
