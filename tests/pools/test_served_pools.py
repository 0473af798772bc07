"""Contract of `bontune sample http://…`, on real processes: this one, its server, and kills of both.

1. SIGKILL of the client at any moment loses no completion that had arrived and draws none twice: the finished pool is
   byte for byte the one of a collection that was left alone;
2. so does SIGKILL of the server, after which the client ends with status 1 and a sentence that says how to go on;
3. SIGTERM and SIGINT end it with status 143 and 130, a second process on the same pool is refused;
4. mistakes end in one sentence and leave no file behind; the server's key is written nowhere;
5. a server that decodes greedily is noticed, and another one can be the judge.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import processes
from bontune.engines.seeds import stream
from bontune.pools.read import read_pool
from bontune.tasks import load_task
from servers.openai_server import Server, server
from training import run_driver
from training.run_driver import Child, Driver, wait_for

P, M, CONCURRENCY = 6, 4, 3
SMALL = ("countdown", "--limit", str(P), "-n", str(M), "--concurrency", str(CONCURRENCY), "--tries", "2")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with run_driver.driver(tmp_path_factory.mktemp("driver")) as started:
        yield started


@pytest.fixture
def served() -> Server:
    started = server()
    started.behave()
    return started


@pytest.fixture(scope="module")
def undisturbed(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The pool of a collection that was left alone."""
    path = tmp_path_factory.mktemp("undisturbed") / "pool.jsonl"
    server().behave()
    done = driver.run("sample", server().url, *SMALL, "-o", str(path))
    assert done.code == 0, done.output
    assert done.output.strip().splitlines()[-1] == f"{path}: {P} problems × {M} samples"
    assert [file.name for file in path.parent.iterdir()] == ["pool.jsonl"]
    pool = read_pool(path)
    assert len(pool.problem_ids) == P
    assert pool.columns["sample"] == [list(range(M))] * P
    assert len({text for row in pool.columns["completion"] for text in row}) > P
    assert all(x is None for row in pool.columns["logprob"] for x in row)
    assert all(x >= 1 for row in pool.columns["num_tokens"] for x in row)
    return path.read_bytes()


class Collection:
    """`bontune sample` on one pool, as often as it takes."""

    def __init__(self, driver: Driver, served: Server, folder: Path) -> None:
        self.driver, self.served = driver, served
        self.pool = folder / "pool.jsonl"
        self.partial = folder / "pool.jsonl.partial.jsonl"
        self.command = ("sample", served.url, *SMALL, "-o", str(self.pool))
        self.num_kills = self.num_requests = 0

    def start(self, **sabotage: Any) -> Child:
        """With the count of requests begun anew, and what is there remembered."""
        self.served.behave()
        self.before = self.there()
        return self.driver.start(*self.command, **sabotage)

    def there(self) -> set[int]:
        """The seeds of the completions that are on disk."""
        if not self.partial.exists():
            return set()
        lines = [line for line in self.partial.read_bytes().split(b"\n")[:-1] if line]
        entries = [json.loads(line) for line in lines]
        drawn = [(e["problem_id"], s["sample"]) for e in entries if "samples" in e for s in e["samples"]]
        assert len(drawn) == len(set(drawn)), "a sample was kept twice"
        return {int(stream(0, "pool", name, i).integers(2**31)) for name, i in drawn}

    def check_requests(self) -> None:
        """Nothing that was on disk has been asked for again."""
        asked = [request["seed"] for request in self.served.told()["requests"]]
        assert not self.before & set(asked)
        self.num_requests += len(asked)

    def finish(self, undisturbed: bytes) -> None:
        done = self.start().wait()
        assert done.code == 0, done.output
        self.check_requests()
        assert self.pool.read_bytes() == undisturbed
        assert [file.name for file in self.pool.parent.iterdir()] == ["pool.jsonl"]
        # A kill costs at most the requests that were under way.
        assert self.num_requests <= P * M + self.num_kills * CONCURRENCY


