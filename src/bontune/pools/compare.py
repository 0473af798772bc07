"""Is one model better than another, at which number of samples, and with which doubt: the one place that says so.

Everything is paired by problem, and in fractions. :func:`differences` and :func:`compare` look at pools: their
intervals are 95 % bootstraps over problems, each by itself, so of twenty that are looked at, one misses by chance;
beside each lies its part of a band that holds over all k of a family at once, for statements about many k.
:mod:`bontune.pools.over_runs` looks at several training runs of either side.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from bontune.base.errors import BontuneError
from bontune.metrics import Interval, bootstrap_intervals, simultaneous_band
from bontune.metrics.evaluation import Evaluation, share_families, under_shared_names

FEWEST_PROBLEMS = 10
"""Fewer problems than these have no interval of a difference, and nothing is claimed of them.

A 95 % bootstrap interval of the mean of n normal differences covers it in 50 % of all cases for n = 2, 84 % for 5, 90 %
for 10 and 93 % for 20: below ten, what is called clear would be chance more than twice as often as it says.
"""
_ROUNDING = 1e-9
_FAMILIES = ("max", "pass", "best")
"""Families of metrics that are compared: highest reward of k, solved by any of k, the verifier's pick of k."""


class Outcome(str, Enum):
    """What a difference amounts to."""

    MORE = "more"
    """Its interval lies above 0."""
    FEWER = "fewer"
    """Its interval lies below 0."""
    UNCLEAR = "unclear"
    """Its interval includes 0."""
    UNKNOWN = "unknown"
    """It has no interval: too few problems, or the same difference on each of them."""


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
    """Temperature of ``b``, where each model has its own for the metric."""
    is_share: bool = True
    """Whether it is a difference of shares, which are written in points; False: of graded rewards or other numbers."""
    band: Interval | None = None
    """Its part of the 95 % band over all k of the family at once; None: it was not asked for."""

    @property
    def family(self) -> str:
        """Family of the metric: ``pass``, ``max``, ``best`` …"""
        return self.metric.partition("@")[0]

    @property
    def k(self) -> int:
        """Number of samples k that the metric allows."""
        return int(self.metric.partition("@")[2])

    @property
    def outcome(self) -> Outcome:
        """More or fewer only if the interval excludes 0, as it is written: of shares in points, with one digit."""
        return self._outcome(None if self.low is None or self.high is None else (self.low, self.high))

    @property
    def outcome_of_all(self) -> Outcome:
        """The same by the band over all k."""
        return self._outcome(None if self.band is None else (self.band.low, self.band.high))

    def _outcome(self, ends: tuple[float, float] | None) -> Outcome:
        if ends is not None:
            return outcome_of(*ends, is_share=self.is_share)
        is_same = self.num_problems >= FEWEST_PROBLEMS and abs(self.value) < _ROUNDING
        return Outcome.UNCLEAR if is_same else Outcome.UNKNOWN

    @property
    def why_unknown(self) -> str:
        """Why there is no interval, as the end of a sentence; empty where there is one or the reason is not known."""
        if self.low is not None or not self.num_problems:
            return ""
        if self.num_problems < FEWEST_PROBLEMS:
            counted = "1 problem is" if self.num_problems == 1 else f"{self.num_problems} problems are"
            return f"{counted} too few to say more, {FEWEST_PROBLEMS} at least are needed"
        return f"it is the same on all {self.num_problems} problems, so that there is no interval"


def as_told(interval: Interval, num_problems: int) -> Interval:
    """The interval of a difference, without ends (NaN) where nothing can be claimed.

    That is so over fewer than :data:`FEWEST_PROBLEMS` problems, and where the difference is the same on each problem:
    resampling them shows no doubt, which is not to say that there is none.
    """
    is_same = interval.high - interval.low <= _ROUNDING  # not so of ends that are both infinite
    if num_problems >= FEWEST_PROBLEMS and not is_same:
        return interval
    return Interval(value=interval.value, low=math.nan, high=math.nan)


def outcome_of(low: float, high: float, *, is_share: bool = True) -> Outcome:
    """What an interval says, as it is written: of shares in points, with one digit."""
    if math.isnan(low) or math.isnan(high):
        return Outcome.UNKNOWN
    if is_share:
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
        shared = [metric for metric in wanted if metric in evaluation.values and metric in reference.values]
        found += _paired(name, evaluation, first, reference, shared)
    return found


