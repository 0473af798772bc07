"""Contract of the checkpoints, on real runs of the shipped model:

1. `step_000003` holds weights, optimizer and anchor (with P_fail by a value head that one and its optimizer too) as
   safetensors, step, running P_fail and best-so-far as JSON, and a manifest of sizes and SHA-256; nothing is pickled;
2. it is never overwritten, at least two are kept, and the latest is computed;
3. killed before any fsync, rename or removal, a run resumes and ends bitwise equal to one that was left alone:
   weights, optimizer, anchor, value head, P_fail, best-so-far, metrics; so it does when killed in mid-step, for every
   kind of state (running P_fail, value head, adapters, drawn winners), and on several threads as on one;
4. a damaged newest checkpoint is said aloud and moved aside, and the one before it leads to the same end; when all are
   damaged the run stops and touches none;
5. a full disk or a read-only folder ends the run with one sentence, leaves whole checkpoints as they were, and the same
   command goes on once there is room;
6. a checkpoint of another recipe is refused; what changes no result may change.
"""

import hashlib
import json
import os
import shutil
import subprocess

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from bontune.base.errors import BontuneError
from bontune.training import checkpoint
from training import run_driver
from training.run_driver import metrics, outcome, steps

SIX = ("training.steps=6", "training.checkpoint_every=3", "eval.every=2")
KINDS = {
    "plain": (),
    "running": ("objective.name=bon_rlb", "objective.p_fail=running", "training.prompts_per_step=8"),
    "value_head": ("objective.name=bon_rlb", "objective.p_fail=value_head", "training.value_lr=0.01"),
    "lora": ("training.lora.r=4", "training.lr=1e-3"),
    "upper_layers": ("training.lora={r: 4, layers: 1}", "training.lr=1e-3"),
    "winner": ("objective.draw=winner",),
}


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with run_driver.driver(tmp_path_factory.mktemp("driver")) as started:
        yield started


@pytest.fixture(scope="module")
def whole(driver, tmp_path_factory):
    """Undisturbed runs of six steps, by kind; made when first asked for, not to be written to."""
    folder = tmp_path_factory.mktemp("whole")

    def of_kind(kind):
        if not (folder / kind).exists():
            result = driver.train(folder / kind, *SIX, *KINDS[kind])
            assert result.code == 0, result.output
        return folder / kind

    return of_kind


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- 1, 2: what is there ----


@pytest.mark.parametrize("kind", KINDS)
def test_layout_and_manifest(whole, kind):
    folder = whole(kind) / "checkpoints" / "step_000003"
    tensors = {"policy", "anchor", "optimizer"} | ({"value_head", "value_optimizer"} if kind == "value_head" else set())
    names = {f"{stem}.safetensors" for stem in tensors} | {"state.json"}
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert {path.name for path in folder.iterdir()} == names | {"MANIFEST.json"}
    assert set(manifest["files"]) == names
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert b"pickle" not in content
    assert manifest["step"] == 3
    assert set(manifest["versions"]) == {"bontune", "torch", "transformers", "accelerate", "python"}
    for stem in tensors:
        with safe_open(folder / f"{stem}.safetensors", "pt") as file:  # refuses whatever is not safetensors
            assert list(file.keys())
    assert not list(folder.parent.glob(".tmp-*"))


def test_the_latest_is_computed_and_two_are_kept(whole, driver, tmp_path):
    assert sorted(p.name for p in (whole("plain") / "checkpoints").iterdir()) == ["step_000003", "step_000006"]
    for keep, kept in ((2, [4, 5]), (4, [2, 3, 4, 5])):
        run = tmp_path / f"keep{keep}"
        driver.train(run, "training.steps=5", "training.checkpoint_every=1", f"training.keep_checkpoints={keep}")
        assert steps(run) == kept
    refused = driver.train(tmp_path / "one", "training.keep_checkpoints=1")
    assert refused.code == 2
    assert "keep_checkpoints" in refused.message
    assert not (tmp_path / "one").exists()


