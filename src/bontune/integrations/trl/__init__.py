"""Best-of-N training inside TRL: its GRPOTrainer with the advantages of any objective of this package.

    from bontune.integrations.trl import BoNGRPOConfig, BoNGRPOTrainer

    config = BoNGRPOConfig(output_dir="out", objective="bon_rl", n=16, num_generations=32)
    BoNGRPOTrainer("Qwen/Qwen2.5-0.5B-Instruct", my_reward, config, train_dataset=my_prompts).train()

Generation, vLLM, LoRA, DeepSpeed, FSDP and several nodes are TRL's. On the command line:
``accelerate launch -m bontune.integrations.trl --config bon.yaml``.
"""

from importlib.metadata import version

from bontune.base.errors import BontuneError

OLDEST = (1, 12)
"""Oldest TRL whose trainer has the methods that ours overrides."""


def check_version(installed: str) -> None:
    """Refuse a version of TRL that is too old.

    Raises:
        BontuneError: it is older than ``OLDEST``.
    """
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST:
        raise BontuneError(
            f"BoNGRPOTrainer works with TRL {OLDEST[0]}.{OLDEST[1]} or newer, and TRL {installed} is installed: "
            "pip install 'bontune[trl]'."
        )


check_version(version("trl"))  # before the modules below miss parts of an old one

from bontune.integrations.trl.script import task_dataset, task_reward  # noqa: E402
from bontune.integrations.trl.settings import BoNGRPOConfig  # noqa: E402
from bontune.integrations.trl.trainer import BoNGRPOTrainer  # noqa: E402

__all__ = ["OLDEST", "BoNGRPOConfig", "BoNGRPOTrainer", "task_dataset", "task_reward"]
