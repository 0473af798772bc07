"""Contract of `bontune sample http://a,http://b`, on two real servers:

1. both are asked, and the pool is byte for byte the one of a single server;
2. one that dies, falls silent, or was never there, is left out and said, one that is slow with some requests is not;
   none that answers is an error as of one;
3. servers of different models are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bontune.base.client import MOST_FAILURES, Address, Endpoint, Servers
from bontune.base.errors import BontuneError
from servers.openai_server import Server, server
from training import run_driver
from training.run_driver import Driver

SMALL = ("countdown", "--limit", "12", "-n", "4", "--concurrency", "2", "--tries", "4")
NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with run_driver.driver(tmp_path_factory.mktemp("driver")) as started:
        yield started


@pytest.fixture(scope="module")
def second() -> Iterator[Server]:
    started = Server()
    yield started
    started.kill()
    started.close()


@pytest.fixture(scope="module")
def alone(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("alone") / "pool.jsonl"
    server().behave()
    assert driver.run("sample", server().url, *SMALL, "-o", str(path)).code == 0
    return path.read_bytes()


def test_both_are_asked_for_the_same_pool(driver: Driver, second: Server, alone: bytes, tmp_path: Path) -> None:
    for one in (server(), second):
        one.behave()
    out = tmp_path / "pool.jsonl"
    done = driver.run("sample", f"{server().url},{second.url}", *SMALL, "-o", str(out))
    assert done.code == 0, done.output
    assert "left out" not in done.output
    assert out.read_bytes() == alone
    asked = [one.told()["num_answered"] for one in (server(), second)]
    assert sum(asked) == 48
    assert min(asked) >= 12, "about half each"


def test_one_that_dies_is_left_out(driver: Driver, second: Server, alone: bytes, tmp_path: Path) -> None:
    server().behave()
    second.behave(die_after=3)
    out = tmp_path / "pool.jsonl"
    done = driver.run("sample", f"{server().url},{second.url}", *SMALL, "-o", str(out))
    second.kill()
    second.restart()
    assert done.code == 0, done.output
    assert out.read_bytes() == alone
    assert f"warning: {second.url} was left out (" in done.output


def test_one_that_falls_silent_is_left_out(driver: Driver, second: Server, alone: bytes, tmp_path: Path) -> None:
    server().behave()
    second.behave(fault="hang", times=-1)
    out = tmp_path / "pool.jsonl"
    done = driver.run(
        "sample",
        f"{server().url},{second.url}",
        *SMALL,
        "--timeout",
        "3",
        "--served-model",
        "countdown-tiny",
        "-o",
        str(out),
    )
    second.kill()
    second.restart()
    assert done.code == 0, done.output
    assert out.read_bytes() == alone
    assert f"warning: {second.url} was left out (no answer within 3 s)" in done.output


def test_one_that_answers_others_in_the_meantime_is_not_silent(second: Server) -> None:
    """Three of its requests wait in vain at the same time, which one after the other would be two too many."""
    server().behave()
    second.behave(fault="hang", times=3)
    body = {"model": "countdown-tiny", "prompt": "1,2,3,4:10=", "max_tokens": 4, "temperature": 1.0, "top_p": 1.0}
    with Endpoint(f"{server().url},{second.url}", concurrency=4, timeout_s=4, num_tries=4) as endpoint:
        work = [endpoint.post("/completions", body, lambda reply: reply["choices"], str(n)) for n in range(64)]
        asked = [endpoint.submit(one) for one in work]
        assert all(one.result(60) for one in asked)
        assert endpoint.num_retries == 3
        assert endpoint.servers.left_out() == []


def test_one_that_was_never_there_is_left_out(driver: Driver, alone: bytes, tmp_path: Path) -> None:
    server().behave()
    out = tmp_path / "pool.jsonl"
    done = driver.run("sample", f"{NOBODY},{server().url}", *SMALL, "-o", str(out))
    assert done.code == 0, done.output
    assert out.read_bytes() == alone
    assert f"warning: {NOBODY} was left out (" in done.output
    nobody = driver.run("sample", f"{NOBODY},{NOBODY.replace('9', '10')}", *SMALL, "-o", str(tmp_path / "none.jsonl"))
    assert nobody.code == 2
    assert "No server answers at" in nobody.message


def test_servers_of_different_models_are_refused() -> None:
    assert Address.parse("http://a/v1, http://b/v1#m") == Address(url="http://a/v1,http://b/v1", model="m")
    with pytest.raises(BontuneError, match="must hold one model, not m, n"):
        Address.parse("http://a/v1#m,http://b/v1#n")


def test_servers_that_list_other_models_are_refused(driver: Driver, second: Server, tmp_path: Path) -> None:
    server().behave()
    second.behave(models=["another"])
    done = driver.run("sample", f"{server().url},{second.url}", *SMALL, "-o", str(tmp_path / "pool.jsonl"))
    second.behave()
    assert done.code == 2
    assert "list no model in common" in done.message


def test_the_least_busy_is_asked_and_the_last_is_never_left_out() -> None:
    servers = Servers(["a", "b"])
    with servers.least_busy() as first, servers.least_busy() as other, servers.least_busy() as third:
        assert {first.url, other.url} == {"a", "b"}
        assert third.num_busy == 2
    for _ in range(MOST_FAILURES):
        servers.failed(first, "gone")
    assert servers.left_out() == [f"{first.url} was left out (gone)"]
    for _ in range(9):
        servers.failed(other, "gone too")
    assert servers.answering == [other]
    servers.answered(other)
    assert other.num_failures == 0
