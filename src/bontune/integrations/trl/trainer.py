"""TRL's GRPOTrainer with any objective of ours in place of its advantages."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence, Sized
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import GRPOTrainer

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.integrations.groups import group_values
from bontune.integrations.trl.settings import BoNGRPOConfig
from bontune.verifiers import Verifier, as_verifier
from bontune.verifiers.load import load_verifier, options_from_text


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
            verifier: what Best-of-N selects by: another reward function, a verifier of ours, a loaded classifier with
                its tokenizer as a pair, or what ``--verifier`` takes, such as the name of a sequence classification
                model; None: the reward itself, or ``args.verifier_index``.
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
            functions.append(as_reward_function(verifier, str(args.device)))
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
        set_seed(args.seed)  # TRL before 1.16 draws adapters unseeded, other ones in each process and each run
        try:
            super().__init__(model, functions, args, *positional, **options)
        finally:
            args.sync_ref_model = follows
        self._check_prompts()
        if self.verifier_index is not None:
            if verifier is None and args.reward_weights is not None and args.reward_weights[self.verifier_index]:
                warnings.warn(
                    f"reward_weights gives the verifier {args.reward_weights[self.verifier_index]:g}, but what selects "
                    "is no reward: 0 is taken.",
                    stacklevel=2,
                )
            self.reward_weights[self.verifier_index] = 0.0
        self.reference = MovingReference(self) if follows else None
        if self.reference is not None and has_adapters:
            self.add_callback(self.reference)
        self.add_callback(_Schedule(self))

    def _check_prompts(self) -> None:
        """Refuse a data set of which TRL would make no batch and train no step.

        Raises:
            BontuneError: it is one.
        """
        prompts, needed = self.train_dataset, self.args.generation_batch_size // self.num_generations
        if isinstance(prompts, Sized) and len(prompts) < needed:
            raise BontuneError(
                f"A generation batch of {self.args.generation_batch_size} samples holds {needed} prompts, and there "
                f"are {len(prompts)}: TRL would train no step. Give more prompts, or lower gradient_accumulation_steps "
                "or per_device_train_batch_size."
            )

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


NAME = "ref"
"""The adapter by which TRL computes the reference, if there is one of this name."""


class MovingReference(TrainerCallback):
    """An exponential moving average of the policy.

    TRL moves a reference of whole weights by itself, but does not save it, and refuses adapters. Here the average is
    kept beside each checkpoint. With adapters it is that of the adapter's weights, in a second adapter.
    """

    def __init__(self, trainer: Any) -> None:
        """
        Args:
            trainer: a GRPOTrainer that has been set up; of a model with adapters it gets the second one.
        """
        self.trainer = trainer
        self.has_adapters = trainer.ref_model is None
        model = trainer.model
        if self.has_adapters and NAME not in model.peft_config:
            config = copy(model.peft_config["default"])
            config.init_lora_weights = True  # PiSSA and OLoRA would take their part out of the base weights once more
            model.add_adapter(NAME, config)
            for name, tensor in model.named_parameters():
                if f".{NAME}." in name:
                    tensor.data.copy_(model.get_parameter(name.replace(f".{NAME}.", ".default.")).data)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the second adapter; a reference of whole weights is moved by TRL."""
        if not self.has_adapters or state.global_step % args.ref_model_sync_steps:
            return
        policy = dict(self._model().named_parameters())
        with torch.no_grad():
            for name, tensor in self._parameters():
                now = local(policy[name.replace(f".{NAME}.", ".default.")])
                local(tensor).lerp_(now.to(tensor.dtype), args.ref_model_mixup_alpha)

    def save(self, step: int) -> None:
        """Write the reference beside the checkpoint of this step."""
        folder = Path(self.trainer._get_output_dir(trial=None)) / f"checkpoint-{step}"
        parameters = self._parameters()
        if self.trainer.accelerator.is_main_process or _is_sharded(parameters):
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: local(p).contiguous().cpu() for name, p in parameters}, folder / self._file(parameters))

    def load(self, checkpoint: str) -> None:
        """Take back what :meth:`save` wrote.

        Raises:
            BontuneError: it is not there, or was written by another number of processes that share the weights.
        """
        parameters = self._parameters()
        path = Path(checkpoint) / self._file(parameters)
        if not path.is_file():
            raise BontuneError(
                f"{path} is missing: the checkpoint was made without a moving reference, or by another number of "
                "processes; take sync_ref_model=false, or go on with as many."
            )
        saved = load_file(path)
        with torch.no_grad():
            for name, tensor in parameters:
                local(tensor).copy_(saved[name])

    def _file(self, parameters: list[tuple[str, Tensor]]) -> str:
        if not _is_sharded(parameters):
            return "reference.safetensors"
        accelerator = self.trainer.accelerator
        return f"reference-{accelerator.process_index}-of-{accelerator.num_processes}.safetensors"

    def _model(self) -> Any:
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    def _parameters(self) -> list[tuple[str, Tensor]]:
        """Return the reference's parameters, each once."""
        if self.has_adapters:
            return [(name, p) for name, p in self._model().named_parameters() if f".{NAME}." in name]
        return list(self.trainer.accelerator.unwrap_model(self.trainer.ref_model).named_parameters())


def local(parameter: Tensor) -> Tensor:
    """This process's part of a parameter that FSDP or DeepSpeed may have split over several."""
    part = getattr(parameter, "ds_tensor", None)  # of DeepSpeed's third stage
    if part is not None:
        return part
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter.data


def _is_sharded(parameters: list[tuple[str, Tensor]]) -> bool:
    return any(hasattr(p, "ds_tensor") or hasattr(p, "to_local") for _, p in parameters)


def as_reward_function(verifier: Any, device: str) -> Any:
    """What TRL takes for a verifier, which then scores as it does everywhere else in this package.

    Args:
        verifier: a verifier of ours, a pair (model, tokenizer), or what ``--verifier`` takes; a reward function of TRL
            and a module are given back as they are.
        device: where a reward model that is loaded here computes.

    Raises:
        BontuneError: a verifier that needs grades or answers, which TRL does not have, or one that cannot be loaded.
    """
    if isinstance(verifier, str):
        name, options = options_from_text(verifier)
        if name in ("oracle", "majority"):
            raise BontuneError(
                f"The verifier {name} needs what only `bontune train` has; without a verifier the reward selects."
            )
        if name == "reward_model" and is_deepspeed_zero3_enabled():
            return verifier  # TRL lays it in parts on the processes
        return _reward_function(load_verifier(name, device=device, **options))
    if isinstance(verifier, nn.Module) or not isinstance(verifier, (Verifier, tuple)):
        return verifier
    return _reward_function(as_verifier(verifier))


def _reward_function(verifier: Verifier) -> Callable[..., list[float]]:
    def reward(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        texts = [completion if isinstance(completion, str) else completion[-1]["content"] for completion in completions]
        return [row[0] for row in verifier.score([_problem(p) for p in prompts], [[text] for text in texts], [])]

    reward.__name__ = verifier.name
    return reward


def _problem(prompt: Any) -> Problem:
    """Return a prompt of TRL, a text or a conversation."""
    if isinstance(prompt, str):
        return Problem(id="", prompt=prompt, reference="")
    return Problem(id="", prompt=prompt[-1]["content"], reference="", messages=tuple(prompt))
