"""Folders that one ``bontune reproduce`` at a time works in."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bontune.base.errors import BontuneError
from bontune.experiments.jobs import GRACE_S, POLL_S


@contextmanager
def held(folder: Path, poll: Callable[[], None] = lambda: None, *, wait_s: float = 0.0) -> Iterator[None]:
    """Keep a second process out of a folder, which is made if it is not there.

    Args:
        folder: is locked itself: no file is left behind, and the lock goes with the process.
        poll: called often while waiting; raises to stop.
        wait_s: time that another process may take to leave.

    Raises:
        BontuneError: another process works there, or the folder cannot be made or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise BontuneError(f"The folder {folder} cannot be made: {error.strerror}.") from None
    try:
        deadline = time.monotonic() + wait_s
        while not _locks(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, folder):
            if time.monotonic() > deadline:
                raise BontuneError(f"Another process works in {folder}: wait for it, stop it, or give another folder.")
            time.sleep(POLL_S)
            poll()
        yield
    finally:
        os.close(descriptor)


@contextmanager
def visited(folder: Path) -> Iterator[None]:
    """Be one of several jobs in a folder: :func:`vacated` waits for all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def vacated(folder: Path, poll: Callable[[], None]) -> None:
    """Wait until no job is in a folder: those of a command that was killed save first, then leave.

    Raises:
        BontuneError: they are there for longer than saving takes; they belong to a command that runs.
    """
    with held(folder, poll, wait_s=GRACE_S + 5):
        pass


def _locks(descriptor: int, how: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BontuneError(f"The folder {folder} cannot be locked ({error.strerror}): give another folder.") from None
    return True
