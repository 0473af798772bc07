"""An objective of the table for groups of samples that another trainer has drawn and rewarded.

Shapes: ``_P`` prompts, ``_M`` samples of one prompt.
"""

from __future__ import annotations

import dataclasses
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
    """Weighs groups of samples by an objective, as the trainer of this package does."""

    section: ObjectiveSection
    """The objective with its options, as a recipe has it."""
    seed: int = 0
    """For choices at random, such as among equally good winners."""

    @classmethod
    def of(cls, name: str, n: Any, options: Mapping[str, Any] | None = None, seed: int = 0) -> GroupObjective:
        """Read an objective.

        Args:
            name: one of ``bontune.objectives.names()``.
            n: the Best-of-N budget, or a weight for each of several.
            options: further keys of the recipe's section ``objective``, such as ``baseline`` and ``reward``.
            seed: of the run.

        Raises:
            BontuneError: there is no such objective, option or value; or the objective needs more than rewards and
                scores of own samples, which is all that there is.
        """
        from bontune.config import Recipe

        section = Recipe.from_dict({"objective": {"name": name, "n": n, **(options or {})}}).objective
        row, read = section.row(), section.options()
        if not fits(row):
            raise BontuneError(
                f"The objective {name} weighs more than rewarded samples of the policy (demonstrations, answers, a "
                f"reference's samples or log-probabilities), which only `bontune train` has; here: {', '.join(able())}."
            )
        if getattr(read, "p_fail", "plugin") != "plugin":
            raise BontuneError(
                f"objective.p_fail={read.p_fail} is kept by `bontune train` alone; take p_fail=plugin here."
            )
        return cls(section=section, seed=seed)

    @property
    def largest_n(self) -> int:
        """Return the largest budget."""
        return largest_budget(self.section.n_at())

    def check(self, num_samples: int) -> None:
        """Refuse a group size that the objective cannot work with.

        Raises:
            BontuneError: such as N > M.
        """
        try:
            self.section.row().check(self.section.n_at(), self.section.options(), num_samples)
        except ValueError as error:
            raise BontuneError(
                f"objective {self.section.name}, n = {self.section.n}, {num_samples} samples a prompt: {error}"
            ) from None

    def advantages(
        self, rewards_PM: Tensor, scores_PM: Tensor | None = None, *, step: int = 0, progress: float = 1.0
    ) -> Tensor:
        """Advantages (P, M) in mean form, float64; the loss is −(1/M) Σ A·log π of whole samples.

        A sample without a reward or a score (NaN) takes no part in its group, and has advantage 0: the others are
        weighed as a smaller group. Where that is too small for N, all of it has 0.

        Args:
            rewards_PM: what each sample is worth.
            scores_PM: what the verifier thinks of it; None: it sees the rewards.
            step: of the training, for choices at random.
            progress: share of the training that is done, for weights of budgets on a schedule.

        Raises:
            ValueError: rewards that the objective cannot take.
        """
        rewards_PM = rewards_PM.double()
        scores_PM = rewards_PM if scores_PM is None else scores_PM.double()
        if self.section.reward == "verifier":
            rewards_PM = scores_PM
        is_known_PM = rewards_PM.isfinite() & scores_PM.isfinite()
        advantages_PM = torch.zeros_like(rewards_PM)
        whole_P = is_known_PM.all(-1)
        if bool(whole_P.any()):
            places = whole_P.nonzero().squeeze(-1)
            advantages_PM[places] = self._weigh(rewards_PM[places], scores_PM[places], places, step, progress)
        for p in (~whole_P & is_known_PM.any(-1)).nonzero().squeeze(-1):
            known = is_known_PM[p].nonzero().squeeze(-1)
            try:
                self.check(len(known))
            except BontuneError:
                continue
            some = self._weigh(rewards_PM[p, known][None], scores_PM[p, known][None], p[None], step, progress)
            # The trainer divides by M, not by the number of samples that are known.
            advantages_PM[p, known] = some.squeeze(0) * (rewards_PM.shape[-1] / len(known))
        return advantages_PM

    def _weigh(self, rewards_PM: Tensor, scores_PM: Tensor, places_P: Tensor, step: int, progress: float) -> Tensor:
        row, options = self.section.row(), self.section.options()
        num_samples = rewards_PM.shape[-1]
        device = rewards_PM.device

        def generator_of(p: int) -> torch.Generator:
            key = (self.seed, "ties", step, int(places_P[p]))
            return torch.Generator().manual_seed(int(stream(*key).integers(2**62)))

        batch = Batch(
            columns=row.columns(options, num_samples),
            rewards_PS=rewards_PM.cpu(),
            scores_PS=scores_PM.cpu(),
            generator_of=generator_of,
        )
        return row.advantages(batch, self.section.n_at(progress), options).to(device)


def fits(row: Objective) -> bool:
    """Return whether an objective needs nothing but rewarded samples of the policy."""
    return row.is_policy_gradient and row.sources == ("own",) and row.logprobs == "none" and not row.needs_answers


def able() -> list[str]:
    """Return the names of the objectives that need nothing but rewarded samples of the policy."""
    return [row.name for row in ROWS if fits(row)]


def option_names() -> list[str]:
    """Return all options of these objectives, and the recipe's own keys beside name and n."""
    return sorted({"reward", *(field.name for row in ROWS if fits(row) for field in dataclasses.fields(row.options))})


def group_values(rewards_PM: Tensor, scores_PM: Tensor | None, largest_n: int) -> dict[str, float]:
    """Unbiased estimates of what k samples of a group would give, averaged over the groups without a gap.

    Args:
        rewards_PM, scores_PM: NaN where there is none.
        largest_n: a k that is wanted beside the powers of two.

    Returns:
        ``pass@k``, or ``max@k`` where rewards are not all 0 or 1: the best reward of k; ``best_of_k``: the reward of
        the one of k that the verifier picks, if there is one.
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
    found = {}
    for k in sorted({*powers, min(largest_n, num_samples)}):
        found[f"{name}@{k}"] = float(best_of_n_value(rewards_PM, rewards_PM, k).mean())
        if scores_PM is not None:
            found[f"best_of_{k}"] = float(best_of_n_value(rewards_PM, scores_PM[whole_P].contiguous(), k).mean())
    return found
