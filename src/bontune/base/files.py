"""Writing a file so that nobody ever finds half of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bontune.base.errors import BontuneError


def write_whole(path: str | os.PathLike[str], data: bytes, what: str) -> Path:
    """Write a file whole or not at all; missing parent folders are made.

    Args:
        path: where to write.
        data: what to write.
        what: what the message calls it.

    Raises:
        BontuneError: the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise BontuneError(f"cannot write the {what} {target}: {error.strerror}.") from error
    return target
