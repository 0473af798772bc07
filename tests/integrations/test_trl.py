"""Contract of the integration with TRL, on the real one (``make test-trl``):

1. a batch's advantages, in what is logged too, are the objective's on all rewards of each group;
2. verifier and reward can be two; a sample without a reward has no weight;
3. several processes train as one; a killed run goes on to the same weights and reference, with adapters too;
4. the reference is the moving average that it says; the coefficient of the KL follows its schedule;
5. what cannot work is refused in one sentence, and the examples are read by TRL's own parser.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed; make test-trl")

from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForSequenceClassification
from trl import GRPOTrainer, ModelConfig, TrlParser

import bontune.objectives as objectives
import tiny
from bontune import task_from_rows
from bontune.base.errors import BontuneError
from bontune.integrations.groups import group_objectives
from bontune.integrations.trl import BoNGRPOConfig, BoNGRPOTrainer, check_version, task_dataset, task_reward
from bontune.integrations.trl.script import BoNScriptArguments
from bontune.verifiers import load_verifier

HERE = Path(__file__).parent
EXAMPLES = sorted((HERE.parents[1] / "docs" / "examples" / "trl").glob("*.yaml"))
M = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trl")
    tiny.model(sharp=2.0).save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    return folder


def letters() -> Any:
    rows = [{"prompt": f"{letter}="} for letter in "abcdefghijkl"]
    return task_from_rows(rows, lambda row, text: text[:1] in tuple("abcdefghijklmnopqrst"), hold_out=0.25)


def settings(folder: Path, **given: Any) -> BoNGRPOConfig:
    usual = {
        "n": 4,
        "num_generations": M,
        "per_device_train_batch_size": 2 * M,
        "max_steps": 2,
        "max_completion_length": 4,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "temperature": 1.0,
    }
    return BoNGRPOConfig(output_dir=str(folder / "out"), **usual | given)


def trainer(folder: Path, reward: Any = None, *, verifier: Any = None, **given: Any) -> BoNGRPOTrainer:
    task = letters()
    return BoNGRPOTrainer(
        str(folder / "model"),
        reward or task_reward(task),
        settings(folder, **given),
        train_dataset=task_dataset(task),
        verifier=verifier,
    )


def length(completions: list[str], **_: Any) -> list[float]:
    """A score that has little to do with the reward."""
    return [float(sum(map(ord, text)) % 7) for text in completions]


def batches(run: BoNGRPOTrainer, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What every batch of a training holds, with the rewards by function."""
    seen = []
    make = BoNGRPOTrainer._generate_and_score_completions

    def watched(self: BoNGRPOTrainer, inputs: Any) -> Any:
        batch = make(self, inputs)
        logged = torch.tensor(list(self._logs["advantages"])[-len(batch["advantages"]) :])
        seen.append({**batch, "matrix": self._rewards_by_function, "logged": logged})
        return batch

    monkeypatch.setattr(BoNGRPOTrainer, "_generate_and_score_completions", watched)
    run.train()
    return seen


