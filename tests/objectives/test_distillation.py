"""BoNBoN, vBoN and BOND against the divergences that they state, by enumeration.

1. bonbon: loss and weights against autograd; 1/(2β) is the mean gap of log-ratios under π_bon without ties, by
   quadrature; at n = 2 the squared term is stationary at ref·exp(p_< − p_>) and not at π_bon.
2. vbon: over all pools of own and reference samples the expected update is the gradient of E_π[E log F̂] − KL/(N−1),
   with E log F̂ the truncated series (harmonic) or its binomial mean (plugin); so too with the pool as reference.
3. Its stationary point is ref F^{N−1}/Z, which is π_bon in the limit of no ties (1/K in total variation).
4. bond: the forward part is −∇KL(π_bon‖π) exactly; with many reference samples the whole is the gradient of the
   Jeffreys mixture, stationary at π_bon with ties.
5. Leave-one-out in the pool equals brute force; ties, extremes, dtypes, refusals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bontune.objectives import best_and_worst, best_of_n_log_ratio, bon_distillation, bonbon, bonbon_gap, bond, vbon
from oracles import (
    BINARY,
    GRADED,
    NOISY,
    UNTIED,
    World,
    assert_equal_to,
    assert_gradient,
    expected_gradient,
    finite_difference,
    gradient_of_pools,
    tuples,
)

REFERENCE = torch.tensor([-0.2, 0.6, 0.1, 0.4, -0.9, 0.3], dtype=torch.float64).softmax(-1)
"""A reference policy other than that of the worlds."""


def quantiles(world: World, reference: Tensor) -> tuple[Tensor, Tensor]:
    """p_< and p_≤ of every outcome under the reference."""
    is_below = (world.scores.unsqueeze(-1) > world.scores).double()
    is_at_most = (world.scores.unsqueeze(-1) >= world.scores).double()
    return is_below @ reference, (is_at_most @ reference).clamp(max=1.0)


def best_of_n_law(world: World, reference: Tensor, n: int) -> Tensor:
    return reference * best_of_n_log_ratio(*quantiles(world, reference), n).exp()


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


# --- BoNBoN -------------------------------------------------------------------------------------------------------


def test_bonbon_weights_are_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    logprobs = (torch.randn(20, 2, generator=generator, dtype=torch.float64) * 5 - 20).requires_grad_()
    reference = torch.randn(20, 2, generator=generator, dtype=torch.float64) * 5 - 20
    for n, alpha in itertools.product((2, 8), (0.0, 0.005, 0.7, 1.0)):
        h = (logprobs - reference)[:, 0] - (logprobs - reference)[:, 1]
        loss = -alpha * logprobs[:, 0] + (1 - alpha) * (h - (n - 1) * sum(1 / k for k in range(1, n))) ** 2
        (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
        found = bonbon(logprobs, reference, n, alpha)
        assert_equal_to(found.loss, loss.detach(), atol=1e-10)
        assert_equal_to(found.weights, -gradient, atol=1e-10)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_gap_is_the_mean_of_the_log_ratio_under_best_of_n(n: int) -> None:
    """log π_bon/ref = log n + (n−1) log u, u uniform; E log max − E log min by quadrature, u = e^{−t}."""
    t = (torch.arange(200_000, dtype=torch.float64) + 0.5) * 2e-4
    smallest = -(t * n * (1 - torch.exp(-t)) ** (n - 1) * torch.exp(-t)).sum() * 2e-4
    largest = -(t * n * torch.exp(-n * t)).sum() * 2e-4
    assert (n - 1) * (largest - smallest).item() == pytest.approx(bonbon_gap(n), abs=1e-6)


@pytest.mark.parametrize("world", [UNTIED, GRADED], ids=["untied", "graded"])
def test_what_the_squared_term_converges_to_at_two_draws(world: World) -> None:
    below, upto = quantiles(world, REFERENCE)

    def update(policy: Tensor) -> Tensor:
        """E over pairs from the reference of Σ w ∇log π, at α = 0; tied pairs carry no contrast."""
        pairs = tuples(6, 2)
        order = world.scores[pairs].sort(-1, descending=True).indices
        pairs = pairs.gather(-1, order)
        has_contrast = world.scores[pairs[:, 0]] > world.scores[pairs[:, 1]]
        weights = bonbon(policy[pairs].log(), REFERENCE[pairs].log(), 2, 0.0, has_contrast).weights
        return (REFERENCE[pairs].prod(-1, keepdim=True) * gradient_of_pools(2 * weights, pairs, policy)).sum(0)

    if world is UNTIED:
        tilted = REFERENCE * torch.exp(below - (1 - upto))
        assert update(tilted / tilted.sum()).abs().max() < 1e-12
    assert update(best_of_n_law(world, REFERENCE, 2)).norm() > 0.01


def test_pairs_without_contrast_are_sft() -> None:
    found = bonbon([[-3.0, -9.0]], [[-5.0, -4.0]], 4, alpha=0.25, has_contrast=[False])
    assert found.loss.tolist() == [0.75]
    assert found.weights.tolist() == [[0.25, 0.0]]


def test_best_and_worst_of_each_group() -> None:
    scores = torch.randint(0, 5, (30, 11), generator=torch.Generator().manual_seed(1))
    for given in (scores, scores.to(torch.uint8), scores.double(), scores > 2):
        pairs = best_and_worst(given, 5, torch.Generator().manual_seed(2))
        assert pairs.shape == (30, 2, 2)
        for group in range(2):
            members = given[:, group * 5 : group * 5 + 5].double()
            chosen = given.gather(-1, pairs[:, group]).double()
            assert torch.equal(chosen[:, 0], members.amax(-1))
            assert torch.equal(chosen[:, 1], members.amin(-1))


# --- variational Best-of-N ----------------------------------------------------------------------------------------


def mean_log_quantile(chance: Tensor, num_others: int, estimate: str) -> Tensor:
    """E log F̂ for K others with F = chance."""
    if estimate == "harmonic":
        return -sum((1 - chance) ** k / k for k in range(1, num_others + 1)) + 0 * chance
    return sum(
        math.comb(num_others, c) * chance**c * (1 - chance) ** (num_others - c) * math.log((1 + c) / (1 + num_others))
        for c in range(num_others + 1)
    )


@pytest.mark.parametrize("world", [UNTIED, NOISY], ids=["untied", "noisy"])
@pytest.mark.parametrize("estimate", ["plugin", "harmonic"])
@pytest.mark.parametrize(("m", "k"), [(2, 1), (2, 3), (3, 2)])
def test_vbon_with_samples_of_a_reference(world: World, estimate: str, m: int, k: int) -> None:
    n = 4
    worth = mean_log_quantile(quantiles(world, REFERENCE)[1], k, estimate)
    true = finite_difference(lambda p: (p * worth).sum() - kl(p, REFERENCE) / (n - 1), world.logits)
    reference_pools = tuples(6, k)
    weight = REFERENCE[reference_pools].prod(-1)

    def advantages(pools: Tensor) -> Tensor:
        log_ratios = (world.policy / REFERENCE).log()[pools]
        total = torch.zeros_like(log_ratios)
        for probability, drawn in zip(weight, reference_pools, strict=True):
            others = world.scores[drawn].expand(len(pools), -1)
            total += probability * vbon(world.scores[pools], n, others, log_ratios, estimate)
        return total

    assert_gradient(expected_gradient(advantages, world.policy, m), true)


@pytest.mark.parametrize("world", [UNTIED, NOISY, BINARY], ids=["untied", "noisy", "binary"])
@pytest.mark.parametrize("estimate", ["plugin", "harmonic"])
@pytest.mark.parametrize("m", [2, 3, 5])
def test_vbon_where_the_pool_is_its_own_reference(world: World, estimate: str, m: int) -> None:
    worth = mean_log_quantile(quantiles(world, world.policy)[1], m - 1, estimate)
    true = finite_difference(lambda p: (p * worth).sum(), world.logits)
    found = expected_gradient(lambda pools: vbon(world.scores[pools], 8, estimate=estimate), world.policy, m)
    assert_gradient(found, true)


def loo_by_definition(scores: Tensor, reward: Callable[[int, int, int], float]) -> Tensor:
    """Reward of i among the rest, less the mean over j of j's reward among the rest without i."""
    values = scores.tolist()

    def among(i: int, others: list[int]) -> float:
        below = sum(values[o] < values[i] for o in others)
        return reward(below, below + sum(values[o] == values[i] for o in others), len(others))

    rows = []
    for i in range(len(values)):
        left = [j for j in range(len(values)) if j != i]
        rows.append(among(i, left) - sum(among(j, [o for o in left if o != j]) for j in left) / len(left))
    return torch.tensor(rows, dtype=torch.float64)


