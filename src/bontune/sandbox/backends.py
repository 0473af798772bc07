"""The ways to isolate: how each starts an interpreter that can do no harm, and what it needs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bontune.sandbox.landlock as landlock
import bontune.sandbox.seccomp_filter as seccomp_filter
from bontune.sandbox.exposed import DEVICES, exposed

BOOTSTRAP = """\
import json, socket, sys, types
sys.path[:] = [entry for entry in sys.path if entry]
control = socket.socket(fileno=0)
setup = json.loads(control.recv(1 << 20))
control = socket.socket(fileno=__import__("os").dup(control.detach()))
for name in ("bontune", "bontune.sandbox"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, source in setup.pop("modules"):
    full = "bontune.sandbox." + name
    sys.modules[full] = types.ModuleType(full)
    exec(compile(source, "<" + name + ">", "exec"), sys.modules[full].__dict__)
zygote = sys.modules["bontune.sandbox.zygote"]
for name in [name for name in sys.modules if name.split(".")[0] == "bontune"]:
    del sys.modules[name]
zygote.main(control, setup)
"""
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}
"""Without the last, every thread reserves 64 MB of addresses for malloc: 20 threads fit into 1 GB instead of 100."""
_SCRATCH_INSIDE = "/tmp"
_SCRATCH_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One way to isolate."""

    name: str
    """Name, as in ``BONTUNE_SANDBOX``."""
    summary: str
    """What the isolation is made of, for people."""
    how_to_get: str
    """One command or setting that makes it available, for people."""
    unavailable: Callable[[], str | None]
    """Why it cannot even be tried here, or None. That it can be tried does not say that it holds: the probe does."""
    command: Callable[[str], list[str]]
    """The command line that starts the isolated interpreter, given the scratch folder."""
    setup: Callable[[str], dict[str, Any]]
    """Makes the instructions by which the zygote confines itself, from the scratch folder."""


def _interpreter() -> list[str]:
    # -I would also ignore PYTHONHASHSEED, and with it make the order of sets differ from run to run.
    return [exposed().interpreter, "-s", "-S", "-B", "-c", BOOTSTRAP]


def _bubblewrap_unavailable() -> str | None:
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    return seccomp_filter.unavailable()


def _bubblewrap_command(scratch: str) -> list[str]:
    paths = exposed()
    command = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    for path in (*paths.system_paths, *paths.library_folders, paths.interpreter):
        command += ["--ro-bind", path, path]
    for path in paths.hidden:
        command += ["--tmpfs", path, "--remount-ro", path]
    for path in DEVICES:
        command += ["--dev-bind", path, path]
    command += ["--size", str(_SCRATCH_BYTES), "--tmpfs", _SCRATCH_INSIDE, "--remount-ro", "/"]
    return [*command, "--", *_interpreter()]


def _bubblewrap_setup(scratch: str) -> dict[str, Any]:
    return {"landlock": None, "die_with_parent": False, "isolated": True, "scratch": _SCRATCH_INSIDE}


def _landlock_unavailable() -> str | None:
    if not sys.platform.startswith("linux"):
        return "Landlock is Linux's"
    if landlock.version() < 1:
        return "this kernel offers no Landlock (5.13 or later, switched on with lsm=landlock,…)"
    return seccomp_filter.unavailable()


def _landlock_setup(scratch: str) -> dict[str, Any]:
    paths = exposed()
    rules = {"readable": paths.entries(), "listable": paths.library_folders, "writable": [scratch], "devices": DEVICES}
    return {"landlock": rules, "die_with_parent": True, "isolated": True, "scratch": scratch}


def _unsafe_unavailable() -> str | None:
    return None if sys.platform.startswith("linux") else "programs are graded on Linux only"


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            name="bubblewrap",
            summary="namespaces (bubblewrap) and seccomp",
            how_to_get="apt install bubblewrap libseccomp2; in a container, allow user namespaces",
            unavailable=_bubblewrap_unavailable,
            command=_bubblewrap_command,
            setup=_bubblewrap_setup,
        ),
        Backend(
            name="landlock",
            summary="Landlock, seccomp, and no privileges",
            how_to_get="Linux 5.13 or later with Landlock switched on; apt install libseccomp2",
            unavailable=_landlock_unavailable,
            command=lambda scratch: _interpreter(),
            setup=_landlock_setup,
        ),
        Backend(
            name="unsafe",
            summary="no isolation: a program can do whatever this user can",
            how_to_get="BONTUNE_SANDBOX=unsafe",
            unavailable=_unsafe_unavailable,
            command=lambda scratch: _interpreter(),
            setup=lambda scratch: {"landlock": None, "die_with_parent": True, "isolated": False, "scratch": scratch},
        ),
    )
}
ISOLATING = tuple(name for name in BACKENDS if name != "unsafe")
"""Backends that isolate, in order of preference."""


def seccomp_program(backend: Backend) -> bytes:
    """The filter for a backend's candidates; none for the one that does not isolate."""
    return b"" if backend.name == "unsafe" else seccomp_filter.compile_filter()


def environment() -> dict[str, str]:
    """All that an isolated process finds in its environment."""
    return dict(ENVIRONMENT)


def parent_id() -> int:
    """The process that an isolated one must not outlive."""
    return os.getpid()
