"""Metrics of Best-of-N, majority voting and verifiers, for every k ≤ M from one pool of M samples per prompt.

Every metric of a pool is the mean over its C(M, k) subsets, drawn *without* replacement. It is unbiased for i.i.d.
samples and every k ≤ M, where resampling is not (1 of 4 correct gives 0.68 at k = 4, not 1). M ≥ 2k for a tolerable
variance.

Shapes: ``_M`` samples of one prompt, the last axis; leading axes, ``_P``: prompts; ``_S`` subsets; ``_A`` answers.
Rewards are float, int or bool: a tensor gives a tensor on its device, anything else NumPy, in float64. Scores may be
±inf.
"""

from bontune.metrics.arrays import RewardScale, reward_scale
from bontune.metrics.calibration import Calibration, ReliabilityBin, calibration, platt_scaling, sigmoid
from bontune.metrics.chance import chance_at_k, chance_parts, chance_parts_of_pairs
from bontune.metrics.distribution import AnswerDistribution, answer_distribution
from bontune.metrics.intervals import (
    Interval,
    bootstrap_interval,
    bootstrap_intervals,
    default_ks,
    paired_difference,
    simultaneous_band,
)
from bontune.metrics.selection import (
    adaptive_best_of_n,
    best_of_k,
    drop_at_k,
    max_at_k,
    oracle_gap,
    pass_at_k,
    pass_hat_k,
    within_prompt_auc,
)
from bontune.metrics.votes import MAX_EXACT_SUBSETS, answer_entropy, distinct_answers, majority_at_k

__all__ = [
    "MAX_EXACT_SUBSETS",
    "AnswerDistribution",
    "Calibration",
    "Interval",
    "ReliabilityBin",
    "RewardScale",
    "adaptive_best_of_n",
    "answer_distribution",
    "answer_entropy",
    "best_of_k",
    "bootstrap_interval",
    "bootstrap_intervals",
    "calibration",
    "chance_at_k",
    "chance_parts",
    "chance_parts_of_pairs",
    "default_ks",
    "distinct_answers",
    "drop_at_k",
    "majority_at_k",
    "max_at_k",
    "oracle_gap",
    "paired_difference",
    "pass_at_k",
    "pass_hat_k",
    "platt_scaling",
    "reward_scale",
    "sigmoid",
    "simultaneous_band",
    "within_prompt_auc",
]