LOG_QUANTILES: dict[str, Callable[[int, int], float]] = {
    "plugin": lambda c, k: math.log((c + 1) / (k + 1)),
    "harmonic": lambda c, k: sum(1 / i for i in range(1, c + 1)) - sum(1 / i for i in range(1, k + 1)),
}


@pytest.mark.parametrize("m", [3, 6, 9])
@pytest.mark.parametrize("estimate", ["plugin", "harmonic"])
def test_leave_one_out_in_the_pool_equals_its_definition(m: int, estimate: str) -> None:
    generator, log_quantile = torch.Generator().manual_seed(m), LOG_QUANTILES[estimate]

    def log_law(below: int, upto: int, num: int) -> float:
        """Each sample is in its own tie group: ρ = below/(upto + 1); N = 3."""
        ratio = below / (upto + 1)
        return 2 * log_quantile(upto, num) + math.log(1 + ratio + ratio**2)

    for _ in range(15):
        scores = torch.randint(0, 4, (m,), generator=generator)
        by_rank = loo_by_definition(scores, lambda below, upto, num: log_quantile(upto, num))
        assert_equal_to(vbon(scores, 2, estimate=estimate), by_rank, atol=1e-12)
        found = bond(scores, None, 3, beta=1.0, estimate=estimate).advantages
        assert_equal_to(found, loo_by_definition(scores, log_law), atol=1e-12)


