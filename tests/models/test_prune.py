"""Pruned vocabularies: what is kept against a trace of every merge, and what is computed against the model before."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

import bontune.models.prune as pruning
import shared_data
import tiny
from bontune.base.errors import BontuneError
from bontune.models import load_model, load_tokenizer
from bontune.models.prune import Pruned, prune_vocabulary
from bontune.tasks.reading import read_texts

CORPUS = ["Natalia sold 12 clips.", "the mother of the brothers", "café", "  the\n\nother"]
ELSEWHERE = ["Yesterday babysitting feathers", "Ωmega ∑ 🙂 \x00", "tabs\tand\r\nlines", ""]


def with_fallback() -> PreTrainedTokenizerFast:
    """A BPE over characters, in the way of Gemma's: rare characters are bytes, and spaces are letters."""
    core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<|end|>", "<|start|>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    core.train_from_iterator(
        tiny.LEARNED[:3], trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    )
    tree = json.loads(core.to_str())
    tree["added_tokens"] = tree["added_tokens"][:4]  # the bytes are plain tokens
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(tree)),
        bos_token="<|start|>",
        eos_token="<|end|>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def saved(tokenizer: Any, folder: Path, *, tied: bool = True, bias: bool = False, rows: int = 7) -> Path:
    """A model with a few rows more than the tokenizer has tokens."""
    ids = {"eos_token_id": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id if rows >= 0 else None}
    shape = {"vocab_size": len(tokenizer) + rows, "tie_word_embeddings": tied, "bos_token_id": tokenizer.bos_token_id}
    if bias:
        torch.manual_seed(0)
        config = PhiConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, **shape, **ids
        )
        model = PhiForCausalLM(config)
        torch.nn.init.normal_(model.lm_head.bias)
    else:
        model = tiny.model("llama", **shape, **ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def traced(tokenizer: Any, texts: Sequence[str]) -> set[str]:
    """Every piece that exists at any moment while these texts are merged, by the plainest BPE there is."""
    tree = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in tree["merges"]]
    seen: set[str] = set()
    core = tokenizer.backend_tokenizer
    for text in texts:
        normal = core.normalizer.normalize_str(text) if core.normalizer else text
        for word, _ in core.pre_tokenizer.pre_tokenize_str(normal):
            parts = list(word)
            seen.update(parts)
            while pairs := [(merges.index(p), i) for i, p in enumerate(zip(parts, parts[1:])) if p in merges]:  # noqa: B905, RUF007
                at = min(pairs)[1]
                parts = [*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :]]
                seen.update(parts)
    return seen & tree["vocab"].keys()


