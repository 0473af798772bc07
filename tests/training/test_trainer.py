"""Contract of the loop:

1. every objective runs, logs finite numbers and the seconds of each stage, and raises the reward of an easy task;
2. it trains for what it is told to: plain RL keeps the likelier of two answers, Best-of-2 keeps both in the derived
   proportion, Best-of-2 under a verifier that cannot tell them apart is plain RL again, N = 1 is rloo;
3. the run folder holds what it should, and the model in it is the model that was trained, adapters merged;
4. a grader's failure is counted, and above the allowed share it stops the run before the step;
5. what cannot work is refused before anything is written.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

import tiny
from bontune import Recipe, Trainer, task_from_rows
from bontune.base.errors import BontuneError, RunStopped
from bontune.config import KLSection, TrainingSection
from bontune.engines.contract import SamplingOptions
from bontune.engines.transformers import TransformersEngine
from bontune.models import load_model
from bontune.objectives import WINNER_OBJECTIVES
from bontune.objectives.table import ROWS
from bontune.tasks.rows import RowsTask
from bontune.training.evaluation import BestSteps
from bontune.training.failure_rate import rate_that_learns
from bontune.training.read_log import read_samples
from bontune.training.schedules import kl_coefficient, learning_rate
from bontune.verifiers import FunctionVerifier

STAGES = {"sample", "grade", "score", "weigh", "update"}
NUMBERS = {
    "step",
    "n",
    "reward",
    "pass_at_n",
    "best_of_n",
    "kl",
    "entropy",
    "loss",
    "grad_norm",
    "weighted",
    "length",
    "cut_off",
    "grader_errors",
    "timeouts",
    "crashes",
    "canaries",
    "samples",
    "lr",
    "kl_coef",
    "tokens_per_s",
}


def letters() -> RowsTask:
    """Begin with one of eight letters: a random model does in about one of ten cases."""
    rows = [{"prompt": f"{letter}="} for letter in "abcdefghijkl"]
    return task_from_rows(rows, lambda row, text: text[:1] in tuple("abcdefgh"), hold_out=0.25)


def recipe(run: Path, **sections: Any) -> Recipe:
    tree: dict[str, Any] = {
        "objective": {"name": "bon_rl", "n": 4},
        "sampling": {"samples": 16, "max_new_tokens": 2},
        "training": {
            "steps": 12,
            "prompts_per_step": 8,
            "lr": 0.01,
            "warmup": 0,
            "first_step_kl": None,
            "decay": "constant",
            "checkpoint_every": 0,
            "device": "cpu",
        },
        "kl": {"start": 0.01, "end": 0.01},
        "eval": {"every": 0, "samples": 4, "k": [1, 4]},
        "run": str(run),
    }
    for name, section in sections.items():
        tree[name] = tree[name] | section if isinstance(section, dict) and name in tree else section
    return Recipe.from_dict(tree)


def trainer(settings: Recipe, task: Any = None, **options: Any) -> Trainer:
    options = {"model": tiny.model(sharp=2.0), "tokenizer": tiny.tokenizer()} | options
    return Trainer(settings, task=task or letters(), is_quiet=True, **options)


def rows_of(run: Path, kind: str = "step") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["kind"] == kind]


def mean(rows: list[dict[str, Any]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


CASES: list[tuple[str, dict[str, Any]]] = [
    *((row.name, {}) for row in ROWS if row.is_policy_gradient),
    *(("bon_rl", {"baseline": baseline}) for baseline in ("loo", "loo1", "none")),
    *((name, {"p_fail": kind}) for name in ("bon_rlb", "bon_rlbp") for kind in ("running", "value_head")),
    ("bon_rlb", {"sign": "published"}),
    ("bon_rlb", {"baseline": "none"}),
    ("rank", {"weights": "top_m", "m": 2}),
    ("bon_rl", {"n": {1: [1.0, 0.5], 4: [0.0, 0.5]}, "baseline": "loo1"}),
    ("passk_training", {"n": {1: 0.5, 4: 0.5}}),
    *((name, {"draw": "winner"}) for name in WINNER_OBJECTIVES),
]
NOISY = ({"name": "bon_rlb", "n": 4, "baseline": "none"}, {"name": "inference_loo", "n": 4})
"""Without baseline bon_rlb weighs right and wrong samples alike up to a factor: unbiased and too noisy for few steps.
inference_loo trains for the best of all M samples, which is 1 here nearly from the start."""


@pytest.mark.parametrize(
    ("name", "options"), CASES, ids=lambda part: part if isinstance(part, str) else str(part or "")
)
def test_every_objective_trains(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    objective = {"name": name, "n": 4, **options}
    summary = trainer(recipe(tmp_path, objective=objective)).train()
    rows = rows_of(tmp_path)
    of_p_fail = {"running": {"p_fail", "p_fail_skill", "p_fail_met"}, "value_head": {"p_fail", "p_fail_skill"}}
    numbers = NUMBERS | of_p_fail.get(options.get("p_fail", ""), set())
    assert [row["step"] for row in rows] == list(range(1, 13))
    for row in rows:
        assert set(row) == numbers | {"kind", "seconds"}
        assert all(math.isfinite(row[number]) for number in numbers)
        assert set(row["seconds"]) == STAGES
        assert all(0 <= seconds < 60 for seconds in row["seconds"].values())
        assert 0 <= row["reward"] <= row["best_of_n"] == row["pass_at_n"] <= 1
        assert 0 <= row["weighted"] <= 1
        assert (row["n"], row["lr"], row["kl_coef"], row["grader_errors"]) == (4, 0.01, 0.01, 0)
    assert any(row["weighted"] > 0 for row in rows)
    assert rows[-1]["kl"] > 0, "the policy has moved off its anchor"
    assert summary["generations"] == 12 * 8 * 16
    if objective not in NOISY:
        assert mean(rows[-3:], "reward") > mean(rows[:3], "reward") + 0.15
        assert mean(rows[-3:], "best_of_n") > 0.7


# ---- it trains for what it is told to ----


def test_the_verifiers_score_as_reward_is_training_on_that_score(tmp_path: Path) -> None:
    """RL with the verifier as reward: what the environment says must not matter, to the last bit."""

    def score(text: str) -> float:
        return sum(letter in "abc" for letter in text) / 2

    rows = [{"prompt": f"{letter}="} for letter in "abcdefghijkl"]
    weights = []
    for name, reward, task in (
        ("verifier", "verifier", task_from_rows(rows, lambda row, text: 0.0, hold_out=0.25)),
        ("environment", "environment", task_from_rows(rows, lambda row, text: score(text), hold_out=0.25)),
    ):
        run = trainer(
            recipe(tmp_path / name, objective={"name": "rloo", "reward": reward}, training={"steps": 3}),
            task,
            verifier=lambda problem, text: score(text),
        )
        run.train()
        weights.append(run.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_canaries_are_counted(tmp_path: Path) -> None:
    run = trainer(recipe(tmp_path, training={"steps": 1}))
    run.train()
    assert rows_of(tmp_path)[0]["canaries"] == 0
    assert rows_of(tmp_path)[0]["samples"] == 8 * 16


def two_answers() -> RowsTask:
    """One prompt; "capital letter first" is right in 6 of 10 rows, anything else in 4: no answer is always right.

    With P(capital) = p, E[pass@2] = .6 (1 − (1−p)²) + .4 (1 − p²), greatest at p = .6 where it is .76; pass@1 is
    greatest at p = 1 with .6.
    """
    rows = [{"prompt": "which?", "is_capital": i < 6} for i in range(10)]
    return task_from_rows(rows, lambda row, text: text[:1].isupper() == row["is_capital"], hold_out=0.0)


def share_of_capitals(model: torch.nn.Module) -> float:
    tokenizer = tiny.tokenizer()
    ids = torch.tensor([tokenizer("which?")["input_ids"]])
    with torch.no_grad():
        probs = model(ids).logits[0, -1].float().softmax(-1)
    return float(sum(p for i, p in enumerate(probs) if tokenizer.decode([i]).isupper()))


@pytest.mark.parametrize(
    ("objective", "is_blind", "low", "high"),
    [("rloo", False, 0.9, 1.0), ("bon_rl", False, 0.48, 0.72), ("pkpo", False, 0.48, 0.72), ("bon_rl", True, 0.9, 1.0)],
    ids=["rl", "best-of-2", "pass@2", "best-of-2, verifier blind"],
)
def test_the_answers_kept_are_the_ones_that_pay(
    tmp_path: Path, objective: str, is_blind: bool, low: float, high: float
) -> None:
    settings = recipe(
        tmp_path,
        objective={"name": objective, "n": 2},
        sampling={"samples": 32, "max_new_tokens": 1},
        training={"steps": 60, "prompts_per_step": 10, "decay": "linear", "lr": 0.01},
        kl={"start": 0.0, "end": 0.0},
    )
    verifier = FunctionVerifier(lambda problem, text: 0.0, "blind") if is_blind else None
    run = trainer(settings, two_answers(), verifier=verifier)
    before = share_of_capitals(run.model)
    assert 0.1 < before < 0.5
    run.train()
    assert low <= share_of_capitals(run.model) <= high
    last = rows_of(tmp_path)[-1]
    assert last["best_of_n"] == pytest.approx(last["reward" if is_blind else "pass_at_n"])


def test_best_of_1_is_rloo(tmp_path: Path) -> None:
    weights = []
    for name in ("rloo", "bon_rl"):
        run = trainer(recipe(tmp_path / name, objective={"name": name, "n": 1}, training={"steps": 4}))
        run.train()
        weights.append(torch.cat([p.detach().flatten() for p in run.model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_several_budgets_go_from_the_first_weights_to_the_last(tmp_path: Path) -> None:
    """The first step of a schedule that begins with N = 1 alone is plain RL's; a run's aim has the last weights."""
    several = {"name": "bon_rl", "n": {1: [1.0, 0.25], 4: [0.0, 0.75]}, "baseline": "loo1"}
    first = {}
    for name, objective in {"several": several, "one": {"name": "bon_rl", "n": 1}}.items():
        run = trainer(recipe(tmp_path / name, objective=objective, training={"steps": 3}))
        run.train()
        first[name] = rows_of(tmp_path / name)
    assert first["several"][0]["loss"] == pytest.approx(first["one"][0]["loss"], abs=1e-6)
    assert first["several"][2]["loss"] != pytest.approx(first["one"][2]["loss"], abs=1e-4)
    section = recipe(tmp_path, objective=several).objective
    assert [section.n_at(part) for part in (0, 0.5, 1)] == [{1: 1.0, 4: 0.0}, {1: 0.625, 4: 0.375}, {1: 0.25, 4: 0.75}]
    again = Recipe.from_dict(yaml.safe_load(recipe(tmp_path, objective=several).to_yaml()))
    assert again == recipe(tmp_path, objective=several)
    best = BestSteps(recipe(tmp_path, objective=several, eval={"every": 1, "keep": ["pass@1+pass@4"]}))
    best.note(0, {"best@1": 0.5, "best@4": 0.6, "pass@1": 0.5, "pass@4": 0.6})
    best.note(1, {"best@1": 0.4, "best@4": 0.7, "pass@1": 0.4, "pass@4": 0.65})
    assert best.own == {"step": 1, "metric": "0.25·best@1 + 0.75·best@4", "value": pytest.approx(0.625)}
    assert best.kept == {"pass@1+pass@4": {"step": 0, "value": pytest.approx(0.55)}}


def test_how_well_p_fail_is_known_is_logged(tmp_path: Path) -> None:
    """Against the shares of each batch, which are known; with every prompt met at every step, running learns them."""
    settings = recipe(tmp_path, objective={"name": "bon_rlb", "n": 4, "p_fail": "running"}, training={"steps": 6})
    run = trainer(settings)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    estimate = run.state.failure_rates.estimate
    run.state.failure_rates.estimate = lambda graded: seen.append((estimate(graded), graded.rewards_PM)) or seen[-1][0]
    run.train()
    for row, (guess, rewards) in zip(rows_of(tmp_path), seen, strict=True):
        failed = 1 - rewards.mean(-1)
        skill = 1 - (guess - failed).square().mean() / failed.var(correction=0)
        assert row["p_fail"] == pytest.approx(guess.mean().item())
        assert row["p_fail_skill"] == pytest.approx(skill.item())
    met = [row["p_fail_met"] for row in rows_of(tmp_path)]
    assert met[0] == 0
    assert met[-1] == 1
    assert rate_that_learns(2500, 2304) == pytest.approx(1.1e-5, rel=0.02)  # Table 2 of the paper has 1e-5


@pytest.mark.parametrize(("steps", "sentence"), [(2, "amounts to plain RL"), (30, "a first visit takes the mean")])
def test_running_says_how_often_a_prompt_is_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: int, sentence: str
) -> None:
    settings = recipe(tmp_path, objective={"name": "bon_rlb", "p_fail": "running"}, training={"steps": steps})
    run = Trainer(settings, task=letters(), model=tiny.model(sharp=2.0), tokenizer=tiny.tokenizer())
    with run.running():
        run.resume()
    said = " ".join(capsys.readouterr().err.split())
    assert f"meets each of the 9 prompts {steps * 8 / 9:.3g} times in this run" in said
    assert sentence in said


def test_no_weight_and_no_kl_change_nothing(tmp_path: Path) -> None:
    """A constant reward gives zero advantages; without the KL the model stays bitwise as it was."""
    task = task_from_rows([{"prompt": f"{i}="} for i in range(8)], lambda row, text: 1.0, hold_out=0.0)
    run = trainer(recipe(tmp_path, kl={"start": 0.0, "end": 0.0}, training={"steps": 2}), task)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.train()
    assert all(torch.equal(p, before[name]) for name, p in run.model.named_parameters())
    assert [row["weighted"] for row in rows_of(tmp_path)] == [0.0, 0.0]


# ---- what a run leaves behind ----


def test_run_folder(tmp_path: Path) -> None:
    run_folder = tmp_path / "runs" / "a"
    settings = recipe(
        run_folder,
        training={"steps": 6, "checkpoint_every": 2, "warmup": 3, "decay": "linear"},
        eval={"every": 3, "problems": 2},
        kl={"start": 1.0, "end": 0.5, "steps": 2, "delay": 1},
    )
    run = trainer(settings)
    summary = run.train()
    assert {path.name for path in run_folder.iterdir()} - {".lock"} == {
        "recipe.yaml",
        "metrics.jsonl",
        "checkpoints",
        "model",
        "samples.jsonl",
        "first_evaluation.json",
        "summary.json",
    }
    assert Recipe.from_dict(json.loads(json.dumps(settings.model_dump(mode="json")))) == settings
    assert settings.to_yaml() == (run_folder / "recipe.yaml").read_text(encoding="utf-8")
    assert sorted(p.name for p in (run_folder / "checkpoints").iterdir()) == ["step_000004", "step_000006"]
    assert json.loads((run_folder / "summary.json").read_text()) == summary
    assert summary["steps"] == 6
    assert summary["best"]["metric"] == "best@4"

    rows, evaluations = rows_of(run_folder), rows_of(run_folder, "eval")
    assert [row["lr"] for row in rows] == pytest.approx([0.01 * f for f in (1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3)])
    assert [row["kl_coef"] for row in rows] == [1.0, 1.0, 0.75, 0.5, 0.5, 0.5]
    assert [row["step"] for row in evaluations] == [0, 3, 6]
    for row in evaluations:
        assert {"pass@1", "pass@4", "best@1", "best@4"} <= set(row["metrics"])
        assert all(low <= row["metrics"][name] <= high for name, (low, high) in row["intervals"].items())
    assert max(row["metrics"]["best@4"] for row in evaluations) == summary["best"]["value"]

    model, tokenizer = load_model(run_folder / "model")
    options = SamplingOptions(num_samples=8, max_new_tokens=6)
    texts = [
        TransformersEngine(of, by).draw(["a=", "b+="], options, [("x", 0), ("x", 1)]).texts
        for of, by in ((model, tokenizer), (run.model, run.tokenizer))
    ]
    assert texts[0] == texts[1]
    assert same_logits(model, run.model)


def same_logits(one: torch.nn.Module, other: torch.nn.Module, tolerance: float = 0.0) -> bool:
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        return torch.allclose(one(ids).logits, other(ids).logits, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_lora_leaves_adapters_and_a_merged_plain_model(tmp_path: Path, family: str) -> None:
    from peft import PeftModel

    base = tiny.model(family, sharp=2.0)
    frozen = {name: p.detach().clone() for name, p in base.named_parameters()}
    settings = recipe(tmp_path, training={"lora": {"r": 4}, "steps": 3})
    run = trainer(settings, model=base)
    run.train()
    for name, p in run.model.get_base_model().named_parameters():
        plain = name.replace(".base_layer", "")
        if plain in frozen:
            torch.testing.assert_close(p, frozen[plain], msg=f"{name} is frozen")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert type(merged) is type(tiny.model(family))
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert same_logits(merged, run.model, 1e-4)
    assert not same_logits(merged, tiny.model(family, sharp=2.0), 1e-2), "training has changed the model"
    adapted = PeftModel.from_pretrained(tiny.model(family, sharp=2.0), tmp_path / "adapter").eval()
    assert same_logits(adapted, run.model, 1e-5)
    assert not (tmp_path / "model" / "adapter_config.json").exists()


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tracking` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = recipe(tmp_path, training={"track": ["tensorboard"], "steps": 2}, eval={"every": 1, "problems": 2})
    trainer(settings).train()
    folder = tmp_path / "bontune"
    assert list(folder.glob("events.out.tfevents.*"))
    events = EventAccumulator(str(folder))
    events.Reload()
    logged = [(event.step, event.value) for event in events.Scalars("reward")]
    assert logged == [(row["step"], pytest.approx(row["reward"])) for row in rows_of(tmp_path)]
    assert [event.step for event in events.Scalars("eval/pass@1")] == [0, 1, 2]
    assert [event.step for event in events.Scalars("seconds/update")] == [1, 2]
    shown = events.Tensors("samples/text_summary")
    assert [event.step for event in shown] == [0, 1, 2]
    assert read_samples(tmp_path)[0]["prompt"] in shown[0].tensor_proto.string_val[0].decode()


def test_a_tracker_that_is_not_installed_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bontune.training.setup.find_spec", lambda name: None)
    with pytest.raises(BontuneError, match=r"wandb, which is not installed: pip install"):
        trainer(recipe(tmp_path / "run", training={"track": ["wandb"]}))
    assert not (tmp_path / "run").exists()


# ---- schedules ----


def test_learning_rate() -> None:
    config = TrainingSection(steps=10, lr=1.0, warmup=4, lr_end=0.4)
    # up in quarters; then from 1 to 0.4 in steps of 0.1, which it would reach one step after the last
    assert [learning_rate(step, config) for step in range(1, 12)] == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    )
    flat = config.model_copy(update={"decay": "constant"})
    assert {learning_rate(step, flat) for step in range(4, 11)} == {1.0}
    cosine = config.model_copy(update={"decay": "cosine"})
    assert learning_rate(8, cosine) == pytest.approx(0.7), "half-way down at half time"
    for few in (1, 3):
        assert learning_rate(few, TrainingSection(steps=few, lr=1.0, warmup=0)) > 0, "no update is idle"


def test_kl_coefficient() -> None:
    config = KLSection(start=1.0, end=0.01, steps=4, delay=2)
    assert [kl_coefficient(step, config) for step in (1, 2, 3)] == [1.0, 1.0, 1.0]
    assert kl_coefficient(5, config) == pytest.approx(0.505)
    assert [kl_coefficient(step, config) for step in (7, 8, 1000)] == pytest.approx([0.01] * 3)
    exponential = config.model_copy(update={"shape": "exponential"})
    assert kl_coefficient(5, exponential) == pytest.approx(0.1), "geometric mean at half time"
    assert kl_coefficient(5, exponential.model_copy(update={"end": 0.0})) == pytest.approx(0.5), "linear to zero"


# ---- graders and verifiers that fail ----


def failing(bad_rows: set[int]) -> RowsTask:
    def grade(row: dict[str, Any], text: str) -> float:
        if row["number"] in bad_rows:
            raise RuntimeError("boom")
        return float(text[:1].islower())

    return task_from_rows([{"prompt": f"{i}=", "number": i} for i in range(8)], grade, hold_out=0.0)


def test_a_grader_that_fails_now_and_then_is_counted_and_carries_no_weight(tmp_path: Path) -> None:
    settings = recipe(tmp_path, training={"max_grader_errors": 0.2, "steps": 2})
    run = trainer(settings, failing({3}))
    weighed = []
    original = run.weigh

    def weigh(step: int, graded: Any, draws: Any) -> torch.Tensor:
        advantages_PM = original(step, graded, draws)
        weighed.append(
            {p.row["number"]: a.abs().sum().item() for p, a in zip(graded.problems, advantages_PM, strict=True)}
        )
        return advantages_PM

    run.weigh = weigh  # type: ignore[method-assign]
    run.train()
    assert [row["grader_errors"] for row in rows_of(tmp_path)] == [16, 16]
    assert all(step[3] == 0 and sum(step.values()) > 0 for step in weighed)


def test_a_broken_grader_stops_the_run_before_the_step(tmp_path: Path) -> None:
    run = trainer(recipe(tmp_path), failing(set(range(8))))
    before = [p.detach().clone() for p in run.model.parameters()]
    with pytest.raises(
        RunStopped,
        match=r"100% of the completions could not be graded \(RuntimeError: boom \(.*test_trainer.py, line \d+\)\)",
    ):
        run.train()
    assert all(torch.equal(p, old) for p, old in zip(run.model.parameters(), before, strict=True))
    assert len(json.loads((tmp_path / "stopped_at_step_000001.json").read_text())["texts"]) == 8


def test_rewards_that_the_objective_is_not_for_stop_with_a_sentence(tmp_path: Path) -> None:
    task = task_from_rows([{"prompt": f"{i}="} for i in range(8)], lambda row, text: 0.5, hold_out=0.0)
    with pytest.raises(RunStopped, match=r"cannot take these grades: .*0 or 1, got 0\.5; .* use bon_rl at step 1"):
        trainer(recipe(tmp_path, objective={"name": "bon_rlb"}), task).train()


@pytest.mark.parametrize(
    ("function", "phrase"),
    [
        (lambda problem, text: 1 / 0, "verifier mine failed: ZeroDivisionError"),
        (lambda problem, text: None, "verifier mine failed: TypeError"),
        (lambda problem, text: math.nan, "verifier mine returned NaN"),
    ],
    ids=["raises", "none", "nan"],
)
def test_a_verifier_that_fails_stops_the_run_with_its_reason(tmp_path: Path, function: Any, phrase: str) -> None:
    with pytest.raises(RunStopped, match=phrase):
        trainer(recipe(tmp_path), verifier=FunctionVerifier(function, "mine")).train()


# ---- refused before anything is written ----


def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    no_rest = task_from_rows([{"prompt": "a="}], lambda row, text: 1.0, hold_out=0.0)
    long_last = task_from_rows([{"prompt": p} for p in ("a=", "b=" * 300)], lambda row, text: 1.0, hold_out=0.0)
    for settings, task, phrase in [
        (recipe(run, objective={"n": 17}), None, "n = 17"),
        (recipe(run, sampling={"samples": 4}), None, r"needs n \+ 1 samples"),
        (recipe(run, task={"split": "trian"}), None, "did you mean 'train'"),
        (recipe(run, eval={"every": 1}), no_rest, "set eval.split to one, or eval.every=0"),
        (recipe(run), long_last, "has 600 tokens; with 2 new ones that is more than the model's context of 512"),
    ]:
        with pytest.raises(BontuneError, match=phrase):
            trainer(settings, task)
        assert not run.exists()
    with pytest.raises(BontuneError, match="without its tokenizer"):
        trainer(recipe(run), tokenizer=None)
