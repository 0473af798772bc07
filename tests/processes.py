"""Processes of their own for tests, forked from one that has imported everything: start-up is paid once a test process.

1. What is forked is a real process with its own pid, working directory, environment, streams and exit status; it can be
   signalled and killed.
2. What depends on the start of an interpreter (the encoding of its streams, what it imports, its own command line under
   ``/proc``) needs ``subprocess`` and ``sys.executable`` instead.
3. A variable that a library reads when it is imported is the server's, see :data:`SETTINGS`; all others are those of
   the process. One with another ``PYTHONPATH`` imports the package anew, which may lie there.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}
ENVIRONMENT = os.environ | SETTINGS
TIMEOUT_S = 240.0


class Process:
    """A forked process, seen from a test; it is what :class:`subprocess.Popen` would be."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self.pid = int(pipe.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        return self._read(0.0)

    def wait(self, timeout: float | None = TIMEOUT_S) -> int:
        """Wait for the end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def _read(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._pipe], [], [], timeout)[0]:
            self.returncode = int(self._pipe.readline())
            self._pipe.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    program: Sequence[str] | str | Callable[..., None],
    *arguments: Any,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    start_new_session: bool = False,
    prepare: Callable[[Any], None] | None = None,
    prepare_with: Any = None,
) -> Process:
    """Start a process.

    Args:
        program: the arguments of ``bontune``; or a text of Python; or a function of a module.
        arguments: ``sys.argv[1:]`` of a text, or what the function is called with; JSON can hold them.
        cwd: its working directory; None: ours.
        env: its environment; None: ours.
        stdin, stdout, stderr: files or descriptors; None: nothing is read, and what is written is lost.
        start_new_session: as in :class:`subprocess.Popen`.
        prepare: a function of a module that is called in the new process before, with ``prepare_with``.
    """
    order: dict[str, Any] = {
        "cwd": str(cwd or os.getcwd()),
        "env": dict(os.environ if env is None else env),
        "start_new_session": start_new_session,
        "arguments": arguments,
    }
    if callable(program):
        order["function"] = _name(program)
    elif isinstance(program, str):
        order["text"] = program
    else:
        order["command"] = [str(word) for word in program]
    if prepare is not None:
        order |= {"prepare": _name(prepare), "prepare_with": prepare_with}
    ours, theirs = os.pipe()
    with open(os.devnull, "r+b") as nothing:
        streams = [s if isinstance(s, int) else (s or nothing).fileno() for s in (stdin, stdout, stderr)]
        _server().send(order, [theirs, *streams])
    os.close(theirs)
    return Process(os.fdopen(ours, "rb", buffering=0))


def run(
    program: Sequence[str] | str,
    *arguments: Any,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    text: str = "",
    timeout: float = TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    """Start a process with ``text`` as its input, wait for its end, and take what it printed."""
    with tempfile.TemporaryFile("w+b") as given, tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile() as err:
        given.write(text.encode())
        given.seek(0)
        process = start(program, *arguments, cwd=cwd, env=env, stdin=given, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        printed = []
        for file in (out, err):
            file.seek(0)
            printed.append(file.read().decode(errors="replace"))
    return subprocess.CompletedProcess(program, code, *printed)


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


# ---- the server ----


class _Server:
    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        theirs.close()

    def send(self, order: dict[str, Any], descriptors: list[int]) -> None:
        """Have a process forked that takes these descriptors."""
        data = json.dumps(order).encode()
        socket.send_fds(self.socket, [len(data).to_bytes(8, "big")], descriptors)
        self.socket.sendall(data)

    def close(self) -> None:
        """Let it go."""
        self.socket.close()
        self.process.wait()


@functools.cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.close)
    return server


def _serve(descriptor: int) -> None:
    """Import what commands need, and fork for every order."""
    import peft  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    from matplotlib.figure import Figure

    from bontune.models import load_model, quiet_libraries
    from bontune.tasks import load_task

    for room in ("cli", "experiments", "objectives", "pools", "report", "tasks", "training", "verifiers"):
        package = importlib.import_module(f"bontune.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"bontune.{room}."):
            importlib.import_module(module.name)
    quiet_libraries()
    load_model("countdown-tiny")
    for split in ("train", "validation", "test"):
        load_task("countdown").problems(split)
    figure = Figure()
    figure.subplots().plot([0, 1], label="all that is loaded when something is drawn first")
    figure.legend()
    for kind in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=kind)
    gc.collect()
    gc.freeze()  # nor does a new process copy these objects by looking at them
    sys.path.insert(0, "")  # in the place of the folder of this file, which follows
    children: dict[int, int] = {}  # the pipe of each that runs
    woken, waking = os.pipe()
    for end in (woken, waking):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    with socket.socket(fileno=descriptor) as orders:
        while True:
            ready, _, _ = select.select([orders, woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                _say_who_ended(children)
            if orders in ready:
                size, descriptors, _, _ = socket.recv_fds(orders, 8, 4)
                if not size:
                    return
                data = b""
                while len(data) < int.from_bytes(size, "big"):
                    data += orders.recv(1 << 20)
                pipe, *streams = descriptors
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for end in (orders.fileno(), woken, waking, pipe, *children.values()):
                        os.close(end)
                    _be(json.loads(data), streams)
                children[pid] = pipe
                os.write(pipe, f"{pid}\n".encode())
                for stream in streams:
                    os.close(stream)


def _say_who_ended(children: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            pipe = children.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(pipe)


def _be(order: dict[str, Any], streams: Sequence[int]) -> None:
    """Become the process, and end as an interpreter does."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if order["start_new_session"]:
        os.setsid()
    os.chdir(order["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = order["env"].get("PYTHONPATH", "")
    if path and path != os.environ.get("PYTHONPATH"):
        sys.path[:0] = path.split(os.pathsep)
        for name in [name for name in sys.modules if name.partition(".")[0] == "bontune"]:
            del sys.modules[name]
    os.environ.clear()
    os.environ.update(order["env"])
    code = 1
    try:
        if "prepare" in order:
            _function(order["prepare"])(order["prepare_with"])
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        if "command" in order:
            import bontune.cli

            sys.argv = ["bontune", *order["command"]]
            bontune.cli.main()
        elif "text" in order:
            sys.argv = ["-c", *order["arguments"]]
            exec(compile(order["text"], "<string>", "exec"), main.__dict__)
        else:
            _function(order["function"])(*order["arguments"])
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the end of an interpreter does
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
