"""What the probe runs inside an isolation: each function tries one thing and says what came of it.

A function returns what it achieved, as one phrase, or raises when it was stopped. Sent inside as source; it imports
the standard library alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket


def reads(path: str) -> str:
    """Any way to a file's content."""
    with open(path, "rb") as file:
        return "read " + file.read(64).decode("utf-8", "replace")


def reads_processes(_: str) -> str:
    """What the kernel tells of the parent."""
    with open(f"/proc/{os.getppid()}/environ", "rb") as file:
        return f"read {len(file.read())} bytes of the parent's environment"


def writes(folder: str) -> str:
    """A file that is still there afterwards."""
    with open(os.path.join(folder, "written"), "w") as file:
        file.write("x")
    return "wrote a file"


def changes_mode(path: str) -> str:
    """The mode of someone's file."""
    os.chmod(path, 0o600)
    return "changed a mode"


def connects(port: str) -> str:
    """A TCP connection."""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=1):
        return "connected by TCP"


def sends(port: str) -> str:
    """A UDP datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"x", ("127.0.0.1", int(port)))
    return "sent by UDP"


def connects_locally(path: str) -> str:
    """A socket in the file system, such as a container engine's."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)
    return "connected to a socket in the file system"


def forks(_: str) -> str:
    """Another process."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "forked"


def executes(interpreter: str) -> str:
    """Another program."""
    os.posix_spawn(interpreter, [interpreter, "-c", ""], {})
    return "executed a program"


def kills(_: str) -> str:
    """The process that started this one."""
    os.kill(os.getppid(), signal.SIGKILL)
    return "sent a signal to the parent"


def kills_by_descriptor(_: str) -> str:
    """The same by way of a pipe's owner: F_SETSIG chooses the signal, F_SETOWN the process."""
    reader, writer = os.pipe()
    fcntl.fcntl(reader, 10, signal.SIGKILL)
    fcntl.fcntl(reader, fcntl.F_SETOWN, os.getppid())
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(writer, b"x")
    return "sent a signal to the parent by a file descriptor"


def traces(_: str) -> str:
    """The parent's memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(0x4206, os.getppid(), 0, 0) != 0:  # PTRACE_SEIZE
        raise OSError(ctypes.get_errno(), "ptrace")
    return "traced the parent"


def raises_limits(_: str) -> str:
    """More memory than was given."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "raised its limits"


def limits_parent(_: str) -> str:
    """No memory for the one that starts programs."""
    resource.prlimit(os.getppid(), resource.RLIMIT_AS, (1, 1))
    return "lowered the parent's limits"