@pytest.mark.parametrize("estimate", ["plugin", "harmonic"])
def test_bond_rewards_by_hand(estimate: str) -> None:
    """Scores 1 and 3 among 0, 1, 1, 2: (below, upto) = (1, 3) and (4, 4) of 4; N = 2, reward log F̂ + log(1 + ρ)."""
    log_quantile = LOG_QUANTILES[estimate]
    lower = log_quantile(3, 4) + math.log(1 + 1 / 4)
    higher = log_quantile(4, 4) + math.log(1 + 4 / 5)
    found = bond([1, 3], [0, 1, 1, 2], 2, beta=1.0, estimate=estimate).advantages
    assert found.tolist() == pytest.approx([lower - higher, higher - lower])


def many(world: World, reference_counts: list[int]) -> Tensor:
    return torch.repeat_interleave(world.scores, torch.tensor(reference_counts))


@pytest.mark.parametrize("world", [UNTIED, NOISY], ids=["untied", "noisy"])
@pytest.mark.parametrize("estimate", ["plugin", "harmonic"])
def test_the_maximiser_of_vbon(world: World, estimate: str) -> None:
    """π ∝ ref F^{N−1}: the expected update vanishes as 1/K; at ref and at π_bon with ties it does not."""
    n, counts = 4, [3, 1, 4, 2, 2, 4]
    reference = torch.tensor(counts).double() / sum(counts)
    upto = quantiles(world, reference)[1]
    tilted = reference * upto ** (n - 1)

    def size(policy: Tensor, copies: int) -> float:
        others = many(world, [count * copies for count in counts])

        def advantages(pools: Tensor) -> Tensor:
            log_ratios = (policy / reference).log()[pools]
            return vbon(world.scores[pools], n, others.expand(len(pools), -1), log_ratios, estimate)

        return expected_gradient(advantages, policy, 2).norm().item()

    at_maximiser = [size(tilted / tilted.sum(), copies) for copies in (20, 40)]
    assert at_maximiser[0] < 1e-2
    assert at_maximiser[1] == pytest.approx(at_maximiser[0] / 2, rel=0.1)
    assert size(reference, 40) > 0.05
    if world is NOISY:
        assert size(best_of_n_law(world, reference, n), 40) > 0.01


