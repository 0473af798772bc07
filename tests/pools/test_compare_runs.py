"""The interval over prompts and runs covers what it should, and is the textbook's where there is a textbook."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy import stats

from bontune.pools.over_runs import band_over_runs, difference_over_runs, mean_over_runs

NUM_TRIALS = 400


def drawn(
    rng: np.random.Generator,
    num_runs: tuple[int, int],
    num_prompts: int,
    prompt: float,
    run: float,
    both: float,
    noise: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Two ways to train on the same prompts; the true difference is 0.1.

    Standard deviations: of a prompt's difficulty (shared), of a run, of what a way to train does to a prompt, of what
    is left to a run and a prompt.
    """
    difficulty = rng.normal(0, prompt, num_prompts)
    sides = []
    for level, size in zip((0.1, 0.0), num_runs, strict=True):
        mean = level + difficulty + rng.normal(0, both, num_prompts)
        sides.append(mean + rng.normal(0, run, (size, 1)) + rng.normal(0, noise, (size, num_prompts)))
    return sides[0], sides[1]


@pytest.mark.parametrize(
    ("num_runs", "parts", "low", "high"),
    [
        ((5, 5), (0.3, 0.00, 0.2, 0.1), 0.925, 0.995),  # prompts decide
        ((5, 5), (0.3, 0.05, 0.1, 0.1), 0.925, 0.985),  # runs decide
        ((5, 5), (0.3, 0.015, 0.2, 0.2), 0.925, 0.995),  # both do
        ((5, 5), (0.3, 0.0, 0.0, 0.3), 0.95, 1.0),  # what is counted twice: on the wide side
        ((5, 2), (0.3, 0.015, 0.2, 0.2), 0.925, 0.999),
        ((5, 1), (0.3, 0.0, 0.2, 0.1), 0.925, 0.995),  # the model that is not trained
    ],
)
def test_coverage(num_runs: tuple[int, int], parts: tuple[float, float, float, float], low: float, high: float) -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(NUM_TRIALS):
        found = difference_over_runs(*drawn(rng, num_runs, 200, *parts))
        hits += found.low <= 0.1 <= found.high
    # 0.95 ± 0.011 is the standard error of the count.
    assert low <= hits / NUM_TRIALS <= high


def test_coverage_of_a_mean() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(NUM_TRIALS):
        found = mean_over_runs(drawn(rng, (5, 5), 200, 0.3, 0.03, 0.0, 0.1)[0])
        hits += found.low <= 0.1 <= found.high
    assert 0.93 <= hits / NUM_TRIALS <= 0.99


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_one_run_is_the_t_interval_of_the_prompts(level: float) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.5, 0.2, 31), rng.normal(0.4, 0.2, 31)
    for found, values in ((mean_over_runs([a], level), a), (difference_over_runs([a], [b], level), a - b)):
        theirs = stats.ttest_1samp(values, 0.0).confidence_interval(level)
        assert (found.low, found.value, found.high) == pytest.approx((theirs.low, values.mean(), theirs.high))


def test_one_prompt_that_all_runs_share_is_welchs_t_interval() -> None:
    """Prompts that behave alike leave the variance of the runs: the two-sample test with unequal variances."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.5, 0.02, 5), rng.normal(0.4, 0.05, 4)
    found = difference_over_runs(np.repeat(a[:, None], 7, 1), np.repeat(b[:, None], 7, 1))
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_difficulty_cancels_and_order_matters() -> None:
    """What is added to a prompt on both sides changes nothing; prompts out of order do."""
    rng = np.random.default_rng(5)
    a, b = drawn(rng, (3, 4), 50, 0.0, 0.01, 0.02, 0.02)
    difficulty = rng.normal(0, 3, 50)
    plain, shifted = difference_over_runs(a, b), difference_over_runs(a + difficulty, b + difficulty)
    assert (shifted.low, shifted.value, shifted.high) == pytest.approx((plain.low, plain.value, plain.high))
    order = rng.permutation(50)
    together = difference_over_runs((a + difficulty)[:, order], (b + difficulty)[:, order])
    assert (together.low, together.high) == pytest.approx((plain.low, plain.high))
    apart = difference_over_runs((a + difficulty)[:, order], b + difficulty)
    assert apart.high - apart.low > 10 * (plain.high - plain.low)
    runs = difference_over_runs(a[[2, 0, 1]], b[[3, 1, 2, 0]])
    assert (runs.low, runs.high) == pytest.approx((plain.low, plain.high)), "runs are not paired"


def test_sides_can_change_places() -> None:
    a, b = drawn(np.random.default_rng(6), (3, 4), 20, 0.3, 0.1, 0.1, 0.1)
    there, back = difference_over_runs(a, b), difference_over_runs(b, a)
    assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low))


def test_values_that_are_all_equal() -> None:
    found = difference_over_runs(np.full((5, 9), 0.7), np.full((1, 9), 0.4))
    assert found.low == found.high == found.value == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mean_over_runs([0.1, 0.2]), "shape (S, P), got shape (2,)"),
        (lambda: mean_over_runs(np.zeros((0, 4))), "got shape (0, 4)"),
        (lambda: mean_over_runs([[0.1, math.nan]]), "not finite"),
        (lambda: difference_over_runs([[0.1]], [[math.inf]]), "b_SP holds a value that is not finite"),
        (lambda: difference_over_runs([[0.1, 0.2]], [[0.1]]), "the same prompts, got 2 and 1"),
        (lambda: mean_over_runs([[0.1, 0.2]], 1.0), "level must lie strictly between 0 and 1, got 1.0"),
    ],
)
def test_refusals(call: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("run", [0.0, 0.05], ids=["prompts decide", "runs decide"])
def test_a_band_covers_all_metrics_at_once(run: float) -> None:
    """Six metrics of five runs against one, with errors of their own; single intervals miss one of them often."""
    rng = np.random.default_rng(2)
    num_trials, hits, single_hits = 150, 0, 0
    for _ in range(num_trials):
        pairs = [drawn(rng, (5, 1), 100, 0.3, 0.0, 0.2, 0.1) for _ in range(6)]
        a = [ours + rng.normal(0, run, (5, 1)) for ours, _ in pairs]
        b = [theirs for _, theirs in pairs]
        hits += all(i.low <= 0.1 <= i.high for i in band_over_runs(a, b, num_resamples=300))
        single_hits += all(
            difference_over_runs(x, y).low <= 0.1 <= difference_over_runs(x, y).high for x, y in zip(a, b, strict=True)
        )
    assert hits / num_trials >= 0.9
    assert single_hits / num_trials <= 0.85


def test_a_band_over_one_metric_is_its_interval() -> None:
    a, b = drawn(np.random.default_rng(3), (5, 5), 200, 0.3, 0.02, 0.1, 0.1)
    single, (band,) = difference_over_runs(a, b), band_over_runs([a], [b])
    assert band.value == single.value
    assert band.high - band.low == pytest.approx(single.high - single.low, rel=0.05)
    assert band_over_runs([np.ones((2, 3))], [np.zeros((1, 3))])[0].low == 1.0


def test_a_band_needs_the_same_metrics_and_prompts() -> None:
    with pytest.raises(ValueError, match="same metrics and prompts"):
        band_over_runs([np.zeros((2, 3))], [np.zeros((2, 4))])
