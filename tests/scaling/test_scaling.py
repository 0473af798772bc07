"""The co-scaling study against laws whose answer is known.

1. The law: recovered where it is exact, from drawn pools within its intervals, which cover as often as they say; said
   to fail where it does.
2. The grid: pass@N and best-of-N by enumeration of all subsets; Beta-distributed solve rates and a verifier that is
   fooled at a known rate have closed forms.
3. The best temperature, N and pair: brute force; the set of those that may be best holds the truth as often as it says.
4. Difficulty without selection bias; words that claim no more than the numbers; clear errors.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import betaln

from bontune.base.errors import BontuneError
from bontune.metrics import pass_at_k
from bontune.scaling import (
    LawVerdict,
    SweepPool,
    advise,
    advise_all,
    choose,
    fit_law,
    fit_laws,
    fit_surface,
    interval_of,
    resampled_means,
    study,
)
from bontune.scaling.law import loglog, weighted_line
from bontune.scaling.study import split_by_difficulty

Array = NDArray[np.float64]
NS = [1, 2, 4, 8, 16, 32]


def beta_pass(alpha: float, beta: float, n: int) -> float:
    """E[1 − (1 − p)^n] for p ~ Beta(α, β)."""
    return float(1 - np.exp(betaln(alpha, beta + n) - betaln(alpha, beta)))


def drawn(rng: np.random.Generator, rates_P: Array, num_samples: int) -> Array:
    return (rng.random((len(rates_P), num_samples)) < rates_P[:, None]).astype(float)


def lawful_rates(a: float, b: float) -> tuple[Array, Array]:
    """Solve rates and weights of a mixture with pass@n = exp(a n^b) at every n of NS: non-negative least squares."""
    rates = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 400)])
    powers = np.array([0, *NS])
    wanted = np.concatenate([[1.0], 1 - np.exp(a * np.array(NS, dtype=float) ** b)])
    weights, distance = nnls((1 - rates[None]) ** powers[:, None], wanted)
    assert distance < 1e-6
    return rates, weights / weights.sum()


def passes(rewards_PM: Array, ns: list[int] = NS) -> Array:
    return np.stack([pass_at_k(rewards_PM, n) for n in ns], axis=-1)


def pool(temperature: float, rewards_PM: Array, **more: object) -> SweepPool:
    return SweepPool(
        temperature=temperature,
        problem_ids=[f"p{i}" for i in range(len(rewards_PM))],
        rewards_PM=rewards_PM,
        **more,  # type: ignore[arg-type]
    )


def beta_pools(rng: np.random.Generator, shapes: dict[float, tuple[float, float]], p: int, m: int) -> list[SweepPool]:
    """Problem i is at the same quantile of difficulty at each temperature, as real problems about are."""
    ranks = rng.random(p)
    return [pool(t, drawn(rng, _beta_quantiles(ranks, *shape), m)) for t, shape in shapes.items()]


def _beta_quantiles(ranks: Array, alpha: float, beta: float) -> Array:
    from scipy.stats import beta as distribution

    return np.asarray(distribution.ppf(ranks, alpha, beta))


# ---- resampling ----


def test_resampled_means_have_the_moments_of_the_bootstrap() -> None:
    """Var of a resampled mean is the plug-in variance over P, and the covariance of columns likewise."""
    values = np.random.default_rng(0).normal(size=(40, 3)) @ np.array([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 2]])
    means = resampled_means(values, 20_000, seed=1)
    np.testing.assert_allclose(means.mean(0), values.mean(0), atol=0.01)
    np.testing.assert_allclose(np.cov(means.T), np.cov(values.T, bias=True) / 40, rtol=0.06, atol=1e-3)


def test_separate_calls_redraw_the_same_problems() -> None:
    values = np.random.default_rng(0).random((30, 4))
    together = resampled_means(values, 50)
    np.testing.assert_allclose(together[:, 1], resampled_means(values[:, 1:2], 50)[:, 0], rtol=1e-14)
    assert not np.array_equal(together, resampled_means(values, 50, seed=1))


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan]])])
def test_resampled_means_refuse(values: Array) -> None:
    with pytest.raises(ValueError):
        resampled_means(values)


def test_an_interval_leaves_out_what_is_not_there() -> None:
    assert np.isnan(interval_of(1.0, np.full(3, np.nan)).low)
    found = interval_of(0.0, np.append(np.arange(1001.0), np.nan))
    assert (found.low, found.high) == pytest.approx((25, 975))


# ---- the law ----


@given(a=st.floats(-6, -0.05), b=st.floats(-1.2, -0.02))
@settings(max_examples=60, deadline=None)
def test_an_exact_law_is_recovered(a: float, b: float) -> None:
    law = fit_law(np.exp(a * np.array([NS, NS], dtype=float) ** b), NS, num_resamples=20)
    assert law.a.value == pytest.approx(a, rel=1e-6)
    assert law.b.value == pytest.approx(b, rel=1e-6)
    assert law.deviation < 1e-9
    assert law.verdict is LawVerdict.HOLDS
    np.testing.assert_allclose(law.pass_at(NS), np.exp(a * np.array(NS, dtype=float) ** b))


def test_the_fit_is_weighted_least_squares() -> None:
    """Against NumPy's polyfit with the weights of the docstring, holes included."""
    rng = np.random.default_rng(0)
    x, y, weights = np.log(np.array(NS, dtype=float)), rng.normal(size=(5, 6)), rng.random(6) + 0.1
    y[1, 2] = y[2, [0, 5]] = np.nan
    y[3, 1:] = np.nan
    found = weighted_line(y, x, weights)
    for row in (0, 1, 2, 4):
        kept = ~np.isnan(y[row])
        slope, intercept = np.polyfit(x[kept], y[row, kept], 1, w=np.sqrt(weights[kept]))
        np.testing.assert_allclose(found[row], [intercept, slope])
    assert np.isnan(found[3]).all()

    values = passes(drawn(rng, rng.beta(0.7, 2.0, 60), 32))
    law, resampled = fit_law(values, NS), resampled_means(values)
    slope, intercept = np.polyfit(x, loglog(values.mean(0)), 1, w=1 / np.nanstd(loglog(resampled), axis=0))
    np.testing.assert_allclose(law.line, [intercept, slope])
    assert law.b.low < law.b.value < law.b.high


