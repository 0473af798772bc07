"""Files are written so that nobody ever finds half of one, also after a loss of power; lock files say why they fail."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bontune.base.errors import BontuneError

if TYPE_CHECKING:
    from filelock import BaseFileLock


def write_whole(path: str | os.PathLike[str], data: bytes | str, what: str) -> Path:
    """Write a file whole or not at all; missing parent folders are made.

    Args:
        path: where to write.
        data: what to write; text is written as UTF-8.
        what: the name of the file's content in a message, such as "report".

    Raises:
        BontuneError: the file cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise BontuneError(f"Cannot write the {what} {path}: {error.strerror}.") from error
    return Path(path)


def replace_file(path: str | os.PathLike[str], data: bytes | str, *, is_synced: bool = False) -> None:
    """Replace a file as a whole, or leave it as it was.

    Args:
        path: the file; its folder must exist.
        data: what to write; text is written as UTF-8.
        is_synced: whether the data must be on the disk before the old file is removed.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def use_umask(folder: Path) -> None:
    """Give a folder's files the permissions of the user's umask; safetensors makes them readable by the user alone.

    Raises:
        OSError: the system refuses.
    """
    probe = folder / f".tmp-mode-{os.getpid()}"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a loss of power.

    Raises:
        OSError: the system refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a loss of power, on systems that support it."""
    with contextlib.suppress(OSError):
        sync(folder)


def hold(lock: BaseFileLock, timeout_s: float = 0.0) -> None:
    """Acquire a lock file within ``timeout_s`` seconds.

    Raises:
        Timeout: another process holds the lock.
        OSError: no lock file can be made in this place.
    """
    from filelock import Timeout

    try:
        lock.acquire(timeout=timeout_s)
    except Timeout:
        # filelock raises Timeout as well where the file cannot be made, such as in /proc: opening it tells why.
        os.close(os.open(lock.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        raise
    except NotImplementedError as error:
        raise OSError(errno.ENOLCK, f"its file system has no locks ({error})") from None
