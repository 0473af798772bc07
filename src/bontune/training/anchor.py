"""The KL reference: a moving average of the policy (Chow et al., Table 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Anchor:
    """The policy's moving average: ref ← ema·θ + (1 − ema)·ref over the trainable parameters.

    Frozen parameters are shared with the policy: with LoRA the average is over the adapters and costs no second model.
    """

    def __init__(self, model: nn.Module, ema: float) -> None:
        """
        Args:
            model: the policy; its parameters as they are now become the anchor.
            ema: weight of the policy in each update, in [0, 1]; 0 keeps the initial policy.
        """
        self.ema = ema
        self._policy = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._policy.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the anchor one step towards the policy."""
        if self.ema:
            for name, parameter in self._policy.items():
                self.tensors[name].lerp_(parameter, self.ema)

    def policy_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and tensors of the policy's trainable weights, which share its memory."""
        return ((name, parameter.detach()) for name, parameter in self._policy.items())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and tensors of the anchor's weights."""
        return iter(self.tensors.items())

    @torch.no_grad()
    def restore(self, policy: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> None:
        """Put back weights that :meth:`policy_weights` and :meth:`weights` gave."""
        for name, parameter in self._policy.items():
            parameter.copy_(policy[name])
            self.tensors[name].copy_(anchor[name])

    @contextmanager
    def in_place_of_policy(self) -> Iterator[None]:
        """While the context lasts, the model computes with the anchor's weights, whose storage is exchanged.

        No backward pass may run inside, and none of a graph that was built outside.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        # The cache keeps bf16 values by the parameter's identity and would miss the exchange of its storage.
        torch.clear_autocast_cache()
        for name, parameter in self._policy.items():
            self.tensors[name], parameter.data = parameter.data, self.tensors[name]

    def parameters_of(self, module: nn.Module) -> dict[str, Tensor]:
        """The anchor's weights in place of a module's parameters, by the module's own names, tied ones included."""
        ours = {id(parameter): self.tensors[name] for name, parameter in self._policy.items()}
        return {name: ours.get(id(p), p).detach() for name, p in module.named_parameters()}
