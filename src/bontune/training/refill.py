"""Further prompts in a step, in place of those whose samples carry no weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from bontune.base.errors import BontuneError
from bontune.config.sections import RefillSection
from bontune.objectives.table import Objective
from bontune.pools.collect import Graded
from bontune.training.rollouts import append


class Refill:
    """Draws on until as many prompts of a step carry weight as it was to have prompts, within a budget.

    Under most objectives samples of equal reward, all right or all wrong, carry no weight, and the step then learns
    from the other prompts alone. Filling it up (dynamic sampling, Yu et al., DAPO, arXiv 2503.14476) takes the mean
    over the first P prompts that carry weight. A prompt without weight adds nothing to the ordinary mean either, so
    this mean is, in expectation, the ordinary one divided by the chance of weight: the gradient keeps its direction,
    and is longer where weight is rare. Where the budget ends first, the missing ones count as zeros. The KL is taken
    over the ordinary prompts of the step. Which prompts are drawn follows from seed and step, so nothing is to be
    saved but the count, and does not depend on the number of processes.
    """

    def __init__(
        self, section: RefillSection, num_prompts: int, objective: Objective, num_processes: int, process: int
    ) -> None:
        """
        Args:
            section: ``training.refill``.
            num_prompts: prompts of a step, over all processes.
            objective: the row of the objective.
            num_processes: that share the prompts.
            process: the number of this one.

        Raises:
            BontuneError: the objective weighs every prompt.
        """
        if not objective.is_policy_gradient:
            raise BontuneError(
                f"training.refill replaces prompts whose samples carry no weight, and {objective.name} imitates "
                "given answers, which all do: leave it out."
            )
        self.num_prompts = num_prompts
        self.most = math.floor((section.up_to - 1) * self.num_prompts)
        self.num_processes, self.process = num_processes, process
        self.num_drawn = 0
        """Further prompts that the run has drawn, over all processes."""
        self.numbers: dict[str, int] = {}
        """Of the last step: ``refilled``, further prompts, and ``with_weight``, the prompts that are trained on."""

    def fill(
        self,
        step: int,
        graded: Graded,
        advantages_PM: Tensor,
        draws: Sequence[int],
        draw: Callable[[list[int]], tuple[Graded, Tensor]],
    ) -> tuple[Graded, Tensor]:
        """Add further prompts to a step, and take the weight from those beyond the number wanted.

        Args:
            step: of the training.
            graded, advantages_PM: this process's ordinary prompts of the step, weighed.
            draws: their numbers in the stream of prompts.
            draw: draws, grades and weighs the prompts of these numbers.

        Returns:
            All prompts of this process, the ordinary ones first, and their advantages.
        """
        first = (step - 1) * self.num_prompts
        order, parts, num = [i - first for i in draws], [(graded, advantages_PM)], 0
        while True:
            has_weight = self._has_weight(order, torch.cat([weights for _, weights in parts]))
            found = sum(has_weight.values())
            if found >= self.num_prompts or num == self.most:
                break
            missing = self.num_prompts - found
            likely = math.ceil(missing * len(has_weight) / found) if found else self.most
            more = range(num, min(num + likely, self.most))
            num = more.stop
            if mine := [extra for extra in more if extra % self.num_processes == self.process]:
                # The stream of prompts has no beginning: further ones are taken from before its first, backwards.
                parts.append(draw([-1 - (step - 1) * self.most - extra for extra in mine]))
                order += [self.num_prompts + extra for extra in mine]
        kept = set([place for place in sorted(has_weight) if has_weight[place]][: self.num_prompts])
        self.num_drawn += num
        self.numbers = {"refilled": num, "with_weight": len(kept)}
        is_kept_P = torch.tensor([place in kept for place in order])
        advantages_PM = torch.cat([weights for _, weights in parts]) * is_kept_P.unsqueeze(-1)
        return append([part for part, _ in parts]), advantages_PM

    def _has_weight(self, order: list[int], advantages_PM: Tensor) -> dict[int, bool]:
        """Whether each prompt of the step carries weight, over all processes, by its place in the step."""
        mine: list[Any] = list(zip(order, (advantages_PM != 0).any(-1).tolist(), strict=True))
        return dict(gather_object(mine) if self.num_processes > 1 else mine)
