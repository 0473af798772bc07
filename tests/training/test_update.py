"""Contract of the update:

1. the gradient equals that of the plain computation of −(1/PM) Σ A·log π + β·KL to 1e-5, for each model family, with
   the prompt shared or not, whatever the micro-batch and the logits chunk;
2. samples of zero advantage outside the KL share are skipped, and that changes nothing;
3. the anchor follows θ with its rate and shares frozen weights; with LoRA too.
"""

from functools import partial

import pytest
import torch
from accelerate import Accelerator

import tiny
from bontune import Recipe
from bontune.base.errors import BontuneError, RunStopped
from bontune.engines.contract import SamplingOptions
from bontune.engines.transformers import TransformersEngine
from bontune.models.adapters import decoder_layers
from bontune.training import losses
from bontune.training.anchor import Anchor
from bontune.training.forward import CausalLM, Rows, disable_dropout
from bontune.training.setup import make_policy
from bontune.training.update import Updater

PROMPTS = ["3,7,2,9:45=", "a", "what is 12+30?"]
M = 6


def with_lora(model, targets="all-linear", layers=None):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, layers_to_transform=layers, init_lora_weights=False)
    return get_peft_model(model, config).eval()


def perturb(model, scale=0.02, seed=5):
    """Move the policy off its anchor, so that the KL and its gradient are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator) * scale)


def set_up(
    family,
    *,
    lora=False,
    layers=None,
    share_prompt=True,
    token_budget=10_000,
    temperature=0.9,
    kl_share=0.5,
    trained=None,
):
    model, tokenizer = tiny.model(family, sharp=4.0), tiny.tokenizer()
    model = with_lora(model, "all-linear" if lora is True else lora, layers) if lora else model
    if trained is not None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = trained in name
    samples = TransformersEngine(model, tokenizer).draw(
        PROMPTS, SamplingOptions(num_samples=M, max_new_tokens=10, temperature=temperature), [(i,) for i in range(3)]
    )
    lm = CausalLM(model, pad=0, share_prompt=share_prompt)
    anchor = Anchor(model, 0.1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    updater = Updater(
        lm,
        optimizer,
        anchor,
        Accelerator(cpu=True),
        temperature=temperature,
        token_budget=token_budget,
        kl_share=kl_share,
        max_grad_norm=1.0,
    )
    return model, samples, updater, anchor


def plain_gradient(model, samples, anchor, advantages_PM, beta, temperature, num_kl):
    """Row by row, whole sequences, whole logits, no cache: the definition."""
    model.zero_grad(set_to_none=True)
    loss = torch.zeros(())
    num_prompts = len(samples.prompts)
    for b, (tokens, length) in enumerate(zip(samples.tokens_BT, samples.lengths_B.tolist(), strict=True)):
        prompt = samples.prompts[b // M]
        ids = torch.tensor([prompt + tokens[:length].tolist()])
        logp = (model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float() / temperature).log_softmax(-1)
        loss = loss - advantages_PM.flatten()[b] * logp.gather(-1, tokens[:length, None]).sum() / (num_prompts * M)
        if b % M < num_kl:
            own = {name: p.data for name, p in model.named_parameters() if name in anchor.tensors}
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if name in own:
                        p.data = anchor.tensors[name]
                ref = (model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float() / temperature).log_softmax(
                    -1
                )
                for name, p in model.named_parameters():
                    if name in own:
                        p.data = own[name]
            loss = loss + beta * (logp.exp() * (logp - ref)).sum() / (num_prompts * num_kl)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def advantages(zeros=False):
    values = torch.randn(3, M, generator=torch.Generator().manual_seed(1))
    if zeros:
        values[:, ::2] = 0.0
    return values


def assert_same_gradient(model, expected, tolerance=1e-5):
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert ours.keys() == expected.keys()
    size = torch.sqrt(sum((g**2).sum() for g in expected.values()))
    gap = torch.sqrt(sum(((ours[n] - g) ** 2).sum() for n, g in expected.items()))
    assert gap <= tolerance * size, f"relative difference {gap / size:.2e}"


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradient_is_the_plain_one(family, share_prompt, lora, monkeypatch):
    model, samples, updater, anchor = set_up(family, lora=lora, share_prompt=share_prompt)
    perturb(model)
    loss, expected = plain_gradient(model, samples, anchor, advantages(), 0.3, 0.9, num_kl=3)
    model.zero_grad(set_to_none=True)
    sums = updater.accumulate(samples, advantages(), kl_coef=0.3, num_prompts=3)
    assert sums.policy + 0.3 * sums.kl == pytest.approx(loss, rel=1e-5)
    assert sums.kl > 0.01
    assert_same_gradient(model, expected)


@pytest.mark.parametrize(
    "part",
    [
        {"lora": ["q_proj", "v_proj"]},
        {"lora": ["q_proj"]},
        {"lora": ["k_proj"]},
        {"lora": ["o_proj", "down_proj"]},
        {"lora": ["lm_head"]},
        {"lora": ["embed_tokens"]},
        {"lora": ["q_proj", "k_proj", "down_proj"], "layers": [1]},
        {"lora": ["o_proj"], "layers": [0]},
        {"trained": "layers.1"},
        {"trained": "layers.0.self_attn.q_proj"},
        {"trained": "layers.0.mlp"},
        {"trained": "norm"},
        {"trained": "embed_tokens"},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_gradient_of_a_partly_frozen_model_is_the_plain_one(family, part):
    model, samples, updater, anchor = set_up(family, **part)
    perturb(model)
    _, expected = plain_gradient(model, samples, anchor, advantages(), 0.3, 0.9, num_kl=3)
    model.zero_grad(set_to_none=True)
    updater.accumulate(samples, advantages(), kl_coef=0.3, num_prompts=3)
    assert_same_gradient(model, expected)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_no_gradient_is_computed_below_the_lowest_adapter(family, checkpointing, tmp_path):
    recipe = Recipe.from_dict(
        {
            "run": str(tmp_path),
            "training": {"lora": {"r": 4, "layers": 1}, "gradient_checkpointing": checkpointing, "device": "cpu"},
        }
    )
    model, tokenizer, lm = make_policy(recipe, tiny.model(family), tiny.tokenizer(), Accelerator(cpu=True))
    perturb(model)
    samples = TransformersEngine(model, tokenizer).draw(
        PROMPTS, SamplingOptions(num_samples=M, max_new_tokens=10), [(i,) for i in range(3)]
    )
    layers = decoder_layers(model)[1]
    seen = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out))
    prefix = lm.encode(samples.prompts)
    lm.hidden(prefix.as_leaf(), Rows.of(samples))
    assert [out.requires_grad for out in seen] == [False, True] * (len(seen) // 2)
    assert len(seen) == (2 if checkpointing else 4)


@pytest.mark.parametrize("token_budget", [1, 40, 97, 400])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_gradient_does_not_depend_on_the_budgets(token_budget, chunk, monkeypatch):
    model, samples, updater, _ = set_up("gemma2", token_budget=token_budget)
    perturb(model)
    monkeypatch.setattr(
        losses.backward_through_head,
        "__kwdefaults__",
        losses.backward_through_head.__kwdefaults__ | {"chunk_elements": chunk * model.config.vocab_size},
    )
    updater.accumulate(samples, advantages(), kl_coef=0.3, num_prompts=3)
    tight = {name: p.grad.clone() for name, p in model.named_parameters()}
    model, samples, updater, _ = set_up("gemma2", token_budget=10**6)
    perturb(model)
    updater.accumulate(samples, advantages(), kl_coef=0.3, num_prompts=3)
    assert_same_gradient(model, tight)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_zero_advantages_are_skipped_without_a_trace(beta):
    model, samples, updater, anchor = set_up("llama")
    perturb(model)
    _, expected = plain_gradient(model, samples, anchor, advantages(zeros=True), beta, 0.9, num_kl=3)
    model.zero_grad(set_to_none=True)
    sums = updater.accumulate(samples, advantages(zeros=True), kl_coef=beta, num_prompts=3)
    assert_same_gradient(model, expected)
    computed = sum(int(n) for b, n in enumerate(samples.lengths_B) if (b % M) % 2 == 1 or (beta > 0 and b % M < 3))
    assert sums.tokens == computed


def test_micro_batches_keep_to_the_budget(monkeypatch):
    _, samples, updater, _ = set_up("qwen2", token_budget=60)
    lengths = samples.lengths_B
    buckets = list(updater._buckets(lengths, 11))
    assert sorted(torch.cat(buckets).tolist()) == list(range(3 * M))
    for rows in buckets:
        assert len(rows) == 1 or len(rows) * (11 + int(lengths[rows].max())) <= 60
    assert any(len(rows) > 1 for rows in buckets)
    assert [p.tolist() for p in updater._prompt_groups(samples, torch.ones(3 * M, dtype=torch.bool))] == [[0, 1, 2]]
    updater.token_budget = 20
    assert [p.tolist() for p in updater._prompt_groups(samples, torch.ones(3 * M, dtype=torch.bool))] == [[0], [1], [2]]


def test_buckets_bound_the_padding(monkeypatch):
    from bontune.training import update

    _, _, updater, _ = set_up("qwen2", token_budget=10**6)
    monkeypatch.setattr(update, "PADDING", 50)
    lengths = torch.randint(1, 40, (300,), generator=torch.Generator().manual_seed(0))
    buckets = list(updater._buckets(lengths, 11))
    assert sorted(torch.cat(buckets).tolist()) == list(range(300))
    wasted = [int((lengths[rows].max() - lengths[rows]).sum()) for rows in buckets]
    assert max(wasted) <= 50
    assert len(buckets) < 60


def test_gradient_checkpointing_gives_the_same_gradient():
    model, samples, updater, _ = set_up("qwen2")
    perturb(model)
    updater.accumulate(samples, advantages(), kl_coef=0.3, num_prompts=3)
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model, samples, updater, _ = set_up("qwen2", share_prompt=False)
    perturb(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    disable_dropout(model)
    model.train()
    updater.accumulate(samples, advantages(), kl_coef=0.3, num_prompts=3)
    assert_same_gradient(model, expected)


@pytest.mark.parametrize("share_prompt", [True, False])
def test_bf16_computes_policy_and_anchor_each_with_its_own_weights(share_prompt):
    """Autocast keeps the bf16 values of weights; the anchor's are not the policy's."""
    found = []
    for is_bf16 in (False, True):
        model, samples, updater, _ = set_up("qwen2", share_prompt=share_prompt, token_budget=60)
        updater.accelerator.autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=is_bf16)
        perturb(model)
        sums = updater.accumulate(samples, advantages(), kl_coef=0.3, num_prompts=3)
        found.append((sums.kl, {name: p.grad.clone() for name, p in model.named_parameters()}))
    (kl, expected), (kl_bf16, _) = found
    assert kl_bf16 == pytest.approx(kl, rel=0.05)
    assert_same_gradient(model, expected, tolerance=0.05)


@pytest.mark.parametrize("lora", [False, True])
def test_anchor_is_the_moving_average(lora):
    model, samples, updater, anchor = set_up("qwen2", lora=lora)
    start = {name: t.clone() for name, t in anchor.tensors.items()}
    assert all(("lora" in name) == lora for name in start)
    updater.step(samples, advantages(), kl_coef=0.1, num_prompts=3)
    for name, parameter in model.named_parameters():
        if name in start:
            torch.testing.assert_close(anchor.tensors[name], 0.9 * start[name] + 0.1 * parameter.data)
    inside = {}
    with anchor.in_place_of_policy():
        inside = {name: p.data.clone() for name, p in model.named_parameters() if name in start}
    assert all(torch.equal(inside[name], anchor.tensors[name]) for name in start)


def test_step_improves_what_it_was_told_to():
    _, samples, updater, _ = set_up("qwen2")
    a = advantages()
    before = updater.accumulate(samples, a, kl_coef=0.0, num_prompts=3).policy
    for _ in range(5):
        updater.step(samples, a, kl_coef=0.0, num_prompts=3)
    assert updater.accumulate(samples, a, kl_coef=0.0, num_prompts=3).policy < before - 0.01


@pytest.mark.parametrize("poison", ["advantage", "weight"])
def test_non_finite_stops_before_the_update(poison):
    model, samples, updater, _ = set_up("qwen2")
    a = advantages()
    if poison == "advantage":
        a[0, 0] = float("nan")
    else:
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight[0, 0] = float("inf")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(RunStopped, match="not both finite"):
        updater.step(samples, a, kl_coef=0.1, num_prompts=3)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_a_model_with_a_head_of_its_own_is_refused():
    model = tiny.model("qwen2")
    plain = model.forward

    def scaled(*args, **kwargs):
        out = plain(*args, **kwargs)
        out.logits = out.logits * 3
        return out

    model.forward = scaled
    with pytest.raises(BontuneError, match="computes its logits in a way of its own"):
        CausalLM(model, pad=0)
