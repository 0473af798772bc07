"""Is one model better than another, at which number of samples, and with which doubt: the one place that says so.

Everything is paired by problem, and in fractions. :func:`differences` and :func:`compare` look at pools: their
intervals are 95 % bootstraps over problems, each by itself, so of twenty that are looked at, one misses by chance;
beside each lies its part of a band that holds over all k of a family at once, for statements about many k.
:mod:`bontune.pools.over_runs` looks at several training runs of either side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from bontune.metrics import Interval, bootstrap_interval, simultaneous_band
from bontune.metrics.evaluation import Evaluation

FEWEST_PROBLEMS = 10
"""Below this an interval over problems is far too narrow: none is given for a group of fewer."""
_FAMILIES = ("pass", "max", "best")
"""Families of metrics that are compared: solved by any of k, the highest reward of k, the verifier's pick of k."""


class Outcome(str, Enum):
    """What a difference amounts to."""

    MORE = "more"
    """Its interval lies above 0."""
    FEWER = "fewer"
    """Its interval lies below 0."""
    UNCLEAR = "unclear"
    """Its interval includes 0."""
    UNKNOWN = "unknown"
    """It has no interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One metric of a model ``a`` minus that of a model ``b``."""

    a: str
    """The model that the difference is about."""
    b: str
    """The model that it is compared with."""
    metric: str
    """The metric, such as ``pass@16``."""
    value: float
    """Mean of the paired differences."""
    low: float | None
    """Lower end of the 95 % interval; None: there is none."""
    high: float | None
    """Upper end of the interval."""
    level: int | None = None
    """Difficulty of the problems it is about; None: all of them."""
    num_problems: int = 0
    """Number of problems."""
    a_value: float = float("nan")
    """Mean of ``a``."""
    b_value: float = float("nan")
    """Mean of ``b``."""
    a_temperature: float | None = None
    """Temperature of ``a``, where each model has its own for the metric."""
    b_temperature: float | None = None
    """Temperature of ``b``."""
    band: Interval | None = None
    """Its part of the 95 % band over all k of the family at once; None: it was not asked for."""

    @property
    def family(self) -> str:
        """``pass``, ``max``, ``best`` …"""
        return self.metric.partition("@")[0]

    @property
    def k(self) -> int:
        """The budget."""
        return int(self.metric.partition("@")[2])

    @property
    def outcome(self) -> Outcome:
        """More or fewer only if the interval excludes 0, as it is written: in points, with one digit."""
        return Outcome.UNKNOWN if self.low is None or self.high is None else outcome_of(self.low, self.high)

    @property
    def outcome_of_all(self) -> Outcome:
        """The same by the band over all k."""
        return Outcome.UNKNOWN if self.band is None else outcome_of(self.band.low, self.band.high)


def outcome_of(low: float, high: float) -> Outcome:
    """What an interval says, as it is written: in points, with one digit."""
    low, high = round(100 * low, 1), round(100 * high, 1)
    if low <= 0 <= high:
        return Outcome.UNCLEAR
    return Outcome.MORE if low > 0 else Outcome.FEWER


def differences(evaluations: Mapping[str, Evaluation], metrics: Iterable[str] | None = None) -> list[Difference]:
    """Each model against the first, paired by problem, in every metric that both have.

    Args:
        evaluations: name → evaluation, the reference first; all of the same problems.
        metrics: names of metrics, in order; None: all of the reference.

    Raises:
        ValueError: two evaluations are of different problems, or no problem has a value in both.
    """
    (first, reference), *others = evaluations.items()
    wanted = list(reference.values if metrics is None else metrics)
    found = []
    for name, evaluation in others:
        for metric in wanted:
            if metric in evaluation.values and metric in reference.values:
                i = evaluation.difference(reference, metric)
                found.append(Difference(a=name, b=first, metric=metric, value=i.value, low=i.low, high=i.high))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """Several models as they were sampled in one way."""

    temperature: float | None
    """Temperature of all of them; None: each at its own best for the metric, or as the pools were drawn."""
    evaluations: Mapping[str, Evaluation]
    """Evaluations by model, the reference first."""
    own_temperatures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Model → metric → its own best temperature; empty where they have one in common."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What was found for one :class:`Sampled`."""

    sampled: Sampled
    """The models that were compared."""
    differences: tuple[Difference, ...]
    """One for each model, family and k, over all problems."""
    by_level: tuple[Difference, ...]
    """One for each model and level, of one metric; empty where the problems have no levels."""
    values: Mapping[str, Mapping[str, Interval]]
    """Model → metric → its mean with its interval."""


def compare(
    sampled: Sampled, families: Sequence[str], ks: Sequence[int], *, k: int, levels: Mapping[str, int] | None = None
) -> Comparison:
    """Compare every model with the first.

    Args:
        sampled: two models or more, of the same problems (see :func:`aligned`).
        families: see :func:`families_of`; the last is looked at by level.
        ks: budgets, ascending.
        k: the one of them at which levels are compared.
        levels: problem id → its difficulty; None: there is none.
    """
    names = [f"{family}@{budget}" for family in families for budget in ks]
    reference, *others = sampled.evaluations
    groups: dict[int, list[str]] = {}
    for problem in sampled.evaluations[reference].problem_ids:
        if levels is not None and problem in levels:
            groups.setdefault(levels[problem], []).append(problem)
    return Comparison(
        sampled=sampled,
        differences=tuple(
            dataclasses.replace(_difference(sampled, other, reference, f"{family}@{budget}"), band=part)
            for other in others
            for family in families
            for budget, part in zip(
                ks, band(sampled.evaluations[other], sampled.evaluations[reference], family, ks), strict=True
            )
        ),
        by_level=tuple(
            _difference(sampled, other, reference, f"{families[-1]}@{k}", level=level, problems=groups[level])
            for other in others
            for level in sorted(groups)
        ),
        values={
            name: {metric: bootstrap_interval(evaluation.values[metric]) for metric in names}
            for name, evaluation in sampled.evaluations.items()
        },
    )