def test_the_maximiser_of_vbon_is_best_of_n_without_ties() -> None:
    """K equally likely outcomes of different scores: total variation between ref F^{N−1}/Z and π_bon falls as 1/K."""
    gaps = []
    for num in (100, 200, 400):
        upto = torch.arange(1, num + 1).double() / num
        law = upto**8 - (upto - 1 / num) ** 8
        tilted = upto**7 / (upto**7).sum()
        gaps.append((law - tilted).abs().sum().item() / 2)
    assert gaps[0] < 0.02
    for gap, next_gap in itertools.pairwise(gaps):
        assert next_gap == pytest.approx(gap / 2, rel=0.02)


def test_lowest_and_highest_ranks() -> None:
    others = [1.0, 2.0, 3.0]
    lowest, highest = vbon([0.0, 9.0], 2, others).tolist()
    assert highest - lowest == pytest.approx(2 * math.log(4)), "log 1/(K+1) against log 1, no −inf"
    lowest, highest = vbon([0.0, 9.0], 2, others, estimate="harmonic").tolist()
    assert highest - lowest == pytest.approx(2 * (1 + 1 / 2 + 1 / 3))
    assert vbon([5.0] * 4, 8).tolist() == [0.0] * 4
    assert vbon([[1, 1], [1, 1]], 8, [[0], [2]]).abs().max() == 0.0


# --- BOND ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [UNTIED, GRADED, BINARY], ids=["untied", "graded", "binary"])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (3, 2), (4, 4)])
def test_forward_part_is_the_divergence_from_best_of_n(world: World, k: int, n: int) -> None:
    """Reference samples from another policy than the one that is trained."""
    pools = tuples(6, k)
    own = world.scores[:2].expand(len(pools), -1)
    weights = bond(own, world.scores[pools], n, beta=0.25).weights
    drawn = REFERENCE[pools].prod(-1, keepdim=True)
    found = (drawn * gradient_of_pools(k * weights, pools, world.policy)).sum(0)
    law = best_of_n_law(world, REFERENCE, n)
    assert_gradient(found, finite_difference(lambda p: -0.75 * kl(law, p), world.logits))


def bond_update(world: World, policy: Tensor, counts: list[int], n: int, beta: float, law: str) -> Tensor:
    """Expected update over own pools of two, with the reference's frequencies exact."""
    reference = torch.tensor(counts).double() / sum(counts)
    others = many(world, counts)

    def advantages(pools: Tensor) -> Tensor:
        log_ratios = (policy / reference).log()[pools]
        return bond(world.scores[pools], others.expand(len(pools), -1), n, beta, law, log_ratios).advantages

    # Σ_k w_k ∇log π(y_k) is (1−β)(π_bon − π) up to 1/K; its exactness is tested above.
    weights = bond(world.scores[:2], others, n, beta, law).weights
    pool = torch.repeat_interleave(torch.arange(6), torch.tensor(counts))
    return expected_gradient(advantages, policy, 2) + gradient_of_pools(len(pool) * weights, pool, policy)


@pytest.mark.parametrize("world", [UNTIED, GRADED, BINARY], ids=["untied", "graded", "binary"])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_bond_is_the_jeffreys_mixture(world: World, beta: float, n: int) -> None:
    counts = [300, 100, 400, 200, 200, 400]
    reference = torch.tensor(counts).double() / sum(counts)
    law = best_of_n_law(world, reference, n)
    true = finite_difference(lambda p: -beta * kl(p, law) - (1 - beta) * kl(law, p), world.logits)
    assert true.norm() > 0.05
    assert_equal_to(bond_update(world, world.policy, counts, n, beta, "exact"), true, atol=0.01)
    assert_equal_to(bond_update(world, law, counts, n, beta, "exact"), torch.zeros(6), atol=0.01)


def test_the_law_without_ties_misses_best_of_n_where_scores_tie() -> None:
    counts = [300, 100, 400, 200, 200, 400]
    law = best_of_n_law(BINARY, torch.tensor(counts).double() / sum(counts), 5)
    assert bond_update(BINARY, law, counts, 5, 1.0, "no_ties").norm() > 0.2


def test_kl_is_in_the_coefficient_or_in_the_advantages() -> None:
    scores, others = [0.0, 1.0, 2.0], [0.5, 1.5, 0.1]
    log_ratios = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    apart = bond(scores, others, 2, beta=0.4)
    within = bond(scores, others, 2, beta=0.4, log_ratios=log_ratios)
    assert (apart.kl_coefficient, within.kl_coefficient) == (0.4, 0.0)
    centred = (log_ratios - log_ratios.mean()) * 3 / 2
    assert_equal_to(within.advantages, apart.advantages - 0.4 * centred, atol=1e-12)
    assert_equal_to(vbon(scores, 5, others, log_ratios), vbon(scores, 5, others) - centred / 4, atol=1e-12)


