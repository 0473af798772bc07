"""Samples of the same few problems at each evaluation, for people who watch a run: ``samples.jsonl``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bontune.base.files import replace_file
from bontune.pools.collect import Graded

SAMPLES = "samples.jsonl"
NUM_PROBLEMS = 3
NUM_COMPLETIONS = 4


def rows_of(graded: Graded, num_problems: int = NUM_PROBLEMS) -> list[dict[str, Any]]:
    """The first completions of the first problems, as plain data."""
    rows = []
    for problem, texts, grades in zip(graded.problems, graded.samples.texts, graded.grades, strict=True):
        shown = list(zip(texts, grades, strict=True))[:NUM_COMPLETIONS]
        rows.append(
            {
                "problem": problem.id,
                "prompt": problem.prompt,
                "reference": problem.reference,
                "completions": [
                    {
                        "text": text,
                        "verdict": grade.verdict.value,
                        "reward": None if math.isnan(grade.reward) else grade.reward,
                    }
                    for text, grade in shown
                ],
            }
        )
    return rows[:num_problems]


def append(folder: Path, step: int, rows: Sequence[dict[str, Any]]) -> None:
    """Add the samples of an evaluation, in the place of those of this step or a later one.

    Raises:
        OSError: the file cannot be written.
    """
    kept = [row for row in read(folder) if row["step"] < step]
    new = [{"step": step, **row} for row in rows]
    replace_file(folder / SAMPLES, "".join(json.dumps(row) + "\n" for row in [*kept, *new]))


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run, in order; none where there is no such file."""
    path = folder / SAMPLES
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
