"""What the page of a pool lets a reader browse: an index of the problems, and each problem's samples, packed.

The index is small and is read at once. The samples of a problem are packed alone (gzip, base64), so that a browser
unpacks only those that a reader opens. Completions that are the same are stored once, with their number.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

import bontune.metrics as metrics
from bontune.pools.pool import Pool

MAX_PACKED_BYTES = 11_000_000
"""Most bytes that all pools of a page may take together; longer texts are cut until they fit."""
CUTS = (None, 50_000, 20_000, 10_000, 5_000, 3_000, 2_000, 1_400, 1_000, 700, 500, 300, 150, 80)
"""Characters that a text may keep, tried in turn; the last is taken in any case."""
HEAD = 160
"""Characters that the index shows of a prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Browsable:
    """One pool as the page holds it."""

    index: dict[str, Any]
    """Columns of P values each, and what is true of the whole pool; see :func:`problem_index`."""
    packed: list[str]
    """The samples of each problem, base64 of gzip of JSON."""
    cut: int | None
    """Characters that texts were cut to; None if they are whole."""


def browsable(
    name: str, pool: Pool, max_bytes: int = MAX_PACKED_BYTES, scale: metrics.RewardScale | None = None
) -> Browsable:
    """Pack a pool for the page.

    Args:
        name: what the page calls it.
        pool: any.
        max_bytes: what its samples may take.
        scale: of the rewards of all pools of the page; None: of this one alone.
    """
    packed, cut = pack(problem_details(pool), max_bytes)
    return Browsable(index={"name": name, "cut": cut, **problem_index(pool, scale)}, packed=packed, cut=cut)


def pack(details: Sequence[dict[str, Any]], max_bytes: int) -> tuple[list[str], int | None]:
    """Each problem's samples packed, with texts whole if that takes at most ``max_bytes``, else cut.

    Returns:
        What was packed, and what texts were cut to.
    """
    packed: list[str] = []
    for cut in CUTS:
        packed, size = [], 0
        for detail in details:
            packed.append(_packed(detail if cut is None else _shortened(detail, cut)))
            size += len(packed[-1])
            if size > max_bytes and cut != CUTS[-1]:
                break
        else:
            return packed, cut
    raise AssertionError("the last cut is taken in any case")


def problem_index(pool: Pool, scale: metrics.RewardScale | None = None) -> dict[str, Any]:
    """What can be sorted and filtered by, a column each.

    ``right``: mean reward; ``most``: highest; ``pick``: what the verifier's choice among all samples earns, the mean
    over ties (null without a verifier that errs); ``vote``: the same of the most frequent answer; ``errors``:
    completions that could not be graded; ``distinct``: different completions.
    """
    scale = metrics.reward_scale([pool.columns["reward"]]) if scale is None else scale
    rewards = np.array(pool.rewards(scale))
    num_samples = rewards.shape[1]
    scores, answers, levels = pool.scores(), pool.answers(), pool.levels()
    heads = [_text(row[0]) for row in pool.columns["prompt"]] if "prompt" in pool.columns else [""] * len(rewards)
    texts = pool.columns.get("completion")
    return {
        "samples": num_samples,
        "binary": scale.is_binary,
        "id": pool.problem_ids,
        "level": None if all(level is None for level in levels) else [_scalar(level) for level in levels],
        "head": [_ending(head) for head in heads],
        "right": rewards.mean(1).tolist(),
        "most": rewards.max(1).tolist(),
        "distinct": None if texts is None else [len({_text(text) for text in row}) for row in texts],
        "pick": None if scores is None else _picked(rewards, np.array(scores)),
        "vote": None if answers is None else _voted(rewards, answers),
        "errors": [sum(r is None or math.isnan(r) for r in row) for row in pool.columns["reward"]],
    }


def problem_details(pool: Pool) -> list[dict[str, Any]]:
    """Of each problem: prompt, reference, and its samples, those that are alike as one with their number.

    A sample is [completion, number, reward, verdict, answer, highest score, lowest score, reason, stop reason, tokens].
    The ones that the verifier likes best come first; without a verifier, the most frequent.
    """
    columns = pool.columns
    num_samples = len(columns["reward"][0])
    nothing = [None] * num_samples
    scores = pool.scores()
    details = []
    for place in range(len(pool.problem_ids)):
        named = {
            name: columns[name][place] if name in columns else nothing
            for name in ("completion", "reward", "verdict", "answer", "reason", "stop_reason", "num_tokens")
        }
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for sample in range(num_samples):
            reward = named["reward"][sample]
            values = {name: _text(column[sample]) for name, column in named.items() if name != "reward"}
            reward = None if reward is None or math.isnan(reward) else float(reward)
            score = None if scores is None else scores[place][sample]
            key = (reward, *values.values())
            group = groups.setdefault(
                key,
                [
                    values["completion"],
                    0,
                    reward,
                    values["verdict"],
                    values["answer"],
                    score,
                    score,
                    values["reason"],
                    values["stop_reason"],
                    values["num_tokens"],
                ],
            )
            group[1] += 1
            if score is not None:
                group[5], group[6] = max(group[5], score), min(group[6], score)
        ordered = sorted(groups.values(), key=lambda group: (-math.inf if group[5] is None else -group[5], -group[1]))
        for group in ordered:  # JSON has no infinity
            group[5], group[6] = _stated(group[5]), _stated(group[6])
        first = {name: _text(columns[name][place][0]) if name in columns else "" for name in ("prompt", "reference")}
        details.append({**first, "samples": ordered})
    return details


def as_json_element(value: object) -> Markup:
    """JSON that is safe inside ``<script type="application/json">``: no ``<`` is left to end or open anything.

    >>> str(as_json_element("</script>"))
    '"\\\\u003c/script>"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _packed(detail: dict[str, Any]) -> str:
    text = json.dumps(detail, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), compresslevel=6, mtime=0)).decode("ascii")


def _shortened(detail: dict[str, Any], cut: int) -> dict[str, Any]:
    """With every text cut to so many characters, and a note of how many are left out."""

    def short(value: Any) -> Any:
        if not isinstance(value, str) or len(value) <= cut:
            return value
        return f"{value[:cut]}… ({len(value) - cut:,} more characters are in the pool)"

    samples = [[short(value) for value in sample] for sample in detail["samples"]]
    return {"prompt": short(detail["prompt"]), "reference": short(detail["reference"]), "samples": samples}


def _picked(rewards: np.ndarray, scores: np.ndarray) -> list[float] | None:
    """None where the scores are the rewards: an oracle's choice is right wherever one can be."""
    if np.array_equal(np.where(np.isneginf(scores), rewards, scores), rewards):
        return None
    picked: list[float] = metrics.best_of_k(rewards, scores, rewards.shape[1]).tolist()
    return picked


def _voted(rewards: np.ndarray, answers: list[list[Any]]) -> list[float]:
    voted: list[float] = metrics.majority_at_k(answers, rewards, rewards.shape[1]).tolist()
    return voted


def _ending(text: str) -> str:
    """The end of a prompt, where the question is (few-shot prompts begin alike)."""
    line = " ".join(text.split())
    return line if len(line) <= HEAD else f"…{line[-HEAD:]}"


def _text(value: object) -> str:
    """Any value of a pool as text; empty if there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _scalar(value: object) -> int | float | str | None:
    if value is None or isinstance(value, (int, str)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def _stated(score: float | None) -> float | str | None:
    """A score as JSON can hold it."""
    return score if score is None or math.isfinite(score) else "−∞" if score < 0 else "∞"
