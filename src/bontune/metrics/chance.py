"""The chance level of a pool: what its samples solve when they are graded against the references of other problems.

A model that has learnt the form of answers and not the problems is right now and then, the more often the more samples
it draws. chance@k says how often. It is exact over all pairs of problems, without any drawing of pairs.

Shapes: ``_P`` problems, ``_M`` samples of one problem, ``_E`` entries: a problem with one of its different answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch

from bontune.metrics.arrays import Kind, Values, as_kind
from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import FloatArray, as_samples
from bontune.objectives.subsets import subset_ratios


def chance_at_k(counts: Kind, num_samples: int | Values, k: int) -> Kind:
    """Probability that at least one of k samples of a problem is right for another problem, by chance.

        chance@k of i = mean over j ≠ i of 1 − C(M_i − c_ij, k) / C(M_i, k);   unbiased for every k ≤ M

    Its mean over the problems is the chance level of the pool, to be read beside pass@k. A problem j with the same
    reference as i is another problem like any other.

    Args:
        counts: (P, P), ``counts[i, j]`` samples of problem i that the reference of problem j accepts; the diagonal is
            left out.
        num_samples: M, one number or (P,) one for each problem.
        k: samples drawn, 1 ≤ k ≤ the smallest M.

    Returns:
        (P,) float64, of the kind of ``counts``.

    Raises:
        ValueError: counts that are no square table of two problems or more, or that are no whole numbers from 0 to M;
            a number of samples below 1; k outside 1..M.

    References:
        docs/estimators.md.

    >>> chance_at_k([[4, 1, 0], [2, 0, 2], [0, 0, 1]], 4, k=2).round(4).tolist()
    [0.25, 0.8333, 0.0]
    """
    table = as_samples(counts, "counts").to(torch.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2:
        raise ValueError(f"counts must have shape (P, P) with P >= 2 problems, got {tuple(table.shape)}.")
    sizes_P = as_samples(np.atleast_1d(np.asarray(num_samples)), "num_samples").to(table.device)
    if sizes_P.shape not in ((1,), (len(table),)) or bool(((sizes_P < 1) | (sizes_P % 1 != 0)).any()):
        raise ValueError(f"num_samples must be M >= 1, or one such number for each problem, got {num_samples!r}.")
    sizes_P = sizes_P.expand(len(table))
    table = table.clone().fill_diagonal_(0.0)
    wrong = table[(table < 0) | (table > sizes_P[:, None]) | (table % 1 != 0)]
    if len(wrong):
        raise ValueError(f"counts must be whole numbers from 0 to the problem's M samples, got {wrong[0].item():g}.")
    chances = torch.empty_like(table[:, 0])
    for m in sizes_P.unique().int().tolist():
        ratios = subset_ratios(m, check_budget(k, m, what="k")).to(table.device)
        of_size = sizes_P == m
        chances[of_size] = (1.0 - ratios[m - table[of_size].long()]).sum(-1) / (len(table) - 1)
    return as_kind(counts, chances)


def chance_parts(
    answers_PM: Sequence[Sequence[Hashable | None]], references_P: Sequence[Hashable | None], ks: Sequence[int]
) -> dict[int, FloatArray]:
    """Return the part of each problem in the chance level, where a reference accepts the answers that equal it.

        part_i = row_i + column_i − mean,   row_i = chance@k of i (:func:`chance_at_k`),
        column_i = mean over j ≠ i of the same for the samples of j against the reference of i

    The mean of the parts is that of chance@k. Resampling the parts resamples a problem both as one that is guessed for
    and as one whose reference is hit, to first order (the projection of a U-statistic of degree two); an interval from
    the rows alone is several times too narrow. A part may be negative. It takes one look at each problem's different
    answers and no table of pairs.

    Args:
        answers_PM: the answers of each problem's samples, which may differ in number; None: no answer.
        references_P: the reference of each of two problems or more; None: it accepts nothing.
        ks: samples drawn, each from 1 to the smallest M.

    Returns:
        k → (P,) parts.

    Raises:
        ValueError: fewer than two problems, unequal lengths, or a k outside 1..M.

    References:
        The projection: van der Vaart, Asymptotic Statistics, Cambridge 1998, chapter 12.

    >>> {k: part.tolist() for k, part in chance_parts([["7", "7"], ["7", "5"]], ["5", "7"], [1, 2]).items()}
    {1: [0.75, 0.75], 2: [1.0, 1.0]}
    """
    num_problems = len(references_P)
    if num_problems < 2 or len(answers_PM) != num_problems:
        raise ValueError(
            f"A chance level needs the answers and references of the same two problems or more, got {len(answers_PM)} "
            f"and {num_problems}."
        )
    codes: dict[Hashable, int] = {}
    code_P = np.array([codes.setdefault(object() if r is None else r, len(codes)) for r in references_P])
    found = [
        (i, codes[answer], number)
        for i, row in enumerate(answers_PM)
        for answer, number in Counter(answer for answer in row if answer is not None).items()
        if answer in codes
    ]
    owner_E, code_E, number_E = np.array(found, dtype=np.int64).reshape(-1, 3).T
    is_own_E = code_P[owner_E] == code_E
    others_E = np.bincount(code_P)[code_E] - is_own_E
    sizes_P = np.array([len(row) for row in answers_PM])
    parts = {}
    for k in ks:
        hit_E = _hits(number_E, sizes_P[owner_E], check_budget(k, int(sizes_P.min()), what="k"))
        rows_P = np.bincount(owner_E, others_E * hit_E, minlength=num_problems)
        own_P = np.bincount(owner_E[is_own_E], hit_E[is_own_E], minlength=num_problems)
        columns_P = np.bincount(code_E, hit_E, minlength=len(codes))[code_P] - own_P
        parts[k] = (rows_P + columns_P - rows_P.mean()) / (num_problems - 1)
    return parts


def chance_parts_of_pairs(
    owner_E: Sequence[int], other_E: Sequence[int], number_E: Sequence[int], sizes_P: Sequence[int], ks: Sequence[int]
) -> dict[int, FloatArray]:
    """Return the same as :func:`chance_parts` from the pairs of problems that accept a sample of each other.

    Args:
        owner_E, other_E: indices of two different problems, each pair at most once.
        number_E: number of the owner's samples that the other problem accepts.
        sizes_P: number of samples of each of two problems or more.
        ks: samples drawn, each from 1 to the smallest M.

    Returns:
        k → (P,) parts.

    Raises:
        ValueError: fewer than two problems, or a k outside 1..M.

    >>> {k: part.tolist() for k, part in chance_parts_of_pairs([0, 1], [1, 0], [2, 1], [2, 2], [1, 2]).items()}
    {1: [0.75, 0.75], 2: [1.0, 1.0]}
    """
    num_problems = len(sizes_P)
    if num_problems < 2:
        raise ValueError(f"A chance level needs two problems or more, got {num_problems}.")
    owners, others = np.asarray(owner_E, dtype=np.int64), np.asarray(other_E, dtype=np.int64)
    numbers, sizes = np.asarray(number_E, dtype=np.int64), np.asarray(sizes_P)
    parts = {}
    for k in ks:
        hit_E = _hits(numbers, sizes[owners], check_budget(k, int(sizes.min()), what="k"))
        rows_P = np.bincount(owners, hit_E, minlength=num_problems)
        columns_P = np.bincount(others, hit_E, minlength=num_problems)
        parts[k] = (rows_P + columns_P - rows_P.mean()) / (num_problems - 1)
    return parts


def _hits(numbers_E: Any, sizes_E: Any, k: int) -> FloatArray:
    """Return the probability that one of k of so many samples is among the numbers that are right."""
    hits_E = np.zeros(len(numbers_E))
    for m in np.unique(sizes_E).tolist():
        of_size = sizes_E == m
        hits_E[of_size] = 1.0 - subset_ratios(m, k).numpy()[m - numbers_E[of_size]]
    return hits_E
