"""A run's records: ``metrics.jsonl``, a progress line, and optional trackers."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from bontune.base.files import replace_file
from bontune.base.progress import Bar
from bontune.engines.contract import DrawingCount, Engine, Samples, StopReason
from bontune.grading.verdict import Grade, Verdict
from bontune.metrics import reward_scale
from bontune.objectives.subsets import best_of_n_value
from bontune.pools.collect import Graded
from bontune.training.processes import sum_over_processes
from bontune.training.read_log import METRICS

NOTHING_LEARNED = (
    "step {step}: no sample carries weight, because the samples of each prompt are worth the same (mean reward "
    "{reward:.3g}): nothing can be learned from them; if that stays so, look at the grader, or take problems that are "
    "neither too easy nor too hard"
)
"""What is said once of a step without a gradient from rewards; ``weighted`` in the metrics tells of the others."""
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
        """Show that the run continues after this step."""
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


def batch_numbers(graded: Graded, num_samples: int, n: int, accelerator: Any) -> dict[str, float]:
    """Numbers that describe a step's samples.

    Args:
        graded: this process's sequences.
        num_samples: the sequences of each prompt that count, the first ones.
        n: the Best-of-N budget.
        accelerator: sums over the processes; all must call.

    Returns:
        Means over all prompts or samples; ``timeouts``, ``crashes`` and ``grader_errors`` are counts of samples. A
        sample that could not be graded counts as the lowest reward of the step. Where rewards are not all 0 or 1,
        ``is_binary`` is False and ``pass_at_n`` is max@N.
    """
    samples, num_prompts, first = graded.samples, len(graded.problems), slice(num_samples)
    rows = [row[first] for row in graded.graded_PM]
    seen = gather_object([sorted({reward for row in rows for reward in row if not math.isnan(reward)})])
    scale = reward_scale([seen])  # of all processes
    rewards_PM = torch.tensor(scale.filled(rows), dtype=torch.float64)
    scores_PM = graded.scores_PM[:, first].contiguous()
    n = min(n, num_samples)
    verdicts = [grade.verdict for row in graded.grades for grade in row[first]]
    stops = [stop for b, stop in enumerate(samples.stops) if b % samples.num_samples < num_samples]
    means = {
        "reward": rewards_PM.mean(-1).sum().item(),
        "pass_at_n": best_of_n_value(rewards_PM, rewards_PM, n).sum().item(),
        "best_of_n": best_of_n_value(rewards_PM, scores_PM, n).sum().item(),
        "length": samples.lengths_B.view(num_prompts, -1)[:, first].sum().item() / num_samples,
        "cut_off": stops.count(StopReason.LENGTH) / num_samples,
        "canaries": sum(mentions_canary(text) for row in samples.texts for text in row[first]) / num_samples,
    }
    counts = {
        "timeouts": verdicts.count(Verdict.TIMEOUT),
        "crashes": verdicts.count(Verdict.CRASHED),
        "grader_errors": verdicts.count(Verdict.GRADER_ERROR),
        "samples": num_prompts * num_samples,
    }
    local = [num_prompts, *means.values(), *counts.values()]
    prompts, *total = sum_over_processes(accelerator, [float(x) for x in local])
    numbers = dict(zip([*means, *counts], total, strict=True))
    kind: dict[str, float] = {} if scale.is_binary else {"is_binary": False}
    found = {name: x / prompts if name in means else int(x) for name, x in numbers.items()}
    return {"n": n, **kind, **found}


COLUMNS = ("step", "problem", "prompt", "completion", "verdict")


def log_samples(accelerator: Any, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log the samples of an evaluation as a table.

    Args:
        accelerator: holds the trackers.
        step: of the evaluation.
        rows: see :func:`bontune.training.evaluation.sample_rows`.
    """
    table = [
        [step, row["problem"], row["prompt"], completion["text"], completion["verdict"]]
        for row in rows
        for completion in row["completions"]
    ]
    for tracker in accelerator.trackers:
        if tracker.name == "wandb":
            tracker.log_table("samples", columns=list(COLUMNS), data=table, step=step)
        elif tracker.name == "trackio":
            import trackio  # type: ignore[import-not-found, unused-ignore]

            tracker.log({"samples": trackio.Markdown(_as_markdown(table))}, step=step)
        elif tracker.name == "tensorboard":
            tracker.tracker.add_text("samples", _as_markdown(table), step)


def log_report(accelerator: Any, page: Path, step: int) -> None:
    """Log the page of a run where a tracker shows pages; TensorBoard gets the place of the file."""
    html = page.read_text(encoding="utf-8")
    for tracker in accelerator.trackers:
        if tracker.name == "wandb":
            import wandb  # type: ignore[import-not-found, import-untyped, unused-ignore]

            tracker.log({"report": wandb.Html(html, inject=False)}, step=step)
        elif tracker.name == "trackio":
            import trackio

            tracker.log({"report": trackio.Html(html)}, step=step)
        elif tracker.name == "tensorboard":
            tracker.tracker.add_text("report", f"The report is in {page}.", step)


def _as_markdown(table: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in table:
        cells = (str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


_CANARIES = re.compile(r"\b(?:_exit|__eq__|__reduce__|settrace|_getframe|ctypes|gc)\b")


def mentions_canary(text: str) -> bool:
    """Whether a program names a tool for tampering with its grader.

    No verdict: training logs the rate, and a rate that climbs says that the policy has found something to exploit.

    Example:
        >>> mentions_canary("import os; os._exit(0)"), mentions_canary("return sorted(egc)")
        (True, False)
    """
    return _CANARIES.search(text) is not None
