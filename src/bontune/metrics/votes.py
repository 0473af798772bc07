"""Votes for answers, and how diverse the answers of a prompt are."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Hashable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bontune.metrics.arrays import FloatArray, Kind, Values, like
from bontune.objectives.inputs import as_rewards, as_scores, check_budget

MAX_EXACT_SUBSETS = 5000
"""A weighted vote visits every subset up to this many, and samples subsets beyond."""
_gauss_legendre = functools.lru_cache(np.polynomial.legendre.leggauss)


def majority_at_k(
    answers: Values, rewards: Kind, k: int, weights: Values | None = None, *, num_draws: int = 4096, seed: int = 0
) -> Kind:
    """Expected reward of the answer that k samples elect, uniformly among tied answers.

        maj@k = Σ_a R̄_a · P(a is elected by a random k-subset),   R̄_a = mean reward of a's holders in the pool

    None abstains; a subset in which all abstain earns 0. Plain votes are exact for every k ≤ M. Weighted votes elect
    the largest sum of weights among the answers present (sums within 1e-12·Σ|weight| tie): exact if C(M, k) ≤ 5000, so
    for k = M, else the mean over ``num_draws`` random subsets, with a standard error ≤ 1/(2√num_draws) for rewards in
    [0, 1]; they are the same subsets for every prompt, so that a prompt's value does not depend on its batch.

    Args:
        answers: (..., M) hashables. Lists, arrays and tensors are axes; all else, tuples too, is an answer. Equal is
            equal in Python (1 == 1.0 == True): bring answers to a normal form first.
        rewards: (..., M), finite.
        k: votes drawn, 1 ≤ k ≤ M.
        weights: (..., M) finite verifier scores, or None for one vote each.
        num_draws, seed: of the random subsets of a weighted vote; num_draws ≥ 1.

    Returns:
        (...,) float64, of the kind of ``rewards``.

    Raises:
        ValueError: unequal shapes, unhashable or NaN answers, NaN or infinite rewards or weights, k not in 1..M.

    References:
        Wang et al., Self-Consistency, arXiv 2203.11171; weighted: Li et al., DiVeRSe, arXiv 2206.02336.

    >>> round(float(majority_at_k(["7", "7", "5", None], np.array([1, 1, 0, 0]), k=2)), 4)  # (1 + 2·½ + 2·1 + 0) / 6
    0.6667
    """
    rewards_PM = as_rewards(rewards)
    m = rewards_PM.shape[-1]
    k = check_budget(k, m, what="k")
    rows, shape = answer_rows(answers)
    if shape != rewards_PM.shape:
        raise ValueError(f"answers and rewards need the same shape, got {shape} and {tuple(rewards_PM.shape)}.")
    votes = zip(map(answer_ids, rows), rewards_PM.reshape(-1, m).cpu().numpy(), strict=True)
    if weights is None:
        values = [_vote(ids_M, rewards_M, k) for ids_M, rewards_M in votes]
    else:
        weights_PM = as_scores(weights, rewards_PM).to("cpu", torch.float64).reshape(-1, m).numpy()
        if np.isinf(weights_PM).any():
            raise ValueError("weights holds an infinite value; votes are summed, so weights must be finite.")
        subsets_SM = _subsets(m, k, check_budget(num_draws, sys.maxsize, what="num_draws"), seed)
        values = [_weighted_vote(*vote, w_M, subsets_SM) for vote, w_M in zip(votes, weights_PM, strict=True)]
    return like(rewards, torch.tensor(values, dtype=torch.float64).reshape(shape[:-1]).to(rewards_PM.device))


def distinct_answers(answers: Values) -> NDArray[np.int64]:
    """How many different answers the samples of a prompt give, None not counted.

    Args:
        answers: (..., M), as in :func:`majority_at_k`.

    Returns:
        (...,) int64 NumPy array, 0..M.

    Raises:
        ValueError: no sample axis, rows of unequal length, or an answer that is unhashable or NaN.

    >>> distinct_answers([["7", "7", None], ["7", "5", "3"]]).tolist()
    [1, 3]
    """
    rows, shape = answer_rows(answers)
    return np.array([answer_ids(row).max() + 1 for row in rows], dtype=np.int64).reshape(shape[:-1])


def answer_entropy(answers: Values) -> FloatArray:
    """Entropy of a prompt's answers in nats, over the samples that give one.

        H = −Σ_a p_a log p_a,   p_a = share of a among the answers that are not None

    The plug-in estimate: biased low, by about (distinct − 1)/(2M). 0 where all agree, and where none answers.

    Args:
        answers: (..., M), as in :func:`majority_at_k`.

    Returns:
        (...,) float64 NumPy array, 0..log M.

    Raises:
        ValueError as :func:`distinct_answers`.

    References:
        Miller, Note on the Bias of Information Estimates, in Information Theory in Psychology, 1955.

    >>> answer_entropy([["7", "7", "5", "5"], ["7", "7", None, None]]).round(4).tolist()
    [0.6931, 0.0]
    """
    rows, shape = answer_rows(answers)
    counts = [np.bincount(answer_ids(row) + 1)[1:] for row in rows]
    entropies = [(n_A / n_A.sum() * np.log(n_A.sum() / n_A)).sum() for n_A in counts]
    return np.array(entropies, dtype=np.float64).reshape(shape[:-1])


def _vote(ids_M: NDArray[np.int64], rewards_M: FloatArray, k: int) -> float:
    """Exact expected reward of a plain vote; answers with equally many holders have equal chances."""
    if ids_M.max() < 0:
        return 0.0
    counts_A = np.bincount(ids_M + 1)[1:]
    means_A = np.bincount(ids_M + 1, weights=rewards_M)[1:] / counts_A
    counts, sizes = np.unique(counts_A, return_counts=True)
    chances = _election_chances(tuple(counts.tolist()), tuple(sizes.tolist()), len(ids_M), k)
    return float(chances[np.searchsorted(counts, counts_A)] @ means_A)


@functools.lru_cache(maxsize=4096)
def _election_chances(counts: tuple[int, ...], sizes: tuple[int, ...], m: int, k: int) -> FloatArray:
    """P(one given answer is elected) for an answer of each of the ``counts`` of holders, which ``sizes`` answers have.

    The votes x_b in a random k-subset are independent Binomial(n_b, k/M), with probabilities β_b, conditioned on their
    total being k, abstentions included. With 1/(1 + j) = ∫₀¹ yʲ dy for the j rivals that tie with a at t votes,

        P(a elected) ∝ Σ_t β_a(t) · [x^{k−t}] ∫₀¹ Π_{b≠a} (Σ_{u<t} β_b(u) xᵘ + y β_b(t) xᵗ) dy

    The polynomial in x is evaluated at the (M+1)th roots of unity and its coefficient read off by an inverse DFT; in y
    Gauss–Legendre is exact for its degree. Nothing is approximated but by float64 rounding (1e-13 up to M = 4096).
    Answers held fewer than t times cannot reach t: together with the abstainers they are one Binomial.
    """
    n_C, size_C = np.array(counts), np.array(sizes)
    votes = [_binomial(n, k, m) for n in counts]
    chances_C = np.zeros(len(counts))
    for t in range(1, min(k, counts[-1]) + 1):
        able = np.flatnonzero(n_C >= t)
        size = size_C[able]
        at_t = np.array([votes[c][t] for c in able])
        below_t = np.fft.rfft(np.array([votes[c][:t] for c in able]), m + 1)
        rest = np.fft.rfft(_binomial(m - int(n_C[able] @ size), k, m), m + 1)
        x_t = np.exp(-2j * np.pi / (m + 1) * (t * np.arange(len(rest)) % (m + 1)))
        nodes, dy = _gauss_legendre((min(int(size.sum()), k // t) + 1) // 2)  # degree: the rivals that can tie
        factors = below_t[:, None] + (nodes[:, None] + 1) / 2 * at_t[:, None, None] * x_t  # counts × nodes × roots
        shared = rest * (factors ** (size[:, None, None] - 1)).prod(0)
        # Without one of each count in turn, by multiplying and not by dividing: a factor can be 0.
        rivals = np.array([shared * np.delete(factors, i, axis=0).prod(0) for i in range(len(able))])
        chances_C[able] += at_t * np.fft.irfft(dy / 2 @ rivals, m + 1)[:, k - t]
    return cast(FloatArray, chances_C.clip(min=0.0) / _binomial(m, k, m)[k])


def _binomial(n: int, k: int, m: int) -> FloatArray:
    """Binomial(n, k/m) as (n + 1,) probabilities, built outwards from the mode so that nothing over- or underflows."""
    mode = min(n, (n + 1) * k // m)
    up, down = np.arange(mode, n), np.arange(mode, 0, -1)
    rise = np.cumprod((n - up) * k / ((up + 1) * max(m - k, 1)))
    fall = np.cumprod(down * (m - k) / ((n - down + 1) * k))
    shape = np.concatenate([fall[::-1], [1.0], rise])
    return cast(FloatArray, shape / shape.sum())


def _subsets(m: int, k: int, num_draws: int, seed: int) -> FloatArray:
    """(S, M) of 0 and 1: every k-subset where they are few, else ``num_draws`` random ones."""
    if math.comb(m, k) <= MAX_EXACT_SUBSETS:
        members = np.array(list(itertools.combinations(range(m), k)))
    else:
        members = np.random.default_rng(seed).random((num_draws, m)).argpartition(k - 1, axis=1)[:, :k]
    subsets_SM = np.zeros((len(members), m))
    np.put_along_axis(subsets_SM, members, 1.0, axis=1)
    return subsets_SM


def _weighted_vote(ids_M: NDArray[np.int64], rewards_M: FloatArray, w_M: FloatArray, subsets_SM: FloatArray) -> float:
    """Mean over the subsets of the reward of the answer with the largest sum of weights."""
    holds_MA = ids_M[:, None] == np.arange(max(ids_M.max() + 1, 1))
    means_A = rewards_M @ holds_MA / holds_MA.sum(0).clip(min=1)
    is_present_SA = subsets_SM @ holds_MA > 0
    sums_SA = np.where(is_present_SA, subsets_SM @ (holds_MA * w_M[:, None]), -np.inf)
    slack = 1e-12 * np.abs(w_M).sum()  # equal weights added in another order differ by rounding
    is_elected_SA = is_present_SA & (sums_SA >= sums_SA.max(-1, keepdims=True) - slack)
    return float((is_elected_SA @ means_A / is_elected_SA.sum(-1).clip(min=1)).mean())


def answer_rows(answers: Any) -> tuple[list[list[Hashable]], tuple[int, ...]]:
    """All prompts' answers as one list of rows, and the shape (..., M) they came in."""
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
    """Number the answers of one prompt 0, 1, … in order of appearance; None is −1."""
    numbers: dict[Hashable, int] = {}
    try:
        ids_M = np.array([-1 if answer is None else numbers.setdefault(answer, len(numbers)) for answer in row])
    except TypeError as error:
        raise ValueError(f"answers must be hashable (strings, numbers, tuples) or None: {error}.") from error
    if any(answer != answer for answer in numbers):
        raise ValueError("answers holds NaN, which equals nothing, not even itself; use None for no answer.")
    return ids_M
