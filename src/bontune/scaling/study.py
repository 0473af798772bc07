"""Everything a sweep says, from its pools."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

import bontune.metrics as metrics
from bontune.base.errors import BontuneError
from bontune.objectives.inputs import FloatArray
from bontune.scaling.law import MAX_DEVIATION, Law, fit_laws
from bontune.scaling.resampling import NUM_RESAMPLES, Choice, bounds, choose, resampled_means
from bontune.scaling.surface import Surface, fit_surface

REFERENCE_TEMPERATURE = 1.0
"""Temperature that the best one is compared with, or the measured one nearest to it."""
FEWEST_OF_A_GROUP = 10
"""Groups of fewer problems are left out."""

Resample: TypeAlias = Callable[[FloatArray], FloatArray]
"""(P, C) → (R, C), the same problems redrawn at each call of equal P."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPool:
    """One pool of a sweep."""

    temperature: float
    """Sampling temperature T > 0."""
    problem_ids: Sequence[str]
    """Ids of the P problems."""
    rewards_PM: FloatArray
    """Rewards, 0 or 1."""
    scores_PM: FloatArray | None = None
    """Scores of the verifier; None: there are none."""
    tokens: float | None = None
    """Mean tokens of a completion."""
    levels_P: Sequence[int | float | str | None] | None = None
    """The task's own levels of difficulty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """One metric at every temperature and N."""

    metric: str
    """``pass`` (some sample is right) or ``best`` (the verifier's choice is right)."""
    means_TN: FloatArray
    """Means over problems."""
    low_TN: FloatArray
    """Lower ends of their 95 % intervals."""
    high_TN: FloatArray
    """Upper ends of the intervals."""
    over_t_N: tuple[Choice, ...]
    """The best temperature for each N."""
    over_n_T: tuple[Choice, ...]
    """The best N at each temperature, compared with the largest N."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Problems of like difficulty."""

    name: str
    """Such as ``level 3`` or ``hardest third``."""
    num_problems: int
    """Number of problems in the group."""
    ns: tuple[int, ...]
    """The N measured, fewer where half the samples went into telling difficulty."""
    grid: Grid
    """Grid of the metric that counts: best-of-N under a verifier that errs, else pass@N."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetChoice:
    """The best use of so many tokens a problem."""

    tokens: float
    """The budget B: N times the mean tokens of a completion stays within it."""
    pairs_C: tuple[tuple[int, int], ...]
    """(place of T, N) that were compared."""
    choice: Choice
    """Among them; compared with the reference temperature at the largest N it affords."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What a sweep says."""

    temperatures: tuple[float, ...]
    """Temperatures, ascending."""
    ns: tuple[int, ...]
    """Numbers of samples N, ascending."""
    num_problems: int
    """Number of problems, P."""
    num_samples: int
    """M, of the smallest pool."""
    reference: int
    """Place of the reference temperature."""
    passes: Grid
    """Grid of pass@N."""
    bests: Grid | None
    """Best-of-N; None without scores, or if the verifier never errs, where it is pass@N."""
    laws: tuple[Law, ...]
    """One for each temperature, of pass@N."""
    surface: Surface | None
    """The laws smoothed across temperatures; None with fewer than four."""
    groups: tuple[Group, ...]
    """Groups from easy to hard; empty if there are not at least two of ten problems."""
    difficulty: str
    """What the groups of problems are made by."""
    budgets: tuple[BudgetChoice, ...]
    """Ascending; empty if the pools do not know their tokens."""
    tokens_T: tuple[float, ...] | None
    """Mean tokens of a completion at each temperature."""

    @property
    def main(self) -> Grid:
        """The metric that counts: best-of-N under a verifier that errs, else pass@N."""
        return self.passes if self.bests is None else self.bests


def study(
    pools: Sequence[SweepPool],
    *,
    ns: Sequence[int] | None = None,
    budgets: Sequence[float] | None = None,
    tolerance: float = MAX_DEVIATION,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Study:
    """Study pools of the same problems at different temperatures.

    Args:
        pools: one for each temperature, in any order; their problems may be ordered differently.
        ns: the N to report, each at most the samples of the smallest pool; default: powers of two.
        budgets: tokens per problem to find the best pair for; default: doubling, from what one completion takes to
            what every temperature has samples for.
        tolerance: see :func:`bontune.scaling.fit_law`.
        num_resamples, seed: of the bootstrap over problems.

    Raises:
        BontuneError: fewer than two temperatures, one twice or not above 0, different problems, N beyond the samples,
            rewards other than 0 and 1, or a budget below one completion.
    """
    pools = _aligned(pools)
    num_samples = min(pool.rewards_PM.shape[1] for pool in pools)
    ns = _checked_ns(ns, num_samples)
    temperatures = tuple(pool.temperature for pool in pools)
    reference = int(np.argmin([abs(t - REFERENCE_TEMPERATURE) for t in temperatures]))
    resample = functools.partial(resampled_means, num_resamples=num_resamples, seed=seed)
    pass_PTN = _values(pools, ns, "pass")
    pass_RTN = resample(pass_PTN.reshape(len(pass_PTN), -1)).reshape(num_resamples, len(pools), len(ns))
    passes = _grid("pass", pass_PTN, pass_RTN, reference)
    bests = None
    if errs := _verifier_errs(pools, ns, pass_PTN):
        best_PTN = _values(pools, ns, "best")
        best_RTN = resample(best_PTN.reshape(len(best_PTN), -1)).reshape(num_resamples, len(pools), len(ns))
        bests = _grid("best", best_PTN, best_RTN, reference)
    metric = "best" if errs else "pass"
    laws = fit_laws(passes.means_TN, pass_RTN, ns, tolerance=tolerance)
    groups, difficulty = _groups(pools, ns, metric, reference, resample)
    return Study(
        temperatures=temperatures,
        ns=ns,
        num_problems=len(pass_PTN),
        num_samples=num_samples,
        reference=reference,
        passes=passes,
        bests=bests,
        laws=laws,
        surface=fit_surface(temperatures, laws, passes.means_TN, ns),
        groups=groups,
        difficulty=difficulty,
        budgets=_budgets(pools, ns, metric, reference, budgets, resample),
        tokens_T=_tokens(pools),
    )


def _aligned(pools: Sequence[SweepPool]) -> list[SweepPool]:
    """Order pools by ascending temperature, and their problems as in the first."""
    temperatures = [pool.temperature for pool in pools]
    if len(set(temperatures)) < len(temperatures):
        twice = next(t for t in temperatures if temperatures.count(t) > 1)
        raise BontuneError(f"Two pools are of temperature {twice:g}: a sweep takes one for each.")
    if len(pools) < 2:
        raise BontuneError(f"A sweep needs two temperatures at least, got {len(pools)}.")
    for pool in pools:
        if not pool.temperature > 0:
            raise BontuneError(
                f"A sweep takes temperatures above 0, got {pool.temperature:g}: at 0 all samples of a problem are "
                "alike."
            )
        if not np.isin(pool.rewards_PM, (0.0, 1.0)).all():
            raise BontuneError(
                "A sweep needs rewards of 0 or 1, or of two values: pass@N of graded rewards does not exist."
            )
    first = pools[0]
    aligned = []
    for pool in pools:
        place = {problem: p for p, problem in enumerate(pool.problem_ids)}
        if set(place) != set(first.problem_ids):
            raise BontuneError(
                f"The pools of temperatures {first.temperature:g} and {pool.temperature:g} are of different problems: "
                "a sweep needs the same ones at each."
            )
        order = [place[problem] for problem in first.problem_ids]
        scores_PM = None if pool.scores_PM is None else pool.scores_PM[order]
        aligned.append(
            replace(
                pool,
                problem_ids=first.problem_ids,
                rewards_PM=pool.rewards_PM[order],
                scores_PM=scores_PM,
                levels_P=first.levels_P,
            )
        )
    return sorted(aligned, key=lambda pool: pool.temperature)


def _checked_ns(ns: Sequence[int] | None, num_samples: int) -> tuple[int, ...]:
    chosen = tuple(sorted(set(metrics.default_ks(num_samples) if ns is None else ns)))
    if not chosen or chosen[0] < 1 or chosen[-1] > num_samples:
        wrong = chosen[-1] if chosen and chosen[-1] > num_samples else chosen[0] if chosen else "none"
        raise BontuneError(f"N must lie between 1 and the {num_samples} samples per problem, got {wrong}.")
    return chosen


def _values(pools: Sequence[SweepPool], ns: Sequence[int], metric: str) -> FloatArray:
    """(P, T, N) of each problem."""
    return np.stack([np.stack([_value(pool, n, metric) for n in ns], axis=-1) for pool in pools], axis=1)


def _value(pool: SweepPool, n: int, metric: str) -> FloatArray:
    if metric == "pass":
        return metrics.pass_at_k(pool.rewards_PM, n)
    assert pool.scores_PM is not None
    return metrics.best_of_k(pool.rewards_PM, pool.scores_PM, n)


def _verifier_errs(pools: Sequence[SweepPool], ns: Sequence[int], pass_PTN: FloatArray) -> bool:
    if any(pool.scores_PM is None for pool in pools):
        return False
    last = len(ns) - 1  # where the choice is widest
    at_last_PT = np.stack([_value(pool, ns[last], "best") for pool in pools], axis=1)
    return bool((np.abs(pass_PTN[:, :, last] - at_last_PT) > 1e-9).any())


def _grid(metric: str, values_PTN: FloatArray, means_RTN: FloatArray, reference: int) -> Grid:
    means_TN = values_PTN.mean(0)
    low_TN, high_TN = bounds(means_RTN)
    num_t, num_n = means_TN.shape
    return Grid(
        metric=metric,
        means_TN=means_TN,
        low_TN=low_TN,
        high_TN=high_TN,
        over_t_N=tuple(choose(means_TN[:, n], means_RTN[:, :, n], reference) for n in range(num_n)),
        over_n_T=tuple(choose(means_TN[t], means_RTN[:, t], num_n - 1) for t in range(num_t)),
    )


def _groups(
    pools: Sequence[SweepPool], ns: Sequence[int], metric: str, reference: int, resample: Resample
) -> tuple[tuple[Group, ...], str]:
    """The same by difficulty. Levels are the task's; else half the samples tell difficulty and the rest is measured."""
    levels_P = pools[0].levels_P
    members, is_by_level = split_by_difficulty([pool.rewards_PM for pool in pools], levels_P)
    difficulty = "the task's levels" if is_by_level else "the pass rate of every other sample, measured on the rest"
    if not is_by_level:
        pools = [_other_half(pool) for pool in pools]
        num_left = min(pool.rewards_PM.shape[1] for pool in pools)
        ns = [n for n in ns if n <= num_left]
    members = {name: places for name, places in members.items() if len(places) >= FEWEST_OF_A_GROUP}
    if len(members) < 2 or not ns:
        return (), difficulty
    values_PTN = _values(pools, ns, metric)
    groups = []
    for name, places in members.items():
        chosen_PTN = values_PTN[places]
        means_RTN = resample(chosen_PTN.reshape(len(places), -1)).reshape(-1, *chosen_PTN.shape[1:])
        grid = _grid(metric, chosen_PTN, means_RTN, reference)
        groups.append(Group(name=name, num_problems=len(places), ns=tuple(ns), grid=grid))
    return tuple(groups), difficulty


def _other_half(pool: SweepPool) -> SweepPool:
    scores_PM = None if pool.scores_PM is None else pool.scores_PM[:, 1::2]
    return replace(pool, rewards_PM=pool.rewards_PM[:, 1::2], scores_PM=scores_PM)


def _tokens(pools: Sequence[SweepPool]) -> tuple[float, ...] | None:
    tokens = [pool.tokens for pool in pools]
    known = [t for t in tokens if t is not None and t > 0]
    return tuple(known) if len(known) == len(tokens) else None


def _budgets(
    pools: Sequence[SweepPool],
    ns: Sequence[int],
    metric: str,
    reference: int,
    budgets: Sequence[float] | None,
    resample: Resample,
) -> tuple[BudgetChoice, ...]:
    """The best pair within each budget. pass@N grows with N, so each T takes all it affords; best-of-N need not."""
    tokens_T = _tokens(pools)
    if tokens_T is None:
        if budgets:
            raise BontuneError("A budget of tokens was given, but the pools do not say how many tokens they hold.")
        return ()
    if budgets is None:
        lowest, highest = max(tokens_T), min(t * p.rewards_PM.shape[1] for t, p in zip(tokens_T, pools, strict=True))
        budgets = [np.ceil(lowest * 2**i) for i in range(64) if np.ceil(lowest * 2**i) <= highest]
    found = []
    for budget in sorted(set(budgets)):
        if budget < max(tokens_T):
            raise BontuneError(
                f"A budget of {budget:g} tokens is less than one completion takes at some temperature, "
                f"{max(tokens_T):.1f}: give more."
            )
        affordable_T = [
            min(int(budget / tokens + 1e-9), pool.rewards_PM.shape[1])
            for tokens, pool in zip(tokens_T, pools, strict=True)
        ]
        smaller = ns if metric == "best" else ()
        pairs_C = [(t, n) for t, most in enumerate(affordable_T) for n in (*(n for n in smaller if n < most), most)]
        values_PC = np.stack([_value(pools[t], n, metric) for t, n in pairs_C], axis=-1)
        place = pairs_C.index((reference, affordable_T[reference]))
        choice = choose(values_PC.mean(0), resample(values_PC), place)
        found.append(BudgetChoice(tokens=float(budget), pairs_C=tuple(pairs_C), choice=choice))
    return tuple(found)


FEWEST_FOR_FIFTHS = 250
_THIRDS = ("easiest third", "middle third", "hardest third")
_FIFTHS = ("easiest fifth", "second fifth", "middle fifth", "fourth fifth", "hardest fifth")


def split_by_difficulty(
    rewards_TPM: Sequence[FloatArray], levels_P: Sequence[int | float | str | None] | None
) -> tuple[dict[str, list[int]], bool]:
    """Groups of like difficulty, from easy to hard.

    By the task's levels where every problem has one and they differ. Else by the pass rate of samples 0, 2, 4, … at all
    temperatures: thirds, or fifths of 250 problems and more; equally hard problems stay together, so that a group may
    be empty. Then only samples 1, 3, 5, … may be measured: among the same samples the "hardest" problems would be those
    with bad luck too, and what is said of them would be wrong.

    Args:
        rewards_TPM: (P, M) for each temperature; M may differ.
        levels_P: or None.

    Returns:
        Group name → places of its problems; and whether the groups are levels.

    >>> split_by_difficulty([np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])], [2, 5, 2])
    ({'level 2': [0, 2], 'level 5': [1]}, True)
    """
    if levels_P is not None:
        known = [level for level in levels_P if level is not None]
        if len(known) == len(levels_P) and len(set(known)) > 1:
            places_L = {
                level: [p for p, at in enumerate(known) if at == level]
                for level in sorted(set(known), key=lambda level: (isinstance(level, str), level))
            }
            return {f"level {level}": places for level, places in places_L.items()}, True
    rate_P = np.mean([rewards_PM[:, ::2].mean(-1) for rewards_PM in rewards_TPM], axis=0).round(12)
    names = _FIFTHS if len(rate_P) >= FEWEST_FOR_FIFTHS else _THIRDS
    _, kind_P, counts = np.unique(-rate_P, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2  # the rank of equally hard problems
    group_P = np.minimum((middle * len(names) / len(rate_P)).astype(np.int64), len(names) - 1)[kind_P]
    return {name: np.flatnonzero(group_P == g).tolist() for g, name in enumerate(names)}, False
