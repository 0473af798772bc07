"""Contract of runs that are interrupted from outside, on real processes (checkpoints have a file of their own):

1. SIGTERM or SIGINT at any poll (sampling, grading, update, evaluation) saves the last completed step and exits with
   143 and 130; the resumed run ends bitwise equal to one that was left alone. A second signal leaves at once;
2. a second process on the same run folder is refused with exit status 2, while the first goes on undisturbed;
3. `metrics.jsonl` has every step once after a resume, and a torn last line is cut;
4. a pool of samples that is killed, stopped or out of room while it is collected ends equal to one that was left alone,
   row for row; one that was begun with other settings is not gone on with.
"""

import signal
from pathlib import Path

import pytest

from bontune.base.signals import StopSignals
from bontune.pools.read import read_pool
from training import run_driver
from training.run_driver import metrics, outcome, steps, wait_for

FOUR = ("training.steps=4", "training.checkpoint_every=4", "eval.every=3")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with run_driver.driver(tmp_path_factory.mktemp("driver")) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(driver, tmp_path_factory):
    """The outcome of four steps, and how often the stop flag was polled."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert driver.train(folder / "run", *FOUR, polls=str(folder / "polls")).code == 0
    return outcome(folder / "run"), int((folder / "polls").read_text())


def rows(run, kind):
    return [row for row in metrics(run) if row["kind"] == kind]


# ---- 1: signals ----


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("place", [0.0, 0.2, 0.4, 0.55, 0.7, 0.85, 1.0])
def test_a_signal_saves_the_last_step_and_leaves(driver, undisturbed, tmp_path, name, place):
    wanted, polls = undisturbed
    run = tmp_path / "run"
    n = 1 + round(place * (polls - 1)) - (0 < place < 1 and name == "SIGINT")
    stopped = driver.train(run, *FOUR, signals=[n, [name]])
    assert stopped.code == {"SIGINT": 130, "SIGTERM": 143}[name], stopped.output
    assert "Traceback" not in stopped.output
    done = max((row["step"] for row in rows(run, "step")), default=0)
    assert steps(run) == ([done] if done else [])
    assert (f"step {done} is saved" if done else "no step was complete") in stopped.output
    resumed = driver.train(run, *FOUR)
    assert resumed.code == 0, resumed.output
    assert outcome(run) == wanted


def test_signalled_again_and_again(driver, undisturbed, tmp_path):
    wanted, polls = undisturbed
    for _ in range(20):
        result = driver.train(tmp_path, *FOUR, signals=[polls // 3, ["SIGTERM"]])
        if result.code == 0:
            break
    assert outcome(tmp_path) == wanted


def test_a_second_signal_leaves_at_once(driver, undisturbed, tmp_path):
    wanted, polls = undisturbed
    stopped = driver.train(tmp_path, *FOUR, signals=[polls - 1, ["SIGTERM", "SIGINT"]])
    assert stopped.code == 143
    assert steps(tmp_path) == []  # it did not wait for a save
    assert rows(tmp_path, "step")
    assert driver.train(tmp_path, *FOUR).code == 0
    assert outcome(tmp_path) == wanted


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        signals.poll()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


# ---- 2: two processes ----


def test_a_second_process_is_refused(driver, undisturbed, tmp_path):
    wanted, polls = undisturbed
    run = tmp_path / "run"
    first = driver.start(
        "train", "countdown", f"run={run}", *run_driver.SMALL, *FOUR, signals=[polls // 2, ["SIGSTOP"]]
    )
    state = Path(f"/proc/{first.pid}/stat")
    wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "the first process to stand still")
    before = (run / "metrics.jsonl").read_bytes()
    second = driver.train(run, *FOUR)
    assert second.code == 2
    assert second.message == (
        f"error: Another process is training in {run}: wait for it, stop it, or choose another run=…"
    )
    assert (run / "metrics.jsonl").read_bytes() == before
    first.signal(signal.SIGCONT)
    assert first.wait().code == 0
    assert outcome(run) == wanted


# ---- 3: metrics ----


@pytest.mark.parametrize("torn", [b'{"kind": "step", "step": 4, "rew', b"\x00\x00\xff", b'{"kind": "step", "step": 2}'])
def test_no_step_twice_and_no_torn_line(driver, undisturbed, tmp_path, torn):
    wanted, polls = undisturbed
    overrides = (*FOUR, "training.checkpoint_every=2")
    driver.train(tmp_path, *overrides, signals=[int(polls * 0.8), ["SIGKILL"]])
    assert [row["step"] for row in rows(tmp_path, "step")] == [1, 2, 3]
    assert steps(tmp_path) == [2]
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(torn)
    assert driver.train(tmp_path, *overrides).code == 0
    assert [row["step"] for row in rows(tmp_path, "step")] == [1, 2, 3, 4]
    assert [row["step"] for row in rows(tmp_path, "eval")] == [0, 3, 4]
    assert outcome(tmp_path) == wanted


# ---- 4: pools ----


def test_a_pool_collected_in_pieces(driver, tmp_path):
    def sample(name, **sabotage):
        return driver.run(
            "sample", "countdown-tiny", "countdown", "--limit", "70", "-n", "3", "-o", str(tmp_path / name), **sabotage
        )

    assert sample("whole.parquet", polls=str(tmp_path / "polls")).code == 0
    whole = read_pool(tmp_path / "whole.parquet")
    assert len(whole.problem_ids) == 70
    pool, partial = tmp_path / "pool.parquet", tmp_path / "pool.parquet.partial.jsonl"
    for n in (1, 2, 40, 65, 70, 71, 72):  # a write for each problem, then the whole pool and its rename
        pool.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
        assert sample("pool.parquet", kill_at=n).code == -9
        assert not pool.exists()
        if n % 2 == 0:
            with open(partial, "ab") as file:
                file.write(b'{"rows": [{"problem_id": "1-2')
            refused = driver.run("sample", "countdown-tiny", "countdown", "--limit", "70", "-n", "4", "-o", str(pool))
            assert refused.code == 2
            assert "other settings" in refused.message
        again = sample("pool.parquet")
        assert again.code == 0, again.output
        assert read_pool(pool) == whole, n
        assert not partial.exists()
    pool.unlink()
    stopped = sample("pool.parquet", signals=[int((tmp_path / "polls").read_text()) - 2, ["SIGTERM"]])
    assert stopped.code == 143
    assert len(partial.read_bytes().splitlines()) == 1 + 64  # the batch that was whole
    full = sample("pool.parquet", file_limit=partial.stat().st_size + 500)
    assert full.code == 1
    assert "could not be written" in full.message
    assert "Traceback" not in full.output
    assert sample("pool.parquet").code == 0
    assert read_pool(pool) == whole
