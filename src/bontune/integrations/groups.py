"""An objective of the table applied to groups of samples that another trainer has drawn and rewarded.

Shapes: ``_P`` prompts, ``_M`` samples of one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bontune.base.errors import BontuneError
from bontune.config import ObjectiveSection
from bontune.engines.seeds import stream
from bontune.objectives.batch import Batch
from bontune.objectives.budgets import largest_budget
from bontune.objectives.subsets import best_of_n_value
from bontune.objectives.table import ROWS, Objective


@dataclass(frozen=True, kw_only=True)
class GroupObjective:
    """An objective that computes advantages of groups of samples, as the trainer of this package does."""

    section: ObjectiveSection
    """Objective with its options, as in a recipe."""
    seed: int = 0
    """Seed of random choices, such as among tied winners."""

    @classmethod
    def of(cls, name: str, n: Any, options: Mapping[str, Any] | None = None, seed: int = 0) -> GroupObjective:
        """Read an objective and its options.

        Args:
            name: one of ``bontune.objectives.names()``.
            n: the Best-of-N budget, or a weight for each of several.
            options: further keys of the recipe's section ``objective``, such as ``baseline`` and ``reward``.
            seed: seed of the run.

        Raises:
            BontuneError: there is no such objective, option or value; or the objective needs more than rewards and
                scores of the policy's own samples.
        """
        from bontune.config import Recipe

        section = Recipe.from_dict({"objective": {"name": name, "n": n, **(options or {})}}).objective
        row = section.row()
        if not is_group_objective(row):
            raise BontuneError(
                f"The objective {name} needs more than rewarded samples of the policy (demonstrations, answers, a "
                "reference's samples or log-probabilities), which only `bontune train` has; take one of "
                f"{', '.join(group_objectives())}."
            )
        if (p_fail := getattr(section.options(), "p_fail", "plugin")) != "plugin":
            raise BontuneError(f"objective.p_fail={p_fail} is only known to `bontune train`; take p_fail=plugin here.")
        return cls(section=section, seed=seed)

    @property
    def largest_n(self) -> int:
        """Return the largest budget."""
        return largest_budget(self.section.n_at())

    def check(self, num_samples: int) -> None:
        """Refuse a group size with which the objective cannot work.

        Raises:
            BontuneError: for example N > M.
        """
        try:
            self.section.row().check(self.section.n_at(), self.section.options(), num_samples)
        except ValueError as error:
            raise BontuneError(
                f"The objective {self.section.name} with n = {self.section.n} cannot take {num_samples} samples: "
                f"{error}"
            ) from None

    def advantages(
        self, rewards_PM: Tensor, scores_PM: Tensor | None = None, *, step: int = 0, progress: float = 1.0
    ) -> Tensor:
        """Return advantages (P, M) in mean form, float64; the loss is −(1/M) Σ A·log π of whole samples.

        A sample without a reward or a score (NaN) is excluded from its group and has advantage 0: the others form
        a smaller group. If that is too small for N, all advantages of the group are 0.

        Args:
            rewards_PM: rewards of the samples.
            scores_PM: the verifier's scores; None: the rewards.
            step: step of the training, for random choices.
            progress: share of the training that is done, for budgets on a schedule.

        Raises:
            ValueError: rewards that the objective cannot take.
        """
        rewards_PM = rewards_PM.double()
        scores_PM = rewards_PM if scores_PM is None else scores_PM.double()
        if self.section.reward == "verifier":
            rewards_PM = scores_PM
        is_graded_PM = rewards_PM.isfinite() & scores_PM.isfinite()
        advantages_PM = torch.zeros_like(rewards_PM)
        whole_P = is_graded_PM.all(-1)
        if bool(whole_P.any()):
            places = whole_P.nonzero().squeeze(-1)
            advantages_PM[places] = self._of_whole(rewards_PM[places], scores_PM[places], places, step, progress)
        for p in (~whole_P & is_graded_PM.any(-1)).nonzero().squeeze(-1):
            graded = is_graded_PM[p].nonzero().squeeze(-1)
            try:
                self.check(len(graded))
            except BontuneError:
                continue
            some = self._of_whole(rewards_PM[p, graded][None], scores_PM[p, graded][None], p[None], step, progress)
            # The trainer divides by M, not by the number of graded samples.
            advantages_PM[p, graded] = some.squeeze(0) * (rewards_PM.shape[-1] / len(graded))
        return advantages_PM

    def _of_whole(self, rewards_PM: Tensor, scores_PM: Tensor, places_P: Tensor, step: int, progress: float) -> Tensor:
        """Return the advantages of groups without gaps; ``places_P`` are their positions in the batch."""
        row, options = self.section.row(), self.section.options()
        num_samples = rewards_PM.shape[-1]
        device = rewards_PM.device

        def generator_of(p: int) -> torch.Generator:
            key = (self.seed, "ties", step, int(places_P[p]))
            return torch.Generator().manual_seed(int(stream(*key).integers(2**62)))

        batch = Batch(
            sources=row.sources_per_prompt(options, num_samples),
            rewards_PS=rewards_PM.cpu(),
            scores_PS=scores_PM.cpu(),
            generator_of=generator_of,
        )
        return row.advantages(batch, self.section.n_at(progress), options).to(device)


def is_group_objective(row: Objective) -> bool:
    """Return whether an objective needs only rewarded samples of the policy."""
    return row.is_policy_gradient and row.sources == ("own",) and row.logprobs == "none" and not row.needs_answers


def group_objectives() -> list[str]:
    """Return the names of the objectives that need only rewarded samples of the policy."""
    return [row.name for row in ROWS if is_group_objective(row)]


def group_values(rewards_PM: Tensor, scores_PM: Tensor | None, largest_n: int) -> dict[str, float]:
    """Return unbiased estimates of pass@k and best-of-k, averaged over the groups without a gap.

    Args:
        rewards_PM, scores_PM: rewards and scores; NaN where there is none.
        largest_n: a further k beside the powers of two.

    Returns:
        ``pass@k``, or ``max@k`` if rewards are not all 0 or 1: the best reward of k; ``best_of_k``: the reward of the
        sample of k that the verifier picks, if there is one.
    """
    rewards_PM = rewards_PM.double()
    whole_P = rewards_PM.isfinite().all(-1)
    if scores_PM is not None:
        scores_PM = scores_PM.double()
        whole_P &= scores_PM.isfinite().all(-1)
    if not bool(whole_P.any()):
        return {}
    rewards_PM, num_samples = rewards_PM[whole_P].contiguous(), rewards_PM.shape[-1]
    powers = [2**i for i in range(int(math.log2(num_samples)) + 1)]
    name = "pass" if bool(((rewards_PM == 0) | (rewards_PM == 1)).all()) else "max"
    values = {}
    for k in sorted({*powers, min(largest_n, num_samples)}):
        values[f"{name}@{k}"] = float(best_of_n_value(rewards_PM, rewards_PM, k).mean())
        if scores_PM is not None:
            values[f"best_of_{k}"] = float(best_of_n_value(rewards_PM, scores_PM[whole_P].contiguous(), k).mean())
    return values
