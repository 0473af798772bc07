#!/usr/bin/env bash
# Guess:   do_sample=True with top_k=1 is greedy decoding: all samples of a prompt are the same.
# Reality: top_k keeps every token whose logit is not below the k-th largest, so ties stay in. Logits of a bfloat16 model have
#          eight bits and tie often (here at the top in 2.6 % of the positions), and the ties survive the cast to float32
#          that sampling makes. Such a position is drawn at random, half and half. top_p does not keep ties.
# Seen:    ties at the top: 2.6 % of 500 positions; top_k=1 draws two tokens (107 and 93 of 200); top_p=1e-6 draws one
# Version: transformers 5.24.0, torch 2.13.0
# Source:  TopKLogitsWarper in
#          https://github.com/huggingface/transformers/blob/main/src/transformers/generation/logits_process.py
. "$(dirname "$0")/fresh_venv"
install torch==2.13.0
install transformers==5.24.0
run <<'PY'
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=2)
).to(torch.bfloat16).eval()
prompts = torch.randint(3, 500, (500, 4))
with torch.no_grad():
    top = model(prompts).logits[:, -1].topk(2).values
tied = top[:, 0] == top[:, 1]
prompt = prompts[tied.nonzero()[0].item()].repeat(200, 1)


def drawn(**options):
    ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=1, **options)
    return ids[:, -1].bincount().nonzero().flatten().tolist()


print(f"{tied.float().mean():.1%} of the positions tie at the top")
print("greedy", drawn(do_sample=False), "top_k=1", drawn(do_sample=True, top_k=1),
      "top_p=1e-6", drawn(do_sample=True, top_k=0, top_p=1e-6))
assert 0.005 < tied.float().mean() < 0.1
assert len(drawn(do_sample=False)) == 1 and len(drawn(do_sample=True, top_k=0, top_p=1e-6)) == 1
assert len(drawn(do_sample=True, top_k=1)) == 2
PY
