"""The script on the first page of the architecture takes the same step as the trainer, up to the rounding of floats."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from bontune.config import load_recipe
from bontune.models import load_model
from bontune.training.trainer import Trainer

SCRIPT = Path(__file__).parents[2] / "docs" / "one_step.py"


def test_the_script_takes_the_trainers_first_step(tmp_path: Path) -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 80
    spec = importlib.util.spec_from_file_location("one_step", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    small = ("training.prompts_per_step=8",)
    settings = ("training.steps=1", "training.checkpoint_every=0", "eval.every=0", f"run={tmp_path / 'run'}")
    trainer = Trainer(load_recipe("countdown", (*small, *settings)), is_quiet=True)
    trainer.train()
    policy, anchor = script.main(*small)
    start = dict(load_model("countdown-tiny", dtype=torch.float32)[0].named_parameters())
    pairs = [
        (dict(policy.named_parameters()), dict(trainer.model.named_parameters())),
        (dict(anchor.named_parameters()), trainer.anchor.tensors),
    ]
    for ours, theirs in pairs:
        script_theta, trainer_theta, first_theta = (
            torch.cat([tensors[name].flatten() for name in ours]) for tensors in (ours, theirs, start)
        )
        moved, difference = (trainer_theta - first_theta).norm(), (script_theta - trainer_theta).norm()
        assert moved > 0
        assert difference / trainer_theta.norm() < 1e-6
        assert difference / moved < 1e-2
