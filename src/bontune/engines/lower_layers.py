"""What frozen lower layers compute for a token, kept once and used again in place of the layers.

Adapters on upper layers alone leave the lower ones as they are, so that in drawing, reference and update these compute
the same hidden states for the same tokens. They are recorded where they enter the first layer that is trained. Later
passes run the model's body as usual, with stand-ins for its lower layers, the first of which returns the recorded
states; the number of layers stays, and with it the kind of each.

Shapes: ``_P`` prompts, ``_B`` = P·M samples, ``_T`` tokens, ``H`` hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from bontune.models.adapters import decoder_layers


@dataclass(frozen=True, kw_only=True, slots=True)
class LowerStates:
    """The hidden states of samples that enter the first trained layer."""

    prompts: list[Tensor]
    """States (tokens, H) of each of the P prompts."""
    rows_BTH: Tensor
    """States of the tokens of each completion; those of its last token and of padding have no meaning."""

    def of_prompts(self, chosen: Sequence[int], rows: Sequence[int]) -> LowerStates:
        """Return the states of the chosen prompts and of their rows only."""
        return LowerStates(prompts=[self.prompts[p] for p in chosen], rows_BTH=self.rows_BTH[rows])


def joined(parts: Sequence[LowerStates | None], num_prompts: int | None = None) -> LowerStates | None:
    """Put states side by side; None if one of the parts has none.

    Args:
        parts: states of samples.
        num_prompts: P, if all parts belong to the same P prompts; None: the parts' prompts differ.
    """
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    width = max(part.rows_BTH.shape[1] for part in known)
    rows = [nn.functional.pad(part.rows_BTH, (0, 0, 0, width - part.rows_BTH.shape[1])) for part in known]
    if num_prompts is None:
        return LowerStates(prompts=[states for part in known for states in part.prompts], rows_BTH=torch.cat(rows))
    rows_BTH = torch.cat([part.unflatten(0, (num_prompts, -1)) for part in rows], dim=1).flatten(0, 1)
    return LowerStates(prompts=known[0].prompts, rows_BTH=rows_BTH)


class LowerLayers:
    """The layers of a model below the first one that is trained."""

    def __init__(self, model: Any, first: int) -> None:
        """
        Args:
            model: a causal LM, or a peft model around one.
            first: number of the lowest layer that is trained, at least 1.
        """
        self.layers = list(decoder_layers(model)[1])
        self.first = first
        self._wrap = _wrapper_of_outputs(model, self.layers[0])

    @contextmanager
    def replaced_by(self, states: Tensor) -> Iterator[None]:
        """Give these states (rows, tokens, H) to the first trained layer, in place of what the layers below compute."""
        with self._stand_ins(range(self.first), states):
            yield

    @contextmanager
    def alone(self) -> Iterator[list[Tensor]]:
        """Run the lower layers alone; the list is filled with the states (rows, tokens, H) that leave them."""
        seen: list[Tensor] = []
        with self._stand_ins(range(self.first, len(self.layers)), None), watched(self.layers[self.first], seen.append):
            yield seen

    @contextmanager
    def _stand_ins(self, numbers: range, states: Tensor | None) -> Iterator[None]:
        own = {number: vars(self.layers[number]).get("forward") for number in numbers}
        for number in numbers:
            self.layers[number].forward = _stand_in(number, states, self._wrap)
            states = None
        try:
            yield
        finally:
            for number, forward in own.items():
                if forward is None:
                    del self.layers[number].forward
                else:  # such as one that accelerate has put there
                    self.layers[number].forward = forward


def _stand_in(number: int, states: Tensor | None, wrap: Callable[[Tensor], Any]) -> Callable[..., Any]:
    """Return a layer's ``forward`` that gives back given states, or what enters it."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = entering(args, kwargs)
        # Masks are as long as the first layer's cache says, which therefore counts the tokens.
        place = hidden.new_zeros(len(hidden), 1, hidden.shape[1], 1)
        for cache in (*args, *kwargs.values()):
            if isinstance(cache, Cache):
                cache.update(place, place, number)
        return wrap(hidden if states is None else states)

    return forward


def entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states among the arguments of a decoder layer."""
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


@contextmanager
def watched(layer: nn.Module, see: Callable[[Tensor], object]) -> Iterator[None]:
    """Call ``see`` with the hidden states that enter a layer, in each forward pass while the context lasts."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        see(entering(args, kwargs))

    handle = layer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _wrapper_of_outputs(model: Any, layer: nn.Module) -> Callable[[Tensor], Any]:
    """Return a function that puts hidden states into the form in which a model's layers return theirs."""
    outputs: list[Any] = []
    handle = layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        model(input_ids=torch.zeros(1, 2, dtype=torch.int64, device=model.device), use_cache=False)
    finally:
        handle.remove()
    if isinstance(outputs[0], Tensor):
        return lambda states: states
    others = (None,) * (len(outputs[0]) - 1)
    return lambda states: (states, *others)


class Recorder:
    """Collects the states of samples while an engine draws them."""

    def __init__(self, num_prompts: int, num_rows: int, width: int) -> None:
        """
        Args:
            num_prompts, num_rows: P and P·M.
            width: length of the longest completion, in tokens.
        """
        self._shape = num_rows, width
        self._prompts: list[Tensor | None] = [None] * num_prompts
        self._rows_BTH: Tensor | None = None
        self._seen: Tensor | None = None

    def see(self, hidden: Tensor) -> None:
        """Take the states of a forward pass."""
        self._seen = hidden

    @torch.inference_mode(False)
    def keep_prompts(self, numbers: Sequence[int], lengths: Sequence[int]) -> None:
        """Keep the states of the last pass as those of prompts of these lengths, padded at the left."""
        assert self._seen is not None, "the layer is watched"
        for states, number, length in zip(self._seen, numbers, lengths, strict=True):
            self._prompts[number] = states[len(states) - length :].clone()  # a usual tensor, which autograd may save

    @torch.inference_mode(False)
    def keep_tokens(self, rows: Tensor, t: int) -> None:
        """Keep the states of the last pass as those of the t-th token of these rows."""
        assert self._seen is not None, "the layer is watched"
        if self._rows_BTH is None:
            self._rows_BTH = torch.zeros(*self._shape, self._seen.shape[-1], dtype=self._seen.dtype, device=rows.device)
        self._rows_BTH[rows, t] = self._seen[:, 0].clone()

    def states(self, longest: int) -> LowerStates | None:
        """Return the states of completions of up to ``longest`` tokens; None if the engine prefilled no prompts."""
        prompts = [states for states in self._prompts if states is not None]
        if len(prompts) < len(self._prompts):
            return None
        rows_BTH = self._rows_BTH
        if rows_BTH is None:  # no completion has more than one token
            rows_BTH = prompts[0].new_zeros(self._shape[0], 1, prompts[0].shape[-1])
        return LowerStates(prompts=prompts, rows_BTH=rows_BTH[:, :longest])
