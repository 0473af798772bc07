"""How long bon_rl takes, in units of torch.sort of the same tensor; "several" is two budgets at once.

The estimator is one sort and a handful of prefix sums, so the ratio should stay flat as M grows. Medians over repeats.

    python benchmarks/objectives.py
    python benchmarks/objectives.py --prompts 64 --samples 1024 4096 --n 32 --dtype float32
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from bontune.objectives import bon_rl


def median_ms(function: Callable[[], object], repeats: int) -> float:
    """Median wall time of one call in milliseconds, after one call to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 32, 256], help="P, prompts in the batch")
    parser.add_argument("--samples", type=int, nargs="+", default=[8, 64, 512, 4096], help="M, samples a prompt")
    parser.add_argument("--n", type=int, default=4, help="N, the Best-of-N budget (default: %(default)s)")
    parser.add_argument("--levels", type=int, default=0, help="number of different scores; 0: no ties (default)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64", help="of rewards and scores")
    parser.add_argument("--repeats", type=int, default=20, help="calls a median is taken over (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    arguments = parser.parse_args()
    if min(arguments.samples) <= arguments.n or arguments.n < 2:
        parser.error(f"--n must be at least 2 and below every --samples, got {arguments.n} and {arguments.samples}")
    if min(*arguments.prompts, arguments.repeats, arguments.threads) < 1 or arguments.levels < 0:
        parser.error("--prompts, --repeats and --threads must be at least 1, --levels at least 0")
    torch.set_num_threads(arguments.threads)

    dtype = getattr(torch, arguments.dtype)
    generator = torch.Generator().manual_seed(0)
    print(f"N = {arguments.n}, {arguments.dtype}, {arguments.threads} thread(s), median of {arguments.repeats}")
    names = ("loo", "loo1", "several")
    print(f"{'P':>6} {'M':>6} {'sort ms':>10} " + " ".join(f"{name + '/sort':>14}" for name in names))
    several = {1: 0.5, arguments.n: 0.5}
    for num_prompts in arguments.prompts:
        for m in arguments.samples:
            rewards = torch.rand(num_prompts, m, generator=generator, dtype=dtype)
            scores = torch.rand(num_prompts, m, generator=generator, dtype=dtype)
            if arguments.levels:
                scores = (scores * arguments.levels).floor()
            sort = median_ms(lambda scores=scores: torch.sort(scores, dim=-1), arguments.repeats)
            calls = (
                partial(bon_rl, rewards, scores, arguments.n, "loo"),
                partial(bon_rl, rewards, scores, arguments.n, "loo1"),
                partial(bon_rl, rewards, scores, several, "loo"),
            )
            ratios = [median_ms(call, arguments.repeats) / sort for call in calls]
            print(f"{num_prompts:6} {m:6} {sort:10.3f} " + " ".join(f"{ratio:14.1f}" for ratio in ratios))


if __name__ == "__main__":
    main()
