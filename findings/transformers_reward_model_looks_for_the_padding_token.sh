#!/usr/bin/env bash
# Guess:   a sequence classifier reads its score at the last token that the attention mask shows.
# Reality: it looks for the last token that is not pad_token_id, whatever the mask says. Where the padding token is the end
#          token (as TRL's RewardTrainer sets it for tokenizers without one, GPT-2's and Llama's among them), an end token that
#          belongs to the text is skipped, too: a text scores the same with it and without it, and a reward model that is
#          trained on texts with an end token never sees it.
# Seen:    padding is the end token: 0.07274 with the end token, 0.07274 without it; the head at the end token says 0.19995
#          padding is another token: 0.19995 with the end token, 0.07274 without it
# Version: transformers 5.24.0, torch 2.13.0
# Source:  GenericForSequenceClassification.forward in
#          https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_layers.py
. "$(dirname "$0")/fresh_venv"
install torch==2.13.0
install transformers==5.24.0
run <<'PY'
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

END = 2
WITHOUT, WITH = torch.tensor([[1, 7, 8, 9]]), torch.tensor([[1, 7, 8, 9, END]])
torch.manual_seed(0)
model = LlamaForSequenceClassification(
    LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, num_labels=1, bos_token_id=1, eos_token_id=END, pad_token_id=END)
).eval()


@torch.no_grad()
def score(ids):
    return model(ids, attention_mask=torch.ones_like(ids)).logits.item()


with torch.no_grad():
    at_end = model.score(model.model(WITH).last_hidden_state)[0, -1].item()
for pad in (END, 0):
    model.config.pad_token_id = pad
    print(f"padding token {pad}: with the end token {score(WITH):.5f}, without {score(WITHOUT):.5f}, at it {at_end:.5f}")
    expected = score(WITHOUT) if pad == END else at_end
    assert abs(score(WITH) - expected) < 1e-6 and abs(at_end - score(WITHOUT)) > 0.01
PY
