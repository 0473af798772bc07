"""How far each evaluation of a run has come from its first one, paired by problem.

The evaluations of a run draw the same problems with the same seeds, so that differences are much surer than the values.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bontune.base.files import replace_file
from bontune.metrics.evaluation import Evaluation
from bontune.pools.compare import aligned

FIRST = "first_evaluation.json"
FAMILIES = ("pass", "max", "best")

Gains = dict[str, tuple[float, float, float]]
"""Metric → its mean difference to the first evaluation, and the ends of the 95 % interval over problems."""


def gains_since_first(folder: Path, step: int, evaluation: Evaluation) -> Gains:
    """Compare an evaluation with the run's first, which is kept in ``first_evaluation.json``.

    Args:
        folder: of the run.
        step: of the evaluation; one at the first's step, or before it, becomes the first.
        evaluation: of the same problems.

    Returns:
        The gains in pass@k, max@k and best@k; none for the first.
    """
    path = folder / FIRST
    first = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if first is None or step <= first["step"]:
        values = {name: v.tolist() for name, v in evaluation.values.items() if name.partition("@")[0] in FAMILIES}
        replace_file(path, json.dumps({"step": step, "problems": evaluation.problem_ids, "values": values}))
        return {}
    before = Evaluation(
        problem_ids=first["problems"], values={name: np.asarray(v) for name, v in first["values"].items()}
    )
    if set(before.problem_ids) != set(evaluation.problem_ids):
        return {}
    first_values, now = aligned([before, evaluation])
    found = {name: now.difference(first_values, name) for name in first_values.values if name in now.values}
    return {name: (i.value, i.low, i.high) for name, i in found.items()}
