"""Contract of what a run does about its own numbers, in this process with a small random model:

1. the draws of one (step, problem, sample) can be replayed alone, whatever else was drawn with them;
2. an evaluation that a stop came before is made up for, and counts for best-so-far also if the run is killed after it;
3. a reward, score, log-probability or gradient that is not finite stops the run before the update: model, optimizer and
   anchor are as they were, the batch is kept, and the step before can be gone on from;
4. a failed grader's completions are counted, never scored correct, give their prompt no weight and teach P_fail
   nothing.
"""

import json
import math
import signal
from dataclasses import replace

import pytest
import torch

import tiny
from bontune import Recipe, Trainer, task_from_rows
from bontune.base.errors import Interrupted, RunStopped
from bontune.base.signals import StopSignals
from bontune.engines.decoding import draw_token
from bontune.engines.seeds import stream
from bontune.grading.verdict import Grade, Verdict
from bontune.training import checkpoint
from training.run_driver import metrics, outcome, steps


def rows(run, kind):
    return [row for row in metrics(run) if row["kind"] == kind]


def letters(grade=lambda row, text: text[:1] in tuple("abcdefgh")):
    return task_from_rows([{"prompt": f"{letter}="} for letter in "abcdefgh"], grade, hold_out=0.0)


def settings(run, **sections):
    tree = {
        "objective": {"name": "bon_rl", "n": 2},
        "sampling": {"samples": 8, "max_new_tokens": 3},
        "training": {
            "steps": 3,
            "prompts_per_step": 8,
            "lr": 1e-3,
            "warmup": 0,
            "first_step_kl": None,
            "checkpoint_every": 1,
            "device": "cpu",
        },
        "kl": {"start": 0.01, "end": 0.01},
        "eval": {"every": 0},
    }
    return Recipe.from_dict({"run": str(run)} | {name: tree[name] | sections.get(name, {}) for name in tree})


def trainer(run, task, *, verifier=None, **sections):
    recipe = settings(run, **sections)
    return Trainer(recipe, task=task, verifier=verifier, model=tiny.model(), tokenizer=tiny.tokenizer(), is_quiet=True)


def everything(run):
    """Model, optimizer and anchor as bytes."""
    tensors = {
        **{f"policy {name}": p for name, p in run.model.named_parameters()},
        **{f"anchor {name}": p for name, p in run.anchor.tensors.items()},
        **dict(checkpoint.optimizer_tensors(run.optimizer, run.model)),
    }
    return {name: tensor.detach().clone().view(torch.uint8) for name, tensor in tensors.items() if tensor.numel() > 1}


# ---- 1: replay ----


def test_one_sample_can_be_replayed_alone(tmp_path):
    run = trainer(tmp_path, letters(), sampling={"temperature": 0.8})
    problems = run.problems_of(run.draws(5))
    samples = run.sample(5, problems, run.draws(5), StopSignals())
    for p, i in ((0, 0), (3, 7), (7, 4)):
        ids = list(samples.prompts[p])
        for u in stream(run.recipe.seed, "train", 4 * 8 + p, problems[p].id, i).random(3):
            logits = run.model(torch.tensor([ids])).logits[:, -1]
            token, _ = draw_token(logits, torch.tensor([u]), 0.8)
            ids.append(int(token))
        row = p * 8 + i
        length = int(samples.lengths_B[row])
        assert ids[len(samples.prompts[p]) :][:length] == samples.tokens_BT[row, :length].tolist()
    again = trainer(tmp_path, letters(), sampling={"temperature": 0.8}).sample(5, problems, run.draws(5), StopSignals())
    assert torch.equal(again.tokens_BT, samples.tokens_BT)
    other = run.sample(6, problems, run.draws(6), StopSignals())
    assert samples.texts != other.texts


# ---- 2: evaluations ----


def test_an_evaluation_made_up_for_counts_for_the_best_even_after_a_kill(tmp_path):
    """Stopped in the evaluation of step 2, killed in step 3 after that evaluation was made up for, finished."""

    def disturbed(events):
        """Events by the how-manieth completion that is graded: 8 × 4 evaluated, 8 × 8 a step."""
        count = 0

        def grade(row, text):
            nonlocal count
            count += 1
            events.get(count, lambda: None)()
            return text[:1] in tuple("abcdefgh")

        return letters(grade)

    class PowerCut(BaseException):
        pass

    def power_cut():
        raise PowerCut

    sections = {
        "training": {"lr": 0.03, "decay": "constant", "checkpoint_every": 0, "steps": 3},
        "eval": {"every": 2, "split": "train", "k": [1, 2], "samples": 4},
    }
    whole = trainer(tmp_path / "whole", letters(), **sections).train()
    run = tmp_path / "run"
    in_evaluation = {32 + 128 + 5: lambda: signal.raise_signal(signal.SIGTERM)}
    with pytest.raises(Interrupted):
        trainer(run, disturbed(in_evaluation), **sections).train()
    assert [row["step"] for row in rows(run, "eval")] == [0]
    with pytest.raises(PowerCut):
        trainer(run, disturbed({32 + 5: power_cut}), **sections).train()
    assert steps(run) == [2]
    assert [row["step"] for row in rows(run, "eval")] == [0, 2]
    third = trainer(run, disturbed({5: power_cut}), **sections)
    with pytest.raises(PowerCut):
        third.train()
    evaluations = {row["step"]: row["metrics"]["best@2"] for row in rows(run, "eval")}
    assert evaluations[2] > evaluations[0]
    assert third.state.best.own == {"step": 2, "metric": "best@2", "value": evaluations[2]}  # older checkpoint
    assert trainer(run, letters(), **sections).train() == whole
    assert outcome(run) == outcome(tmp_path / "whole")


