"""Verifiers score completions, and Best-of-N selects by the score.

``base`` has the protocol and verifiers without a model; ``reward_model`` scores with a sequence classifier and
``fit`` trains one; ``judge`` asks a language model at a server; ``load`` makes a verifier by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bontune.verifiers.base import FunctionVerifier, Majority, Oracle, Verifier
from bontune.verifiers.load import as_verifier, load_verifier, verifier_from_text

if TYPE_CHECKING:
    from bontune.verifiers.reward_model import RewardModel

__all__ = [
    "FunctionVerifier",
    "Majority",
    "Oracle",
    "RewardModel",
    "Verifier",
    "as_verifier",
    "load_verifier",
    "verifier_from_text",
]


def __getattr__(name: str) -> Any:
    """Import ``RewardModel`` when it is used: most runs need none, and torch takes seconds to load."""
    if name == "RewardModel":
        from bontune.verifiers.reward_model import RewardModel

        return RewardModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