def test_the_state_beside_the_weights(whole):
    for kind in KINDS:
        folder = whole(kind) / "checkpoints" / "step_000006"
        state = json.loads((folder / "state.json").read_text())
        evaluations = [row for row in metrics(whole(kind)) if row["kind"] == "eval"]
        best = max(evaluations, key=lambda row: row["metrics"]["best@2"])  # the first of equals
        assert state["step"] == 6
        assert state["best"] == {"step": best["step"], "metric": "best@2", "value": best["metrics"]["best@2"]}
        rates = state.get("running", {})
        assert len(rates) == (6 * 8 if kind == "running" else 0)  # every prompt of an epoch's beginning
        assert all(0 <= rate <= 1 for rate in rates.values())
        policy, anchor = load_file(folder / "policy.safetensors"), load_file(folder / "anchor.safetensors")
        optimizer = load_file(folder / "optimizer.safetensors")
        assert set(policy) == set(anchor)
        assert set(optimizer) == {f"{name}/{key}" for name in policy for key in ("step", "exp_avg", "exp_avg_sq")}
        assert all(float(optimizer[f"{name}/step"]) == 6 for name in policy)
        assert any((policy[name] != anchor[name]).any() for name in policy)
        assert all("lora_" in name for name in policy) == (kind in ("lora", "upper_layers"))
    head = load_file(whole("value_head") / "checkpoints" / "step_000006" / "value_head.safetensors")
    assert head["weight"].abs().max() > 0


def test_an_existing_checkpoint_is_never_overwritten(whole, tmp_path):
    folder = shutil.copytree(whole("plain") / "checkpoints", tmp_path / "checkpoints")
    before = contents(folder)
    other = checkpoint.Checkpoint(tensors={}, state={"step": 6}, identity={"seed": 7})
    assert checkpoint.save(folder, 6, other, keep=2) == folder / "step_000006"
    assert contents(folder) == before


# ---- 3: killed anywhere ----


@pytest.mark.parametrize(
    ("calls", "num_steps", "at_least"),
    [(["fsync", "replace"], 2, 2 * 8), (["unlink", "rmdir"], 3, 5)],
    ids=["at every fsync and rename", "at every removal"],
)
def test_killed_at_every_place(driver, tmp_path, calls, num_steps, at_least):
    every = 2 if "fsync" in calls else 0
    overrides = (f"training.steps={num_steps}", "training.checkpoint_every=1", f"eval.every={every}")
    assert driver.train(tmp_path / "whole", *overrides).code == 0
    wanted = outcome(tmp_path / "whole")
    for n in range(1, 200):
        run = tmp_path / str(n)
        result = driver.train(run, *overrides, kill_at=n, kill_in=calls)
        if result.code == 0:
            break
        assert result.code == -9, result.output
        resumed = driver.train(run, *overrides)
        assert resumed.code == 0, (n, resumed.output)
        assert "damaged" not in resumed.output, (n, resumed.output)
        assert outcome(run) == wanted, n
        assert not list(run.rglob(".tmp-*")), n
        shutil.rmtree(run)
    assert n > at_least


@pytest.mark.parametrize("kind", KINDS)
def test_six_steps_are_three_a_kill_and_three(driver, whole, tmp_path, kind):
    overrides, run = (*SIX, *KINDS[kind]), tmp_path / "run"
    polls = tmp_path / "polls"
    driver.train(tmp_path / "counted", *overrides, polls=str(polls))
    killed = driver.train(run, *overrides, signals=[int(int(polls.read_text()) * 0.8), ["SIGKILL"]])
    assert killed.code == -9
    assert steps(run) == [3]
    assert max(row["step"] for row in metrics(run)) > 3  # what the resumed run must cut and write again
    resumed = driver.train(run, *overrides)
    assert resumed.code == 0, resumed.output
    assert "continuing after step 3" in resumed.output
    assert outcome(run) == outcome(whole(kind))


