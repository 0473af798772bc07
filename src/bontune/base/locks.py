"""Holding a lock file, with the reason where it cannot be held."""

from __future__ import annotations

import errno
import os

from filelock import BaseFileLock, Timeout


def hold(lock: BaseFileLock, timeout_s: float = 0.0) -> None:
    """Take a lock, at once or within ``timeout_s``, or not at all.

    Raises:
        Timeout: another process holds it.
        OSError: no lock can be made there.
    """
    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        # The package gives up with the same words where the file cannot be made, such as in /proc.
        os.close(os.open(lock.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        raise
    except NotImplementedError as error:
        raise OSError(errno.ENOLCK, f"its file system has no locks ({error})") from None
