"""Sampling from `transformers serve`, a server that is not ours. Needs `pip install transformers[serving]`.

It ignores `n`, keeps stop strings in the text, cannot list its models without a network, and seeds the whole process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny
from bontune.engines.contract import SamplingOptions, StopReason
from bontune.engines.openai import OpenAIEngine, Serving
from training.run_driver import wait_for

for name in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(name, reason="transformers[serving] is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served") / "model"
    model, tokenizer = tiny.model(), tiny.tokenizer()
    model.generation_config.do_sample = True
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = Path(sys.executable).with_name("transformers")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(folder.with_name("log"), "wb") as log:
        process = subprocess.Popen(
            [command, "serve", str(folder), "--device", "cpu", "--port", str(port)],
            stdout=log,
            stderr=log,
            env=environment,
        )
        try:
            wait_for(lambda: is_healthy(port), "transformers serve")
            yield f"http://127.0.0.1:{port}/v1#{folder}"
        finally:
            process.kill()
            process.wait()


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return json.loads(reply.read()) == {"status": "ok"}
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_foreign_server(address: str, api: str) -> None:
    engine = OpenAIEngine(address, Serving(api=api, choices=3, concurrency=1))
    options = SamplingOptions(num_samples=4, max_new_tokens=8, temperature=1.0, stop=() if api == "chat" else ("a",))
    prompts, keys = ["1+2=", "b:"], [(0, "x"), (0, "y")]
    rows = engine.draw(prompts, options, keys).rows
    assert [len(row) for row in rows] == [4, 4]
    assert len({c.text for row in rows for c in row}) > 4
    assert all(c.num_tokens is not None and 1 <= c.num_tokens <= 8 for row in rows for c in row)
    assert {c.stop for row in rows for c in row} <= {StopReason.END, StopReason.LENGTH, StopReason.STOP}
    if api == "completions":
        assert not any("a" in c.text for row in rows for c in row)
    assert engine.draw(prompts, options, keys).rows == rows, "one request at a time draws the same again"
    engine.close()


def test_greedy(address: str) -> None:
    engine = OpenAIEngine(address)
    options = SamplingOptions(num_samples=4, max_new_tokens=8, temperature=0)
    (row,) = engine.draw(["1+2="], options, [(0,)]).rows
    assert len({c.text for c in row}) == 1
    engine.close()
