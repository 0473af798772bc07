"""Best-of-N objectives on samples from π: the exact estimator and the paper's variational one (docs/estimators.md).

Notation: prompt x, samples y_1..y_M ~ π(.|x), rewards R, verifier scores r, budget N; q = P_π(R = 0) = P_fail.
π_bon is the law of the winner of N samples under r, ties broken uniformly; the objective is J = E_{π_bon}[R].
Advantages are in mean form: ∇J ≈ (1/M) Σ_i A_i ∇log π(y_i|x), log π summed over tokens.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from bontune.objectives.budgets import Budgets, check_budget
from bontune.objectives.inputs import as_advantages, as_per_prompt, as_rewards, as_scores
from bontune.objectives.ranks import BEST, Baseline, advantages_by_rank
from bontune.objectives.subsets import tie_groups


def bon_rl(rewards: Any, scores: Any = None, n: Budgets | None = None, baseline: Baseline = "loo") -> Tensor:
    """Return the exact Best-of-N policy gradient, for any verifier and any reward, ties allowed, from all M samples.

        loo    A_i = M W_i − N Ĵ_N(all but i)        = M (Ĵ_N − Ĵ_N(all but i)); Σ_i A_i = 0
        loo1   A_i = M W_i − N Ĵ_{N−1}(all but i)    exactly 0 for a wrong sample where scores are 0/1 rewards
        none   A_i = M W_i

    W_i is the winner's reward summed over the N-subsets that contain i, over C(M, N); Ĵ_k the mean winner's reward over
    k-subsets. All three are unbiased for ∇E_{π_bon}[R] at every q, 0 and 1 included. It is the case "best of N" of
    :func:`bontune.objectives.rank`. r = R gives PKPO; N = 1 gives RLOO.

    Args:
        rewards: (..., M), reward of a sample if it wins; float, int or bool.
        scores: (..., M), by which the winner is picked; only order and ties matter. None: the reward itself, r = R.
        n: N, or weights of several budgets that sum to one: ``{1: 0.5, 16: 0.5}`` trains for ½ J_1 + ½ J_16. Required.
            ``loo`` needs M ≥ N + 1, ``loo1`` M ≥ N ≥ 2 (beside other budgets, N = 1 takes ``loo`` with it), ``none``
            M ≥ N. For a usable variance draw M ≥ 2N.
        baseline: see above.

    Returns:
        (..., M) advantages, mean form, in the rewards' floating dtype (float64 for integers and bools).

    Raises:
        ValueError: no n, too few samples for n and baseline, weights of budgets that do not sum to one, unequal shapes,
            NaN, infinite rewards, unknown baseline.

    References:
        Objective: Chow et al., arXiv 2412.15287, eq. 5. r = R: Walder & Karkhanis, arXiv 2505.15201.
        For r ≠ R and M > N, and for several budgets: derived here, docs/estimators.md.

    >>> bon_rl([1.0, 0.0, 0.0], scores=[0.2, 0.9, 0.1], n=2).tolist()  # the verifier prefers a wrong answer
    [1.0, -2.0, 1.0]
    >>> bon_rl([1.0, 0.0, 0.0], n=2).round(decimals=3).tolist()  # without scores the reward itself picks
    [2.0, -1.0, -1.0]
    """
    return advantages_by_rank(rewards, scores, n, lambda _: BEST, baseline)


def bon_rl_variational(rewards: Any, scores: Any = None, n: int | None = None, baseline: Any = "loo") -> Tensor:
    """Return the paper's variational BoN-RL gradient on samples from π.

        π_var(y) ∝ π(y) exp(λ_N Q(y)),   Q(y) = P_{y'~π}[r(y) ≥ r(y')],   h = ∇log π + λ_N ∇Q
        ∇E_{π_var}[R] = E_{π_var}[(R − b)(h − E_{π_var} h)],   ∇Q(y) = E_{y'}[1{r(y) ≥ r(y')} ∇log π(y')]

    Q and the normaliser are estimated from the same M samples, so it is consistent in M, not unbiased; and π_var itself
    is far from the true Best-of-N law for tied scores (q = .99, N = 32, 0/1: P(correct) = .014 against .275). Use
    :func:`bon_rl` instead; this estimator serves to compare with the paper.

    Args:
        rewards: (..., M).
        scores: (..., M); None: the reward itself, r = R.
        n: 1 ≤ N ≤ M. Required.
        baseline: ``loo``: h centred over the samples (any b gives the same), the weights centred leave-one-out;
            ``none``: h centred, weights as they are; an array (...) of values b(x): the paper's (R − b) h, *not*
            centred — biased unless b equals E_{π_bon}[R] exactly.

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: no n or n > M, unequal shapes, NaN, unknown baseline, fewer than two samples for ``loo``.

    References:
        Chow et al., arXiv 2412.15287, eq. 4–6; λ_N: Gui et al., arXiv 2406.00832.
    """
    n = check_budget(n, None)  # first: a forgotten n would be reported as a wrong shape of the scores
    samples = as_rewards(rewards, min_samples=2 if isinstance(baseline, str) and baseline == "loo" else 1)
    ranks = as_scores(rewards if scores is None else scores, samples)
    m = samples.shape[-1]
    n = check_budget(n, m)
    is_value = baseline is not None and not isinstance(baseline, str)
    if not is_value and baseline not in ("loo", "none"):
        raise ValueError(f"baseline must be 'loo', 'none' or an array of values per prompt, got {baseline!r}.")
    if not is_value:
        samples = samples - samples.amin(-1, keepdim=True)
    groups = tie_groups(samples, ranks)
    weight = torch.softmax(lambda_n(n) / m * groups.upto.to(torch.float64), dim=-1)
    if is_value:
        value = as_per_prompt(baseline, samples, "baseline")
    else:
        value = (weight * groups.rewards).sum(-1, keepdim=True)
    draw = weight * (groups.rewards - value)
    advantages = m * draw + lambda_n(n) * groups.sum_at_least(draw)
    if not is_value and baseline == "loo":
        advantages = (advantages - advantages.mean(-1, keepdim=True)) * (m / (m - 1))
    return as_advantages(groups.unsort(advantages), rewards)


@functools.lru_cache(maxsize=256)
def lambda_n(n: int) -> float:
    """λ_N of the variational Best-of-N law: the tilt whose KL to π equals that of Best-of-N without ties.

        ((λ−1)e^λ + 1)/(e^λ − 1) − log((e^λ − 1)/λ) = log N − (N−1)/N

    Args:
        n: N ≥ 1 (λ_1 = 0).

    Raises:
        ValueError: n is no integer or below 1.

    References:
        Gui et al., "BoNBoN Alignment", arXiv 2406.00832, Theorem 2.

    >>> [round(lambda_n(n), 3) for n in (2, 4, 8, 16)]
    [2.289, 4.917, 9.055, 17.032]
    """
    n = check_budget(n, None)
    target = math.log(n) - (n - 1) / n
    if n == 1:
        return 0.0

    def kl(lam: float) -> float:
        # e^λ/(e^λ−1) is written as 1/(1−e^−λ), which does not overflow.
        shrink = -math.expm1(-lam)
        return (lam - shrink) / shrink - (lam + math.log(shrink) - math.log(lam))

    low, high = 1e-3, 2.0 * n + 2.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if kl(middle) < target else (low, middle)
    return (low + high) / 2
