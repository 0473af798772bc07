"""Digests of what the package computes, for changes that should not alter a result.

    python tools/yardstick.py before.json                       # before a change
    python tools/yardstick.py after.json --against before.json  # after it; exit code 1 if anything differs

Trains 12 small steps by every objective and by every feature of the trainer, draws a pool with every kind of sampling,
runs a suite in miniature, evaluates pools, and lists the problems of the embedded tasks; each result becomes a SHA-256
in the JSON file. Uses the commands and public names only, so that it runs on the tree before and the one after.
Everything is computed on one thread; digests of two machines may differ.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", COLUMNS="200")

import pyarrow.parquet
import yaml
from accelerate.state import AcceleratorState

import bontune.objectives
from bontune import Trainer, load_recipe
from bontune.cli import main
from bontune.tasks import load_task

SMALL = [
    "training.steps=12",
    "training.prompts_per_step=4",
    "training.checkpoint_every=0",
    "training.warmup=4",
    "training.first_step_kl=null",
]
EVAL = ["eval.every=6", "eval.problems=8", "eval.samples=32"]
SUPERVISED = {"sft", "dco", "bon_sft"}

FEATURES = {
    "guard": ["training.lr=1e-4", "training.first_step_kl=0.5"],
    "several_n": ["objective.n={1: 0.5, 16: 0.5}", *EVAL],
    "moving_n": ["objective.n={1: [0.8, 0.5], 16: [0.2, 0.5]}"],
    "verifier": ["verifier={name: reward_model, path: countdown-verifier}", *EVAL],
    "verifier_reward": ["verifier={name: reward_model, path: countdown-verifier}", "objective.reward=verifier"],
    "refit": ["verifier={name: reward_model, path: countdown-verifier}", "verifier.refit={every: 4, batch_size: 32}"],
    "refill": ["training.refill={up_to: 2.0}"],
    "minibatches": ["training.minibatches=2", "training.updates_per_batch=2"],
    "sequence_clip": ["training.updates_per_batch=2", "training.clip=sequence"],
    "importance": ["training.importance=token_clip"],
    "truncate": ["training.importance=sequence_truncate"],
    "lora": ["training.lora={r: 4}", *EVAL],
    "keep": ["eval.keep=[pass@16]", *EVAL],
    "checkpointing": ["training.gradient_checkpointing=true"],
    "bf16": ["training.precision=bf16"],
    "fixed_anchor": ["kl.anchor_ema=0"],
    "value_head": ["objective={name: bon_rlb, n: 16, p_fail: value_head}"],
    "programs": ["task={name: programs}", "model=programs-tiny", "sampling.max_new_tokens=32"],
}

SAMPLERS = {
    "plain": [],
    "cold": ["-t", "0.5"],
    "greedy": ["-t", "0", "-n", "1"],
    "nucleus": ["--top-p", "0.9"],
    "verifier": ["--verifier", "countdown-verifier"],
    "majority": ["--verifier", "majority"],
    "shard": ["--shard", "1/2"],
}

SUITE: dict[str, Any] = {
    "title": "In miniature",
    "base": "countdown",
    "recipe": {"training": {"steps": 4, "prompts_per_step": 2}, "sampling": {"samples": 16}, "kl": {"steps": 4}},
    "metric": "pass@4",
    "seeds": 2,
    "evaluations": 2,
    "measuring": {"samples": 16, "ks": [1, 4, 16], "temperatures": [0.7, 1.0], "validation_problems": 6},
    "arms": {
        "base": {"label": "base"},
        "rl": {
            "label": "RL",
            "recipe": {"objective": {"name": "rloo", "n": 1}},
            "lr": [1e-4, 3e-4],
            "select": "pass@1",
        },
        "bon": {"label": "BoN", "recipe": {"objective": {"name": "bon_rl", "n": 4}}, "lr": [3e-4], "select": "pass@4"},
    },
    "claims": [{"id": "c", "claim": "It is better.", "a": "bon", "b": "rl", "metric": "pass@4"}],
}


def digest(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def command(*arguments: str) -> None:
    sys.argv = ["bontune", *arguments]
    try:
        main()
    except SystemExit as end:
        if end.code not in (0, None):
            raise RuntimeError(f"bontune {' '.join(arguments)} ended with {end.code}") from None


def without_times(row: Any) -> Any:
    """The row without what a clock measured, or what names this machine's folders."""
    if isinstance(row, dict):
        clocks = ("second", "time", "tokens_per", "memory", "date", "created")
        return {k: without_times(v) for k, v in row.items() if not any(word in k for word in clocks)}
    return row


