"""Small random models and a character tokenizer, for tests of everything that touches a model."""

from __future__ import annotations

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

CHARACTERS = " \n0123456789+-*/=,.:;()abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ#$?'\"%"
LEARNED = [
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting.",
    "the other mother gathers feathers rather than leather; there they are, the brothers of the father",
    "naïve café — Zürich, façade, déjà vu",
] * 3
"""Texts on which byte-pair encodings are learned."""
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }} says father: {{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
"""A chat template with words of its own."""
FAMILIES = ("qwen2", "llama", "gemma2", "gemma2_wide")


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def byte_level(*, template: bool = False, ignores_merges: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE whose end token stands before its vocabulary, and whose other special ones behind it."""
    core = Tokenizer(models.BPE(ignore_merges=ignores_merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(LEARNED, trainer)
    core.add_special_tokens([AddedToken("<|start|>", special=True), AddedToken("<|pad|>", special=True)])
    start = core.token_to_id("<|start|>")
    core.post_processor = processors.TemplateProcessing(single="<|start|> $A", special_tokens=[("<|start|>", start)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|start|>", eos_token="<|end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = TEMPLATE if template else None
    return tokenizer


def model(family: str = "qwen2", seed: int = 0, *, sharp: float = 8.0, **overrides: object) -> torch.nn.Module:
    """A two-layer model; ``sharp`` scales the embeddings up so that its distribution is not flat."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(CHARACTERS) + 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }
    if family == "qwen2":
        built = Qwen2ForCausalLM(Qwen2Config(**(shape | overrides)))
    elif family == "llama":
        built = LlamaForCausalLM(LlamaConfig(**(shape | overrides)))
    else:  # soft-capped; a window shorter or longer than the tests' prompts
        window = 6 if family == "gemma2" else 64
        gemma = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": window, "final_logit_softcapping": 5.0}
        built = Gemma2ForCausalLM(Gemma2Config(**(shape | gemma | overrides)))
    with torch.no_grad():
        built.get_input_embeddings().weight.mul_(sharp)
    return built.eval()
