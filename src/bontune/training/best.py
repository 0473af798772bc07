"""The best evaluation of a run, by one metric or several."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bontune.base.errors import BontuneError
from bontune.config import Recipe
from bontune.objectives.budgets import as_budgets


class BestSteps:
    """The best evaluations so far: one by the run's own aim, and one by each metric of ``eval.keep``.

    The run's own aim is best@k at the largest k up to N; with several budgets it is their weighted sum. A metric of
    ``eval.keep`` may join several by ``+``, such as ``pass@1+pass@16``: then their mean counts. Of equally good
    evaluations the earliest counts.
    """

    def __init__(self, recipe: Recipe) -> None:
        """
        Raises:
            BontuneError: ``eval.keep`` names a metric that the evaluations do not hold.
        """
        self.aim = _aim(recipe)
        self.metric = _written(self.aim)
        self.keep = tuple(recipe.eval.keep)
        self.own: dict[str, Any] = {}
        self.kept: dict[str, dict[str, Any]] = {}
        families = ["pass", "best", *(["majority"] if recipe.objective.row().needs_answers else [])]
        known = [f"{family}@{k}" for family in families for k in recipe.eval.k]
        for name in self.keep:
            if not set(name.split("+")) <= set(known):
                raise BontuneError(f"eval.keep names {name!r}, which is not evaluated; there are {', '.join(known)}.")
        if self.keep and not recipe.eval.every:
            raise BontuneError("eval.keep needs evaluations during training: set eval.every.")

    def note(self, step: int, measured: Mapping[str, float]) -> list[str]:
        """Remember an evaluation; returns the metrics of ``eval.keep`` by which it is the best so far."""
        reached = sum(weight * measured[name] for name, weight in self.aim.items())
        if reached > self.own.get("value", -math.inf):
            self.own = {"step": step, "metric": self.metric, "value": reached}
        better = []
        for name in self.keep:
            # Graded rewards have max@k, at every evaluation or at all but those where they happen to be 0 and 1.
            parts = [measured.get(part.replace("pass", "max"), measured.get(part)) for part in name.split("+")]
            value = sum(part for part in parts if part is not None) / len(parts)
            if value > self.kept.get(name, {}).get("value", -math.inf):
                self.kept[name] = {"step": step, "value": value}
                better.append(name)
        return better

    def state(self) -> dict[str, Any]:
        """The best evaluations as plain values, for a checkpoint."""
        return {"best": self.own, "kept": self.kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.own, self.kept = dict(state["best"]), dict(state.get("kept", {}))


def _aim(recipe: Recipe) -> dict[str, float]:
    """Metrics that the run trains for, each with its weight at the end of the training."""
    family = "majority" if recipe.objective.row().needs_answers else "best"
    aim: dict[str, float] = {}
    for budget, weight in as_budgets(recipe.objective.n_at()).items():
        within = max((k for k in recipe.eval.k if k <= budget), default=min(recipe.eval.k))
        aim[f"{family}@{within}"] = aim.get(f"{family}@{within}", 0.0) + weight
    return aim


def _written(aim: Mapping[str, float]) -> str:
    if len(aim) == 1:
        return next(iter(aim))
    return " + ".join(f"{weight:.3g}·{name}" for name, weight in aim.items())
