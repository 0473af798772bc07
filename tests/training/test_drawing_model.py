"""Contract of the model that is drawn from under bf16: it holds what autocast casts weights to, so that nothing is cast
for each token, and draws bit for bit what the policy under autocast draws, before and after weights are loaded."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tiny
from bontune.config import load_recipe
from bontune.engines.contract import Samples, SamplingOptions
from bontune.engines.transformers import TransformersEngine
from bontune.models.adapters import add_lora
from bontune.training.setup import drawing_model

BF16 = SimpleNamespace(mixed_precision="bf16")


def drawn(engine: TransformersEngine) -> Samples:
    with torch.autocast("cpu", torch.bfloat16):
        return engine.draw(
            ["3,7,2,9:45=", "a"], SamplingOptions(num_samples=5, max_new_tokens=12, temperature=1.0), [(0,), (1,)]
        )


@pytest.mark.parametrize("has_adapters", [False, True], ids=["whole", "adapters"])
@pytest.mark.parametrize(("family", "is_tied"), [("qwen2", True), ("llama", False), ("gemma2", True)])
def test_the_copy_draws_what_the_policy_draws(family: str, is_tied: bool, has_adapters: bool) -> None:
    model = tiny.model(family, sharp=4.0, tie_word_embeddings=is_tied)
    if has_adapters:
        model = add_lora(model, r=4, alpha=8, targets="all-linear").eval()
    copy = drawing_model(load_recipe("countdown"), model, BF16)
    policy_engine, copy_engine = (TransformersEngine(m, tiny.tokenizer()) for m in (model, copy))
    for step in range(2):
        theirs, ours = drawn(policy_engine), drawn(copy_engine)
        assert torch.equal(ours.tokens_BT, theirs.tokens_BT)
        assert torch.equal(ours.logprobs_BT, theirs.logprobs_BT)
        if step == 0:
            moved = {n: p + 0.1 * torch.randn_like(p) for n, p in model.named_parameters() if p.requires_grad}
            for engine in (policy_engine, copy_engine):
                engine.load(moved.items())
    dtypes = {
        name: module.weight.dtype
        for name, module in copy_engine.model.named_modules()
        if isinstance(module, nn.Linear) and not (is_tied and name.endswith("lm_head"))
    }
    assert set(dtypes.values()) == {torch.bfloat16}


def test_in_float32_the_policy_itself_is_drawn_from() -> None:
    model = tiny.model()
    assert drawing_model(load_recipe("countdown"), model, SimpleNamespace(mixed_precision="no")) is model
