"""The distribution over answers against enumeration: of subsets, of whole samples, of the orders of tied answers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bontune.metrics import AnswerDistribution, answer_distribution, answer_entropy, distinct_answers, pass_at_k

SAMPLES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.sampled_from([0.0, 0.25, 1.0]), st.integers(0, 2)),
    min_size=1,
    max_size=7,
)


def of(answers: list[Any], rewards: list[float] | None = None, **more: Any) -> AnswerDistribution:
    return answer_distribution(answers, [0.0] * len(answers) if rewards is None else rewards, **more)


def chao_wang_jost(counts: list[int]) -> float:
    """As printed in the paper, the part that cancels in 60 digits."""
    n, once, twice = sum(counts), counts.count(1), counts.count(2)
    total = sum(Fraction(x, n) * sum(Fraction(1, k) for k in range(x, n)) for x in counts)
    if once == 0:
        return float(total)
    a = Fraction(2 * twice, (n - 1) * once + 2 * twice) if twice else Fraction(2, (n - 1) * (once - 1) + 2)
    if a == 1:
        return float(total)
    with localcontext() as context:
        context.prec = 60
        x = 1 - Decimal(a.numerator) / Decimal(a.denominator)
        bracket = -(1 - x).ln() - sum((x**r / r for r in range(1, n)), Decimal(0))
        return float(total) + once / n * float(x ** (1 - n) * bracket)


@settings(deadline=None, max_examples=150)
@given(SAMPLES, st.data())
def test_everything_equals_brute_force(samples: list[tuple[str | None, float, int]], data: st.DataObject) -> None:
    answers, rewards, scores = (list(column) for column in zip(*samples, strict=True))
    m = len(answers)
    drawn = data.draw(st.integers(1, m))
    found = of(answers, rewards, scores=scores, num_drawn=drawn, num_ranks=3)
    counts = Counter(answer for answer in answers if answer is not None)
    means = {a: sum(r for b, r in zip(answers, rewards, strict=True) if a == b) / counts[a] for a in counts}
    correct = {a for a in counts if means[a] > 0.5}

    subsets = list(itertools.combinations(range(m), drawn))
    given_in = [{answers[i] for i in subset} - {None} for subset in subsets]
    assert found.distinct_P == pytest.approx(sum(map(len, given_in)) / len(subsets))
    assert found.distinct_correct_P == pytest.approx(sum(len(g & correct) for g in given_in) / len(subsets))
    assert found.entropy_P == pytest.approx(chao_wang_jost(list(counts.values())), abs=1e-12)
    assert found.coverage_P == pytest.approx(1 - list(counts.values()).count(1) / m)
    assert found.top_P == max(counts.values(), default=0) / m
    assert found.best_P == max((counts[a] for a in correct), default=0) / m
    assert found.correct_P == pytest.approx(sum(rewards) / m) == pytest.approx(pass_like(rewards))
    assert found.answered_P == counts.total() / m
    chosen = [counts[a] / m for a, score in zip(answers, scores, strict=True) if score == max(scores)]
    assert found.chosen_P == pytest.approx(sum(chosen) / len(chosen))

    # Ranks: every order of the answers that has frequent ones first, all equally likely.
    orders = [
        order
        for order in itertools.permutations(counts)
        if all(counts[x] >= counts[y] for x, y in itertools.pairwise(order))
    ]
    mass, rewarded = np.zeros(4), np.zeros(4)
    for order in orders:
        for place, a in enumerate(order):
            mass[min(place, 3)] += counts[a] / m / len(orders)
            rewarded[min(place, 3)] += counts[a] * means[a] / m / len(orders)
    np.testing.assert_allclose(found.ranked_PR, mass, atol=1e-12)
    np.testing.assert_allclose(found.ranked_correct_PR, rewarded, atol=1e-12)


def pass_like(rewards: list[float]) -> float:
    """pass@1 where rewards are 0 and 1, else their mean."""
    is_binary = set(rewards) <= {0.0, 1.0}
    return float(pass_at_k(np.array(rewards), 1)) if is_binary else float(np.mean(rewards))


@settings(deadline=None, max_examples=60)
@given(SAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(samples: list[tuple[str | None, float, int]], random: Any) -> None:
    shuffled = random.sample(samples, len(samples))
    one, other = (
        of(*(list(column) for column in list(zip(*rows, strict=True))[:2]), scores=[row[2] for row in rows])
        for rows in (samples, shuffled)
    )
    for name in AnswerDistribution.__slots__:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12, err_msg=name)


P_KNOWN = (0.5, 0.3, 0.2)


def test_rarefaction_and_coverage_are_unbiased_by_enumeration() -> None:
    """Over all 3⁵ samples of five from a known distribution."""
    m, drawn = 5, 3
    chances, distinct, coverage = [], [], []
    for sample in itertools.product(range(3), repeat=m):
        found = of(list(sample), num_drawn=drawn)
        chances.append(math.prod(P_KNOWN[a] for a in sample))
        distinct.append(float(found.distinct_P))
        coverage.append(float(found.coverage_P))
    assert math.fsum(chances) == pytest.approx(1)
    assert np.dot(chances, distinct) == pytest.approx(sum(1 - (1 - p) ** drawn for p in P_KNOWN))
    seen_by_one_fewer = sum(p * (1 - (1 - p) ** (m - 1)) for p in P_KNOWN)
    assert np.dot(chances, coverage) == pytest.approx(seen_by_one_fewer)


def test_entropy_of_answers_given_often_enough_is_unbiased_up_to_its_order() -> None:
    """Over all 3⁵ samples: without the part for unseen answers, Σ_{k<n} Σ_a p(1 − p)ᵏ/k exactly."""
    m, chances, seen, whole = 5, [], [], []
    for sample in itertools.product(range(3), repeat=m):
        counts = Counter(sample).values()
        chances.append(math.prod(P_KNOWN[a] for a in sample))
        seen.append(sum(x / m * sum(1 / k for k in range(x, m)) for x in counts))
        whole.append(float(of(list(sample)).entropy_P))
    truncated = sum(p * (1 - p) ** k / k for p in P_KNOWN for k in range(1, m))
    assert np.dot(chances, seen) == pytest.approx(truncated)
    truth = -sum(p * math.log(p) for p in P_KNOWN)
    assert truncated < truth
    assert abs(np.dot(chances, whole) - truth) < 0.3 * (
        truth
        - np.dot(chances, [float(answer_entropy(list(sample))) for sample in itertools.product(range(3), repeat=m)])
    )


@pytest.mark.parametrize(
    "counts",
    [
        [1] * 64,
        [1] * 30 + [2],
        [1, 1, 2, 60],
        [1, 63],
        [2] * 200,
        [1] * 3 + [2] * 150 + [5] * 40,
        [1] * 500,
        [1, 1],
        [1] * 20 + [2] * 90 + [30],
    ],
)
def test_entropy_is_as_the_paper_prints_it(counts: list[int]) -> None:
    answers = [a for a, count in enumerate(counts) for _ in range(count)]
    assert of(answers).entropy_P == pytest.approx(chao_wang_jost(counts), rel=1e-11)


def test_at_all_samples_it_counts_distinct_answers() -> None:
    answers = [["a", "b", None, "a"], [None] * 4, ["x", "y", "z", "w"]]
    found = answer_distribution(answers, np.zeros((3, 4)))
    assert found.distinct_P.tolist() == distinct_answers(answers).tolist()
    assert found.num_drawn == found.num_samples == 4


@pytest.mark.parametrize(
    ("p", "m"),
    [
        ((0.5, 0.5), 16),
        (tuple(1 / 20 for _ in range(20)), 32),
        (tuple(2.0**-i for i in range(1, 15)), 32),
        (tuple((1 / np.arange(1, 31) / (1 / np.arange(1, 31)).sum()).tolist()), 64),
    ],
)
def test_entropy_is_nearer_to_the_truth_than_the_plug_in(p: tuple[float, ...], m: int) -> None:
    chances = np.array(p) / sum(p)
    truth = float(-(chances * np.log(chances)).sum())
    answers = np.random.default_rng(0).choice(len(p), size=(3000, m), p=chances)
    corrected = answer_distribution(answers, np.zeros(answers.shape)).entropy_P.mean() - truth
    plug_in = answer_entropy(answers).mean() - truth
    assert plug_in < -0.01, "the known bias: too low"
    assert abs(corrected) < 0.6 * abs(plug_in)
    assert abs(corrected) < 0.06


def test_the_share_at_rank_one_is_as_high_as_documented() -> None:
    answers = np.random.default_rng(0).integers(1000, size=(2000, 64))
    assert answer_distribution(answers, np.zeros(answers.shape)).top_P.mean() == pytest.approx(0.030, abs=0.001)


def test_extremes() -> None:
    nothing = of([None, None], [1.0, 0.0], scores=[0.0, 1.0])
    assert (nothing.distinct_P, nothing.entropy_P, nothing.top_P, nothing.best_P, nothing.chosen_P) == (0, 0, 0, 0, 0)
    assert (nothing.answered_P, nothing.correct_P, nothing.coverage_P) == (0, 0.5, 1)
    assert nothing.ranked_PR.tolist() == [0.0] * 9
    same = of(["a"] * 6, [1] * 6)
    assert (same.entropy_P, same.top_P, same.best_P, same.coverage_P) == (0, 1, 1, 1)
    assert same.chosen_P is None
    one = of(["a"], [1], num_ranks=1)
    assert (one.entropy_P, one.coverage_P, one.ranked_PR.tolist()) == (0, 0, [1.0, 0.0])
    many = of(list(range(4096)))
    assert np.isfinite(many.entropy_P)
    assert many.distinct_P == 4096
    assert of(list(range(4096)), num_drawn=2048).distinct_P == pytest.approx(2048)
    least = of(["a", "b", "b"], scores=[-math.inf] * 3)
    assert least.chosen_P == pytest.approx((1 / 3 + 2 / 3 + 2 / 3) / 3)


def test_shapes_and_kinds() -> None:
    rng = np.random.default_rng(1)
    answers, rewards, scores = rng.integers(4, size=(2, 3, 8)), rng.integers(2, size=(2, 3, 8)), rng.random((2, 3, 8))
    whole = answer_distribution(answers, rewards, scores, num_drawn=5, num_ranks=2)
    assert whole.top_P.shape == (2, 3)
    assert whole.ranked_PR.shape == whole.ranked_correct_PR.shape == (2, 3, 3)
    tensors = answer_distribution(*map(torch.tensor, (answers, rewards, scores)), num_drawn=5, num_ranks=2)
    for i, j in itertools.product(range(2), range(3)):
        alone = answer_distribution(answers[i, j], rewards[i, j], scores[i, j], num_drawn=5, num_ranks=2)
        for name in AnswerDistribution.__slots__[2:]:
            assert getattr(whole, name).dtype == np.float64
            np.testing.assert_array_equal(getattr(whole, name)[i, j], getattr(alone, name), err_msg=name)
            np.testing.assert_array_equal(getattr(whole, name), getattr(tensors, name), err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": [1, 0]}, "same shape"),
        ({"scores": [1, 0]}, "same shape"),
        ({"answers": ["a", [], "b"]}, "rows|hashable|shape"),
        ({"answers": ["a", math.nan, "b"]}, "NaN"),
        ({"rewards": [1, math.nan, 0]}, "rewards"),
        ({"rewards": [1, math.inf, 0]}, "infinite"),
        ({"scores": [1, math.nan, 0]}, "scores"),
        ({"num_drawn": 4}, "num_drawn = 4"),
        ({"num_drawn": 0}, "num_drawn must be at least 1"),
        ({"num_ranks": 0}, "num_ranks must be at least 1"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer_distribution(**({"answers": ["a", "a", "b"], "rewards": [1, 1, 0]} | changes))