# ---- 3: what is not finite ----


class Counting:
    """The letters, with a change to the grades from the second step on."""

    def __init__(self, change):
        self.task, self.change, self.calls = letters(), change, 0
        self.name, self.stop, self.splits = self.task.name, self.task.stop, self.task.splits

    def problems(self, split):
        return self.task.problems(split)

    def grade(self, problems, completions, poll=None):
        self.calls += 1
        rows = self.task.grade(problems, completions, poll)
        return [[self.change(grade) for grade in row] for row in rows] if self.calls > 1 else rows


def spoil_the_model(run):
    with torch.no_grad():
        run.model.get_input_embeddings().weight[run.tokenizer("=")["input_ids"][0]] = math.nan


def score_nan_from_second_step():
    calls = iter(range(10**6))
    return lambda problem, text: math.nan if next(calls) >= 64 else 0.0


@pytest.mark.parametrize(
    ("arguments", "step", "phrase"),
    [
        ({"task": Counting(lambda g: replace(g, reward=math.nan))}, 2, "the reward nan"),
        ({"task": Counting(lambda g: replace(g, reward=math.inf))}, 2, "the reward inf"),
        ({"task": letters(), "verifier": score_nan_from_second_step()}, 2, "returned NaN"),
        ({"task": letters(), "spoil": spoil_the_model}, 1, "log-probability is not finite"),
        ({"task": letters(), "kl": {"end": 1e38, "delay": 0, "steps": 1}}, 2, "gradient norm"),
    ],
    ids=["reward nan", "reward inf", "score nan", "log-probability", "gradient"],
)
def test_what_is_not_finite_stops_before_the_update(tmp_path, arguments, step, phrase):
    spoil = arguments.pop("spoil", lambda run: None)
    run = trainer(tmp_path, **arguments)
    spoil(run)
    at_start = everything(run)
    with pytest.raises(RunStopped, match=phrase) as stopped:
        run.train()
    kept = tmp_path / f"stopped_at_step_{step:06d}.json"
    assert str(kept) in str(stopped.value)
    batch = json.loads(kept.read_text())
    assert phrase in batch["reason"]
    assert [len(texts) for texts in batch["texts"]] == [8] * 8
    assert len(batch["logprobs"]) == 64
    assert run.step == step - 1 == len(rows(tmp_path, "step") if step > 1 else [])
    if step == 1:
        wanted = at_start
    else:  # what the checkpoint of the step before holds
        fresh = trainer(tmp_path, letters(), **{k: v for k, v in arguments.items() if k == "kl"})
        fresh.resume()
        assert fresh.step == 1
        wanted = everything(fresh)
    found = everything(run)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


# ---- 4: a grader that fails ----


def test_a_failed_grader_gives_no_reward_and_its_prompt_no_weight(tmp_path):
    def sometimes_fails(row, text):
        if row["prompt"] == "c=":
            if text[:1].islower():
                return Grade(reward=1.0, verdict=Verdict.GRADER_ERROR, reason="no idea, but 1")
            if text[:1].isdigit():
                raise RuntimeError("boom")
            return False
        return text[:1] in tuple("abcdefgh")

    def never_correct(row, text):
        return False if row["prompt"] == "c=" else text[:1] in tuple("abcdefgh")

    options = {
        "objective": {"name": "bon_rlb", "n": 2, "p_fail": "running"},
        "sampling": {"samples": 16},
        "training": {"max_grader_errors": 0.2, "steps": 1},
    }
    for name, grade in (("fails", sometimes_fails), ("wrong", never_correct)):
        trainer(tmp_path / name, letters(grade), **options).train()
    (fails,), (wrong,) = (rows(tmp_path / name, "step") for name in ("fails", "wrong"))
    assert (fails["grader_errors"] > 0, wrong["grader_errors"]) == (True, 0)
    for number in ("reward", "pass_at_n", "best_of_n"):
        assert fails[number] == wrong[number]
    ids = [problem.id for problem in letters().problems("train") if problem.prompt == "c="]
    state = {
        name: json.loads((tmp_path / name / "checkpoints" / "step_000001" / "state.json").read_text())
        for name in ("fails", "wrong")
    }
    assert state["wrong"]["running"].pop(ids[0]) == 1.0
    assert state["fails"]["running"] == state["wrong"]["running"]


def test_with_and_without_a_prompt_that_cannot_be_graded(tmp_path):
    """A prompt whose grader fails on one completion trains exactly as one whose rewards are all equal: not at all."""

    def unlucky(row, text):
        if row["prompt"] == "c=":
            return 1 / (text[:1].isupper())
        return text[:1] in tuple("abcdefgh")

    def all_equal(row, text):
        return row["prompt"] != "c=" and text[:1] in tuple("abcdefgh")

    runs = []
    for name, grade in (("unlucky", unlucky), ("equal", all_equal)):
        run = trainer(tmp_path / name, letters(grade), training={"max_grader_errors": 1.0})
        run.train()
        runs.append(everything(run))
    assert sum(row["grader_errors"] for row in rows(tmp_path / "unlucky", "step")) > 0
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
