"""A model's cache goes under the name that the model's version of transformers has for it, and nobody is warned."""

from __future__ import annotations

import logging
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.utils import logging as transformers_logging

import tiny
from bontune.engines.cache import cache_of, with_cache
from bontune.engines.contract import SamplingOptions
from bontune.engines.transformers import TransformersEngine
from bontune.models.adapters import add_lora
from bontune.training.forward import CausalLM, Rows


class Newer:
    def forward(self, input_ids: Any, cache: Any = None, **kwargs: Any) -> None: ...


class Older:
    def forward(self, input_ids: Any, past_key_values: Any = None, **kwargs: Any) -> None: ...


class Wrapped:
    def get_base_model(self) -> Newer:
        return Newer()

    def forward(self, *args: Any, **kwargs: Any) -> None: ...


def test_the_name_of_the_cache_is_the_models() -> None:
    assert with_cache(Newer(), 3) == with_cache(Wrapped(), 3) == {"cache": 3}
    assert with_cache(Older(), 3) == {"past_key_values": 3}
    assert cache_of(SimpleNamespace(cache=3)) == cache_of(SimpleNamespace(past_key_values=3)) == 3
    assert cache_of(SimpleNamespace(logits=3)) is None


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.mark.parametrize("has_adapter", [False, True])
def test_drawing_and_training_warn_of_nothing(has_adapter: bool) -> None:
    heard, logger = Heard(), transformers_logging.get_logger("transformers")
    logger.addHandler(heard)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = tiny.model()
            model = add_lora(model, r=2, alpha=4, targets="all-linear") if has_adapter else model
            options = SamplingOptions(num_samples=2, max_new_tokens=4)
            samples = TransformersEngine(model, tiny.tokenizer()).draw(["1+2=", "3="], options, [(0,), (1,)])
            lm = CausalLM(model, pad=0)
            hidden = lm.hidden(lm.encode(samples.prompts), Rows.of(samples))
            assert bool(torch.isfinite(hidden).all())
    finally:
        logger.removeHandler(heard)
    assert heard.messages == []