def test_intervals_of_the_law_cover_as_often_as_they_say() -> None:
    """100 sets of 150 problems whose pass@N obeys a = −1, b = −0.4; a 95 % interval covers in 88 to 100 of them.

    (Binomial(100, 0.95) is below 88 with probability 0.0015; the percentile bootstrap is somewhat narrow besides.)
    """
    a, b = -1.0, -0.4
    rates, weights = lawful_rates(a, b)
    rng = np.random.default_rng(0)
    covered = np.zeros(2)
    holds = refuted = 0
    for repetition in range(100):
        values = passes(drawn(rng, rng.choice(rates, size=150, p=weights), 64))
        law = fit_law(values, NS, num_resamples=400, seed=repetition)
        covered += [law.a.low <= a <= law.a.high, law.b.low <= b <= law.b.high]
        holds += law.verdict in (LawVerdict.HOLDS, LawVerdict.UNCLEAR)
        strict = fit_law(values, NS, num_resamples=400, seed=repetition, tolerance=0.0)
        refuted += strict.verdict is LawVerdict.FAILS
    assert (covered >= 87).all(), covered
    assert holds >= 95, "a law that is true is not said to fail"
    assert refuted <= 30, "nor at a tolerance of 0, but for six chances of 5 % that go together"


def test_a_law_that_does_not_hold_is_said_to_fail() -> None:
    """Half the problems nearly always solved, half hardly ever: a step and then a plateau and no power of N."""
    rng = np.random.default_rng(0)
    rates = np.repeat([0.7, 0.002], 300)
    values = passes(drawn(rng, rates, 64))
    law = fit_law(values, NS)
    assert law.verdict is LawVerdict.FAILS
    assert law.deviation > 0.02
    means = values.mean(0)
    deviations = np.abs(means - law.pass_at(NS))
    assert law.deviation == pytest.approx(deviations.max())
    assert law.deviation_at == NS[int(deviations.argmax())]
    assert 0 < law.r_squared < 1
    assert fit_law(values, NS, tolerance=0.5).verdict is LawVerdict.HOLDS


