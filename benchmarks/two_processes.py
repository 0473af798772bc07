"""Seconds of a training step on one process and one core, and on two processes on two cores: the ratio of medians.

python benchmarks/two_processes.py --repeats 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WAYS = {
    "one process": ["taskset", "--cpu-list", "0", sys.executable, "-m", "bontune"],
    "two processes": [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "bontune"),
    ],
}


def main() -> None:
    """Train by turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="steps of a run, the first three not counted")
    parser.add_argument("--recipe", default="countdown", help="what is trained (default: %(default)s)")
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(given.repeats):
            for way, command in WAYS.items():
                run = Path(folder) / f"{way.split()[0]}-{repeat}"
                settings = [f"run={run}", f"training.steps={given.steps}", "eval.every=0"]
                subprocess.run(
                    [*command, "train", given.recipe, *settings],
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=True,
                )
                rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
                found[way] += [row["seconds"] for row in rows[3:] if row["kind"] == "step"]
    stages = list(found["one process"][0])
    print(f"| | s/step | {' | '.join(stages)} |\n|---|---:|{'---:|' * len(stages)}")
    medians = {}
    for way, rows in found.items():
        medians[way] = statistics.median(sum(row.values()) for row in rows)
        cells = [f"{statistics.median(row[stage] for row in rows):.3f}" for stage in stages]
        print(f"| {way} | {medians[way]:.3f} | {' | '.join(cells)} |")
    print(f"{medians['one process'] / medians['two processes']:.2f}× as fast")


if __name__ == "__main__":
    main()
