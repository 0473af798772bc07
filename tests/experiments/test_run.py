"""What is run next, and one command at a time: jobs of one training have one place, folders are held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bontune.base.errors import BontuneError
from bontune.experiments.jobs import held, vacated, visited
from bontune.experiments.run import Runner
from bontune.experiments.store import SuiteRun
from bontune.experiments.suite import BASE
from experiments.synthetic import put, put_trial, small


def names(runner: Runner) -> list[str]:
    return [job.name for job in runner.jobs()]


def test_what_is_run_next(tmp_path: Path) -> None:
    suite, store = small(tmp_path)
    runner = Runner(suite, tmp_path / "out", tmp_path / "work", ["rl", "kept"])
    assert names(runner) == ["measure base", "train rl-lr0.001-seed0", "train rl-lr0.002-seed0"]
    for data in ("validation", "test"):
        for t in (0.6, 1.0):
            put(store, SuiteRun(arm=BASE), data, t, np.zeros(5))
    put_trial(store, SuiteRun(arm="rl", lr=1e-3), pass_1=0.5, pass_8=0.5)
    assert names(runner) == ["train rl-lr0.002-seed0"], "the learning rate is not chosen yet"
    put_trial(store, SuiteRun(arm="rl", lr=2e-3), pass_1=0.4, pass_8=0.4)
    assert names(runner) == [f"measure rl-lr0.001-seed0 by {metric}" for metric in ("pass@1", "pass@8")]
    for data in ("validation", "test"):
        for t in (0.6, 1.0):
            put(store, SuiteRun(arm="rl", lr=1e-3), data, t, np.full(5, t == 0.6))
    jobs = {job.name: job for job in runner.jobs()}
    assert list(jobs) == [
        f"train and measure rl-lr0.001-seed{seed} by {metric}" for metric in ("pass@1", "pass@8") for seed in (1, 2)
    ]
    # Both arms need the same training: never two processes in its folder.
    assert [job.place for job in jobs.values()] == ["rl-lr0.001-seed1", "rl-lr0.001-seed2"] * 2
    wanted = [{"data": "test", "temperature": t} for t in (1.0, 0.6)]
    assert all(job.arguments["whats"] == wanted for job in jobs.values())
    put_trial(store, SuiteRun(arm="rl", lr=1e-3, seed=1), pass_1=0.4, pass_8=0.4)
    again = {job.name: job.place for job in runner.jobs()}
    assert again["measure rl-lr0.001-seed1 by pass@1"] == "rl-lr0.001-seed1", "the same place as when it trained, too"
    for seed in (1, 2):
        put_trial(store, SuiteRun(arm="rl", lr=1e-3, seed=seed), pass_1=0.4, pass_8=0.4)
        for t in (0.6, 1.0):
            put(store, SuiteRun(arm="rl", lr=1e-3, seed=seed), "test", t, np.zeros(5))
    assert names(runner) == []
    assert len(names(Runner(suite, tmp_path / "out", tmp_path / "work"))) == 3, "ours and half"
    with pytest.raises(BontuneError, match="The suite has no arm 'urs'; there are base, ours, rl, kept, half"):
        Runner(suite, tmp_path / "out", tmp_path / "work", ["urs"])


def test_folders_are_held(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with held(folder), pytest.raises(BontuneError, match=r"Another process works in .*: wait for it"), held(folder):
        pass
    with visited(folder), visited(folder), pytest.raises(BontuneError, match="Another"), held(folder, wait_s=0.1):
        pass
    vacated(folder, lambda: None)
    assert list(folder.iterdir()) == []


def test_a_second_command_is_refused(tmp_path: Path) -> None:
    suite, _ = small(tmp_path)
    runner = Runner(suite, tmp_path / "out", tmp_path / "work")
    with held(tmp_path / "out"), pytest.raises(BontuneError, match=r"Another process works in .*out"):
        runner.run(lambda: None)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_later_tier_follows_in_the_same_list(tmp_path: Path) -> None:
    """So that no worker waits for the last job of a tier; an arm's trainings come before measurements of its tier."""
    suite, store = small(tmp_path)
    arms = suite.arms | {"half": suite.arms["half"].model_copy(update={"tier": 2})}
    runner = Runner(suite.model_copy(update={"arms": arms}), tmp_path / "out", tmp_path / "work", ["half", "rl"])
    for rate in suite.rates("rl"):
        put_trial(store, SuiteRun(arm="rl", lr=rate), pass_1=0.5, pass_8=0.5)
    (rate,) = suite.rates("half")
    assert names(runner) == ["measure base", "measure rl-lr0.001-seed0 by pass@1", f"train half-lr{rate:g}-seed0"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": {"ours": {"objective": {"name": "bon_rl", "n": 4096}}}}, "arms.ours: objective bon_rl, n = 4096"),
        ({"arms": {"ours": {"objective": {"name": "bonrl"}}}}, "arms.ours: no objective 'bonrl', did you"),
        ({"validation": "dev"}, "no split 'dev'"),
        ({"harder": {"hrad": True}}, "has no option 'hrad'"),
    ],
)
def test_what_a_job_would_refuse_is_refused_before_the_first(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    suite, _ = small(tmp_path)
    arms = {
        name: arm.model_copy(update={"recipe": changes.get("arms", {}).get(name, arm.recipe)})
        for name, arm in suite.arms.items()
    }
    measuring = suite.measuring.model_copy(update={key: v for key, v in changes.items() if key != "arms"})
    broken = suite.model_copy(update={"arms": arms, "measuring": measuring})
    with pytest.raises(BontuneError, match=said):
        Runner(broken, tmp_path / "out", tmp_path / "work").run(lambda: None)
    assert not (tmp_path / "work" / "base").exists(), "nothing was begun"


def test_only_arms_of_the_pictures_are_measured_at_every_temperature(tmp_path: Path) -> None:
    suite, store = small(tmp_path)
    suite = suite.model_copy(update={"main": [BASE]})
    runner = Runner(suite, tmp_path / "out", tmp_path / "work", ["half"])
    for data in ("validation", "test"):
        for t in (0.6, 1.0):
            put(store, SuiteRun(arm=BASE), data, t, np.zeros(5))
    (rate,) = suite.rates("half")
    put_trial(store, SuiteRun(arm="half", lr=rate), pass_1=0.5)
    (job,) = runner.jobs()
    assert job.arguments["whats"] == [{"data": "validation", "temperature": t} for t in (0.6, 1.0)]
    for t in (0.6, 1.0):
        put(store, SuiteRun(arm="half", lr=rate), "validation", t, np.full(5, t == 1.0))
    job = runner.jobs()[0]
    assert job.arguments["whats"] == [{"data": "test", "temperature": 1.0}]
