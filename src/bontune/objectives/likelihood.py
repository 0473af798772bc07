"""BoN-aware supervised fine-tuning maximises log π_bon(y*|x), the chance that Best-of-N returns the expert's answer.

Weights are in sum form, as in :mod:`bontune.objectives.imitation`. Notation: samples y_1..y_M ~ π(.|x), verifier scores
r, expert's answer y* with score r*, p_≤ = P_π(r(y) ≤ r*), p_< = P_π(r(y) < r*), ρ = p_</p_≤, budget N.
Derivations: docs/estimators.md.

Bias of :func:`bon_sft`. With ``p_below`` and ``p_upto`` true and independent of the samples: none (exact, no_ties).
Estimated from the samples: in ``no_ties`` the own part is (1−(1−p_≤)^M) times the true one, so it climbs log p_≤
truncated at order M and stays finite where the true gradient grows as 1/p_≤. In ``exact`` ρ comes from the *other*
samples that do not beat y* (``loo``: for 0/1 within 0.1 % of the truth at q = .9, N = 4, M = 32 and 0.5 % at M = 8)
or from all of them (``plugin``: 3 % and 12 % too small). ``variational`` is consistent in M, with bias of order 1/M.
If every own sample beats y* (p_≤ estimated as 0), own_j = −(N−1)/M each with the baseline, else 0; if all but one
do, that one gets up to N−1 times the weight of y*: with large N keep M well above 1/p_≤.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bontune.objectives.best_of_n import lambda_n
from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import as_advantages, as_per_prompt, as_samples, per_prompt
from bontune.objectives.subsets import tie_groups

Law = Literal["exact", "no_ties", "variational"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceWeights:
    """Weights on the expert's answer and on own samples, sum form: loss = −expert·log π(y*) − Σ_i own_i log π(y_i)."""

    expert: Tensor
    """(...), the weight of y*."""
    own: Tensor
    """(..., M), the weights of y_1..y_M."""


def bon_sft(
    scores: Any,
    expert_score: Any,
    n: int,
    law: Law = "exact",
    baseline: Literal["loo", "none"] = "loo",
    estimate: Literal["loo", "plugin"] = "loo",
    p_below: Any = None,
    p_upto: Any = None,
) -> SequenceWeights:
    """BoN-SFT: the gradient of log π_bon(y*|x), weight 1 on y* and signed weights on own samples.

        exact        log π(y*) + log[(p_≤^N − p_<^N)/(p_≤ − p_<)]
                     M·own_j = (N−1) 1_≤/p_≤ + κ(ρ) (1_< − ρ 1_≤)/p_≤,   κ(ρ) = d/dρ log Σ_{i<N} ρ^i
        no_ties      log π(y*) + (N−1) log p_≤                           M·own_j = (N−1) 1_≤/p_≤
        variational  log π(y*) + λ_N p_≤ − log E_π exp(λ_N Q)
                     M·own_j = λ_N 1_≤ − π_var(y_j)/π(y_j) − λ_N P_{y~π_var}[r(y) ≥ r_j]

    1_≤ and 1_< indicate r_j ≤ r* and r_j < r*. Without ties with y*, ``exact`` is ``no_ties``. For a 0/1 verifier
    and a correct y* it is ∇log π(y*) − κ(q) ∇s: *other* correct samples are pushed down, because they share the wins
    with y*. If the verifier rejects y*, the wrong samples are pushed *up*: check experts by the verifier first.
    N = 1 is SFT (own = 0; without the baseline ``variational`` keeps a term of mean 0).

    Biased in general where p is estimated from the samples; the module's docstring gives the bias and the case p_≤ = 0.

    Args:
        scores: (..., M) of own samples, of any real dtype; only order and ties matter. No M ≥ N is needed.
        expert_score: (...) or one number, r* from the same verifier, in the same precision.
        n: N ≥ 1.
        law: see above.
        baseline: ``loo`` centres the weights without bias; ``none`` leaves them.
        estimate: from which samples ρ is estimated if no probabilities are passed.
        p_below, p_upto: (...) p_< and p_≤ of each prompt, estimated elsewhere, 0 ≤ p_< ≤ p_≤ ≤ 1, p_≤ > 0 (clip it);
            ``no_ties`` needs p_upto alone.

    Returns:
        Weights in the scores' floating dtype (float64 for integers and bools).

    Raises:
        ValueError: wrong shapes, NaN, unknown option, probabilities out of range, one sample where centring needs two.

    References:
        Chow et al., arXiv 2412.15287 (objective, variational law); exact: Sessa et al., arXiv 2407.14622, Theorem 1.

    >>> bon_sft([2.0, 0.0, 1.0, 5.0], expert_score=3.0, n=4, baseline="none").own.tolist()  # (N−1)/3 on each it beats
    [1.0, 1.0, 1.0, 0.0]
    """
    has_probabilities = p_below is not None or p_upto is not None
    _check_options(law, baseline, estimate, has_probabilities)
    ranks = as_samples(scores, "scores")
    n = check_budget(n, None)
    own = _own(ranks, expert_score, n, law, estimate, p_below, p_upto)
    if baseline == "loo" and law != "variational" and not has_probabilities:
        own = own - (n - 1)  # the mean where any sample is ≤ y*; a constant adds no bias
    elif baseline == "loo":
        own = _centred(own)
    expert = torch.ones(ranks.shape[:-1], dtype=torch.float64, device=ranks.device)
    return SequenceWeights(expert=as_advantages(expert, scores), own=as_advantages(own / ranks.shape[-1], scores))


