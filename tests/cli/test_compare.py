"""`bontune compare` as a user meets it: real runs, real pools, a real kill.

1. What it prints and writes is what the pools it left give, by a second computation; what is found comes first.
2. Temperatures of their own are chosen on the validation pools.
3. Run again it draws nothing; after a kill it goes on and ends the same; a run that was trained again is drawn anew.
4. Whatever a user can get wrong is one sentence, status 2, and nothing is drawn.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import processes
from commands import Done, run_many

NUM_PROBLEMS, NUM_SAMPLES = 24, 8
SMALL = [
    "training.device=cpu",
    "training.steps=3",
    "training.prompts_per_step=4",
    "sampling.samples=8",
    "training.lr=1e-3",
    "training.warmup=1",
    "training.first_step_kl=null",
    "kl.delay=0",
    "eval.every=0",
    "training.checkpoint_every=0",
]
TRAIN = [
    ["train", "countdown", "run=runs/a", "objective.n=4", *SMALL],
    ["train", "countdown", "run=runs/b", "objective.n=4", "objective.name=rloo", "seed=1", *SMALL],
]
DRAWN = ["--limit", str(NUM_PROBLEMS), "-n", str(NUM_SAMPLES)]
COMPARE = ["compare", "runs/a", "runs/b/", "countdown-tiny", *DRAWN, "-o", "out"]
SWEPT = ["compare", "runs/a", "runs/b", *DRAWN, "-t", "0.5,1.2", "--verifier", "mine.py:short", "-o", "swept"]
VERIFIER = "def short(problem, completion):\n    return -len(completion)\n"

KILLED = """
import os, signal, sys
import bontune.cli
from bontune.pools.journal import Journal
append, count = Journal.append, 0
def counted(self, entry):
    global count
    append(self, entry)
    count += 1
    if count == 36:  # the 24 problems of the first run, 12 of the second
        os.kill(os.getpid(), signal.SIGKILL)
Journal.append = counted
sys.argv = ["bontune", *sys.argv[1:]]
bontune.cli.main()
"""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Done]]:
    """Two runs, compared at one temperature with the model they began with, and at two with a verifier."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "mine.py").write_text(VERIFIER)
    done = run_many(folder, [*TRAIN, COMPARE, SWEPT], columns=140)
    for result in done:
        assert result.returncode == 0, result.stderr
    return folder, done[2:]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def drawn(out: Path, name: str, split: str = "test", temperature: str = "1.0") -> dict[str, list[dict[str, Any]]]:
    """Problem → its rows, read without the package."""
    (path,) = (out / "pools").glob(f"{name}-*-{split}-T{temperature}.parquet")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault(row["problem_id"], []).append(row)
    assert {len(of) for of in found.values()} == {NUM_SAMPLES}
    return found


def passes(of: list[dict[str, Any]], k: int) -> float:
    num_wrong = sum(row["reward"] == 0 for row in of)
    return 1 - math.comb(num_wrong, k) / math.comb(len(of), k)


def picks(of: list[dict[str, Any]], k: int) -> float:
    """By enumeration: the shortest of k, any of those that are equally short."""
    values = []
    for subset in itertools.combinations(of, k):
        shortest = min(len(row["completion"]) for row in subset)
        values.append(np.mean([row["reward"] for row in subset if len(row["completion"]) == shortest]))
    return float(np.mean(values))


