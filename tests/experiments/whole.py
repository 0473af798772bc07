"""A suite run to its end in this process, for tests that look at what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from bontune.experiments.command import run_reproduce
from bontune.experiments.run import Runner
from bontune.experiments.suite import load_suite


def written(folder: Path, suite: dict[str, Any]) -> Path:
    """The suite's file."""
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False), encoding="utf-8")
    return path


def run_whole(folder: Path, suite: dict[str, Any]) -> Path:
    """Run all jobs one after the other on one thread, as jobs do; returns the results, with runs in ``work`` beside."""
    path, out, work = written(folder, suite), folder / "out", folder / "work"
    runner = Runner(load_suite(str(path)), out, work)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    while jobs := runner.jobs():
        for job in jobs:
            job.function(**job.arguments)
    torch.set_num_threads(threads)
    run_reproduce(str(path), [], out=out, work=work, arms=None, workers=1, is_report_only=True)
    return out
