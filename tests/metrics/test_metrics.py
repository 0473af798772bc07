"""Every metric against brute force over all subsets; intervals against a distribution whose mean is known.

1. pass@k, max@k, best-of-k, majority@k equal the mean over all C(M, k) subsets, ties and abstentions included.
2. The kind of the rewards (torch or NumPy) comes back, in float64; the inputs' dtype changes nothing.
3. What is undefined or out of range is a ValueError that says what was given, or the documented NaN.
4. A percentile interval covers the true mean about as often as its level says; a paired one cancels what prompts share.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bontune import metrics
from bontune.metrics import (
    Interval,
    answer_entropy,
    best_of_k,
    bootstrap_interval,
    bootstrap_intervals,
    default_ks,
    distinct_answers,
    majority_at_k,
    max_at_k,
    oracle_gap,
    paired_difference,
    pass_at_k,
    pass_hat_k,
    simultaneous_band,
    within_prompt_auc,
)

CLOSE = {"rtol": 0, "atol": 1e-12}
NAN, INF = math.nan, math.inf


def mean_over_subsets(num_samples, k, value):
    subsets = list(itertools.combinations(range(num_samples), k))
    return sum(value(subset) for subset in subsets) / len(subsets)


def picked_reward(rewards, scores, subset):
    """Mean reward of the subset's samples with the highest score: the winner's expectation, ties uniform."""
    best = max(scores[i] for i in subset)
    winners = [rewards[i] for i in subset if scores[i] == best]
    return sum(winners) / len(winners)


def elected_reward(answers, rewards, subset, weights=None):
    """Reward of the subset's elected answer; integer weights, so that sums tie exactly."""
    votes: dict = {}
    for i in subset:
        if answers[i] is not None:
            votes[answers[i]] = votes.get(answers[i], 0) + (1 if weights is None else weights[i])
    if not votes:
        return 0.0
    best = max(votes.values())
    elected = [answer for answer, count in votes.items() if count == best]
    holders = {a: [r for b, r in zip(answers, rewards, strict=True) if b == a] for a in elected}
    return sum(sum(h) / len(h) for h in holders.values()) / len(elected)


@st.composite
def pools(draw, max_samples=8):
    """(binary rewards, graded rewards, scores with ties, answers with abstentions, k)."""
    m = draw(st.integers(1, max_samples))

    def column(values):
        return draw(st.lists(values, min_size=m, max_size=m))

    binary, graded = column(st.integers(0, 1)), column(st.floats(-4, 4))
    scores = column(st.sampled_from([-INF, -1.0, 0.0, 0.5, 2.0]))
    answers = column(st.sampled_from([None, "7", "5", 3, (1, 2)]))
    return binary, graded, scores, answers, draw(st.integers(1, m))


# --- against brute force ----------------------------------------------------------------------------------------------


@given(pools())
@settings(max_examples=150, deadline=None)
def test_pool_metrics_are_means_over_all_subsets(pool):
    binary, graded, scores, _, k = pool
    m = len(binary)
    any_correct = mean_over_subsets(m, k, lambda s: float(any(binary[i] for i in s)))
    all_correct = mean_over_subsets(m, k, lambda s: float(all(binary[i] for i in s)))
    highest = mean_over_subsets(m, k, lambda s: max(graded[i] for i in s))
    picked = mean_over_subsets(m, k, lambda s: picked_reward(graded, scores, s))
    np.testing.assert_allclose(pass_at_k(binary, k), any_correct, **CLOSE)
    np.testing.assert_allclose(pass_hat_k(binary, k), all_correct, **CLOSE)
    np.testing.assert_allclose(max_at_k(binary, k), any_correct, **CLOSE)
    np.testing.assert_allclose(max_at_k(graded, k), highest, **CLOSE)
    np.testing.assert_allclose(best_of_k(graded, scores, k), picked, **CLOSE)
    np.testing.assert_allclose(oracle_gap(graded, scores, k), highest - picked, **CLOSE)
    assert oracle_gap(graded, scores, k) >= 0


