"""Votes for answers, and how diverse the answers of a prompt are."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bontune.metrics.arrays import Kind, Values, as_kind
from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import FloatArray, as_rewards, as_scores
from bontune.objectives.votes import answer_ids, answer_rows, vote

MAX_EXACT_SUBSETS = 5000
"""Largest number of subsets that a weighted vote enumerates; of more it draws random ones."""


def majority_at_k(
    answers: Values, rewards: Kind, k: int, weights: Values | None = None, *, num_draws: int = 4096, seed: int = 0
) -> Kind:
    """Expected reward of the answer that k samples elect, uniformly among tied answers.

        maj@k = Σ_a R̄_a · P(a is elected by a random k-subset),   R̄_a = mean reward of a's samples in the pool

    None abstains; a subset in which all abstain earns 0. Plain votes are exact for every k ≤ M. Weighted votes elect
    the largest sum of weights among the answers present (sums within 1e-12·Σ|weight| tie): exact if C(M, k) ≤ 5000, so
    for k = M, else the mean over ``num_draws`` random subsets, with a standard error ≤ 1/(2√num_draws) for rewards in
    [0, 1]; they are the same subsets for every prompt, so that a prompt's value does not depend on its batch.

    Args:
        answers: (..., M) hashables. Lists, arrays and tensors are axes; anything else, tuples too, is an answer. Equal
            is equal in Python (1 == 1.0 == True), and a number equals its text: bring answers to a normal form first.
        rewards: (..., M), finite.
        k: votes drawn, 1 ≤ k ≤ M.
        weights: (..., M) finite verifier scores, or None for one vote each.
        num_draws, seed: number of random subsets of a weighted vote, ≥ 1, and their seed.

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
        values = [vote(ids_M, rewards_M, k) for ids_M, rewards_M in votes]
    else:
        weights_PM = as_scores(weights, rewards_PM).to("cpu", torch.float64).reshape(-1, m).numpy()
        if np.isinf(weights_PM).any():
            raise ValueError("weights contains an infinite value; votes are summed, so weights must be finite.")
        subsets = _subsets(m, k, check_budget(num_draws, sys.maxsize, what="num_draws"), seed)
        values = [_weighted_vote(*vote, w_M, subsets) for vote, w_M in zip(votes, weights_PM, strict=True)]
    return as_kind(rewards, torch.tensor(values, dtype=torch.float64).reshape(shape[:-1]).to(rewards_PM.device))


def distinct_answers(answers: Values) -> NDArray[np.int64]:
    """Number of different answers of a prompt's samples, without None.

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

    This is the plug-in estimate, biased low by about (distinct − 1)/(2M). It is 0 where all agree, and where none
    answers.

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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Subsets:
    """Subsets of a problem's samples, given by the samples in them or by the excluded ones, whichever are fewer."""

    samples_SK: NDArray[np.int64]
    are_excluded: bool

    def sums(self, ids_M: NDArray[np.int64], values_M: FloatArray) -> FloatArray:
        """Return (A, S), the sum of the values in each subset by answer."""
        num_subsets, num_rows = len(self.samples_SK), int(ids_M.max()) + 2  # the first row: no answer
        cells_SK = np.arange(num_subsets)[:, None] + num_subsets * (ids_M + 1)[self.samples_SK]
        values_SK = values_M[self.samples_SK]
        totals = np.bincount(cells_SK.ravel(), values_SK.ravel(), minlength=num_subsets * num_rows)
        sums_AS = totals.reshape(num_rows, num_subsets)[1:]
        totals_A = np.bincount(ids_M + 1, values_M)[1:]
        return np.asarray(totals_A[:, None] - sums_AS if self.are_excluded else sums_AS, dtype=np.float64)


def _subsets(m: int, k: int, num_draws: int, seed: int) -> _Subsets:
    """Return every k-subset if there are few, else ``num_draws`` random ones."""
    are_excluded = 2 * k > m
    if (num_subsets := math.comb(m, k)) <= MAX_EXACT_SUBSETS:
        size = m - k if are_excluded else k
        combined = itertools.chain.from_iterable(itertools.combinations(range(m), size))
        samples_SK = np.fromiter(combined, np.int64).reshape(num_subsets, size)
    else:
        order = np.random.default_rng(seed).random((num_draws, m)).argpartition(k - 1, axis=1)
        samples_SK = order[:, k:] if are_excluded else order[:, :k]
    return _Subsets(samples_SK=samples_SK, are_excluded=are_excluded)


def _weighted_vote(ids_M: NDArray[np.int64], rewards_M: FloatArray, w_M: FloatArray, subsets: _Subsets) -> float:
    """Return the mean over the subsets of the reward of the answer with the largest sum of weights."""
    if ids_M.max() < 0:
        return 0.0
    means_A = np.bincount(ids_M + 1, weights=rewards_M)[1:] / np.bincount(ids_M + 1)[1:]
    sums_AS = subsets.sums(ids_M, w_M)
    slack = 1e-12 * np.abs(w_M).sum()  # equal sums of weights may differ by rounding
    best_S = sums_AS.max(0)
    if bool((best_S > 2 * slack).all()):  # an answer without a vote in the subset has sum 0 and is never best
        elected_AS = sums_AS >= best_S - slack
    else:
        is_present_AS = subsets.sums(ids_M, np.ones_like(w_M)) > 0.5
        sums_AS = np.where(is_present_AS, sums_AS, -np.inf)
        elected_AS = is_present_AS & (sums_AS >= sums_AS.max(0) - slack)
    return float((means_A @ elected_AS.astype(np.float64) / elected_AS.sum(0).clip(min=1)).mean())
