"""Contract of the integration with verl, on the real one (``make test-verl``), without a GPU:

1. verl finds an estimator for each objective by itself, and its own ``compute_advantage`` gives the native advantages;
2. groups of several sizes count alike; rows may come in any order;
3. options come from verl's configuration, and a verifier's scores where verl hands them on;
4. what cannot work is said, an error while verl loads the plugin too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed; make test-verl")

import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, agg_loss
from verl.trainer.ppo.ray_trainer import compute_advantage

import bontune.objectives as objectives
from bontune.base.errors import BontuneError
from bontune.integrations.groups import group_objectives
from bontune.integrations.verl import PREFIX, estimate_advantages

P, M, TOKENS = 3, 6, 5
GENERATOR = torch.Generator().manual_seed(0)
REWARDS = (torch.rand(P, M, generator=GENERATOR) < 0.4).double()
SCORES = torch.rand(P, M, generator=GENERATOR).double()
LENGTHS = torch.randint(1, TOKENS + 1, (P * M,), generator=GENERATOR)


def batch(rows: torch.Tensor | None = None) -> DataProto:
    """verl's own batch: the reward on a response's last token."""
    mask = (torch.arange(TOKENS) < LENGTHS.unsqueeze(-1)).float()
    rewards = torch.zeros(P * M, TOKENS)
    rewards[torch.arange(P * M), LENGTHS - 1] = REWARDS.flatten().float()
    uids = np.array([f"uid-{p}" for p in range(P) for _ in range(M)], dtype=object)
    rows = torch.arange(P * M) if rows is None else rows
    return DataProto.from_dict(
        tensors={"token_level_rewards": rewards[rows], "response_mask": mask[rows]},
        non_tensors={"uid": uids[rows.numpy()], "judge": SCORES.flatten().numpy()[rows.numpy()]},
    )


def algorithm(**keys: Any) -> DictConfig:
    """verl's own section ``algorithm``, with further keys as on its command line."""
    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(config_dir=str(folder), version_base=None):
        section = compose("ppo_trainer").algorithm
    OmegaConf.set_struct(section, False)
    return OmegaConf.merge(section, keys)


def by_row(data: DataProto) -> torch.Tensor:
    """One advantage a row, after a look at its tokens."""
    advantages, mask = data.batch["advantages"], data.batch["response_mask"]
    first = advantages[:, 0]
    torch.testing.assert_close(advantages, first.unsqueeze(-1) * mask)
    torch.testing.assert_close(data.batch["returns"], advantages)
    return first.double()


def test_verl_finds_an_estimator_for_each_objective() -> None:
    """In a fresh process that imports nothing of ours."""
    code = "import verl; from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as r; print(*map(str, r))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {PREFIX + name for name in group_objectives()} <= set(done.stdout.split())


@pytest.mark.parametrize("name", group_objectives())
def test_compute_advantage_gives_the_native_advantages(name: str) -> None:
    config = algorithm(adv_estimator=PREFIX + name, bon_n=3)
    found = by_row(compute_advantage(batch(), adv_estimator=PREFIX + name, num_repeat=M, config=config))
    function = objectives.get(name)
    if name in ("bon_rl", "bon_rl_variational", "rank"):
        wanted = function(REWARDS, REWARDS, 3)
    elif name in ("pkpo", "passk_training", "bon_rlb", "bon_rlbp"):
        wanted = function(REWARDS, 3)
    else:
        wanted = function(REWARDS)
    torch.testing.assert_close(found.view(P, M), wanted, atol=1e-6, rtol=1e-6)


def test_rows_come_in_any_order() -> None:
    name, config = PREFIX + "bon_rl", algorithm(bon_n=3)
    rows = torch.randperm(P * M, generator=GENERATOR)
    ordered = by_row(compute_advantage(batch(), adv_estimator=name, config=config))
    mixed = by_row(compute_advantage(batch(rows), adv_estimator=name, config=config))
    torch.testing.assert_close(mixed, ordered[rows])


