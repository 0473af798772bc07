"""The program of a worker (``workers``): it does one job at a time, from a pipe, until its parent is gone.

It is started as ``python -I worker_process.py`` and imports no package of ours, so that torch is not loaded either.
A frame on either pipe is four bytes of length, big-endian, then JSON. The first frame holds the settings.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import struct
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

MAX_JOB_BYTES = 1 << 20


def _read_frame(descriptor: int, parent: int) -> bytes:
    """Read the next frame; the process ends when the pipe is closed or the parent is no longer its parent.

    Looking at the parent covers what the pipe cannot: another child of a killed parent may still hold its writing end.
    """
    data = b""
    size = 4
    while len(data) < size:
        if not select.select([descriptor], [], [], 1.0)[0]:
            if os.getppid() != parent:
                os._exit(1)
            continue
        chunk = os.read(descriptor, size - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
        if size == 4 and len(data) == 4:
            size += struct.unpack(">I", data)[0]
            if size > MAX_JOB_BYTES:
                os._exit(1)
    return data[4:]


def _write_frame(descriptor: int, reply: dict[str, Any]) -> None:
    """Send one reply, all of it."""
    body = json.dumps(reply).encode()
    data = memoryview(struct.pack(">I", len(body)) + body)
    while data:
        data = data[os.write(descriptor, data) :]


def _load(target: str) -> Callable[[Any], Any]:
    """The function that does the jobs: ``module:function`` or ``path/to/file.py:function``."""
    source, _, name = target.rpartition(":")
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location("job", source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["job"] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    function: Callable[[Any], Any] = getattr(module, name)
    return function


def _allow_cpu(seconds: int) -> None:
    """Have the kernel kill the process ``seconds`` of computing from now: the net below the parent's deadline.

    A parent killed in the middle of a job cannot keep its deadline, and no thread of Python's gets a turn while one
    operation on long integers runs.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def serve_jobs() -> None:
    """Do jobs until the parent hangs up; an exception of the function is a reply."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs_in, replies_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)  # what a job prints must not get among the frames
    settings = json.loads(_read_frame(jobs_in, parent))
    sys.path.extend(entry for entry in settings["path"] if entry not in sys.path)
    try:
        function = _load(settings["target"])
    except Exception as error:
        _write_frame(replies_out, {"error": f"{type(error).__name__}: {error}"})
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (settings["memory_bytes"],) * 2)
    _write_frame(replies_out, {"result": "ready"})

    # A thread listens during a job, too, so that the worker ends when its parent does.
    jobs: SimpleQueue[bytes] = SimpleQueue()

    def listen() -> None:
        while True:
            jobs.put(_read_frame(jobs_in, parent))

    threading.Thread(target=listen, daemon=True).start()
    while True:
        job = json.loads(jobs.get())
        _allow_cpu(settings["cpu_s"])
        try:
            reply = {"result": function(job)}
        except MemoryError:
            os._exit(3)  # nothing can be trusted after it
        except BaseException as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        _write_frame(replies_out, reply)


if __name__ == "__main__":
    serve_jobs()
