"""Try real attacks from inside an isolation, and see from outside what they did.

Each attack is a function at the end of this file. It never runs here: its source is executed inside, as a program of a
model's is. It tries one thing with the standard library alone, and returns what it achieved, as one phrase, or raises
when it was stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import inspect
import os
import resource
import select
import signal
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bontune.base.errors as errors
from bontune.base.errors import BontuneError
from bontune.grading.sandbox.outside.interpreter import Sandbox, SandboxFailure
from bontune.grading.sandbox.outside.isolation import exposed
from bontune.grading.sandbox.outside.session import Faults

_SECRET = "the answer is 42"
_TIMEOUT_S = 10.0
_IMPORTS = "import ctypes, fcntl, os, resource, signal, socket\n\n\n"
"""Imports that stand before an attack's source."""


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
        """The signs that a bait was touched since the last look; "" if none was."""
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


def _attacks(bait: _Bait) -> list[tuple[str, Callable[[str], str], str]]:
    """Name, function and argument of every attack."""
    return [
        ("read a file of the user's", _reads, str(bait.secret)),
        ("read installed code, and with it tests", _reads, str(Path(errors.__file__).resolve())),
        ("read another process's environment", _reads_processes, ""),
        ("write outside its scratch folder", _writes, str(bait.folder)),
        ("change the mode of a file", _changes_mode, str(bait.secret)),
        ("connect by TCP", _connects, str(bait.stream.getsockname()[1])),
        ("send by UDP", _sends, str(bait.datagrams.getsockname()[1])),
        ("connect to a local socket", _connects_locally, str(bait.folder / "socket")),
        ("fork", _forks, ""),
        ("execute a program", _executes, exposed().interpreter),
        ("kill its parent", _kills, ""),
        ("kill its parent by a file descriptor", _kills_by_descriptor, ""),
        ("trace its parent", _traces, ""),
        ("raise its limits", _raises_limits, ""),
        ("limit its parent", _limits_parent, ""),
    ]


def probe(sandbox: Sandbox) -> list[Attack]:
    """Run every attack, each in a process of its own.

    Args:
        sandbox: the one to be attacked; it is replaced where an attack brings it down.
    """
    with tempfile.TemporaryDirectory(prefix="bontune-probe-") as folder, contextlib.ExitStack() as stack:
        bait = _Bait(Path(folder))
        stack.callback(bait.close)
        return [_try(sandbox, bait.touched, name, attack, argument) for name, attack, argument in _attacks(bait)]


def _try(
    sandbox: Sandbox, touched: Callable[[], str], name: str, attack: Callable[[str], str], argument: str
) -> Attack:
    is_stopped, detail = False, ""
    try:
        session = sandbox.zygote().open(timeout_s=_TIMEOUT_S, memory_mb=512, max_reply_bytes=10_000)
        try:
            detail = str(
                session.load(_IMPORTS + inspect.getsource(attack), (attack.__name__,))[attack.__name__](argument)
            )
        except Faults as fault:
            detail = f"unclear: {fault.judgement.reason}"
        except Exception as error:  # what stopped it
            is_stopped, detail = True, f"stopped: {type(error).__name__} {error}"
        finally:
            session.close()
        sandbox.zygote().end()
    except (SandboxFailure, BontuneError) as error:
        sandbox.discard()
        is_stopped, detail = False, f"brought the sandbox down: {error}"
    sign = touched()
    if sign:
        is_stopped, detail = False, sign
    return Attack(name=name, is_stopped=is_stopped, detail=detail)


def _reads(path: str) -> str:
    """Try to read a file that lies outside the sandbox."""
    with open(path, "rb") as file:
        return "read " + file.read(64).decode("utf-8", "replace")


def _reads_processes(_: str) -> str:
    """Read what the kernel tells of the parent."""
    with open(f"/proc/{os.getppid()}/environ", "rb") as file:
        return f"read {len(file.read())} bytes of the parent's environment"


def _writes(folder: str) -> str:
    """Write a file that is still there afterwards."""
    with open(os.path.join(folder, "written"), "w") as file:
        file.write("x")
    return "wrote a file"


def _changes_mode(path: str) -> str:
    """Change the mode of someone's file."""
    os.chmod(path, 0o600)
    return "changed a mode"


def _connects(port: str) -> str:
    """Try to connect to a port of this machine by TCP."""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=1):
        return "connected by TCP"


def _sends(port: str) -> str:
    """Send a UDP datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"x", ("127.0.0.1", int(port)))
    return "sent by UDP"


def _connects_locally(path: str) -> str:
    """Connect to a socket in the file system, such as a container engine's."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)
    return "connected to a socket in the file system"


def _forks(_: str) -> str:
    """Try to start another process by fork."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "forked"


def _executes(interpreter: str) -> str:
    """Try to execute another program."""
    os.posix_spawn(interpreter, [interpreter, "-c", ""], {})
    return "executed a program"


def _kills(_: str) -> str:
    """Kill the process that started this one."""
    os.kill(os.getppid(), signal.SIGKILL)
    return "sent a signal to the parent"


def _kills_by_descriptor(_: str) -> str:
    """Kill the parent by way of a pipe's owner: F_SETSIG chooses the signal, F_SETOWN the process."""
    reader, writer = os.pipe()
    fcntl.fcntl(reader, 10, signal.SIGKILL)
    fcntl.fcntl(reader, fcntl.F_SETOWN, os.getppid())
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writer, b"x")
    return "sent a signal to the parent by a file descriptor"


def _traces(_: str) -> str:
    """Trace the parent, and with that read its memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(0x4206, os.getppid(), 0, 0) != 0:  # PTRACE_SEIZE
        raise OSError(ctypes.get_errno(), "ptrace")
    return "traced the parent"


def _raises_limits(_: str) -> str:
    """Take more memory than the limit allows."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "raised its limits"


def _limits_parent(_: str) -> str:
    """Take the memory of the process that starts programs."""
    resource.prlimit(os.getppid(), resource.RLIMIT_AS, (1, 1))
    return "lowered the parent's limits"