@given(pools())
@settings(max_examples=150, deadline=None)
def test_majority_is_the_mean_over_all_subsets(pool):
    _, graded, _, answers, k = pool
    expected = mean_over_subsets(len(answers), k, lambda s: elected_reward(answers, graded, s))
    np.testing.assert_allclose(majority_at_k(answers, graded, k), expected, **CLOSE)


def test_a_number_and_its_text_are_one_answer():
    answers = [7, "7", 7.0, Decimal("7.00"), np.int64(7), 0.5, "0.5", Fraction(1, 2), Decimal("0.1"), "0.1", "07", None]
    assert distinct_answers(answers) == 4
    assert majority_at_k([7, "7", "5", "5", "7"], np.array([1, 1, 0, 0, 1]), 5) == 1


@given(pools(), st.data())
@settings(max_examples=150, deadline=None)
def test_weighted_majority_is_the_mean_over_all_subsets(pool, data):
    _, graded, _, answers, k = pool
    m = len(answers)
    weights = data.draw(st.lists(st.integers(-3, 3), min_size=m, max_size=m))
    expected = mean_over_subsets(m, k, lambda s: elected_reward(answers, graded, s, weights))
    np.testing.assert_allclose(majority_at_k(answers, graded, k, weights), expected, **CLOSE)
    ones = majority_at_k(answers, graded, k, np.ones(m))
    np.testing.assert_allclose(ones, majority_at_k(answers, graded, k), **CLOSE)


@given(pools(max_samples=12))
@settings(max_examples=150, deadline=None)
def test_auc_is_the_share_of_pairs_ranked_right(pool):
    binary, _, scores, _, _ = pool
    correct = [s for s, r in zip(scores, binary, strict=True) if r]
    wrong = [s for s, r in zip(scores, binary, strict=True) if not r]
    auc = float(within_prompt_auc(binary, scores))
    if not correct or not wrong:
        assert math.isnan(auc)
        return
    wins = sum((a > b) + 0.5 * (a == b) for a in correct for b in wrong)
    assert auc == pytest.approx(wins / (len(correct) * len(wrong)), abs=1e-15)


@given(pools(max_samples=12))
@settings(max_examples=100, deadline=None)
def test_answer_counts_and_entropy(pool):
    answers = pool[3]
    counts = Counter(a for a in answers if a is not None)
    total = sum(counts.values())
    entropy = -sum(n / total * math.log(n / total) for n in counts.values())
    assert distinct_answers(answers) == len(counts)
    assert answer_entropy(answers) == pytest.approx(entropy, abs=1e-15)
    assert 0 <= answer_entropy(answers) <= math.log(len(answers)) + 1e-12


# --- properties -------------------------------------------------------------------------------------------------------


