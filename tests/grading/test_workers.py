"""Killable workers: every way a job can go wrong, with real processes and real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bontune.grading.workers import Ending, WorkerPool

JOBS = """
import os, signal, sys, time

def run(job):
    kind, *arguments = job
    return globals()[kind](*arguments)

def echo(value): return value
def pid(): return os.getpid()
def sleep(seconds): time.sleep(seconds)
def spin():
    while True: pass
def spin_in_c(): return 3 ** (3 ** 18) % 7
def eat(): return len(bytearray(4 << 30))
def leave(status): os._exit(status)
def leave_politely(): sys.exit(3)
def fail(): raise ValueError("no")
def talk():
    print("x" * 100_000, flush=True); os.write(1, b"junk"); sys.stderr.write("y" * 100_000); return "said"
def large(size): return "x" * size
def unsendable(): return {1, 2}
def kill_itself(): os.kill(os.getpid(), signal.SIGKILL)
def fail_once(marker):
    if os.path.exists(marker): return "second"
    open(marker, "w").close(); kill_itself()
def count(marker):
    with open(marker, "a") as file: file.write("x")
    kill_itself()
def modules(): return sorted({"torch", "bontune", "numpy"} & set(sys.modules))
def environment(): return sorted(os.environ)
def descriptors(): return len(os.listdir("/proc/self/fd"))
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pool") / "jobs.py"
    path.write_text(JOBS)
    return f"{path}:run"


def test_jobs_and_their_endings(target: str) -> None:
    with WorkerPool(target, num_workers=1, timeout_s=20) as pool:
        assert pool.worker_pids == []  # started when needed
        value = {"a": [1, 2.5, None, "é" * 1000]}
        assert pool.run(["echo", value]).result == value
        failed = pool.run(["fail"])
        assert (failed.ending, failed.reason) == (Ending.ERROR, "ValueError: no")
        assert pool.run(["leave_politely"]).reason == "SystemExit: 3"
        assert pool.run(["talk"]).result == "said"
        assert pool.run(["large", 900_000]).ending is Ending.DONE
        (pid,) = pool.worker_pids
        assert pool.run(["pid"]).result == pid  # one worker did all of these
        assert pool.run(["large", 1 << 21]).ending is Ending.CRASHED
        assert pool.run(["unsendable"]).ending is not Ending.DONE
        assert pool.run(["leave", 0]).ending is Ending.CRASHED
        assert pool.run(["eat"]).ending is Ending.CRASHED
        assert pool.run(["echo", "x" * (1 << 21)]).ending is Ending.ERROR
        assert pool.run(["echo", 1]).result == 1


@pytest.mark.parametrize("job", [["sleep", 60], ["spin"], ["spin_in_c"]])
def test_the_deadline_is_kept_in_python_and_in_c(target: str, job: list[object]) -> None:
    with WorkerPool(target, num_workers=1, timeout_s=0.5) as pool:
        pool.run(["echo", 1])
        (pid,) = pool.worker_pids
        start = time.monotonic()
        reply = pool.run(job)
        assert reply.ending is Ending.TIMEOUT
        assert 0.5 <= time.monotonic() - start < 5
        assert not exists(pid)
        assert pool.worker_pids == []


def test_a_worker_that_dies_is_replaced_and_the_job_tried_once_more(target: str, tmp_path: Path) -> None:
    with WorkerPool(target, num_workers=1, timeout_s=20) as pool:
        assert pool.run(["fail_once", str(tmp_path / "once")]).result == "second"
        assert pool.run(["count", str(tmp_path / "count")]).ending is Ending.CRASHED
        assert (tmp_path / "count").read_text() == "xx"
        first = pool.run(["pid"]).result
        os.kill(first, signal.SIGKILL)  # while idle: no job is to blame
        assert pool.run(["pid"]).result != first


def test_a_worker_killed_by_another_hand_in_the_middle_of_a_job(target: str) -> None:
    with WorkerPool(target, num_workers=1, timeout_s=3) as pool, ThreadPoolExecutor(1) as threads:
        pid = pool.run(["pid"]).result
        job = threads.submit(pool.run, ["sleep", 60])
        os.kill(pid, signal.SIGKILL)
        assert job.result().ending is Ending.TIMEOUT  # tried again
        assert pool.run(["echo", 1]).result == 1