@pytest.mark.parametrize("threads", [2, 3])
def test_on_several_threads_a_run_is_repeated_and_resumed_bitwise(driver, tmp_path, threads):
    """Steps as large as a user's: below some 30,000 numbers torch uses one thread whatever it has."""
    large = ("training.prompts_per_step=16", "sampling.samples=32", "eval.every=0", "training.steps=4")
    large += ("training.checkpoint_every=2",)
    assert driver.train(tmp_path / "whole", *large, threads=threads).code == 0
    assert driver.train(tmp_path / "again", *large, threads=threads).code == 0
    assert outcome(tmp_path / "again") == outcome(tmp_path / "whole")
    killed = driver.train(tmp_path / "killed", *large, threads=threads, kill_at=12)
    assert killed.code == -9
    assert steps(tmp_path / "killed") == [2]
    assert driver.train(tmp_path / "killed", *large, threads=threads).code == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


# ---- 4: damaged ----


def truncate(folder):
    path = folder / "optimizer.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(folder):
    path = folder / "policy.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_a_file(folder):
    (folder / "anchor.safetensors").unlink()


def tear_the_manifest(folder):
    os.truncate(folder / "MANIFEST.json", 20)


DAMAGES = [truncate, flip_a_bit, lose_a_file, tear_the_manifest]


@pytest.fixture(scope="module")
def stopped(driver, tmp_path_factory):
    """A run killed after its sixth step, with checkpoints after steps 4 and 6; and the one that was left alone."""
    overrides = ("training.steps=8", "training.checkpoint_every=2", "eval.every=4")
    folder = tmp_path_factory.mktemp("stopped")
    assert driver.train(folder / "whole", *overrides, polls=str(folder / "polls")).code == 0
    place = int(int((folder / "polls").read_text()) * 0.76)
    driver.train(folder / "run", *overrides, signals=[place, ["SIGKILL"]])
    assert steps(folder / "run") == [4, 6]
    return folder / "run", outcome(folder / "whole"), overrides


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over(driver, stopped, tmp_path, damage):
    original, wanted, overrides = stopped
    run = shutil.copytree(original, tmp_path / "run")
    damage(run / "checkpoints" / "step_000006")
    resumed = driver.train(run, *overrides)
    assert resumed.code == 0, resumed.output
    assert "step_000006 is damaged" in resumed.output
    assert "continuing after step 4" in resumed.output
    assert outcome(run) == wanted
    # The damaged one counts neither as written nor as kept: there are two whole ones again, and it is still to be seen.
    assert steps(run) == [6, 8]
    for step in steps(run):
        checkpoint.verify(run / "checkpoints" / f"step_{step:06d}")
    assert (run / "checkpoints" / "damaged_step_000006").is_dir()


def test_all_damaged(driver, stopped, tmp_path):
    original, wanted, overrides = stopped
    run = shutil.copytree(original, tmp_path / "run")
    for step in steps(run):
        flip_a_bit(run / "checkpoints" / f"step_{step:06d}")
    before = contents(run / "checkpoints"), (run / "metrics.jsonl").read_bytes()
    refused = driver.train(run, *overrides)
    assert refused.code == 1
    assert "All checkpoints" in refused.message
    assert "step_000004" in refused.message
    assert (contents(run / "checkpoints"), (run / "metrics.jsonl").read_bytes()) == before
    shutil.move(run / "checkpoints", run / "away")  # as the message says
    assert driver.train(run, *overrides).code == 0
    assert outcome(run) == wanted


# ---- 5: no room ----


def assert_stopped_in_one_sentence(result, *, code=1):
    assert result.code == code, result.output
    assert result.message.startswith("error: ")
    assert "Traceback" not in result.output
    assert "Exception ignored" not in result.output


