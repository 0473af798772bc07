"""The model that ships: it loads offline, is small, spells characters and half knows Countdown."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import build_countdown
import build_programs
import programs_problems
import pytest
import torch
from countdown_problems import demonstrations

import tiny
from bontune.base.errors import BontuneError
from bontune.models import load_model, resolve, shipped
from bontune.tasks.countdown import Countdown
from bontune.tasks.programs import Programs

FOLDER = Path(str(files("bontune.models"))) / "countdown_tiny"
PROGRAMS_FOLDER = FOLDER.with_name("programs_tiny")


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load_model("countdown-tiny")


@pytest.mark.parametrize("folder", [FOLDER, PROGRAMS_FOLDER], ids=lambda folder: folder.name)
def test_ships_as_a_plain_folder_under_a_megabyte(folder: Path) -> None:
    assert folder.name.replace("_", "-") in shipped()
    names = {file.name for file in folder.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "README.md"} <= names
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000
    assert "auto_map" not in json.loads((folder / "config.json").read_text())


def test_loads_without_a_network_and_says_when_it_needs_one() -> None:
    """In a fresh interpreter with a network that is down, and no offline switch that would hide an attempt."""
    code = (
        "import socket, time\n"
        "time.sleep = lambda seconds: None  # the hub's client waits between its attempts\n"
        "attempts = []\n"
        "def refuse(*a, **k):\n"
        "    attempts.append(a)\n"
        "    raise OSError('network is unreachable')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from bontune.base.errors import BontuneError\n"
        "from bontune.models import load_model\n"
        "model, tokenizer = load_model('countdown-tiny')\n"
        "print(type(model).__name__, model.dtype, model.training, tokenizer.padding_side, attempts)\n"
        "try: load_model('no-owner/no-model')\n"
        "except BontuneError as error: print(error)\n"
        "print(len(attempts) > 0)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    loaded_line, error_line, attempted_line = done.stdout.splitlines()
    assert loaded_line == "LlamaForCausalLM torch.float32 False left []"
    assert "as a hub id it cannot be fetched" in error_line
    assert attempted_line == "True"


def test_importing_the_registry_loads_no_framework() -> None:
    code = "import bontune.models, bontune.tasks, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_tokenizer_spells_characters_and_round_trips(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    for prompt, completion in [("3,7,2,9:48=", "(7-2)*9+3"), ("13,13,13,13:99=", "0123456789+-*()")]:
        ids = tokenizer(prompt + completion)["input_ids"]
        assert len(ids) == len(prompt + completion)
        assert tokenizer.decode(ids) == prompt + completion
    specials = (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token)
    assert specials == ("<pad>", "<eos>", "<unk>", None)
    padded = tokenizer(["1", "12+3"], padding=True)
    assert padded["attention_mask"] == [[0, 0, 0, 1], [1, 1, 1, 1]]
    assert tokenizer.batch_decode(padded["input_ids"], skip_special_tokens=True) == ["1", "12+3"]
    assert tokenizer("é\n")["input_ids"] == [tokenizer.unk_token_id] * 2


def test_is_good_but_unsure(loaded: tuple[Any, Any]) -> None:
    """pass@1 near 14 %, and several times that within 16 samples: room for Best-of-N (60 problems: ±5 points)."""
    model, tokenizer = loaded
    task = Countdown()
    problems = task.problems("test")[:60]
    inputs = tokenizer([problem.prompt for problem in problems], return_tensors="pt", padding=True)
    torch.manual_seed(0)
    ids = model.generate(**inputs, do_sample=True, top_k=0, num_return_sequences=16, max_new_tokens=24)
    new = ids[:, inputs["input_ids"].shape[1] :]
    assert bool((new == tokenizer.eos_token_id).any(dim=1).all()), "24 tokens suffice"
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    grades = [task.grade([problem], [texts[16 * i : 16 * i + 16]])[0] for i, problem in enumerate(problems)]
    rewards = torch.tensor([[grade.reward for grade in group] for group in grades])
    assert 0.05 < rewards.mean() < 0.25
    assert 0.40 < rewards.amax(dim=1).mean() < 0.75
    assert sum(grade.answer is not None for group in grades for grade in group) / rewards.numel() > 0.95


def test_build_is_deterministic_and_needs_no_longer_completions(tmp_path: Path) -> None:
    weights = []
    threads = torch.get_num_threads()
    try:
        for run in ("a", "b"):
            build_countdown.main([str(tmp_path / run), "--steps", "3", "--batch-size", "8"])
            weights.append((tmp_path / run / "model.safetensors").read_bytes())
    finally:
        torch.set_num_threads(threads)
    assert weights[0] == weights[1]
    model, _ = load_model(tmp_path / "a")
    assert sum(p.numel() for p in model.parameters()) < 160_000
    longest = max(len(text) for _, text in islice(demonstrations(random.Random(0)), 20_000))
    assert longest + 1 <= build_countdown.MAX_COMPLETION_TOKENS


def test_programs_tokenizer_has_a_token_for_every_piece_and_round_trips() -> None:
    model, tokenizer = load_model("programs-tiny")
    pairs = [(problem.prompt, problem.reference) for problem in Programs().problems("train")]
    for prompt, completion in [*pairs, *islice(programs_problems.demonstrations(random.Random(0)), 500)]:
        prompt_ids, ids = tokenizer(prompt)["input_ids"], tokenizer(completion)["input_ids"]
        assert tokenizer.unk_token_id not in prompt_ids + ids
        assert tokenizer.decode(prompt_ids + ids) == prompt + completion
        assert len(prompt_ids) < 90
        assert len(prompt_ids) + 32 <= model.config.max_position_embeddings, "with a completion of the recipe's length"
        assert len(ids) < build_programs.MAX_COMPLETION_TOKENS
    assert tokenizer("import os")["input_ids"].count(tokenizer.unk_token_id) >= 6


def test_programs_model_is_good_but_unsure() -> None:
    """Graded in the sandbox: pass@1 near 9 %, over three times that within 16 samples (80 problems: ±5 points)."""
    model, tokenizer = load_model("programs-tiny")
    task = Programs()
    problems = task.problems("test")[:80]
    inputs = tokenizer([problem.prompt for problem in problems], return_tensors="pt", padding=True)
    torch.manual_seed(0)
    ids = model.generate(**inputs, do_sample=True, top_k=0, num_return_sequences=16, max_new_tokens=32)
    new = ids[:, inputs["input_ids"].shape[1] :]
    assert (new == tokenizer.eos_token_id).any(dim=1).float().mean() > 0.99, "32 tokens suffice"
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    grades = [task.grade([problem], [texts[16 * i : 16 * i + 16]])[0] for i, problem in enumerate(problems)]
    rewards = torch.tensor([[grade.reward for grade in group] for group in grades])
    assert 0.04 < rewards.mean() < 0.16
    assert 0.2 < rewards.amax(dim=1).mean() < 0.5
    assert sum(grade.answer is not None for group in grades for grade in group) / rewards.numel() > 0.9


def test_programs_build_is_deterministic(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        for run in ("a", "b"):
            build_programs.main([str(tmp_path / run), "--steps", "20", "--batch-size", "4"])
    finally:
        torch.set_num_threads(threads)
    one, other = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("a", "b"))
    assert one == other
    written, shipped_config = (
        json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "a", PROGRAMS_FOLDER)
    )
    assert written == shipped_config


def test_dtype_and_device() -> None:
    model, _ = load_model(str(FOLDER), dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16
    with pytest.raises(BontuneError, match="dtype must be"):
        load_model("countdown-tiny", dtype="float33")


def test_names_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.bin").write_bytes(b"")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert resolve("some-owner/some-model") == "some-owner/some-model"
    with pytest.raises(BontuneError, match="There is no model folder 'runs/absent'"):
        resolve("runs/absent")
    for name, phrase in [
        (tmp_path / "empty", "contains no model: it has no config.json"),
        (tmp_path / "file.bin", "is a file"),
        (tmp_path / "absent", "no model folder"),
        ("./absent", "no model folder"),
        ("runs/a/model", "no model folder"),
        ("", "no model folder"),
        (tmp_path / "broken", "without its tokenizer"),
        ("countdown-tinny", "did you mean 'countdown-tiny'"),
        ("countdown_tiny", "did you mean 'countdown-tiny'"),
    ]:
        with pytest.raises(BontuneError, match=phrase) as caught:
            load_model(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2"])
def test_a_folders_own_tokenizer_is_kept(family: str, tmp_path: Path) -> None:
    """AutoTokenizer would give a Qwen2 folder Qwen2's own class, whatever tokenizer.json says."""
    written = tiny.tokenizer()
    tiny.model(family).save_pretrained(tmp_path)
    written.save_pretrained(tmp_path)
    _, read = load_model(tmp_path)
    assert type(read) is type(written)
    for text in ("what is 12+30?", "a b\n\nc", "Q: it's 007"):
        assert read(text)["input_ids"] == written(text)["input_ids"]
        assert read.decode(read(text)["input_ids"]) == text