def pieces(tokenizer: Any, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def require_the_same(before: Path | str, folder: Path, texts: Sequence[str], done: Pruned) -> None:
    """Compare by the names of tokens: same pieces, same ids in the configs, same logits."""
    (old, was), (new, now) = load_model(before), load_model(folder)
    names = now.convert_ids_to_tokens(range(len(now)))
    assert len(now) == done.num_tokens == new.config.vocab_size == new.get_output_embeddings().weight.shape[0]
    assert done.num_parameters == sum(p.numel() for p in new.parameters())
    rows = was.convert_tokens_to_ids(names)
    for text in texts:
        assert pieces(was, text) == pieces(now, text)
        with torch.no_grad():
            expected = old(torch.tensor([was(text)["input_ids"]])).logits[..., rows]
            logits = new(torch.tensor([now(text)["input_ids"]])).logits
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        assert float((logits - expected).abs().max()) <= max(done.largest_difference, 1e-5)
    for config, other in ((old.config, new.config), (old.generation_config, new.generation_config)):
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            ids, others = getattr(config, key), getattr(other, key)
            assert names[others[0]] if isinstance(others, list) else others is None or names[others]
            assert was.convert_ids_to_tokens(ids) == now.convert_ids_to_tokens(others)
    assert (was.eos_token, was.bos_token, was.pad_token) == (now.eos_token, now.bos_token, now.pad_token)
    assert now.chat_template == was.chat_template


@pytest.mark.parametrize(("tied", "bias"), [(True, False), (False, False), (False, True)])
def test_the_corpus_is_computed_as_before(tied: bool, bias: bool, tmp_path: Path) -> None:
    tokenizer = tiny.byte_level()
    before = saved(tokenizer, tmp_path / "before", tied=tied, bias=bias)
    done = prune_vocabulary(before, CORPUS, tmp_path / "after")
    require_the_same(before, tmp_path / "after", CORPUS, done)
    assert done.num_tokens_before == len(tokenizer) + 7
    assert done.num_texts == len(CORPUS)
    assert not list(tmp_path.glob(".tmp*"))


def test_what_is_kept_is_what_the_merges_pass_through(tmp_path: Path) -> None:
    tokenizer = tiny.byte_level()
    before = saved(tokenizer, tmp_path / "before")
    prune_vocabulary(before, CORPUS, tmp_path / "after")
    special = {"<|end|>", "<|start|>", "<|pad|>"}
    expected = traced(tokenizer, CORPUS) | set(pre_tokenizers.ByteLevel.alphabet()) | special
    after = load_tokenizer(tmp_path / "after")
    assert set(after.get_vocab()) == expected
    assert sorted(after.get_vocab().values()) == list(range(len(expected)))
    assert len(expected) < len(tokenizer) - 100


def test_other_texts_lose_nothing(tmp_path: Path) -> None:
    before = saved(tiny.byte_level(), tmp_path / "before")
    prune_vocabulary(before, CORPUS, tmp_path / "after")
    after = load_tokenizer(tmp_path / "after")
    for text in ELSEWHERE:
        assert after.decode(after(text)["input_ids"], skip_special_tokens=True) == text
    assert len(pieces(after, ELSEWHERE[0])) > len(pieces(tiny.byte_level(), ELSEWHERE[0]))


def test_the_chat_templates_own_words_are_kept(tmp_path: Path) -> None:
    tokenizer = tiny.byte_level(template=True)
    before = saved(tokenizer, tmp_path / "before")
    done = prune_vocabulary(before, CORPUS, tmp_path / "after")
    after = load_tokenizer(tmp_path / "after")
    conversation = [{"role": "user", "content": CORPUS[0]}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert "Ġfather" in pieces(tokenizer, text)
    assert pieces(after, text) == pieces(tokenizer, text)
    require_the_same(before, tmp_path / "after", [*CORPUS, text], done)


def test_a_vocabulary_with_byte_fallback(tmp_path: Path) -> None:
    tokenizer = with_fallback()
    before = saved(tokenizer, tmp_path / "before")
    corpus = [text.strip() for text in CORPUS]
    done = prune_vocabulary(before, corpus, tmp_path / "after")
    require_the_same(before, tmp_path / "after", corpus, done)
    after = load_tokenizer(tmp_path / "after")
    bytes_ = {f"<0x{byte:02X}>" for byte in range(256)}
    assert set(after.get_vocab()) == traced(tokenizer, corpus) | bytes_ | {"<pad>", "<|end|>", "<|start|>", "<unk>"}
    for text in ELSEWHERE[:3]:
        assert after.decode(after(text)["input_ids"]) == text


def test_words_that_are_taken_whole_without_merges(tmp_path: Path) -> None:
    """Llama 3's tokenizer looks words up before it merges."""
    before = saved(tiny.byte_level(ignores_merges=True), tmp_path / "before")
    done = prune_vocabulary(before, CORPUS, tmp_path / "after")
    require_the_same(before, tmp_path / "after", CORPUS, done)


@pytest.mark.parametrize("part", ["tokens", "logits"])
def test_nothing_is_written_if_a_check_fails(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved(tiny.byte_level(), tmp_path / "before")
    if part == "tokens":
        make = pruning._pruned_tokenizer

        def without_a_merge(tokenizer: Any, core: dict[str, Any], *rest: Any) -> Any:
            core["model"]["merges"] = core["model"]["merges"][1:]
            return make(tokenizer, core, *rest)

        monkeypatch.setattr(pruning, "_pruned_tokenizer", without_a_merge)
    else:  # rows of other tokens
        keep = pruning._keep_rows
        monkeypatch.setattr(pruning, "_keep_rows", lambda network, kept: keep(network, [*kept[1:], kept[0]]))
    phrase = "in another way than before" if part == "tokens" else "logits differ"
    with pytest.raises(BontuneError, match=phrase):
        prune_vocabulary(before, tiny.LEARNED, tmp_path / "after")
    assert [path.name for path in tmp_path.iterdir()] == ["before"]


def test_what_cannot_be_pruned(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match="no byte-level or byte-fallback BPE"):
        prune_vocabulary("countdown-tiny", CORPUS, tmp_path / "after")
    before = saved(tiny.byte_level(), tmp_path / "before")
    with pytest.raises(BontuneError, match="has no text"):
        prune_vocabulary(before, [""], tmp_path / "after")
    with pytest.raises(BontuneError, match="exists already"):
        prune_vocabulary(before, CORPUS, before)
    short = saved(tiny.byte_level(), tmp_path / "short", rows=-1)
    with pytest.raises(BontuneError, match=r"The corpus has the token '<\|pad\|>', for which .* has no row"):
        prune_vocabulary(short, [*CORPUS, "a<|pad|>"], tmp_path / "after")


def test_a_special_token_without_a_row_is_left_behind(tmp_path: Path) -> None:
    """Llama's models are often trained with a padding token that only the tokenizer knows."""
    before = saved(tiny.byte_level(), tmp_path / "before", rows=-1)
    done = prune_vocabulary(before, CORPUS, tmp_path / "after")
    model, tokenizer = load_model(tmp_path / "after")
    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.pad_token_id == done.num_tokens == model.config.vocab_size
    for text in CORPUS:
        assert pieces(tokenizer, text) == pieces(load_tokenizer(before), text)


SMOLLM2 = os.environ.get("BONTUNE_SMOLLM2", "")


@pytest.mark.skipif(not Path(SMOLLM2).is_file(), reason="BONTUNE_SMOLLM2 names no GGUF file of SmolLM2")
def test_smollm2_on_svamp(tmp_path: Path) -> None:
    texts = list(read_texts(shared_data.require("svamp.json")))
    done = prune_vocabulary(SMOLLM2, texts, tmp_path / "after")
    require_the_same(SMOLLM2, tmp_path / "after", texts[:: len(texts) // 10], done)
    assert done.num_tokens < done.num_tokens_before / 4