@given(pools(max_samples=20), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_permuting_the_samples_changes_nothing(pool, random):
    binary, graded, scores, answers, k = pool
    order = list(range(len(binary)))
    random.shuffle(order)
    b, g, s, a = ([column[i] for i in order] for column in (binary, graded, scores, answers))
    np.testing.assert_allclose(pass_at_k(b, k), pass_at_k(binary, k), **CLOSE)
    np.testing.assert_allclose(best_of_k(g, s, k), best_of_k(graded, scores, k), **CLOSE)
    np.testing.assert_allclose(majority_at_k(a, g, k), majority_at_k(answers, graded, k), **CLOSE)
    np.testing.assert_allclose(within_prompt_auc(b, s), within_prompt_auc(binary, scores), **CLOSE)


@given(pools(max_samples=20))
@settings(max_examples=100, deadline=None)
def test_bounds_and_order_between_the_metrics(pool):
    binary, _, scores, answers, k = pool
    pass_k, best_k = float(pass_at_k(binary, k)), float(best_of_k(binary, scores, k))
    majority = float(majority_at_k(answers, binary, k))
    assert -1e-12 <= best_k <= pass_k + 1e-12 <= 1 + 2e-12
    assert -1e-12 <= majority <= 1 + 1e-12
    # Every answer and every score its own: voting and an uninformative verifier are both one random sample.
    m = len(binary)
    np.testing.assert_allclose(majority_at_k(list(range(m)), binary, k), np.mean(binary), **CLOSE)
    np.testing.assert_allclose(best_of_k(binary, [0.0] * m, k), np.mean(binary), **CLOSE)
    np.testing.assert_allclose(oracle_gap(binary, binary, k), 0.0, **CLOSE)
    if k > 1:
        assert pass_k >= float(pass_at_k(binary, k - 1)) - 1e-12


@given(pools(max_samples=20), st.floats(0.25, 8))
@settings(max_examples=50, deadline=None)
def test_majority_is_linear_in_rewards_and_weights_have_no_unit(pool, scale):
    _, graded, _, answers, k = pool
    value = majority_at_k(answers, graded, k)
    np.testing.assert_allclose(majority_at_k(answers, np.array(graded) * scale, k), value * scale, atol=1e-11)
    weights = np.arange(len(answers)) / 10
    weighted = majority_at_k(answers, graded, k, weights, num_draws=64)
    np.testing.assert_allclose(majority_at_k(answers, graded, k, weights * 4, num_draws=64), weighted, **CLOSE)


def test_ends_of_the_range_are_exact():
    rewards = np.array([[0] * 8, [1] * 8, [1] + [0] * 7, [1] * 5 + [0] * 3])
    assert pass_at_k(rewards, 8).tolist() == [0.0, 1.0, 1.0, 1.0]
    assert pass_at_k(rewards, 4).tolist() == [0.0, 1.0, 0.5, 1.0]
    np.testing.assert_allclose(pass_at_k(rewards, 1), rewards.mean(-1), **CLOSE)
    assert majority_at_k([None, None, None], np.ones(3), 2) == 0.0
    assert majority_at_k([None, None, None], np.ones(3), 2, weights=np.ones(3)) == 0.0


def test_negative_weights_do_not_elect_an_answer_nobody_gives():
    # k = 1: "a" is the only candidate of its subset although its sum is below the 0 of the absent "b".
    assert majority_at_k(["a", "b"], [1.0, 0.0], 1, weights=[-5.0, -1.0]) == 0.5
    assert majority_at_k(["a", None], [1.0, 0.0], 2, weights=[-5.0, 100.0]) == 1.0


def test_weights_equal_but_for_rounding_tie():
    # 0.1 + 0.2 + 0.3 is 0.6000000000000001 one way, 0.6 the other, and 0.1 + 0.2 − 0.3 is 5.6e-17.
    assert majority_at_k(["a", "a", "a", "b"], [1, 1, 1, 0], 4, weights=[0.1, 0.2, 0.3, 0.6]) == 0.5
    assert majority_at_k(["a", "b", "b", "b"], [1, 0, 0, 0], 4, weights=[0.0, 0.1, 0.2, -0.3]) == 0.5


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 64, 1000, 2048, 4095, 4096])
def test_pass_at_k_at_4096_samples_against_fractions(k):
    m = 4096
    correct = np.array([0, 1, 2, 50, 2048, m - k, min(m, m - k + 1), m])
    rewards = np.arange(m) < correct[:, None]
    expected = [float(1 - Fraction(math.comb(m - c, k), math.comb(m, k))) for c in correct.tolist()]
    np.testing.assert_allclose(pass_at_k(rewards, k), expected, **CLOSE)
    np.testing.assert_allclose(max_at_k(rewards, k), expected, **CLOSE)


def exact_majority(counts, num_abstain, rewards, k):
    """Integers only: for each winning t, ways[j][s] to draw s votes with nobody above t and j answers at t."""
    total = math.comb(sum(counts) + num_abstain, k)
    value = Fraction(0)
    for t in range(1, k + 1):
        ways = {(0, s): (math.comb(num_abstain, s), Fraction(0)) for s in range(k + 1)}
        for n, reward in zip(counts, rewards, strict=True):
            new: dict = {}
            for (j, s), (number, earned) in ways.items():
                for x in range(min(n, t, k - s) + 1):
                    key, c, won = (j + (x == t), s + x), math.comb(n, x), reward if x == t else 0
                    old = new.get(key, (0, Fraction(0)))
                    new[key] = old[0] + c * number, old[1] + c * (earned + number * won)
            ways = new
        value += sum(earned / j for (j, s), (_, earned) in ways.items() if s == k and j > 0)
    return value / total


