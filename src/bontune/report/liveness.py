"""Whether a run is being trained right now, was stopped, or is finished."""

from __future__ import annotations

import time
from pathlib import Path

from filelock import FileLock, Timeout

from bontune.training.runlog import LOCK, METRICS


def state_of(run: Path, step: float, steps: object) -> str:
    """What a run is doing, with the time of its last step.

    Args:
        run: its folder.
        step: the last that is recorded, 0 for none.
        steps: how many its recipe asks for.

    Returns:
        Such as ``running, last step at 2026-11-30 14:05:12``; of one that was killed ``stopped, last step at …``.
    """
    metrics = run / METRICS
    last = ""
    if step and metrics.exists():
        last = f", last step at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(metrics.stat().st_mtime))}"
    if (run / "summary.json").exists() and isinstance(steps, int) and step >= steps:
        return f"finished{last}"
    return f"{'running' if _is_held(run / LOCK) else 'stopped' if step else 'not running'}{last}"


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock; it is let go of at once if none does."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False
