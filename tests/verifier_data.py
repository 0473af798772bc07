"""A pool that a verifier learns in seconds: a completion is right if it holds an even digit, whatever the problem."""

from __future__ import annotations

from random import Random
from typing import Any


def separable_rows(num_problems: int, num_samples: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a pool; every problem has both classes."""
    rng = Random(seed)
    rows = []
    for p in range(num_problems):
        for i in range(num_samples):
            text = "".join(rng.choice("13579abc") for _ in range(4))
            is_right = i == 0 or (i > 1 and rng.random() < 0.4)
            if is_right:
                text = text[:2] + rng.choice("02468") + text[2:]
            rows.append({"problem_id": f"p{p}", "prompt": f"p{p}=", "completion": text, "reward": float(is_right)})
    return rows