# ---- 1: kills of the client ----


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_moments(driver: Driver, served: Server, undisturbed: bytes, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    collection = Collection(driver, served, tmp_path)
    while len(collection.there()) < P * M - 2:
        child = collection.start()
        target = len(collection.there()) + rng.randint(1, P * M // 2)
        wait_for(lambda: len(collection.there()) >= min(target, P * M - 1) or collection.pool.exists(), "completions")  # noqa: B023
        time.sleep(rng.random() * 0.02)  # not for synchronisation: to hit any moment
        child.signal(signal.SIGKILL)
        if child.wait().code == 0:
            pytest.skip("it was faster than the kill")
        collection.num_kills += 1
        collection.check_requests()
    assert collection.num_kills >= 1
    collection.finish(undisturbed)


@pytest.mark.parametrize("kill_at", [1, 3, 12, P * M + P, P * M + P + 2, P * M + P + 3])
def test_kills_at_exact_places(
    driver: Driver, served: Server, undisturbed: bytes, tmp_path: Path, kill_at: int
) -> None:
    """Before the n-th fsync or rename: of completions, of problems, of the whole pool."""
    collection = Collection(driver, served, tmp_path)
    assert collection.start(kill_at=kill_at).wait().code == -signal.SIGKILL
    collection.num_kills += 1
    collection.check_requests()
    assert not collection.pool.exists()
    if kill_at == 12:
        with open(collection.partial, "ab") as file:
            file.write(b'{"problem_id": "1-2-')
    collection.finish(undisturbed)


# ---- 2: kills of the server ----


@pytest.mark.parametrize("die_after", [0, 9])
def test_the_server_dies(driver: Driver, served: Server, undisturbed: bytes, tmp_path: Path, die_after: int) -> None:
    collection = Collection(driver, served, tmp_path)
    served.behave(die_after=die_after)
    stopped = driver.run(*collection.command)
    assert stopped.code == 1, stopped.output
    assert "Traceback" not in stopped.output
    assert stopped.message.startswith(f"error: The server {served.url} gave no usable answer to problem ")
    kept = f"what was drawn is kept in {collection.partial}: the same command continues."
    assert (kept in stopped.message) == (die_after > 0)
    num_kept = len(collection.there())
    assert die_after - CONCURRENCY <= num_kept <= die_after
    gone = driver.run(*collection.command)
    assert gone.code == 2
    assert f"No server answers at {served.url}" in gone.message
    assert len(collection.there()) == num_kept
    served.kill()
    served.restart()
    collection.finish(undisturbed)


# ---- 3: signals, a second process ----


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("poll", [1, 4])
def test_signals(driver: Driver, served: Server, undisturbed: bytes, tmp_path: Path, name: str, poll: int) -> None:
    collection = Collection(driver, served, tmp_path)
    stopped = collection.start(signals=[poll, [name]]).wait()
    assert stopped.code == {"SIGINT": 130, "SIGTERM": 143}[name], stopped.output
    assert "Traceback" not in stopped.output
    assert "stopped by a signal; the same command continues" in stopped.output
    collection.num_kills += 1
    collection.check_requests()
    assert not (tmp_path / "pool.jsonl.lock").exists()
    collection.finish(undisturbed)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, "the key has expired"),
        (402, {"error": {"message": "nothing left to pay with"}}),
        (403, {"error": {"message": "the key was withdrawn"}}),
        (429, {"error": {"message": "You exceeded your quota.", "type": "insufficient_quota"}}),
    ],
)
def test_a_refused_account_keeps_what_was_drawn(
    driver: Driver, served: Server, undisturbed: bytes, tmp_path: Path, status: int, body: object
) -> None:
    collection = Collection(driver, served, tmp_path)
    served.behave(fault=str(status), times=-1, fault_after=7, body=body)
    done = driver.run(*collection.command)
    assert done.code == 2, done.output
    said = done.output.strip().splitlines()[-1]
    assert said.startswith("error: The server refuses problem ")
    assert f"status {status}: " in said
    assert said.endswith(f"; what was drawn is kept in {collection.partial}: the same command continues.")
    assert len(collection.there()) >= 7 - CONCURRENCY
    collection.num_kills += 1
    collection.finish(undisturbed)


def test_a_silent_server_does_not_hold_up_a_signal(driver: Driver, served: Server, tmp_path: Path) -> None:
    served.behave(fault="hang", times=-1)
    child = driver.start("sample", served.url, *SMALL, "-o", str(tmp_path / "pool.jsonl"))
    wait_for(lambda: served.told()["requests"], "a request")
    child.signal(signal.SIGTERM)
    assert child.wait().code == 143
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["served", "countdown-tiny"])
def test_a_second_process_is_refused(
    driver: Driver, served: Server, undisturbed: bytes, tmp_path: Path, model: str
) -> None:
    collection = Collection(driver, served, tmp_path)
    command = list(collection.command)
    if model != "served":
        command = ["sample", model, *SMALL[:5], "-o", str(collection.pool)]
    first = driver.start(*command, signals=[3, ["SIGSTOP"]])
    state = Path(f"/proc/{first.pid}/stat")
    wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "the first process to stand still")
    second = driver.run(*command)
    assert second.code == 2
    assert second.message == (
        "error: Another process is collecting pool.jsonl: wait for it, stop it, or give another --out."
    )
    first.signal(signal.SIGCONT)
    assert first.wait().code == 0
    if model == "served":
        assert collection.pool.read_bytes() == undisturbed
    assert [file.name for file in tmp_path.iterdir()] == ["pool.jsonl"]


# ---- 4: mistakes, the key ----


