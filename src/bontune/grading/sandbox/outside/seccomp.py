"""The system calls that a candidate does not get, as a BPF program compiled outside and installed inside.

A deny list over an allowing default: an interpreter and its C library use too many calls, and other ones from version
to version, for a list of what is allowed. What it must stop: making processes, reaching other processes, the network,
kernel interfaces with a history, and what Landlock does not govern (chmod and its family act by owner, not by path).
"""

from __future__ import annotations

import errno
import struct
import sys
import tempfile
from functools import lru_cache
from importlib import import_module
from typing import Any

from bontune.base.errors import BontuneError

_CLONE_THREAD = 0x00010000
_MAX_KNOWN_SYSCALL = 462
"""mseal, Linux 6.10. A later call is one that nobody has judged: it answers "not implemented"."""

_PROCESSES = "fork vfork execve execveat setsid setpgid unshare setns"
_OTHER_PROCESSES = (
    "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal pidfd_getfd ptrace kcmp"
    " process_vm_readv process_vm_writev process_madvise process_mrelease move_pages migrate_pages"
    " setpriority ioprio_set sched_setaffinity sched_setattr sched_setscheduler sched_setparam"
)
_NETWORK = (
    "socket socketpair socketcall bind connect listen accept accept4 sendto sendmsg sendmmsg recvfrom recvmsg"
    " recvmmsg getsockopt setsockopt shutdown"
)
_SHARED_MEMORY = (
    "shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl ipc"
    " mq_open mq_unlink mq_notify mq_timedsend mq_timedreceive mq_getsetattr memfd_create memfd_secret"
)
_KERNEL = (
    "io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd keyctl add_key request_key"
    " init_module finit_module delete_module create_module kexec_load kexec_file_load reboot swapon swapoff acct"
    " quotactl quotactl_fd syslog vhangup lookup_dcookie personality modify_ldt iopl ioperm uselib nfsservctl"
    " fanotify_init fanotify_mark name_to_handle_at open_by_handle_at settimeofday clock_settime clock_adjtime"
    " adjtimex stime sethostname setdomainname"
    # Landlock does not govern watches: they tell the names of other people's files. The asynchronous calls share one
    # budget with the whole machine.
    " inotify_init inotify_init1 inotify_add_watch io_setup io_submit io_destroy io_cancel io_getevents io_pgetevents"
)
_FILE_SYSTEMS = (
    "mount umount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr"
    " mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat chown32 fchown32 lchown32"
    " utime utimes utimensat futimesat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr"
)
_IDENTITY = (
    "setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset"
    " setuid32 setgid32 setreuid32 setregid32 setresuid32 setresgid32 setfsuid32 setfsgid32 setgroups32"
)
DENIED = " ".join((_PROCESSES, _OTHER_PROCESSES, _NETWORK, _SHARED_MEMORY, _KERNEL, _FILE_SYSTEMS, _IDENTITY)).split()

_DENIED_COMMANDS = {
    # F_SETOWN, F_SETSIG and F_SETOWN_EX let a file descriptor send any signal, SIGKILL too, to any process of the user.
    "fcntl": (1, (8, 10, 15)),
    # The same by ioctl (FIOSETOWN, SIOCSPGRP), and typing into a terminal (TIOCSTI, TIOCLINUX).
    "ioctl": (1, (0x8901, 0x8902, 0x5412, 0x541C)),
    # Outliving the parent (PR_SET_PDEATHSIG), core dumps (PR_SET_DUMPABLE), moving the memory map (PR_SET_MM),
    # inviting a tracer (PR_SET_PTRACER).
    "prctl": (0, (1, 4, 35, 0x59616D61)),
}


def unavailable() -> str | None:
    """Why no filter can be compiled here, as one phrase; None: it can."""
    if not sys.platform.startswith("linux"):
        return "seccomp is Linux's"
    try:
        _pyseccomp()
    except ImportError as error:
        return f"pyseccomp cannot be imported ({error}): pip install pyseccomp"
    except (RuntimeError, OSError):
        return "libseccomp is not installed (Debian, Ubuntu: apt install libseccomp2)"
    return None


def _pyseccomp() -> Any:
    """Imported when it is needed: importing it loads libseccomp, which may be missing."""
    return import_module("pyseccomp")


@lru_cache(maxsize=1)
def compile_filter() -> bytes:
    """The filter as an array of ``struct sock_filter``.

    Raises:
        BontuneError: libseccomp or pyseccomp is missing.
    """
    reason = unavailable()
    if reason is not None:
        raise BontuneError(f"The seccomp filter cannot be made: {reason}.")
    pyseccomp = _pyseccomp()
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refuse = pyseccomp.ERRNO(errno.EPERM)
    for name in DENIED:
        if _is_known(name):
            rules.add_rule(refuse, name)
    rules.add_rule(refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0))
    if _is_known("clone3"):  # its flags lie in memory, out of a filter's sight; the C library falls back to clone
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    rules.add_rule(refuse, "prlimit64", pyseccomp.Arg(0, pyseccomp.NE, 0))
    for name, (position, values) in _DENIED_COMMANDS.items():
        for value in values:
            # The kernel reads these commands as 32 bits: bits above must not hide them from the filter.
            rules.add_rule(refuse, name, pyseccomp.Arg(position, pyseccomp.MASKED_EQ, 0xFFFFFFFF, value))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return _refuse_unknown_calls() + file.read()


def _is_known(name: str) -> bool:
    pyseccomp = _pyseccomp()
    return bool(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) >= 0)


def _refuse_unknown_calls() -> bytes:
    load_number = struct.pack("<HBBI", 0x20, 0, 0, 0)
    skip_unless_above = struct.pack("<HBBI", 0x25, 0, 1, _MAX_KNOWN_SYSCALL)
    not_implemented = struct.pack("<HBBI", 0x06, 0, 0, 0x00050000 | errno.ENOSYS)
    return load_number + skip_unless_above + not_implemented