def test_closing_leaves_a_worker_alone_that_starts_meanwhile(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerPool(target, num_workers=1, timeout_s=20) as pool:
        assert pool.run(["echo", 1]).result == 1
        (worker,) = pool._idle
        kill, later = worker.kill, []
        monkeypatch.setattr(worker, "kill", lambda: (kill(), later.append(pool.run(["pid"]).result)))
        pool.close()
        assert pool.run(["pid"]).result == later[0]


def test_a_worker_is_replaced_after_its_share_of_jobs(target: str) -> None:
    with WorkerPool(target, num_workers=1, jobs_per_worker=3, timeout_s=20) as pool:
        pids = [pool.run(["pid"]).result for _ in range(9)]
        assert [len(set(pids[i : i + 3])) for i in (0, 3, 6)] == [1, 1, 1]
        assert len(set(pids)) == 3
        assert not any(map(exists, pids))


def test_many_threads_share_few_workers(target: str) -> None:
    with WorkerPool(target, num_workers=2, timeout_s=20, jobs_per_worker=40) as pool:
        with ThreadPoolExecutor(16) as threads:
            replies = list(threads.map(lambda i: pool.run(["echo", i]), range(200)))
        assert [reply.result for reply in replies] == list(range(200))
        assert len(pool.worker_pids) <= 2
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            pool.run(["leave", 1])
        assert len(os.listdir("/proc/self/fd")) <= before  # dead workers leave no descriptors behind


def test_a_worker_outlives_the_thread_that_started_it(target: str) -> None:
    with WorkerPool(target, num_workers=1, timeout_s=20) as pool:
        pids: list[int] = []
        thread = threading.Thread(target=lambda: pids.append(pool.run(["pid"]).result))
        thread.start()
        thread.join()
        assert pool.run(["pid"]).result == pids[0]


def test_workers_inherit_nothing(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # the parent has it, with its threads

    torch.ones(2).sum()
    monkeypatch.setenv("SECRET_TOKEN", "s")
    with open(os.devnull) as file, WorkerPool(target, num_workers=1, timeout_s=20) as pool:
        os.set_inheritable(file.fileno(), True)
        assert pool.run(["modules"]).result == []
        assert set(pool.run(["environment"]).result) <= {"PATH", "HOME", "LANG", "TMPDIR", "LC_CTYPE"}
        assert pool.run(["descriptors"]).result <= 8


def test_a_forked_child_has_a_pool_of_its_own(target: str) -> None:
    with WorkerPool(target, num_workers=1, timeout_s=20) as pool:
        pid = pool.run(["pid"]).result
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            answer = b"failed"
            try:
                answer = str(pool.run(["pid"]).result).encode()
                pool.close()
            finally:
                os.write(writing, answer)
                os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            childs = int(pipe.read())
        os.waitpid(child, 0)
        assert childs != pid
        assert not exists(childs)
        assert pool.run(["pid"]).result == pid  # the parent's lives on


def test_what_cannot_start_is_an_error(target: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    for wrong, phrase in [
        (f"{tmp_path}/broken.py:run", "No module named 'no_such_module'"),
        (f"{tmp_path}/absent.py:run", "FileNotFoundError"),
        ("no_such_module:run", "No module named"),
        (target.replace(":run", ":walk"), "has no attribute 'walk'"),
    ]:
        with WorkerPool(wrong) as pool:
            reply = pool.run(1)
            assert reply.ending is Ending.ERROR
            assert phrase in reply.reason
            assert pool.worker_pids == []
    for wrong_number in ({"num_workers": 0}, {"timeout_s": 0}, {"memory_mb": 0}, {"timeout_s": float("nan")}):
        with pytest.raises(ValueError, match="must be positive"):
            WorkerPool(target, **wrong_number)  # type: ignore[arg-type]


@pytest.mark.parametrize("job", ["echo", "sleep", "spin", "spin_in_c"])
@pytest.mark.parametrize("has_child", [False, True])
def test_no_orphans_after_a_kill_of_the_parent(target: str, job: str, has_child: bool) -> None:
    """The driver is killed with an idle worker, or one in a job; a forked child of it may still hold the pipes."""
    driver = textwrap.dedent(f"""
        import os, sys, threading, time
        from bontune.grading.workers import WorkerPool
        pool = WorkerPool({target!r}, num_workers=1, timeout_s=2)
        pid = pool.run(["pid"]).result
        child = 0
        if {has_child}:
            os.register_at_fork(after_in_child=lambda: None)
            pool._forget = lambda: None  # a child made by other means would not close the pipes
            child = os.fork()
            if child == 0:
                time.sleep(60)
        jobs = {{"sleep": ["sleep", 60], "spin": ["spin"], "spin_in_c": ["spin_in_c"]}}
        if {job!r} in jobs:
            threading.Thread(target=pool.run, args=(jobs[{job!r}],), daemon=True).start()
        print(pid, child, flush=True)
        time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", driver], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker, child = map(int, process.stdout.readline().split())
    try:
        assert exists(worker)
        process.kill()
        process.wait()
        assert within(30, lambda: not exists(worker)), f"worker {worker} is still there"
    finally:
        process.stdout.close()
        for pid in (worker, child):
            if pid and exists(pid):
                os.kill(pid, signal.SIGKILL)


def exists(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
