"""Training for a majority vote, the answer that most of N samples give (self-consistency).

    J = E[ reward of the elected answer ],   N draws, ties uniform, samples without an answer abstain

In a pool of M samples, Ĵ is the mean over all N-subsets (a U-statistic, so unbiased), computed from the number of
samples of each answer alone. The advantage of a sample is its contribution, A_i = M (Ĵ − Ĵ⁽⁻ⁱ⁾), with Ĵ⁽⁻ⁱ⁾ of the pool
without i, which does not depend on it. A wrong answer that few others give costs next to nothing, one that is about to
win costs most: votes are won by moving mass to the right answer, or by scattering the wrong ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from numbers import Number
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bontune.objectives.budgets import Budgets, as_budgets
from bontune.objectives.inputs import FloatArray, as_advantages, as_rewards

_gauss_legendre = functools.lru_cache(np.polynomial.legendre.leggauss)


def majority_vote(rewards: Any, answers: Any, n: Budgets) -> Tensor:
    """Return the exact gradient of the expected reward of a plain majority vote among N samples, from all M.

        A_i = M (Ĵ − Ĵ⁽⁻ⁱ⁾),   Σ_i A_i ≠ 0 in general

    With N = 1 it is RLOO (a sample without an answer earns 0).

    Args:
        rewards: (..., M), rewards of the samples' answers; samples of one answer usually have one reward, else the vote
            pays their mean.
        answers: (..., M) hashables, None abstains; see :func:`bontune.metrics.majority_at_k`. In a tensor of integers,
            numbers below 0 abstain.
        n: N, or weights of several, such as ``{1: 0.5, 15: 0.5}``; M ≥ N + 1.

    Returns:
        (..., M) advantages, mean form, in the rewards' floating dtype (float64 for integers and bools). Unbiased.

    Raises:
        ValueError: too few samples for n, unequal shapes, answers that cannot be compared, NaN or infinite rewards.

    References:
        Wang et al., Self-Consistency, arXiv 2203.11171. The estimator: docs/estimators.md.

    >>> majority_vote([1.0, 0.0, 0.0, 1.0], ["7", "5", "5", "7"], n=3).round(decimals=4).tolist()
    [2.0, -2.0, -2.0, 2.0]
    """
    rewards_PM = as_rewards(rewards)
    num_samples = rewards_PM.shape[-1]
    budgets = as_budgets(n, num_samples, spare=1)
    rows, shape = answer_rows(answers)
    if shape != rewards_PM.shape:
        raise ValueError(f"answers and rewards need the same shape, got {shape} and {tuple(rewards_PM.shape)}.")
    is_numbered = isinstance(answers, Tensor)
    ids_PM = [np.array(row, dtype=np.int64) if is_numbered else answer_ids(row) for row in rows]
    values_PM = rewards_PM.reshape(-1, num_samples).cpu().numpy()
    gains_PM = [_gains(ids_M, values_M, budgets) for ids_M, values_M in zip(ids_PM, values_PM, strict=True)]
    return as_advantages(torch.from_numpy(np.array(gains_PM)).reshape(shape), rewards)


def _gains(ids_M: NDArray[np.int64], rewards_M: FloatArray, budgets: dict[int, float]) -> FloatArray:
    """Return M (Ĵ − Ĵ⁽⁻ⁱ⁾) of one prompt; it is computed once for all samples of one answer and reward."""
    num_samples = len(ids_M)
    pairs, kind_M = np.unique(np.stack([ids_M.clip(min=-1), rewards_M]), axis=1, return_inverse=True)
    places = [int(np.flatnonzero(kind_M.reshape(-1) == kind)[0]) for kind in range(pairs.shape[1])]
    gain_K = np.zeros(len(places))
    for budget, weight in budgets.items():
        whole = vote(ids_M, rewards_M, budget)
        for kind, place in enumerate(places):
            rest = vote(np.delete(ids_M, place), np.delete(rewards_M, place), budget)
            gain_K[kind] += weight * num_samples * (whole - rest)
    gain_K[np.abs(gain_K) < 1e-11 * num_samples] = 0.0  # rounding: the update skips samples of weight 0
    return gain_K[kind_M.reshape(-1)]


def vote(ids_M: NDArray[np.int64], rewards_M: FloatArray, k: int) -> float:
    """Return the exact expected reward of a plain vote among k of M samples; samples with an id below 0 abstain."""
    if ids_M.max() < 0:
        return 0.0
    votes_A = np.bincount(ids_M + 1)[1:]
    has_any = votes_A > 0
    counts_A = votes_A[has_any]
    means_A = np.bincount(ids_M + 1, weights=rewards_M)[1:][has_any] / counts_A
    counts, sizes = np.unique(counts_A, return_counts=True)
    chances = election_chances(tuple(counts.tolist()), tuple(sizes.tolist()), len(ids_M), k)
    return float(chances[np.searchsorted(counts, counts_A)] @ means_A)


@functools.lru_cache(maxsize=4096)
def election_chances(counts: tuple[int, ...], sizes: tuple[int, ...], m: int, k: int) -> FloatArray:
    """Return P(an answer is elected) for each of the ``counts`` of samples; ``sizes`` answers have each count.

    The votes x_b in a random k-subset are independent Binomial(n_b, k/M), with probabilities β_b, conditioned on their
    total being k, abstentions included. With 1/(1 + j) = ∫₀¹ yʲ dy for the j rivals that tie with a at t votes,

        P(a elected) ∝ Σ_t β_a(t) · [x^{k−t}] ∫₀¹ Π_{b≠a} (Σ_{u<t} β_b(u) xᵘ + y β_b(t) xᵗ) dy

    The polynomial in x is evaluated at the (M+1)th roots of unity and its coefficient read off by an inverse DFT; in y
    Gauss–Legendre is exact for its degree. The only approximation is float64 rounding (1e-13 up to M = 4096).
    Answers with fewer than t samples cannot reach t: with the abstainers they are one Binomial. With more than k/2
    votes, or more than any rival can have, a is elected for sure, and only P(x_a = t) remains.
    """
    n_C, size_C = np.array(counts), np.array(sizes)
    votes = [_binomial(n, k, m) for n in counts]
    most_rival = counts[-1] if sizes[-1] > 1 else counts[-2] if len(counts) > 1 else 0
    last_contested = min(k // 2, most_rival)
    chances_C = np.array([_chance_of_more(n, last_contested, k, m) for n in counts])
    roots, places = _roots_of_unity(m + 1), np.arange((m + 1) // 2 + 1)
    below_CR = np.zeros((len(counts), len(places)), dtype=np.complex128)
    first = -1
    for t in range(1, last_contested + 1):
        x_before, x_t = (roots[power * places % (m + 1)] for power in (t - 1, t))
        below_CR += np.array([vote[t - 1] if t <= len(vote) else 0.0 for vote in votes])[:, None] * x_before
        if (now := int(np.searchsorted(n_C, t))) != first:
            first, size = now, size_C[now:]
            rest = np.fft.rfft(_binomial(m - int(n_C[first:] @ size), k, m), m + 1)
        at_t = np.array([vote[t] for vote in votes[first:]])
        nodes, dy = _gauss_legendre((min(int(size.sum()), k // t) + 1) // 2)  # degree: number of rivals that can tie
        # Axes of ``factors``: counts × nodes (of y) × roots (of x).
        factors = below_CR[first:, None] + (nodes[:, None] + 1) / 2 * at_t[:, None, None] * x_t
        shared = rest * (factors ** (size[:, None, None] - 1)).prod(0)
        # The product without the answer itself, from prefix and suffix products: a factor can be 0, so no division.
        before, behind = np.ones_like(factors), np.ones_like(factors)
        np.cumprod(factors[:-1], axis=0, out=before[1:])
        np.cumprod(factors[:0:-1], axis=0, out=behind[-2::-1])
        chances_C[first:] += at_t * np.fft.irfft(dy / 2 @ (shared * before * behind), m + 1)[:, k - t]
    return cast(FloatArray, chances_C.clip(min=0.0) / _binomial(m, k, m)[k])


@functools.lru_cache(maxsize=16)
def _roots_of_unity(order: int) -> NDArray[np.complex128]:
    """Return the roots of unity of that order, sorted as a DFT's frequencies."""
    return cast(NDArray[np.complex128], np.exp(-2j * np.pi / order * np.arange(order)))


