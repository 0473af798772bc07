"""The numbers of a training step, summed over processes: a row of ``metrics.jsonl``."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate.utils import gather_object

from bontune.engines.contract import StopReason
from bontune.grading.verdict import Verdict
from bontune.metrics import reward_scale
from bontune.objectives.subsets import best_of_n_value
from bontune.pools.collect import Graded
from bontune.training.canaries import mentions_canary
from bontune.training.processes import sum_over_processes


def batch_numbers(graded: Graded, num_samples: int, n: int, accelerator: Any) -> dict[str, float]:
    """Numbers that describe a step's samples.

    Args:
        graded: this process's sequences.
        num_samples: the sequences of each prompt that count, the first ones.
        n: the Best-of-N budget.
        accelerator: sums over the processes; all must call.

    Returns:
        Means over all prompts or samples; ``timeouts``, ``crashes`` and ``grader_errors`` are counts of samples. A
        sample that could not be graded counts as the lowest reward of the step. Where rewards are not all 0 or 1,
        ``is_binary`` is False and ``pass_at_n`` is max@N.
    """
    samples, num_prompts, first = graded.samples, len(graded.problems), slice(num_samples)
    rows = [row[first] for row in graded.graded_PM]
    seen = gather_object([sorted({reward for row in rows for reward in row if not math.isnan(reward)})])
    scale = reward_scale([seen])  # of all processes
    rewards_PM = torch.tensor(scale.filled(rows), dtype=torch.float64)
    scores_PM = graded.scores_PM[:, first].contiguous()
    n = min(n, num_samples)
    verdicts = [grade.verdict for row in graded.grades for grade in row[first]]
    stops = [stop for b, stop in enumerate(samples.stops) if b % samples.num_samples < num_samples]
    means = {
        "reward": rewards_PM.mean(-1).sum().item(),
        "pass_at_n": best_of_n_value(rewards_PM, rewards_PM, n).sum().item(),
        "best_of_n": best_of_n_value(rewards_PM, scores_PM, n).sum().item(),
        "length": samples.lengths_B.view(num_prompts, -1)[:, first].sum().item() / num_samples,
        "cut_off": stops.count(StopReason.LENGTH) / num_samples,
        "canaries": sum(mentions_canary(text) for row in samples.texts for text in row[first]) / num_samples,
    }
    counts = {
        "timeouts": verdicts.count(Verdict.TIMEOUT),
        "crashes": verdicts.count(Verdict.CRASHED),
        "grader_errors": verdicts.count(Verdict.GRADER_ERROR),
        "samples": num_prompts * num_samples,
    }
    local = [num_prompts, *means.values(), *counts.values()]
    prompts, *total = sum_over_processes(accelerator, [float(x) for x in local])
    numbers = dict(zip([*means, *counts], total, strict=True))
    kind: dict[str, float] = {} if scale.is_binary else {"is_binary": False}
    found = {name: x / prompts if name in means else int(x) for name, x in numbers.items()}
    return {"n": n, **kind, **found}
