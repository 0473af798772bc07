"""The distribution of a prompt's samples over distinct answers: how often each answer is given, and which are right.

No answer (None) is not an answer: it counts in the number of samples M and nowhere else, as in ``votes``. Masses are
shares of all M samples, so that the mass on correct answers is pass@1; the entropy is over the samples that answer.

What is biased, for i.i.d. samples of one prompt:

- Entropy: the plug-in −Σ p̂ log p̂ (:func:`answer_entropy`) is low by about (answers − 1)/(2M). The estimate used
  here adds what the unseen answers must hold, judged by those given once (f₁) and twice (f₂):
  Ĥ = Σ_a n_a/n Σ_{k=n_a}^{n−1} 1/k + f₁/n Σ_{j≥1} (1 − A)ʲ/(j + n − 1), A = 2f₂/((n − 1)f₁ + 2f₂), n samples that
  answer. The first part is unbiased for Σ_{k<n} Σ_a p_a(1 − p_a)ᵏ/k, the entropy without the terms k ≥ n. Still
  low where hardly any answer was given twice. Not bounded by log M.
- Distinct answers in m ≤ M samples, Σ_a 1 − C(M − n_a, m)/C(M, m): unbiased (rarefaction), so pools of different M
  can be compared at a common m. Distinct correct ones too where answers are right or wrong for good.
- Coverage: that of M samples. Its bias is that of M − 1 samples instead, a difference below 1/M.
- ``top_P``, ``best_P`` and the ranks: high, as the largest of several frequencies is, most where no answer stands
  out (64 samples of 1,000 equally likely answers: 0.030 at rank 1, not 0.001). Compare them at one M only.
  ``correct_P`` and ``answered_P``: unbiased.

Shapes: ``_M`` samples of one prompt, leading axes ``_P``: prompts; ``_A`` answers; ``_R`` ranks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bontune.metrics.arrays import Values
from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import FloatArray, as_rewards, as_scores
from bontune.objectives.votes import answer_ids, answer_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerDistribution:
    """Each prompt's distribution over distinct answers; every array is float64 of shape (...,) but the profiles."""

    num_samples: int
    """M, of each prompt."""
    num_drawn: int
    """Number of samples in which ``distinct_P`` and ``distinct_correct_P`` are counted."""
    entropy_P: FloatArray
    """Entropy of the answers, over the samples that answer, in nats, as Chao, Wang and Jost estimate it."""
    distinct_P: FloatArray
    """Expected number of different answers in ``num_drawn`` of the samples."""
    distinct_correct_P: FloatArray
    """Expected number of different correct answers in ``num_drawn`` of the samples."""
    coverage_P: FloatArray
    """Chance that one more sample gives a known answer: Good and Turing's 1 − f₁/M, f₁ answers given once."""
    top_P: FloatArray
    """Mass on the most frequent answer."""
    best_P: FloatArray
    """Mass on the most frequent correct answer; 0 without one."""
    correct_P: FloatArray
    """Mean reward: for rewards of 0 and 1 the mass on all correct samples, pass@1."""
    answered_P: FloatArray
    """Share of the samples that give an answer."""
    chosen_P: FloatArray | None
    """Mass on the answer of the sample that the verifier scores highest, averaged over ties; None without scores."""
    ranked_PR: FloatArray
    """(..., R + 1): mass on the answer at rank 1, 2, … R by frequency, then on all others; sums to ``answered_P``."""
    ranked_correct_PR: FloatArray
    """Rewarded part of ``ranked_PR``; equally frequent answers share their ranks evenly."""


def answer_distribution(
    answers: Values, rewards: Values, scores: Values | None = None, *, num_drawn: int | None = None, num_ranks: int = 8
) -> AnswerDistribution:
    """Compute how the samples of each prompt spread over distinct answers.

    An answer is correct if the mean reward of its samples is above ½.

    Args:
        answers: (..., M) hashables, None for no answer; as in :func:`majority_at_k`.
        rewards: (..., M), finite.
        scores: (..., M) of a verifier, or None. ±inf is allowed.
        num_drawn: m, number of samples in which distinct answers are counted, 1 ≤ m ≤ M; None: M, as in
            :func:`distinct_answers`.
        num_ranks: R ≥ 1, number of ranks that are kept apart.

    Raises:
        ValueError: unequal shapes, unhashable or NaN answers, NaN or infinite rewards, NaN scores, ``num_drawn`` not in
            1..M, ``num_ranks`` below 1.

    References:
        Chao, Wang and Jost, Entropy and the species accumulation curve, Methods in Ecology and Evolution 4, 2013.
        Good, The population frequencies of species and the estimation of population parameters, Biometrika 40, 1953.
        Hurlbert, The nonconcept of species diversity, Ecology 52, 1971.

    >>> found = answer_distribution([["7", "7", "5", None]], [[1, 1, 0, 0]], num_drawn=2, num_ranks=2)
    >>> found.ranked_PR.tolist(), found.ranked_correct_PR.tolist()
    ([[0.5, 0.25, 0.0]], [[0.5, 0.0, 0.0]])
    >>> found.distinct_P.round(4).tolist(), found.coverage_P.tolist()  # (1 + 2·2 + 2·1 + 1) / 6
    ([1.3333], [0.75])
    """
    rewards_PM = as_rewards(rewards)
    rows, shape = answer_rows(answers)
    if shape != rewards_PM.shape:
        raise ValueError(f"answers and rewards need the same shape, got {shape} and {tuple(rewards_PM.shape)}.")
    m = shape[-1]
    num_drawn = m if num_drawn is None else check_budget(num_drawn, m, what="num_drawn")
    num_ranks = check_budget(num_ranks, None, what="num_ranks")
    ids_PM, flat_PM = [answer_ids(row) for row in rows], rewards_PM.reshape(-1, m).cpu().numpy()
    prompts = [
        _one_prompt(ids_M, rewards_M, num_drawn, num_ranks) for ids_M, rewards_M in zip(ids_PM, flat_PM, strict=True)
    ]
    chosen_P = None
    if scores is not None:
        scores_PM = as_scores(scores, rewards_PM).reshape(-1, m).cpu().numpy()
        chosen_P = _shaped(
            [_chosen(ids_M, scores_M) for ids_M, scores_M in zip(ids_PM, scores_PM, strict=True)], shape[:-1]
        )
    return AnswerDistribution(
        num_samples=m,
        num_drawn=num_drawn,
        correct_P=_shaped(flat_PM.mean(-1), shape[:-1]),
        chosen_P=chosen_P,
        **{name: _shaped([prompt[name] for prompt in prompts], shape[:-1]) for name in prompts[0]},
    )


