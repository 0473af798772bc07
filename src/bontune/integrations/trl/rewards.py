"""Our verifiers as reward functions of TRL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from transformers.integrations import is_deepspeed_zero3_enabled

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.verifiers import Verifier, as_verifier
from bontune.verifiers.load import load_verifier, options_from_text


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
    """A prompt of TRL, a text or a conversation."""
    if isinstance(prompt, str):
        return Problem(id="", prompt=prompt, reference="")
    return Problem(id="", prompt=prompt[-1]["content"], reference="", messages=tuple(prompt))