@pytest.mark.parametrize(
    ("counts", "num_abstain", "k"),
    [([9, 9, 9, 4, 4, 1, 1, 1], 2, 13), ([20, 3, 3, 2, 1, 1], 10, 16), ([1] * 12, 20, 8), ([16, 15, 1], 0, 31)],
)
def test_majority_of_a_large_pool_against_integers(counts, num_abstain, k):
    rewards = [Fraction(i * i % 7 - 2, 4) for i in range(len(counts))]
    answers = [i for i, n in enumerate(counts) for _ in range(n)] + [None] * num_abstain
    rewards_M = [float(rewards[a]) if a is not None else 3.0 for a in answers]
    expected = float(exact_majority(counts, num_abstain, rewards, k))
    np.testing.assert_allclose(majority_at_k(answers, rewards_M, k), expected, **CLOSE)


def test_majority_of_4096_samples_against_fractions():
    num_right, num_wrong, m, k = 1500, 1600, 4096, 41
    expected = Fraction(0)
    for right, wrong in itertools.product(range(k + 1), repeat=2):
        if right >= wrong and 0 < right <= k - wrong:
            ways = math.comb(num_right, right) * math.comb(num_wrong, wrong)
            ways *= math.comb(m - num_right - num_wrong, k - right - wrong)
            expected += Fraction(ways, 1 if right > wrong else 2)
    answers = ["right"] * num_right + ["wrong"] * num_wrong + [None] * (m - num_right - num_wrong)
    value = majority_at_k(answers, np.arange(m) < num_right, k)
    np.testing.assert_allclose(value, float(expected / math.comb(m, k)), **CLOSE)


@pytest.mark.parametrize("k", [1, 7, 100, 512, 1023, 1024])
def test_majority_is_certain_when_all_that_vote_agree_or_all_rewards_are_equal(k):
    rng = np.random.default_rng(0)
    for num_answers in (1, 3, 40, 5000):
        answers = rng.integers(num_answers, size=1024)
        np.testing.assert_allclose(majority_at_k(answers, np.full(1024, 0.75), k), 0.75, **CLOSE)


def test_majority_of_500_prompts_takes_seconds():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(100, 0.05), size=500)
    answers = [[str(a) for a in rng.choice(100, size=64, p=p)] for p in shares]
    start = time.perf_counter()
    for k in (1, 4, 16, 64):
        majority_at_k(answers, np.ones((500, 64)), k)
    took_s = time.perf_counter() - start
    assert took_s < 20, f"took {took_s:.1f} s"  # about 3 s; quadratic mistakes take minutes


def test_sampled_weighted_vote_is_near_the_exact_one_and_repeats():
    rng = np.random.default_rng(1)
    m, k, num_prompts = 20, 7, 12  # C(20, 7) = 77,520 subsets
    assert math.comb(m, k) > metrics.MAX_EXACT_SUBSETS
    answers, rewards = rng.integers(5, size=(num_prompts, m)), rng.random((num_prompts, m))
    ones = np.ones((num_prompts, m))
    sampled = majority_at_k(answers, rewards, k, ones, num_draws=4096)
    exact = majority_at_k(answers, rewards, k)
    assert np.abs(sampled - exact).max() < 5 / (2 * math.sqrt(4096))  # five standard errors at their bound
    assert not np.array_equal(sampled, exact)
    np.testing.assert_array_equal(sampled, majority_at_k(answers, rewards, k, ones, num_draws=4096))
    assert not np.array_equal(sampled, majority_at_k(answers, rewards, k, ones, num_draws=4096, seed=1))
    one_prompt = majority_at_k(answers[3], rewards[3], k, ones[3], num_draws=4096)
    assert one_prompt == sampled[3]  # independent of the batch


# --- kinds, dtypes, shapes --------------------------------------------------------------------------------------------