def test_mistakes_end_in_one_sentence_and_leave_nothing(driver: Driver, served: Server, tmp_path: Path) -> None:
    served.behave(models=["a", "b"])
    missing = "http://127.0.0.1:1/v1"
    cases: list[tuple[list[str], str]] = [
        ([served.url, "countdown"], "has 2 models, name one"),
        ([f"{served.url}#a", "countdown", "--served-model", "b"], "Two names for one model"),
        ([missing, "countdown"], f"No server answers at {missing}"),
        ([f"{missing}#m", "countdown"], f"No server answers at {missing}"),
        ([f"{served.url}#a", "countdown", "--api", "chatty"], "The api must be one of"),
        ([f"{served.url}#a", "countdown", "--concurrency", "0"], "Concurrency must be at least 1"),
        ([f"{served.url}#a", "countdown", "--extra", "top_k=20"], "--extra takes fields as JSON"),
        ([f"{served.url}#a", "countdown", "--extra", '{"messages": []}'], "'messages' of a request cannot be set"),
        (["http://me:pass@h/v1", "countdown"], "must hold no password"),
        (
            ["countdown-tiny", "countdown", "--tries", "2"],
            "countdown-tiny is not the address of a server (http://…), but tries",
        ),
    ]
    for arguments, phrase in cases:
        done = driver.run("sample", *arguments, "-o", str(tmp_path / "pool.jsonl"))
        assert done.code == 2, (arguments, done.output)
        assert done.message.startswith("error: ")
        assert phrase in done.message
        assert "Traceback" not in done.output
        assert list(tmp_path.iterdir()) == []
    assert served.told()["requests"] == []


def test_the_key_is_sent_and_written_nowhere(served: Server, tmp_path: Path) -> None:
    key = "sk-0123456789"
    served.behave(fault="400", body={"error": f"Incorrect API key provided: {key}"}, times=1)
    command = ["sample", served.url, *SMALL, "-o", "pool.parquet"]
    environment = run_driver.ENVIRONMENT | {"OPENAI_API_KEY": key}
    written = b""
    for number in range(2):
        if number == 1:
            served.behave()
        done = processes.run(command, cwd=tmp_path, env=environment)
        assert done.returncode == (2 if number == 0 else 0), done.stderr
        assert served.told()["keys"] == [f"Bearer {key}"]
        written += (done.stdout + done.stderr).encode() + b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert key.encode() not in written
    assert b"Incorrect API key provided: ***" in written
    pool = read_pool(tmp_path / "pool.parquet")
    assert pool.settings["model"] == "countdown-tiny"
    assert pool.settings["server"] == served.url
    assert (len(pool.problem_ids), os.listdir(tmp_path)) == (P, ["pool.parquet"])


def test_another_address_may_go_on_with_a_pool_and_other_settings_may_not(
    driver: Driver, served: Server, undisturbed: bytes, tmp_path: Path
) -> None:
    collection = Collection(driver, served, tmp_path)
    assert collection.start(kill_at=9).wait().code == -signal.SIGKILL
    for other in (["--choices", "2"], ["--api", "chat"], ["--extra", '{"top_k": 5}'], ["--logprobs"], ["--seed", "1"]):
        refused = driver.run(*collection.command, *other)
        assert refused.code == 2, other
        assert "was begun with other settings" in refused.message
    done = driver.run("sample", served.url.replace("127.0.0.1", "localhost"), *collection.command[2:])
    assert done.code == 0, done.output
    assert collection.pool.read_bytes() == undisturbed


# ---- 5: greedy servers, judges ----


def test_a_server_that_decodes_greedily_is_noticed(driver: Driver, served: Server, tmp_path: Path) -> None:
    served.behave(replies={"You judge a proposed answer": ["So: 6"], "=": ["1+2"]})
    for temperature, is_noticed in (("1", True), ("0", False)):
        out = tmp_path / f"{temperature}.jsonl"
        done = driver.run(
            "sample",
            served.url,
            *SMALL,
            "--api",
            "chat",
            "-t",
            temperature,
            "-o",
            str(out),
            "--verifier",
            f"{served.url}#grader",
        )
        assert done.code == 0, done.output
        assert ("warning: all samples of a problem are the same" in done.output) == is_noticed
        assert read_pool(out).scores() == [[6.0] * M] * P
    judged = [request for request in served.told()["requests"] if request["model"] == "grader"]
    assert len(judged) == 2 * P, "the same completion of a problem is judged once"


def test_a_prompt_that_is_refused_is_counted_and_the_rest_is_there(
    driver: Driver, served: Server, tmp_path: Path
) -> None:
    collection = Collection(driver, served, tmp_path)
    refused = load_task("countdown").problems("test")[1]
    served.behave(refuses=[refused.prompt])
    done = driver.run(*collection.command)
    assert done.code == 0, done.output
    assert f"the server refused 1 of {P} problems, {refused.id} (The server refuses problem {refused.id}" in done.output
    assert "too long); their completions are empty and count as the grader grades them" in done.output
    pool = read_pool(collection.pool)
    assert set(pool.columns["stop_reason"][1]) == {"refused"}
    assert pool.rewards()[1] == [0.0] * len(pool.rewards()[1])
    served.behave()
