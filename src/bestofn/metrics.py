"""What Best-of-N, majority voting and the verifier are worth, for every k ≤ M from one pool of M samples per prompt.

Every metric of a pool is the mean over its C(M, k) subsets, drawn *without* replacement: unbiased for i.i.d. samples
and every k ≤ M, where resampling is not (1 of 4 correct gives 0.68 at k = 4, not 1). M ≥ 2k for a tolerable variance.

Shapes: ``_M`` samples of one prompt, the last axis; leading axes, ``_P``: prompts; ``_S`` subsets; ``_A`` answers.
Rewards are float, int or bool: a tensor gives a tensor on its device, all else NumPy, in float64. Scores may be ±inf.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bestofn.objectives.inputs import as_rewards, as_samples, as_scores, check_budget
from bestofn.objectives.subsets import best_of_n_value, subset_ratios, tie_groups

FloatArray: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]
Kind = TypeVar("Kind", Tensor, NDArray[Any])  # of rewards and of what comes back; nested lists count as arrays

MAX_EXACT_SUBSETS = 5000  # a weighted vote visits every subset up to this many, and samples subsets beyond
_gauss_legendre = functools.lru_cache(np.polynomial.legendre.leggauss)


def pass_at_k(rewards: Kind, k: int) -> Kind:
    """Probability that at least one of k samples is correct.

        pass@k = 1 − C(M−c, k) / C(M, k),   c = number of correct samples;   unbiased for every k ≤ M

    Args:
        rewards: (..., M), every one 0 or 1.
        k: samples drawn, 1 ≤ k ≤ M.
    Returns: (...,) float64; exactly 0 for c = 0 and exactly 1 for c > M − k.
    Raises: ValueError for a reward other than 0 and 1 (use :func:`max_at_k`), NaN, no sample axis, k outside 1..M.
    References: Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374, eq. 1.

    >>> pass_at_k([[1, 0, 0, 0], [1, 1, 0, 0]], k=2).round(4).tolist()
    [0.5, 0.8333]
    """
    rewards_PM = _binary(rewards, "pass_at_k", "for graded rewards use max_at_k")
    m = rewards_PM.shape[-1]
    ratios = subset_ratios(m, check_budget(k, m, what="k")).to(rewards_PM.device)
    return _like(rewards, 1.0 - ratios[m - rewards_PM.sum(-1).long()])


def max_at_k(rewards: Kind, k: int) -> Kind:
    """Expected highest reward among k samples: pass@k for graded rewards, and pass@k itself for rewards of 0 or 1.

        max@k = Σ_i C(i−1, k−1) R_(i) / C(M, k),   R_(1) ≤ … ≤ R_(M);   unbiased for every k ≤ M

    Args, Returns, Raises: as :func:`best_of_k`, with the rewards as scores.
    References: Walder and Karkhanis, Pass@K Policy Optimization, arXiv 2505.15201.

    >>> round(float(max_at_k([1.0, 2.0, 4.0], k=2)), 4)  # (2 + 4 + 4) / 3
    3.3333
    """
    return best_of_k(rewards, rewards, k)


def best_of_k(rewards: Kind, scores: Values, k: int) -> Kind:
    """Expected reward of the sample the verifier picks out of k: highest score, uniformly among ties.

        Ĵ_k = Σ_v [C(L_v+m_v, k) − C(L_v, k)] / C(M, k) · R̄_v

    over the scores v: L_v samples score below v, m_v score v, with mean reward R̄_v. Unbiased for every k ≤ M.

    Args:
        rewards: (..., M), finite.
        scores: (..., M), any real dtype.
        k: samples drawn, 1 ≤ k ≤ M.
    Returns: (...,) float64, of the kind of ``rewards``.
    Raises: ValueError for NaN, infinite rewards, unequal shapes, no sample axis, or k outside 1..M.
    References: Chow et al., Inference-Aware Fine-Tuning for Best-of-N Sampling in LLMs, arXiv 2412.15287.

    >>> round(float(best_of_k([1, 0, 0], [0.2, 0.9, 0.1], k=2)), 4)  # the correct one wins only against the third
    0.3333
    """
    rewards_PM = as_rewards(_plain(rewards))
    scores_PM = as_scores(_plain(scores), rewards_PM)
    return _like(rewards, best_of_n_value(rewards_PM, scores_PM, check_budget(k, rewards_PM.shape[-1], what="k")))


def oracle_gap(rewards: Kind, scores: Values, k: int) -> Kind:
    """What the verifier leaves on the table: max@k − best-of-k, which is pass@k − best-of-k for rewards of 0 or 1.

    Never negative; 0 for a verifier that orders the samples as the rewards do. Args, Returns, Raises: see best_of_k.
    References: Brown et al., Large Language Monkeys: Scaling Inference Compute, arXiv 2407.21787.

    >>> float(oracle_gap([1, 0], [0.1, 0.9], k=2))
    1.0
    """
    return (max_at_k(rewards, k) - best_of_k(rewards, scores, k)).clip(min=0.0)  # rounding can leave −1e-17


def within_prompt_auc(rewards: Kind, scores: Values) -> Kind:
    """How well the verifier ranks correct above wrong samples *of the same prompt*; the prompt's difficulty cancels.

        AUC = P(score of correct > score of wrong) + ½ P(equal scores)

    Args:
        rewards: (..., M), every one 0 or 1.
        scores: (..., M), any real dtype.
    Returns: (...,) float64; NaN where, and only where, a prompt has no correct or no wrong sample (use ``np.nanmean``).
    Raises: ValueError for a reward other than 0 and 1, NaN in the inputs, unequal shapes, or no sample axis.
    References: Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, Radiology 143(1), 1982.

    >>> within_prompt_auc([[1, 0, 0], [1, 1, 1]], [[0.5, 0.5, 0.1], [0.3, 0.2, 0.1]]).tolist()
    [0.75, nan]
    """
    rewards_PM = _binary(rewards, "within_prompt_auc", "pass correctness, not a graded reward")
    groups = tie_groups(rewards_PM, as_scores(_plain(scores), rewards_PM))
    num_correct = groups.rewards.sum(-1)
    num_pairs = num_correct * (rewards_PM.shape[-1] - num_correct)
    rank_sum = (groups.rewards * (groups.below + groups.upto + 1)).sum(-1) / 2  # mid-ranks of the correct samples
    wins = rank_sum - num_correct * (num_correct + 1) / 2
    return _like(rewards, torch.where(num_pairs > 0, wins / num_pairs, math.nan))


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
    Returns: (...,) float64, of the kind of ``rewards``.
    Raises: ValueError for unequal shapes, unhashable or NaN answers, NaN or infinite rewards or weights, k not in 1..M.
    References: Wang et al., Self-Consistency, arXiv 2203.11171; weighted: Li et al., DiVeRSe, arXiv 2206.02336.

    >>> round(float(majority_at_k(["7", "7", "5", None], np.array([1, 1, 0, 0]), k=2)), 4)  # (1 + 2·½ + 2·1 + 0) / 6
    0.6667
    """
    rewards_PM = as_rewards(_plain(rewards))
    m = rewards_PM.shape[-1]
    k = check_budget(k, m, what="k")
    rows, shape = _answer_rows(answers)
    if shape != rewards_PM.shape:
        raise ValueError(f"answers and rewards need the same shape, got {shape} and {tuple(rewards_PM.shape)}.")
    votes = zip(map(_answer_ids, rows), rewards_PM.reshape(-1, m).cpu().numpy(), strict=True)
    if weights is None:
        values = [_vote(ids_M, rewards_M, k) for ids_M, rewards_M in votes]
    else:
        weights_PM = as_scores(_plain(weights), rewards_PM).to("cpu", torch.float64).reshape(-1, m).numpy()
        if np.isinf(weights_PM).any():
            raise ValueError("weights holds an infinite value; votes are summed, so weights must be finite.")
        subsets_SM = _subsets(m, k, check_budget(num_draws, sys.maxsize, what="num_draws"), seed)
        values = [_weighted_vote(*vote, w_M, subsets_SM) for vote, w_M in zip(votes, weights_PM, strict=True)]
    return _like(rewards, torch.tensor(values, dtype=torch.float64).reshape(shape[:-1]).to(rewards_PM.device))