def test_what_noise_explains_is_called_unclear() -> None:
    """Three problems: a deviation of some points says nothing about the law."""
    rewards = np.zeros((3, 32))
    rewards[0, :1], rewards[1, :16] = 1, 1
    law = fit_law(passes(rewards), NS)
    assert law.deviation > 0.02
    assert law.verdict is LawVerdict.UNCLEAR


def test_pass_rates_of_0_and_1_are_left_out() -> None:
    means = np.exp(-2.0 * np.array(NS, dtype=float) ** -0.5)
    means[-2:] = 1.0
    means[0] = 0.0
    law = fit_law(np.array([means, means]), NS)
    assert law.left_out == (1, 16, 32)
    assert (law.a.value, law.b.value) == (pytest.approx(-2.0), pytest.approx(-0.5))
    assert fit_law(np.array([means, means])[:, [0, 1, 2, 4]], [1, 2, 4, 16]).verdict is LawVerdict.UNTESTED
    for constant in (0.0, 1.0):
        law = fit_law(np.full((5, len(NS)), constant), NS)
        assert law.verdict is LawVerdict.NOT_FITTED
        assert law.left_out == tuple(NS)
        assert np.isnan(law.a.value)


def test_a_flat_curve_has_no_r_squared() -> None:
    law = fit_law(np.full((5, len(NS)), 0.4), NS)
    assert law.b.value == pytest.approx(0.0, abs=1e-12)
    assert np.isnan(law.r_squared)


# ---- between temperatures ----


def test_a_quadratic_surface_is_recovered_with_its_optimum() -> None:
    """α = 0.6 + (T − 0.5)², b = −0.3 − 0.4 T + 0.1 T²: α + b log N is lowest where 2(T − 0.5) = (0.4 − 0.2 T) log N."""
    temperatures = [0.2, 0.5, 0.8, 1.1, 1.4, 1.7]
    t = np.array(temperatures)
    alpha, b = 0.6 + (t - 0.5) ** 2, -0.3 - 0.4 * t + 0.1 * t**2
    means = np.exp(-np.exp(alpha[:, None] + b[:, None] * np.log(NS)))
    laws = fit_laws(means, np.repeat(means[None], 10, axis=0), NS)
    surface = fit_surface(temperatures, laws, means, NS)
    assert surface is not None
    assert surface.degree >= 2
    assert surface.error < 1e-9
    assert surface.errors_by_degree[1] > 0.01
    np.testing.assert_allclose(surface.pass_at(temperatures, NS), means, atol=1e-9)
    for optimum in surface.optima:
        wanted = (1 + 0.4 * np.log(optimum.n)) / (2 + 0.2 * np.log(optimum.n))
        assert optimum.temperature.value == pytest.approx(wanted, abs=0.006)
        assert optimum.temperature.low == optimum.temperature.high == optimum.temperature.value
    assert fit_surface(temperatures[:3], laws[:3], means[:3], NS) is None


# ---- which is best ----


def columns(rng: np.random.Generator, means: list[float], p: int) -> Array:
    """P problems, columns with those true means that share the problem's difficulty."""
    shared = rng.normal(size=(p, 1))
    return np.asarray(np.array(means) + 0.5 * shared + 0.3 * rng.normal(size=(p, len(means))))


def test_the_set_of_those_that_may_be_best_holds_the_best() -> None:
    """Close competitors and an exact tie: the truly best is in the set in 95 of 100 cases or so, as it says."""
    for means, best in (([0.50, 0.52, 0.5, 0.4], {1}), ([0.5, 0.5, 0.5, 0.5, 0.5], {0})):
        rng = np.random.default_rng(1)
        held = narrowed = 0
        for repetition in range(100):
            values = columns(rng, means, 120)
            found = choose(values.mean(0), resampled_means(values, 400, seed=repetition))
            held += all(found.is_possible_C[i] for i in best)
            narrowed += not found.is_possible_C[3]
        assert held >= 88, (means, held)
        assert narrowed >= 60 or len(means) == 5, "the clearly worse is told apart"