def test_bond_on_the_pool_itself() -> None:
    scores = torch.tensor([0.0, 2.0, 1.0, 5.0], dtype=torch.float64)
    found = bond(scores, None, 3, law="no_ties")
    assert_equal_to(found.weights, 0.5 * bon_distillation(scores, 3), atol=1e-15)
    assert_equal_to(found.advantages, 0.5 * (3 - 1) * vbon(scores, 3), atol=1e-12)


# --- the door -----------------------------------------------------------------------------------------------------


def test_batches_equal_single_prompts() -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randint(0, 4, (2, 3, 5), generator=generator)
    others = torch.randint(0, 4, (2, 3, 7), generator=generator)
    for a, b in itertools.product(range(2), range(3)):
        assert_equal_to(vbon(scores, 4)[a, b], vbon(scores[a, b], 4), atol=1e-12)
        together, alone = bond(scores, others, 4), bond(scores[a, b], others[a, b], 4)
        assert_equal_to(together.advantages[a, b], alone.advantages, atol=1e-12)
        assert_equal_to(together.weights[a, b], alone.weights, atol=1e-12)


def test_dtypes() -> None:
    for dtype in (torch.float32, torch.float64):
        assert vbon(torch.tensor([0.1, 0.2], dtype=dtype), 4).dtype == dtype
    single, double = torch.tensor([0.1, 0.3]), torch.tensor([0.1, 0.2], dtype=torch.float64)
    assert vbon(single, 2, double)[0].item() == pytest.approx(math.log(2 / 3)), "0.1 ties with 0.1"
    for given in (torch.tensor([True, False]), torch.tensor([1, 0])):
        assert vbon(given, 2, torch.tensor([True, False])).tolist() == pytest.approx(
            [math.log(3 / 2), -math.log(3 / 2)]
        )


@pytest.mark.parametrize("estimate", ["plugin", "harmonic"])
def test_large_pools_stay_finite(estimate: str) -> None:
    scores = torch.randn(4096, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    advantages = vbon(scores, 128, estimate=estimate)
    assert bool(advantages.isfinite().all())
    assert bool(advantages[scores.argsort()].diff().min() > -1e-9), "a better score never earns less"
    assert bool(bond(scores, scores, 128, estimate=estimate).advantages.isfinite().all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bonbon_gap(1), "at least 2"),
        (lambda: bonbon([[-1.0]], [[-1.0]], 2), "at least 2"),
        (lambda: bonbon([[-1.0, -2.0, -3.0]], [[-1.0, -2.0, -3.0]], 2), "shape"),
        (lambda: bonbon([[-1.0, -2.0]], [-1.0, -2.0], 2), "one shape"),
        (lambda: bonbon([-1.0, float("-inf")], [-1.0, -2.0], 2), "finite"),
        (lambda: bonbon([-1.0, -2.0], [-1.0, -2.0], 2, alpha=1.5), "alpha"),
        (lambda: bonbon([-1.0, -2.0], [-1.0, -2.0], 2, has_contrast=[True]), "has_contrast"),
        (lambda: best_and_worst([1.0, 2.0], 1), "at least 2"),
        (lambda: vbon([1.0, 2.0], 1), "at least 2"),
        (lambda: vbon([1.0], 2), "at least 2"),
        (lambda: vbon([1.0, 2.0], 2, estimate="kernel"), "estimate"),
        (lambda: vbon([1.0, 2.0], 2, [[1.0]]), "leading shape"),
        (lambda: vbon([1.0, 2.0], 2, log_ratios=[0.0]), "log_ratios"),
        (lambda: bond([1.0, 2.0], [1.0], 2), "more than the 1 samples"),
        (lambda: bond([1.0, 2.0], [1.0, 2.0], 2, beta=2.0), "beta"),
        (lambda: bond([1.0, 2.0], [1.0, 2.0], 2, law="variational"), "law"),
    ],
)
def test_what_cannot_work_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
