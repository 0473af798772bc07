"""A verifier that learns along: it is fitted further on what the policy draws now."""

from __future__ import annotations

import math
import os
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast, gather_object
from torch import Tensor

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.problems import Problem
from bontune.config.sections import RefitSection
from bontune.pools.collect import Graded
from bontune.verifiers.base import Verifier
from bontune.verifiers.examples import make_examples
from bontune.verifiers.fit import FitOptions, fit
from bontune.verifiers.reward_model import RewardModel, save_reward_model

HELD_OUT = 0.1
"""Share of the kept problems that decide which weights of a fit are the best, and whether it was of use at all."""

FEWEST = 100
"""Problems without which no fit is made: a tenth of them would not tell a better verifier from a worse one."""

Row = tuple[str, list[str], list[float | None]]
"""Id of a problem, completions of it, and their rewards; None: it could not be graded."""


class Refit:
    """Continues the fit of the run's verifier every so many steps, on the newest samples mixed with the first.

    A policy that is trained under a verifier moves away from the samples that the verifier was fitted on, towards
    those that it takes for better than they are. Rewards are known in training, so that it can learn of them. Each fit
    starts anew from the verifier's weights, keeps the best by the loss on held-out problems, the ones it started with
    among them, and depends on the run's seed, the step and the kept samples alone.
    """

    def __init__(
        self, section: RefitSection, seed: int, verifier: Verifier, problems: Sequence[Problem], accelerator: Any
    ) -> None:
        """
        Args:
            section: ``verifier.refit``.
            seed: the run's.
            verifier: the run's; its weights are changed in place.
            problems: that the run trains on.
            accelerator: the processes, whose samples are put together.

        Raises:
            BontuneError: the verifier is none that can be fitted, or there are too few problems to fit it on.
        """
        self.section = section
        self.seed = seed
        self.accelerator = accelerator
        self.num_fits = 0
        self.numbers: dict[str, float] = {}
        """Of the last step: losses on held-out problems before and after a fit; empty in steps without one."""
        if not isinstance(verifier, RewardModel) or verifier.num_labels != 1:
            raise BontuneError(
                "verifier.refit continues the fit of a reward model with one label (verifier.name=reward_model, "
                f"verifier.path=…), and the verifier is {verifier.name}: leave verifier.refit out."
            )
        self.problems = {problem.id: problem for problem in problems}
        if len(self.problems) < FEWEST:
            raise BontuneError(
                f"verifier.refit learns from {FEWEST} problems or more, and the task has {len(self.problems)}: leave "
                "it out, or give more problems."
            )
        verifier.model.float()
        self.verifier = verifier
        self.first: list[Row] = []
        self.newest: deque[Row] = deque(maxlen=self.section.problems)

    def learn(self, step: int, graded: Graded) -> None:
        """Keep the samples of a step, and fit the verifier if it is due.

        Problems whose kept samples are all right or all wrong teach no difference and are left out.

        Args:
            step: of the training.
            graded: this process's samples.

        Raises:
            RunStopped: a reward outside 0 to 1, or a loss that is not finite.
        """
        self.numbers = {}
        most = self.section.samples
        own = [
            (problem.id, row[:most], [_known(grade.reward) for grade in grades[:most]])
            for problem, row, grades in zip(graded.problems, graded.samples.texts, graded.grades, strict=True)
        ]
        places = range(
            self.accelerator.process_index, len(own) * self.accelerator.num_processes, self.accelerator.num_processes
        )
        for _, row in sorted(gather_object(list(zip(places, own, strict=True))), key=lambda pair: pair[0]):
            if len(set(row[2]) - {None}) > 1:
                (self.first if len(self.first) < self.section.first else self.newest).append(row)
        if step % self.section.every == 0 and len({row[0] for row in (*self.first, *self.newest)}) >= FEWEST:
            self._fit(step)

    def _fit(self, step: int) -> None:
        ids, texts, rewards = zip(*self.first, *self.newest, strict=True)
        examples = make_examples(
            [self.problems[name] for name in ids], texts, rewards, held_out=HELD_OUT, seed=self.seed
        )
        options = FitOptions(
            epochs=self.section.epochs,
            batch_size=self.section.batch_size,
            lr=self.section.lr,
            seed=(self.seed * 1_000_003 + step) % 2**31,
        )
        self.verifier.model.to(self.accelerator.device)
        fitted = fit(
            self.verifier.model, self.verifier.tokenizer, examples, options, input_format=self.verifier.input_format
        )
        if self.accelerator.num_processes > 1:  # equal up to rounding; the scores are to be equal
            for tensor in self.verifier.model.state_dict().values():
                tensor.copy_(broadcast(tensor))
        self.num_fits += 1
        self.numbers = {
            "verifier_loss_before": fitted.history[0]["held_out_loss"],
            "verifier_loss": fitted.best["held_out_loss"],
        }

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Groups of tensors and plain values that a checkpoint has to keep."""
        values = {"first": self.first, "newest": list(self.newest), "num_fits": self.num_fits}
        return {"verifier": self.verifier.model.state_dict()}, {"refit": values}

    def restore(self, tensors: Mapping[str, dict[str, Tensor]], values: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        saved = values["refit"]
        self.first = [(name, texts, rewards) for name, texts, rewards in saved["first"]]
        self.newest.extend((name, texts, rewards) for name, texts, rewards in saved["newest"])
        self.num_fits = saved["num_fits"]
        self.verifier.model.load_state_dict(tensors["verifier"])

    def write(self, folder: Path) -> None:
        """Write the verifier as it is now, in place of what is there: a folder that ``verifier.path`` reads."""
        temporary = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
        save_reward_model(self.verifier, temporary, {"base": self.verifier.name, "refits": self.num_fits})
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)


def _known(reward: float) -> float | None:
    if math.isnan(reward):
        return None
    if not 0 <= reward <= 1:
        raise RunStopped(
            f"verifier.refit learns rewards from 0 to 1, and the grader gave {reward:g}: leave verifier.refit out, or "
            "let the grader stay within them."
        )
    return reward
