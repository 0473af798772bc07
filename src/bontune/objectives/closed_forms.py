"""Closed forms of the Best-of-N gradient for 0/1 rewards, with P_fail: BoN-RLB and BoN-RLB(P) (docs/estimators.md).

Notation: samples y_1..y_M ~ π(.|x), rewards R, budget N; q = P_π(R = 0) = P_fail. Advantages are in mean form.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import as_advantages, as_binary_rewards, as_failure_rate
from bontune.objectives.policy_gradient import minus_others

CLIP = (0.01, 0.99)
"""Bounds on P_fail, as in the paper's Table 2."""


def bon_rlb(
    rewards: Any,
    n: int,
    p_fail: Any = None,
    sign: Literal["exact", "published"] = "exact",
    baseline: Literal["loo", "none"] = "loo",
    clip: tuple[float, float] = CLIP,
) -> Tensor:
    """BoN-RLB: closed-form Best-of-N weights for 0/1 rewards, both sides.

        correct  g = N p^{N−1} / (1−p)        wrong  g = ± N p^N / (1−p)        p = P_fail, clipped
        loo      A_i = g_i − mean of the others' g        none  A_i = g_i

    These are the paper's g⁺ = N p^{N−1}/(1−p^N) and g⁻ = N p/(1−p) for draws from π_bon, times π_bon/π, because the
    samples come from π (:func:`bontune.objectives.winner_advantages` has the weights for π_bon itself).
    With p = q the exact form gives E[A ∇log π] = N q^{N−1} ∇s, the true gradient. The published sign (−) multiplies it
    by (1+q)/(1−q): right direction per prompt, wrong weight between prompts (×3 at q = .5, ×199 at q = .99).

    Both weights of the exact form are positive: N p^N/(1−p) on every sample, which does not depend on the sample, plus
    N p^{N−1} on the right ones. It needs the baseline, which removes the constant: without it the constant is most
    of the estimate (9.3 beside 7.9 at p = .85, N = 16) and training collapses. With it, A_i is N p^{N−1} times
    (R_i − mean of the others' R), which equals :func:`bon_rlbp` with its baseline. Unbiased for ``exact`` with an
    independent, unclipped p; the plug-in p̂ is biased, because the weights depend on the samples that they weigh (×0.59
    in expectation at q = .9, N = 4, M = 5). Without baseline, the plug-in skips groups that are all right or all wrong.
    At an explicit P_fail of 0 or 1 the clip decides. :func:`bon_rl` needs no P_fail.

    Args:
        rewards: (..., M), 0 or 1; ``loo`` needs M ≥ 2.
        n: N ≥ 1; no M ≥ N is needed.
        p_fail: (...) P_fail per prompt in [0, 1], or one number; None: the plug-in estimate wrong/M.
        sign, baseline: ``exact`` or ``published``, ``loo`` or ``none``; see above.
        clip: bounds applied to p_fail, Table 2.

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: rewards other than 0/1, p_fail outside [0, 1] or of the wrong shape, unknown sign or baseline, one
            sample with ``loo``.

    References:
        Chow et al., arXiv 2412.15287, Lemma 3 and Table 2; sign and baseline: docs/estimators.md.

    >>> bon_rlb([1, 0], n=2, p_fail=0.5).tolist(), bon_rlb([1, 0], n=2, p_fail=0.5, baseline="none").tolist()
    ([1.0, -1.0], [2.0, 1.0])
    """
    if sign not in ("exact", "published"):
        raise ValueError(f"sign must be 'exact' or 'published', got {sign!r}.")
    samples = as_binary_rewards(rewards, "bon_rlb", min_samples=_least_samples(baseline))
    n = check_budget(n, None)
    p = as_failure_rate(p_fail, samples, clip)
    correct = n * p ** (n - 1) / (1 - p)
    wrong = n * p**n / (1 - p) * (1 if sign == "exact" else -1)
    weights = torch.where(samples == 1, correct, wrong)
    if baseline == "loo":
        weights = minus_others(weights)
    elif p_fail is None:
        # All right or all wrong: p̂ is 0 or 1, the clip would decide, and every sample would be pushed the same way.
        weights = weights * (samples.amax(-1, keepdim=True) != samples.amin(-1, keepdim=True))
    return as_advantages(weights, rewards)


def bon_rlbp(
    rewards: Any, n: int, p_fail: Any = None, baseline: Literal["loo", "none"] = "loo", clip: tuple[float, float] = CLIP
) -> Tensor:
    """BoN-RLB(P): closed-form Best-of-N weights for 0/1 rewards, correct samples only.

        correct  g = N p^{N−1}        wrong  g = 0        p = P_fail, clipped
        loo      A_i = g_i − mean of the others' g        none  A_i = g_i

    The paper's ḡ⁺ = N p^{N−1}(1−p)/(1−p^N) for draws from π_bon, times π_bon/π. With an independent, unclipped p = q it
    is unbiased for ∇(1 − q^N); with the plug-in p̂ it is not (×0.55 in expectation at q = .9, N = 4, M = 5, without
    baseline). At P_fail = 0 it (nearly) stops. With the baseline it weighs wrong samples, too, and equals
    :func:`bon_rlb`.

    Args:
        rewards: (..., M), 0 or 1; ``loo`` needs M ≥ 2.
        n: N ≥ 1; no M ≥ N is needed.
        p_fail: as in :func:`bon_rlb`.
        baseline: ``loo`` or ``none``.
        clip: bounds applied to p_fail.

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: rewards other than 0/1, p_fail outside [0, 1] or of the wrong shape, unknown baseline, one sample
            with ``loo``.

    References:
        Chow et al., arXiv 2412.15287, Corollary 4.

    >>> bon_rlbp([1, 0], n=2, p_fail=0.5).tolist(), bon_rlbp([1, 0], n=2, p_fail=0.5, baseline="none").tolist()
    ([1.0, -1.0], [1.0, 0.0])
    """
    samples = as_binary_rewards(rewards, "bon_rlbp", min_samples=_least_samples(baseline))
    n = check_budget(n, None)
    p = as_failure_rate(p_fail, samples, clip)
    weights = torch.where(samples == 1, n * p ** (n - 1), 0.0)
    return as_advantages(minus_others(weights) if baseline == "loo" else weights, rewards)


def _least_samples(baseline: str) -> int:
    """Return the smallest number of samples per prompt that a closed form needs.

    Raises:
        ValueError: unknown baseline.
    """
    if baseline not in ("loo", "none"):
        raise ValueError(f"baseline must be 'loo' or 'none', got {baseline!r}.")
    return 2 if baseline == "loo" else 1