def distinct_answers(answers: Values) -> NDArray[np.int64]:
    """How many different answers the samples of a prompt give, None not counted.
    Args: answers: (..., M), as in :func:`majority_at_k`.
    Returns: (...,) int64 NumPy array, 0..M.
    Raises: ValueError for no sample axis, rows of unequal length, or an answer that is unhashable or NaN.

    >>> distinct_answers([["7", "7", None], ["7", "5", "3"]]).tolist()
    [1, 3]
    """
    rows, shape = _answer_rows(answers)
    return np.array([_answer_ids(row).max() + 1 for row in rows], dtype=np.int64).reshape(shape[:-1])


def answer_entropy(answers: Values) -> FloatArray:
    """Entropy of a prompt's answers in nats, over the samples that give one.

        H = −Σ_a p_a log p_a,   p_a = share of a among the answers that are not None

    The plug-in estimate: biased low, by about (distinct − 1)/(2M). 0 where all agree, and where none answers.
    Args: answers: (..., M), as in :func:`majority_at_k`.
    Returns: (...,) float64 NumPy array, 0..log M.
    Raises: ValueError as :func:`distinct_answers`.
    References: Miller, Note on the Bias of Information Estimates, in Information Theory in Psychology, 1955.

    >>> answer_entropy([["7", "7", "5", "5"], ["7", "7", None, None]]).round(4).tolist()
    [0.6931, 0.0]
    """
    rows, shape = _answer_rows(answers)
    counts = [np.bincount(_answer_ids(row) + 1)[1:] for row in rows]
    entropies = [(n_A / n_A.sum() * np.log(n_A.sum() / n_A)).sum() for n_A in counts]
    return np.array(entropies, dtype=np.float64).reshape(shape[:-1])


