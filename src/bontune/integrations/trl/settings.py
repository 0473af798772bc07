"""TRL's settings, and those of the objective."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trl import GRPOConfig

from bontune.base.errors import BontuneError
from bontune.config.sections import between
from bontune.integrations.groups import GroupObjective

_SUMS = ("dr_grpo", "dapo", "bnpo", "cispo")
"""Losses of TRL that sum over the tokens of a sample; they differ in the divisor of the sum."""


@dataclass
class BoNGRPOConfig(GRPOConfig):
    """TRL's settings with those of the objective, and with defaults that keep the advantages of a group complete.

    Beside the new settings, these have other defaults than in TRL: ``scale_rewards="none"`` and ``loss_type="dr_grpo"``
    (the loss is the mean over samples of sums over their tokens), ``vllm_importance_sampling_mode="sequence_truncate"``
    (``sequence_mask`` removes samples from groups whose advantages belong together), ``sync_ref_model=True`` with
    ``ref_model_mixup_alpha=0.01`` after every step, as in the paper.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*GRPOConfig._VALID_DICT_FIELDS, "objective_options"]

    objective: str = field(default="bon_rl", metadata={"help": "One of `bontune objectives`."})
    n: dict[Any, Any] | str | int | None = field(
        default=16,
        metadata={
            "help": 'The Best-of-N budget, free of num_generations; or a weight for each: {"1": 0.5, "16": 0.5}.'
        },
    )
    objective_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'The objective\'s options, such as {"baseline": "loo1"}.'}
    )
    verifier_index: int | None = field(
        default=None,
        metadata={"help": "Which reward function Best-of-N selects by; null: the reward itself. It is no reward then."},
    )
    beta_end: float | None = field(
        default=None, metadata={"help": "What beta, the coefficient of the KL, ends at; null: it stays."}
    )
    beta_delay: int = field(default=0, metadata={"help": "Steps before beta begins to move."})
    beta_steps: int | None = field(
        default=None, metadata={"help": "Steps in which beta moves to beta_end; null: the rest of the training."}
    )
    beta_shape: str = field(default="linear", metadata={"help": "linear, cosine or exponential."})

    scale_rewards: str = field(default="none", metadata={"help": "none: an objective of ours scales by itself."})
    loss_type: str = field(default="dr_grpo", metadata={"help": "dr_grpo: sums over the tokens of a sample."})
    vllm_importance_sampling_mode: str = field(
        default="sequence_truncate", metadata={"help": "A truncated sample keeps its place in its group."}
    )
    sync_ref_model: bool = field(default=True, metadata={"help": "Whether the reference follows the policy."})
    ref_model_mixup_alpha: float = field(default=0.01, metadata={"help": "Rate at which it follows."})
    ref_model_sync_steps: int = field(default=1, metadata={"help": "Steps between two moves of it."})

    def __post_init__(self) -> None:
        """
        Raises:
            BontuneError: an invalid objective, budget, option or schedule.
        """
        super().__post_init__()
        try:
            self.n = json.loads(self.n) if isinstance(self.n, str) else self.n
            if isinstance(self.n, Mapping):
                self.n = {int(key): weight for key, weight in self.n.items()}
        except ValueError:
            raise BontuneError(
                f'n must be a whole number, or weights of several as in {{"1": 0.5, "16": 0.5}}, got {self.n!r}.'
            ) from None
        if self.beta == 0:
            self.sync_ref_model = False  # there is no reference then
        self._check_beta()
        self.group_objective().check(self.num_generations)
        self._refuse_what_changes_nothing()
        self._warn_of_bias()

    def _check_beta(self) -> None:
        if self.beta_end is None and (self.beta_delay, self.beta_steps, self.beta_shape) != (0, None, "linear"):
            raise BontuneError(
                "beta_delay, beta_steps and beta_shape describe how beta moves to beta_end: give that, too."
            )
        if self.beta_end is not None and self.beta <= 0:
            raise BontuneError(
                "beta_end moves beta, which must be above 0 at the beginning, because the reference is made then."
            )
        if self.beta_end is not None and self.use_liger_kernel:
            raise BontuneError(
                "beta_end moves beta, which the loss of use_liger_kernel takes once for all: omit one of the two."
            )
        if self.beta_shape not in ("linear", "cosine", "exponential"):
            raise BontuneError(f"beta_shape must be linear, cosine or exponential, got {self.beta_shape!r}.")

    def _refuse_what_changes_nothing(self) -> None:
        """Refuse settings of TRL's advantages, which ours replace."""
        for name, value, usual in (
            ("scale_rewards", self.scale_rewards, "none"),
            ("multi_objective_aggregation", self.multi_objective_aggregation, "sum_then_normalize"),
        ):
            if value != usual:
                raise BontuneError(
                    f"{name}={value!r} is a setting of TRL's own advantages and changes nothing here: the objective "
                    f"{self.objective} takes the weighted sum of the rewards; omit it."
                )

    def _warn_of_bias(self) -> None:
        """Warn about settings with which the gradient is no longer that of the objective."""
        masks = {
            f"vllm_importance_sampling_mode={self.vllm_importance_sampling_mode!r}": (
                self.use_vllm and self.vllm_importance_sampling_mode.endswith("_mask"),
                "removes samples from groups after their advantages were computed",
                "sequence_truncate does not",
            ),
            "mask_truncated_completions=True": (
                self.mask_truncated_completions,
                "removes samples from groups after their advantages were computed",
                "let the reward of a truncated sample be 0 instead",
            ),
            f"off_policy_mask_threshold={self.off_policy_mask_threshold}": (
                self.off_policy_mask_threshold is not None,
                "removes samples from groups after their advantages were computed",
                "omit it",
            ),
            f"top_entropy_quantile={self.top_entropy_quantile:g}": (
                self.top_entropy_quantile < 1,
                "removes tokens from samples whose advantages are for whole samples",
                "leave it at 1",
            ),
            f"loss_type={self.loss_type!r}": (
                self.loss_type not in _SUMS,
                "does not sum over the tokens of a sample, as the gradient of its log-probability does",
                "dr_grpo does",
            ),
        }
        for setting, (is_set, effect, advice) in masks.items():
            if is_set:
                warnings.warn(f"{setting} {effect}, which biases the gradient; {advice}.", stacklevel=4)

    def group_objective(self) -> GroupObjective:
        """Return the objective that computes a group's advantages."""
        options = self.objective_options
        options = json.loads(options) if isinstance(options, str) else options
        return GroupObjective.of(self.objective, self.n, options, self.seed)

    def beta_at(self, step: int, max_steps: int) -> float:
        """Return the coefficient of the KL at a step, counted from 1."""
        if self.beta_end is None:
            return float(self.beta)
        length = self.beta_steps or max(max_steps - self.beta_delay, 1)
        shape = self.beta_shape if self.beta_end > 0 else "linear"
        return between(self.beta, self.beta_end, (step - 1 - self.beta_delay) / length, shape)
