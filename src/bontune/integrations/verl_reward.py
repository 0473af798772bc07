"""A task in verl: its problems as verl's Parquet files, and its grader as verl's reward function.

    python -m bontune.integrations.verl_reward gsm8k data
    python -m verl.trainer.main_ppo data.train_files=data/train.parquet \
        reward.custom_reward_function.path=pkg://bontune.integrations.verl_reward …
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.engines.contract import cut_before
from bontune.engines.prompts import as_message
from bontune.tasks import load_task
from bontune.tasks.base import Task

_LOWEST: dict[tuple[str, str], float] = {}
"""Lowest score so far of each task with its options, at most 0."""


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Grade a response as the task does.

    Args:
        data_source: ``bontune/`` and the task's name.
        solution_str: the response.
        ground_truth: not used; the task knows the problem.
        extra_info: the task's options, split and problem, as :func:`write_data` wrote them.

    Returns:
        ``score``, the reward. An ungraded response has ``graded`` 0, and the lowest score that this
        process has given for the task so far, at most 0: it never beats a wrong one.
    """
    if extra_info is None or "problem_id" not in extra_info:
        raise BontuneError(
            "The extra_info has no problem_id: write the data with python -m bontune.integrations.verl_reward."
        )
    task, problems = _task(data_source.removeprefix("bontune/"), extra_info["options"], extra_info["split"])
    problem = problems[extra_info["problem_id"]]
    grade = task.grade([problem], [[cut_before(solution_str, task.stop)]])[0][0]
    is_graded = not math.isnan(grade.reward)
    key = (data_source, extra_info["options"])
    lowest = _LOWEST.get(key, 0.0)
    if is_graded:
        _LOWEST[key] = min(lowest, grade.reward)
    return {"score": float(grade.reward) if is_graded else lowest, "graded": float(is_graded)}


def write_data(task_name: str, folder: Path, options: dict[str, Any]) -> list[Path]:
    """Write a Parquet file for each split of a task.

    Args:
        task_name: one of ``bontune tasks``.
        folder: folder of the files, which are named after the splits.
        options: the task's own keys; relative paths in them are made absolute.

    Raises:
        BontuneError: an unknown task or option, or data that cannot be read.
    """
    options = with_whole_paths(options)
    task = load_task(task_name, **options)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for split in task.splits:
        rows = [_row(task_name, split, json.dumps(options), problem) for problem in task.problems(split)]
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
            written.append(folder / f"{split}.parquet")
    return written


def with_whole_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make relative paths in a task's options absolute, because the processes of verl run in other folders.

    >>> with_whole_paths({"data": "owner/name", "grader": "exact"})
    {'data': 'owner/name', 'grader': 'exact'}
    """

    def whole(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: whole(item) for key, item in value.items()}
        path = Path(value).expanduser() if isinstance(value, str) and value else None
        return str(path.resolve()) if path is not None and path.exists() else value

    absolute = {key: whole(value) if key in ("data", "test_data") else value for key, value in options.items()}
    file, _, function = str(absolute.get("grader")).rpartition(":")
    if file.endswith(".py"):
        absolute["grader"] = f"{whole(file)}:{function}"
    return absolute


def _row(task: str, split: str, options: str, problem: Problem) -> dict[str, Any]:
    messages = problem.messages or as_message(problem.prompt)
    return {
        "data_source": f"bontune/{task}",
        "prompt": [dict(message) for message in messages],
        "reward_model": {"style": "rule", "ground_truth": str(problem.reference)},
        "extra_info": {"options": options, "split": split, "problem_id": problem.id},
    }


@functools.lru_cache(maxsize=8)
def _task(name: str, options: str, split: str) -> tuple[Task, dict[str, Problem]]:
    task = load_task(name, **json.loads(options))
    return task, {problem.id: problem for problem in task.problems(split)}


def _main() -> None:
    """Write a task's data: ``python -m bontune.integrations.verl_reward TASK FOLDER``."""
    parser = argparse.ArgumentParser(description="Write a task's problems as verl's Parquet files.")
    parser.add_argument("task", help="one of `bontune tasks`")
    parser.add_argument("folder", type=Path, help="folder of the files, one for each split")
    parser.add_argument("--options", type=json.loads, default={}, help='the task\'s own keys as JSON, {"data": "…"}')
    arguments = parser.parse_args()
    try:
        for path in write_data(arguments.task, arguments.folder, arguments.options):
            print(path)
    except BontuneError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    _main()