@pytest.mark.parametrize("limit", [400_000, 900_000], ids=["first file", "last file"])
def test_a_full_disk_at_a_checkpoint(driver, stopped, tmp_path, limit):
    original, wanted, overrides = stopped
    run = shutil.copytree(original, tmp_path / "run")
    before = contents(run / "checkpoints")
    full = driver.train(run, *overrides, file_limit=limit)
    assert_stopped_in_one_sentence(full)
    assert "checkpoint of step 8 could not be written" in full.message
    assert "too large" in full.message.lower()
    assert contents(run / "checkpoints") == before
    assert driver.train(run, *overrides).code == 0
    assert outcome(run) == wanted


def test_a_full_disk_at_the_metrics_or_the_recipe(driver, tmp_path):
    overrides = ("training.steps=6", "training.checkpoint_every=0", "eval.every=0")
    assert driver.train(tmp_path / "whole", *overrides).code == 0
    full = driver.train(tmp_path / "run", *overrides, file_limit=2000)
    assert_stopped_in_one_sentence(full)
    assert f"after step 4: File too large ({tmp_path / 'run'})" in full.message
    assert driver.train(tmp_path / "run", *overrides).code == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert_stopped_in_one_sentence(driver.train(tmp_path / "none", *overrides, file_limit=600), code=2)


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", folder]).returncode:
        pytest.skip("mounting needs privileges")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_file_system_that_is_really_full_or_read_only(driver, stopped, disk):
    original, wanted, overrides = stopped
    run = shutil.copytree(original, disk / "run")
    before = contents(run / "checkpoints")
    (disk / "ballast").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - 1_500_000)))
    full = driver.train(run, *overrides)
    assert_stopped_in_one_sentence(full)
    assert "No space left" in full.message
    assert contents(run / "checkpoints") == before
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert_stopped_in_one_sentence(driver.train(run, *overrides), code=2)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    (disk / "ballast").unlink()
    assert driver.train(run, *overrides).code == 0
    assert outcome(run) == wanted


# ---- 6: another recipe ----


def test_another_recipe_is_refused(driver, stopped, tmp_path):
    original, wanted, overrides = stopped
    run = shutil.copytree(original, tmp_path / "run")
    before = contents(run)
    for other in ("seed=1", "training.lr=2e-4", "objective.name=rloo", "training.steps=9"):
        refused = driver.train(run, *overrides, other)
        assert_stopped_in_one_sentence(refused, code=2)
        assert "other settings" in refused.message
        assert contents(run) == before
    with pytest.raises(BontuneError, match="other settings"):
        checkpoint.load_latest(run / "checkpoints", {"seed": 7})
    assert driver.train(run, *overrides, "training.checkpoint_every=3", "sampling.token_budget=60000").code == 0
    assert outcome(run) == wanted


def test_other_weights_under_the_same_name_are_refused(tmp_path):
    """A base model that was trained anew in its folder: what is left of the run would start from another model."""
    from safetensors.torch import load_file, save_file

    from bontune.config import load_recipe
    from bontune.models import resolve
    from bontune.training.trainer import Trainer

    model = shutil.copytree(resolve("countdown-tiny"), tmp_path / "model")
    settings = load_recipe(
        "countdown",
        [
            f"model={model}",
            f"run={tmp_path / 'run'}",
            "training.steps=2",
            "training.prompts_per_step=2",
            "eval.every=0",
            "sampling.samples=4",
            "objective.n=2",
            "training.device=cpu",
        ],
    )
    Trainer(settings, is_quiet=True).train()
    weights = load_file(model / "model.safetensors")
    save_file({name: 1.01 * tensor for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})
    before = contents(tmp_path / "run" / "checkpoints")
    with pytest.raises(BontuneError, match="the weights of the model changed"):
        Trainer(settings, is_quiet=True).train()
    assert contents(tmp_path / "run" / "checkpoints") == before
    shutil.copytree(resolve("countdown-tiny"), model, dirs_exist_ok=True)
    assert Trainer(settings, is_quiet=True).train()["steps"] == 2
