"""Adapters: what is written is what was trained, and whatever a run writes can be read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaptionPromptConfig,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import tiny
from bontune.base.errors import BontuneError
from bontune.models import load_model, resolve, weights_digest
from bontune.models.adapters import add_lora, merged_copy
from bontune.models.classifiers import load_classifier
from bontune.models.saving import save_model

IDS = torch.arange(3, 40).unsqueeze(0)
TARGETS = (["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"], ["q_proj", "lm_head"], "all-linear", "q_proj")


def adapted(family: str, targets: Any, *, layers: Any = None, **overrides: object) -> Any:
    """A model with adapters that do something."""
    model = add_lora(tiny.model(family, **overrides), r=4, alpha=8, targets=targets, layers=layers).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits.float()
        return found


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny.model().save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_the_written_model_is_what_was_trained(family: str, is_tied: bool, targets: Any, tmp_path: Path) -> None:
    model = adapted(family, targets, tie_word_embeddings=is_tied)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = logits(model)
    assert (wanted - logits(tiny.model(family, tie_word_embeddings=is_tied))).abs().max() > 0.005
    save_model(model, tiny.tokenizer(), tmp_path / "model", adapter=tmp_path / "adapter")
    found, _ = load_model(tmp_path / "model")
    assert torch.allclose(logits(found), wanted, atol=1e-4, rtol=1e-4)
    # The adapter beside it, on the model that it was made for.
    tiny.model(family, tie_word_embeddings=is_tied).save_pretrained(tmp_path / "base")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "base")}))
    again, tokenizer = load_model(tmp_path / "adapter")
    assert torch.allclose(logits(again), wanted, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name in again.state_dict())
    assert all(p.requires_grad for p in load_model(tmp_path / "model")[0].parameters())
    assert tokenizer("1+2")["input_ids"] == tiny.tokenizer()("1+2")["input_ids"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), "saving does not touch the live weights"


def test_merging_copies_only_what_adapters_change() -> None:
    model = adapted("qwen2", ["q_proj"])
    plain = merged_copy(model)
    ours = {p.data_ptr() for p in model.parameters()}
    new = [name for name, p in plain.named_parameters() if p.data_ptr() not in ours]
    assert new
    assert all("q_proj" in name for name in new)


def test_bfloat16_weights_are_not_moved_by_saving(tmp_path: Path) -> None:
    model = adapted("qwen2", "all-linear").to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(3):
        save_model(model, tiny.tokenizer(), tmp_path / "model")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_files_can_be_read_by_whom_the_umask_lets_and_keep_their_dtype(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save_model(tiny.model(), tiny.tokenizer(), tmp_path / "model", dtype=torch.bfloat16)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o640}
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    found, _ = load_model(tmp_path / "model", dtype="auto")
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.lm_head.weight, tiny.model().lm_head.weight.to(torch.bfloat16))


def test_half_precision_is_computed_in_float32_where_the_cpu_has_no_units(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tiny.model(), tiny.tokenizer(), saved / "half", dtype=torch.bfloat16)
    monkeypatch.setattr("bontune.models.precision._capabilities", dict)
    with pytest.warns(UserWarning, match="stored in bfloat16.*computed in float32"):
        model, _ = load_model(saved / "half")
    assert model.dtype == torch.float32
    monkeypatch.setattr("bontune.models.precision._capabilities", lambda: {"avx512_bf16": True})
    assert load_model(saved / "half")[0].dtype == torch.bfloat16
    assert load_model(saved / "base")[0].dtype == torch.float32


def test_an_adapter_finds_its_base_from_any_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("qwen2", "all-linear")
    save_model(model, tiny.tokenizer(), saved / "run" / "model", adapter=saved / "run" / "adapter", base="../../base")
    (saved / "elsewhere").mkdir()
    monkeypatch.chdir(saved / "elsewhere")
    found, _ = load_model("../run/adapter")
    assert torch.allclose(logits(found), logits(model), atol=1e-4, rtol=1e-4)
    first = weights_digest("../run/adapter")
    tiny.model(seed=5).save_pretrained(saved / "base")
    assert weights_digest("../run/adapter") != first, "another base is another model"


def test_a_runs_folder_stands_for_its_model(saved: Path) -> None:
    (saved / "run").mkdir()
    (saved / "run" / "recipe.yaml").write_text("model: countdown-tiny\n")
    with pytest.raises(BontuneError, match=r"has written no model yet: `bontune train .*run` resumes"):
        resolve(saved / "run")
    save_model(tiny.model(), tiny.tokenizer(), saved / "run" / "model")
    assert resolve(saved / "run") == str(saved / "run" / "model")
    (saved / "nothing").mkdir()
    with pytest.raises(BontuneError, match="nothing contains no model"):
        resolve(saved / "nothing")


def test_an_adapter_without_a_base_is_refused_in_a_sentence(saved: Path) -> None:
    save_model(adapted("qwen2", "q_proj"), tiny.tokenizer(), saved / "model", adapter=saved / "adapter")
    config = saved / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(BontuneError, match="does not say which model it adapts: write its folder"):
        load_model(saved / "adapter")


@pytest.mark.parametrize(
    ("targets", "phrase"),
    [
        (["q_prj"], "no module 'q_prj', did you mean 'q_proj'.*down_proj.*and all-linear"),
        ("qproj", "no module 'qproj', did you mean 'q_proj'"),
        (["q_proj", "self_attn"], "'self_attn' is a Qwen2Attention, which takes no adapter"),
        (["input_layernorm"], "'input_layernorm' is a Qwen2RMSNorm"),
        ([], "name at least one module"),
    ],
)
def test_targets_that_are_no_modules(targets: Any, phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        add_lora(tiny.model(), r=4, alpha=8, targets=targets)


@pytest.mark.parametrize("targets", ["all-linear", ["embed_tokens", "q_proj", "lm_head"]], ids=str)
@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2"])
def test_adapters_are_on_the_chosen_layers_alone_and_load_by_peft(family: str, targets: Any, tmp_path: Path) -> None:
    model = adapted(family, targets, layers=[1])
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names
    assert all(".layers.1." in name and "lora_" in name for name in names)
    assert any(".q_proj." in name for name in names)
    assert any(".down_proj." in name for name in names) == (targets == "all-linear")
    save_model(model, tiny.tokenizer(), tmp_path / "model", adapter=tmp_path / "adapter")
    again = PeftModel.from_pretrained(tiny.model(family), tmp_path / "adapter").eval()
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize(
    ("targets", "layers", "phrase"),
    [
        ("all-linear", [0, 2], "training.lora.layers: the model has no layer 2; its layers are 0 to 1"),
        (["lm_head"], [1], "none of the targets is in the chosen layers"),
    ],
)
def test_layers_that_cannot_be_adapted(targets: Any, layers: list[int], phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        add_lora(tiny.model(), r=4, alpha=8, targets=targets, layers=layers)


@pytest.mark.parametrize(
    "odd", [{"temperature": 0.9, "do_sample": False}, {"length_penalty": 2.0}, {"pad_token_id": -1}]
)
def test_a_generation_config_that_transformers_reads_but_does_not_write(odd: dict[str, Any], tmp_path: Path) -> None:
    model = tiny.model()
    for name, value in odd.items():
        setattr(model.generation_config, name, value)
    config = model.generation_config
    save_model(model, tiny.tokenizer(), tmp_path / "model")
    assert model.generation_config is config
    found, _ = load_model(tmp_path / "model")
    assert {name: getattr(found.generation_config, name) for name in odd} == odd
    assert found.generation_config.eos_token_id == config.eos_token_id


# ---- adapters of other tools ----


def moved(model: Any) -> Any:
    """The model with everything that it trains moved by a little, from a seed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


