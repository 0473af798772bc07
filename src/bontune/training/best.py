"""The best evaluation of a run, by one metric or several."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bontune.base.errors import BontuneError
from bontune.config import Recipe

FAMILIES = ("pass", "best")


class BestSteps:
    """The best evaluations so far: one by the run's own aim, and one by each metric of ``eval.keep``.

    The run's own aim is best@k at the largest k up to N. Of equally good evaluations the earliest counts.
    """

    def __init__(self, recipe: Recipe) -> None:
        """
        Raises:
            BontuneError: ``eval.keep`` names a metric that the evaluations do not hold.
        """
        within_n = [k for k in recipe.eval.k if k <= recipe.objective.n]
        self.metric = f"best@{max(within_n, default=min(recipe.eval.k))}"
        self.keep = tuple(recipe.eval.keep)
        self.own: dict[str, Any] = {}
        self.kept: dict[str, dict[str, Any]] = {}
        known = [f"{family}@{k}" for family in FAMILIES for k in recipe.eval.k]
        for name in self.keep:
            if name not in known:
                raise BontuneError(f"eval.keep names {name!r}, which is not evaluated; there are {', '.join(known)}.")
        if self.keep and not recipe.eval.every:
            raise BontuneError("eval.keep needs evaluations during training: set eval.every.")

    def note(self, step: int, measured: Mapping[str, float]) -> list[str]:
        """Remember an evaluation; returns the metrics of ``eval.keep`` by which it is the best so far."""
        if measured[self.metric] > self.own.get("value", -math.inf):
            self.own = {"step": step, "metric": self.metric, "value": measured[self.metric]}
        better = []
        for name in self.keep:
            # Rewards that are not 0 or 1 have max@k for pass@k.
            value = measured[name] if name in measured else measured[name.replace("pass", "max")]
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
