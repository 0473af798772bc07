"""What the engine in this process promises beyond the contract of all engines (``test_conformance.py``):

1. samples do not depend on the token budget;
2. samples follow the model's distribution at the given temperature, and the nucleus at the given top-p;
3. they are the same whether a prompt's states are copied for its samples or read by all, and however seldom it is asked
   which rows have ended.
"""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import families
import tiny
from bontune.engines.contract import SamplingOptions, StopReason
from bontune.engines.decoding import SamplingState, draw_token
from bontune.engines.shared_attention import Placement
from bontune.engines.transformers import TransformersEngine

PROMPTS = ["3,7,2,9:45=", "a", "what is 12+30?", "xyz" * 9]
KEYS = [(0, "test", i) for i in range(len(PROMPTS))]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_samples_do_not_depend_on_the_token_budget(family):
    model, tokenizer = tiny.model(family), tiny.tokenizer()
    options = SamplingOptions(num_samples=6, max_new_tokens=16)
    whole = TransformersEngine(model, tokenizer).draw(PROMPTS, options, KEYS)
    tight = TransformersEngine(model, tokenizer, token_budget=64).draw(PROMPTS, options, KEYS)
    assert whole.texts == tight.texts
    torch.testing.assert_close(whole.tokens_BT, tight.tokens_BT)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("budget", [65_536, 300], ids=["at once", "in parts"])
def test_prompts_that_are_read_by_all_their_samples_give_the_same(family, budget, monkeypatch):
    model, tokenizer = tiny.model(family, sharp=4.0), tiny.tokenizer()
    options = SamplingOptions(num_samples=7, max_new_tokens=24, stop=("4", "e"))

    def draw(shared_from):
        monkeypatch.setattr("bontune.engines.transformers.SHARED_FROM", shared_from)
        monkeypatch.setattr("bontune.engines.transformers.SHARED_BY", 1)
        return TransformersEngine(model, tokenizer, token_budget=budget).draw(PROMPTS, options, KEYS)

    placements = []
    made = Placement.__init__
    monkeypatch.setattr(Placement, "__init__", lambda self, *a: [made(self, *a), placements.append(self)][0])
    copied = draw(10_000)
    assert not placements
    shared = draw(1)
    assert placements
    assert model.config._attn_implementation in ("sdpa", "eager"), "as it was before"
    assert len(set(shared.lengths_B.tolist())) > 2, "rows end at different tokens"
    torch.testing.assert_close(shared.tokens_BT, copied.tokens_BT)
    torch.testing.assert_close(shared.logprobs_BT, copied.logprobs_BT, atol=1e-5, rtol=1e-5)
    assert shared.stops == copied.stops


def test_a_model_with_attention_of_its_own_kind_gets_copies():
    """Attention sinks (gpt-oss) are no part of the shared attention."""
    model = families.build("gpt_oss")
    assert not TransformersEngine(model, tiny.tokenizer())._shares_attention


@pytest.mark.parametrize("block", [2, 5, 64])
def test_asking_seldom_which_rows_have_ended_changes_nothing(block, monkeypatch):
    model, tokenizer = tiny.model("llama", sharp=4.0), tiny.tokenizer()
    options = SamplingOptions(num_samples=16, max_new_tokens=40, stop=("4", "ab", "e"))
    each = TransformersEngine(model, tokenizer).draw(PROMPTS, options, KEYS)
    assert {StopReason.END, StopReason.STOP} <= set(each.stops)
    monkeypatch.setattr(SamplingState, "__init__", functools.partialmethod(SamplingState.__init__, block=block))
    seldom = TransformersEngine(model, tokenizer).draw(PROMPTS, options, KEYS)
    assert seldom.texts == each.texts
    assert seldom.stops == each.stops
    assert torch.equal(seldom.tokens_BT, each.tokens_BT)
    torch.testing.assert_close(seldom.logprobs_BT, each.logprobs_BT, atol=1e-5, rtol=1e-5)


def test_frequencies_follow_the_model():
    model, tokenizer = tiny.model(sharp=20.0), tiny.tokenizer()
    num = 4000
    samples = TransformersEngine(model, tokenizer).draw(
        ["ab"], SamplingOptions(num_samples=num, max_new_tokens=1, temperature=0.8), [(1, "frequency")]
    )
    counts = torch.bincount(samples.tokens_BT[:, 0], minlength=model.config.vocab_size).double()
    with torch.no_grad():
        probs = (model(torch.tensor(samples.prompts)).logits[0, -1] / 0.8).softmax(-1).double()
    is_common = probs * num > 5
    chi2 = ((counts - probs * num).square() / (probs * num))[is_common].sum()
    degrees = int(is_common.sum())
    # Mean and variance of χ² are d and 2d: five standard deviations on a fixed seed.
    assert abs(chi2 - degrees) < 5 * (2 * degrees) ** 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.floats(0.2, 2.0))
def test_nucleus_is_the_smallest_set_and_inversion_is_exact(seed, top_p, temperature):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 9, generator=generator) * 2
    probs = (logits[0] / temperature).double().softmax(-1)
    order = probs.argsort(descending=True, stable=True)
    keep, mass = [], 0.0
    for token in order.tolist():  # by definition: add tokens until the mass is reached
        keep.append(token)
        mass += probs[token].item()
        if mass >= top_p - 1e-9:
            break
    grid = (torch.arange(2000).double() + 0.5) / 2000
    drawn, logprob = draw_token(logits.expand(2000, 9), grid, temperature, top_p)
    assert set(drawn.tolist()) <= set(keep)
    share = torch.bincount(drawn, minlength=9).double() / 2000
    for token in keep:
        assert abs(share[token] - probs[token] / mass) < 2e-3
    torch.testing.assert_close(logprob.double(), probs[drawn].log(), atol=1e-5, rtol=1e-5)


def test_uniform_at_the_edges_draws_a_possible_token():
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]]).expand(2, 5)
    token, _ = draw_token(logits, torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64), 1.0)
    assert token.tolist() == [1, 3]


@pytest.mark.parametrize("size", [4097, 35_201])
def test_a_large_vocabulary_gives_the_draws_of_the_whole_cumulative_sum(size):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, size, generator=generator) * 4
    logits[:, ::5] = logits[:, -700:] = float("-inf")  # whole blocks without weight, and the first and last tokens
    uniform = torch.rand(300, generator=generator, dtype=torch.float64)
    uniform[:2] = torch.tensor([0.0, 1.0 - 2**-53])
    token, logprob = draw_token(logits, uniform, 0.8)
    logprobs = (logits / 0.8).log_softmax(-1)
    cumulative = logprobs.exp().double().cumsum(-1)
    expected = torch.searchsorted(cumulative, uniform.unsqueeze(-1) * cumulative[:, -1:], right=True).squeeze(-1)
    assert torch.equal(token[2:], expected[2:])
    assert torch.equal(logprob, logprobs.gather(-1, token.unsqueeze(-1)).squeeze(-1))
    assert logprob.isfinite().all(), "a token without weight is never drawn"