def _check_options(law: str, baseline: str, estimate: str, has_probabilities: bool) -> None:
    for name, value, allowed in (
        ("law", law, ("exact", "no_ties", "variational")),
        ("baseline", baseline, ("loo", "none")),
        ("estimate", estimate, ("loo", "plugin")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    if law == "variational" and has_probabilities:
        raise ValueError("p_below and p_upto are for the laws exact and no_ties; variational needs the whole pool.")


def _own(ranks: Tensor, expert_score: Any, n: int, law: Law, estimate: str, p_below: Any, p_upto: Any) -> Tensor:
    """Return M·own before it is centred."""
    is_at_most, is_below = _compared(ranks, expert_score)
    if law == "variational":
        return _variational(ranks, is_at_most, n)
    if p_below is None and p_upto is None:
        return _estimated(is_at_most, is_below, n, law, estimate)
    upto, below = _given_probabilities(p_below, p_upto, is_at_most, law)
    return _known(is_at_most, is_below, below, upto, n, law)


def _centred(own: Tensor) -> Tensor:
    """Return each weight less the mean of the others."""
    m = own.shape[-1]
    if m < 2:
        raise ValueError("bon_sft with baseline='loo' centres over samples and needs at least two, got 1.")
    return (own - own.mean(-1, keepdim=True)) * (m / (m - 1))


def best_of_n_log_ratio(p_below: Tensor, p_upto: Tensor, n: int) -> Tensor:
    """Return log π_bon(y)/π(y) = log[(p_≤^N − p_<^N)/(p_≤ − p_<)], finite for p_< = p_≤ > 0.

    Without ties (p_< = p_≤) it is log N + (N−1) log p_≤.

    Args:
        p_below, p_upto: float64 of one shape, 0 ≤ p_< ≤ p_≤ ≤ 1.
        n: N ≥ 1.

    Returns:
        Values of that shape, at most log N; −inf where p_≤ = 0 and N ≥ 2.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> best_of_n_log_ratio(0.5 * one, one, n=2).exp().tolist()  # 1 − q² = .75 of π = .5
    [1.5]
    """
    n = check_budget(n, None)
    if n == 1:
        return torch.zeros_like(p_upto)
    ratio = torch.where(p_upto > 0, p_below / p_upto, 0.0)
    return (n - 1) * p_upto.log() + _powers(ratio, n).sum(-1).log()


def _kappa(ratio: Tensor, n: int) -> Tensor:
    """Return κ(ρ) = d/dρ log Σ_{i<N} ρ^i: 1 at ρ = 0, (N−1)/2 at ρ = 1; as sums, as the closed form cancels near 1."""
    powers = _powers(ratio, n)
    order = torch.arange(1, n, dtype=torch.float64, device=ratio.device)
    return (order * powers[..., :-1]).sum(-1) / powers.sum(-1)


def _powers(ratio: Tensor, n: int) -> Tensor:
    return ratio.unsqueeze(-1) ** torch.arange(n, dtype=torch.float64, device=ratio.device)


def _compared(ranks: Tensor, expert_score: Any) -> tuple[Tensor, Tensor]:
    """Return 1{r_j ≤ r*} and 1{r_j < r*} as float64, (..., M)."""
    expert = per_prompt(expert_score, ranks, "expert_score")
    if ranks.is_floating_point():
        # 0.1 as a double differs from 0.1 in float32, though both come from one verifier and are tied.
        expert = expert.to(ranks.dtype)
    return (ranks <= expert).to(torch.float64), (ranks < expert).to(torch.float64)


def _given_probabilities(p_below: Any, p_upto: Any, samples: Tensor, law: Law) -> tuple[Tensor, Tensor]:
    if p_upto is None or (p_below is None and law == "exact"):
        raise ValueError(f"the {law} law needs {'p_upto' if law == 'no_ties' else 'both p_below and p_upto'}.")
    upto = as_per_prompt(p_upto, samples, "p_upto")
    below = upto if p_below is None else as_per_prompt(p_below, samples, "p_below")
    if bool(((upto <= 0) | (upto > 1) | (below < 0) | (below > upto)).any()):
        raise ValueError("p_below and p_upto need 0 <= p_below <= p_upto <= 1 and p_upto > 0; clip what was estimated.")
    return upto, below


def _known(is_at_most: Tensor, is_below: Tensor, below: Tensor, upto: Tensor, n: int, law: Law) -> Tensor:
    """Return M·own for probabilities that do not depend on the samples."""
    own = (n - 1) * is_at_most
    if law == "exact" and n > 1:
        ratio = below / upto
        own = own + _kappa(ratio, n) * (is_below - ratio * is_at_most)
    return own / upto


def _estimated(is_at_most: Tensor, is_below: Tensor, n: int, law: Law, estimate: str) -> Tensor:
    """Return M·own with p_≤ estimated from all samples, and ρ from all or from the others."""
    m = is_at_most.shape[-1]
    num_upto, num_below = is_at_most.sum(-1, keepdim=True), is_below.sum(-1, keepdim=True)
    own = (n - 1) * is_at_most
    if law == "exact" and n > 1:
        if estimate == "plugin":
            ratio = num_below / num_upto.clamp(min=1.0)
            own = own + _kappa(ratio, n) * (is_below - ratio * is_at_most)
        else:
            # ρ takes two values: for samples below y* and for samples tied with it. A sample that stands alone among
            # those ≤ y* has no others to compare with.
            others = (num_upto - 1).clamp(min=1.0)
            tied = (num_below / others).clamp(max=1.0)
            under = ((num_below - 1).clamp(min=0.0) / others).clamp(max=1.0)
            slope = torch.where(is_below == 1, _kappa(under, n), _kappa(tied, n))
            ratio = torch.where(is_below == 1, under, tied)
            own = own + torch.where(num_upto > 1, slope * (is_below - ratio * is_at_most), 0.0)
    return own * m / num_upto.clamp(min=1.0)


def _variational(ranks: Tensor, is_at_most: Tensor, n: int) -> Tensor:
    """Return M·own for π_var ∝ π exp(λ Q), with Q and the normaliser estimated from the samples."""
    m = ranks.shape[-1]
    lam = lambda_n(n)
    groups = tie_groups(torch.zeros_like(is_at_most), ranks)
    tilted = torch.softmax(lam / m * groups.upto.to(torch.float64), dim=-1)  # π_var/π over M, in sorted order
    return lam * is_at_most - groups.unsort(m * tilted + lam * groups.sum_at_least(tilted))
