"""Contract of the refill:

1. it trains on the first P prompts of the stream that carry weight, and draws no more than it may;
2. in expectation the update is the ordinary one, longer: by enumeration of all outcomes;
3. the KL is taken over the ordinary prompts, and P_fail learns from all;
4. generations are counted, and a run that goes on ends as one that was never stopped.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from bontune import Recipe, Trainer, task_from_rows
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.engines.contract import Samples, StopReason
from bontune.grading.verdict import Grade, Verdict
from bontune.pools.collect import Graded
from bontune.tasks.rows import RowsTask
from bontune.training.refill import Refill

SAMPLES = 2


def settings(run: Path, **sections: Any) -> Recipe:
    tree: dict[str, Any] = {
        "objective": {"name": "rloo"},
        "sampling": {"samples": SAMPLES, "max_new_tokens": 3},
        "training": {
            "steps": 6,
            "prompts_per_step": 4,
            "lr": 1e-2,
            "warmup": 0,
            "first_step_kl": None,
            "device": "cpu",
        },
        "kl": {"start": 0.05, "end": 0.05},
        "eval": {"every": 0},
    }
    return Recipe.from_dict({"run": str(run)} | {name: tree[name] | sections.get(name, {}) for name in tree})


def letters() -> RowsTask:
    rows = [{"prompt": f"{letter}="} for letter in "abcdefghijkl"]
    return task_from_rows(rows, lambda row, text: text[:1] in tuple("abcdefgh"), hold_out=0.0)


def trainer(run: Path, **sections: Any) -> Trainer:
    model, tokenizer = tiny.model(sharp=2.0), tiny.tokenizer()
    return Trainer(settings(run, **sections), task=letters(), model=model, tokenizer=tokenizer, is_quiet=True)


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def graded(values: list[float]) -> tuple[Graded, torch.Tensor]:
    """A prompt for each value, whose two samples weigh +value and −value."""
    num = len(values)
    samples = Samples(
        prompts=[[1]] * num,
        tokens_BT=torch.ones(num * SAMPLES, 1, dtype=torch.int64),
        lengths_B=torch.ones(num * SAMPLES, dtype=torch.int64),
        logprobs_BT=torch.zeros(num * SAMPLES, 1),
        stops=[StopReason.END] * (num * SAMPLES),
        texts=[["a", "b"]] * num,
    )
    made = Graded(
        problems=[Problem(id=str(i), prompt="a", reference=None) for i in range(num)],
        samples=samples,
        grades=[[Grade(reward=0.0, verdict=Verdict.FAILED)] * SAMPLES] * num,
        scores=[[0.0] * SAMPLES] * num,
    )
    return made, torch.tensor([[value, -value] for value in values])


def filled(stream: tuple[float, ...], num_prompts: int) -> tuple[list[float], Refill]:
    """What is trained on where the prompts of a step, drawn one after the other, have these weights."""
    up_to = len(stream) / num_prompts
    recipe = settings(Path("run"), training={"prompts_per_step": num_prompts, "refill": {"up_to": up_to}})
    assert recipe.training.refill is not None
    refill, asked = Refill(recipe.training.refill, num_prompts, recipe.objective.row(), 1, 0), []

    def draw(numbers: list[int]) -> tuple[Graded, torch.Tensor]:
        asked.extend(numbers)
        return graded([stream[num_prompts - 1 - number] for number in numbers])

    made, advantages = refill.fill(1, *graded(list(stream[:num_prompts])), range(num_prompts), draw)
    assert asked == [-1 - i for i in range(len(asked))], "the stream goes on where it was left"
    assert len(made.problems) == len(advantages) == num_prompts + len(asked) <= len(stream)
    assert refill.numbers["refilled"] == refill.num_drawn == len(asked)
    return advantages[:, 0].tolist(), refill


def test_in_expectation_the_update_is_the_ordinary_one_but_longer() -> None:
    outcomes = {0.0: 0.6, 1.0: 0.3, -5.0: 0.1}
    num_prompts, most = 2, 5
    update = kept = 0.0
    for stream in itertools.product(outcomes, repeat=most):
        chance = torch.tensor([outcomes[value] for value in stream], dtype=torch.float64).prod().item()
        weights, refill = filled(stream, num_prompts)
        first = [value for value in stream if value][:num_prompts]
        assert [value for value in weights if value] == first
        assert refill.numbers["with_weight"] == len(first)
        update += chance * sum(weights) / num_prompts
        kept += chance * len(first) / num_prompts
    ordinary = sum(value * chance for value, chance in outcomes.items())
    assert update == pytest.approx(ordinary * kept / (1 - outcomes[0.0]), rel=1e-9)
    assert kept / (1 - outcomes[0.0]) > 1.5, "it is longer"


def test_a_step_that_has_enough_draws_no_more() -> None:
    weights, refill = filled((1.0, 2.0, 3.0, 4.0), 2)
    assert weights == [1.0, 2.0]
    assert refill.num_drawn == 0


def test_generations_are_counted_and_a_stopped_run_ends_as_the_others(tmp_path: Path) -> None:
    refill = {"refill": {"up_to": 3.0}}
    whole = trainer(tmp_path / "whole", training=refill)
    summary = whole.train()
    rows = rows_of(tmp_path / "whole")
    assert all(row["samples"] == (4 + row["refilled"]) * SAMPLES for row in rows)
    assert all(row["refilled"] <= 8 and row["with_weight"] <= 4 for row in rows)
    assert any(row["refilled"] for row in rows)
    assert summary["generations"] == sum(row["samples"] for row in rows)
    without = trainer(tmp_path / "without").train()
    assert without["generations"] == 6 * 4 * SAMPLES
    assert rows_of(tmp_path / "without")[0]["weighted"] < rows[0]["with_weight"] / 4

    class Stopped(Exception):
        pass

    part = trainer(tmp_path / "part", training=refill | {"checkpoint_every": 3})
    record = part.record

    def stop_behind_three(*given: Any) -> None:
        record(*given)
        if part.step == 4:
            raise Stopped

    part.record = stop_behind_three  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        part.train()
    again = trainer(tmp_path / "part", training=refill | {"checkpoint_every": 3}).train()
    assert again["generations"] == summary["generations"]
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_kl_is_over_the_ordinary_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(
        tmp_path, training={"refill": {"up_to": 3.0}}, objective={"name": "bon_rlb", "n": 2, "p_fail": "running"}
    )
    seen: list[torch.Tensor] = []
    step = run.updater.step
    monkeypatch.setattr(run.updater, "step", lambda *a, **b: [seen.append(b["has_kl_P"]), step(*a, **b)][1])
    run.train()
    assert all(has_kl.tolist() == [True] * 4 + [False] * (len(has_kl) - 4) for has_kl in seen)
    assert max(map(len, seen)) > 4


def test_p_fail_is_learned_from_every_prompt_that_was_drawn(tmp_path: Path) -> None:
    run = trainer(
        tmp_path,
        training={"refill": {"up_to": 3.0}, "steps": 1},
        objective={"name": "bon_rlb", "n": 2, "p_fail": "running"},
    )
    run.train()
    num_further = rows_of(tmp_path)[0]["refilled"]
    drawn = [*run.draws(1), *(-1 - extra for extra in range(num_further))]
    assert num_further > 0
    assert set(run.state.failure_rates.running) == {problem.id for problem in run.problems_of(drawn)}


@pytest.mark.parametrize(
    ("sections", "phrase"),
    [
        ({"training": {"refill": {"up_to": 1.0}}}, "up_to"),
        ({"training": {"refill": {"upto": 2.0}}}, "up_to"),
        (
            {"training": {"refill": {}}, "objective": {"name": "vbon", "n": 2}},
            "training.refill replaces prompts whose samples carry no weight, and vbon imitates given answers",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, sections: dict[str, Any], phrase: str) -> None:
    with pytest.raises(BontuneError, match=phrase):
        trainer(tmp_path / "run", **sections)
    assert not (tmp_path / "run").exists()