def _difference(
    sampled: Sampled,
    name: str,
    reference: str,
    metric: str,
    *,
    level: int | None = None,
    problems: Sequence[str] | None = None,
) -> Difference:
    ours, theirs = sampled.evaluations[name], sampled.evaluations[reference]
    if problems is not None:
        ours, theirs = _only(ours, problems), _only(theirs, problems)
    interval = ours.difference(theirs, metric)
    is_told = level is None or len(ours.problem_ids) >= FEWEST_PROBLEMS
    return Difference(
        a=name,
        b=reference,
        metric=metric,
        level=level,
        num_problems=len(ours.problem_ids),
        a_value=float(ours.values[metric].mean()),
        b_value=float(theirs.values[metric].mean()),
        value=interval.value,
        low=interval.low if is_told else None,
        high=interval.high if is_told else None,
        a_temperature=sampled.own_temperatures.get(name, {}).get(metric),
        b_temperature=sampled.own_temperatures.get(reference, {}).get(metric),
    )


def band(evaluation: Evaluation, reference: Evaluation, family: str, ks: Sequence[int]) -> list[Interval]:
    """mean(evaluation − reference) at every k of a family, within a 95 % band that holds for all k at once.

    Raises:
        ValueError: they are of different problems.
    """
    pairs = [evaluation.paired(reference, f"{family}@{k}") for k in ks]
    return simultaneous_band([ours - theirs for ours, theirs in pairs])


def _only(evaluation: Evaluation, problems: Sequence[str]) -> Evaluation:
    """The evaluation of these problems alone."""
    place = {problem: i for i, problem in enumerate(evaluation.problem_ids)}
    places = [place[problem] for problem in problems]
    return Evaluation(
        problem_ids=list(problems), values={name: values[places] for name, values in evaluation.values.items()}
    )


def aligned(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The same evaluations with the same names for the same metric.

    A pool whose rewards happen to be 0 and 1 alone has pass@k where the others have max@k, which it equals.

    >>> import numpy as np
    >>> graded = Evaluation(problem_ids=["a"], values={"max@1": np.array([0.5])})
    >>> binary = Evaluation(problem_ids=["a"], values={"pass@1": np.array([0.0])})
    >>> [list(evaluation.values) for evaluation in aligned([graded, binary])]
    [['max@1'], ['max@1']]
    """
    if not any(name.startswith("max@") for evaluation in evaluations for name in evaluation.values):
        return list(evaluations)
    return [
        dataclasses.replace(
            evaluation,
            values={
                f"max@{name.removeprefix('pass@')}" if name.startswith("pass@") else name: values
                for name, values in evaluation.values.items()
            },
        )
        for evaluation in evaluations
    ]


def families_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """The families of metrics that all have: ``pass`` (or ``max``), and ``best`` if a verifier's scores are no rewards.

    Args:
        evaluations: :func:`aligned`.
    """
    every = [{metric.partition("@")[0] for metric in evaluation.values} for evaluation in evaluations]
    shared = set.intersection(*every)
    if not any("gap" in found for found in every):  # which an evaluation has only where the scores are not the rewards
        shared.discard("best")
    return [family for family in _FAMILIES if family in shared]


def at_own_best(
    measured: Mapping[float, Mapping[str, Evaluation]],
    chosen_on: Mapping[float, Mapping[str, Evaluation]],
    metrics: Sequence[str],
) -> Sampled:
    """Each model at the temperature that is best for it, chosen anew for each metric.

    Unbiased if the temperature is chosen on other problems than it is measured on; on the same problems the highest
    of several means is too high, most for the model whose temperatures differ least.

    Args:
        measured: temperature → model → its evaluation.
        chosen_on: the same of the problems by which the temperature is chosen; the lowest of several equally good.
        metrics: names.
    """
    temperatures = sorted(chosen_on)
    own: dict[str, dict[str, float]] = {}
    evaluations: dict[str, Evaluation] = {}
    for name, first in measured[temperatures[0]].items():
        own[name] = {
            metric: max(temperatures, key=lambda t: float(chosen_on[t][name].values[metric].mean()))
            for metric in metrics
        }
        at_best = {metric: _only(measured[own[name][metric]][name], first.problem_ids) for metric in metrics}
        evaluations[name] = Evaluation(
            problem_ids=list(first.problem_ids),
            values={metric: evaluation.values[metric] for metric, evaluation in at_best.items()},
        )
    return Sampled(temperature=None, evaluations=evaluations, own_temperatures=own)


def main_budget(ks: Sequence[int], *, trained_n: int | None, num_samples: int) -> int:
    """The k to speak about: the N that was trained for, else the largest that half of the samples allow.

    >>> main_budget([1, 2, 4, 8], trained_n=16, num_samples=8), main_budget([1, 2, 4], trained_n=2, num_samples=8)
    (4, 2)
    """
    if trained_n in ks:
        return int(trained_n or 0)
    return max((k for k in ks if 2 * k <= num_samples), default=min(ks))