def _paired(
    name: str, ours: Evaluation, reference: str, theirs: Evaluation, metrics: Sequence[str]
) -> list[Difference]:
    """Metrics of two evaluations, with an interval where something can be claimed."""
    pairs = [ours.paired(theirs, metric) for metric in metrics]
    shares = share_families([*ours.values, *theirs.values])
    found = []
    for metric, (a_P, b_P), interval in zip(
        metrics, pairs, bootstrap_intervals([a - b for a, b in pairs]), strict=True
    ):
        told = as_told(interval, len(a_P))
        found.append(
            Difference(
                a=name,
                b=reference,
                metric=metric,
                value=told.value,
                low=None if math.isnan(told.low) else told.low,
                high=None if math.isnan(told.high) else told.high,
                num_problems=len(a_P),
                a_value=float(a_P.mean()),
                b_value=float(b_P.mean()),
                is_share=metric.partition("@")[0] in shares,
            )
        )
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
    names = [f"{family}@{budget}" for family in (*families, "chance", "above") for budget in ks]
    reference, *others = sampled.evaluations
    groups: dict[int, list[str]] = {}
    for problem in sampled.evaluations[reference].problem_ids:
        if levels is not None and problem in levels:
            groups.setdefault(levels[problem], []).append(problem)
    return Comparison(
        sampled=sampled,
        differences=tuple(
            _at_temperatures(difference, sampled)
            for other in others
            for family in families
            for difference in over_budgets({name: sampled.evaluations[name] for name in (reference, other)}, family, ks)
        ),
        by_level=tuple(
            _at_level(sampled, other, reference, f"{families[-1]}@{k}", level, groups[level])
            for other in others
            for level in sorted(groups)
        ),
        values={name: _intervals(evaluation, names) for name, evaluation in sampled.evaluations.items()},
    )


def _intervals(evaluation: Evaluation, names: Sequence[str]) -> dict[str, Interval]:
    """The intervals of those metrics that there are; a chance level is not known of every pool."""
    there = [name for name in names if name in evaluation.values]
    return dict(zip(there, bootstrap_intervals([evaluation.values[name] for name in there]), strict=True))


def _at_temperatures(difference: Difference, sampled: Sampled) -> Difference:
    """The difference with each side's own temperature, where each has its own."""
    ours, theirs = (sampled.own_temperatures.get(name, {}) for name in (difference.a, difference.b))
    return dataclasses.replace(
        difference, a_temperature=ours.get(difference.metric), b_temperature=theirs.get(difference.metric)
    )


def _at_level(
    sampled: Sampled, name: str, reference: str, metric: str, level: int, problems: Sequence[str]
) -> Difference:
    """The difference on the problems of one level."""
    ours, theirs = (_only(sampled.evaluations[side], problems) for side in (name, reference))
    (found,) = _paired(name, ours, reference, theirs, [metric])
    return _at_temperatures(dataclasses.replace(found, level=level), sampled)


def over_budgets(sampled: Mapping[str, Evaluation], family: str, ks: Sequence[int]) -> list[Difference]:
    """The second evaluation minus the first at every k of a family, with its part of a 95 % band over all k at once.

    Raises:
        ValueError: they are of different problems.
    """
    (first, reference), (name, evaluation) = sampled.items()
    found = _paired(name, evaluation, first, reference, [f"{family}@{k}" for k in ks])
    pairs = [evaluation.paired(reference, f"{family}@{k}") for k in ks]
    parts = simultaneous_band([ours - theirs for ours, theirs in pairs])
    told = [as_told(part, len(ours)) for part, (ours, _) in zip(parts, pairs, strict=True)]
    return [
        dataclasses.replace(difference, band=None if math.isnan(part.low) else part)
        for difference, part in zip(found, told, strict=True)
    ]


def _only(evaluation: Evaluation, problems: Sequence[str]) -> Evaluation:
    """The evaluation of these problems alone."""
    place = {problem: i for i, problem in enumerate(evaluation.problem_ids)}
    places = [place[problem] for problem in problems]
    return Evaluation(
        problem_ids=list(problems), values={name: values[places] for name, values in evaluation.values.items()}
    )


def aligned(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The same evaluations with the same names for the same metric.

    See :func:`bontune.metrics.evaluation.under_shared_names`.

    >>> import numpy as np
    >>> graded = Evaluation(problem_ids=["a"], values={"max@1": np.array([0.5])})
    >>> binary = Evaluation(problem_ids=["a"], values={"pass@1": np.array([0.0])})
    >>> [list(evaluation.values) for evaluation in aligned([graded, binary])]
    [['max@1'], ['max@1']]
    """
    shared = under_shared_names([evaluation.values for evaluation in evaluations])
    return [
        dataclasses.replace(evaluation, values=values) for evaluation, values in zip(evaluations, shared, strict=True)
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


def parse_ks(text: str) -> list[int]:
    """Read budgets such as ``1,4,16``.

    Raises:
        BontuneError: no numbers, or one below 1.
    """
    try:
        ks = [int(part) for part in text.split(",")]
    except ValueError:
        raise BontuneError(f"--k takes numbers like 1,4,16, got {text!r}.") from None
    if min(ks) < 1:
        raise BontuneError(f"--k takes numbers from 1 up, got {text!r}.")
    return ks


def check_ks(text: str | None, num_samples: int) -> list[int] | None:
    """Read budgets, each at most the samples at hand; None stays None.

    Raises:
        BontuneError: no numbers, or one out of range.
    """
    if text is None:
        return None
    ks = parse_ks(text)
    if max(ks) > num_samples:
        raise BontuneError(f"--k {max(ks)} is more than the {num_samples} samples per problem.")
    return ks
