"""BoN-SFT against the log-likelihood of the expert's answer under Best-of-N, by enumeration.

1. With the true probabilities the expected update is the gradient of log π_bon(y*) for each y*, ties and errors of the
   verifier included, and for every M and N; the brute force draws all 6^N.
2. Where the pool's frequencies equal the policy the estimates are right: plug-in and variational to 1e-8, leave-one-out
   with an error that falls as 1/M.
3. no_ties from the samples climbs log p_≤ truncated at order M, exactly; the biases that the docstring states.
4. The 0/1 form, N = 1, all samples above y*, the maximiser, and the numerics of the law's ratio.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from bontune.objectives import best_of_n_log_ratio, bon_sft, lambda_n
from oracles import (
    BINARY,
    GRADED,
    NOISY,
    UNTIED,
    World,
    assert_equal_to,
    assert_gradient,
    best_of_n_objective,
    expected_gradient,
    finite_difference,
    from_counts,
    gradient_of_pools,
    variational_law,
    world,
)

WORLDS = pytest.mark.parametrize("world", [GRADED, UNTIED, NOISY, BINARY], ids=["graded", "untied", "noisy", "binary"])


def indicator(num: int, y: int) -> Tensor:
    return torch.eye(num, dtype=torch.float64)[y]


def probabilities(world: World, y: int) -> tuple[float, float]:
    """p_< and p_≤ of outcome y."""
    below = world.policy[world.scores < world.scores[y]].sum().item()
    return below, below + world.policy[world.scores == world.scores[y]].sum().item()


def log_likelihood(world: World, y: int, n: int) -> Callable[[Tensor], Tensor]:
    chance = best_of_n_objective(indicator(len(world.logits), y), world.scores, n)
    return lambda policy: chance(policy).log()


def log_upto(world: World, y: int) -> Callable[[Tensor], Tensor]:
    return lambda policy: policy[world.scores <= world.scores[y]].sum().log()


def update(world: World, y: int, m: int, n: int, ordered: bool = False, **options: object) -> Tensor:
    """E[w* ∇log π(y*) + Σ_j own_j ∇log π(y_j)] over all pools."""

    def own(pools: Tensor) -> Tensor:
        return m * bon_sft(world.scores[pools], world.scores[y].expand(len(pools)), n, **options).own

    expert = indicator(len(world.logits), y) - world.policy
    return expert + expected_gradient(own, world.policy, m, ordered=ordered)


# --- with the true probabilities ----------------------------------------------------------------------------------


@WORLDS
@pytest.mark.parametrize(
    ("m", "n", "baseline"),
    [(1, 2, "none"), *((m, n, name) for m, n in ((2, 1), (2, 4), (3, 3), (4, 2)) for name in ("loo", "none"))],
)
def test_exact_law_with_the_true_probabilities(world: World, m: int, n: int, baseline: str) -> None:
    for y in range(6):
        below, upto = probabilities(world, y)
        found = update(world, y, m, n, baseline=baseline, p_below=below, p_upto=upto)
        assert_gradient(found, finite_difference(log_likelihood(world, y, n), world.logits))


@pytest.mark.parametrize(("m", "n"), [(2, 1), (2, 4), (3, 16)])
def test_no_ties_with_the_true_probabilities(m: int, n: int) -> None:
    for y in range(6):

        def objective(policy: Tensor, y: int = y) -> Tensor:
            return policy[y].log() + (n - 1) * log_upto(UNTIED, y)(policy)

        found = update(UNTIED, y, m, n, law="no_ties", p_upto=probabilities(UNTIED, y)[1])
        assert_gradient(found, finite_difference(objective, UNTIED.logits))


@pytest.mark.parametrize("n", [1, 2, 4, 32])
@pytest.mark.parametrize("q", [0.0, 0.3, 0.9, 0.999])
def test_the_binary_form(n: int, q: float) -> None:
    """M times the weight on a correct sample less that on a wrong one multiplies ∇s: N q^{N−1}/(1−q^N) − 1/(1−q)."""
    own = 2 * bon_sft([1, 0], 1, n, baseline="none", p_below=q, p_upto=1.0).own
    bracket = n * q ** (n - 1) / (1 - q**n) - 1 / (1 - q)
    assert (own[0] - own[1]).item() == pytest.approx(bracket, abs=1e-9)
    if n > 1:
        assert bracket < 0, "other correct samples are pushed down"


# --- where frequencies are exact ----------------------------------------------------------------------------------

COUNTS, REWARDS, SCORES = (3, 1, 4, 2, 2), (0.3, 1.0, 0.0, -0.5, 0.8), (0.0, 1.0, 1.0, 2.0, 2.0)


def at_exact_frequencies(y: int, n: int, copies: int, **options: object) -> tuple[Tensor, World]:
    graded, pool = from_counts([count * copies for count in COUNTS], REWARDS, SCORES)
    weights = bon_sft(graded.scores[pool], graded.scores[y], n, **options)
    return indicator(5, y) - graded.policy + gradient_of_pools(len(pool) * weights.own, pool, graded.policy), graded


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("y", range(5))
@pytest.mark.parametrize("baseline", ["loo", "none"])
def test_plugin_is_right_where_frequencies_equal_the_policy(y: int, n: int, baseline: str) -> None:
    found, graded = at_exact_frequencies(y, n, 1, estimate="plugin", baseline=baseline)
    assert_gradient(found, finite_difference(log_likelihood(graded, y, n), graded.logits))


@pytest.mark.parametrize("y", range(5))
def test_leave_one_out_converges_as_one_over_m(y: int) -> None:
    errors = []
    for copies in (20, 40, 80):
        found, graded = at_exact_frequencies(y, 4, copies)
        errors.append((found - finite_difference(log_likelihood(graded, y, 4), graded.logits)).norm().item())
    assert errors[0] < 0.03
    for error, next_error in itertools.pairwise(errors):
        assert next_error == pytest.approx(error / 2, rel=0.1) or error < 1e-9


@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.parametrize("y", range(5))
def test_variational_is_right_where_frequencies_equal_the_policy(y: int, n: int) -> None:
    def objective(policy: Tensor) -> Tensor:
        return variational_law(policy, graded.scores, lambda_n(n))[y].log()

    found, graded = at_exact_frequencies(y, n, 1, law="variational", baseline="none")
    assert_gradient(found, finite_difference(objective, graded.logits))
    centred, _ = at_exact_frequencies(y, n, 1, law="variational")
    expert = indicator(5, y) - graded.policy
    assert_equal_to(centred - expert, (found - expert) * 12 / 11)


def test_expectation_of_variational_converges_as_one_over_m() -> None:
    small = world([0.2, -0.3, 0.1], [0.0, 1.0, 0.4], [0.0, 1.0, 1.0])
    true = finite_difference(lambda policy: variational_law(policy, small.scores, lambda_n(4))[0].log(), small.logits)
    errors = {m: (update(small, 0, m, 4, law="variational") - true).norm().item() for m in (10, 20, 40)}
    assert errors[10] > 1e-3, "documented as biased"
    for m in (10, 20):
        assert errors[2 * m] == pytest.approx(errors[m] / 2, rel=0.25)


# --- estimated probabilities --------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("baseline", ["loo", "none"])
def test_no_ties_from_samples_climbs_the_truncated_log(m: int, baseline: str) -> None:
    for y in range(6):

        def objective(policy: Tensor, y: int = y) -> Tensor:
            missed = 1 - policy[UNTIED.scores <= UNTIED.scores[y]].sum()
            return policy[y].log() - 7 * sum(missed**k / k for k in range(1, m + 1))

        found = update(UNTIED, y, m, 8, law="no_ties", baseline=baseline)
        assert_gradient(found, finite_difference(objective, UNTIED.logits))


def binary_factor(q: float, m: int, n: int, estimate: str) -> float:
    """Expected coefficient of ∇s in the own part over the true one, for a 0/1 verifier and a correct y*."""
    binary = world([math.log(1 - q), math.log(q)], [1.0, 0.0], [1.0, 0.0])
    own = update(binary, 0, m, n, ordered=False, estimate=estimate) - (indicator(2, 0) - binary.policy)
    true = n * q ** (n - 1) / (1 - q**n) - 1 / (1 - q)
    return (own[0] / (true * q * (1 - q))).item()


@pytest.mark.parametrize(
    ("n", "m", "estimate", "factors"),
    [
        (4, 8, "loo", (1.000, 0.975, 0.995, 1.000)),
        (4, 8, "plugin", (0.959, 0.860, 0.877, 0.888)),
        (4, 32, "loo", (1.000, 0.994, 0.999, 1.000)),
        (4, 32, "plugin", (0.993, 0.963, 0.970, 0.973)),
        (32, 32, "loo", (1.004, 1.036, 1.054, 0.999)),
        (32, 32, "plugin", (1.000, 1.000, 0.878, 0.825)),
    ],
)
def test_bias_of_the_estimates_for_binary_scores(n: int, m: int, estimate: str, factors: tuple[float, ...]) -> None:
    for q, factor in zip((0.1, 0.5, 0.9, 0.99), factors, strict=True):
        assert binary_factor(q, m, n, estimate) == pytest.approx(factor, abs=6e-4)


@pytest.mark.parametrize("n", [2, 8, 32])
def test_leave_one_out_beats_plugin(n: int) -> None:
    """The range of the bias at M = 16 and 32: within 11 % for leave-one-out, up to 33 % too small for the plug-in."""
    for q, m in itertools.product((0.5, 0.9, 0.99), (16, 32)):
        loo, plugin = binary_factor(q, m, n, "loo"), binary_factor(q, m, n, "plugin")
        assert abs(loo - 1) < 0.11
        assert abs(loo - 1) < abs(plugin - 1) + 1e-3 or abs(plugin - 1) < 2e-3


@WORLDS
def test_bias_with_six_outcomes_shrinks(world: World) -> None:
    """At N = 4: the mean error over y* relative to the gradient, from 4 to 8 samples."""
    errors = {}
    for m in (4, 8):
        gaps = []
        for y in range(6):
            true = finite_difference(log_likelihood(world, y, 4), world.logits)
            gaps.append(((update(world, y, m, 4) - true).norm() / true.norm()).item())
        errors[m] = sum(gaps) / 6
    assert errors[8] < 0.7 * errors[4] or errors[8] < 0.01
    assert errors[8] < 0.2


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["exact", "no_ties", "variational"])
def test_one_draw_is_sft(law: str) -> None:
    weights = bon_sft([[0.0, 1.0, 1.0, 2.0]], 1.0, 1, law=law)
    assert weights.expert.tolist() == [1.0]
    assert weights.own.abs().max().item() < 1e-15


def test_where_every_sample_beats_the_expert() -> None:
    for law in ("exact", "no_ties"):
        assert bon_sft([2.0, 3.0], 1.0, 4, law=law).own.tolist() == [-1.5, -1.5]
        assert bon_sft([2.0, 3.0], 1.0, 4, law=law, baseline="none").own.tolist() == [0.0, 0.0]


def test_where_all_samples_tie_with_the_expert_nothing_is_left_to_say() -> None:
    for estimate in ("loo", "plugin"):
        assert bon_sft([1, 1, 1], 1, 8, estimate=estimate).own.tolist() == [0.0, 0.0, 0.0]


def test_exact_is_no_ties_where_nothing_ties() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0, 0.1, 5.0], dtype=torch.float64)
    for estimate, expert in itertools.product(("loo", "plugin"), (-2.0, 0.2, 1.0, 9.0)):
        exact = bon_sft(scores, expert, 16, estimate=estimate).own
        assert_equal_to(exact, bon_sft(scores, expert, 16, law="no_ties").own, atol=1e-12)


def test_plugin_weights_are_centred() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 4, (50, 7), generator=generator)
    expert = torch.randint(0, 4, (50,), generator=generator)
    has_any = (scores <= expert.unsqueeze(-1)).any(-1)
    own = bon_sft(scores, expert, 8, estimate="plugin").own
    assert own[has_any].sum(-1).abs().max() < 1e-12


def test_the_maximiser_is_the_policy_whose_best_of_n_is_the_expert() -> None:
    """Two answers, experts right in a share of .9: Best-of-4 is so at q = .1^{1/4} = .562; SFT goes on to q = .1."""
    n, share = 4, 0.9
    q = (1 - share) ** (1 / n)
    binary = world([math.log(1 - q), math.log(q)], [1.0, 0.0], [1.0, 0.0])
    total = torch.zeros(2, dtype=torch.float64)
    for y, weight in ((0, share), (1, 1 - share)):
        below, upto = probabilities(binary, y)
        total += weight * update(binary, y, 3, n, p_below=below, p_upto=upto)
    assert total.abs().max() < 1e-12
    sft = torch.tensor([share, 1 - share], dtype=torch.float64) - binary.policy
    assert sft[0] > 0.4


# --- the law's ratio ----------------------------------------------------------------------------------------------


@WORLDS
@pytest.mark.parametrize("n", [1, 2, 5])
def test_log_ratio_is_that_of_brute_force(world: World, n: int) -> None:
    pairs = torch.tensor([probabilities(world, y) for y in range(6)], dtype=torch.float64)
    found = best_of_n_log_ratio(pairs[:, 0], pairs[:, 1].clamp(max=1.0), n)
    expected = [log_likelihood(world, y, n)(world.policy) - world.policy[y].log() for y in range(6)]
    assert_equal_to(found, torch.stack(expected), atol=1e-12)


@pytest.mark.parametrize("n", [2, 64, 4096])
@pytest.mark.parametrize("gap", [Fraction(1, 2), Fraction(1, 10**6), Fraction(1, 2**50)])
def test_log_ratio_of_nearly_no_ties(n: int, gap: Fraction) -> None:
    """Exact integers; the closed form in floats has no digit left at a gap of 2^-50."""
    upto = Fraction(3, 4)
    below = Fraction(float(upto - gap))
    difference = (upto**n - below**n) / (upto - below)
    exact = math.log(difference.numerator) - math.log(difference.denominator)
    found = best_of_n_log_ratio(*torch.tensor([[float(below)], [float(upto)]], dtype=torch.float64), n)
    assert found.item() == pytest.approx(exact, abs=1e-9, rel=1e-12)


def test_log_ratio_at_the_ends() -> None:
    below = torch.tensor([0.0, 0.0, 1.0, 0.5], dtype=torch.float64)
    upto = torch.tensor([0.0, 1.0, 1.0, 0.5], dtype=torch.float64)
    expected = [-math.inf, 0.0, math.log(8), math.log(8) + 7 * math.log(0.5)]
    assert best_of_n_log_ratio(below, upto, 8).tolist() == pytest.approx(expected)
    assert best_of_n_log_ratio(below, upto, 1).tolist() == [0.0, 0.0, 0.0, 0.0]


# --- the door -----------------------------------------------------------------------------------------------------


def test_batches_equal_single_prompts() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randint(0, 3, (2, 3, 5), generator=generator)
    expert = torch.randint(0, 3, (2, 3), generator=generator)
    for law in ("exact", "no_ties", "variational"):
        together = bon_sft(scores, expert, 4, law=law)
        assert together.expert.shape == (2, 3)
        for a, b in itertools.product(range(2), range(3)):
            assert_equal_to(together.own[a, b], bon_sft(scores[a, b], expert[a, b], 4, law=law).own, atol=1e-13)


def test_order_of_samples_and_scale_of_scores_do_not_matter() -> None:
    scores, order = torch.tensor([0.0, 2.0, 1.0, 1.0]), torch.tensor([2, 0, 3, 1])
    for law in ("exact", "no_ties", "variational"):
        own = bon_sft(scores, 1.0, 4, law=law).own
        assert torch.equal(bon_sft(scores[order], 1.0, 4, law=law).own, own[order])
        assert torch.equal(bon_sft(scores.exp(), torch.tensor(1.0).exp(), 4, law=law).own, own)


def test_scores_of_one_verifier_tie_across_precisions() -> None:
    scores = torch.tensor([0.1, 0.2])
    own = bon_sft(scores, 0.1, 2, baseline="none").own
    assert own.dtype == torch.float32
    assert own[0] > 0, "0.1 is at most 0.1"
    assert bon_sft(torch.tensor([0, 1]), 0.5, 2, baseline="none").own.tolist() == [1.0, 0.0], "0.5 is not 0"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bon_sft([1.0], 1.0, 2, law="bond"), "law must be"),
        (lambda: bon_sft([1.0], 1.0, 2, baseline="mean"), "baseline must be"),
        (lambda: bon_sft([1.0], 1.0, 2, estimate="split"), "estimate must be"),
        (lambda: bon_sft([1.0], 1.0, 0), "at least 1"),
        (lambda: bon_sft([[1.0], [2.0]], [1.0, 2.0, 3.0], 2), "expert_score needs one value per prompt"),
        (lambda: bon_sft([1.0], float("nan"), 2), "NaN"),
        (lambda: bon_sft([1.0, 2.0], 1.0, 2, p_upto=0.5), "both p_below and p_upto"),
        (lambda: bon_sft([1.0, 2.0], 1.0, 2, p_below=0.0, p_upto=0.0), "clip"),
        (lambda: bon_sft([1.0, 2.0], 1.0, 2, p_below=0.6, p_upto=0.5), "p_below <= p_upto"),
        (lambda: bon_sft([1.0, 2.0], 1.0, 2, law="variational", p_upto=0.5), "variational needs the whole pool"),
        (lambda: bon_sft([1.0], 1.0, 2, law="variational"), "at least two"),
    ],
)
def test_what_cannot_work_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
