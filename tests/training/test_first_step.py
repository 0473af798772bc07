"""Contract of a run's first update:

1. above ``training.first_step_kl`` the run stops, with one sentence that names a rate, and the step is not kept: the
   weights are those from before, and nothing is saved;
2. the KL is the exact one between the policies after and before the update, on the step's own samples;
3. it is measured once, in the first step in which a sample carries weight, and not again by a resumed run;
4. every shipped recipe that runs here passes far below the bound; null lifts it.
"""

import json
import re

import pytest
import torch

from bontune import Trainer, load_recipe
from bontune.base.errors import RunStopped
from bontune.training.log import Stages

SMALL = ["training.prompts_per_step=4", "training.steps=2", "eval.every=0", "training.device=cpu"]


def trainer(folder, *overrides, name="countdown", task=None):
    return Trainer(load_recipe(name, [*SMALL, f"run={folder}", *overrides]), task=task, is_quiet=True)


def weights(run):
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def first_row(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])


def test_a_rate_that_is_too_high_stops_the_run_and_the_step_is_not_kept(tmp_path):
    run = trainer(tmp_path / "run", "training.lr=0.1")
    before = weights(run)
    with pytest.raises(RunStopped) as stopped:
        run.train()
    said = str(stopped.value)
    proposed = re.search(r"try training.lr=(\S+):", said)
    assert proposed is not None
    assert "0.01 on its way to 0.1" in said
    assert "training.first_step_kl allows 0.5" in said
    assert "the step was not taken" in said
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    trainer(tmp_path / "again", f"training.lr={proposed[1]}").train()  # the rate that it proposes will do


def test_the_kl_is_that_of_the_policies_after_and_before_the_update(tmp_path):
    """By the plain model on whole texts, one at a time, over the whole vocabulary."""
    run = trainer(tmp_path, "training.lr=0.02", "training.first_step_kl=null", "sampling.temperature=0.7")
    before = Trainer(run.recipe, is_quiet=True).model
    run = trainer(tmp_path, "training.lr=0.02", "training.first_step_kl=100", "sampling.temperature=0.7")
    with run.running() as signals:
        graded, advantages = run.draw(1, run.draws(1), stages=Stages(), signals=signals)
        run.update(1, graded, advantages, signals)
    samples, kl = graded.samples, []
    for p, prompt in enumerate(samples.prompts):
        row = p * samples.num_samples
        tokens = samples.tokens_BT[row, : samples.lengths_B[row]].tolist()
        ids = torch.tensor([[*prompt, *tokens]])
        with torch.no_grad():
            after, old = (
                torch.log_softmax(model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double() / 0.7, -1)
                for model in (run.model, before)
            )
        kl.append(float((after.exp() * (after - old)).sum()))
    assert run.first_step.numbers(1)["first_step_kl"] == pytest.approx(sum(kl) / len(kl), rel=1e-3)
    assert sum(kl) > 0.01, "the update moved the policy"


def test_it_is_measured_once_and_not_again_by_a_resumed_run(tmp_path):
    trainer(tmp_path, "training.checkpoint_every=1").train()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert 0 < rows[0]["first_step_kl"] < 0.5
    assert "first_step_kl" not in rows[1]
    resumed = trainer(tmp_path, "training.checkpoint_every=1", "training.steps=3")
    with resumed.running():
        resumed.resume()
    assert not resumed.first_step.is_due


def test_it_waits_for_a_step_in_which_a_sample_carries_weight(tmp_path):
    run = trainer(tmp_path, "training.lr=0.1", "training.warmup=0", "kl.start=0", "kl.end=0")
    with run.running() as signals:
        graded, advantages = run.draw(1, run.draws(1), stages=Stages(), signals=signals)
        run.update(1, graded, torch.zeros_like(advantages), signals)
        assert run.first_step.is_due
        with pytest.raises(RunStopped, match="first_step_kl"):
            run.update(2, graded, advantages, signals)


@pytest.mark.parametrize("name", ["countdown", "countdown-every-n", "countdown-bon-rl-v", "programs"])
def test_every_shipped_recipe_passes_far_below_the_bound(tmp_path, name):
    trainer(tmp_path, "training.steps=1", name=name).train()
    assert first_row(tmp_path)["first_step_kl"] < 0.25


def test_null_lifts_it(tmp_path):
    trainer(tmp_path, "training.lr=0.1", "training.first_step_kl=null").train()
    assert "first_step_kl" not in first_row(tmp_path)


def test_the_start_line_says_what_will_be_done(tmp_path, capsys):
    Trainer(load_recipe("countdown", [*SMALL, f"run={tmp_path}"])).train()
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "countdown-tiny (156 k parameters, all trained) on CPU, 4,000 problems, 4 a step, N = 16, M = 32, "
        "learning rate 0.0006, 2 steps" in said
    )
