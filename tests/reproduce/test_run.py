"""What is run next, and one command at a time: jobs of one training have one place, folders are held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bestofn.errors import BestofnError
from bestofn.reproduce.holding import held, vacated, visited
from bestofn.reproduce.run import Runner
from bestofn.reproduce.store import Run
from bestofn.reproduce.suite import BASE
from reproduce.synthetic import put, put_trial, small


def names(runner: Runner) -> list[str]:
    return [job.name for job in runner.jobs()]


def test_what_is_run_next(tmp_path: Path) -> None:
    suite, store = small(tmp_path)
    runner = Runner(suite, tmp_path / "out", tmp_path / "work", ["rl", "kept"])
    assert names(runner) == ["measure base", "train rl-lr0.001-seed0", "train rl-lr0.002-seed0"]
    for data in ("validation", "test"):
        for t in (0.6, 1.0):
            put(store, Run(arm=BASE), data, t, np.zeros(5))
    put_trial(store, Run(arm="rl", lr=1e-3), pass_1=0.5, pass_8=0.5)
    assert names(runner) == ["train rl-lr0.002-seed0"], "the learning rate is not chosen yet"
    put_trial(store, Run(arm="rl", lr=2e-3), pass_1=0.4, pass_8=0.4)
    assert names(runner) == [f"measure rl-lr0.001-seed0 by {metric}" for metric in ("pass@1", "pass@8")]
    for data in ("validation", "test"):
        for t in (0.6, 1.0):
            put(store, Run(arm="rl", lr=1e-3), data, t, np.full(5, t == 0.6))
    jobs = {job.name: job for job in runner.jobs()}
    assert list(jobs) == [
        f"train and measure rl-lr0.001-seed{seed} by {metric}" for metric in ("pass@1", "pass@8") for seed in (1, 2)
    ]
    # Both arms need the same training: never two processes in its folder.
    assert [job.place for job in jobs.values()] == ["rl-lr0.001-seed1", "rl-lr0.001-seed2"] * 2
    wanted = [{"data": "test", "temperature": t} for t in (1.0, 0.6)]
    assert all(job.arguments["whats"] == wanted for job in jobs.values())
    put_trial(store, Run(arm="rl", lr=1e-3, seed=1), pass_1=0.4, pass_8=0.4)
    again = {job.name: job.place for job in runner.jobs()}
    assert again["measure rl-lr0.001-seed1 by pass@1"] == "rl-lr0.001-seed1", "the same place as when it trained, too"
    for seed in (1, 2):
        put_trial(store, Run(arm="rl", lr=1e-3, seed=seed), pass_1=0.4, pass_8=0.4)
        for t in (0.6, 1.0):
            put(store, Run(arm="rl", lr=1e-3, seed=seed), "test", t, np.zeros(5))
    assert names(runner) == []
    assert len(names(Runner(suite, tmp_path / "out", tmp_path / "work"))) == 3, "ours and half"
    with pytest.raises(BestofnError, match="The suite has no arm 'urs'; there are base, ours, rl, kept, half"):
        Runner(suite, tmp_path / "out", tmp_path / "work", ["urs"])


def test_folders_are_held(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with held(folder), pytest.raises(BestofnError, match=r"Another process works in .*: wait for it"), held(folder):
        pass
    with visited(folder), visited(folder), pytest.raises(BestofnError, match="Another"), held(folder, wait_s=0.1):
        pass
    vacated(folder, lambda: None)
    assert list(folder.iterdir()) == []


def test_a_second_command_is_refused(tmp_path: Path) -> None:
    suite, store = small(tmp_path)
    runner = Runner(suite, tmp_path / "out", tmp_path / "work")
    with held(store.folder), pytest.raises(BestofnError, match=r"Another process works in .*pieces"):
        runner.run(lambda: None)
    assert list(store.folder.iterdir()) == []
