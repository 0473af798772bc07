"""`bontune sweep` as a user meets it: real processes, real kills.

1. Drawn from a model, from the pools it left, and after a kill in the middle: the same numbers.
2. What it writes is what the pools give.
3. Whatever a user can get wrong is one sentence, status 2, and leaves nothing behind.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import processes
from bontune.base.errors import BontuneError
from bontune.cli.sweep import parse_temperatures
from bontune.metrics import pass_at_k
from bontune.pools.read import read_pool
from commands import run_many

TEMPERATURES = ("0.5", "1.0", "1.5")
SWEEP = [
    "sweep",
    "countdown-tiny",
    "countdown",
    "--temperatures",
    ",".join(TEMPERATURES),
    "-n",
    "16",
    "--limit",
    "40",
    "--split",
    "validation",
    "--verifier",
    "mine.py:short",
    "-o",
    "out",
]
VERIFIER = "def short(problem, completion):\n    return -len(completion)\n"
NUMBERS = ("grid.csv", "fit.csv", "optimum.csv", "budgets.csv", "best_n.csv")
PICTURES = ("pass_grid.png", "pass_curves.png", "optimum.png", "best_grid.png", "best_curves.png")

KILLED = """
import os, signal, sys
import bontune.cli
from bontune.pools.journal import Journal
append, count = Journal.append, 0
def counted(self, entry):
    global count
    append(self, entry)
    count += 1
    if count == 60:  # 40 problems of the first pool, 20 of the second
        os.kill(os.getpid(), signal.SIGKILL)