@functools.lru_cache(maxsize=4096)
def _chance_of_more(n: int, most: int, k: int, m: int) -> float:
    """Return P(an answer of n of m samples gets more than ``most`` of k votes), times P(k votes in all)."""
    mine, others = _binomial(n, k, m), _binomial(m - n, k, m)
    t = np.arange(max(most + 1, k - m + n), min(k, n) + 1)
    return float(mine[t] @ others[k - t])


@functools.lru_cache(maxsize=4096)
def _binomial(n: int, k: int, m: int) -> FloatArray:
    """Return Binomial(n, k/m) as (n + 1,) probabilities, built outwards from the mode against over- and underflow."""
    mode = min(n, (n + 1) * k // m)
    up, down = np.arange(mode, n), np.arange(mode, 0, -1)
    rise = np.cumprod((n - up) * k / ((up + 1) * max(m - k, 1)))
    fall = np.cumprod(down * (m - k) / ((n - down + 1) * k))
    shape = np.concatenate([fall[::-1], [1.0], rise])
    return cast(FloatArray, shape / shape.sum())


def answer_rows(answers: Any) -> tuple[list[list[Hashable]], tuple[int, ...]]:
    """Return all prompts' answers as one list of rows, and their shape (..., M)."""
    node = answers.tolist() if isinstance(answers, (Tensor, np.ndarray)) else answers
    if not isinstance(node, list) or not node:
        raise ValueError(f"answers must be a list or array of shape (..., M) with M >= 1, got {answers!r:.80}.")
    if not any(isinstance(element, (list, Tensor, np.ndarray)) for element in node):
        return [node], (len(node),)
    parts = [answer_rows(element) for element in node]
    if len(shapes := sorted({shape for _, shape in parts})) > 1:
        raise ValueError(f"answers needs M samples for every prompt, got rows of shapes {shapes[0]} and {shapes[1]}.")
    return [row for rows, _ in parts for row in rows], (len(node), *shapes[0])


def answer_ids(row: Sequence[Hashable]) -> NDArray[np.int64]:
    """Return the answers of one prompt as numbers; see :func:`numbered`."""
    return np.array(numbered(row))


def numbered(row: Sequence[Hashable]) -> list[int]:
    """Number the answers of one prompt 0, 1, … as they appear; None is −1, and 7 and "7" are one answer."""
    numbers: dict[Hashable, int] = {}
    try:
        ids = [-1 if answer is None else numbers.setdefault(_spelled(answer), len(numbers)) for answer in row]
    except TypeError as error:
        raise ValueError(f"answers must be hashable (strings, numbers, tuples) or None: {error}.") from error
    if any(answer != answer for answer in numbers):
        raise ValueError("answers contains NaN, which equals nothing, not even itself; use None for no answer.")
    return ids


def _spelled(answer: Hashable) -> Hashable:
    """Write a number as its shortest exact text; return any other answer as it is."""
    if type(answer) is str or not isinstance(answer, Number) or isinstance(answer, complex):
        return answer
    number: Any = answer
    if not math.isfinite(number):
        return answer
    if number == int(number):
        return str(int(number))
    return repr(float(number)) if float(number) == number else str(number)
