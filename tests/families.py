"""Tiny models with random weights of the families that transformers knows, by model type."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

import tiny

VOCABULARY = len(tiny.CHARACTERS) + 3
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_WINDOW = {"sliding_window": 6, "query_pre_attn_scalar": 8}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_chunk_size": 8}
_DELTA = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_GEMMA4 = {"global_head_dim": 8, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": VOCABULARY}
_EYE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}

FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "cohere2": _WINDOW,
    "ernie4_5": {},
    "exaone4": {},
    "gemma": {},
    "gemma2": _WINDOW | {"final_logit_softcapping": 5.0},
    "gemma3": {
        "text_config": SHAPE | _WINDOW,
        "vision_config": _EYE | {"image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4,
    },
    "gemma3_text": _WINDOW,
    "gemma4": {"text_config": SHAPE | _GEMMA4 | {"sliding_window": 6}, "vision_config": _EYE},
    "glm4": {},
    "gpt2": _GPT | {"n_inner": 48},
    "gpt_neox": {},
    "gpt_oss": _EXPERTS,
    "gptj": _GPT | {"rotary_dim": 8},
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "helium": {},
    "llama": {},
    "llama4_text": {},
    "mistral": {},
    "mixtral": _EXPERTS,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "nemotron": {},
    "olmo2": {},
    "olmo3": {},
    "olmoe": _EXPERTS,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "persimmon": {},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": _EXPERTS | {"decoder_sparse_step": 1},
    "qwen3": {},
    "qwen3_moe": _EXPERTS | {"decoder_sparse_step": 1},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
    "bamba": _MAMBA | {"attn_layer_indices": [1]},
    "falcon_h1": _MAMBA | {"mamba_d_ssm": 64, "mamba_n_groups": 1},
    "falcon_mamba": {"state_size": 4},
    "granitemoehybrid": _MAMBA
    | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 48, "num_local_experts": 0},
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "num_experts": 2,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba": {"state_size": 4},
    "mamba2": {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "minimax": {},
    "nemotron_h": {
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 4,
        "n_groups": 2,
        "chunk_size": 8,
        "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 16,
    },
    "qwen3_5": {
        "text_config": SHAPE | _DELTA,
        "vision_config": _EYE | {"depth": 1, "num_heads": 2, "out_hidden_size": 32},
    },
    "qwen3_next": _EXPERTS | _DELTA,
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16},
    "rwkv": {"attention_hidden_size": 32, "context_length": 512},
}
"""What a family's config needs beside :data:`SHAPE`."""


def build(family: str) -> torch.nn.Module:
    """A model of this family; its distribution is not flat."""
    own = FAMILIES[family]
    ends = {name: value for name, value in SHAPE.items() if name.endswith("token_id")}
    config = CONFIG_MAPPING[family](**((ends if "text_config" in own else SHAPE) | own))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.0 if "mamba" in family else 4.0)
    return model
