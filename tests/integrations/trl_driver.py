"""Trains in TRL in a process of its own: ``python trl_driver.py '{"folder": …}'``.

Completions follow from prompt, step and place in the batch alone, whichever process holds them.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from bontune.integrations.trl import BoNGRPOConfig, BoNGRPOTrainer

NEW_TOKENS = 4


def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Tokens by hash."""
    first = trainer.accelerator.process_index * len(prompts)
    tokens, logprobs = [], []
    for place, prompt in enumerate(prompts, start=first):
        key = f"{prompt} {trainer.state.global_step} {place}".encode()
        tokens.append([3 + byte % 60 for byte in hashlib.sha256(key).digest()[:NEW_TOKENS]])
        logprobs.append([0.0] * NEW_TOKENS)
    ids = [trainer.processing_class(prompt)["input_ids"] for prompt in prompts]
    return {"prompt_ids": ids, "completion_ids": tokens, "logprobs": logprobs}


def reward(completions: list[str], **_: Any) -> list[float]:
    """A share of the texts is right."""
    return [float(hashlib.sha256(text.encode()).digest()[0] < 90) for text in completions]


class KillAt(TrainerCallback):
    """Ends the process as a full machine would, behind a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    given = json.loads(sys.argv[1])
    folder = Path(given["folder"])
    peft_config = None
    if given.get("lora"):
        from peft import LoraConfig

        peft_config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 16,
        "num_generations": 8,
        "max_completion_length": NEW_TOKENS,
        "learning_rate": 1e-2,
        "beta": 0.1,
        "beta_end": 0.02,
        "ref_model_mixup_alpha": 0.3,
        "save_steps": 2,
        "n": 4,
        "shuffle_dataset": False,
    }
    config = BoNGRPOConfig(
        output_dir=str(folder / given["run"]),
        use_cpu=True,
        bf16=False,
        report_to="none",
        gradient_checkpointing=False,
        disable_tqdm=True,
        logging_steps=1,
        **settings | given.get("settings", {}),
    )
    trainer = BoNGRPOTrainer(
        str(folder / "model"),
        reward,
        config,
        train_dataset=Dataset.from_list([{"prompt": letter + "="} for letter in "abcdefgh"]),
        peft_config=peft_config,
        rollout_func=rollout,
        callbacks=[KillAt(given["kill_at"])] if "kill_at" in given else None,
    )
    trainer.train(resume_from_checkpoint=given.get("resume"))
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        reference = model if trainer.ref_model is None else trainer.accelerator.unwrap_model(trainer.ref_model)
        torch.save(
            {
                "policy": {name: p.detach() for name, p in model.named_parameters()},
                "reference": {name: p.detach() for name, p in reference.named_parameters()},
                "log": trainer.state.log_history,
            },
            folder / f"{given['run']}.pt",
        )


if __name__ == "__main__":
    main()