GROWN: dict[str, dict[str, Any]] = {
    "rows": {"target_modules": ["q_proj"]},
    "whole embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "adapted embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "adapted head": {"target_modules": ["q_proj", "lm_head"]},
    "new tokens": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [84, 85]}},
}


@pytest.mark.parametrize("multiple", [None, 64])
@pytest.mark.parametrize("kind", GROWN)
def test_an_adapter_made_after_tokens_were_added_is_read(kind: str, multiple: int | None, saved: Path) -> None:
    """The base has fewer rows than the tokenizer of the adapter has tokens; some tools pad rows to a multiple."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<user>", "<assistant>"])
    base, _ = load_model(saved / "base")
    base.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=multiple)
    adapted = moved(get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **GROWN[kind])))
    adapted.peft_config["default"].base_model_name_or_path = str(saved / "base")
    adapted.save_pretrained(saved / "adapter", save_embedding_layers=True)
    tokenizer.save_pretrained(saved / "adapter")
    found, read = load_model(saved / "adapter")
    ids = torch.tensor([read("1+2<user>3<assistant>")["input_ids"]])
    assert ids.max() == len(tokenizer) - 1
    with torch.no_grad():
        torch.testing.assert_close(found(input_ids=ids).logits, adapted(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


def test_tokens_without_rows_are_warned_of_and_the_same_each_time(saved: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<user>", "<assistant>"])
    save_model(
        adapted("qwen2", ["q_proj"]), tokenizer, saved / "m", adapter=saved / "adapter", base=str(saved / "base")
    )
    with pytest.warns(UserWarning, match="has 2 tokens more than its base model, and the adapter does not contain"):
        first, _ = load_model(saved / "adapter")
    with pytest.warns(UserWarning, match="they are the mean of the others"):
        second, _ = load_model(saved / "adapter")
    assert len(first.get_input_embeddings().weight) == len(tokenizer)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("beside", ["config", "base", "merged"])
def test_an_adapter_with_model_files_beside_it_is_the_merged_adapter(beside: str, saved: Path) -> None:
    model = adapted("qwen2", ["q_proj", "v_proj"])
    wanted = logits(model)
    base = saved / "base" if beside != "base" else saved / "adapter"
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(saved / "adapter")
    tiny.tokenizer().save_pretrained(saved / "adapter")
    if beside == "config":
        tiny.model().config.save_pretrained(saved / "adapter")
    else:
        (tiny.model() if beside == "base" else merged_copy(model)).save_pretrained(saved / "adapter")
    first = weights_digest(saved / "adapter")  # type: ignore[arg-type]
    assert torch.allclose(logits(load_model(saved / "adapter")[0]), wanted, atol=1e-4, rtol=1e-4)
    assert first == weights_digest(saved / "adapter")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "config",
    [
        IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"]),
        LoHaConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], use_dora=True, use_rslora=True),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_other_adapters_that_can_be_merged_are_read(config: Any, saved: Path) -> None:
    model = moved(get_peft_model(load_model(saved / "base")[0], config))
    model.peft_config["default"].base_model_name_or_path = str(saved / "base")
    model.save_pretrained(saved / "adapter")
    wanted = logits(model)
    assert (wanted - logits(tiny.model())).abs().max() > 1e-3
    assert torch.allclose(logits(load_model(saved / "adapter")[0]), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=8),
        AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=4, adapter_layers=1),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_adapters_that_are_no_change_of_weights_are_refused(config: Any, saved: Path) -> None:
    family = "llama" if isinstance(config, AdaptionPromptConfig) else "qwen2"
    tiny.model(family).save_pretrained(saved / "base")
    model = get_peft_model(tiny.model(family), config)
    model.peft_config["default"].base_model_name_or_path = str(saved / "base")
    model.save_pretrained(saved / "adapter")
    with pytest.raises(BontuneError, match=f"of the kind {config.peft_type.value}, which cannot be merged"):
        load_model(saved / "adapter")


def test_an_adapter_on_the_hub_is_merged(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client finds what it fetched before in its cache."""
    model = adapted("qwen2", ["q_proj"])
    cache = saved / "cache"
    commit = cache / "models--me--mine" / "snapshots" / ("0" * 40)
    save_model(model, tiny.tokenizer(), saved / "m", adapter=commit, base=str(saved / "base"))
    (cache / "models--me--mine" / "refs").mkdir()
    (cache / "models--me--mine" / "refs" / "main").write_text("0" * 40)
    for name in ("huggingface_hub.constants.HF_HUB_CACHE", "transformers.utils.hub.PYTORCH_PRETRAINED_BERT_CACHE"):
        monkeypatch.setattr(name, str(cache), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found, _ = load_model("me/mine")
    assert torch.allclose(logits(found), logits(model), atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name in found.state_dict())


# ---- sequence classifiers ----


def test_an_adapter_of_a_classifier_is_its_score(saved: Path) -> None:
    """The base is a language model, whose config names two labels; the adapter holds the head with one."""
    torch.manual_seed(3)
    base = AutoModelForSequenceClassification.from_pretrained(saved / "base", num_labels=1)
    model = moved(get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules="all-linear")))
    model.save_pretrained(saved / "adapter")
    found, tokenizer = load_classifier(saved / "adapter")
    assert found.config.num_labels == 1
    assert tokenizer("1+2")["input_ids"] == tiny.tokenizer()("1+2")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(found(input_ids=IDS).logits, model(input_ids=IDS).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(BontuneError, match="is an adapter of a verifier"):
        load_model(saved / "adapter")


@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
def test_what_an_adapter_was_made_on_is_read_from_it(task: str | None, saved: Path) -> None:
    """Some tools name no task; then a head among the weights tells a classifier."""
    for name, kind in (("lm", AutoModelForCausalLM), ("rm", AutoModelForSequenceClassification)):
        options = {"num_labels": 1} if name == "rm" else {}
        saves = ["score"] if name == "rm" else ["o_proj"]
        config = LoraConfig(task_type=task if name == "lm" else None, target_modules=["q_proj"], modules_to_save=saves)
        model = moved(get_peft_model(kind.from_pretrained(saved / "base", **options), config))
        model.save_pretrained(saved / name)
        load = load_model if name == "lm" else load_classifier
        with torch.no_grad():
            found = load(saved / name)[0](input_ids=IDS).logits
            torch.testing.assert_close(found, model(input_ids=IDS).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"], ["embed_tokens"]], ids=str)
def test_a_classifier_is_made_of_a_language_models_adapter(targets: list[str], saved: Path) -> None:
    """A new head on the merged model: its last hidden state is that of the model with the adapter."""
    model = adapted("qwen2", targets)
    save_model(model, tiny.tokenizer(), saved / "m", adapter=saved / "adapter", base=str(saved / "base"))
    with pytest.raises(BontuneError, match=r"is not a verifier: it contains no trained score\.weight"):
        load_classifier(saved / "adapter")
    found, _ = load_classifier(saved / "adapter", new_head=True)
    assert found.config.num_labels == 1
    assert all(p.requires_grad for p in found.parameters())
    with torch.no_grad():
        wanted = merged_copy(model).model(input_ids=IDS).last_hidden_state
        torch.testing.assert_close(found.model(input_ids=IDS).last_hidden_state, wanted, atol=1e-5, rtol=1e-5)
