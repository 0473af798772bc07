"""A candidate's scratch folder: see that it stays small, and empty it whatever the candidate left in it.

``shutil.rmtree`` recurses and so stops at about a thousand nested folders. Here one descriptor walks down by name and
up by "..", so that no path grows and nothing recurses. Links are removed, never followed.
"""

from __future__ import annotations

import os
import stat
import time

MAX_BYTES = 64 << 20
MAX_ENTRIES = 4_000
MAX_DEPTH = 64
MAX_PATH_BYTES = 3_800
"""The kernel's bound is 4,096 bytes, with a name of 255 at the end: what lies deeper cannot be counted by its path."""
CLEANING_S = 1.0
"""Seconds of cleaning, after which it is quicker to throw the sandbox away."""
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def is_too_large(folder: str) -> bool:
    """Whether the folder exceeds MAX_ENTRIES, MAX_DEPTH, or MAX_BYTES on disk, or hides what it holds.

    It counts names: a file that was unlinked while it is open or mapped is missed.
    """
    num_entries = num_bytes = 0
    folders = [(folder, 0)]
    while folders:
        path, depth = folders.pop()
        if depth > MAX_DEPTH or len(os.fsencode(path)) > MAX_PATH_BYTES:
            return True
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    num_entries += 1
                    if num_entries > MAX_ENTRIES:
                        return True
                    try:
                        about = entry.stat(follow_symlinks=False)
                    except OSError:  # gone meanwhile; the others still count
                        continue
                    num_bytes += about.st_blocks * 512
                    if stat.S_ISDIR(about.st_mode):
                        if about.st_mode & 0o700 == 0o300:  # can be filled, and not looked into
                            return True
                        folders.append((entry.path, depth + 1))
        except OSError:  # gone meanwhile, or of a mode that lets nobody put anything there
            continue
    return num_bytes > MAX_BYTES


def empty(folder: str, *, deadline: float) -> bool:
    """Remove everything in the folder; False if that failed or was not done by the deadline (monotonic clock)."""
    descriptor = -1
    names: list[str] = []  # of the folders between ``folder`` and where we are
    try:
        descriptor = os.open(folder, _FOLDER)
        while True:
            inner = _empty_until_folder(descriptor, deadline)
            if inner is not None:
                below = os.open(inner, _FOLDER, dir_fd=descriptor)
                names.append(inner)
            elif names:
                below = os.open("..", _FOLDER, dir_fd=descriptor)
                os.rmdir(names.pop(), dir_fd=below)
            else:
                return True
            os.close(descriptor)
            descriptor = below
    except (OSError, TimeoutError):
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _empty_until_folder(descriptor: int, deadline: float) -> str | None:
    """Remove files, links and empty folders; the name of the first folder that holds something, or None."""
    for name in os.listdir(descriptor):
        if time.monotonic() > deadline:
            raise TimeoutError
        try:
            os.unlink(name, dir_fd=descriptor)
        except (IsADirectoryError, PermissionError):  # what the C library calls it differs
            os.chmod(name, 0o700, dir_fd=descriptor)
            try:
                os.rmdir(name, dir_fd=descriptor)
            except OSError:
                return name
    return None
