"""Contract of vLLM in this process, beyond the engines' own (:mod:`engines.test_conformance`), on a real vLLM:

1. adapters are merged into what it draws from, and follow each load;
2. a draw as a whole follows from its keys, and leaves torch's random numbers alone;
3. a build that keeps old weights, a model, version or option that it does not take: one sentence;
4. a training with it reaches what the own engine reaches, measures its ratios, and goes on after it broke down;
5. ``sample --engine vllm`` and ``BestOfN(engine="vllm")`` draw from a folder.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import bontune.engines.vllm as engine_module
import tiny
from bontune import Recipe, Trainer, task_from_rows
from bontune.base.errors import BontuneError
from bontune.base.settings import apply_overrides
from bontune.engines.contract import EngineFailed, SamplingOptions
from bontune.engines.opening import open_engine
from bontune.engines.vllm import VLLMEngine, VLLMOptions
from bontune.models.adapters import add_lora
from engines.test_conformance import Subject, check_logprobs

has_vllm = find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not has_vllm, reason="vLLM is not installed; `make test-vllm` installs it")
PROMPTS = ("3,7,2,9:45=", "a", "what is 12+30?")


def model(**given: Any) -> Any:
    return tiny.model(**({"hidden_size": 128, "max_position_embeddings": 64, "tie_word_embeddings": False} | given))


@pytest.fixture(scope="module")
def adapted() -> tuple[Any, VLLMEngine]:
    lora = add_lora(model(), r=4, alpha=8.0, targets="all-linear")
    return lora, VLLMEngine(lora, tiny.tokenizer(), VLLMOptions(context=48))


def subject(lora: Any, engine: VLLMEngine) -> Subject:
    return Subject(engine=engine, model=lora, tokenizer=tiny.tokenizer(), prompts=PROMPTS, stop=("a",), context=48)


@needs_vllm
def test_adapters_are_merged_and_follow_each_load(adapted: tuple[Any, VLLMEngine]) -> None:
    lora, engine = adapted
    check_logprobs(subject(lora, engine), 1.0)
    trained = [(name, p) for name, p in lora.named_parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        with torch.no_grad():
            for _, parameter in trained:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        engine.load((name, p.data) for name, p in trained)
        check_logprobs(subject(lora, engine), 1.0)


@needs_vllm
def test_a_draw_follows_from_its_keys_and_leaves_random_numbers_alone(adapted: tuple[Any, VLLMEngine]) -> None:
    _, engine = adapted
    options = SamplingOptions(num_samples=8, max_new_tokens=12)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    drawn = [engine.draw(PROMPTS, options, [(seed, i) for i in range(3)]).texts for seed in (0, 1, 0)]
    assert torch.equal(torch.rand(3), expected)
    assert drawn[0] == drawn[2] != drawn[1]


@needs_vllm
def test_its_own_bounds_are_told(adapted: tuple[Any, VLLMEngine]) -> None:
    _, engine = adapted
    assert engine.limits.context == 48
    with pytest.raises(BontuneError, match=r"context of 48: raise engine\.context"):
        engine.check(["1" * 40], 20)
    options = SamplingOptions(num_samples=1, max_new_tokens=4, top_p=0.9)
    with pytest.raises(BontuneError, match="top_p = 1 only"):
        engine.draw(PROMPTS, options, [(0,)] * 3)


ALONE = """
import tiny
from bontune.base.errors import BontuneError
from bontune.engines.vllm import VLLMEngine, VLLMOptions
from engines.test_vllm import model
try:
    VLLMEngine(model(**{given}), tiny.tokenizer())
except BontuneError as error:
    print("REFUSED:", error)
"""


@needs_vllm
@pytest.mark.parametrize(
    ("given", "phrase"),
    [
        ({"tie_word_embeddings": True}, "keeps some of its old weights.*tied embeddings"),
        ({"hidden_size": 96}, "does not take the model .*head_dim=24.*take the engine"),
        ({"max_position_embeddings": 10_000_000}, "lower engine.context"),
    ],
    ids=["tied", "head-size", "memory"],
)
def test_what_it_cannot_do_is_refused_in_a_sentence(given: dict[str, Any], phrase: str) -> None:
    """In a process of its own, so that what a failed start leaves behind does no harm."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(given=given)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("REFUSED:")]
    assert re.search(phrase, told), told
    assert told.endswith(".")


def test_a_missing_or_old_vllm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        __version__ = "0.9.1"

    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BontuneError, match=r"cannot be imported here .*bontune\[vllm\]"):
        engine_module.import_vllm()
    for name in ("vllm", "vllm.platforms", "vllm.sampling_params"):
        monkeypatch.setitem(sys.modules, name, Old())  # type: ignore[arg-type]
    with pytest.raises(BontuneError, match=r"needs vLLM 0\.32 or newer, and 0\.9\.1"):
        engine_module.import_vllm()


def test_names_of_engines_are_checked() -> None:
    with pytest.raises(BontuneError, match="did you mean 'vllm'"):
        open_engine("countdown-tiny", engine="vlm")
    with pytest.raises(BontuneError, match="is a server"):
        open_engine("http://127.0.0.1:1/v1", engine="vllm")


def test_top_p_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match=r"top_p = 1 only, got 0\.9"):
        trainer(tmp_path / "run", "vllm", "sampling.top_p=0.9")
    assert not (tmp_path / "run").exists()


# ---- memory ----


