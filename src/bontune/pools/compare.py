"""Paired differences between several models on the same problems: for every k, by difficulty, at one temperature or at
each model's own best. Evaluations in, numbers out.

All differences are to a reference, paired by problem, in fractions. Intervals are 95 % bootstraps over problems, each
by itself: of twenty that are looked at, one misses by chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from bontune.metrics import Interval, bootstrap_interval
from bontune.metrics.evaluation import Evaluation

FEWEST_PROBLEMS = 10
"""Below this an interval over problems is far too narrow: none is given for a group of fewer."""
_FAMILIES = ("pass", "max", "best")
"""Compared: solved by any of k, the highest reward of k, the verifier's pick of k."""


class Verdict(str, Enum):
    """What a difference amounts to."""

    MORE = "more"
    """Its interval lies above 0."""
    FEWER = "fewer"
    """Below 0."""
    UNCLEAR = "unclear"
    """It includes 0, or there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One metric of one model minus the reference's."""

    name: str
    """The model."""
    reference: str
    """What it is compared with."""
    family: str
    """``pass``, ``max`` or ``best``."""
    k: int
    """The budget."""
    level: int | None = None
    """Difficulty of the problems it is about; None: all of them."""
    num_problems: int
    """That are in it."""
    value: float
    """The model's mean."""
    reference_value: float
    """The reference's mean."""
    difference: float
    """Mean of the paired differences."""
    low: float | None
    """Lower end of its interval; None for a level of fewer than :data:`FEWEST_PROBLEMS` problems."""
    high: float | None
    """Upper end."""
    temperature: float | None = None
    """The model's temperature, where each has its own for the metric."""
    reference_temperature: float | None = None
    """The reference's."""

    @property
    def metric(self) -> str:
        """Such as ``pass@16``."""
        return f"{self.family}@{self.k}"

    @property
    def verdict(self) -> Verdict:
        """More or fewer only if the interval excludes 0."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return Verdict.UNCLEAR
        return Verdict.MORE if self.low > 0 else Verdict.FEWER


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The models as they were sampled in one way."""

    temperature: float | None
    """Of all of them; None: each at its own best for the metric, or as the pools were drawn."""
    evaluations: Mapping[str, Evaluation]
    """By model, the reference first."""
    own_temperatures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Model → metric → its own best temperature; empty where they have one in common."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What was found for one :class:`Measured`."""

    measured: Measured
    """What was compared."""
    differences: tuple[Difference, ...]
    """Of each model, family and k, over all problems."""
    by_level: tuple[Difference, ...]
    """Of each model and level, of one metric; empty where the problems have no levels."""
    values: Mapping[str, Mapping[str, Interval]]
    """Model → metric → its mean with its interval."""


def compare(
    measured: Measured, families: Sequence[str], ks: Sequence[int], *, k: int, levels: Mapping[str, int] | None = None
) -> Comparison:
    """Compare every model with the first.

    Args:
        measured: two models or more, of the same problems (see :func:`aligned`).
        families: see :func:`families_of`; the last is looked at by level.
        ks: budgets, ascending.
        k: the one of them at which levels are compared.
        levels: problem id → its difficulty; None: there is none.
    """
    names = [f"{family}@{budget}" for family in families for budget in ks]
    reference, *others = measured.evaluations
    groups: dict[int, list[str]] = {}
    for problem in measured.evaluations[reference].problem_ids:
        if levels is not None and problem in levels:
            groups.setdefault(levels[problem], []).append(problem)
    return Comparison(
        measured=measured,
        differences=tuple(_difference(measured, other, reference, name) for other in others for name in names),
        by_level=tuple(
            _difference(measured, other, reference, f"{families[-1]}@{k}", level=level, problems=groups[level])
            for other in others
            for level in sorted(groups)
        ),
        values={
            name: {metric: bootstrap_interval(evaluation.values[metric]) for metric in names}
            for name, evaluation in measured.evaluations.items()
        },
    )


def _difference(
    measured: Measured,
    name: str,
    reference: str,
    metric: str,
    *,
    level: int | None = None,
    problems: Sequence[str] | None = None,
) -> Difference:
    ours, theirs = measured.evaluations[name], measured.evaluations[reference]
    if problems is not None:
        ours, theirs = _only(ours, problems), _only(theirs, problems)
    interval = ours.difference(theirs, metric)
    is_told = level is None or len(ours.problem_ids) >= FEWEST_PROBLEMS
    family, _, k = metric.partition("@")
    return Difference(
        name=name,
        reference=reference,
        family=family,
        k=int(k),
        level=level,
        num_problems=len(ours.problem_ids),
        value=float(ours.values[metric].mean()),
        reference_value=float(theirs.values[metric].mean()),
        difference=interval.value,
        low=interval.low if is_told else None,
        high=interval.high if is_told else None,
        temperature=measured.own_temperatures.get(name, {}).get(metric),
        reference_temperature=measured.own_temperatures.get(reference, {}).get(metric),
    )


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
) -> Measured:
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
    return Measured(temperature=None, evaluations=evaluations, own_temperatures=own)


def main_budget(ks: Sequence[int], *, trained_n: int | None, num_samples: int) -> int:
    """The k to speak about: the N that was trained for, else the largest that half of the samples allow.

    >>> main_budget([1, 2, 4, 8], trained_n=16, num_samples=8), main_budget([1, 2, 4], trained_n=2, num_samples=8)
    (4, 2)
    """
    if trained_n in ks:
        return int(trained_n or 0)
    return max((k for k in ks if 2 * k <= num_samples), default=min(ks))
