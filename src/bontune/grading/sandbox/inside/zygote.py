"""The first process inside the isolation: an interpreter, started once, that forks a child for every program.

A fork takes a millisecond where a fresh isolated interpreter takes fifty. The child can neither see nor reach this
process (seccomp refuses signals, tracing and foreign memory; there is no /proc), its pipes are its own, and what it
leaves in the scratch folder is removed before the next one starts. No byte that a child wrote is ever read here.

Control messages, JSON in one packet each: {"op": "run", …limits} with the child's two pipe ends attached, answered
{"ok": "running"} with a descriptor of the child's process attached; then {"op": "end"}: the child is killed if it
lives, answered {"ok": "ended", "status": …, "note": …}. End of file: the grader is gone, kill the child and leave.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import warnings
from typing import Any

import bontune.grading.sandbox.inside.candidate as candidate
import bontune.grading.sandbox.inside.landlock as landlock
import bontune.grading.sandbox.inside.scratch as scratch

_REQUEST_FD, _REPLY_FD = 3, 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 28, 47, 4
_SECUREBITS_LOCKED_NOROOT = 0b1111 | (0b11 << 6)  # noroot, no_setuid_fixup, no ambient raise, each with its lock
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_NOBODY = 65534
_WATCH_S = 0.05
"""Seconds between looks at the scratch folder of a program that is still running."""

_libc = ctypes.CDLL(None, use_errno=True)


class _BpfProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def fork_programs(control: socket.socket, setup: dict[str, Any]) -> None:
    """Confine this process as ``setup`` says, and fork programs until the grader hangs up."""
    try:
        _prepare(setup)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        return
    control.send(b'{"ok": "ready"}')
    seccomp = bytes.fromhex(setup["seccomp"])
    while True:
        message, descriptors = _receive(control)
        if message is None or message["op"] != "run":
            os._exit(0)
        sys.stdout.flush()  # or the child would write what is in the buffer, too
        pid = os.fork()
        if pid == 0:
            try:
                _become_candidate(control, descriptors, seccomp, message, setup["scratch"])
                candidate.answer_requests(_REQUEST_FD, _REPLY_FD, message["max_reply_bytes"])
                os._exit(0)
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        child = os.pidfd_open(pid)
        socket.send_fds(control, [b'{"ok": "running"}'], [child])
        status, note = _watch(control, pid, child, setup["scratch"])
        control.send(json.dumps({"ok": "ended", "status": status, "note": note}).encode())


def _prepare(setup: dict[str, Any]) -> None:
    """Import what programs use, then give up every right that is not needed. The order matters."""
    for name in setup["warm"]:
        importlib.import_module(name)
    warnings.simplefilter("ignore")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    library = os.path.dirname(os.__file__)
    if setup["landlock"] is not None:
        if os.getuid() == 0:
            _drop_root(library, setup["scratch"])
        landlock.restrict(**setup["landlock"])
    if setup["die_with_parent"]:
        # A change of the uid clears this setting, so it comes after. The parent may have died before: look.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != setup["parent"]:
            os._exit(0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if setup["isolated"]:
        try:
            os.listdir(library)
        except OSError as error:
            raise RuntimeError(f"the interpreter's own library {library} cannot be read inside") from error
    os.chdir(setup["scratch"])
    gc.collect()
    gc.freeze()


def _drop_root(library: str, scratch_folder: str) -> None:
    """Become nobody, if nobody can still read the standard library; else stay root without any capability.

    An interpreter under a home of mode 0700 could import nothing more as nobody. Root without capabilities is an
    owner of files like another: Landlock keeps it from opening them, the seccomp filter from chmod and its family.
    """
    is_readable = _can_nobody_read(library)
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    if is_readable:
        os.chown(scratch_folder, _NOBODY, _NOBODY)
        _become_nobody()
    else:
        os.setgroups([])
        _libc.prctl(_PR_SET_SECUREBITS, _SECUREBITS_LOCKED_NOROOT, 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _can_nobody_read(library: str) -> bool:
    """Ask the kernel: a child becomes nobody and looks."""
    pid = os.fork()
    if pid == 0:
        try:
            _become_nobody()
            os.listdir(library)
            with open(os.path.join(library, "os.py"), "rb"):
                pass
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message, None at the end of file, and the descriptors attached to it."""
    data, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 2)
    return (json.loads(data) if data else None), descriptors


def _become_candidate(
    control: socket.socket, descriptors: list[int], seccomp: bytes, limits: dict[str, Any], scratch_folder: str
) -> None:
    """Confine the child: its own pipes only, limits, and the filter's system calls. After this the program may run."""
    zygote = os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != zygote:
        os._exit(0)
    # The pipes go to their places by way of high numbers: they may have each other's.
    control.detach()
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 64) for descriptor in descriptors]
    os.dup2(high[0], _REQUEST_FD, inheritable=False)
    os.dup2(high[1], _REPLY_FD, inheritable=False)
    os.closerange(_REPLY_FD + 1, 4096)
    # What the program finds: an empty folder, four variables, and bounds on what it may take.
    os.chdir(scratch_folder)
    os.environ.clear()
    os.environ.update(HOME=scratch_folder, TMPDIR=scratch_folder, LANG="C.UTF-8", PYTHONHASHSEED="0")
    sys.argv[:] = ["solution"]
    megabytes = 1 << 20
    for kind, limit in (
        (resource.RLIMIT_AS, limits["memory_mb"] * megabytes),
        (resource.RLIMIT_STACK, 64 * megabytes),
        (resource.RLIMIT_FSIZE, limits["file_mb"] * megabytes),
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    if seccomp:
        _install_filter(seccomp)


def _install_filter(program: bytes) -> None:
    description = _BpfProgram(len(program) // 8, program)
    if (
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        or _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(description), 0, 0) != 0
    ):
        os._exit(99)


def _watch(control: socket.socket, pid: int, child: int, scratch_folder: str) -> tuple[int, str]:
    """Wait for the word to end the child; until then keep its scratch folder within bounds.

    Returns:
        The child's wait status, and a note: "" or why the scratch folder could not be kept or emptied.
    """
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(child, select.POLLIN)
    is_over = False
    note = ""
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(None if is_over else _WATCH_S * 1000)}
        if control.fileno() in ready:
            message, _ = _receive(control)
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if message is None:
                os._exit(0)
            os.close(child)
            is_clean = scratch.empty(scratch_folder, deadline=time.monotonic() + scratch.CLEANING_S)
            return status, note if is_clean else "dirty"
        if child in ready:  # dead, and not yet reaped: its number cannot be given to another process
            poll.unregister(child)
            is_over = True
        elif not note and scratch.is_too_large(scratch_folder):
            note = "the scratch folder grew too large"
            os.kill(pid, signal.SIGKILL)
