"""Best-of-N training inside TRL: its GRPOTrainer with any objective of ours in place of its advantages.

    from bontune.integrations.trl import BoNGRPOConfig, BoNGRPOTrainer

    config = BoNGRPOConfig(output_dir="out", objective="bon_rl", n=16, num_generations=32)
    BoNGRPOTrainer("Qwen/Qwen2.5-0.5B-Instruct", my_reward, config, train_dataset=my_prompts).train()

Generation, vLLM, LoRA, DeepSpeed, FSDP and several nodes are TRL's. On the command line:
``accelerate launch -m bontune.integrations.trl --config bon.yaml``.
"""

from bontune.integrations.trl.installed import OLDEST
from bontune.integrations.trl.script import task_dataset, task_reward
from bontune.integrations.trl.settings import BoNGRPOConfig
from bontune.integrations.trl.trainer import BoNGRPOTrainer

__all__ = ["OLDEST", "BoNGRPOConfig", "BoNGRPOTrainer", "task_dataset", "task_reward"]