ALL_METRICS = {
    "pass_at_k": lambda rewards: pass_at_k(rewards, 2),
    "max_at_k": lambda rewards: max_at_k(rewards, 2),
    "best_of_k": lambda rewards: best_of_k(rewards, SCORES, 2),
    "oracle_gap": lambda rewards: oracle_gap(rewards, SCORES, 2),
    "within_prompt_auc": lambda rewards: within_prompt_auc(rewards, SCORES),
    "majority_at_k": lambda rewards: majority_at_k(ANSWERS, rewards, 2),
    "weighted": lambda rewards: majority_at_k(ANSWERS, rewards, 2, SCORES),
}
REWARDS = np.array([[1, 0, 0, 1], [1, 1, 0, 1], [0, 0, 1, 0]])
SCORES = np.array([[3, 1, 1, 2], [0, 0, 0, 0], [1, 2, 3, 4]], dtype=np.int16)
ANSWERS = [["7", "5", None, "7"], [None, "7", "5", "7"], ["1", "2", "3", "3"]]


@pytest.mark.parametrize("name", ALL_METRICS)
def test_the_kind_comes_back_in_float64_whatever_the_dtype(name):
    metric = ALL_METRICS[name]
    expected = metric(REWARDS)
    assert isinstance(expected, np.ndarray)
    for dtype in (np.float16, np.float32, np.float64, np.int8, np.int64, np.bool_):
        got = metric(REWARDS.astype(dtype))
        assert isinstance(got, np.ndarray)
        assert (got.dtype, got.shape) == (np.float64, (3,))
        np.testing.assert_array_equal(got, expected)
    for dtype in (torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool):
        got = metric(torch.from_numpy(REWARDS).to(dtype))
        assert isinstance(got, torch.Tensor)
        assert (got.dtype, tuple(got.shape)) == (torch.float64, (3,))
        np.testing.assert_array_equal(got.numpy(), expected)
    np.testing.assert_array_equal(metric(REWARDS.tolist()), expected)


def test_lists_keep_the_precision_of_python_floats():
    # As float32 the two scores would tie and 0.1 would be off by 1.5e-9.
    assert best_of_k([1, 0], [0.1 + 1e-12, 0.1], 2) == 1.0
    assert max_at_k([0.1], 1) == 0.1
    assert majority_at_k(["a", "b"], [1, 0], 2, [0.1 + 1e-9, 0.1]) == 1.0
    assert bootstrap_interval([0.1]).value == 0.1


def test_leading_axes_and_single_prompts():
    rewards, scores = np.tile(REWARDS, (2, 1, 1)), np.tile(SCORES, (2, 1, 1))
    answers = [ANSWERS, ANSWERS]
    for value in (
        pass_at_k(rewards, 2),
        best_of_k(rewards, scores, 2),
        within_prompt_auc(rewards, scores),
        majority_at_k(answers, rewards, 2),
        majority_at_k(np.array(answers, dtype=object), rewards, 2, scores),
        distinct_answers(answers),
        answer_entropy(answers),
    ):
        assert value.shape == (2, 3)
        np.testing.assert_array_equal(value[0], value[1])
    assert isinstance(pass_at_k(REWARDS[0], 2), float)
    assert pass_at_k(torch.from_numpy(REWARDS[0]), 2).shape == ()
    for i in range(3):
        assert majority_at_k(ANSWERS[i], REWARDS[i], 2) == majority_at_k(ANSWERS, REWARDS, 2)[i]


def test_read_only_and_reversed_arrays_are_taken_without_a_warning_and_left_alone():
    frozen = REWARDS.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(max_at_k(frozen, 2), max_at_k(REWARDS, 2))
        np.testing.assert_array_equal(best_of_k(frozen[::-1], SCORES[::-1], 2), best_of_k(REWARDS, SCORES, 2)[::-1])
        bootstrap_interval(frozen[0][::-1], num_resamples=10)


@pytest.mark.parametrize("answers", [np.array([1, 2, 2, 3]), torch.tensor([1, 2, 2, 3]), [1, 2.0, 2, 3], list("1223")])
def test_answers_of_any_hashable_kind(answers):
    assert majority_at_k(answers, [0, 1, 1, 0], 4) == 1.0
    assert distinct_answers(answers) == 3
    assert distinct_answers(answers).dtype == np.int64


