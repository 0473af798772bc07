#!/usr/bin/env bash
# Guess:   a trainer that is given a LoRA configuration compares with the model that it was given: with a learning rate of 0
#          the KL is 0 for any initialization, and the first loss of DPO is log 2.
# Reality: TRL computes the reference with the adapter turned off. PiSSA and OLoRA start from a part of the weights that they
#          take out of the base, so that the base without the adapter is another model, which nobody chose. The KL term of
#          GRPO pulls the policy towards it from the first step, and DPO measures its margins against it. Nothing warns.
# Seen:    KL of GRPO at a learning rate of 0: 0.00 by default, 0.64 under pissa, 0.41 under olora
#          First loss of DPO: 0.6931 by default, 0.8202 under pissa, 0.7211 under olora
# Version: trl 1.16.0, peft 0.21.2, transformers 5.24.0, torch 2.13.0
# Source:  https://github.com/huggingface/peft/pull/1626 and /issues/2184 (the base changes, without a word)
. "$(dirname "$0")/fresh_venv"
install torch==2.13.0
install trl==1.16.0 peft==0.21.2 transformers==5.24.0 datasets==5.2.0
run <<'PY'
import math

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

VOCABULARY = {"<pad>": 0, "<bos>": 1, "<eos>": 2} | {c: i + 3 for i, c in enumerate("0123456789+=")}
letters = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<pad>"))
letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
PROMPTS = ["1+2=", "3+4="] * 2
COMMON = dict(output_dir="out", report_to="none", use_cpu=True, bf16=False, max_steps=1, logging_steps=1,
              per_device_train_batch_size=4, save_strategy="no", disable_tqdm=True, learning_rate=0.0)


def model():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(VOCABULARY), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                         initializer_range=0.1)
    return LlamaForCausalLM(config)


def first(trainer, what):
    trainer.train()
    return next(row[what] for row in trainer.state.log_history if what in row)


for start in (True, "pissa", "olora"):
    lora = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=start, task_type="CAUSAL_LM")
    grpo = GRPOTrainer(model(), lambda completions, **_: [float(len(set(c))) for c in completions],
                       GRPOConfig(num_generations=4, max_completion_length=8, beta=0.1, **COMMON),
                       train_dataset=Dataset.from_dict({"prompt": PROMPTS}), processing_class=tokenizer, peft_config=lora)
    pairs = Dataset.from_dict({"prompt": PROMPTS, "chosen": ["3", "7"] * 2, "rejected": ["4", "9"] * 2})
    dpo = DPOTrainer(model(), args=DPOConfig(**COMMON), train_dataset=pairs, processing_class=tokenizer, peft_config=lora)
    kl, loss = first(grpo, "kl"), first(dpo, "loss")
    print(f"init_lora_weights={start}: KL {kl:.4f}, first loss of DPO {loss:.4f}")
    if start is True:
        assert abs(kl) < 1e-6 and abs(loss - math.log(2)) < 1e-4
    else:
        assert kl > 0.01 and abs(loss - math.log(2)) > 0.001
PY
