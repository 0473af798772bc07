"""Try real attacks from inside an isolation, and see from outside what they did."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bontune.base.errors as errors
from bontune.base.errors import BontuneError
from bontune.sandbox.checker import Checker
from bontune.sandbox.exposed import exposed
from bontune.sandbox.remote import Faults
from bontune.sandbox.session import SandboxFailure

_SECRET = "the answer is 42"
_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """One attack and whether it was stopped."""

    name: str
    """Name of the attack, such as "read a file of the user's"."""
    is_stopped: bool
    """Whether the isolation stopped it."""
    detail: str
    """One phrase that says what happened."""


class _Bait:
    """Things outside that an attack would touch, and the means to see whether it did."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o777)  # readable and writable for everyone: only the isolation stands between
        self.folder = folder
        self.secret = folder / "secret"
        self.secret.write_text(_SECRET)
        self.secret.chmod(0o644)
        self.stream = socket.create_server(("127.0.0.1", 0))
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", 0))
        self.local = socket.socket(socket.AF_UNIX)
        self.local.bind(str(folder / "socket"))
        os.chmod(folder / "socket", 0o777)
        self.local.listen()

    def close(self) -> None:
        for bait in (self.stream, self.datagrams, self.local):
            bait.close()

    def touched(self) -> str:
        """What of it was touched since the last look; "" if nothing."""
        signs = []
        for bait, sign in ((self.stream, "TCP"), (self.datagrams, "UDP"), (self.local, "a local socket")):
            if select.select([bait], [], [], 0)[0]:
                signs.append(f"reached {sign}")
                if bait is self.datagrams:
                    bait.recv(1)
                else:
                    bait.accept()[0].close()
        if (self.folder / "written").exists():
            (self.folder / "written").unlink()
            signs.append("wrote a file")
        if self.secret.stat().st_mode & 0o777 != 0o644:
            self.secret.chmod(0o644)
            signs.append("changed a mode")
        return ", ".join(signs)


def _attacks(bait: _Bait) -> list[tuple[str, str, str]]:
    """What to say, which function of ``probe_attacks``, and its argument."""
    return [
        ("read a file of the user's", "reads", str(bait.secret)),
        ("read installed code, and with it tests", "reads", str(Path(errors.__file__).resolve())),
        ("read another process's environment", "reads_processes", ""),
        ("write outside its scratch folder", "writes", str(bait.folder)),
        ("change the mode of a file", "changes_mode", str(bait.secret)),
        ("connect by TCP", "connects", str(bait.stream.getsockname()[1])),
        ("send by UDP", "sends", str(bait.datagrams.getsockname()[1])),
        ("connect to a local socket", "connects_locally", str(bait.folder / "socket")),
        ("fork", "forks", ""),
        ("execute a program", "executes", exposed().interpreter),
        ("kill its parent", "kills", ""),
        ("kill its parent by a file descriptor", "kills_by_descriptor", ""),
        ("trace its parent", "traces", ""),
        ("raise its limits", "raises_limits", ""),
        ("limit its parent", "limits_parent", ""),
    ]


def probe(checker: Checker) -> list[Attack]:
    """Run every attack, each in a process of its own.

    Args:
        checker: of the isolation to be attacked; its isolation is replaced where an attack brings it down.
    """
    source = Path(__file__).with_name("probe_attacks.py").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="bontune-probe-") as folder, contextlib.ExitStack() as stack:
        bait = _Bait(Path(folder))
        stack.callback(bait.close)
        return [
            _try(checker, bait.touched, source, name, function, argument) for name, function, argument in _attacks(bait)
        ]


def _try(checker: Checker, touched: Callable[[], str], source: str, name: str, function: str, argument: str) -> Attack:
    is_stopped, detail = False, ""
    try:
        session = checker.zygote().open(timeout_s=_TIMEOUT_S, memory_mb=512, max_reply_bytes=10_000)
        try:
            detail = str(session.load(source, (function,))[function](argument))
        except Faults as fault:
            detail = f"unclear: {fault.reason}"
        except Exception as error:  # what stopped it
            is_stopped, detail = True, f"stopped: {type(error).__name__} {error}"
        finally:
            session.close()
        checker.zygote().end()
    except (SandboxFailure, BontuneError) as error:
        checker.discard()
        is_stopped, detail = False, f"brought the sandbox down: {error}"
    sign = touched()
    if sign:
        is_stopped, detail = False, sign
    return Attack(name=name, is_stopped=is_stopped, detail=detail)
