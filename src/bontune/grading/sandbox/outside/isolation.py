"""The ways to isolate: how each starts an interpreter that can do no harm, and what it needs.

A candidate may read the interpreter, its standard library and the libraries these load; nothing that was installed.
``site-packages`` stays out: it may hold this package, and with it tests; so do homes, /etc, /proc and /sys.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import bontune.grading.sandbox.inside.landlock as landlock
import bontune.grading.sandbox.outside.seccomp as seccomp

BOOTSTRAP = """\
import importlib.abc, importlib.util, json, os, socket, sys
sys.path[:] = [entry for entry in sys.path if entry]
control = socket.socket(fileno=0)
setup = json.loads(control.recv(1 << 20))
control = socket.socket(fileno=os.dup(control.detach()))
sources = setup.pop("sources")

class Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name in sources else None
    def is_package(self, name):
        return any(other.startswith(name + ".") for other in sources)
    def get_source(self, name):
        return sources[name]

sys.meta_path.insert(0, Sources())
import bontune.grading.sandbox.inside.zygote as zygote
del sys.meta_path[0]
for name in [name for name in sys.modules if name.split(".")[0] == "bontune"]:
    del sys.modules[name]
zygote.fork_programs(control, setup)
"""
"""First program of the isolated interpreter: it imports the zygote from the sources that it is sent."""
ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2"}
"""Without MALLOC_ARENA_MAX every thread reserves 64 MB of addresses: 20 threads fit into 1 GB instead of 100."""
_SCRATCH_INSIDE = "/tmp"
_SCRATCH_BYTES = 64 << 20
_HIDDEN = ("site-packages", "dist-packages")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/dev/full")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposed:
    """Paths of this machine, all existing."""

    interpreter: str
    """The real executable, not a virtual environment's link."""
    library_folders: tuple[str, ...]
    """The standard library: pure and compiled part, often the same folder."""
    system_paths: tuple[str, ...]
    """Shared libraries, time zones, the loader's cache."""
    hidden: tuple[str, ...]
    """Folders in the library that must not be seen."""

    def entries(self) -> tuple[str, ...]:
        """All paths without the hidden ones, as a list for rules that can only add."""
        paths = [self.interpreter, *self.system_paths]
        for folder in self.library_folders:
            paths += [str(entry) for entry in sorted(Path(folder).iterdir()) if entry.name not in _HIDDEN]
        return tuple(paths)


@lru_cache(maxsize=1)
def exposed() -> Exposed:
    """Find the paths that a candidate of the running interpreter may read."""
    # In a virtual environment sysconfig names that one's folders, unless it is told the base's.
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    base = {"base": sys.base_prefix, "installed_base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    base["installed_platbase"] = sys.base_exec_prefix
    libraries = dict.fromkeys(
        os.path.realpath(path)
        for path in (
            os.path.dirname(os.__file__),
            *(sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")),
        )
        if os.path.isdir(path)
    )
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    system = [f"{root}/{multiarch}" for root in ("/lib", "/usr/lib") if multiarch]
    system += ["/lib64", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    if sys.platform.startswith("linux"):
        system += [str(path) for path in Path("/lib").glob("ld-*.so*")]
    if sys.base_prefix != "/usr":
        # Conda and others keep the interpreter's shared libraries beside the standard library.
        system += [str(path) for path in sorted(Path(sys.base_prefix, "lib").glob("*.so*"))]
    hidden = [os.path.join(folder, name) for folder in libraries for name in _HIDDEN]
    return Exposed(
        interpreter=interpreter,
        library_folders=tuple(libraries),
        system_paths=tuple(dict.fromkeys(path for path in system if os.path.exists(path))),
        hidden=tuple(path for path in hidden if os.path.isdir(path)),
    )


def _interpreter_command() -> list[str]:
    # -I would also ignore PYTHONHASHSEED, and with it make the order of sets differ from run to run.
    return [exposed().interpreter, "-s", "-S", "-B", "-c", BOOTSTRAP]


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
    """Says why it cannot even be tried here, or None. Whether it holds, the probe finds out."""
    setup: Callable[[str], dict[str, Any]]
    """Makes the instructions by which the zygote confines itself, from the scratch folder."""
    command: Callable[[], list[str]] = _interpreter_command
    """Makes the command line that starts the isolated interpreter."""


def _bubblewrap_unavailable() -> str | None:
    if shutil.which("bwrap") is None:
        return "bwrap is not installed"
    return seccomp.unavailable()


def _bubblewrap_command() -> list[str]:
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
    return [*command, "--", *_interpreter_command()]


def _bubblewrap_setup(scratch: str) -> dict[str, Any]:
    return _setup(_SCRATCH_INSIDE, die_with_parent=False)


def _setup(scratch: str, *, rules: Any = None, die_with_parent: bool = True, isolated: bool = True) -> dict[str, Any]:
    return {
        "scratch": scratch,
        "landlock": rules,
        "die_with_parent": die_with_parent,
        "isolated": isolated,
        "seccomp": seccomp.compile_filter().hex() if isolated else "",
    }


def _landlock_unavailable() -> str | None:
    if not sys.platform.startswith("linux"):
        return "Landlock is Linux's"
    if landlock.version() < 1:
        return "this kernel offers no Landlock (5.13 or later, switched on with lsm=landlock,…)"
    return seccomp.unavailable()


def _landlock_setup(scratch: str) -> dict[str, Any]:
    paths = exposed()
    rules = {"readable": paths.entries(), "listable": paths.library_folders, "writable": [scratch], "devices": DEVICES}
    return _setup(scratch, rules=rules)


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
            setup=_landlock_setup,
        ),
        Backend(
            name="unsafe",
            summary="no isolation: a program can do whatever this user can",
            how_to_get="BONTUNE_SANDBOX=unsafe",
            unavailable=_unsafe_unavailable,
            setup=lambda scratch: _setup(scratch, isolated=False),
        ),
    )
}
ISOLATING = tuple(name for name in BACKENDS if name != "unsafe")
"""Backends that isolate, in order of preference."""