@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_choosing_has_no_side_effects(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    values = columns(rng, rng.random(count).tolist(), 20)
    found = choose(values.mean(0), resampled_means(values, 100))
    assert found.best == int(values.mean(0).argmax())
    assert found.is_possible_C[found.best]
    highest = [max(range(count), key=row.__getitem__) for row in resampled_means(values, 100).tolist()]
    assert found.shares_C == tuple(highest.count(i) / 100 for i in range(count))
    assert found.gain.value >= 0
    shifted = choose(values.mean(0) + 1, resampled_means(values + 1, 100))
    assert shifted.is_possible_C == found.is_possible_C
    order = rng.permutation(count)
    permuted = choose(values.mean(0)[order], resampled_means(values[:, order], 100))
    assert [permuted.is_possible_C[i] for i in np.argsort(order)] == list(found.is_possible_C)
    twin = np.concatenate([values, values[:, found.best : found.best + 1]], axis=1)
    assert choose(twin.mean(0), resampled_means(twin, 100)).is_possible_C[-1], "its equal does as well"


def test_a_difference_without_noise_is_clear() -> None:
    found = choose(np.array([0.4, 0.5]), np.array([[0.4, 0.5]] * 10))
    assert found.is_possible_C == (False, True)
    assert found.gain.low == found.gain.high == pytest.approx(0.1)
    assert found.label_interval([0.6, 1.2]).value == 1.2


# ---- the grid ----


def brute_force(rewards: Array, scores: Array | None, n: int) -> float:
    """Mean over all n-subsets of every problem: any right, or the mean reward of those with the highest score."""
    values = []
    for p, row in enumerate(rewards):
        for subset in itertools.combinations(range(len(row)), n):
            if scores is None:
                values.append(max(row[i] for i in subset))
            else:
                top = max(scores[p, i] for i in subset)
                values.append(float(np.mean([row[i] for i in subset if scores[p, i] == top])))
    return float(np.mean(values))


def test_grid_and_optima_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(3)
    pools = [
        pool(t, drawn(rng, rng.random(12) * t, 6), scores_PM=rng.integers(0, 4, (12, 6)).astype(float))
        for t in (0.9, 0.3, 0.6)
    ]
    result = study(pools, ns=[1, 2, 3, 6], num_resamples=50)
    assert result.temperatures == (0.3, 0.6, 0.9)
    assert result.bests is not None
    by_t = {p.temperature: p for p in pools}
    for grid in (result.passes, result.bests):
        for j, n in enumerate(result.ns):
            wanted = [
                brute_force(by_t[t].rewards_PM, None if grid is result.passes else by_t[t].scores_PM, n)
                for t in result.temperatures
            ]
            np.testing.assert_allclose(grid.means_TN[:, j], wanted, atol=1e-12)
            assert wanted[grid.over_t_N[j].best] == pytest.approx(max(wanted))
        for i in range(3):
            assert grid.means_TN[i, grid.over_n_T[i].best] == grid.means_TN[i].max()


def test_beta_distributed_rates_have_their_known_grid_and_optimum() -> None:
    """Cold: easy problems sure, others hopeless; hot: all sometimes. T* rises with N, and the intervals hold it."""
    shapes = {0.5: (0.25, 0.75), 1.0: (0.5, 2.0), 1.5: (2.0, 18.0)}
    pools = beta_pools(np.random.default_rng(0), shapes, 400, 64)
    result = study(pools, ns=NS)
    true = np.array([[beta_pass(*shape, n) for n in NS] for shape in shapes.values()])
    assert true.argmax(0).tolist() == [0, 0, 1, 1, 2, 2], "the example has what it is to show"
    assert ((result.passes.low_TN - 0.01 <= true) & (true <= result.passes.high_TN + 0.01)).all()
    for j, choice in enumerate(result.passes.over_t_N):
        assert choice.is_possible_C[int(true[:, j].argmax())]
    assert "The best temperature rises with N: from T = 0.5 at N = 1 to T = 1.5 at N = 32." in advise_all(result)
    assert result.bests is None


def test_order_of_pools_and_problems_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    pools = [pool(t, drawn(rng, rng.random(30), 8), tokens=10 * t) for t in (0.5, 1.0)]
    order = rng.permutation(30)
    second = dataclasses.replace(
        pools[1], problem_ids=[pools[1].problem_ids[i] for i in order], rewards_PM=pools[1].rewards_PM[order]
    )
    straight, turned = study(pools), study([pools[0], second])
    for j in range(len(straight.ns)):
        assert straight.passes.over_t_N[j] == turned.passes.over_t_N[j], "paired by problem, whatever their order"
    np.testing.assert_array_equal(straight.passes.low_TN, turned.passes.low_TN)
    # Problems come in the order of the first pool: other resamples, the same means.
    np.testing.assert_allclose(straight.passes.means_TN, study([second, pools[0]]).passes.means_TN)


def fooled(rng: np.random.Generator, rewards: Array, rate: float) -> Array:
    """Scores of a verifier that gives right ones 1, wrong ones 0, and wrong ones 2 at a rate."""
    return np.where(rewards == 1, 1.0, np.where(rng.random(rewards.shape) < rate, 2.0, 0.0))


def test_best_of_n_falls_as_the_verifier_says_it_must() -> None:
    """p of right ones, ε of the wrong ones fool: best-of-N is right iff one is right and none fools,
    (1 − (1−p)ε)^N − ((1−p)(1−ε))^N; it peaks inside and the study says where."""
    rng, epsilon = np.random.default_rng(0), 0.03
    rates = {0.5: 0.3, 1.5: 0.1}
    pools = []
    for t, p in rates.items():
        rewards = drawn(rng, np.full(600, p), 64)
        pools.append(pool(t, rewards, scores_PM=fooled(rng, rewards, epsilon)))
    result = study(pools)
    assert result.bests is not None
    ns = np.array(result.ns)
    for i, p in enumerate(rates.values()):
        true = (1 - (1 - p) * epsilon) ** ns - ((1 - p) * (1 - epsilon)) ** ns
        assert ((result.bests.low_TN[i] - 0.01 <= true) & (true <= result.bests.high_TN[i] + 0.01)).all()
        choice = result.bests.over_n_T[i]
        assert choice.is_possible_C[int(true.argmax())]
        assert not choice.is_possible_C[-1], "the fall is clear"
        loss = true.max() - true[-1]
        assert choice.gain.low - 0.01 <= loss <= choice.gain.high + 0.01
    text = " ".join(advise_all(result))
    assert "More samples hurt under this verifier at every temperature measured" in text
    assert "For this model and verifier" in text


def test_a_perfect_verifier_needs_no_grid_of_its_own() -> None:
    rng = np.random.default_rng(0)
    rewards = [drawn(rng, rng.random(20), 8) for _ in range(2)]
    assert study([pool(t, r, scores_PM=3 * r - 1) for t, r in zip((0.5, 1.0), rewards, strict=True)]).bests is None


# ---- budgets ----


@pytest.mark.parametrize("has_scores", [False, True])
def test_the_best_pair_within_a_budget_is_that_of_brute_force(has_scores: bool) -> None:
    rng = np.random.default_rng(0)
    cost = {0.4: 10.0, 0.8: 14.0, 1.2: 25.0}
    pools = []
    for t, tokens in cost.items():
        rewards = drawn(rng, rng.beta(0.5 * t, 1.0, 25), 16)
        scores = fooled(rng, rewards, 0.1) if has_scores else None
        pools.append(pool(t, rewards, scores_PM=scores, tokens=tokens))
    result = study(pools, num_resamples=50)
    assert [b.tokens for b in result.budgets] == [25, 50, 100], "from one of the dearest to all of the cheapest"
    result = study(pools, budgets=[99, 30, 5000], num_resamples=50)
    assert [b.tokens for b in result.budgets] == [30, 99, 5000]
    by_t = {p.temperature: p for p in pools}
    for budget in result.budgets:
        options = {
            (t, n): brute_mean(by_t[t], n, has_scores)
            for t, tokens in cost.items()
            for n in range(1, 17)
            if n * tokens <= budget.tokens and (not has_scores or n in (1, 2, 4, 8, 16, int(budget.tokens / tokens)))
        }
        t, n = budget.pairs_C[budget.choice.best]
        pair = (result.temperatures[t], n)
        assert pair[1] * cost[pair[0]] <= budget.tokens
        assert options[pair] == pytest.approx(max(options.values()))
        assert budget.choice.value.value == pytest.approx(options[pair])
        assert result.temperatures[budget.pairs_C[budget.choice.reference][0]] in (0.8, 1.2)


def brute_mean(of: SweepPool, n: int, has_scores: bool) -> float:
    from bontune.metrics import best_of_k

    if has_scores:
        assert of.scores_PM is not None
        return float(best_of_k(of.rewards_PM, of.scores_PM, n).mean())
    return float(pass_at_k(of.rewards_PM, n).mean())


# ---- difficulty ----


def test_groups_by_pass_rate_do_not_deceive() -> None:
    """All problems are equally hard; sorted by the samples that are measured they would seem to differ."""
    rng = np.random.default_rng(0)
    rewards = [drawn(rng, np.full(240, 0.3), 16) for _ in range(2)]
    result = study([pool(t, r) for t, r in zip((0.5, 1.0), rewards, strict=True)])
    assert [group.name for group in result.groups] == ["easiest third", "middle third", "hardest third"]
    assert all(group.ns[-1] == 8 for group in result.groups), "half the samples are left"
    for group in result.groups:
        error = np.sqrt(0.3 * 0.7 / (group.num_problems * 8))
        np.testing.assert_allclose(group.grid.means_TN[:, 0], 0.3, atol=4 * error)
    scored = [pool(t, r, scores_PM=fooled(rng, r, 0.1)) for t, r in zip((0.5, 1.0), rewards, strict=True)]
    for group, places in zip(study(scored).groups, split_by_difficulty(rewards, None)[0].values(), strict=True):
        halves = [
            dataclasses.replace(p, rewards_PM=p.rewards_PM[places, 1::2], scores_PM=p.scores_PM[places, 1::2])
            for p in scored
        ]
        wanted = [[brute_mean(p, n, has_scores=True) for n in group.ns] for p in halves]
        np.testing.assert_allclose(group.grid.means_TN, wanted)
    rate = np.mean(rewards, axis=0).mean(-1)
    assert np.sort(rate)[:80].mean() < 0.24, "what the same samples would have said of the hardest third"


def test_groups_are_fifths_of_many_and_keep_equals_together() -> None:
    rate = np.repeat([1.0, 0.0], [50, 250])
    rewards = [np.repeat(rate[:, None], 4, axis=1)]
    groups, is_by_level = split_by_difficulty(rewards, None)
    assert not is_by_level
    # The equals' middle ranks, 25 and 175 of 300, lie in the first fifth and in the third.
    assert {name: len(places) for name, places in groups.items() if places} == {
        "easiest fifth": 50,
        "middle fifth": 250,
    }


def test_levels_of_the_task_come_first() -> None:
    rng = np.random.default_rng(0)
    levels = [1] * 20 + [2] * 20 + [3] * 3
    pools = [pool(t, drawn(rng, rng.random(43), 8), levels_P=levels) for t in (0.5, 1.0)]
    result = study(pools)
    assert result.difficulty == "the task's levels"
    assert [(g.name, g.num_problems, g.ns) for g in result.groups] == [
        ("level 1", 20, (1, 2, 4, 8)),
        ("level 2", 20, (1, 2, 4, 8)),
    ], "three problems are too few to say anything"
    np.testing.assert_allclose(result.groups[0].grid.means_TN[0, 0], pools[0].rewards_PM[:20].mean())
    unknown = [dataclasses.replace(p, levels_P=[None, *levels[1:]]) for p in pools]
    assert study(unknown).difficulty.startswith("the pass rate")


# ---- words ----


def test_advice_is_clear_where_the_data_are_and_not_where_they_are_not() -> None:
    rng = np.random.default_rng(0)
    rates = rng.beta(1, 2, 300)
    clear = study([pool(t, drawn(rng, rates * share, 16)) for t, share in ((0.5, 0.5), (0.9, 1.0), (1.4, 0.3))])
    text = advise(clear, 8)
    value = 100 * clear.passes.means_TN[1, 3]
    assert text.startswith(f"For this model, with 8 samples, use T = 0.9 (pass@8 {value:.1f}, ")
    assert text.endswith(("points more than T = 0.5).", "points more than T = 1.4)."))
    assert "For this model, with 1 sample, use T = 0.9" in advise(clear, 1)

    same = study([pool(t, drawn(rng, rates[:40], 16)) for t in (0.5, 0.9, 1.4)])
    assert "no temperature measured is clearly better or worse than another on 40 problems" in advise(same, 8)

    pools = [pool(t, drawn(rng, rates * share, 16)) for t, share in ((0.5, 0.2), (0.9, 1.0), (1.0, 1.0), (1.4, 0.2))]
    assert "T = 0.9 or 1.0 does as well as 300 problems can tell" in advise(study(pools), 4)
    edge = study([pool(t, drawn(rng, rates * share, 16)) for t, share in ((0.5, 1.0), (0.9, 0.4), (1.4, 0.2))])
    assert advise(edge, 4).endswith("It is the lowest temperature measured: a better one may lie beyond.")


def test_the_pools_of_the_advice_have_twice_the_samples() -> None:
    rng = np.random.default_rng(0)
    result = study([pool(t, drawn(rng, rng.random(50), 16)) for t in (0.5, 1.0)])
    assert "with 8 samples" in advise_all(result)[0]


# ---- errors ----


def good(t: float = 0.5, num_samples: int = 4) -> SweepPool:
    return pool(t, drawn(np.random.default_rng(0), np.full(12, 0.5), num_samples))


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: study([good()]), "two temperatures at least, got 1"),
        (lambda: study([]), "two temperatures at least, got 0"),
        (lambda: study([good(), good()]), "Two pools are of temperature 0.5"),
        (lambda: study([good(), good(0.0)]), "above 0, got 0"),
        (lambda: study([good(), good(-1.0)]), "above 0, got -1"),
        (lambda: study([good(), good(float("nan"))]), "above 0, got nan"),
        (lambda: study([good(), good(1.0)], ns=[1, 5]), "between 1 and the 4 samples per problem, got 5"),
        (lambda: study([good(), good(1.0, 3)], ns=[4]), "the 3 samples"),
        (lambda: study([good(), good(1.0)], ns=[0, 1]), "got 0"),
        (lambda: study([good(), good(1.0)], ns=[]), "got none"),
        (
            lambda: study([good(), dataclasses.replace(good(1.0), problem_ids=[f"q{i}" for i in range(12)])]),
            "temperatures 0.5 and 1 are of different problems",
        ),
        (
            lambda: study([good(), dataclasses.replace(good(1.0), rewards_PM=np.full((12, 4), 0.5))]),
            "rewards of 0 or 1",
        ),
        (lambda: study([good(), good(1.0)], budgets=[100]), "do not say how many tokens"),
        (
            lambda: study([dataclasses.replace(good(t), tokens=9.0) for t in (0.5, 1.0)], budgets=[8]),
            "8 tokens is less than one completion takes at some temperature, 9.0",
        ),
    ],
)
def test_errors_are_one_clear_sentence(work: Callable[[], object], message: str) -> None:
    with pytest.raises(BontuneError) as caught:
        work()
    assert message in str(caught.value)