def _shaped(values: Sequence[float | FloatArray] | FloatArray, leading: tuple[int, ...]) -> FloatArray:
    flat = np.array(values, dtype=np.float64)
    return flat.reshape((*leading, *flat.shape[1:]))


def _one_prompt(
    ids_M: NDArray[np.int64], rewards_M: FloatArray, num_drawn: int, num_ranks: int
) -> dict[str, float | FloatArray]:
    """Return the fields that follow from the number of samples of each answer and their rewards."""
    m = len(ids_M)
    counts_A = np.bincount(ids_M + 1)[1:]
    earned_A = np.bincount(ids_M + 1, weights=rewards_M)[1:]
    is_correct_A = earned_A > counts_A / 2
    present_A = _chances_present(m, num_drawn)[counts_A]
    ranked_R, ranked_correct_R = _profile(counts_A / m, earned_A / m, num_ranks)
    return {
        "entropy_P": _entropy(counts_A),
        "distinct_P": present_A.sum(),
        "distinct_correct_P": present_A[is_correct_A].sum(),
        "coverage_P": 1 - (counts_A == 1).sum() / m,
        "top_P": counts_A.max(initial=0) / m,
        "best_P": counts_A[is_correct_A].max(initial=0) / m,
        "answered_P": counts_A.sum() / m,
        "ranked_PR": ranked_R,
        "ranked_correct_PR": ranked_correct_R,
    }


def _entropy(counts_A: NDArray[np.int64]) -> float:
    """Return Chao, Wang and Jost's estimate; 0 without samples."""
    n = int(counts_A.sum())
    if n == 0:
        return 0.0
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, max(n, 2)))])  # Σ_{k≤i} 1/k for i < n
    seen = float(counts_A @ (harmonic[n - 1] - harmonic[counts_A - 1])) / n
    once, twice = int((counts_A == 1).sum()), int((counts_A == 2).sum())
    if once == 0:
        return seen
    # For f₂ = 0 the authors use another form, which stays finite.
    a = 2 * twice / ((n - 1) * once + 2 * twice) if twice else 2 / ((n - 1) * (once - 1) + 2)
    return seen + once / n * _tail(1 - a, n)


def _tail(x: float, n: int) -> float:
    """Return Σ_{j≥1} xʲ/(j + n − 1) for 0 ≤ x < 1."""
    if x ** (n - 1) > 1e-3:  # −log(1 − x) minus its first n − 1 terms: no cancellation here
        r = np.arange(1, n)
        return float((-math.log1p(-x) - (x**r / r).sum()) / x ** (n - 1))
    j = np.arange(1, 6 * n + 40)  # x < 1 − 6.9/n: the terms behind sum to less than 1e-16
    return float((x**j / (j + n - 1)).sum())


@functools.lru_cache(maxsize=16)
def _chances_present(m: int, num_drawn: int) -> FloatArray:
    """Return, for 0, 1, … M samples of an answer, the chance that one of them is among ``num_drawn`` of M samples."""
    ways = math.comb(m, num_drawn)
    return np.array([(ways - math.comb(m - count, num_drawn)) / ways for count in range(m + 1)])


def _profile(mass_A: FloatArray, correct_A: FloatArray, num_ranks: int) -> tuple[FloatArray, FloatArray]:
    """Return mass and rewarded mass by rank, with all further ranks together at the end."""
    _, place_A, sizes = np.unique(-mass_A, return_inverse=True, return_counts=True)
    shared_A = np.bincount(place_A, weights=correct_A)[place_A] / sizes[place_A]  # among equally frequent answers
    order = np.argsort(place_A, kind="stable")
    profile = np.zeros((2, num_ranks + 1))
    for row, values_A in zip(profile, (mass_A[order], shared_A[order]), strict=True):
        row[: min(num_ranks, len(order))] = values_A[:num_ranks]
        row[num_ranks] = values_A[num_ranks:].sum()
    return profile[0], profile[1]


def _chosen(ids_M: NDArray[np.int64], scores_M: NDArray[np.floating]) -> float:
    """Return the mass on the answer with the highest score; 0 if that sample gives no answer."""
    chosen = ids_M[scores_M == scores_M.max()]
    counts_A = np.bincount(ids_M + 1)
    counts_A[0] = 0
    return float(counts_A[chosen + 1].mean() / len(ids_M))
