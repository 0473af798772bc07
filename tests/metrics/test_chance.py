"""The chance level against brute force over all subsets and pairings, and its interval against drawn worlds.

1. chance@k of a problem is the mean, over all other problems and all C(M, k) subsets, of a hit.
2. The parts have the mean of chance@k, and are rows plus columns minus mean, for unequal M and equal references, too.
3. The spread of the parts is that of the level in new worlds; the spread of the rows is far below it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bontune.metrics import chance_at_k, chance_parts, chance_parts_of_pairs, pass_at_k

CLOSE = {"rtol": 0, "atol": 1e-12}
ANSWERS = ["1", "2", "3", "4", None]


def hit_rate(answers: Sequence[str | None], reference: str | None, k: int) -> float:
    """Share of the subsets of k answers that hold the reference."""
    subsets = list(itertools.combinations(answers, k))
    return sum(reference is not None and reference in subset for subset in subsets) / len(subsets)


def pairs(answers: Sequence[Sequence[str | None]], references: Sequence[str | None], k: int) -> np.ndarray:
    """Hit rate of every problem's answers by every reference; NaN on the diagonal."""
    table = np.array([[hit_rate(row, reference, k) for reference in references] for row in answers])
    np.fill_diagonal(table, np.nan)
    return table


def drawn(sizes: Sequence[int], seed: int) -> tuple[list[list[str | None]], list[str | None]]:
    rng = np.random.default_rng(seed)
    answers = [[ANSWERS[i] for i in rng.integers(5, size=m)] for m in sizes]
    return answers, [ANSWERS[i] for i in rng.integers(5, size=len(sizes))]


@pytest.mark.parametrize("sizes", [(4, 4), (5,) * 6, (3, 6, 4, 6, 5)])
@pytest.mark.parametrize("seed", range(4))
def test_brute_force_over_subsets_and_pairings(sizes: tuple[int, ...], seed: int) -> None:
    answers, references = drawn(sizes, seed)
    counts = np.array([[0 if r is None else row.count(r) for r in references] for row in answers])
    ks = range(1, min(sizes) + 1)
    parts = chance_parts(answers, references, ks)
    owners, others = np.nonzero(counts * (1 - np.eye(len(sizes), dtype=int)))
    of_pairs = chance_parts_of_pairs(owners, others, counts[owners, others], sizes, ks)
    for k in ks:
        np.testing.assert_allclose(of_pairs[k], parts[k], **CLOSE)
        table = pairs(answers, references, k)
        rows, columns = np.nanmean(table, axis=1), np.nanmean(table, axis=0)
        np.testing.assert_allclose(chance_at_k(counts, np.array(sizes), k), rows, **CLOSE)
        np.testing.assert_allclose(parts[k], rows + columns - rows.mean(), **CLOSE)
        np.testing.assert_allclose(parts[k].mean(), np.nanmean(table), **CLOSE)


def test_two_problems_are_graded_crosswise() -> None:
    """With two problems, chance@k is pass@k by the other's reference."""
    counts = np.array([[9, 2], [1, 9]])
    expected = pass_at_k([[1, 1, 0, 0], [1, 0, 0, 0]], 2)
    np.testing.assert_allclose(chance_at_k(counts, 4, 2), expected, **CLOSE)


def test_the_kind_comes_back_and_extremes_are_exact() -> None:
    counts = torch.tensor([[0, 8, 8], [0, 0, 0], [4, 0, 0]], dtype=torch.int16)
    found = chance_at_k(counts, 8, 5)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float64
    assert found.tolist() == [1.0, 0.0, 0.5], "4 of 8: five draws always hold one of them"
    assert isinstance(chance_at_k(counts.numpy(), 8, 5), np.ndarray)
    assert chance_at_k([[99, 8], [1, -1]], [8, 1], 1).tolist() == [1.0, 1.0], "the diagonal is left out"
    assert {k: part.tolist() for k, part in chance_parts([["1"], ["2"]], [None, None], [1]).items()} == {1: [0.0, 0.0]}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: chance_at_k([[1, 2, 3]], 4, 1), "shape"),
        (lambda: chance_at_k([[1]], 4, 1), "P >= 2"),
        (lambda: chance_at_k([[0, 5], [0, 0]], 4, 1), "got 5"),
        (lambda: chance_at_k([[0, 3], [4, 0]], [4, 3], 1), "got 4"),
        (lambda: chance_at_k([[0, -1], [0, 0]], 4, 1), "got -1"),
        (lambda: chance_at_k([[0, 0.5], [0, 0]], 4, 1), "got 0.5"),
        (lambda: chance_at_k([[0, math.nan], [0, 0]], 4, 1), "NaN"),
        (lambda: chance_at_k([[0, 1], [0, 0]], [4, 4, 4], 1), "num_samples"),
        (lambda: chance_at_k([[0, 1], [0, 0]], 0, 1), "num_samples"),
        (lambda: chance_at_k([[0, 1], [0, 0]], 3.5, 1), "num_samples"),
        (lambda: chance_at_k([[0, 1], [0, 0]], [4, 3], 4), "k = 4"),
        (lambda: chance_at_k([[0, 1], [0, 0]], 4, 0), "k must be at least 1"),
        (lambda: chance_parts([["1"]], ["1"], [1]), "two problems"),
        (lambda: chance_parts([["1"], ["2"]], ["1", "2", "3"], [1]), "got 2 and 3"),
        (lambda: chance_parts([["1"], ["2"]], ["1", "2"], [2]), "k = 2"),
        (lambda: chance_parts_of_pairs([], [], [], [4], [1]), "two problems"),
    ],
)
def test_what_is_wrong_is_said(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_parts_spread_as_the_level_does_in_new_worlds() -> None:
    """Small references are hit often and large ones hardly ever, so that most of the spread lies in the columns."""
    rng = np.random.default_rng(0)
    num_worlds, num_problems, m, k = 300, 60, 8, 8
    levels, from_parts, from_rows = [], [], []
    for _ in range(num_worlds):
        references = rng.geometric(0.06, size=num_problems).tolist()
        answers = rng.geometric(rng.uniform(0.03, 0.3, size=(num_problems, 1)), size=(num_problems, m)).tolist()
        counts = np.array([[row.count(reference) for reference in references] for row in answers])
        parts, rows = chance_parts(answers, references, [k])[k], chance_at_k(counts, m, k)
        levels.append(parts.mean())
        from_parts.append(parts.var() / num_problems)
        from_rows.append(rows.var() / num_problems)
    spread = np.std(levels)  # its own standard error is 4 %
    assert 0.88 < np.sqrt(np.mean(from_parts)) / spread < 1.14
    assert np.sqrt(np.mean(from_rows)) < 0.5 * spread
