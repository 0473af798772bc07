"""A policy that lies in parts on several processes, for models whose training does not fit one device."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from bontune.base.errors import BontuneError
from bontune.config import Recipe
from bontune.models.adapters import copy_with, is_adapted
from bontune.training.forward import CausalLM


class Sharding:
    """Weights, gradients, reference and optimizer of the policy in parts on all processes (PyTorch's FSDP2).

    A layer is whole only while it computes: its weights are gathered before, and its gradient is summed over the
    processes and parted behind its backward pass. So all processes go through the layers in step; one with fewer
    micro-batches than another takes empty ones (:meth:`most`). Samples are drawn from a whole copy of the model, as
    they end at different places on different processes.
    """

    def __init__(self, recipe: Recipe, model: Any, lm: CausalLM, accelerator: Any) -> None:
        """
        Args:
            recipe: the run's.
            model: the policy, whole; its parameters become this process's parts.
            lm: the same taken apart; its body then runs by parts.
            accelerator: knows the device and the processes.

        Raises:
            BontuneError: a setting that cannot be used with a policy in parts.
        """
        _check(recipe, model, accelerator.num_processes)
        self.model = model
        self._without_weights = copy_with(model, {id(p): _on_meta(p) for p in model.parameters()})
        body = lm.body
        # FSDP gathers the weights for calls of the outermost module; the trainer calls the body, which is inside.
        model.run_body = lambda **inputs: body(**inputs)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        layers = set(model._no_split_modules or ())
        for module in [m for m in model.modules() if type(m).__name__ in layers]:
            fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        register_fsdp_forward_method(model, "run_body")
        for module in model.modules():
            if isinstance(module, FSDPModule):  # the loss is divided by the samples of all processes already
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        lm.body, lm.share_prompt = model.run_body, False

    def most(self, number: int) -> int:
        """The largest of the processes' numbers."""
        return int(max(gather_object([number])))

    def part(self) -> None:
        """Give up whatever weights are still whole, such as those of embeddings behind a forward pass."""
        self.model.reshard()

    def whole_model(self, *, is_wanted: bool) -> Any:
        """The policy as a plain model on the CPU; every process has to call this, and those that want it get it."""
        parameters = {}
        for name, parameter in self.model.named_parameters():
            tensor = whole(parameter)
            if is_wanted:
                parameters[name] = nn.Parameter(tensor.cpu(), requires_grad=False)
        if not is_wanted:
            return None
        placeholders = self._without_weights.named_parameters()
        return copy_with(self._without_weights, {id(p): parameters[name] for name, p in placeholders})


def whole(tensor: Tensor) -> Tensor:
    """A tensor without its graph; one that lies in parts is put together, by all processes at once."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, or all of it; memory is shared."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor on the device of another one, in parts if that is."""
    moved = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return moved
    return distribute_tensor(moved, other.device_mesh, other.placements, src_data_rank=None)


def _check(recipe: Recipe, model: Any, num_processes: int) -> None:
    row, options = recipe.objective.row(), recipe.objective.options()
    columns = row.columns(options, recipe.sampling.samples)
    refused = {
        "one process: start several with torchrun or `accelerate launch`": num_processes == 1,
        "training.lora: adapters are small, so leave one of the two out": is_adapted(model),
        "objective.p_fail=value_head: take running or plugin": getattr(options, "p_fail", None) == "value_head",
        f"objective.name={recipe.objective.name}, which compares or draws with the reference": (
            row.logprobs != "none" or columns.reference > 0
        ),
    }
    for what, is_so in refused.items():
        if is_so:
            raise BontuneError(
                f"training.shard=true lays the policy in parts on several processes; it does not go with {what}."
            )


def _on_meta(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
