"""A reference that follows the policy in TRL, with adapters too, and that a checkpoint keeps."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from bontune.base.errors import BontuneError

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
        """The reference's parameters, each once."""
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