def test_groups_of_several_sizes_count_alike() -> None:
    """The loss is verl's mean over responses of sums over tokens; it must be the mean over prompts."""
    rows = torch.cat([torch.arange(0, 4), torch.arange(6, 12), torch.arange(12, 17)])
    data = compute_advantage(batch(rows), adv_estimator=PREFIX + "bon_rl", config=algorithm(bon_n=3))
    logprobs = torch.randn(P * M, TOKENS, generator=GENERATOR)
    loss = agg_loss(
        -data.batch["advantages"] * logprobs[rows],
        data.batch["response_mask"],
        "seq-mean-token-sum-norm",
        loss_scale_factor=1,
    )
    of_row = (logprobs * (torch.arange(TOKENS) < LENGTHS.unsqueeze(-1))).sum(-1).view(P, M).double()
    groups = [(0, slice(0, 4)), (1, slice(0, 6)), (2, slice(0, 5))]
    wanted = [
        (objectives.bon_rl(REWARDS[p, part], REWARDS[p, part], 3) * of_row[p, part]).mean().item() for p, part in groups
    ]
    assert loss.item() == pytest.approx(-sum(wanted) / P, rel=1e-5)


def test_options_come_from_the_configuration() -> None:
    config = algorithm(bon_n={1: 0.5, 4: 0.5}, bon_options={"baseline": "loo1"})
    found = by_row(compute_advantage(batch(), adv_estimator=PREFIX + "bon_rl", config=config))
    wanted = objectives.bon_rl(REWARDS, REWARDS, {1: 0.5, 4: 0.5}, "loo1")
    torch.testing.assert_close(found.view(P, M), wanted, atol=1e-6, rtol=1e-6)


def test_a_verifiers_scores_are_taken_where_verl_hands_them_on() -> None:
    """As verl's pull request 7473 would: to estimators that name the parameters."""
    data, config = batch(), algorithm(bon_n=3, bon_verifier="judge")
    tensors = data.batch["token_level_rewards"], data.batch["response_mask"]
    estimator = ADV_ESTIMATOR_REGISTRY[PREFIX + "bon_rl"]
    handed = {"non_tensor_batch": data.non_tensor_batch, "batch": data.batch}
    found, _ = estimator(*tensors, index=data.non_tensor_batch["uid"], config=config, **handed)
    wanted = objectives.bon_rl(REWARDS, SCORES, 3)
    torch.testing.assert_close(found[:, 0].double().view(P, M), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "keys", "phrase"),
    [
        ("bon_rl", {"bon_n": 3, "bon_verifier": "judge"}, "this verl passes only the reward to estimators"),
        ("bon_rl", {"bon_n": 9}, "n = 9 is more than the 6 samples"),
        ("bon_rl", {"bon_n": 3, "bon_options": {"basline": "loo"}}, "Did you mean 'objective.baseline'"),
        ("bon_rl", {"bon_n": {1: [1.0, 0.5], 4: [0.0, 0.5]}}, "must have constant weights"),
    ],
)
def test_what_cannot_work_is_said(name: str, keys: dict[str, Any], phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        compute_advantage(batch(), adv_estimator=PREFIX + name, config=algorithm(**keys))


def test_a_verifier_that_was_not_returned_is_named() -> None:
    rewards, mask = torch.zeros(4, 2), torch.ones(4, 2)
    given = {"config": {"bon_n": 2, "bon_verifier": "judge"}, "non_tensor_batch": {"acc": [1] * 4}}
    with pytest.raises(BontuneError, match=r"the reward function returned \['acc'\], not judge"):
        estimate_advantages("bon_rl", rewards, mask, index=["a"] * 4, **given)
    with pytest.raises(BontuneError, match="passed no uid"):
        estimate_advantages("bon_rl", rewards, mask)


def test_an_error_while_verl_loads_the_plugin_is_shown(tmp_path: Path) -> None:
    """verl itself would keep it to its debug log."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import sys\nsys.modules['bontune.integrations.groups'] = None\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", "import verl"], env=environment, capture_output=True, text=True)
    assert "bontune could not register its advantage estimators in verl" in done.stderr
