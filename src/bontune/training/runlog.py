"""A run's records: ``metrics.jsonl``, a progress line, and optional trackers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from bontune.base.files import replace_file
from bontune.base.progress import Bar
from bontune.engines.contract import DrawingCount, Engine, Samples
from bontune.grading.verdict import Grade

METRICS = "metrics.jsonl"
NOTHING_LEARNED = (
    "step {step}: no sample carries weight, because the samples of each prompt are worth the same (mean reward "
    "{reward:.3g}): nothing can be learned from them; if that stays so, look at the grader, or take problems that are "
    "neither too easy nor too hard"
)
"""What is said once of a step without a gradient from rewards; ``weighted`` in the metrics tells of the others."""
LOCK = ".lock"
"""File that a training holds locked in its folder; the system lets go of it when the process ends, however."""
LONG_S = 4.0
"""Seconds after which a stage of a step is shown."""
WIDE = 110
"""Columns of a terminal that hold a step's numbers and its stage."""


class RunLog:
    """Appends rows to ``metrics.jsonl`` and shows progress: a bar on a terminal, a line now and then elsewhere."""

    def __init__(
        self, folder: Path, total_steps: int, *, label: str, is_quiet: bool = False, trackers: Any = None
    ) -> None:
        """
        Args:
            folder: the run folder.
            total_steps: for the ETA.
            label: what the live line calls the run.
            is_quiet: show nothing.
            trackers: an accelerator with initialised trackers, or None.
        """
        self.path = folder / METRICS
        self.total_steps = total_steps
        self.label = label
        self.is_quiet = is_quiet
        self._has_said_nothing_learned = False
        self.trackers = trackers
        self.bar = Bar(label, is_quiet=is_quiet)
        self.numbers = ""

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)

    def begin(self, step: int) -> None:
        """Show that the run goes on after this step."""
        self.bar.show(step, self.total_steps)

    @contextmanager
    def watching(self, what: str, engine: Engine, total: tuple[int, int]) -> Iterator[None]:
        """While the context lasts, show how far the engine is with its completions.

        Args:
            what: the stage's name.
            engine: draws.
            total: completions, and the most tokens that one may have.
        """
        count = DrawingCount(engine, total[0], longest=total[1])
        self.stage(lambda: f"{what} {count.text()}")
        yield
        self.stage(str)

    def stage(self, tell: Callable[[], str]) -> None:
        """Show what the run is at, once that takes long: beside the last step's numbers, or in their place."""
        started, has_room = time.monotonic(), not self.bar.console.is_terminal or self.bar.console.width >= WIDE

        def note() -> str:
            told = tell() if time.monotonic() - started >= LONG_S else ""
            return "  ".join(part for part in (self.numbers if has_room or not told else "", told) if part)

        self.bar.note = note

    def cut_after(self, step: int) -> None:
        """Drop rows beyond ``step`` and a torn last line, so that a resumed run writes no step twice."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                row = json.loads(line)
            except ValueError:
                break
            if line.endswith("\n") and row["step"] <= step:
                kept.append(line)
        replace_file(self.path, "".join(kept), is_synced=True)

    def evaluation_at(self, step: int) -> dict[str, float] | None:
        """The metrics of the evaluation after this step, if ``metrics.jsonl`` holds one."""
        if not self.path.exists():
            return None
        rows = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        return next((row["metrics"] for row in rows if row["kind"] == "eval" and row["step"] == step), None)

    def step(self, row: Mapping[str, Any]) -> None:
        """Write the row of an update and show its numbers."""
        self._append({"kind": "step", **row})
        step = int(row["step"])
        most = "pass" if row.get("is_binary", True) else "max"
        self.numbers = f"reward {row['reward']:.3f}  {most}@{row['n']} {row['pass_at_n']:.3f}  KL {row['kl']:.3f}"
        is_due = step % max(self.total_steps // 20, 1) == 0 or step == self.total_steps
        self.bar.show(step, self.total_steps, self.numbers, is_due=is_due)
        if self.trackers is not None:
            flat = {key: value for key, value in row.items() if isinstance(value, (int, float))}
            flat |= {f"seconds/{name}": value for name, value in row["seconds"].items()}
            self.trackers.log(flat, step=step)
        if row.get("weighted") == 0 and not row.get("grader_errors") and not self._has_said_nothing_learned:
            self._has_said_nothing_learned = True
            self.say(NOTHING_LEARNED.format(step=step, reward=row["reward"]))

    def evaluation(
        self,
        step: int,
        metrics: Mapping[str, float],
        intervals: Mapping[str, tuple[float, float]],
        gains: Mapping[str, tuple[float, float, float]],
        num_problems: int,
    ) -> None:
        """Write the row of an evaluation and show its numbers.

        Args:
            step: of the evaluation.
            metrics: means over the problems.
            intervals: ends of their 95 % intervals.
            gains: differences to the run's first evaluation with the ends of their intervals, paired by problem.
            num_problems: that were evaluated on.
        """
        row = {"kind": "eval", "step": step, "metrics": dict(metrics), "intervals": dict(intervals)}
        row["problems"] = num_problems
        self._append(row | ({"gains": dict(gains)} if gains else {}))
        self.say(f"step {step}: " + "  ".join(f"{k} {v:.3f}" for k, v in metrics.items() if "@" in k))
        if self.trackers is not None:
            self.trackers.log({f"eval/{key}": value for key, value in metrics.items()}, step=step)

    def write_stopped_batch(
        self,
        step: int,
        reason: str,
        samples: Samples,
        advantages_PM: Tensor | None,
        grades: Sequence[Sequence[Grade]] | None = None,
    ) -> Path:
        """Keep the batch that stopped the run for inspection; returns the file's path."""
        path = self.path.with_name(f"stopped_at_step_{step:06d}.json")
        batch = {
            "reason": reason,
            "step": step,
            "texts": samples.texts,
            "logprobs": [repr(x) for x in samples.logprobs_BT.sum(-1).tolist()],
            "grades": None if grades is None else [[_as_json(grade) for grade in row] for row in grades],
            "advantages": None if advantages_PM is None else [[repr(a) for a in row] for row in advantages_PM.tolist()],
        }
        replace_file(path, json.dumps(batch, indent=1), is_synced=True)
        return path

    def say(self, text: str) -> None:
        """Show one line to the person who watches."""
        if not self.is_quiet:
            self.bar.console.print(
                f"{self.label}: {text}", highlight=False, soft_wrap=not self.bar.console.is_terminal, markup=False
            )

    def _append(self, row: Mapping[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _as_json(grade: Grade) -> dict[str, Any]:
    reward = grade.reward if math.isfinite(grade.reward) else None
    return {"reward": reward, "verdict": grade.verdict.value, "reason": grade.reason}


class Stages:
    """Seconds spent in each named stage of a step."""

    def __init__(self, show: Callable[[Callable[[], str]], None] = lambda _: None) -> None:
        """
        Args:
            show: gets what tells the stage that begins.
        """
        self.seconds: dict[str, float] = {}
        self._show = show

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes to the stage of this name."""
        start = time.perf_counter()
        self._show(lambda: name)
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
