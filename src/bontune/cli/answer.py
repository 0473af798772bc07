"""``bontune answer``: Best-of-N in the terminal."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from typing import Annotated, Any

import typer
from rich.table import Table

from bontune.base.errors import BontuneError
from bontune.base.text import is_unicode_output
from bontune.cli import options as shared
from bontune.cli.terminal import console

SHOWN = 10
"""Distinct candidates in the table unless all are asked for."""


def answer_prompt(
    model: shared.Model,
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from standard input.")],
    verifier: Annotated[
        str, typer.Option(help="Pick with this verifier: majority, a reward model, file.py:function, or a judge.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="Draw N candidates.")] = 32,
    stop_at: Annotated[
        float | None,
        typer.Option(help="Draw no more once a candidate has this score; N is then the most.", show_default=False),
    ] = None,
    round_size: Annotated[
        int | None,
        typer.Option(
            "--round", min=1, help="With --stop-at, draw this many at a time; default: N / 8.", show_default=False
        ),
    ] = None,
    temperature: shared.Temperature = 1.0,
    top_p: shared.TopP = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="End a candidate after this many tokens.")] = 512,
    stop: Annotated[list[str] | None, typer.Option(help="End a candidate at this text; may be repeated.")] = None,
    seed: shared.Seed = 0,
    shows_all: Annotated[bool, typer.Option("--all", help="Show every candidate.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print winner, candidates and scores as JSON.")] = False,
) -> None:
    """Answer one prompt by Best-of-N: draw N candidates and let the verifier pick one.

    Prints the winner, and the candidates beside it.

    Example: bontune answer countdown-tiny --verifier countdown-verifier -n 32 --max-new-tokens 24 "11,13,7,1:18="
    """
    if prompt == "-":
        prompt = sys.stdin.read().rstrip("\n")
    if not prompt:
        raise BontuneError('There is no question: give it as an argument, or "-" to read it from the input.')
    from bontune.models import quiet_libraries
    from bontune.serving.generator import BestOfN

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
        stop=stop or [],
        seed=seed,
    )
    answer = best.generate(prompt)
    if is_json:
        print(json.dumps(_as_json(answer, best.verifier.name), ensure_ascii=not is_unicode_output(), indent=1))
        return
    print(answer.winner)
    console(stderr=True).print(_table(answer, best.verifier.name, n if shows_all else SHOWN))


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
