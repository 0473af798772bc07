"""``bestofn tasks show``."""

from __future__ import annotations

from collections.abc import Sequence

from bestofn.config import apply_overrides


def show_problem(name: str, options: Sequence[str], split: str) -> None:
    """``bestofn tasks show``."""
    from bestofn.tasks import load_task

    task = load_task(name, **apply_overrides({}, options))
    problems = task.problems(split)
    print(f"{task.name}, split {split}: {len(problems)} problems (splits: {', '.join(task.splits)})")
    print(f"prompt:    {problems[0].prompt}")
    print(f"reference: {problems[0].reference}")
