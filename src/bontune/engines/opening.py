"""Opens an engine: for a model's name in this process, for an address at a server.

Engines are imported when they are opened: a misspelt name is refused before torch is loaded, which takes seconds.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError, did_you_mean
from bontune.engines.contract import Engine
from bontune.engines.openai import OpenAIEngine, Serving
from bontune.models import best_device, load_model, load_tokenizer, resolve, shipped
from bontune.models.gguf import is_gguf

ENGINES = ("auto", "transformers", "vllm")
"""Engines for a model that is opened by name; an address always means a server."""


def is_address(name: str) -> bool:
    """Return whether a name is the address of a server.

    >>> is_address("http://127.0.0.1:8000/v1"), is_address("countdown-tiny")
    (True, False)
    """
    return name.startswith(("http://", "https://"))


def open_engine(model: Any, tokenizer: Any = None, *, serving: Serving | None = None, engine: str = "auto") -> Engine:
    """Open the engine for a model.

    Args:
        model: a shipped name, a folder, a hub id, a server's address, or a loaded model with its ``tokenizer``.
        tokenizer: the loaded model's tokenizer.
        serving: settings of requests to a server; refused for other models.
        engine: ``transformers``, ``vllm``, or ``auto``: transformers.

    Raises:
        BontuneError: the engine or the model cannot be opened, or the options do not fit it.
    """
    serving = serving or Serving()
    if engine not in ENGINES:
        raise BontuneError(f"There is no engine {engine!r}{did_you_mean(engine, ENGINES)}; take {', '.join(ENGINES)}.")
    if isinstance(model, str) and is_address(model):
        if engine != "auto":
            raise BontuneError(f"{model} is a server, which samples by itself: leave the engine at auto.")
        return OpenAIEngine(model, serving)
    if serving != Serving():
        option = next(
            f.name for f in dataclasses.fields(Serving) if getattr(serving, f.name) != getattr(Serving(), f.name)
        )
        raise BontuneError(f"{model} is not the address of a server (http://…), but {option} is for servers.")
    if tokenizer is None:
        if not isinstance(model, str):
            raise BontuneError("A loaded model needs its tokenizer; give both.")
        where = Path(resolve(model))  # a misspelt name is refused before an engine is imported
        if engine == "vllm" and model not in shipped():
            from bontune.models.adapters import is_adapter

            if not is_adapter(where) and not is_gguf(where):
                return _vllm_of(model)
        model, tokenizer = load_model(model, device=best_device())
    if engine == "vllm":
        from bontune.engines.vllm import VLLMEngine

        return VLLMEngine(model, tokenizer)
    from bontune.engines.transformers import TransformersEngine

    return TransformersEngine(model, tokenizer)


def _vllm_of(name: str) -> Engine:
    """Open vLLM on a model that it reads itself, from a folder or from the hub."""
    from bontune.engines.vllm import VLLMEngine, VLLMOptions

    return VLLMEngine(resolve(name), load_tokenizer(name), VLLMOptions(gpu_memory=0.9))
