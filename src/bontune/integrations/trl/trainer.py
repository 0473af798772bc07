"""TRL's GRPOTrainer with the advantages of any objective of this package, a verifier, and a moving reference."""

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
    """TRL's GRPOTrainer for Best-of-N (Chow et al., arXiv 2412.15287) or another objective of the table."""

    _name = "BoN-GRPO"

    def __init__(
        self, model: Any, reward_funcs: Any, args: BoNGRPOConfig, *positional: Any, verifier: Any = None, **options: Any
    ) -> None:
        """
        Args:
            model: the model, in any form that TRL takes.
            reward_funcs: one or several functions of TRL's form; a sample's reward is their weighted sum.
            args: the settings.
            positional: further arguments of TRL's trainer in its order.
            verifier: scorer by which Best-of-N selects: another reward function, a verifier of this package, a loaded
                classifier with its tokenizer as a pair, or what ``--verifier`` takes, such as the name of a sequence
                classification model; None: the reward itself, or ``args.verifier_index``.
            options: further arguments of TRL's trainer by name.

        Raises:
            BontuneError: settings that do not go together.
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
                "verifier_index names the only reward function: omit it, then the reward itself selects."
            )
        self.objective = args.group_objective()
        self._rewards_by_function: Tensor | None = None
        follows = args.sync_ref_model
        has_adapters = options.get("peft_config") is not None or hasattr(model, "peft_config")
        args.sync_ref_model = follows and not has_adapters  # TRL refuses adapters; MovingReference handles them
        set_seed(args.seed)  # TRL before 1.16 draws adapters unseeded, different ones in each process and run
        try:
            super().__init__(model, functions, args, *positional, **options)
        finally:
            args.sync_ref_model = follows
        self._check_prompts()
        if self.verifier_index is not None:
            if verifier is None and args.reward_weights is not None and args.reward_weights[self.verifier_index]:
                warnings.warn(
                    f"reward_weights gives the verifier {args.reward_weights[self.verifier_index]:g}, but it is "
                    "not a reward: its weight is set to 0.",
                    stacklevel=2,
                )
            self.reward_weights[self.verifier_index] = 0.0
        self.reference = MovingReference(self) if follows else None
        if self.reference is not None and has_adapters:
            self.add_callback(self.reference)
        self.add_callback(_Schedule(self))

    def _check_prompts(self) -> None:
        """Refuse a data set that is too small for a single batch of TRL.

        Raises:
            BontuneError: the data set has fewer prompts than a batch.
        """
        prompts, needed = self.train_dataset, self.args.generation_batch_size // self.num_generations
        if isinstance(prompts, Sized) and len(prompts) < needed:
            raise BontuneError(
                f"A generation batch of {self.args.generation_batch_size} samples holds {needed} prompts, and there "
                f"are {len(prompts)}: TRL would train no step. Give more prompts, or lower gradient_accumulation_steps "
                "or per_device_train_batch_size."
            )

    def _calculate_rewards(self, *arguments: Any, **options: Any) -> Tensor:
        """Return TRL's rewards (all samples, functions) of all processes, and keep them for the advantages."""
        self._rewards_by_function = super()._calculate_rewards(*arguments, **options)
        return self._rewards_by_function

    def _transform_advantages(self, advantages: Tensor) -> Tensor:
        """Replace TRL's advantages of the samples of all processes; newer TRL calls this before it logs them."""
        rewards_PM, scores_PM = self._grouped()
        num_samples = rewards_PM.shape[-1]
        try:
            self.objective.check(num_samples)
        except BontuneError:
            return advantages  # an evaluation with fewer samples than N needs
        step, last = self.state.global_step, max(self.state.max_steps - 1, 1)
        ours_PM = self.objective.advantages(rewards_PM, scores_PM, step=step, progress=min(step / last, 1.0))
        return ours_PM.flatten().to(advantages)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """Return TRL's batch with our advantages, which replace TRL's in its logs as well."""
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
        """Return rewards (P, M) and the verifier's scores, of all processes; NaN where every function returned None."""
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
    """A callback that sets the coefficient of the KL before each step."""

    def __init__(self, trainer: BoNGRPOTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: BoNGRPOConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.beta = args.beta_at(state.global_step + 1, state.max_steps)


NAME = "ref"
"""Name of the adapter with which TRL computes the reference, if it exists."""


class MovingReference(TrainerCallback):
    """An exponential moving average of the policy.

    TRL moves a reference of full weights itself, but does not save it, and refuses adapters. Here the average is
    saved beside each checkpoint. With adapters it is the average of the adapter's weights, in a second adapter.
    """

    def __init__(self, trainer: Any) -> None:
        """
        Args:
            trainer: an initialised GRPOTrainer; its model gets a second adapter if it has one.
        """
        self.trainer = trainer
        self.has_adapters = trainer.ref_model is None
        model = trainer.model
        if self.has_adapters and NAME not in model.peft_config:
            config = copy(model.peft_config["default"])
            config.init_lora_weights = True  # PiSSA and OLoRA would subtract their part from the base weights once more
            model.add_adapter(NAME, config)
            for name, tensor in model.named_parameters():
                if f".{NAME}." in name:
                    tensor.data.copy_(model.get_parameter(name.replace(f".{NAME}.", ".default.")).data)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the second adapter; TRL moves a reference of full weights."""
        if not self.has_adapters or state.global_step % args.ref_model_sync_steps:
            return
        policy = dict(self._model().named_parameters())
        with torch.no_grad():
            for name, tensor in self._parameters():
                new = local_part(policy[name.replace(f".{NAME}.", ".default.")])
                local_part(tensor).lerp_(new.to(tensor.dtype), args.ref_model_mixup_alpha)

    def save(self, step: int) -> None:
        """Write the reference beside the checkpoint of this step."""
        folder = Path(self.trainer._get_output_dir(trial=None)) / f"checkpoint-{step}"
        parameters = self._parameters()
        if self.trainer.accelerator.is_main_process or _is_sharded(parameters):
            folder.mkdir(parents=True, exist_ok=True)
            state = {name: local_part(p).contiguous().cpu() for name, p in parameters}
            save_file(state, folder / self._file(parameters))

    def load(self, checkpoint: str) -> None:
        """Load the reference that :meth:`save` wrote.

        Raises:
            BontuneError: the file is missing, or was written by another number of processes with sharded weights.
        """
        parameters = self._parameters()
        path = Path(checkpoint) / self._file(parameters)
        if not path.is_file():
            raise BontuneError(
                f"{path} is missing: the checkpoint was made without a moving reference, or by another number of "
                "processes; take sync_ref_model=false, or resume with as many processes."
            )
        saved = load_file(path)
        with torch.no_grad():
            for name, tensor in parameters:
                local_part(tensor).copy_(saved[name])

    def _file(self, parameters: list[tuple[str, Tensor]]) -> str:
        if not _is_sharded(parameters):
            return "reference.safetensors"
        accelerator = self.trainer.accelerator
        return f"reference-{accelerator.process_index}-of-{accelerator.num_processes}.safetensors"

    def _model(self) -> Any:
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    def _parameters(self) -> list[tuple[str, Tensor]]:
        """Return the names and parameters of the reference."""
        if self.has_adapters:
            return [(name, p) for name, p in self._model().named_parameters() if f".{NAME}." in name]
        return list(self.trainer.accelerator.unwrap_model(self.trainer.ref_model).named_parameters())


def local_part(parameter: Tensor) -> Tensor:
    """Return this process's shard of a parameter that FSDP or DeepSpeed may have sharded."""
    part = getattr(parameter, "ds_tensor", None)  # DeepSpeed's ZeRO-3
    if part is not None:
        return part
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter.data


def _is_sharded(parameters: list[tuple[str, Tensor]]) -> bool:
    return any(hasattr(p, "ds_tensor") or hasattr(p, "to_local") for _, p in parameters)


def as_reward_function(verifier: Any, device: str) -> Any:
    """Return a verifier as a reward function of TRL, which scores as it does everywhere else in this package.

    Args:
        verifier: a verifier of this package, a pair (model, tokenizer), or what ``--verifier`` takes; a reward function
            of TRL and a module are returned as they are.
        device: device of a reward model that is loaded here.

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
            return verifier  # TRL shards it over the processes
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
    """Convert a prompt of TRL, a text or a conversation, to a problem."""
    if isinstance(prompt, str):
        return Problem(id="", prompt=prompt, reference="")
    return Problem(id="", prompt=prompt[-1]["content"], reference="", messages=tuple(prompt))