def test_elected_answer_earns_the_mean_of_its_holders():
    # The same answer graded 1 and 0: its reward is ½, also in the subset where only the holder graded 1 votes.
    assert majority_at_k(["a", "a", None], [1, 0, 1], 3) == 0.5
    assert majority_at_k(["a", "a", None], [1, 0, 1], 1) == pytest.approx(1 / 3)


def test_default_ks():
    assert [default_ks(m) for m in (1, 2, 3, 64, 100)] == [
        [1],
        [1, 2],
        [1, 2],
        [1, 2, 4, 8, 16, 32, 64],
        [1, 2, 4, 8, 16, 32, 64],
    ]


# --- intervals --------------------------------------------------------------------------------------------------------


def test_bootstrap_covers_a_known_mean_at_its_level():
    # Exponential(1): true mean 1, skewed. 600 data sets of P = 100; three standard errors of the coverage are 0.027,
    # and the percentile interval under-covers by about 0.01 here.
    rng = np.random.default_rng(7)
    for level in (0.95, 0.8):
        intervals = [bootstrap_interval(rng.exponential(size=100), level, 1000, seed=i) for i in range(600)]
        coverage = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
        assert level - 0.045 < coverage < level + 0.04, coverage


def test_bootstrap_interval_has_the_width_of_the_central_limit():
    values = np.random.default_rng(0).normal(size=4000)
    interval = bootstrap_interval(values, seed=3)
    half_width = 1.959964 * values.std() / math.sqrt(4000)
    assert interval.value == pytest.approx(values.mean(), abs=1e-15)
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.05 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.05 * half_width)
    assert interval == bootstrap_interval(torch.from_numpy(values), seed=3)
    assert interval != bootstrap_interval(values, seed=4)
    wider = bootstrap_interval(values, level=0.99, seed=3)
    assert wider.low < interval.low < interval.high < wider.high


def test_bootstrap_of_many_prompts_stays_in_bounded_memory():
    # 1,000 resamples of 100,000 prompts at once would be 800 MB of indices.
    tracemalloc = pytest.importorskip("tracemalloc")
    values = np.random.default_rng(0).random(100_000)
    tracemalloc.start()
    bootstrap_interval(values, num_resamples=100)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 40 * 2**20


def test_paired_difference_cancels_what_the_prompts_share():
    rng = np.random.default_rng(0)
    difficulty = rng.random(300)
    same = paired_difference(difficulty, difficulty)
    assert same == Interval(value=0.0, low=0.0, high=0.0)
    better = difficulty + 0.02 + 0.01 * rng.normal(size=300)
    paired = paired_difference(better, difficulty)
    assert 0 < paired.low < paired.value < paired.high < 0.03
    assert paired.value == pytest.approx(better.mean() - difficulty.mean())
    apart = bootstrap_interval(better), bootstrap_interval(difficulty)
    assert apart[0].low < apart[1].high  # each on its own, the two overlap
    # The same resampled prompts: equal to resampling the two columns together.
    rows = np.random.default_rng(5).integers(300, size=(200, 300))
    means = better[rows].mean(-1) - difficulty[rows].mean(-1)
    paired = paired_difference(better, difficulty, num_resamples=200, seed=5)
    np.testing.assert_allclose([paired.low, paired.high], np.quantile(means, [0.025, 0.975]), atol=1e-12)
    reverse = paired_difference(difficulty, better, num_resamples=200, seed=5)
    np.testing.assert_allclose([reverse.low, reverse.high], [-paired.high, -paired.low], atol=1e-12)


