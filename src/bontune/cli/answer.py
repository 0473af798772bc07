"""``bontune answer``: Best-of-N in the terminal."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from bontune.base.errors import BontuneError
from bontune.base.text import is_unicode_output
from bontune.models import quiet_libraries
from bontune.serving.generator import BestOfN

SHOWN = 10
"""Distinct candidates in the table unless all are asked for."""


def run_answer(
    model: str,
    prompt: str,
    *,
    verifier: str,
    n: int,
    stop_at: float | None,
    round_size: int | None,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    stop: list[str],
    seed: int,
    shows_all: bool,
    is_json: bool,
) -> None:
    """Print the winner on stdout and the candidates with their scores on stderr; or all of it as JSON.

    Raises:
        BontuneError: nothing was asked.
    """
    if prompt == "-":
        prompt = sys.stdin.read().rstrip("\n")
    if not prompt:
        raise BontuneError('There is no question: give it as an argument, or "-" to read it from the input.')
    quiet_libraries()

    best = BestOfN(
        model,
        verifier,
        n,
        stop_at=stop_at,
        round_size=round_size,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        stop=stop,
        seed=seed,
    )
    answer = best.generate(prompt)
    if is_json:
        print(json.dumps(_as_json(answer, best.verifier.name), ensure_ascii=not is_unicode_output(), indent=1))
        return
    print(answer.winner)
    Console(stderr=True, markup=False, emoji=False).print(
        _table(answer, best.verifier.name, SHOWN if not shows_all else n)
    )


def _as_json(answer: Any, verifier: str) -> dict[str, Any]:
    return {
        "prompt": answer.prompt,
        "winner": answer.winner,
        "score": answer.score,
        "verifier": verifier,
        "candidates": [
            {"text": c.text, "score": c.score if math.isfinite(c.score) else None} for c in answer.candidates
        ],
    }


def _table(answer: Any, verifier: str, shown: int) -> Table:
    """Distinct candidates by falling score; the winner is marked."""
    times = Counter(c.text for c in answer.candidates)
    scores = {c.text: c.score for c in answer.candidates}
    order = sorted(times, key=lambda text: (text != answer.winner, -scores[text]))
    title = f"{len(answer.candidates)} candidates, {len(times)} distinct, picked by {verifier}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("", width=1)
    table.add_column("score", justify="right")
    table.add_column("times", justify="right")
    table.add_column("candidate", overflow="fold")
    for text in order[:shown]:
        mark = "*" if text == answer.winner else ""
        table.add_row(mark, f"{scores[text]:.3g}", str(times[text]), _short(text))
    if len(order) > shown:
        table.caption = f"{len(order) - shown} more with --all"
    return table


def _short(text: str) -> str:
    """A candidate on a few lines: its end is where the answer is."""
    text = text.strip()
    return text if len(text) <= 400 else f"{text[:120]} … {text[-240:]}"
