"""`bontune` in processes of its own, for tests that kill, signal and starve it.

1. Commands are forked from a process that has imported everything (see :mod:`processes`), so that start-up is paid
   once. They run through the real entry point, each with its own output file and its own exit status.
2. A command can be set to die or be signalled at an exact place, which no test outside could hit: before the n-th
   fsync, rename or removal, at the n-th poll of the stop flag. The signals are real, and nothing is replaced.
3. `RLIMIT_FSIZE` stands in for a full disk.
4. All waiting is on conditions, with a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes

DEADLINE_S = 120.0
ENVIRONMENT = processes.ENVIRONMENT | {"COLUMNS": "200"}
SMALL = (
    "training.device=cpu",
    "training.prompts_per_step=4",
    "sampling.samples=8",
    "objective.n=2",
    "training.warmup=2",
    "training.lr=1e-4",
    "kl.delay=0",
    "eval.problems=4",
    "eval.samples=4",
    "eval.k=[1,2]",
)
"""Overrides that make a step of the shipped recipe take a twentieth of a second."""


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until the condition holds, and return its value."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {deadline_s} s in vain for {what}"
        time.sleep(0.005)
    return value


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    """Exit status, or minus the signal that ended it."""
    output: str
    """Stdout and stderr."""

    @property
    def message(self) -> str:
        """The last line, where the one sentence of an error stands."""
        lines = self.output.strip().splitlines()
        return lines[-1] if lines else ""


@dataclass(frozen=True)
class Child:
    """A command that was started."""

    process: processes.Process
    log: Path

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def wait(self) -> Result:
        """Wait for its end."""
        try:
            code = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return Result(code, self.log.read_text(errors="replace"))

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)


class Driver:
    """Starts commands, and ends with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []

    def start(self, *command: str, **sabotage: Any) -> Child:
        """Start `bontune` with these arguments; see :func:`sabotaged` for what can be done to it."""
        log = self.folder / f"{len(self.children):03d}.log"
        with open(log, "ab") as output:
            process = processes.start(
                command, env=ENVIRONMENT, stdout=output, stderr=output, prepare=sabotaged, prepare_with=sabotage
            )
        self.children.append(Child(process, log))
        return self.children[-1]

    def run(self, *command: str, **sabotage: Any) -> Result:
        """Start and wait."""
        return self.start(*command, **sabotage).wait()

    def train(self, run: Path, *overrides: str, **sabotage: Any) -> Result:
        """Train by the shipped recipe, made small."""
        return self.run("train", "countdown", f"run={run}", *SMALL, *overrides, **sabotage)

    def close(self) -> None:
        """End what a failed test left running or stopped."""
        for child in self.children:
            child.process.kill()


@contextlib.contextmanager
def driver(folder: Path) -> Iterator[Driver]:
    """A driver for a test module."""
    started = Driver(folder)
    try:
        yield started
    finally:
        started.close()


# ---- what a run left behind ----


def outcome(run: Path) -> dict[str, Any]:
    """Everything that must be equal, bit for bit, however often a run was stopped: weights, checkpoints, metrics."""
    newest = max((run / "checkpoints").glob("step_*"))
    manifest = json.loads((newest / "MANIFEST.json").read_text())
    return {
        "checkpoint": (newest.name, manifest["files"]),
        "model": (run / "model" / "model.safetensors").read_bytes(),
        "summary": json.loads((run / "summary.json").read_text()),
        "metrics": metrics(run),
    }


def metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl`` without what depends on the clock."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in row.items() if key not in ("seconds", "tokens_per_s")} for row in rows]


def steps(run: Path) -> list[int]:
    """Steps of the checkpoints."""
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step_*"))


# ---- in the new process ----


def sabotaged(order: dict[str, Any]) -> None:
    """Prepare the new process before the command runs.

    ``kill_at``: SIGKILL before the n-th call of ``kill_in`` (default: fsync and rename). ``signals``: [n, names]:
    these signals at the n-th poll of the stop flag. ``polls``: write the number of polls into this file.
    ``file_limit``: bytes that a file may have. ``threads``: of torch, which has one otherwise.
    """
    if "threads" in order:
        import torch

        torch.set_num_threads(order["threads"])
    if "kill_at" in order:
        _count_calls(os, order.get("kill_in", ["fsync", "replace"]), order["kill_at"], ["SIGKILL"])
    if "signals" in order or "polls" in order:
        from bontune.base.signals import StopSignals

        _count_calls(StopSignals, ["poll"], *order.get("signals", [0, []]), file=order.get("polls"))
    if "file_limit" in order:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))


def _count_calls(owner: Any, names: list[str], n: int, signals: list[str], file: str | None = None) -> None:
    """Count the calls of some functions together, and send this process signals right before the n-th."""
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if file is not None:
                Path(file).write_text(str(count))
            for name in signals if count == n else ():
                os.kill(os.getpid(), signal.Signals[name])
            return function(*arguments, **options)

        return call

    for name in names:
        setattr(owner, name, counted(getattr(owner, name)))