def trained(folder: Path, recipe: str, overrides: list[str]) -> dict[str, str]:
    AcceleratorState._reset_state(True)  # one precision a process, says accelerate
    Trainer(load_recipe(recipe, [f"run={folder}", *overrides]), is_quiet=True).train()
    rows = [without_times(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights = sorted(folder.glob("*/*.safetensors")) + sorted(folder.glob("best/*/*.safetensors"))
    if (folder / "base").is_dir():
        weights = [path for path in weights if path.parent.name != "base"]
    digests = {str(path.relative_to(folder)): digest(path.read_bytes()) for path in weights}
    return digests | {"metrics": digest(json.dumps(rows, sort_keys=True))}


def trainings(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    folder.mkdir()
    for name in bontune.objectives.names():
        n = "1" if name in {"reinforce", "rloo", "grpo", "dr_grpo", "sft"} else "4"
        keys = [f"objective={{name: {name}, n: {n}}}", "sampling.samples=16", "eval.every=0"]
        yield f"train {name}", trained(folder / name, "countdown", [*SMALL, *keys])
    for name, keys in FEATURES.items():
        off = [] if keys[-1] in EVAL else ["eval.every=0"]
        yield f"train with {name}", trained(folder / f"with-{name}", "countdown", [*SMALL, *keys, *off])


def table_of(path: Path) -> str:
    table = pyarrow.parquet.read_table(path)
    kept = [name for name in table.column_names if not any(word in name for word in ("second", "time"))]
    return digest(json.dumps([[name, table[name].to_pylist()] for name in sorted(kept)], default=str))


def pools(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    folder.mkdir()
    for name, options in SAMPLERS.items():
        path = folder / f"{name}.parquet"
        size = [] if "-n" in options else ["-n", "16"]
        command("sample", "countdown-tiny", "countdown", "-o", str(path), "--limit", "12", *size, *options)
        yield f"pool {name}", {"table": table_of(path)}
    path = folder / "programs.parquet"
    command("sample", "programs-tiny", "programs", "-o", str(path), "--limit", "8", "-n", "8")
    yield "pool programs", {"table": table_of(path)}
    here = os.getcwd()
    os.chdir(folder)  # the numbers name their pools by path
    command("eval", "plain.parquet", "cold.parquet", "verifier.parquet", "-o", "eval.json")
    os.chdir(here)
    yield "eval", {"numbers": digest(json.dumps(without_times(json.loads((folder / "eval.json").read_text()))))}


def suite(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    folder.mkdir()
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(SUITE, sort_keys=False))
    places = ["--out", str(folder / "out"), "--work", str(folder / "work"), "--workers", "1"]
    command("reproduce", str(path), *places)
    rows = list(csv.DictReader((folder / "out" / "arms.csv").open()))
    for column in rows[0]:
        yield f"suite, arms.csv, {column}", {"column": digest(json.dumps([row[column] for row in rows]))}
    yield "suite, claims", {"numbers": digest((folder / "out" / "claims.json").read_text())}


def problems(_: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for name in ("countdown", "programs"):
        task = load_task(name)
        for split in task.splits:
            listed = task.problems(split)
            known = [dataclasses.asdict(problem) for problem in listed]
            yield (
                f"{name} {split}",
                {"num": str(len(listed)), "problems": digest(json.dumps(known, sort_keys=True, default=repr))},
            )


PARTS = {"problems": problems, "pools": pools, "train": trainings, "suite": suite}


def run() -> int:
    parser = argparse.ArgumentParser(description="Digests of what the package computes.")
    parser.add_argument("target", type=Path, help="write the digests to this JSON file")
    parser.add_argument("--against", type=Path, help="compare with the digests of this file")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="measure these parts")
    given = parser.parse_args()
    measured: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        for part in given.only:
            for what, digests in PARTS[part](Path(name) / part):
                measured[what] = digests
                print(what, file=sys.stderr, flush=True)
    given.target.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
    if given.against is None:
        return 0
    before = json.loads(given.against.read_text())
    expected = before.keys() | measured.keys() if set(given.only) == set(PARTS) else measured.keys()
    wrong = [what for what in sorted(expected) if before.get(what) != measured.get(what)]
    for what in wrong:
        print(f"differs: {what}: {before.get(what)} {measured.get(what)}")
    print(f"{len(expected) - len(wrong)} of {len(expected)} equal")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(run())