@pytest.mark.parametrize("name", group_objectives())
def test_advantages_are_the_objectives(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(folder, objective=name, verifier=length if name in ("bon_rl", "rank", "bon_rl_variational") else None)
    seen = batches(run, monkeypatch)
    assert len(seen) == 2
    for batch in seen:
        rewards, scores = (batch["matrix"][:, i].view(-1, M).double() for i in (0, -1))
        assert 0 < rewards.sum() < rewards.numel(), "some are right, some are wrong"
        function = objectives.get(name)
        if name in ("bon_rl", "bon_rl_variational", "rank"):
            wanted = function(rewards, scores, 4)
        elif name in ("pkpo", "passk_training", "bon_rlb", "bon_rlbp"):
            wanted = function(rewards, 4)
        else:
            wanted = function(rewards)
        torch.testing.assert_close(batch["advantages"].double().view(-1, M), wanted, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(batch["logged"], batch["advantages"])


def test_rewards_and_values_are_logged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(folder, verifier=length)
    seen = batches(run, monkeypatch)
    rows = [row for row in run.state.log_history if "bon/pass@1" in row]
    for batch, row in zip(seen, rows, strict=True):
        rewards, scores = (batch["matrix"][:, i].view(-1, M).double() for i in (0, 1))
        assert row["bon/pass@1"] == pytest.approx(rewards.mean().item()) == pytest.approx(row["reward"])
        assert row["bon/pass@8"] == pytest.approx(rewards.max(-1).values.mean().item())
        best = scores == scores.max(-1, keepdim=True).values
        assert row["bon/best_of_8"] == pytest.approx(((rewards * best).sum(-1) / best.sum(-1)).mean().item())
        assert {f"bon/best_of_{k}" for k in (1, 2, 4, 8)} <= row.keys()


def test_the_verifier_can_be_one_of_the_reward_functions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = [length, task_reward(letters())]
    batch = batches(trainer(folder, functions, verifier_index=0), monkeypatch)[0]
    scores, rewards = (batch["matrix"][:, i].view(-1, M).double() for i in (0, 1))
    torch.testing.assert_close(batch["advantages"].double().view(-1, M), objectives.bon_rl(rewards, scores, 4))


def test_the_verifier_can_be_a_classifier(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(**shape, num_key_value_heads=2, vocab_size=100, num_labels=1, pad_token_id=0)
    Qwen2ForSequenceClassification(config).save_pretrained(folder / "verifier")
    tiny.tokenizer().save_pretrained(folder / "verifier")
    batch = batches(trainer(folder, verifier=str(folder / "verifier")), monkeypatch)[0]
    rewards, scores = (batch["matrix"][:, i].view(-1, M).double() for i in (0, 1))
    assert len(set(scores.flatten().tolist())) > M
    torch.testing.assert_close(batch["advantages"].double().view(-1, M), objectives.bon_rl(rewards, scores, 4))


@pytest.mark.parametrize("how", ["name", "pair", "verifier"])
def test_a_verifier_of_ours_scores_as_everywhere(folder: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end token stands behind the texts that TRL's RewardTrainer was given, and TRL's GRPOTrainer leaves it out."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(**shape, num_key_value_heads=2, vocab_size=100, num_labels=1, pad_token_id=0)
    model = Qwen2ForSequenceClassification(config).eval()
    model.add_model_tags(["trl", "reward-trainer"])
    model.save_pretrained(folder / "ended")
    tiny.tokenizer().save_pretrained(folder / "ended")
    given = {
        "name": f"{folder / 'ended'}#eos",
        "pair": (model, tiny.tokenizer()),
        "verifier": load_verifier("reward_model", path=str(folder / "ended"), end="eos"),
    }[how]
    run = trainer(folder, verifier=given, max_steps=1)
    seen: list[tuple[str, str, float]] = []
    reward = run.reward_funcs[-1]

    def noting(prompts: Any, completions: Any, **options: Any) -> Any:
        found = reward(prompts=prompts, completions=completions, **options)
        seen.extend(zip(prompts, completions, found, strict=True))
        return found

    run.reward_funcs[-1] = noting
    run.train()
    assert len(seen) == 2 * M
    for prompt, completion, score in seen:
        with torch.no_grad():
            text = completion if completion.endswith("<eos>") else f"{completion}<eos>"
            ids = torch.tensor([tiny.tokenizer()(prompt + text)["input_ids"]])
            assert score == pytest.approx(model(input_ids=ids).logits.item(), abs=1e-5)


def test_a_sample_without_a_reward_has_no_weight(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = task_reward(letters())

    def sometimes(completions: list[str], **options: Any) -> list[float | None]:
        found = plain(completions=completions, **options)
        return [None if i in (2, 5) else value for i, value in enumerate(found)]

    batch = batches(trainer(folder, sometimes), monkeypatch)[0]
    advantages = batch["advantages"].double().view(-1, M)
    assert advantages[0, [2, 5]].tolist() == [0.0, 0.0]
    kept = torch.tensor([0, 1, 3, 4, 6, 7])
    rewards = batch["matrix"][:, 0].view(-1, M).double()
    wanted = objectives.bon_rl(rewards[0, kept], rewards[0, kept], 4) * M / len(kept)
    torch.testing.assert_close(advantages[0, kept], wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(advantages[1], objectives.bon_rl(rewards[1], rewards[1], 4), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("samples", [2, 8])
def test_an_evaluation_may_have_fewer_samples_than_n(folder: Path, samples: int) -> None:
    task = letters()
    run = BoNGRPOTrainer(
        str(folder / "model"),
        task_reward(task, "test"),
        settings(folder, num_generations_eval=samples, per_device_eval_batch_size=8),
        train_dataset=task_dataset(task),
        eval_dataset=task_dataset(task, "test"),
    )
    found = run.evaluate()
    assert 0 <= found["eval_bon/pass@1"] <= found[f"eval_bon/pass@{samples}"] <= 1


def test_a_later_trl_calls_the_hook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's proposed ``_transform_advantages`` gets all advantages, before they are logged and shared out."""
    ours = BoNGRPOTrainer._transform_advantages
    called = []
    theirs = GRPOTrainer._generate_and_score_completions

    def later(self: Any, inputs: Any) -> Any:
        batch = theirs(self, inputs)
        batch["advantages"] = self._transform_advantages(batch["advantages"])
        return batch

    monkeypatch.setattr(GRPOTrainer, "_transform_advantages", lambda self, a: a, raising=False)
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", later)
    monkeypatch.setattr(BoNGRPOTrainer, "_transform_advantages", lambda self, a: [called.append(1), ours(self, a)][1])
    run = trainer(folder)
    batch = run._generate_and_score_completions(next(iter(run.get_train_dataloader())))
    rewards = run._rewards_by_function.view(-1, M).double()
    torch.testing.assert_close(batch["advantages"].double().view(-1, M), objectives.bon_rl(rewards, rewards, 4))
    assert called == [1]


def test_the_share_of_capped_ratios_is_logged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = GRPOTrainer._generate_and_score_completions

    def with_ratios(self: Any, inputs: Any) -> Any:
        ratios = torch.ones(2 * M, 1)
        ratios[:4] = self.vllm_importance_sampling_clip_max
        return theirs(self, inputs) | {"importance_sampling_ratio": ratios}

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", with_ratios)
    run = trainer(folder, max_steps=1)
    run.train()
    assert run.state.log_history[0]["bon/truncated_ratios"] == pytest.approx(4 / (2 * M))


def test_the_coefficient_of_the_kl_follows_its_schedule(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(folder, max_steps=6, beta=0.5, beta_end=0.1, beta_delay=1, beta_steps=4)
    seen = []
    step = GRPOTrainer._compute_loss
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", lambda self, *a: [seen.append(self.beta), step(self, *a)][1])
    run.train()
    assert seen == pytest.approx([0.5, 0.5, 0.4, 0.3, 0.2, 0.1])


# ---- processes, kills, the reference ----


def drive(folder: Path, run: str, processes: int = 1, *, fails: bool = False, **given: Any) -> dict[str, Any]:
    how = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    request = json.dumps({"folder": str(folder), "run": run, **given})
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(
        [sys.executable, *how, str(HERE / "trl_driver.py"), request],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return {} if fails else torch.load(folder / f"{run}.pt")


def assert_same(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    for part in ("policy", "reference"):
        for name, tensor in one[part].items():
            torch.testing.assert_close(other[part][name], tensor, atol=tolerance, rtol=0)


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapters"])
def test_two_processes_train_as_one(folder: Path, lora: bool) -> None:
    """A group of eight lies on both of them."""
    name = f"lora{lora}"
    one = drive(folder, f"one-{name}", lora=lora)
    halves = {"per_device_train_batch_size": 8}
    two = drive(folder, f"two-{name}", 2, lora=lora, settings=halves)
    assert_same(one, two, 2e-4)
    start = load_file(folder / "model" / "model.safetensors")
    moved = [name for name, tensor in one["policy"].items() if not torch.equal(tensor, start.get(name, tensor * 0 + 9))]
    assert moved, "it trained"
    keys = [key for key in one["log"][0] if key.startswith("bon/")]
    for mine, theirs in zip(one["log"], two["log"], strict=True):
        assert [mine.get(k) for k in keys] == pytest.approx([theirs.get(k) for k in keys])


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapters"])
def test_a_killed_run_goes_on_to_the_same_weights_and_reference(folder: Path, lora: bool) -> None:
    name = f"lora{lora}"
    whole = drive(folder, f"whole-{name}", lora=lora)
    drive(folder, f"part-{name}", lora=lora, kill_at=3, fails=True)
    part = drive(folder, f"part-{name}", lora=lora, resume=True)
    assert_same(whole, part, 0)
    if not lora:
        (folder / f"part-{name}" / "checkpoint-2" / "reference.safetensors").unlink()
        with pytest.raises(AssertionError, match="made without a moving reference"):
            drive(folder, f"part-{name}", resume=str(folder / f"part-{name}" / "checkpoint-2"))


@pytest.mark.parametrize("start", [True, "pissa", "olora"])
def test_policy_and_reference_begin_as_the_model_however_adapters_begin(folder: Path, start: Any) -> None:
    """PiSSA and OLoRA take a part out of the base weights, which a second adapter must not do again."""
    peft = pytest.importorskip("peft")
    model = tiny.model(sharp=2.0)
    ids = torch.tensor([[4, 5, 6, 7]])
    wanted = model(input_ids=ids).logits.detach().clone()
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=start)
    run = BoNGRPOTrainer(
        str(folder / "model"),
        task_reward(letters()),
        settings(folder, beta=0.1),
        train_dataset=task_dataset(letters(), "train"),
        peft_config=config,
    )
    for adapter in ("default", "ref"):
        run.model.set_adapter(adapter)
        assert torch.allclose(run.model(input_ids=ids).logits, wanted, atol=1e-4), adapter


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapters"])
def test_the_reference_is_a_moving_average(folder: Path, lora: bool) -> None:
    """Rate 0.3: what the policy was at each step is read from checkpoints of every step."""
    name = f"steps-lora{lora}"
    done = drive(folder, name, lora=lora, settings={"save_steps": 1, "max_steps": 3})
    average: dict[str, torch.Tensor] = {}
    for step in (0, 1, 2, 3):
        path = folder / name / f"checkpoint-{step}" / ("adapter_model.safetensors" if lora else "model.safetensors")
        if step == 0:
            continue
        for key, tensor in load_file(path).items():
            start = torch.zeros_like(tensor) if lora else load_file(folder / "model" / "model.safetensors")[key]
            if lora and "lora_A" in key:
                continue  # begins at random
            average[key] = torch.lerp(average.get(key, start), tensor, 0.3)
    for key, tensor in average.items():
        where = key.replace("lora_B.weight", "lora_B.ref.weight") if lora else key
        torch.testing.assert_close(done["reference"][where], tensor, atol=1e-6, rtol=1e-5)


SHARDED = """
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import tiny
from bontune.base.errors import BontuneError
from bontune.integrations.trl.trainer import MovingReference
from trl.trainer.callbacks import SyncRefModelCallback

folder = Path(sys.argv[1])
mesh = init_device_mesh("cpu", (2,))
policy, reference = (fully_shard(tiny.model(seed=seed), mesh=mesh) for seed in (0, 1))
rank = torch.distributed.get_rank()
accelerator = SimpleNamespace(
    process_index=rank, num_processes=2, is_main_process=rank == 0, unwrap_model=lambda model: model
)
trainer = SimpleNamespace(
    model=policy, ref_model=reference, accelerator=accelerator, _get_output_dir=lambda trial: str(folder)
)
moving = MovingReference(trainer)
SyncRefModelCallback._sync_target_model(policy, reference, 0.3)  # as TRL moves it after a step
wanted = {name: p.full_tensor() for name, p in reference.named_parameters()}
for (name, whole), (_, one), (_, other) in zip(
    wanted.items(), tiny.model(seed=0).named_parameters(), tiny.model(seed=1).named_parameters()
):
    torch.testing.assert_close(whole, torch.lerp(other.detach(), one.detach(), 0.3))
moving.save(7)
torch.distributed.barrier()
with torch.no_grad():
    for p in reference.parameters():
        p.mul_(0)
moving.load(str(folder / "checkpoint-7"))
for name, p in reference.named_parameters():
    assert torch.equal(p.full_tensor(), wanted[name])
accelerator.num_processes = 4
try:
    moving.load(str(folder / "checkpoint-7"))
except BontuneError as error:
    assert "another number of processes" in str(error)
else:
    raise AssertionError
torch.distributed.barrier()
os._exit(0)  # the threads of gloo do not always end in peace
"""


def test_a_reference_that_is_split_over_processes_is_kept_in_parts(tmp_path: Path) -> None:
    """With FSDP each process holds, moves and writes its own part."""
    (tmp_path / "sharded.py").write_text(SHARDED)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "sharded.py", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = sorted(path.name for path in (tmp_path / "checkpoint-7").iterdir())
    assert names == ["reference-0-of-2.safetensors", "reference-1-of-2.safetensors"]


# ---- what is refused, and the examples ----


@pytest.mark.parametrize(
    ("given", "phrase"),
    [
        ({"objective": "bon_rll"}, "did you mean 'bon_rl'"),
        ({"objective": "bon_sft"}, "which only `bontune train` has"),
        ({"n": 9}, "n = 9 is more than the 8 samples"),
        ({"n": "{1: 2}"}, "n must be a whole number, or weights"),
        ({"n": {"all": 1.0}}, "n must be a whole number, or weights"),
        ({"beta": 0.1, "beta_end": 0.05, "use_liger_kernel": True}, "which the loss of use_liger_kernel takes"),
        ({"objective_options": {"sign": "published"}}, "objective.sign is for bon_rlb"),
        ({"objective": "bon_rlb", "objective_options": {"p_fail": "running"}}, "only known to `bontune train`"),
        ({"beta_end": 0.1}, "beta_end moves beta"),
        ({"beta": 0.1, "beta_end": 0.1, "beta_shape": "round"}, "beta_shape must be"),
        ({"scale_rewards": "group"}, "scale_rewards='group' is a setting of TRL's own advantages and changes nothing"),
        ({"scale_rewards": True}, "scale_rewards='group' is a setting"),
        (
            {"multi_objective_aggregation": "normalize_then_sum"},
            "multi_objective_aggregation='normalize_then_sum' is a",
        ),
        ({"beta": 0.1, "beta_steps": 3}, "describe how beta moves to beta_end"),
        ({"gradient_accumulation_steps": 5}, "holds 10 prompts, and there are 9: TRL would train no step"),
        ({"verifier": "majority"}, "majority needs what only `bontune train` has"),
        ({"verifier_index": 3}, "names none of the 1 reward functions"),
        ({"verifier_index": 0}, "names the only reward function"),
    ],
)
def test_what_cannot_work_is_refused(folder: Path, given: dict[str, Any], phrase: str) -> None:
    with pytest.raises(ValueError, match=phrase):
        trainer(folder, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"mask_truncated_completions": True},
        {"top_entropy_quantile": 0.2},
        {"off_policy_mask_threshold": 0.5},
        {"loss_type": "grpo"},
        {"loss_type": "sapo"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_settings_that_bias_the_gradient_are_warned_of(folder: Path, given: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="which biases the gradient"):
        settings(folder, **given)


def test_what_changes_nothing_may_be_said_as_it_is(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        given = {"scale_rewards": False, "multi_objective_aggregation": "sum_then_normalize", "loss_type": "dapo"}
        assert settings(folder, **given).scale_rewards == "none"


@pytest.mark.parametrize("version", ["0.24.0", "1.11.2", "1.9.0.dev0"])
def test_an_older_trl_is_refused(version: str) -> None:
    check_version("1.12.0")
    check_version("1.16.0.dev0")
    with pytest.raises(BontuneError, match=f"works with TRL 1.12 or newer, and TRL {version} is installed"):
        check_version(version)


def test_a_weight_of_the_verifier_is_warned_of(folder: Path) -> None:
    with pytest.warns(UserWarning, match="gives the verifier 2, but it is not a reward"):
        made = trainer(folder, [length, task_reward(letters())], verifier_index=0, reward_weights=[2.0, 1.0])
    assert made.reward_weights.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = TrlParser((BoNScriptArguments, BoNGRPOConfig, ModelConfig))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    script, config, model = parser.parse_args_and_config(["--config", str(path), "--use_cpu", "--bf16", "false"])
    assert script.task
    assert model.model_name_or_path
    assert config.group_objective().largest_n > 1


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ("n: 40", "error: The objective bon_rl with n = 40 cannot take 8 samples"),
        ("objectiv: bon_rl", "error: Unknown arguments from config file: ['--objectiv'"),
        ("task: countdwn", "error: No task 'countdwn', did you mean 'countdown'?"),
        ("verifier: mine.nothing", "error: mine.nothing cannot be loaded"),
    ],
)
def test_the_command_trains_and_refuses(folder: Path, change: str, phrase: str) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"{c}="}) + "\n" for c in "abcdefghijkl"))
    (folder / "mine.py").write_text("def low(row, text):\n    return text[:1].islower()\n")
    lines = [
        "model_name_or_path: model",
        "task: jsonl",
        'task_options: {data: rows.jsonl, grader: "mine.py:low", hold_out: 0.25}',
        "output_dir: commanded",
        "n: {1: 0.5, 4: 0.5}",
        "objective_options: {baseline: loo1}",
        "num_generations: 8",
        "max_steps: 1",
        "max_completion_length: 4",
        "use_cpu: true",
        "bf16: false",
        "report_to: none",
    ]
    (folder / "bon.yaml").write_text("\n".join(lines) + "\n")
    (folder / "bad.yaml").write_text("\n".join([*lines, change]) + "\n")

    def launch(name: str) -> subprocess.CompletedProcess[str]:
        command = [
            "-m",
            "accelerate.commands.launch",
            "--num_processes",
            "1",
            "--cpu",
            "-m",
            "bontune.integrations.trl",
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *command, "--config", name],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    if change.startswith("n:"):
        done = launch("bon.yaml")
        assert done.returncode == 0, done.stderr
        assert "The model is in commanded." in done.stdout
        assert (folder / "commanded" / "model.safetensors").is_file()
    refused = launch("bad.yaml")
    assert refused.returncode != 0
    assert phrase in refused.stderr
    assert isinstance(BontuneError("x"), ValueError)
