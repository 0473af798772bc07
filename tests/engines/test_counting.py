"""How far a drawing is:

1. an engine counts its completions and tokens while it draws, and in the end has counted all of them;
2. the share that is done only grows, is 1 in the end, and what was there before does not count as work of this start;
3. the bar moves with the completions, within 80 columns.
"""

from __future__ import annotations

import os
import pty
import re
from pathlib import Path

import pytest

import families
import processes
import tiny
from bontune.engines.contract import DrawingCount, Progress, SamplingOptions
from bontune.engines.transformers import TransformersEngine

PROMPTS = ["1+2=", "12+34+5=", "3*4-5="]
OPTIONS = SamplingOptions(num_samples=4, max_new_tokens=12)
KEYS = [(0, p) for p in range(len(PROMPTS))]


@pytest.mark.parametrize("family", ["qwen2", "mamba"])
@pytest.mark.parametrize("token_budget", [65_536, 32])
def test_an_engine_counts_what_it_draws(family: str, token_budget: int) -> None:
    model = tiny.model() if family == "qwen2" else families.build(family)
    engine = TransformersEngine(model, tiny.tokenizer(), token_budget=token_budget)
    engine.draw(PROMPTS, OPTIONS, KEYS)
    count = DrawingCount(engine, 12, longest=12)
    seen: list[tuple[int, float]] = []
    lengths = engine.draw(PROMPTS, OPTIONS, KEYS, lambda: seen.append((count.done, count.share))).lengths_B
    assert (count.done, count.share) == (12, 1.0)
    assert count.note().startswith(f"{int(lengths.sum())} tokens, ")
    assert seen == sorted(seen)
    assert 0 < seen[len(seen) // 2][1] < 1


class Drawing:
    """An engine that says what it is told to say."""

    def __init__(self) -> None:
        self.progress = Progress(num_samples=100, num_tokens=1000)


def test_what_was_there_before_is_no_work_of_this_start() -> None:
    engine = Drawing()
    count = DrawingCount(engine, 20, longest=10, kept=12)
    assert (count.done, count.share, count.note()) == (12, 0.0, "")
    engine.progress.num_tokens += 16
    assert (count.done, count.share) == (12, 16 / 80), "tokens tell while no completion has ended"
    engine.progress.num_samples += 4
    assert (count.done, count.share) == (16, 0.5)
    engine.progress.num_samples += 10
    assert (count.done, count.share) == (20, 1.0), "a batch that is drawn again counts no more than once"
    assert DrawingCount(object(), 20, longest=10).text() == "0/20", "an engine need not count"


def test_the_bar_moves_with_the_completions_within_80_columns(tmp_path: Path) -> None:
    command = ("sample", "countdown-tiny", "countdown", "--limit", "4", "-n", "512", "-o", str(tmp_path / "p.parquet"))
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    run = processes.start(command, stderr=terminal, env=environment)
    os.close(terminal)
    said = b""
    while True:
        try:
            piece = os.read(main, 65_536)
        except OSError:  # how Linux tells the end of a terminal
            break
        if not piece:
            break
        said += piece
    os.close(main)
    assert run.wait() == 0, said.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.startswith("sampling")]
    assert max(map(len, lines)) <= 80
    counted = [int(found[1]) for line in lines if (found := re.search(r"(\d+)/2048 completions", line))]
    assert counted == sorted(counted)
    assert counted[-1] == 2048
    assert re.search(r"2048/2048 completions 0:00 left [\d.]+k tokens, [\d.]+k?/s", lines[-1])
