"""What Best-of-N, majority voting and the verifier are worth, for every k ≤ M from one pool of M samples per prompt.

Pure functions of arrays. Every metric of a pool is the mean over all C(M, k) subsets of size k, drawn *without*
replacement: for i.i.d. samples that is unbiased for every k ≤ M, where resampling with replacement is not (one correct
of four gives 0.68 at k = 4 that way; the truth is 1). Take M ≥ 2k for a tolerable variance.

Shapes: ``_M`` the samples of one prompt, always the last axis; leading axes are prompts; ``_P`` one number per prompt;
``_S`` subsets; ``_A`` the distinct answers of one prompt. Rewards may be float, int or bool: a torch tensor gives a
torch tensor on the same device, anything else NumPy, always float64.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bestofn.objectives.inputs import as_rewards, as_samples, as_scores, check_budget
from bestofn.objectives.subsets import best_of_n_value, subset_ratios, tie_groups

FloatArray: TypeAlias = NDArray[np.float64]
NotTensor: TypeAlias = NDArray[Any] | Sequence[Any]

MAX_EXACT_SUBSETS = 5000
"""A weighted vote visits every subset up to this many, and samples subsets beyond."""


@overload
def pass_at_k(rewards: Tensor, k: int) -> Tensor: ...
@overload
def pass_at_k(rewards: NotTensor, k: int) -> FloatArray: ...
def pass_at_k(rewards: Tensor | NotTensor, k: int) -> Tensor | FloatArray:
    """Probability that at least one of k samples is correct.

        pass@k = 1 − C(M−c, k) / C(M, k),   c = number of correct samples

    Unbiased for every k ≤ M; exactly 0 for c = 0 and exactly 1 for c > M − k.

    Args:
        rewards: (..., M), every one 0 or 1.
        k: samples drawn, 1 ≤ k ≤ M.

    Returns:
        (...,) float64.

    Raises:
        ValueError: a reward other than 0 and 1 (use :func:`max_at_k`), NaN, no sample axis, or k outside 1..M.

    References:
        Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374, eq. 1.

    >>> pass_at_k([[1, 0, 0, 0], [1, 1, 0, 0]], k=2).round(4).tolist()
    [0.5, 0.8333]
    """
    rewards_PM = _binary(rewards, "pass_at_k", "for graded rewards use max_at_k")
    num_samples = rewards_PM.shape[-1]
    k = check_budget(k, num_samples, what="k")
    num_wrong = num_samples - rewards_PM.sum(-1).long()
    return _like(rewards, 1.0 - subset_ratios(num_samples, k).to(rewards_PM.device)[num_wrong])


@overload
def max_at_k(rewards: Tensor, k: int) -> Tensor: ...
@overload
def max_at_k(rewards: NotTensor, k: int) -> FloatArray: ...
def max_at_k(rewards: Tensor | NotTensor, k: int) -> Tensor | FloatArray:
    """Expected highest reward among k samples: pass@k for graded rewards, and pass@k itself for rewards of 0 or 1.

        max@k = Σ_i C(i−1, k−1) R_(i) / C(M, k),   R_(1) ≤ … ≤ R_(M)

    Unbiased for every k ≤ M.

    Args:
        rewards: (..., M), finite.
        k: samples drawn, 1 ≤ k ≤ M.

    Returns:
        (...,) float64.

    Raises:
        ValueError: NaN or infinite rewards, no sample axis, or k outside 1..M.

    References:
        Walder and Karkhanis, Pass@K Policy Optimization, arXiv 2505.15201.

    >>> float(max_at_k([1.0, 2.0, 4.0], k=2))  # (2 + 4 + 4) / 3
    3.3333333333333335
    """
    rewards_PM = as_rewards(_plain(rewards))
    k = check_budget(k, rewards_PM.shape[-1], what="k")
    return _like(rewards, best_of_n_value(rewards_PM, rewards_PM, k))


@overload
def best_of_k(rewards: Tensor, scores: Tensor | NotTensor, k: int) -> Tensor: ...
@overload
def best_of_k(rewards: NotTensor, scores: Tensor | NotTensor, k: int) -> FloatArray: ...
def best_of_k(rewards: Tensor | NotTensor, scores: Tensor | NotTensor, k: int) -> Tensor | FloatArray:
    """Expected reward of the sample the verifier picks out of k: highest score, uniformly among ties.

        Ĵ_k = Σ_v [C(L_v+m_v, k) − C(L_v, k)] / C(M, k) · R̄_v

    over the scores v: L_v samples score below v, m_v score v, with mean reward R̄_v. Exact, and unbiased for every k ≤ M.

    Args:
        rewards: (..., M), finite.
        scores: (..., M), any real dtype; only order and ties matter, ±inf is allowed.
        k: samples drawn, 1 ≤ k ≤ M.

    Returns:
        (...,) float64, of the kind of ``rewards``.

    Raises:
        ValueError: NaN in either, infinite rewards, unequal shapes, no sample axis, or k outside 1..M.

    References:
        Chow et al., Inference-Aware Fine-Tuning for Best-of-N Sampling in Large Language Models, arXiv 2412.15287.

    >>> float(best_of_k([1, 0, 0], scores=[0.2, 0.9, 0.1], k=2))  # wins only the pair (0.2, 0.1)
    0.3333333333333333
    """
    rewards_PM = as_rewards(_plain(rewards))
    scores_PM = as_scores(_plain(scores), rewards_PM)
    k = check_budget(k, rewards_PM.shape[-1], what="k")
    return _like(rewards, best_of_n_value(rewards_PM, scores_PM, k))


@overload
def oracle_gap(rewards: Tensor, scores: Tensor | NotTensor, k: int) -> Tensor: ...
@overload
def oracle_gap(rewards: NotTensor, scores: Tensor | NotTensor, k: int) -> FloatArray: ...
def oracle_gap(rewards: Tensor | NotTensor, scores: Tensor | NotTensor, k: int) -> Tensor | FloatArray:
    """What the verifier leaves on the table: max@k − best-of-k, which is pass@k − best-of-k for rewards of 0 or 1.

    Never negative, and 0 for a verifier that orders the samples as the rewards do.

    Args, Returns, Raises: as :func:`best_of_k`.

    References:
        Brown et al., Large Language Monkeys: Scaling Inference Compute with Repeated Sampling, arXiv 2407.21787, §4.

    >>> float(oracle_gap([1, 0], scores=[0.1, 0.9], k=2))
    1.0
    """
    rewards_PM = as_rewards(_plain(rewards))
    scores_PM = as_scores(_plain(scores), rewards_PM)
    k = check_budget(k, rewards_PM.shape[-1], what="k")
    gap = best_of_n_value(rewards_PM, rewards_PM, k) - best_of_n_value(rewards_PM, scores_PM, k)
    return _like(rewards, gap.clamp(min=0.0))  # rounding can leave −1e-17


@overload
def within_prompt_auc(rewards: Tensor, scores: Tensor | NotTensor) -> Tensor: ...
@overload
def within_prompt_auc(rewards: NotTensor, scores: Tensor | NotTensor) -> FloatArray: ...
def within_prompt_auc(rewards: Tensor | NotTensor, scores: Tensor | NotTensor) -> Tensor | FloatArray:
    """How well the verifier ranks correct above wrong samples *of the same prompt*; the prompt's difficulty cancels.

        AUC = P(score of correct > score of wrong) + ½ P(equal scores)

    Args:
        rewards: (..., M), every one 0 or 1.
        scores: (..., M), any real dtype; only order and ties matter, ±inf is allowed.

    Returns:
        (...,) float64 of the kind of ``rewards``, exact; NaN exactly for the prompts without both a correct and a wrong
        sample, where it is undefined. Average the others (``np.nanmean``); a NaN is never a 0 or a ½.

    Raises:
        ValueError: a reward other than 0 and 1, NaN in the inputs, unequal shapes, or no sample axis.

    References:
        Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, Radiology 143(1), 1982.

    >>> within_prompt_auc([[1, 0, 0], [1, 1, 1]], scores=[[0.5, 0.5, 0.1], [0.3, 0.2, 0.1]]).tolist()
    [0.75, nan]
    """
    rewards_PM = _binary(rewards, "within_prompt_auc", "pass correctness, not graded rewards")
    groups = tie_groups(rewards_PM, as_scores(_plain(scores), rewards_PM))
    num_correct = groups.rewards.sum(-1)
    num_wrong = rewards_PM.shape[-1] - num_correct
    rank_sum = (groups.rewards * (groups.below + groups.upto + 1)).sum(-1) / 2  # mid-ranks of the correct samples
    wins = rank_sum - num_correct * (num_correct + 1) / 2
    return _like(rewards, torch.where(num_correct * num_wrong > 0, wins / (num_correct * num_wrong), math.nan))


@overload
def majority_at_k(
    answers: Tensor | NotTensor,
    rewards: Tensor,
    k: int,
    weights: Tensor | NotTensor | None = None,
    *,
    num_draws: int = ...,
    seed: int = ...,
) -> Tensor: ...
@overload
def majority_at_k(
    answers: Tensor | NotTensor,
    rewards: NotTensor,
    k: int,
    weights: Tensor | NotTensor | None = None,
    *,
    num_draws: int = ...,
    seed: int = ...,
) -> FloatArray: ...
def majority_at_k(
    answers: Tensor | NotTensor,
    rewards: Tensor | NotTensor,
    k: int,
    weights: Tensor | NotTensor | None = None,
    *,
    num_draws: int = 4096,
    seed: int = 0,
) -> Tensor | FloatArray:
    """Expected reward of the answer that k samples elect, uniformly among tied answers.

        maj@k = Σ_a R̄_a · P(a is elected by a random k-subset),   R̄_a = mean reward of a's holders in the pool

    None abstains; a subset in which all abstain elects nothing and earns 0. Plain votes are exact for every k ≤ M.
    Weighted votes add up the weights of an answer's holders in the subset (an answer without a holder is no candidate,
    even where all sums are negative; sums within 1e-12·Σ|weight| are tied): exact if C(M, k) ≤ 5000, which includes
    k = 1 and k = M, else the mean over ``num_draws`` random subsets, the same ones for every prompt, so that a prompt's
    value depends on nothing but the prompt. Its standard error is at most (highest − lowest reward)/(2√num_draws).

    Args:
        answers: (..., M) of hashables; lists, arrays and tensors are axes, all else is an answer, tuples included. Equal
            means equal in Python (1 == 1.0 == True): bring answers to a normal form first.
        rewards: (..., M), finite.
        k: votes drawn, 1 ≤ k ≤ M.
        weights: None for one vote each, or (..., M) finite verifier scores.
        num_draws: subsets sampled for a weighted vote with C(M, k) > 5000, at least 1.
        seed: of the subsets sampled.

    Returns:
        (...,) float64, of the kind of ``rewards``.

    Raises:
        ValueError: unequal shapes, unhashable or NaN answers, NaN or infinite rewards or weights, k outside 1..M, or
            num_draws below 1.

    References:
        Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models, arXiv 2203.11171.
        Li et al., Making Language Models Better Reasoners with Step-Aware Verifier, arXiv 2206.02336 (weighted vote).

    >>> float(majority_at_k(["7", "7", "5", None], rewards=[1, 1, 0, 0], k=2))  # 6 pairs: 77 7- 7- earn 1, 75 75 earn ½
    0.6666666666666666
    """
    rewards_PM = as_rewards(_plain(rewards))
    m = rewards_PM.shape[-1]
    k = check_budget(k, m, what="k")
    num_draws = _at_least_one(num_draws, "num_draws")
    rows, shape = _answer_rows(answers)
    if shape != tuple(rewards_PM.shape):
        raise ValueError(f"answers and rewards need the same shape, got {shape} and {tuple(rewards_PM.shape)}.")
    ballots = [_Ballot.of(row, reward_M) for row, reward_M in zip(rows, _rows_of(rewards_PM), strict=True)]
    if weights is None:
        values = [_plain_vote(ballot, k) for ballot in ballots]
    else:
        weights_PM = as_scores(_plain(weights), rewards_PM).to(torch.float64)
        if bool(weights_PM.isinf().any()):
            raise ValueError("weights holds an infinite value; votes are summed, so weights must be finite.")
        subsets_SM = _subsets(m, k, num_draws, seed)
        pairs = zip(ballots, _rows_of(weights_PM), strict=True)
        values = [_weighted_vote(ballot, weight_M, subsets_SM) for ballot, weight_M in pairs]
    result = torch.tensor(values, dtype=torch.float64, device=rewards_PM.device)
    return _like(rewards, result.reshape(rewards_PM.shape[:-1]))


def distinct_answers(answers: Tensor | NotTensor) -> NDArray[np.int64]:
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
    rows, shape = _answer_rows(answers)
    return np.array([len(_answer_ids(row)[1]) for row in rows], dtype=np.int64).reshape(shape[:-1])


def answer_entropy(answers: Tensor | NotTensor) -> FloatArray:
    """Entropy of a prompt's answers in nats, over the samples that give one.

        H = −Σ_a p_a log p_a,   p_a = share of a among the answers that are not None

    The plug-in estimate: biased low, by about (distinct − 1)/(2M). 0 where all agree, and where none answers.

    Args:
        answers: (..., M), as in :func:`majority_at_k`.

    Returns:
        (...,) float64 NumPy array, 0..log M.

    Raises:
        ValueError: as :func:`distinct_answers`.

    References:
        Miller, Note on the Bias of Information Estimates, in Information Theory in Psychology, 1955.

    >>> answer_entropy([["7", "7", "5", "5"], ["7", "7", None, None]]).round(4).tolist()
    [0.6931, 0.0]
    """
    rows, shape = _answer_rows(answers)
    counts = [_answer_ids(row)[1] for row in rows]
    shares = [count_A / max(count_A.sum(), 1) for count_A in counts]
    return np.array([-(p * np.log(p)).sum() + 0.0 for p in shares], dtype=np.float64).reshape(shape[:-1])


def default_ks(num_samples: int) -> list[int]:
    """The budgets to report for a pool: 1, 2, 4, … up to ``num_samples``.

    Raises:
        ValueError: num_samples is no integer or below 1.

    >>> default_ks(12)
    [1, 2, 4, 8]
    """
    return [1 << i for i in range(_at_least_one(num_samples, "num_samples").bit_length())]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean over prompts with its bootstrap interval."""

    value: float
    """The mean over the prompts at hand."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


def bootstrap_interval(
    values_P: Tensor | NotTensor, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of the mean over prompts.

    Prompts are drawn with replacement, P of them per resample; the interval spans the (1 ∓ level)/2 quantiles of the
    resampled means. It covers the choice of prompts, not the M samples drawn for each beyond what shows between
    prompts; it is narrow for few prompts (some 2 % under-coverage at P = 30) and has width 0 for P = 1.

    Args:
        values_P: (P,) one finite number per prompt.
        level: nominal coverage, 0 < level < 1.
        num_resamples: at least 1; memory does not grow with it.
        seed: of the resampling.

    Raises:
        ValueError: values_P is not one-dimensional, empty, NaN or infinite; level or num_resamples out of range.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, Chapman & Hall 1993, chapter 13.

    >>> bootstrap_interval([1.0, 1.0, 1.0])
    Interval(value=1.0, low=1.0, high=1.0)
    """
    values = _as_prompts(values_P, "values_P")
    num_resamples = _at_least_one(num_resamples, "num_resamples")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level!r}.")
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    chunk = max(1, (1 << 20) // len(values))  # 8 MiB of indices, 8 MiB of values
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        means[start : start + size] = values[rng.integers(len(values), size=(size, len(values)))].mean(-1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=float(values.mean()), low=float(low), high=float(high))


def paired_difference(
    a_P: Tensor | NotTensor, b_P: Tensor | NotTensor, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Bootstrap interval of mean(a − b) for two runs on the same prompts.

    Each resample takes the same prompts from both, so the difficulty of the prompts cancels: a clear difference can have
    two overlapping :func:`bootstrap_interval`. The prompts must be in the same order.

    Args:
        a_P, b_P: (P,) one finite number per prompt.
        level, num_resamples, seed: as :func:`bootstrap_interval`.

    Raises:
        ValueError: a_P and b_P differ in length; otherwise as :func:`bootstrap_interval`.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, Chapman & Hall 1993, chapters 8 and 13.

    >>> paired_difference([1.0, 0.5, 0.0], [0.5, 0.0, -0.5])
    Interval(value=0.5, low=0.5, high=0.5)
    """
    a, b = _as_prompts(a_P, "a_P"), _as_prompts(b_P, "b_P")
    if a.shape != b.shape:
        raise ValueError(f"a_P and b_P must hold the same prompts in the same order, got {len(a)} and {len(b)} values.")
    return bootstrap_interval(a - b, level, num_resamples, seed)


# --- voting -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ballot:
    """The answers of one prompt's pool, numbered."""

    ids: NDArray[np.int64]
    """(M,) number of each sample's answer, −1 where it abstains."""
    counts: NDArray[np.int64]
    """(A,) holders of each answer."""
    rewards: FloatArray
    """(A,) mean reward of the holders."""

    @classmethod
    def of(cls, row: Sequence[Hashable], rewards_M: FloatArray) -> _Ballot:
        ids, counts = _answer_ids(row)
        sums = np.bincount(ids[ids >= 0], weights=rewards_M[ids >= 0], minlength=len(counts))
        return cls(ids=ids, counts=counts, rewards=sums / counts)


def _plain_vote(ballot: _Ballot, k: int) -> float:
    """Exact expected reward of a vote with one voice per sample; answers with equally many holders have equal chances."""
    if len(ballot.counts) == 0:
        return 0.0
    counts, kind = np.unique(ballot.counts, return_inverse=True)
    sizes = np.bincount(kind)
    chance = _election_chances(tuple(counts.tolist()), tuple(sizes.tolist()), len(ballot.ids), k)
    return float(chance[kind] @ ballot.rewards)


@functools.lru_cache(maxsize=4096)
def _election_chances(counts: tuple[int, ...], sizes: tuple[int, ...], m: int, k: int) -> FloatArray:
    """P(a given answer is elected by a random k-subset of the pool), for an answer of each count.

    The votes x_b that the answers get in a random k-subset are independent Binomial(n_b, k/M), with weights β_b(x),
    conditioned on their total being k (abstentions included). With 1/(1+j) = ∫ yʲ dy for the j rivals tied with a,

        P(a elected) ∝ Σ_t β_a(t) · [x^{k−t}] ∫₀¹ Π_{b≠a} (Σ_{u<t} β_b(u) xᵘ + y β_b(t) xᵗ) dy

    The product is evaluated at the (M+1)th roots of unity, one inverse DFT reads off the coefficient, and Gauss–Legendre
    with enough nodes for the degree in y is exact: no approximation but float64 rounding (some 1e-14). Answers with
    fewer than t holders cannot reach t, so they and the abstainers together are one Binomial.

    Args:
        counts: distinct numbers of holders, ascending.
        sizes: how many answers have each.
    """
    points = m + 1
    votes = [_binomial(n, m, k) for n in counts]
    chances = np.zeros(len(counts))
    for t in range(1, min(k, counts[-1]) + 1):
        first = next(c for c, n in enumerate(counts) if n >= t)
        at_t = np.array([vote[t] for vote in votes[first:]])
        if not at_t.any():
            continue
        num_able = sum(sizes[first:])
        num_rest = m - sum(n * size for n, size in zip(counts[first:], sizes[first:], strict=True))
        y, dy = _unit_quadrature(min(num_able, k // t) - 1)
        below_t = np.stack([np.fft.rfft(vote[:t], points) for vote in votes[first:]])
        x_t = np.exp(-2j * np.pi / points * (t * np.arange(points // 2 + 1) % points))
        factors = below_t[:, None] + at_t[:, None, None] * y[:, None] * x_t  # (kinds of answers, nodes, points)
        powers = np.array(sizes[first:])[:, None, None] - 1
        shared = np.fft.rfft(_binomial(num_rest, m, k), points) * (factors**powers).prod(0)
        # All kinds but one, by products from both sides: a factor may be 0, so there is nothing to divide by.
        ones = np.ones_like(factors[:1])
        before = np.cumprod(np.concatenate([ones, factors[:-1]]), axis=0)
        after = np.cumprod(np.concatenate([ones, factors[:0:-1]]), axis=0)[::-1]
        chances[first:] += at_t * np.fft.irfft(dy @ (shared * before * after), points)[:, k - t]
    num_abstain = m - sum(n * size for n, size in zip(counts, sizes, strict=True))
    someone_votes = 1.0 - float(subset_ratios(m, k)[num_abstain])
    chances = chances.clip(min=0.0)
    return cast(FloatArray, chances * (someone_votes / (chances @ np.array(sizes))))


def _binomial(n: int, m: int, k: int) -> FloatArray:
    """Binomial(n, k/M) as (n + 1,) probabilities, built outwards from the mode so that nothing over- or underflows."""
    mode = min(n, (n + 1) * k // m)
    up, down = np.arange(mode, n), np.arange(mode, 0, -1)
    rise = np.cumprod((n - up) * k / ((up + 1) * max(m - k, 1)))
    fall = np.cumprod(down * (m - k) / ((n - down + 1) * k))
    pmf = np.concatenate([fall[::-1], [1.0], rise])
    return cast(FloatArray, pmf / pmf.sum())


@functools.lru_cache(maxsize=256)
def _unit_quadrature(degree: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights on [0, 1] that integrate polynomials of this degree exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    return (nodes + 1) / 2, weights / 2


def _subsets(m: int, k: int, num_draws: int, seed: int) -> FloatArray:
    """(S, M) of 0 and 1: every k-subset where they are few, else ``num_draws`` random ones."""
    if math.comb(m, k) <= MAX_EXACT_SUBSETS:
        members = np.array(list(itertools.combinations(range(m), k)))
    else:
        members = np.random.default_rng(seed).random((num_draws, m)).argpartition(k - 1, axis=1)[:, :k]
    subsets_SM = np.zeros((len(members), m))
    np.put_along_axis(subsets_SM, members, 1.0, axis=1)
    return subsets_SM


def _weighted_vote(ballot: _Ballot, weights_M: FloatArray, subsets_SM: FloatArray) -> float:
    """Mean over the subsets of the reward of the answer with the largest sum of weights."""
    if len(ballot.counts) == 0:
        return 0.0
    holds_MA = ballot.ids[:, None] == np.arange(len(ballot.counts))
    is_candidate_SA = subsets_SM @ holds_MA > 0
    sums_SA = np.where(is_candidate_SA, subsets_SM @ (holds_MA * weights_M[:, None]), -np.inf)
    slack = 1e-12 * np.abs(weights_M).sum()  # equal weights added in another order differ by rounding
    is_elected_SA = is_candidate_SA & (sums_SA >= sums_SA.max(-1, keepdims=True) - slack)
    return float((is_elected_SA @ ballot.rewards / is_elected_SA.sum(-1).clip(min=1)).mean())


# --- inputs -----------------------------------------------------------------------------------------------------------


def _answer_rows(answers: object) -> tuple[list[list[Hashable]], tuple[int, ...]]:
    """All prompts' answers as one list of rows, and the shape (..., M) they came in."""
    node = answers.tolist() if isinstance(answers, (Tensor, np.ndarray)) else answers
    if not isinstance(node, list) or not node:
        raise ValueError(f"answers must be a list or array of shape (..., M) with M >= 1, got {answers!r:.80}.")
    is_nested = [isinstance(element, (list, Tensor, np.ndarray)) for element in node]
    if not any(is_nested):
        return [node], (len(node),)
    if not all(is_nested):
        raise ValueError("answers mixes lists with single answers at one depth; every prompt needs its list of M answers.")
    parts = [_answer_rows(element) for element in node]
    shapes = sorted({shape for _, shape in parts})
    if len(shapes) > 1:
        raise ValueError(f"answers needs equally many samples for every prompt, got rows of shapes {shapes[0]}, {shapes[1]}.")
    return [row for rows, _ in parts for row in rows], (len(node), *shapes[0])


def _answer_ids(row: Sequence[Hashable]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the answers of one prompt in order of appearance (None is −1) and count the holders of each."""
    numbers: dict[Hashable, int] = {}
    try:
        ids = np.array([-1 if answer is None else numbers.setdefault(answer, len(numbers)) for answer in row])
    except TypeError as error:
        raise ValueError(f"answers must be hashable (strings, numbers, tuples) or None: {error}.") from error
    if any(isinstance(answer, float) and math.isnan(answer) for answer in numbers):
        raise ValueError("answers holds NaN, which equals nothing, not even itself; use None for no answer.")
    return ids, np.bincount(ids[ids >= 0], minlength=len(numbers))


def _as_prompts(values: Any, name: str) -> FloatArray:
    """One finite number per prompt, float64 of shape (P,)."""
    try:
        values_P = torch.as_tensor(_plain(values)).detach().to("cpu", torch.float64).numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers of shape (P,), got {type(values).__name__}.") from error
    if values_P.ndim != 1 or len(values_P) == 0:
        raise ValueError(f"{name} needs one number per prompt, shape (P,) with P >= 1, got shape {values_P.shape}.")
    if not np.isfinite(values_P).all():
        raise ValueError(f"{name} holds NaN or an infinite value; drop the prompts where the metric is undefined.")
    return cast(FloatArray, values_P)


def _at_least_one(count: Any, name: str) -> int:
    if isinstance(count, bool) or not hasattr(count, "__index__") or int(count.__index__()) < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {count!r}.")
    return int(count.__index__())


def _binary(rewards: Any, metric: str, advice: str) -> Tensor:
    rewards_PM = as_samples(_plain(rewards), "rewards", min_samples=1).to(torch.float64)
    is_other = (rewards_PM != 0) & (rewards_PM != 1)
    if bool(is_other.any()):
        raise ValueError(f"{metric} needs rewards of 0 or 1, got {rewards_PM[is_other][0].item():g}; {advice}.")
    return rewards_PM


def _plain(values: Any) -> Any:
    """A NumPy array that torch takes as it is: reversed and read-only views (as from Arrow) are copied."""
    return values.copy() if isinstance(values, np.ndarray) else values


def _rows_of(values_PM: Tensor) -> FloatArray:
    return cast(FloatArray, values_PM.reshape(-1, values_PM.shape[-1]).cpu().numpy())


def _like(given: Tensor | NotTensor, result: Tensor) -> Tensor | FloatArray:
    """The result in the kind of what was given."""
    return result if isinstance(given, Tensor) else cast(FloatArray, result.numpy())
