"""Whether a reward model is read at the token that it was trained at, by how well it ranks graded answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bontune.base.problems import Problem
from bontune.verifiers.input_format import ENDS
from bontune.verifiers.reward_model import RewardModel

PROBLEMS, SAMPLES, FEWEST = 64, 8, 10
"""Most problems that are looked at, most samples of each, and the problems without which nothing is said."""
MARGIN = 0.05
"""By how much more of the pairs must be ranked right before another end is said to be the better one."""


def doubt_about_end(
    verifier: RewardModel,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    rewards: Sequence[Sequence[float | None]],
) -> str | None:
    """A sentence if the verifier ranks clearly better with the other end of its input, else None.

    Args:
        verifier: as it is read now.
        problems, completions: P problems with M completions each; the first of them are scored both ways.
        rewards: of the completions; a pair counts where one reward is higher than the other.
    """
    rows = [
        (problem, texts[:SAMPLES], [-math.inf if r is None or math.isnan(r) else r for r in values[:SAMPLES]])
        for problem, texts, values in zip(problems, completions, rewards, strict=True)
    ]
    rows = [row for row in rows if len(set(row[2])) > 1][:PROBLEMS]
    if len(rows) < FEWEST or verifier.tokenizer.eos_token is None:
        return None
    now = verifier.input_format.end
    other = next(end for end in ENDS if end != now)
    here, there = (_shares(verifier, end, rows) for end in (now, other))
    gains = [there_p - here_p for here_p, there_p in zip(here, there, strict=True)]
    gain = sum(gains) / len(gains)
    error = math.sqrt(sum((g - gain) ** 2 for g in gains) / (len(gains) - 1) / len(gains))
    if gain < max(MARGIN, 2 * error):
        return None
    return (
        f"With verifier.end={other} (#{other} behind its name) {verifier.name} ranks {sum(there) / len(there):.0%} of "
        f"pairs right, and as it is read now, with end={now}, {sum(here) / len(here):.0%}: it was probably trained so."
    )


def _shares(
    verifier: RewardModel, end: str, rows: Sequence[tuple[Problem, Sequence[str], Sequence[float]]]
) -> list[float]:
    """Each problem's share of pairs of a better and a worse answer that are ranked right; a tie is half right."""
    reader = RewardModel(
        verifier.model,
        verifier.tokenizer,
        name=verifier.name,
        input_format=replace(verifier.input_format, end=end),
        token_budget=verifier.token_budget,
        device=verifier.device,
    )
    found = []
    scores_PM = reader.score([row[0] for row in rows], [row[1] for row in rows])
    for (_, _, rewards), scores in zip(rows, scores_PM, strict=True):
        pairs = [(i, j) for i in range(len(rewards)) for j in range(len(rewards)) if rewards[i] > rewards[j]]
        right = sum(1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0 for i, j in pairs)
        found.append(right / len(pairs))
    return found
