"""Contract of the engine:

1. the kept log-probabilities are those of the plain model on prompt + completion;
2. a prompt's samples do not depend on the batch, the token budget or the number of samples drawn;
3. samples follow the model's distribution at the given temperature, and the nucleus at the given top-p;
4. completions end at the end token, at a stop string or at the length limit, and say which.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from bontune.base.errors import BontuneError, Interrupted
from bontune.engines.contract import SamplingOptions, StopReason
from bontune.engines.transformers import TransformersEngine, draw_token

PROMPTS = ["3,7,2,9:45=", "a", "what is 12+30?", "xyz" * 9]
KEYS = [(0, "test", i) for i in range(len(PROMPTS))]


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_the_plain_models(family, temperature):
    model, tokenizer = tiny.model(family), tiny.tokenizer()
    options = SamplingOptions(num_samples=5, max_new_tokens=12, temperature=temperature)
    samples = TransformersEngine(model, tokenizer).draw(PROMPTS, options, KEYS)
    for b in range(len(PROMPTS) * 5):
        prompt, length = samples.prompts[b // 5], int(samples.lengths_B[b])
        ids = torch.tensor([prompt + samples.tokens_BT[b, :length].tolist()])
        with torch.no_grad():
            plain = (model(ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
        expected = plain.gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)
        torch.testing.assert_close(samples.logprobs_BT[b, :length], expected, atol=2e-5, rtol=0)
        assert (samples.logprobs_BT[b, length:] == 0).all()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_prompts_samples_do_not_depend_on_the_batch(family):
    model, tokenizer = tiny.model(family), tiny.tokenizer()
    options = SamplingOptions(num_samples=6, max_new_tokens=16)
    whole = TransformersEngine(model, tokenizer).draw(PROMPTS, options, KEYS)
    alone = [TransformersEngine(model, tokenizer).draw([p], options, [k]) for p, k in zip(PROMPTS, KEYS, strict=True)]
    tight = TransformersEngine(model, tokenizer, token_budget=64).draw(PROMPTS, options, KEYS)
    fewer = TransformersEngine(model, tokenizer).draw(PROMPTS, SamplingOptions(num_samples=2, max_new_tokens=16), KEYS)
    assert whole.texts == [a.texts[0] for a in alone] == tight.texts
    assert [t[:2] for t in whole.texts] == fewer.texts
    torch.testing.assert_close(whole.tokens_BT, tight.tokens_BT)
    assert whole.texts[0] != whole.texts[1]


def test_shorter_limit_gives_prefixes():
    model, tokenizer = tiny.model(), tiny.tokenizer()
    long = TransformersEngine(model, tokenizer).draw(PROMPTS, SamplingOptions(num_samples=4, max_new_tokens=20), KEYS)
    short = TransformersEngine(model, tokenizer).draw(PROMPTS, SamplingOptions(num_samples=4, max_new_tokens=7), KEYS)
    assert torch.equal(long.tokens_BT[:, :7], short.tokens_BT)


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


def test_temperature_zero_is_greedy():
    model, tokenizer = tiny.model(), tiny.tokenizer()
    samples = TransformersEngine(model, tokenizer).draw(
        PROMPTS[:1], SamplingOptions(num_samples=3, max_new_tokens=8, temperature=0), KEYS[:1]
    )
    greedy = model.generate(torch.tensor(samples.prompts), max_new_tokens=8, do_sample=False)
    expected = greedy[0, len(samples.prompts[0]) :]
    assert all(torch.equal(row[: len(expected)], expected) for row in samples.tokens_BT)


def test_stop_strings_and_reasons():
    model, tokenizer = tiny.model(), tiny.tokenizer()
    free = TransformersEngine(model, tokenizer).draw(PROMPTS, SamplingOptions(num_samples=32, max_new_tokens=24), KEYS)
    stop = ("a", "7b", "Z+")
    stopped = TransformersEngine(model, tokenizer).draw(
        PROMPTS, SamplingOptions(num_samples=32, max_new_tokens=24, stop=stop), KEYS
    )
    seen = set()
    for b, reason in enumerate(stopped.stops):
        text, full = stopped.texts[b // 32][b % 32], free.texts[b // 32][b % 32]
        cut = min((full.find(s) for s in stop if s in full), default=None)
        assert text == (full if cut is None else full[:cut])
        assert reason == (free.stops[b] if cut is None else StopReason.STOP)
        if free.stops[b] is StopReason.END and cut is None:
            assert stopped.tokens_BT[b, stopped.lengths_B[b] - 1] == tokenizer.eos_token_id
        seen.add(reason)
    assert StopReason.STOP in seen
    assert StopReason.LENGTH in seen


def test_end_token_ends():
    model, tokenizer = tiny.model(), tiny.tokenizer()
    samples = TransformersEngine(model, tokenizer).draw(
        PROMPTS, SamplingOptions(num_samples=64, max_new_tokens=40), KEYS
    )
    assert StopReason.END in samples.stops
    for tokens, length, reason in zip(samples.tokens_BT, samples.lengths_B.tolist(), samples.stops, strict=True):
        ends = (tokens[:length] == 1).nonzero().flatten().tolist()
        assert ends == ([length - 1] if reason is StopReason.END else [])


def test_bad_input_is_one_clear_sentence():
    model, tokenizer = tiny.model(max_position_embeddings=20), tiny.tokenizer()
    engine = TransformersEngine(model, tokenizer)
    with pytest.raises(BontuneError, match="context of 20"):
        engine.draw(["a" * 10], SamplingOptions(num_samples=1, max_new_tokens=11), [(0,)])
    with pytest.raises(BontuneError, match="no tokens"):
        engine.draw([""], SamplingOptions(num_samples=1, max_new_tokens=3), [(0,)])
    for bad in ({"num_samples": 0}, {"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0.0}, {"stop": ("",)}):
        with pytest.raises(BontuneError, match=next(iter(bad)).replace("stop", "stop strings")):
            SamplingOptions(**({"num_samples": 1, "max_new_tokens": 1} | bad))


def test_poll_interrupts_between_tokens():
    calls = []

    def poll():
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted

    model, tokenizer = tiny.model(), tiny.tokenizer()
    with pytest.raises(Interrupted):
        TransformersEngine(model, tokenizer).draw(PROMPTS, SamplingOptions(num_samples=2, max_new_tokens=9), KEYS, poll)
    assert len(calls) == 3