def default_ks(num_samples: int) -> list[int]:
    """The budgets to report for a pool: 1, 2, 4, … up to ``num_samples``; ValueError if that is no integer ≥ 1.

    >>> default_ks(12)
    [1, 2, 4, 8]
    """
    return [2**i for i in range(check_budget(num_samples, sys.maxsize, what="num_samples").bit_length())]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean over prompts with its bootstrap interval."""

    value: float
    """The mean over the prompts at hand."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


def bootstrap_interval(values_P: Values, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean over prompts: the (1 ∓ level)/2 quantiles of means of P prompts redrawn.

    It covers the choice of prompts, given the pools at hand. Somewhat narrow for few prompts; width 0 for P = 1.
    Args:
        values_P: (P,) one finite number per prompt.
        level: nominal coverage, 0 < level < 1.
        num_resamples, seed: of the resampling; num_resamples ≥ 1, memory does not grow with it.
    Raises: ValueError if values_P is not one-dimensional, empty, NaN or infinite; level or num_resamples out of range.
    References: Efron and Tibshirani, An Introduction to the Bootstrap, Chapman & Hall 1993, chapter 13.

    >>> bootstrap_interval([1.0, 1.0, 1.0])
    Interval(value=1.0, low=1.0, high=1.0)
    """
    values = _as_prompts(values_P, "values_P")
    num_resamples = check_budget(num_resamples, sys.maxsize, what="num_resamples")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level!r}.")
    rng = np.random.default_rng(seed)
    chunk = max(1, 2**20 // len(values))  # 8 MiB of indices and 8 MiB of values at a time
    sizes = [min(chunk, num_resamples - start) for start in range(0, num_resamples, chunk)]
    means = np.concatenate([values[rng.integers(len(values), size=(size, len(values)))].mean(-1) for size in sizes])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=float(values.mean()), low=float(low), high=float(high))


def paired_difference(
    a_P: Values, b_P: Values, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Bootstrap interval of mean(a − b) for two runs on the same prompts, in the same order.

    Each resample takes the same prompts from both, so their difficulty cancels: where two :func:`bootstrap_interval`
    overlap the difference can still be clear. Other arguments, References: see there.
    Raises: ValueError if a_P and b_P differ in length; otherwise as :func:`bootstrap_interval`.

    >>> paired_difference([1.0, 0.5, 0.0], [0.5, 0.0, -0.5])
    Interval(value=0.5, low=0.5, high=0.5)
    """
    a, b = _as_prompts(a_P, "a_P"), _as_prompts(b_P, "b_P")
    if a.shape != b.shape:
        raise ValueError(f"a_P and b_P must hold the same prompts in the same order, got {len(a)} and {len(b)} values.")
    return bootstrap_interval(a - b, level, num_resamples, seed)


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


def _answer_rows(answers: Any) -> tuple[list[list[Hashable]], tuple[int, ...]]:
    """All prompts' answers as one list of rows, and the shape (..., M) they came in."""
    node = answers.tolist() if isinstance(answers, (Tensor, np.ndarray)) else answers
    if not isinstance(node, list) or not node:
        raise ValueError(f"answers must be a list or array of shape (..., M) with M >= 1, got {answers!r:.80}.")
    if not any(isinstance(element, (list, Tensor, np.ndarray)) for element in node):
        return [node], (len(node),)
    parts = [_answer_rows(element) for element in node]
    if len(shapes := sorted({shape for _, shape in parts})) > 1:
        raise ValueError(f"answers needs M samples for every prompt, got rows of shapes {shapes[0]} and {shapes[1]}.")
    return [row for rows, _ in parts for row in rows], (len(node), *shapes[0])


def _answer_ids(row: Sequence[Hashable]) -> NDArray[np.int64]:
    """Number the answers of one prompt 0, 1, … in order of appearance; None is −1."""
    numbers: dict[Hashable, int] = {}
    try:
        ids_M = np.array([-1 if answer is None else numbers.setdefault(answer, len(numbers)) for answer in row])
    except TypeError as error:
        raise ValueError(f"answers must be hashable (strings, numbers, tuples) or None: {error}.") from error
    if any(answer != answer for answer in numbers):
        raise ValueError("answers holds NaN, which equals nothing, not even itself; use None for no answer.")
    return ids_M


def _as_prompts(values: Any, name: str) -> FloatArray:
    """One finite number per prompt, float64 of shape (P,)."""
    values_P = as_samples(_plain(values), name, min_samples=0).to("cpu", torch.float64).numpy()
    if values_P.ndim != 1 or len(values_P) == 0:
        raise ValueError(f"{name} needs one number per prompt, shape (P,) with P >= 1, got shape {values_P.shape}.")
    if np.isinf(values_P).any():
        raise ValueError(f"{name} holds an infinite value; a mean over prompts needs finite numbers.")
    return cast(FloatArray, values_P)


def _binary(rewards: Any, metric: str, advice: str) -> Tensor:
    rewards_PM = as_rewards(_plain(rewards))
    others = rewards_PM[(rewards_PM != 0) & (rewards_PM != 1)]
    if len(others):
        raise ValueError(f"{metric} needs rewards of 0 or 1, got {others[0].item():g}; {advice}.")
    return rewards_PM


def _plain(values: Any) -> Any:
    """What torch takes as it is: it would read a list of floats as float32, and refuse a reversed view of an array."""
    try:
        return values if isinstance(values, Tensor) else np.array(values)
    except ValueError:  # ragged, which as_samples says better
        return values


def _like(given: Kind, result: Tensor) -> Kind:
    """The result in the kind of what was given; one number as a NumPy scalar."""
    return result if isinstance(given, Tensor) else result.numpy()[()]
