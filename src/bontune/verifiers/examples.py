"""Training examples of a verifier from graded completions: duplicates merged, prompts held out, classes balanced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightedCompletion:
    """One distinct completion of a problem, with the weights of its loss."""

    problem: Problem
    """Problem that it answers."""
    completion: str
    """Text of the completion."""
    weight_right: float
    """Weight of the loss for being right: the completion's share of the problem's reward, halved."""
    weight_wrong: float
    """Weight of the loss for being wrong: the completion's share of the problem's missing reward, halved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """The completions to train on and those to stop by; no problem is in both.

    Each problem weighs 1, its right and its wrong completions ½ each, so that a verifier cannot profit from the
    difficulty of a problem. A problem whose completions are all right, or all wrong, teaches no difference and is
    skipped. A completion that was drawn c times counts c-fold; a reward of 0.7 counts as 0.7 right and 0.3 wrong.
    """

    train: list[WeightedCompletion]
    """Completions of the problems to train on."""
    held_out: list[WeightedCompletion]
    """Completions of the problems that decide when to stop."""
    held_out_ids: frozenset[str]
    """Ids of all problems held out, those with one class included."""
    num_problems: int
    """Number of problems in the pools."""
    num_one_class: int
    """Number of problems skipped because all their completions have the same class."""
    num_completions: int
    """Number of graded completions."""
    num_distinct: int
    """Number of different completions among them."""
    num_ungraded: int
    """Number of completions without a reward, which are skipped."""


def make_examples(
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    rewards: Sequence[Sequence[float | None]],
    *,
    held_out: float,
    seed: int,
) -> Examples:
    """Prepare pools for :func:`bontune.verifiers.fit.fit`.

    Args:
        problems: P problems; one may occur several times, from several pools.
        completions: P lists of texts.
        rewards: rewards in [0, 1]; None or NaN where the grader failed.
        held_out: share of the problems to hold out, in (0, 1); at least one problem with both classes is held out.
        seed: seed of the choice; whether a problem is held out depends on the seed and the ids alone.

    Raises:
        BontuneError: rewards outside [0, 1], a share outside (0, 1), or fewer than two problems with both classes.
    """
    if not 0 < held_out < 1:
        raise BontuneError(f"The share of problems to hold out must lie between 0 and 1, got {held_out:g}.")
    seen: dict[str, Problem] = {}
    tallies: dict[str, dict[tuple[str, str], list[float]]] = {}
    num_ungraded = 0
    for problem, texts, values in zip(problems, completions, rewards, strict=True):
        seen.setdefault(problem.id, problem)
        tally = tallies.setdefault(problem.id, {})
        for text, value in zip(texts, values, strict=True):
            if value is None or math.isnan(value):
                num_ungraded += 1
                continue
            if not 0 <= value <= 1:
                raise BontuneError(f"A verifier learns rewards from 0 to 1; problem {problem.id} has {value:g}.")
            counts = tally.setdefault((problem.prompt, text), [0.0, 0.0])
            counts[0] += value
            counts[1] += 1 - value
    mixed = {name for name, tally in tallies.items() if all(_totals(tally))}
    if len(mixed) < 2:
        raise BontuneError(
            f"{len(mixed)} of {len(tallies)} problems have both right and wrong completions; a verifier needs at least "
            "two, one to learn from and one to be tested on: draw more samples, or from a model that is less sure."
        )
    out = _lot(mixed, held_out, seed)
    return Examples(
        train=[e for name in seen if name in mixed - out for e in _weighted(seen[name], tallies[name])],
        held_out=[e for name in seen if name in out for e in _weighted(seen[name], tallies[name])],
        held_out_ids=frozenset(out | _lot(tallies.keys() - mixed, held_out, seed)),
        num_problems=len(tallies),
        num_one_class=len(tallies) - len(mixed),
        num_completions=sum(len(texts) for texts in completions) - num_ungraded,
        num_distinct=sum(map(len, tallies.values())),
        num_ungraded=num_ungraded,
    )


def _totals(tally: dict[tuple[str, str], list[float]]) -> tuple[float, float]:
    """Return the right and wrong mass of a problem."""
    return sum(right for right, _ in tally.values()), sum(wrong for _, wrong in tally.values())


def _weighted(problem: Problem, tally: dict[tuple[str, str], list[float]]) -> list[WeightedCompletion]:
    sum_right, sum_wrong = _totals(tally)
    return [
        WeightedCompletion(
            problem=problem if prompt == problem.prompt else Problem(id=problem.id, prompt=prompt, reference=""),
            completion=text,
            weight_right=right / sum_right / 2,
            weight_wrong=wrong / sum_wrong / 2,
        )
        for (prompt, text), (right, wrong) in tally.items()
    ]


def _lot(names: Iterable[str], share: float, seed: int) -> set[str]:
    """Return the share of the names whose hashes come first: at least one, and never all of two or more."""
    order = sorted(names, key=lambda name: sha256(f"{seed} {name}".encode()).digest())
    return set(order[: min(max(1, round(share * len(order))), len(order) - 1)])
