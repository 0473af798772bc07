"""``tiny-gemma2``: Gemma 2's architecture at a 16,000th of its smallest size, with random weights.

For trying a recipe end to end on any machine before it meets the real model: every part of Gemma 2 is there
(soft-capped logits, alternating sliding windows, grouped heads, its chat format), and nothing it writes makes sense.
"""

from __future__ import annotations

from typing import Any

VOCABULARY = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
"""The special tokens, which come before the 256 bytes."""
CONTEXT = 8192
WINDOW = 64

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('there is no system role') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""Gemma's format: turns of user and model, no system role."""


def build() -> tuple[Any, Any]:
    """Build the model and its byte-level tokenizer; the weights are the same each time.

    Example:
        >>> model, tokenizer = build()
        >>> tokenizer.decode(tokenizer("x² ≥ 0")["input_ids"], skip_special_tokens=True)
        'x² ≥ 0'
    """
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tokenizer = _byte_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=CONTEXT,
        sliding_window=WINDOW,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Gemma2ForCausalLM(config)
    end_of_turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end_of_turn]
    return model, tokenizer


def _byte_tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*VOCABULARY, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.add_special_tokens([AddedToken(token, special=True) for token in VOCABULARY])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
    )
