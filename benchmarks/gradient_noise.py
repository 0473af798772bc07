"""Mean and noise of estimators of d pass@N / d logit(s), in units of the true value, by exact enumeration.

A policy is right with probability s; M samples of it are drawn, of which c are right: c is binomial, so that an
estimator's mean and standard deviation are finite sums. A mean of 1 is unbiased; a negative one goes downhill.

    python benchmarks/gradient_noise.py
    python benchmarks/gradient_noise.py --n 32 --samples 64 --success 0.01 0.1
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor

from bontune.objectives import bon_rl, bon_rlb, bon_rlbp


def mean_and_noise(estimator: Callable[[Tensor], Tensor], s: float, n: int, samples: int) -> tuple[float, float]:
    """Mean and standard deviation over the true value."""
    mean = square = 0.0
    for right in range(samples + 1):
        is_right = torch.arange(samples) < right
        advantages = estimator(is_right.double().unsqueeze(0))[0]
        score = is_right.double() - s  # d log π(sample) / d logit(s)
        gradient, probability = float((advantages * score).mean()), float(binom.pmf(right, samples, s))
        mean += probability * gradient
        square += probability * gradient**2
    true = n * s * (1 - s) ** n
    return mean / true, math.sqrt(max(square - mean**2, 0.0)) / true


def estimators(n: int, s: float) -> dict[str, Callable[[Tensor], Tensor]]:
    """By name; those that need P_fail once with the plug-in wrong/M and once with the true value."""
    found: dict[str, Callable[[Tensor], Tensor]] = {
        f"bon_rl, {baseline}": lambda rewards, b=baseline: bon_rl(rewards, rewards, n, baseline=b)
        for baseline in ("loo", "loo1")
    }
    for known, p_fail in (("wrong/M", None), ("true P_fail", torch.tensor([1 - s], dtype=torch.float64))):
        bare: dict[str, Any] = {"n": n, "p_fail": p_fail, "baseline": "none"}
        found[f"bon_rlb, exact sign, no baseline, {known}"] = partial(bon_rlb, sign="exact", **bare)
        found[f"bon_rlb, published sign, no baseline, {known}"] = partial(bon_rlb, sign="published", **bare)
        found[f"bon_rlbp, no baseline, {known}"] = partial(bon_rlbp, **bare)
        found[f"bon_rlb (and bon_rlbp), loo, {known}"] = partial(bon_rlb, n=n, p_fail=p_fail)
        found[f"bon_rlb, published sign, loo, {known}"] = partial(bon_rlb, sign="published", n=n, p_fail=p_fail)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16, help="N, the Best-of-N budget (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=32, help="M, samples a prompt (default: %(default)s)")
    parser.add_argument(
        "--success", type=float, nargs="+", default=[0.02, 0.05, 0.15, 0.3, 0.5], help="s, success rates"
    )
    options = parser.parse_args()
    print(f"N = {options.n}, M = {options.samples}: mean ± standard deviation, true value 1")
    print("| | " + " | ".join(f"s = {s:g}" for s in options.success) + " |")
    print("|---" * (1 + len(options.success)) + "|")
    columns = [estimators(options.n, s) for s in options.success]
    for name in columns[0]:
        cells = [
            mean_and_noise(column[name], s, options.n, options.samples)
            for s, column in zip(options.success, columns, strict=True)
        ]
        print(f"| {name} | " + " | ".join(f"{mean:.2f} ± {noise:.2f}" for mean, noise in cells) + " |")


if __name__ == "__main__":
    main()
