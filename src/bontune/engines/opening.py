"""From a name to an engine: a model's name opens one in this process, an address one behind a server."""

from __future__ import annotations

import dataclasses
from typing import Any

from bontune.base.errors import BontuneError
from bontune.engines.contract import Engine
from bontune.engines.openai import OpenAIEngine, Serving
from bontune.engines.transformers import TransformersEngine
from bontune.models import best_device, load_model


def is_address(name: str) -> bool:
    """Whether a name is a server's address.

    >>> is_address("http://127.0.0.1:8000/v1"), is_address("countdown-tiny")
    (True, False)
    """
    return name.startswith(("http://", "https://"))


def open_engine(model: Any, tokenizer: Any = None, *, serving: Serving | None = None) -> Engine:
    """The engine for a model.

    Args:
        model: a shipped name, a folder, a hub id, a server's address, or a loaded model with its ``tokenizer``.
        tokenizer: of a loaded model.
        serving: how to ask a server; refused for other models.

    Raises:
        BontuneError: nothing of the kind can be opened.
    """
    serving = serving or Serving()
    if isinstance(model, str) and is_address(model):
        return OpenAIEngine(model, serving)
    if serving != Serving():
        given = next(
            f.name for f in dataclasses.fields(Serving) if getattr(serving, f.name) != getattr(Serving(), f.name)
        )
        raise BontuneError(f"{model} is no server's address (http://…), but {given} is for servers.")
    if tokenizer is None:
        if not isinstance(model, str):
            raise BontuneError("A loaded model needs its tokenizer; give both.")
        model, tokenizer = load_model(model, device=best_device())
    return TransformersEngine(model, tokenizer)