Journal.append = counted
sys.argv = ["bontune", *sys.argv[1:]]
bontune.cli.main()
"""


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "140"}


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A sweep of three temperatures, and one of the pools it left, with another verifier's word for it."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "mine.py").write_text(VERIFIER)
    (done,) = run_many(folder, [SWEEP], columns=140)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_sweep_writes_what_its_pools_give(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = swept
    out = folder / "out"
    pools = {float(t): read_pool(out / f"T{t}.parquet") for t in TEMPERATURES}
    assert {path.name for path in out.iterdir()} == {
        *(f"T{t}.parquet" for t in TEMPERATURES),
        *NUMBERS,
        *PICTURES,
        "sweep.json",
    }, "nothing else is left, nothing is missing"
    for temperature, pool in pools.items():
        assert pool.settings["temperature"] == temperature
        assert (len(pool.problem_ids), len(pool.columns["reward"][0])) == (40, 16)
    tree = json.loads((out / "sweep.json").read_text())
    assert tree["temperatures"] == [0.5, 1.0, 1.5]
    assert tree["n"] == [1, 2, 4, 8, 16]
    assert (tree["model"], tree["verifier"], tree["metric"]) == ("countdown-tiny", "mine.py:short", "best")
    for row in rows(out / "grid.csv"):
        if row["metric"] == "pass":
            wanted = pass_at_k(pools[float(row["temperature"])].rewards(), int(row["n"])).mean()
            assert float(row["value"]) == pytest.approx(wanted)
            assert float(row["low"]) <= wanted <= float(row["high"])
    assert len(rows(out / "grid.csv")) == 2 * 3 * 5
    assert {row["group"] for row in rows(out / "optimum.csv")} >= {"all"}
    for sentence in ("pass@N, %", "pass@N = exp(a N^b)", "best-of-N, %", "For this model and verifier, with 8 samples"):
        assert sentence in done.stdout
    assert tree["advice"][0] in " ".join(done.stdout.split())


def test_a_killed_sweep_goes_on_and_ends_the_same(
    swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(VERIFIER)
    killed = processes.run(KILLED, *SWEEP, cwd=tmp_path, env=environment())
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    out = tmp_path / "out"
    assert (out / "T0.5.parquet").is_file()
    assert (out / "T1.0.parquet.partial.jsonl").is_file()
    assert not (out / "T1.0.parquet").exists()
    first = (out / "T0.5.parquet").stat()
    (done,) = run_many(tmp_path, [SWEEP], columns=140)
    assert done.returncode == 0, done.stderr
    assert "out/T0.5.parquet is already there" in done.stderr
    assert "20 of 40 problems are already there" in done.stderr
    assert (out / "T0.5.parquet").stat().st_mtime_ns == first.st_mtime_ns, "a finished pool is kept"
    assert not list(out.glob("*.partial*"))
    for name in (*NUMBERS, "sweep.json"):
        assert (out / name).read_bytes() == (swept[0] / "out" / name).read_bytes(), name


def rewritten(source: Path, target: Path, **changed: Any) -> str:
    """A copy of a pool with other settings (None: without); returns its name."""
    table = pq.read_table(source)
    known = json.loads(table.schema.metadata[b"bontune"]) | changed
    kept = {name: value for name, value in known.items() if value is not None}
    pq.write_table(table.replace_schema_metadata({b"bontune": json.dumps(kept).encode()}), target)
    return target.name


def test_pools_that_are_there_and_what_is_refused(
    swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    source, pools = swept[0] / "out", []
    for t in TEMPERATURES:
        pools.append(rewritten(source / f"T{t}.parquet", tmp_path / f"{t}.parquet"))
    cold, warm, _ = pools
    greedy = rewritten(source / "T0.5.parquet", tmp_path / "greedy.parquet", temperature=0)
    silent = rewritten(source / "T0.5.parquet", tmp_path / "silent.parquet", temperature=None)
    foreign = rewritten(source / "T0.5.parquet", tmp_path / "foreign.parquet", model="other")
    halved = pq.read_table(source / "T0.5.parquet").slice(0, 20 * 16)
    pq.write_table(halved, tmp_path / "halved.parquet")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"problem_id": "a", "reward": 1}) + "\n")
    (tmp_path / "kept").mkdir()
    rewritten(source / "T0.5.parquet", tmp_path / "kept" / "T0.5.parquet")
    (tmp_path / "mine.py").write_text(VERIFIER)
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    drawn = ["countdown-tiny", "countdown"]
    kept = [*SWEEP[1:], "--temperatures", "0.2,0.5", "-o", "kept"]
    cases = [
        ([*drawn, "--temperatures", "0.5"], "needs two temperatures at least, got --temperatures 0.5"),
        ([*drawn, "--temperatures", "0,1"], "takes temperatures above 0, got 0"),
        ([*drawn, "--temperatures", "0.5,-1"], "above 0, got -1"),
        ([*drawn, "--temperatures", "low,high"], "takes numbers like 0.4,0.8,1.2, got 'low,high'"),
        ([*drawn, "--temperatures", "0.5,0.5,1"], "names one twice"),
        ([*drawn, "-n", "8", "--k", "1,16"], "--k 16 is more than the 8 samples"),
        ([*drawn, "--k", "0,1"], "--k takes numbers from 1 up"),
        ([*drawn, "--k", "few"], "--k takes numbers like 1,4,16, got 'few'"),
        ([*drawn, "--budgets", "0"], "--budgets takes numbers above 0"),
        ([*drawn, "--split", "tset"], "no split 'tset', did you mean 'test'?"),
        (["countdown-tiny"], "needs a model and a task, got countdown-tiny"),
        (["countdown-tiny", "seed=1"], "needs a model and a task"),
        ([cold, warm], "for pools give --pools"),
        ([*kept, "--split", "test"], "kept/T0.5.parquet was drawn with split 'validation', not 'test'"),
        ([*kept, "--verifier", "oracle"], "verifier 'mine.py:short', not 'oracle'"),
        ([*kept, "-n", "8"], "num_samples 16, not 8"),
        (["--pools", cold], "two temperatures at least, got 1"),
        (["--pools", cold, cold], "Two pools are of temperature 0.5"),
        (["--pools", cold, "absent.parquet"], "no pool at absent.parquet"),
        (["--pools", warm, greedy], "greedy.parquet was drawn at temperature 0; a sweep takes temperatures above 0"),
        (["--pools", warm, silent], "silent.parquet does not say at which temperature"),
        (["--pools", warm, "rows.jsonl"], "rows.jsonl does not say at which temperature"),
        (["--pools", warm, foreign], "differ in model ('countdown-tiny' and 'other')"),
        (["--pools", warm, "halved.parquet"], "temperatures 1 and 0.5 are of different problems"),
        (["--pools", cold, warm, "--k", "1,32"], "--k 32 is more than the 16 samples"),
        (["--pools", cold, warm, "--budgets", "3"], "3 tokens is less than one completion takes"),
        (["--pools", cold, warm, "-o", "file/new"], "Cannot write the numbers file/new"),
    ]
    for (arguments, message), done in zip(
        cases, run_many(tmp_path, [["sweep", *arguments] for arguments, _ in cases], columns=140), strict=True
    ):
        assert done.returncode == 2, (arguments, done.stderr)
        lines = done.stderr.strip().splitlines()
        assert lines[-1].startswith("error: "), (arguments, done.stderr)
        assert message in lines[-1], arguments
        assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before, "nothing was left behind"
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["T0.5.parquet"]

    (done,) = run_many(
        tmp_path, [["sweep", "--pools", *reversed(pools), "-o", "again", "--budgets", "40,80"]], columns=140
    )
    assert done.returncode == 0, done.stderr
    for name in ("grid.csv", "fit.csv", "best_n.csv"):
        assert len(rows(tmp_path / "again" / name)) == len(rows(source / name))
    for ours, theirs in zip(rows(tmp_path / "again" / "grid.csv"), rows(source / "grid.csv"), strict=True):
        assert float(ours["value"]) == pytest.approx(float(theirs["value"]))
    assert [float(row["tokens"]) for row in rows(tmp_path / "again" / "budgets.csv")] == [40, 80]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,0.5", [0.5, 1.0]),
        ("0.2, 0.4, ..., 1.0", [0.2, 0.4, 0.6, 0.8, 1.0]),
        ("0.2,0.4,…,0.6", [0.2, 0.4, 0.6]),
        ("0.7,1.0,...,1.3", [0.7, 1.0, 1.3]),
    ],
)
def test_temperatures_are_read(text: str, values: list[float]) -> None:
    assert parse_temperatures(text) == values


@pytest.mark.parametrize("text", ["0.2,0.4,...,0.9", "0.4,0.2,...,1", "0.4,0.4,...,1", "1,...,2", "", "nan,1", "inf,1"])
def test_what_is_no_list_of_temperatures_is_refused(text: str) -> None:
    with pytest.raises(BontuneError, match="--temperatures"):
        parse_temperatures(text)
