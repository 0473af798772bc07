"""Jobs that start at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def warm_jobs() -> Iterator[None]:
    """Fork jobs that a test starts from a process that has imported what they need, which takes longer than they.

    They are processes of their own as before. Those of a command that a test starts are spawned, as a user's.
    """
    get_context = multiprocessing.get_context
    warm = get_context("forkserver")
    warm.set_forkserver_preload(["pytest", "bontune.experiments.run", "bontune.training.trainer"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda kind=None: warm if kind == "spawn" else get_context(kind))
        yield
