"""Landlock by its three system calls: this process may open the paths that it is given, and nothing else.

Landlock says nothing of stat, chmod, chown, chdir, UDP and sockets in the file system: the seccomp filter closes
what of these can do harm. See https://docs.kernel.org/userspace-api/landlock.html for the rights and their versions.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Sequence

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_NUM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Number of file-system rights by version; a right is a bit, from 0 up."""
_MAKE_DEVICES = (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11)  # make_char, make_sock, make_fifo, make_block
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2
_READ = _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def version() -> int:
    """The kernel's Landlock version; 0 where it has none or it is switched off."""
    try:
        return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))
    except OSError:
        return 0


def restrict(
    *, readable: Sequence[str], listable: Sequence[str], writable: Sequence[str], devices: Sequence[str]
) -> None:
    """Confine this process and its children, for good.

    Args:
        readable: files and folders that may be read.
        listable: folders whose names may be listed, all the way down; `import` lists a folder before it opens a file.
        writable: folders in which files and folders may be made, read, written, renamed and removed.
        devices: files that may be read and written, such as /dev/null.

    Raises:
        OSError: the kernel has no Landlock, or refused.
    """
    kernel_version = version()
    if kernel_version < 1:
        raise OSError("this kernel offers no Landlock")
    rights = (1 << _NUM_RIGHTS.get(kernel_version, 16)) - 1
    attributes = struct.pack("<Q", rights)
    if kernel_version >= 4:
        attributes += struct.pack("<Q", _BIND_TCP | _CONNECT_TCP)
    if kernel_version >= 6:
        attributes += struct.pack("<Q", _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL)
    ruleset = _syscall(
        _CREATE_RULESET,
        ctypes.create_string_buffer(attributes, len(attributes)),
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint32(0),
    )
    for path in readable:
        _allow(ruleset, path, _READ & rights)
    for path in listable:
        _allow(ruleset, path, _READ_DIR)
    for path in writable:
        _allow(ruleset, path, rights & ~(_EXECUTE | _IOCTL_DEV | _MAKE_DEVICES))
    for path in devices:
        _allow(ruleset, path, (_READ_FILE | _WRITE_FILE) & rights)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    _syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("<Qi", rights, descriptor), 12)
        _syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(descriptor)
