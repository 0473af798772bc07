"""The same on an accelerator as on the CPU: sampling, gradient, training, and going on after a stop.

    pytest -m gpu tests/training/test_devices.py

They run where a GPU is; ``BONTUNE_DEVICE_TESTS=cpu`` runs them on the CPU against itself, to try the tests themselves.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file

import tiny
from bontune import Recipe, Trainer, task_from_rows
from bontune.engines.contract import Samples, SamplingOptions
from bontune.engines.transformers import TransformersEngine
from bontune.training.anchor import Anchor
from bontune.training.forward import CausalLM
from bontune.training.update import Updater

DEVICE = os.environ.get("BONTUNE_DEVICE_TESTS", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU here"),
]
PROMPTS = ["3,7,2,9:45=", "a", "what is 12+30?"]
KEYS = [(0, p) for p in range(len(PROMPTS))]
M = 8
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """Accelerate keeps the first device for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


def drawn(model: Any, **options: Any) -> Samples:
    given = SamplingOptions(num_samples=M, max_new_tokens=24, **options)
    return TransformersEngine(model, tiny.tokenizer()).draw(PROMPTS, given, KEYS)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shared_from", [1, 1000], ids=["shared prompt", "copied prompt"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_log_probabilities_of_samples_are_the_models(
    family: str, shared_from: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bontune.engines.transformers.SHARED_FROM", shared_from)
    model = tiny.model(family, sharp=4.0)
    samples = drawn(copy.deepcopy(model).to(DEVICE, dtype), stop=("4", "ab"))
    for b, length in enumerate(samples.lengths_B.tolist()):
        prompt, tokens = samples.prompts[b // M], samples.tokens_BT[b, :length]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *tokens.tolist()]])).logits[0, len(prompt) - 1 : -1]
        wanted = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(samples.logprobs_BT[b, :length], wanted, atol=TOLERANCES[dtype], rtol=0.05)
        assert not samples.tokens_BT[b, length:].any(), "padding behind a row's end"


def test_the_same_seeds_draw_nearly_the_same() -> None:
    """Rounding may turn a draw that falls between two tokens."""
    model = tiny.model("llama", sharp=4.0)
    here, there = drawn(model), drawn(copy.deepcopy(model).to(DEVICE))
    rows = zip(here.texts, there.texts, strict=True)
    same = [a == b for one, other in rows for a, b in zip(one, other, strict=True)]
    assert sum(same) >= 0.9 * len(same)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_gradient_is_the_cpus(family: str) -> None:
    samples = drawn(tiny.model(family, sharp=4.0))
    advantages_PM = torch.randn(len(PROMPTS), M, generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cpu", DEVICE):
        AcceleratorState._reset_state(reset_partial_state=True)
        model = tiny.model(family, sharp=4.0).to(device)
        anchor = Anchor(model, 0.1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)  # off the anchor, so that the KL has a gradient
        updater = Updater(
            CausalLM(model, pad=0),
            torch.optim.AdamW(model.parameters()),
            anchor,
            Accelerator(cpu=device == "cpu"),
            temperature=0.9,
            token_budget=400,
            kl_share=0.5,
            max_grad_norm=1.0,
        )
        updater.accumulate(samples, advantages_PM, kl_coef=0.1, num_prompts=len(PROMPTS))
        found.append({name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None})
    here, there = found
    size = torch.stack([grad.norm() for grad in here.values()]).norm()
    gap = torch.stack([(there[name] - grad).norm() for name, grad in here.items()]).norm()
    assert gap <= 1e-3 * size, f"relative difference {gap / size:.2e}"


def run(folder: Path, **training: Any) -> list[dict[str, Any]]:
    rows = [{"prompt": f"{letter}="} for letter in "abcdefghijkl"]
    task = task_from_rows(rows, lambda row, text: text[:1] in tuple("abcdefgh"), hold_out=0.25)
    recipe = Recipe.from_dict(
        {
            "run": str(folder),
            "objective": {"name": "bon_rl", "n": 4},
            "sampling": {"samples": 16, "max_new_tokens": 2},
            "training": {
                "steps": 12,
                "prompts_per_step": 9,
                "lr": 0.01,
                "warmup": 0,
                "first_step_kl": None,
                "checkpoint_every": 4,
                **training,
            },
            "kl": {"start": 0.01, "end": 0.01},
            "eval": {"every": 6, "k": [1, 4], "samples": 16},
        }
    )
    Trainer(recipe, task=task, model=tiny.model(sharp=2.0), tokenizer=tiny.tokenizer(), is_quiet=True).train()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_learns_as_on_the_cpu(tmp_path: Path, precision: str) -> None:
    there = run(tmp_path / "there", precision=precision, device="auto" if DEVICE == "cuda" else "cpu")
    AcceleratorState._reset_state(reset_partial_state=True)
    here = run(tmp_path / "here", precision="fp32", device="cpu")
    for rows in (here, there):
        rewards = [row["reward"] for row in rows if row["kind"] == "step"]
        assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2
    first = [next(row for row in rows if row["kind"] == "step") for rows in (here, there)]
    assert first[0]["reward"] == pytest.approx(first[1]["reward"], abs=0.1)
    assert first[0]["entropy"] == pytest.approx(first[1]["entropy"], rel=0.05)


def test_a_run_that_goes_on_reaches_the_same_weights(tmp_path: Path) -> None:
    device = "auto" if DEVICE == "cuda" else "cpu"
    run(tmp_path / "whole", device=device)
    AcceleratorState._reset_state(reset_partial_state=True)

    class Stopped(Exception):
        pass

    with pytest.MonkeyPatch.context() as patch:
        save = Trainer.save
        patch.setattr(Trainer, "save", lambda self: [save(self), stop_at(self.step, Stopped)][0])
        with pytest.raises(Stopped):
            run(tmp_path / "part", device=device)
    AcceleratorState._reset_state(reset_partial_state=True)
    run(tmp_path / "part", device=device)
    whole, part = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "part"))
    for name, tensor in whole.items():  # sums on a GPU may come in another order
        torch.testing.assert_close(part[name], tensor, atol=0 if DEVICE == "cpu" else 1e-4, rtol=0)


def stop_at(step: int, error: type[Exception]) -> None:
    if step == 8:
        raise error
