#!/usr/bin/env bash
# Guess:   with layers_to_transform the adapters are on these layers alone.
# Reality: modules outside all layers are adapted nevertheless if target_modules names them: the output layer and the
#          embedding. With target_modules="all-linear", which leaves the output layer out, layers_to_transform is refused.
# Seen:    adapters on layer 3 of 4 and on the output layer, of which no layer was asked for
# Version: peft 0.21.2, transformers 5.24.0, torch 2.13.0
# Source:  https://huggingface.co/docs/peft/package_reference/lora (layers_to_transform: "this will apply the LoRA
#          transformations on the layer indexes that are specified")
. "$(dirname "$0")/fresh_venv"
install torch==2.13.0
install peft==0.21.2 transformers==5.24.0
run <<'PY'
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def model():
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
                                        num_attention_heads=4, num_key_value_heads=4))


where = dict(r=2, layers_to_transform=[3], layers_pattern="layers", task_type="CAUSAL_LM")
adapted = get_peft_model(model(), LoraConfig(target_modules=["q_proj", "lm_head"], **where))
names = sorted({name.partition(".lora_")[0] for name, p in adapted.named_parameters() if p.requires_grad})
print(names)
assert names == ["base_model.model.lm_head", "base_model.model.model.layers.3.self_attn.q_proj"]
try:
    get_peft_model(model(), LoraConfig(target_modules="all-linear", **where))
except ValueError as error:
    print(error)
else:
    raise AssertionError("all-linear takes layers_to_transform now")
PY
