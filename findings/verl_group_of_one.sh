#!/usr/bin/env bash
# Guess:   a group with a single sample has nothing to be compared with: its advantage is 0 under GRPO, RLOO and the like, and an
#          estimator and its vectorized twin agree.
# Reality: grpo, rloo, opo and gpg take the baseline 0, so that the lone sample is pushed with its whole raw reward (a failure graded
#          −1 with −1), about as hard as the best sample of a group. rloo_vectorized gives it 0.
#          A rollout with n=1, or a group of which one sample is left, trains differently by the spelling of one setting.
# Seen:    rewards 1, 0, 0 | 1 | −1: grpo 1.15, −0.58, −0.58 | 1 | −1; rloo 1, −0.5, −0.5 | 1 | −1; rloo_vectorized … | 0 | 0
# Version: verl 0.9.1, torch 2.13.0
# Source:  https://github.com/verl-project/verl/blob/main/verl/trainer/ppo/core_algos.py
. "$(dirname "$0")/fresh_venv"
install torch==2.13.0
install verl==0.9.1
run <<'PY'
import numpy as np
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo import core_algos

REWARDS = torch.tensor([[0.0, reward] for reward in (1.0, 0.0, 0.0, 1.0, -1.0)])
GROUPS = np.array(["a", "a", "a", "b", "c"], dtype=object)
CONFIG = OmegaConf.create({"norm_adv_by_std_in_grpo": True, "gamma": 1.0, "lam": 1.0})


def advantages(name):
    estimate = core_algos.get_adv_estimator_fn(name)
    found, _ = estimate(
        token_level_rewards=REWARDS.clone(), response_mask=torch.ones_like(REWARDS), index=GROUPS, config=CONFIG
    )
    print(name, [round(value, 2) for value in found[:, 0].tolist()])
    return found[:, 0].tolist()


for name in ("grpo", "rloo", "opo"):
    assert np.allclose(advantages(name)[3:], [1, -1], atol=1e-4), name
assert np.allclose(advantages("rloo_vectorized"), [1, -0.5, -0.5, 0, 0], atol=1e-4)
PY
