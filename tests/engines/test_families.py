"""Each family of models: what is sampled and what is trained on is what the plain model computes, with its gradient.

The table in ``docs/models.md`` is made of these tests: ``BONTUNE_WRITE_DOCS=1 pytest tests/engines/test_families.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import families
import tiny
from bontune.engines.cache import shares_prompts
from bontune.engines.contract import Samples, SamplingOptions
from bontune.engines.transformers import TransformersEngine
from bontune.training.forward import CausalLM, Rows, disable_dropout

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
PROMPTS = ["1+2=", "12+34+5=", "3*4-5="]
SAMPLES = 4


def plain_logprobs(model: Any, samples: Samples) -> list[torch.Tensor]:
    """Log-probabilities of each completion's tokens, one text at a time."""
    found = []
    for b, length in enumerate(samples.lengths_B.tolist()):
        prompt, tokens = samples.prompts[b // SAMPLES], samples.tokens_BT[b, :length]
        ids = torch.tensor([[*prompt, *tokens.tolist()]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        found.append(torch.log_softmax(logits, -1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1))
    return found


def gradient(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_samples_and_gradients_are_those_of_the_plain_model(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.build(family)
    keys = [(0, p) for p in range(len(PROMPTS))]
    options = SamplingOptions(num_samples=SAMPLES, max_new_tokens=12)
    samples = TransformersEngine(model, tiny.tokenizer()).draw(PROMPTS, options, keys)
    assert len(set(samples.texts[1])) > 1, "the model is unsure"
    plain = plain_logprobs(model, samples)
    is_token = Rows.of(samples).is_token_RT
    assert torch.allclose(samples.logprobs_BT[is_token], torch.cat(plain).detach(), atol=1e-4)
    monkeypatch.setattr("bontune.engines.transformers.SHARED_FROM", 1)  # read each prompt's states once, if it can
    shared = TransformersEngine(model, tiny.tokenizer()).draw(PROMPTS, options, keys)
    assert shared.texts == samples.texts
    assert torch.allclose(shared.logprobs_BT, samples.logprobs_BT, atol=1e-4)

    lm = CausalLM(model, pad=0)
    rows = Rows.of(samples)
    hidden_NH = lm.hidden(lm.encode(samples.prompts), rows)[is_token]
    logprobs = torch.log_softmax(lm.logits(hidden_NH), -1).gather(-1, rows.tokens_RT[is_token].unsqueeze(-1))
    assert torch.allclose(logprobs.squeeze(-1), torch.cat(plain), atol=1e-4)
    weight_N = torch.randn(len(logprobs), generator=torch.Generator().manual_seed(0))
    ours = gradient(model, (weight_N * logprobs.squeeze(-1)).sum())
    theirs = gradient(model, (weight_N * torch.cat(plain_logprobs(model, samples))).sum())
    largest = max(float(g.abs().max()) for g in theirs.values())
    for name, wanted in theirs.items():
        assert torch.allclose(ours.get(name, torch.zeros_like(wanted)), wanted, atol=1e-4 * largest), name


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_trained_model_is_drawn_from(family: str) -> None:
    model = families.build(family).train()
    disable_dropout(model)
    lm, engine = CausalLM(model, pad=0), TransformersEngine(model, tiny.tokenizer())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = SamplingOptions(num_samples=SAMPLES, max_new_tokens=4)
    for step in range(3):
        samples = engine.draw(PROMPTS, options, [(step, p) for p in range(len(PROMPTS))])
        rows = Rows.of(samples)
        is_token = rows.is_token_RT
        hidden_NH = lm.hidden(lm.encode(samples.prompts), rows)[is_token]
        logprobs = torch.log_softmax(lm.logits(hidden_NH), -1).gather(-1, rows.tokens_RT[is_token].unsqueeze(-1))
        assert torch.allclose(logprobs.squeeze(-1), samples.logprobs_BT[is_token], atol=1e-3), step
        (-logprobs.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        engine.load(model.named_parameters())


def test_the_page_lists_these_families() -> None:
    lines = ["| family | class | prompt |", "|---|---|---|"]
    for family in families.FAMILIES:
        model = families.build(family)
        way = "computed once for all its samples" if shares_prompts(model) else "computed with each sample"
        lines.append(f"| {family} | `{type(model).__name__}` | {way} |")
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition("<!-- families -->\n")
    _, end, after = rest.partition("<!-- end -->")
    assert begin
    assert end
    page = before + begin + "\n".join(lines) + "\n" + end + after
    if os.environ.get("BONTUNE_WRITE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "run this test with BONTUNE_WRITE_DOCS=1"
