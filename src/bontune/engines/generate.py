"""Sampling with ``model.generate`` where a prompt's state cannot be shared: recurrent and hybrid models.

Every sample computes its prompt anew, and all rows of a batch have prompts of one length, so that nothing is padded:
not every recurrent layer leaves padding out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from bontune.engines.drawing import Drawing


class _Draw(LogitsProcessor):
    """Leaves the drawn token alone, which a greedy ``generate`` then takes."""

    def __init__(self, drawing: Drawing, num_prompt: int) -> None:
        self.drawing = drawing
        self.num_prompt = num_prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = torch.arange(len(input_ids), device=input_ids.device)
        token = self.drawing.draw(rows, input_ids.shape[1] - self.num_prompt, scores)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token.unsqueeze(-1), 0.0)


class _Ended(StoppingCriteria):
    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        return self.drawing.has_ended_B


def generate(model: Any, prompt_ids: Sequence[Sequence[int]], drawing: Drawing, *, keeps_state: bool) -> None:
    """Draw one completion of each prompt.

    Args:
        model: a causal LM.
        prompt_ids: B prompts of one length.
        drawing: B rows; it holds what was drawn in the end.
        keeps_state: whether the model's state from token to token can be relied on; else all is computed anew for
            each token.
    """
    ids = torch.tensor(prompt_ids, device=model.device)
    if keeps_state:
        _greedy(model, ids, drawing.width, [_Draw(drawing, ids.shape[1])], [_Ended(drawing)])
        return
    rows = torch.arange(len(ids), device=ids.device)
    for t in range(drawing.width):
        token = drawing.draw(rows, t, model(input_ids=ids, use_cache=False).logits[:, -1])
        if bool(drawing.has_ended_B.all()):
            break
        ids = torch.cat([ids, token.unsqueeze(-1)], dim=-1)


@torch.no_grad()
def can_keep_state(model: Any) -> bool:
    """Whether a model computes the same with the state that it keeps from token to token as it does anew.

    With some families ``generate`` loses the state between two tokens, mixes rows up, or fails.
    """
    ids = torch.tensor([[0, 1, 2], [3, 2, 1]], device=model.device)
    kept = _Logits()
    try:
        _greedy(model, ids, 4, [kept], [])
    except (ValueError, RuntimeError, AttributeError, TypeError, IndexError):  # an edge: families fail in many ways
        return False
    whole = torch.cat([ids, torch.arange(1, 4, device=ids.device).expand(2, -1)], dim=-1)
    anew = model(input_ids=whole, use_cache=False).logits[:, 2:].float()
    return torch.allclose(torch.stack(kept.seen, dim=1), anew, rtol=1e-2, atol=1e-2 * float(anew.abs().max()))


class _Logits(LogitsProcessor):
    """Keeps the logits of each step, and goes on with the tokens 1, 2, 3, … whatever they are."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(scores.float())
        token = torch.full_like(input_ids[:, :1], len(self.seen))
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)


def _greedy(model: Any, ids: Tensor, num_tokens: int, processors: list[Any], criteria: list[Any]) -> None:
    own = model.generation_config
    model.generation_config = GenerationConfig()  # none of the model's own penalties and truncations
    try:
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=GenerationConfig(max_new_tokens=num_tokens, do_sample=False, use_cache=True),
            logits_processor=processors,
            stopping_criteria=criteria,
        )
    finally:
        model.generation_config = own
