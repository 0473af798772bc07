"""How long `bontune eval` takes for a large pool with answers and a verifier's scores, and where the time goes.

taskset -c 0 python benchmarks/evaluation.py --problems 1000 --samples 100
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

import bontune.metrics as metrics
from bontune.metrics.evaluation import evaluate_pool


def main() -> None:
    """Time an evaluation of a made-up pool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=1_000)
    parser.add_argument("--samples", type=int, default=100)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    rates = rng.beta(1, 2, size=(given.problems, 1))
    rewards = (rng.random((given.problems, given.samples)) < rates).astype(float)
    scores = rewards + rng.normal(size=rewards.shape)
    wrong = rng.zipf(1.5, size=rewards.shape) % 50 + 1
    answers = [
        ["right" if r else None if w % 10 == 0 else str(w) for r, w in zip(*row, strict=True)]
        for row in zip(rewards, wrong, strict=True)
    ]
    ids = [f"p{i}" for i in range(given.problems)]
    ks = metrics.default_ks(given.samples)

    def timed(what: str, function: Callable[[], object]) -> object:
        start = time.process_time()
        result = function()
        print(f"{what:32s} {time.process_time() - start:7.2f} s")
        return result

    print(f"{given.problems} problems × {given.samples} samples on {len(os.sched_getaffinity(0))} core(s), CPU time")
    timed("plain votes", lambda: [metrics.majority_at_k(answers, rewards, k) for k in ks])
    weights = metrics.sigmoid(scores)
    timed("weighted votes", lambda: [metrics.majority_at_k(answers, rewards, k, weights) for k in ks])
    evaluation = timed(
        "all metrics",
        lambda: evaluate_pool(ids, rewards.tolist(), ks, scores_PM=scores.tolist(), answers_PM=answers, is_full=True),
    )
    intervals = timed("their intervals", evaluation.intervals)  # type: ignore[attr-defined]
    print(" ".join(f"{name}={i.value:.6f}[{i.low:.6f},{i.high:.6f}]" for name, i in intervals.items()))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
