"""What a candidate may read: the interpreter, its standard library and the libraries these load. Nothing installed.

``site-packages`` stays out: it may hold this package, and with it tests; so do homes, /etc, /proc and /sys.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

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
    """Folders below the former that must not be seen."""

    def entries(self) -> tuple[str, ...]:
        """The same as a list that leaves the hidden ones out, for rules that can only add."""
        paths = [self.interpreter, *self.system_paths]
        for folder in self.library_folders:
            paths += [str(entry) for entry in sorted(Path(folder).iterdir()) if entry.name not in _HIDDEN]
        return tuple(paths)


@lru_cache(maxsize=1)
def exposed() -> Exposed:
    """Find them for the running interpreter."""
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
