"""Small random models and a character tokenizer, for tests of everything that touches a model."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
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
FAMILIES = ("qwen2", "llama", "gemma2", "gemma2_wide")


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


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