def test_interval_is_frozen_and_one_prompt_has_no_width():
    interval = bootstrap_interval([0.25])
    assert interval == Interval(value=0.25, low=0.25, high=0.25)
    with pytest.raises(AttributeError):
        interval.value = 1.0


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSED = [
    (lambda: pass_at_k([0.5, 1.0], 1), r"pass_at_k needs rewards of 0 or 1, got 0\.5; .*max_at_k"),
    (lambda: pass_at_k([NAN, 1.0], 1), "NaN"),
    (lambda: pass_at_k([1, 0], 3), "k = 3 is more than the 2 samples"),
    (lambda: pass_at_k([1, 0], 0), "k must be at least 1, got 0"),
    (lambda: pass_at_k([1, 0], 1.0), r"k must be an integer, got 1\.0"),
    (lambda: pass_at_k([1, 0], True), "k must be an integer, got True"),
    (lambda: pass_at_k(1, 1), "shape"),
    (lambda: pass_at_k(["yes", "no"], 1), "array of numbers"),
    (lambda: pass_at_k(np.zeros((3, 0)), 1), "0 samples"),
    (lambda: pass_at_k([[1, 0], [1]], 1), "rewards must be an array of numbers"),
    (lambda: max_at_k([INF, 1.0], 1), "infinite"),
    (lambda: max_at_k([NAN, 1.0], 1), "NaN"),
    (lambda: max_at_k([1.0], 2), "k = 2"),
    (lambda: best_of_k([1, 0], [1.0, NAN], 1), "scores contains NaN"),
    (lambda: best_of_k([1, 0], [1.0], 1), r"same shape, got \(1,\) and \(2,\)"),
    (lambda: best_of_k([1, 0], [1.0, 2.0], 3), "k = 3"),
    (lambda: oracle_gap([1, 0], [1.0, 2.0, 3.0], 1), "same shape"),
    (lambda: oracle_gap([1, 0], [1.0, 2.0], -1), "at least 1, got -1"),
    (lambda: within_prompt_auc([2, 0], [1.0, 2.0]), "within_prompt_auc needs rewards of 0 or 1, got 2"),
    (lambda: within_prompt_auc([1, 0], [1.0, NAN]), "scores contains NaN"),
    (lambda: within_prompt_auc([1, 0], [[1.0, 2.0]]), "same shape"),
    (lambda: majority_at_k(["a"], [1, 0], 1), r"answers and rewards need the same shape, got \(1,\) and \(2,\)"),
    (lambda: majority_at_k(["a", "b"], [1, 0], 3), "k = 3"),
    (lambda: majority_at_k(["a", "b"], [1, NAN], 1), "rewards contains NaN"),
    (lambda: majority_at_k(["a", "b"], [1, INF], 1), "rewards contains an infinite"),
    (lambda: majority_at_k(["a", {}], [1, 0], 1), "hashable"),
    (lambda: majority_at_k(["a", NAN], [1, 0], 1), "answers contains NaN"),
    (lambda: majority_at_k("ab", [1, 0], 1), r"list or array of shape .* got 'ab'"),
    (lambda: majority_at_k(("a", "b"), [1, 0], 1), "list or array"),
    (lambda: majority_at_k([["a", "b"], ["a"]], [[1, 0], [1, 0]], 1), r"rows of shapes \(1,\) and \(2,\)"),
    (lambda: majority_at_k([["a", "b"], "a"], [[1, 0], [1, 0]], 1), "list or array"),
    (lambda: majority_at_k(["a", "b"], [1, 0], 1, [1.0]), "same shape"),
    (lambda: majority_at_k(["a", "b"], [1, 0], 1, [1.0, NAN]), "NaN"),
    (lambda: majority_at_k(["a", "b"], [1, 0], 1, [1.0, INF]), "weights contains an infinite"),
    (lambda: majority_at_k(["a", "b"], [1, 0], 1, [1.0, 1.0], num_draws=0), "num_draws must be at least 1, got 0"),
    (lambda: distinct_answers([["a"], ["a", "b"]]), "rows of shapes"),
    (lambda: distinct_answers([]), "M >= 1"),
    (lambda: answer_entropy([[1], [NAN]]), "NaN"),
    (lambda: answer_entropy([{1: 2}]), "hashable"),
    (lambda: default_ks(0), "num_samples must be at least 1, got 0"),
    (lambda: default_ks(2.5), "num_samples must be an integer"),
    (lambda: bootstrap_interval([]), r"P >= 1, got shape \(0,\)"),
    (lambda: bootstrap_interval([[1.0]]), r"values_P needs one number per prompt, .* got shape \(1, 1\)"),
    (lambda: bootstrap_interval([1.0, NAN]), "values_P contains NaN"),
    (lambda: bootstrap_interval([1.0, INF]), "values_P contains an infinite"),
    (lambda: bootstrap_interval(["a"]), "values_P must be an array of numbers"),
    (lambda: bootstrap_interval([1.0], level=1.0), r"level must lie strictly between 0 and 1, got 1\.0"),
    (lambda: bootstrap_interval([1.0], level=NAN), "level"),
    (lambda: bootstrap_interval([1.0], num_resamples=0), "num_resamples must be at least 1, got 0"),
    (lambda: paired_difference([1.0, 2.0], [1.0]), "got 2 and 1 values"),
    (lambda: paired_difference([1.0], [NAN]), "b_P contains NaN"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_refused_says_why(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_band_holds_at_every_k_at_once():
    """Against the truth in simulated worlds: single intervals miss somewhere far more often than one time in twenty."""
    rng = np.random.default_rng(0)
    num_worlds, num_prompts = 300, 200
    missed, missed_singly = 0, 0
    for world in range(num_worlds):
        values = rng.normal(size=(6, num_prompts)) * np.arange(1, 7)[:, None] + 0.3 * rng.normal(size=num_prompts)
        band = simultaneous_band(values, num_resamples=400, seed=world)
        missed += any(not i.low <= 0.0 <= i.high for i in band)
        single = [bootstrap_interval(row, num_resamples=400, seed=world) for row in values]
        missed_singly += any(not i.low <= 0.0 <= i.high for i in single)
    assert missed / num_worlds < 0.1
    assert missed_singly / num_worlds > 0.2


def test_a_band_over_one_mean_is_symmetric_and_one_of_equal_values_has_no_width():
    band = simultaneous_band([[0.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    assert band[0].value - band[0].low == pytest.approx(band[0].high - band[0].value)
    assert band[1] == Interval(value=0.5, low=0.5, high=0.5)
    with pytest.raises(ValueError, match="one row of P numbers"):
        simultaneous_band([[0.0, 1.0], [0.0]])


def test_many_intervals_at_once_are_the_single_ones_to_the_last_bit():
    rng = np.random.default_rng(2)
    rows = [rng.random(40), rng.random(40), rng.random(7), np.full(40, 0.1), rng.random(40)]
    rows.append(rows[0])
    together = bootstrap_intervals(rows, num_resamples=500, seed=3)
    assert together == [bootstrap_interval(row, num_resamples=500, seed=3) for row in rows]
    drawn = np.random.default_rng(3).integers(40, size=(500, 40))
    low, high = np.quantile(rows[1][drawn].mean(-1), [0.025, 0.975])
    assert (together[1].low, together[1].high) == (low, high)


def test_a_weighted_vote_over_those_left_out_is_the_one_over_those_drawn():
    rng = np.random.default_rng(4)
    answers, rewards = [None if a < 0 else int(a) for a in rng.integers(-1, 4, size=16)], rng.random(16)
    for weights in (rng.random(16), rng.normal(size=16)):
        for k in (7, 9, 15, 16):
            chosen = np.random.default_rng(0).random((300, 16)).argpartition(k - 1, axis=1)[:, :k]
            if math.comb(16, k) <= metrics.MAX_EXACT_SUBSETS:
                chosen = np.array(list(itertools.combinations(range(16), k)))
            values = []
            for subset in chosen:
                sums = {a: sum(weights[i] for i in subset if answers[i] == a) for a in {answers[i] for i in subset}}
                sums.pop(None, None)
                best = [a for a, total in sums.items() if total >= max(sums.values()) - 1e-12]
                worth = [np.mean([r for r, b in zip(rewards, answers, strict=True) if b == a]) for a in best]
                values.append(np.mean(worth))
            assert majority_at_k(answers, rewards, k, weights, num_draws=300) == pytest.approx(np.mean(values))
