"""What an objective is given: the sequences of some prompts by source, with rewards, scores and what else it needs.

Shapes: ``_P`` prompts, ``_S`` sequences of one prompt: the policy's own samples first, then the anchor's, then the
task's demonstration; ``_X`` the first kind of sequence that there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Source = Literal["own", "reference", "demonstrated"]
"""Writer of a sequence: the policy, the anchor, or the task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """How many sequences of each source a prompt has in a batch, in this order."""

    own: int = 0
    """Samples of the policy."""
    reference: int = 0
    """Samples of the anchor."""
    demonstrated: int = 0
    """The task's own answer: 0 or 1."""

    @property
    def total(self) -> int:
        """S, the number of all sequences of a prompt."""
        return self.own + self.reference + self.demonstrated

    @property
    def drawn(self) -> int:
        """The number of sequences that an engine has to draw."""
        return self.own + self.reference

    @property
    def measured(self) -> int:
        """The number of sequences of the first source, which the KL and the metrics of a step are about."""
        return self.own or self.reference or self.demonstrated

    def kl_share(self, share: float) -> float:
        """The share of all columns that equals ``share`` of the measured ones, rounded up as the updater rounds."""
        return (math.ceil(share * self.measured) - 0.5) / self.total


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Everything that an objective may weigh the sequences of P prompts by."""

    columns: Columns
    """Columns of the tensors by who wrote the sequences."""
    rewards_PS: Tensor
    """float64, what each sequence is worth."""
    scores_PS: Tensor
    """float64, what the verifier thinks of each sequence."""
    p_fail_P: Tensor | None = None
    """Estimated probability that one sample fails; None: the objective takes the share in the batch."""
    logprobs_PX: Tensor | None = None
    """log π of the sequences of the first source, where the table says that the objective needs it."""
    ref_logprobs_PX: Tensor | None = None
    """log of the anchor's probability of the same sequences."""
    same_as_PS: Tensor | None = None
    """int64, for each sequence the first one of its prompt with an equal text."""
    answers_PS: Tensor | None = None
    """int64, a number for each different answer of a prompt; −1: no answer."""
    generator_of: Callable[[int], torch.Generator] = field(default=lambda p: torch.Generator())
    """Makes the generator for random choices within prompt p; which process holds the prompt makes no difference."""

    def own(self, values_PS: Tensor) -> Tensor:
        """The columns of the policy's own samples."""
        return values_PS[:, : self.columns.own]

    def reference(self, values_PS: Tensor) -> Tensor | None:
        """The columns of the anchor's samples, if there are any."""
        start, number = self.columns.own, self.columns.reference
        return values_PS[:, start : start + number] if number else None

    def log_ratios(self) -> Tensor | None:
        """log π − log of the anchor's probability, where both are known."""
        if self.logprobs_PX is None or self.ref_logprobs_PX is None:
            return None
        return self.logprobs_PX - self.ref_logprobs_PX
