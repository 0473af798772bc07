"""The problems and grades that a pool on disk holds, for verifiers that score it again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.grading.verdict import Grade, Verdict
from bontune.pools.pool import Pool


def problems_of(pool: Pool, path: Path) -> list[Problem]:
    """The problems of a pool, as far as it tells.

    Raises:
        BontuneError: it has no prompts or no completions.
    """
    for name in ("prompt", "completion"):
        if name not in pool.columns or not all(isinstance(x, str) for row in pool.columns[name] for x in row):
            raise BontuneError(f"{path} has no column {name!r} with a text in every row; a verifier reads both.")
    first = {name: [row[0] for row in rows] for name, rows in pool.columns.items()}
    nothing = [None] * len(pool.problem_ids)
    return [
        Problem(id=name, prompt=prompt, reference=str(reference or ""), level=level, messages=_messages(messages, path))
        for name, prompt, reference, level, messages in zip(
            pool.problem_ids,
            first["prompt"],
            first.get("reference", nothing),
            first.get("level", nothing),
            first.get("messages", nothing),
            strict=True,
        )
    ]


def _messages(value: Any, path: Path) -> tuple[dict[str, str], ...]:
    """A conversation as a list of turns, or as JSON text."""
    try:
        turns = json.loads(value) if isinstance(value, str) else value or []
        return tuple({"role": str(turn["role"]), "content": str(turn["content"])} for turn in turns)
    except (ValueError, TypeError, KeyError):
        raise BontuneError(
            f"{path}: messages must be a list of turns with role and content, got {value!r:.80}."
        ) from None


def grades_of(pool: Pool) -> list[list[Grade]]:
    """The grades that a pool holds: what the oracle and votes go by."""
    answers = pool.columns.get("answer") or [[None] * len(row) for row in pool.columns["reward"]]
    return [
        [
            Grade(reward=math.nan, verdict=Verdict.GRADER_ERROR)
            if reward is None or math.isnan(reward)
            else Grade(
                reward=reward,
                verdict=Verdict.PASSED if reward > 0 else Verdict.FAILED,
                answer=None if answer is None else str(answer),
            )
            for reward, answer in zip(*row, strict=True)
        ]
        for row in zip(pool.columns["reward"], answers, strict=True)
    ]