def check_row(row: dict[str, str], ours: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> None:
    """One row of the CSV against the pools."""
    metric, k = (passes if row["metric"] == "pass" else picks), int(row["k"])
    of = [p for p, samples in ours.items() if row["level"] in ("", str(samples[0]["level"]))]
    differences = np.array([metric(ours[p], k) - metric(theirs[p], k) for p in of])
    assert int(row["problems"]) == len(of)
    assert float(row["difference"]) == pytest.approx(differences.mean(), abs=1e-12)
    assert float(row["run_value"]) == pytest.approx(np.mean([metric(ours[p], k) for p in of]))
    assert float(row["reference_value"]) == pytest.approx(np.mean([metric(theirs[p], k) for p in of]))
    if row["level"] and len(of) < 10:
        assert (row["low"], row["high"], row["verdict"]) == ("", "", "unclear")
        return
    means = differences[np.random.default_rng(99).integers(len(of), size=(20_000, len(of)))].mean(-1)
    room = 0.15 * (np.quantile(means, 0.975) - np.quantile(means, 0.025)) + 1e-9
    assert float(row["low"]) == pytest.approx(np.quantile(means, 0.025), abs=room)
    assert float(row["high"]) == pytest.approx(np.quantile(means, 0.975), abs=room)


def test_what_is_written_is_what_the_pools_give(compared: tuple[Path, list[Done]]) -> None:
    folder, (done, _) = compared
    out = folder / "out"
    names = {"runs/a": "runs-a", "runs/b": "runs-b", "countdown-tiny": "countdown-tiny"}
    pools = {name: drawn(out, stem) for name, stem in names.items()}
    assert {path.name for path in out.iterdir()} == {"pools", "comparison.csv", "comparison.json", "pass.png"}
    assert len(list((out / "pools").iterdir())) == 3
    assert [row["prompt"] for of in pools["runs/a"].values() for row in of] == [
        row["prompt"] for of in pools["runs/b"].values() for row in of
    ]
    table = rows(out / "comparison.csv")
    levels = sorted({of[0]["level"] for of in pools["runs/a"].values()})
    assert [(row["run"], row["metric"], row["k"], row["level"]) for row in table] == [
        *((name, "pass", str(k), "") for name in list(names)[1:] for k in (1, 2, 4, 8)),
        *((name, "pass", "4", str(level)) for name in list(names)[1:] for level in levels),
    ]
    for row in table:
        assert (row["reference"], row["run_temperature"]) == ("runs/a", "1.0")
        check_row(row, pools[row["run"]], pools["runs/a"])

    tree = json.loads((out / "comparison.json").read_text())
    assert (tree["reference"], tree["split"], tree["main_k"], tree["k"]) == ("runs/a", "test", 4, [1, 2, 4, 8])
    assert (tree["task"], tree["verifier"], tree["temperatures"]) == ("countdown", "oracle", [1.0])
    (found,) = tree["comparisons"]
    assert [d["difference"] for d in found["differences"]] == [float(row["difference"]) for row in table]
    assert list(found["curves"]["pass"]) == list(names)
    assert found["curves"]["pass"]["runs/b"]["value"][2] == pytest.approx(
        np.mean([passes(of, 4) for of in pools["runs/b"].values()])
    )
    assert done.stdout.startswith("At N = 4 "), "the finding comes first"
    assert " ".join(done.stdout.split()).startswith(" ".join(found["findings"]))
    assert "pass@4 by difficulty" in done.stdout
    assert "b − a" in done.stdout


def test_own_temperatures_come_from_the_validation_pools(compared: tuple[Path, list[Done]]) -> None:
    folder, (_, done) = compared
    out, temperatures = folder / "swept", ("0.5", "1.2")
    pools = {
        (name, split, t): drawn(out, name.replace("/", "-"), split, t)
        for name in ("runs/a", "runs/b")
        for split in ("test", "validation")
        for t in temperatures
    }
    assert not set(pools["runs/a", "test", "0.5"]) & set(pools["runs/a", "validation", "0.5"])
    assert len(list((out / "pools").iterdir())) == 8
    table = rows(out / "comparison.csv")
    settings = list(dict.fromkeys(row["setting"] for row in table))
    assert settings == ["each at its own best temperature", "at T = 0.5", "at T = 1.2"]
    for row in table:
        metric = passes if row["metric"] == "pass" else picks
        if row["setting"] == settings[0]:
            for name, given in (("runs/a", row["reference_temperature"]), ("runs/b", row["run_temperature"])):
                means = {
                    t: np.mean([metric(of, int(row["k"])) for of in pools[name, "validation", t].values()]).round(12)
                    for t in temperatures
                }
                assert given == max(temperatures, key=means.__getitem__), row
        else:
            assert row["run_temperature"] == row["reference_temperature"] == row["setting"].removeprefix("at T = ")
        ours = pools["runs/b", "test", row["run_temperature"]]
        check_row(row, ours, pools["runs/a", "test", row["reference_temperature"]])
    assert {(row["metric"], row["level"] != "") for row in table} == {("pass", False), ("best", False), ("best", True)}
    assert done.stdout.startswith("Each at its own best temperature, at N = 4, picked by mine.py:short, ")
    assert "chosen on the split validation, the differences are of test" in " ".join(done.stdout.split())
    where = ("own_T", "T0.5", "T1.2")
    assert {path.name for path in out.glob("*.png")} == {f"{m}_{at}.png" for m in ("pass", "best") for at in where}


def test_pools_are_kept_and_a_killed_comparison_goes_on(compared: tuple[Path, list[Done]], tmp_path: Path) -> None:
    shutil.copytree(compared[0] / "runs", tmp_path / "runs")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    killed = processes.run(KILLED, *COMPARE, cwd=tmp_path, env=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = sorted(path.name for path in (tmp_path / "out" / "pools").iterdir() if not path.name.endswith(".lock"))
    assert [name.partition("T1.0")[2] for name in left] == [".parquet", ".parquet.partial.jsonl"]
    first = next((tmp_path / "out" / "pools").glob("*.parquet"))
    drawn_at = first.stat().st_mtime_ns

    (done,) = run_many(tmp_path, [COMPARE], columns=140)
    assert done.returncode == 0, done.stderr
    assert f"{first.relative_to(tmp_path)} is already there" in done.stderr
    assert "12 of 24 problems are already there" in done.stderr
    assert done.stdout == compared[1][0].stdout
    for name in ("comparison.csv", "comparison.json"):
        assert (tmp_path / "out" / name).read_bytes() == (compared[0] / "out" / name).read_bytes()
    assert first.stat().st_mtime_ns == drawn_at


def rewritten(source: Path, target: Path, **changed: Any) -> str:
    """A copy of a pool with other settings; returns its name."""
    table = pq.read_table(source)
    known = json.loads(table.schema.metadata[b"bontune"]) | changed
    pq.write_table(table.replace_schema_metadata({b"bontune": json.dumps(known).encode()}), target)
    return target.name


def as_jsonl(path: Path, rewards: list[list[float]], **columns: Any) -> str:
    lines = [
        json.dumps({"problem_id": str(i), "reward": reward, **columns})
        for i, row in enumerate(rewards)
        for reward in row
    ]
    path.write_text("\n".join(lines))
    return path.name


def test_pools_are_compared_as_they_are_and_a_run_trained_again_is_drawn_anew(
    compared: tuple[Path, list[Done]], tmp_path: Path
) -> None:
    source = compared[0] / "out" / "pools"
    ours, theirs = (rewritten(next(source.glob(f"runs-{n}-*")), tmp_path / f"{n}.parquet") for n in "ab")
    warm = rewritten(tmp_path / theirs, tmp_path / "warm.parquet", temperature=1.4)
    shutil.copytree(compared[0] / "runs" / "b", tmp_path / "b")
    rng = np.random.default_rng(0)
    binary = as_jsonl(tmp_path / "binary.jsonl", rng.integers(0, 2, (12, 4)).astype(float).tolist(), level="hard")
    graded = as_jsonl(tmp_path / "graded.jsonl", rng.random((12, 4)).tolist())
    commands = [
        ["compare", ours, theirs, "-o", "pools"],
        ["compare", ours, "b", *DRAWN, "-o", "mixed"],
        ["compare", ours, warm, "-o", "warm"],
        ["compare", binary, graded, "-o", "graded"],
        COMPARE,
    ]
    shutil.copytree(compared[0] / "out", tmp_path / "out")
    shutil.copytree(compared[0] / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "b" / "model")  # as if trained again: other weights under the same name
    shutil.copytree(tmp_path / "runs" / "a" / "model", tmp_path / "runs" / "b" / "model")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pools").iterdir()}
    done = run_many(tmp_path, commands, columns=140)
    for result in done:
        assert result.returncode == 0, result.stderr
    wanted = [row for row in rows(compared[0] / "out" / "comparison.csv") if row["run"] == "runs/b"]
    for name in ("pools", "mixed"):  # drawn under another name, the same samples: the seeds do not hang on the name
        found = rows(tmp_path / name / "comparison.csv")
        assert [row["difference"] for row in found] == [row["difference"] for row in wanted]
        assert [row["low"] for row in found] == [row["low"] for row in wanted]
    assert not (tmp_path / "pools" / "pools").exists(), "nothing was drawn"
    assert "a.parquet and warm.parquet were drawn with temperature 1.0 and 1.4" in done[2].stderr
    assert {row["metric"] for row in rows(tmp_path / "graded" / "comparison.csv")} == {"max"}
    assert {row["level"] for row in rows(tmp_path / "graded" / "comparison.csv")} == {""}
    assert (tmp_path / "graded" / "max.png").is_file()
    assert "graded.jsonl scores" in done[3].stdout or "no clear difference" in done[3].stdout

    assert done[4].stderr.count("is already there") == 2
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pools").iterdir()}
    assert kept.items() <= now.items()
    assert len(now) == len(kept) + 1
    equal = [row for row in rows(tmp_path / "out" / "comparison.csv") if row["run"] == "runs/b"]
    assert {float(row["difference"]) for row in equal} == {0.0}, "the same weights, seeds and problems"


def test_what_is_refused(compared: tuple[Path, list[Done]], tmp_path: Path) -> None:
    source = compared[0]
    shutil.copytree(source / "runs", tmp_path / "runs")
    shutil.copytree(source / "out", tmp_path / "out")
    for name, change in (("harder", "task: {name: countdown, hard: true}"), ("other", "task: {name: programs}")):
        shutil.copytree(source / "runs" / "a" / "model", tmp_path / "runs" / name / "model")
        (tmp_path / "runs" / name / "recipe.yaml").write_text(change)
    (tmp_path / "runs" / "begun").mkdir()
    shutil.copy(source / "runs" / "a" / "recipe.yaml", tmp_path / "runs" / "begun")
    (tmp_path / "runs" / "torn" / "model").mkdir(parents=True)
    shutil.copy(source / "runs" / "a" / "recipe.yaml", tmp_path / "runs" / "torn")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (pool,) = (source / "out" / "pools").glob("runs-a-*")
    (tmp_path / "mine.py").write_text(VERIFIER)
    whole = rewritten(pool, tmp_path / "whole.parquet")
    other = rewritten(pool, tmp_path / "other.parquet", task="programs")
    pq.write_table(pq.read_table(pool).slice(0, 10 * NUM_SAMPLES), tmp_path / "halved.parquet")
    few = as_jsonl(tmp_path / "few.jsonl", [[0, 1], [1, 0]], reference="4")
    same = as_jsonl(tmp_path / "same.jsonl", [[0, 1], [1, 0]], reference="5")
    before = sorted(tmp_path.rglob("*"))
    cases = [
        (["runs/a"], "needs two runs, pools or models at least, got runs/a"),
        (["runs/a", "./runs/a/"], "runs/a is given twice"),
        (["runs/a", "runs/empty"], "runs/empty is neither a run (no recipe.yaml) nor a model (no config.json)"),
        (["runs/a", "runs/c"], "There is nothing at runs/c"),
        (["runs/a", "notes.txt"], "notes.txt is a file"),
        (["runs/a", "countdown-tny"], "did you mean 'countdown-tiny'?"),
        (["runs/a", "http://127.0.0.1:1/v1"], "is a server: draw a pool from it with `bontune sample`"),
        (["runs/a", "runs/begun"], "runs/begun holds no model/: the run is not finished; `bontune train runs/begun`"),
        (["runs/a", "runs/torn"], "runs/torn/model contains no model"),
        (["runs/a", "runs/harder"], "runs/a is of task countdown and runs/harder of countdown hard=True"),
        (["runs/a", "runs/other"], "runs/a is of task countdown and runs/other of programs"),
        (["countdown-tiny", whole], "countdown-tiny is a model, and no run is given"),
        (["runs/a", whole], "hold different problems (500 and 24, 24 of them in both)"),
        (["runs/a", other], "runs/a is of task countdown and other.parquet of programs"),
        (["runs/a", whole, "-t", "0.5,1"], "whole.parquet was drawn at one temperature"),
        (["runs/a", "runs/b", "-n", "8", "--k", "1,16"], "--k 16 is more than the 8 samples per problem"),
        (["runs/a", "runs/b", "--k", "0"], "--k takes numbers from 1 up"),
        (["runs/a", "runs/b", "-t", "0,1"], "--temperature takes numbers above 0, like 1.0 or 0.6,0.8,1.0, got '0,1'"),
        (["runs/a", "runs/b", "-t", "warm"], "got 'warm'"),
        (["runs/a", "runs/b", "-t", "1,1.0"], "--temperature names one twice"),
        (["runs/a", "runs/b", "--split", "tset"], "no split 'tset', did you mean 'test'?"),
        ([*COMPARE[1:], "--seed", "1"], "was drawn with seed 0, not 1: delete it or give another --out"),
        ([*COMPARE[1:], "--verifier", "mine.py:short"], "was drawn with verifier 'oracle', not 'mine.py:short'"),
        ([*COMPARE[1:], "--verifier", "orcale", "-o", "new"], "There is no verifier 'orcale', did you mean 'oracle'?"),
        ([whole, "absent.parquet"], "no pool at absent.parquet"),
        ([whole, "halved.parquet"], "hold different problems (24 and 10, 10 of them in both)"),
        ([whole, other], "whole.parquet is of task countdown and other.parquet of programs"),
        ([few, same], "the reference of 0 is '4' in one and '5' in the other"),
        ([whole, "halved.parquet", "--limit", "10"], "--limit is for runs and models"),
        ([few, few, "--k", "4"], "few.jsonl is given twice"),
        ([few, "same.jsonl", "--k", "4"], "--k 4 is more than the 2 samples"),
    ]
    for (arguments, message), done in zip(
        cases, run_many(tmp_path, [["compare", *arguments] for arguments, _ in cases], columns=140), strict=True
    ):
        assert done.returncode == 2, (arguments, done.stderr)
        lines = done.stderr.strip().splitlines()
        assert lines[-1].startswith("error: "), (arguments, done.stderr)
        assert message in lines[-1], (arguments, lines[-1])
        assert "Traceback" not in done.stderr
        assert not done.stdout
    assert sorted(tmp_path.rglob("*")) == before, "nothing was drawn"


def test_a_run_for_several_n_is_compared_and_marked_at_each(tmp_path: Path) -> None:
    several = ["train", "countdown", "run=runs/every", "objective.n={1: 0.5, 4: 0.5}", *SMALL]
    few = ["--limit", "6", "-n", str(NUM_SAMPLES)]
    trained, done = run_many(tmp_path, [several, ["compare", "runs/every", "countdown-tiny", *few, "-o", "out"]])
    assert (trained.returncode, done.returncode) == (0, 0), done.stderr
    assert done.stdout.startswith("At N = 4 ")
    tree = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (tree["trained_n"], tree["main_k"]) == ([[1, 4]], 4)
    with Image.open(tmp_path / "out" / "pass.png") as image:
        text = image.info["Description"]
    assert "marks N = 1, for which" in text
    assert "marks N = 4, for which" in text