class Recorded:
    """vLLM's front on a GPU: it notes what is asked about memory, which its build for CPUs ignores."""

    def __init__(self, llm: Any) -> None:
        self.llm, self.calls = llm, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.llm, name)

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append("wake " + " ".join(tags))

    def collective_rpc(self, method: str, **given: Any) -> Any:
        self.calls.append(method)
        return self.llm.collective_rpc(method, **given)


@needs_vllm
def test_on_a_gpu_it_sleeps_between_draws_and_takes_weights_half_awake(adapted: tuple[Any, VLLMEngine]) -> None:
    lora, engine = adapted
    recorded = Recorded(engine._llm)
    options, keys = SamplingOptions(num_samples=1, max_new_tokens=2), [(i,) for i in range(3)]
    engine._llm, engine._on_gpu = recorded, True
    try:
        for _ in range(2):
            engine.draw(PROMPTS, options, keys)
        engine.load((name, p.data) for name, p in lora.named_parameters() if p.requires_grad)
        engine.load([])
        engine.draw(PROMPTS, options, keys)
    finally:
        engine._llm, engine._on_gpu, engine._asleep = recorded.llm, False, set()
    draw_and_sleep = ["sleep 1", "wake weights kv_cache", "sleep 1"]
    load_twice = ["wake weights", "reload_weights", "reload_weights"]
    assert recorded.calls == [*draw_and_sleep, *load_twice, "wake kv_cache", "sleep 1"]


# ---- training ----

ROWS = [{"id": str(i), "prompt": f"say {letter}:", "answer": letter} for i, letter in enumerate("abcdefgh")]


def task() -> Any:
    """Right is what holds the letter."""
    return task_from_rows({"train": ROWS, "test": ROWS}, lambda row, text: row["answer"] in text, name="letters")


def trainer(folder: Path, name: str, *overrides: str, **given: Any) -> Trainer:
    tree = {
        "objective": {"name": "rloo", "n": 1},
        "engine": {"name": name},
        "sampling": {"samples": 16, "max_new_tokens": 6},
        "training": {"steps": 20, "prompts_per_step": 8, "lr": 6e-3, "warmup": 2, "device": "cpu"},
        "kl": {"start": 0.0, "end": 0.0},
        "eval": {"every": 0},
        "run": str(folder),
    }
    recipe = Recipe.from_dict(apply_overrides(tree, overrides))
    return Trainer(recipe, task=task(), model=model(sharp=2.0), tokenizer=tiny.tokenizer(), is_quiet=True, **given)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "step"]


class Breaking:
    """vLLM's own engine, which breaks down in its n-th step from now."""

    def __init__(self, engine: Any, after: int) -> None:
        self.engine, self.left = engine, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def step(self) -> Any:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("the device is gone")
        return self.engine.step()


@needs_vllm
def test_a_training_reaches_what_the_own_engine_reaches_and_survives_a_breakdown(tmp_path: Path) -> None:
    trainer(tmp_path / "own", "transformers").train()
    first = trainer(tmp_path / "vllm", "vllm", "training.importance=token_clip")
    inner = first.engine._llm.llm_engine
    first.engine._llm.llm_engine = Breaking(inner, after=50)
    with pytest.raises(EngineFailed, match=r"^The engine vllm broke down while it drew: the device is gone\.$"):
        first.train()
    reached = first.step
    assert 2 < reached < 19
    first.engine._llm.llm_engine = inner
    again = trainer(tmp_path / "vllm", "vllm", "training.importance=token_clip", engine=first.engine)
    again.engine._policy = again.model
    again.train()
    rows, own = rows_of(tmp_path / "vllm"), rows_of(tmp_path / "own")
    assert [row["step"] for row in rows] == list(range(1, 21)), "no step is lost or repeated"
    assert all(row["samples"] == 128 for row in rows)
    for found in (rows, own):
        assert last(found) > found[0]["reward"] + 0.25
    assert last(rows) == pytest.approx(last(own), abs=0.15)
    for row in rows:
        assert row["ratio"] == pytest.approx(1, abs=1e-3)
        assert row["engine_kl"] < 1e-4


TWO = """
from pathlib import Path
from engines.test_vllm import trainer
trainer(Path({folder!r}), "vllm", "training.steps=2").train()
"""


@needs_vllm
def test_every_process_of_a_training_has_an_engine_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO.format(folder=str(tmp_path / "run")))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(tmp_path / "two.py"),
    ]
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": tests})
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "run")
    assert [row["samples"] for row in rows] == [128, 128], "both processes' samples"
    assert rows[-1]["ratio"] == pytest.approx(1, abs=1e-4), "both engines have the weights of the update"


def last(rows: list[dict[str, Any]]) -> float:
    return sum(row["reward"] for row in rows[-4:]) / 4


# ---- pools and answers ----


@needs_vllm
def test_sample_and_best_of_n_draw_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    given = ["sample", str(folder), "jsonl", f"data={tmp_path / 'rows.jsonl'}", "grader=exact", "--engine", "vllm"]
    given += ["--split", "all", "-n", "4", "--max-new-tokens", "6", "-o", str(tmp_path / "pool.jsonl")]
    done = subprocess.run([sys.executable, "-m", "bontune", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 problems × 4 samples" in done.stdout
    script = f"""
import bontune
best = bontune.BestOfN({str(folder)!r}, lambda problem, text: float(len(text)), n=4, engine="vllm", max_new_tokens=6)
answer = best.generate("say a:")
print("LONGEST", len(answer.winner) == max(len(c.text) for c in answer.candidates), len(answer.candidates))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "LONGEST True 4" in done.stdout, done.stderr
