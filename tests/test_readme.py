"""README's Python runs as written, in an empty folder, and its commands exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(arguments, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )


NAMES = ["trainer", "best_of_n", "mathematics"]


def test_there_are_as_many_examples_as_names():
    assert len(BLOCKS) == len(NAMES)


@pytest.mark.parametrize("block", BLOCKS, ids=NAMES if len(BLOCKS) == len(NAMES) else None)
def test_python_runs_as_written(block, tmp_path):
    (tmp_path / "example.py").write_text(block, encoding="utf-8")
    done = run(["example.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    if "Trainer" in block:
        assert "'steps': 10" in done.stdout
        assert (tmp_path / "runs/mine/model/model.safetensors").is_file()
    elif "BestOfN" in block:
        winner, score, num_candidates = done.stdout.split()
        assert num_candidates == "32"
        assert float(score) > 0, "a right one is among them, and the verifier knows it"
        assert eval(winner) == 18
    else:
        # Two samples are worth 1. The one with the best score wins all C(7, 3) = 35 of the 70 subsets that hold it; the
        # other beats a single sample only, so it wins no subset of 4.
        assert "0.5000" in done.stdout


def test_commands_exist(tmp_path):
    commands = set(re.findall(r"^bontune ([a-z]+)", README, flags=re.MULTILINE))
    assert {"train", "sample", "eval", "verify", "answer", "doctor", "sweep", "report"} <= commands
    help_text = run(["-m", "bontune", "--help"], tmp_path).stdout
    assert all(re.search(rf"\b{command}\b", help_text) for command in commands)
