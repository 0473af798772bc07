"""A file of JSON lines that survives a kill at any moment: locked, appended, fsynced, its torn last line cut off."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.files import hold, sync_folder
from bontune.base.settings import differing


class Journal:
    """Appends entries to a file that one process at a time may hold. Made with the first entry, not before."""

    def __init__(self, path: Path, settings: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """
        Args:
            path: the file; ``path.lock`` beside it is held until :meth:`close`.
            settings: its first line; a file that was begun with others is not continued.
            notes: written with them, but free to differ when the file is continued.

        Raises:
            BontuneError: another process holds it, no lock can be made in its folder, or it is damaged or of other
                settings.
        """
        from filelock import FileLock

        self.path = path
        self._head = {"settings": dict(settings), "notes": dict(notes)}
        self._lock = FileLock(path.with_name(path.name.removesuffix(".partial.jsonl") + ".lock"))
        self._file: int | None = None
        self._is_closed = False
        self._mutex = threading.Lock()
        self._acquire()
        try:
            self._cut_torn_line()
            self._check_head()
        except BaseException:
            self.close()
            raise

    def entries(self) -> Iterator[dict[str, Any]]:
        """What was appended, in order.

        Raises:
            BontuneError: a line is damaged.
        """
        for number, entry in enumerate(self._lines()):
            if number > 0:
                yield entry

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append; on disk when this returns. Any thread may call it.

        Raises:
            RunStopped: it cannot be written; what was there stays, and nothing of the entry does.
        """
        line = json.dumps(entry).encode() + b"\n"
        with self._mutex:
            if self._is_closed:
                raise RunStopped(f"{self.path} was closed before a completion could be written to it.")
            try:
                if self._file is None:
                    self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
                length = os.fstat(self._file).st_size
                if length == 0:
                    line = json.dumps(self._head).encode() + b"\n" + line
                self._write(self._file, line, length)
                if length == 0:
                    sync_folder(self.path.parent)
            except OSError as error:
                raise RunStopped(
                    f"{self.path} could not be written: {error.strerror}; free some space and run this again."
                ) from error

    def close(self) -> None:
        """Leave the file for later and let others have it."""
        with self._mutex:
            self._is_closed = True
            if self._file is not None:
                os.close(self._file)
                self._file = None
        if self._lock.is_locked:
            # While it is held: who waits for a removed lock file notices and makes a new one.
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _acquire(self) -> None:
        from filelock import Timeout

        try:
            hold(self._lock)
        except Timeout:
            raise BontuneError(
                f"Another process is collecting {self.path.name.removesuffix('.partial.jsonl')}: wait for it, stop "
                "it, or give another --out."
            ) from None
        except OSError as error:
            raise BontuneError(
                f"No lock can be made in the folder {self.path.parent} ({error.strerror}): give another --out."
            ) from None

    def _cut_torn_line(self) -> None:
        """The last line of a process that was killed while it wrote has no end."""
        if not self.path.exists():
            return
        with open(self.path, "rb+") as file:
            size = end = file.seek(0, os.SEEK_END)
            while end > 0:
                start = max(0, end - 65_536)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end < size:
                file.truncate(end)

    def _check_head(self) -> None:
        first = next(self._lines(), None)
        if first is None:
            return
        begun, now = first.get("settings") or {}, json.loads(json.dumps(self._head["settings"]))
        if isinstance(begun.get("contents"), dict) and "contents" in now:  # earlier versions hashed less
            now["contents"] = {name: now["contents"].get(name) for name in begun["contents"]}
        changed = {name.split(".")[0] for name in differing(begun, now)}
        if changed:
            raise BontuneError(
                f"{self.path} was begun with other settings: {_told(begun, now, sorted(changed))}. Put that back, or "
                "delete it to start anew."
            )

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                entry = None
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise BontuneError(f"{self.path} is damaged at line {number}: delete it to start anew.")
                yield entry

    @staticmethod
    def _write(file: int, data: bytes, length: int) -> None:
        """All of it, or none: half a line in the middle would be damage."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, length)
            raise


def _told(begun: Mapping[str, Any], now: Mapping[str, Any], changed: Sequence[str]) -> str:
    """Say what is not as it was."""
    told = []
    for name in changed:
        if name == "contents":
            old, new = begun.get(name) or {}, now.get(name) or {}
            told += [f"{what} changed" for what in sorted(old.keys() | new.keys()) if old.get(what) != new.get(what)]
        else:
            told.append(f"{name} {now.get(name)!r}, was {begun.get(name)!r}")
    return "; ".join(told)
