"""TRL's GRPOTrainer with any objective of ours in place of its advantages, and its settings."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl import GRPOConfig, GRPOTrainer

from bontune.base.errors import BontuneError
from bontune.base.schedules import between
from bontune.integrations.groups import GroupObjective, group_values
from bontune.integrations.trl.reference import MovingReference


@dataclass
class BoNGRPOConfig(GRPOConfig):
    """TRL's settings, and how a group is weighed; with defaults that keep a group's weights whole.

    Beside the new ones these have other defaults than in TRL: ``scale_rewards="none"`` and ``loss_type="dr_grpo"`` (the
    loss is the mean over samples of sums over their tokens), ``vllm_importance_sampling_mode="sequence_truncate"``
    (``sequence_mask`` takes samples out of groups whose weights belong together), ``sync_ref_model=True`` with
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
            BontuneError: an objective, a budget, an option or a schedule that cannot work.
        """
        super().__post_init__()
        try:
            self.n = json.loads(self.n) if isinstance(self.n, str) else self.n
            if isinstance(self.n, Mapping):
                self.n = {int(key): weight for key, weight in self.n.items()}
        except ValueError:
            raise BontuneError(
                'n must be a whole number, or a weight for each of several as in {"1": 0.5, "16": 0.5}, '
                f"got {self.n!r}."
            ) from None
        if self.beta == 0:
            self.sync_ref_model = False  # there is no reference then
        if self.beta_end is not None and self.beta <= 0:
            raise BontuneError(
                "beta_end moves beta, which must be above 0 at the beginning, because the reference is made then."
            )
        if self.beta_end is not None and self.use_liger_kernel:
            raise BontuneError(
                "beta_end moves beta, which the loss of use_liger_kernel takes once for all: leave one out."
            )
        if self.beta_shape not in ("linear", "cosine", "exponential"):
            raise BontuneError(f"beta_shape must be linear, cosine or exponential, got {self.beta_shape!r}.")
        self.group_objective().check(self.num_generations)
        if self.use_vllm and self.vllm_importance_sampling_mode.endswith("_mask"):
            warnings.warn(
                f"vllm_importance_sampling_mode={self.vllm_importance_sampling_mode!r} takes samples out of groups "
                "after their weights were made, which biases the gradient; sequence_truncate does not.",
                stacklevel=3,
            )
        if self.mask_truncated_completions:
            warnings.warn(
                "mask_truncated_completions=True takes samples out of groups after their weights were made, which "
                "biases the gradient; let the reward of a truncated sample be 0 instead.",
                stacklevel=3,
            )

    def group_objective(self) -> GroupObjective:
        """The objective as it weighs a group."""
        options = self.objective_options
        options = json.loads(options) if isinstance(options, str) else options
        return GroupObjective.of(self.objective, self.n, options, self.seed)

    def beta_at(self, step: int, max_steps: int) -> float:
        """The coefficient of the KL at a step, from 1."""
        if self.beta_end is None:
            return float(self.beta)
        length = self.beta_steps or max(max_steps - self.beta_delay, 1)
        shape = self.beta_shape if self.beta_end > 0 else "linear"
        return between(self.beta, self.beta_end, (step - 1 - self.beta_delay) / length, shape)


class BoNGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer, training for Best-of-N (Chow et al., arXiv 2412.15287) or another objective of the table."""

    _name = "BoN-GRPO"

    def __init__(
        self, model: Any, reward_funcs: Any, args: BoNGRPOConfig, *positional: Any, verifier: Any = None, **options: Any
    ) -> None:
        """
        Args:
            model: as TRL takes it.
            reward_funcs: one or several, as TRL takes them; what a sample is worth is their weighted sum.
            args: the settings.
            positional: further arguments of TRL's trainer in its order.
            verifier: what Best-of-N selects by, another reward function or the name of a sequence classification model;
                None: the reward itself, or ``args.verifier_index``.
            options: further arguments of TRL's trainer by name.

        Raises:
            BontuneError: settings that cannot work together.
        """
        functions = list(reward_funcs) if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
        self.verifier_index = args.verifier_index
        if verifier is not None:
            if self.verifier_index is not None:
                raise BontuneError("Give the verifier or args.verifier_index, not both.")
            self.verifier_index = len(functions)
            functions.append(verifier)
            if args.reward_weights is not None:
                args.reward_weights = [*args.reward_weights, 0.0]
            if isinstance(options.get("reward_processing_classes"), list):
                options["reward_processing_classes"] = [*options["reward_processing_classes"], None]
        if self.verifier_index is not None and not 0 <= self.verifier_index < len(functions):
            raise BontuneError(
                f"verifier_index = {self.verifier_index} names none of the {len(functions)} reward functions."
            )
        if self.verifier_index is not None and len(functions) == 1:
            raise BontuneError(
                "verifier_index names the only reward function: leave it out, the reward selects by itself then."
            )
        self.objective = args.group_objective()
        self._rewards_by_function: Tensor | None = None
        follows = args.sync_ref_model
        has_adapters = options.get("peft_config") is not None or hasattr(model, "peft_config")
        args.sync_ref_model = follows and not has_adapters  # TRL refuses adapters; MovingReference has them
        try:
            super().__init__(model, functions, args, *positional, **options)
        finally:
            args.sync_ref_model = follows
        if self.verifier_index is not None:
            self.reward_weights[self.verifier_index] = 0.0
        self.reference = MovingReference(self) if follows else None
        if self.reference is not None and has_adapters:
            self.add_callback(self.reference)
        self.add_callback(_Schedule(self))

    def _calculate_rewards(self, *given: Any, **options: Any) -> Tensor:
        """TRL's rewards (all samples, functions), gathered over the processes; they are kept for the weights."""
        self._rewards_by_function = super()._calculate_rewards(*given, **options)
        return self._rewards_by_function

    def _transform_advantages(self, advantages: Tensor) -> Tensor:
        """Ours in place of TRL's, of the samples of all processes; a later TRL calls it before it logs them."""
        rewards_PM, scores_PM = self._grouped()
        num_samples = rewards_PM.shape[-1]
        try:
            self.objective.check(num_samples)
        except BontuneError:
            return advantages  # an evaluation with fewer samples than N takes
        step, last = self.state.global_step, max(self.state.max_steps - 1, 1)
        ours_PM = self.objective.advantages(rewards_PM, scores_PM, step=step, progress=min(step / last, 1.0))
        return ours_PM.flatten().to(advantages)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL's batch with our advantages, in what it logs, too."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mode = "train" if self.model.training else "eval"
        if not hasattr(GRPOTrainer, "_transform_advantages"):
            num_local, logged = len(batch["advantages"]), self._logs["advantages"]
            ours = self._transform_advantages(self.accelerator.gather(batch["advantages"]))
            first = self.accelerator.process_index * num_local
            batch["advantages"] = ours[first : first + num_local]
            for _ in range(min(len(ours), len(logged))):
                logged.pop()
            logged.extend(ours.tolist())
        for name, value in group_values(*self._grouped(), self.objective.largest_n).items():
            self._metrics[mode][f"bon/{name}"].append(value)
        if "importance_sampling_ratio" in batch and self.vllm_importance_sampling_clip_max is not None:
            is_capped = batch["importance_sampling_ratio"] >= self.vllm_importance_sampling_clip_max
            share = self.accelerator.gather(is_capped.float().mean()).mean().item()
            self._metrics[mode]["bon/truncated_ratios"].append(share)
        return batch

    def _grouped(self) -> tuple[Tensor, Tensor | None]:
        """Rewards (P, M) and the verifier's scores, of all processes; NaN where every function gave None."""
        matrix = self._rewards_by_function
        assert matrix is not None, "TRL calculates rewards before advantages"
        num_samples = self.num_generations if self.model.training else self.num_generations_eval
        weights = self.reward_weights.to(matrix.device)
        counts = torch.ones(matrix.shape[-1], dtype=torch.bool, device=matrix.device)
        if self.verifier_index is not None:
            counts[self.verifier_index] = False
        rewards = (matrix * weights)[:, counts].nansum(-1)
        rewards = rewards.masked_fill(matrix[:, counts].isnan().all(-1), torch.nan).view(-1, num_samples)
        if self.verifier_index is None:
            return rewards, None
        return rewards, matrix[:, self.verifier_index].view(-1, num_samples)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.reference is not None:
            self.reference.save(self.state.global_step)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.reference is not None and checkpoint is not None:
            self.reference.load(checkpoint)


class _Schedule(TrainerCallback):
    """Sets the coefficient of the KL before each step."""

    def __init__(self, trainer: BoNGRPOTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: BoNGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.beta = args.beta_at(state.global_step + 1, state.max_steps)
