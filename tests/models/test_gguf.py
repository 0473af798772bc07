"""GGUF files as models: loaded dequantised, trained, and refused in one sentence where they cannot be read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import bontune.models.gguf as reading
import tiny
from bontune.base.errors import BontuneError
from bontune.config import load_recipe
from bontune.models import load_model, load_tokenizer, resolve, weights_digest
from bontune.models.precision import check_trainable, saved_dtype
from bontune.training.trainer import Trainer

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")


def _byte_tokens() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small Llama as a GGUF file in 16 bits, made with the package's own writer, and the model it was made from."""
    tokens = [*_byte_tokens(), "12", "<|endoftext|>", "<|end|>"]  # transformers adds the second to a file without it
    model = tiny.model("llama", vocab_size=len(tokens), eos_token_id=len(tokens) - 1, pad_token_id=len(tokens) - 1)
    config = model.config
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["1 2"])
    writer.add_eos_token_id(len(tokens) - 1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        values = tensor
        for kind, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if kind in name:  # llama.cpp stores the two halves of rotary dimensions interleaved
                values = tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        array = values.numpy().astype("float32" if values.ndim == 1 else "float16")
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, model


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 60)[None]).logits


def test_a_file_is_loaded_dequantised(written: tuple[Path, Any]) -> None:
    path, original = written
    model, tokenizer = load_model(path)
    for parameter in original.parameters():
        parameter.data = parameter.data.half().float() if parameter.ndim > 1 else parameter.data
    assert torch.equal(_logits(model), _logits(original))
    assert saved_dtype(path) is torch.float32 is model.dtype
    assert load_model(path, dtype="bfloat16")[0].dtype is torch.bfloat16
    assert load_tokenizer(path)("12 é")["input_ids"] == tokenizer("12 é")["input_ids"]
    assert tokenizer.decode(tokenizer("12 é")["input_ids"]) == "12 é"
    assert resolve(path) == str(path)


def test_another_files_weights_have_another_digest(written: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = written
    shutil.copy(path, tmp_path / "same.gguf")
    changed = bytearray(path.read_bytes())
    changed[-8] ^= 1
    (tmp_path / "other.gguf").write_bytes(changed)
    digests = [weights_digest(str(p)) for p in (path, tmp_path / "same.gguf", tmp_path / "other.gguf")]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("lora", ["null", "{r: 2}"])
def test_a_run_writes_a_plain_folder(lora: str, written: tuple[Path, Any], tmp_path: Path) -> None:
    """Its model is read back without the GGUF file's options; its adapter names the file as its base."""
    path, _ = written
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(4)))
    run = tmp_path / "run"
    recipe = load_recipe(
        "own",
        [
            f"model={path}",
            f"task.data={rows}",
            f"run={run}",
            f"training.lora={lora}",
            "training.steps=1",
            "training.prompts_per_step=2",
            "training.first_step_kl=null",
            "sampling.samples=4",
            "objective.n=2",
            "sampling.max_new_tokens=4",
            "eval.every=0",
        ],
    )
    trainer = Trainer(recipe, is_quiet=True)
    trainer.train()
    config = json.loads((run / "model" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "float32"
    folder, _ = load_model(run)
    if lora != "null":
        adapter = json.loads((run / "adapter" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str(path)
        assert torch.equal(_logits(load_model(run / "adapter")[0]), _logits(folder))


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"", "is no GGUF file"),
        (b"hello, world", "is no GGUF file"),
        (b"GGUF\x03\0", "may be cut short"),
        (None, "no GGUF"),
    ],
)
def test_what_is_no_whole_file(content: bytes | None, phrase: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BontuneError, match=phrase) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short(share: float, written: tuple[Path, Any], tmp_path: Path) -> None:
    content = written[0].read_bytes()
    (tmp_path / "model.gguf").write_bytes(content[: int(share * len(content))])
    with pytest.raises(BontuneError, match="may be cut short"):
        load_model(tmp_path / "model.gguf")


def test_an_architecture_that_is_not_known(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "foonet")
    writer.add_block_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BontuneError, match=r"an architecture that transformers does not read .*foonet"):
        load_model(tmp_path / "model.gguf")


def test_without_the_package_the_extra_is_named(written: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "find_spec", lambda name: None)
    with pytest.raises(BontuneError, match=r"pip install 'bontune\[gguf\]'"):
        load_model(written[0])


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_quantised_weights_are_not_trained(method: str, tmp_path: Path) -> None:
    folder = tmp_path / "quantised"
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    check_trainable(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": method}}))
    (folder / "model.safetensors").unlink()  # it is refused before any weights are looked for
    recipe = load_recipe("countdown", [f"model={folder}", f"run={tmp_path / 'run'}"])
    with pytest.raises(BontuneError, match=rf"are quantised \({method}\) and cannot be trained"):
        Trainer(recipe, is_quiet=True)


SMOLLM2 = os.environ.get("BONTUNE_SMOLLM2", "")


@pytest.mark.skipif(not Path(SMOLLM2).is_file(), reason="BONTUNE_SMOLLM2 names no GGUF file of SmolLM2")
def test_smollm2_is_the_same_from_its_file_and_from_a_folder(tmp_path: Path) -> None:
    model, tokenizer = load_model(SMOLLM2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    folder, read = load_model(tmp_path)
    assert torch.equal(_logits(model), _logits(folder))
    text = tokenizer.apply_chat_template([{"role": "user", "content": "What is 12 + 30?"}], tokenize=False)
    assert read(text)["input_ids"] == tokenizer(text)["input_ids"]
