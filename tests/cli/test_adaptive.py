"""`bontune adaptive` as a user meets it: on pools that were really drawn, and then in use with the score it found.

1. Table and CSV are what the pool gives.
2. The score ends the drawing of `bontune answer`.
3. Whatever a user can get wrong is one sentence, status 2, and leaves nothing behind.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bontune.metrics import adaptive_best_of_n, best_of_k
from bontune.pools.read import read_pool
from commands import Done, run_many

VERIFIERS = ("countdown-verifier", "majority", "oracle")
REFUSED = {
    "votes": (["majority"], [], "are votes"),
    "three": (["countdown-verifier"] * 3, [], "got 3"),
    "two verifiers": (["countdown-verifier", "oracle"], [], "by countdown-verifier and oracle.parquet by oracle"),
    "more than there are": (["countdown-verifier"], ["-n", "32"], "16 samples per problem, got 32"),
    "one round": (["countdown-verifier"], ["-n", "4", "--round", "4"], "nothing to stop"),
    "below a round": (
        ["countdown-verifier"],
        ["-n", "8", "--round", "4", "--k", "2"],
        "between a round of 4 and N = 8",
    ),
    "no pool": (["no-such"], [], "no pool"),
}


def adaptive(pools: list[str], *options: str) -> list[str]:
    return ["adaptive", *(f"{name}.parquet" for name in pools), *options]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pools")


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    drawn = ["sample", "countdown-tiny", "countdown", "-n", "16", "--limit", "40"]
    asked = ["answer", "countdown-tiny", "--verifier", "countdown-verifier", "--max-new-tokens", "24", "--json"]
    commands = {name: [*drawn, "--verifier", name, "-o", f"{name}.parquet"] for name in VERIFIERS}
    commands |= {
        "table": adaptive(["countdown-verifier"], "-n", "8", "--round", "2", "-o", "found"),
        "never wrong": adaptive(["oracle"], "-n", "8", "-o", "never-wrong"),
        "in use": [*asked, "-n", "12", "--stop-at", "-100", "--round", "3", "11,13,7,1:18="],
        "graded": adaptive(["graded"], "-n", "4", "-o", "graded"),
        "a round alone": [*asked, "-n", "12", "--round", "3", "11,13,7,1:18="],
    }
    commands |= {name: adaptive(pools, *options, "-o", "refused") for name, (pools, options, _) in REFUSED.items()}
    rng = np.random.default_rng(0)
    rows = [(str(p), float(rng.normal()), 0.5 * int(rng.integers(0, 7))) for p in range(20) for _ in range(8)]
    names, scores, rewards = zip(*rows, strict=True)
    pq.write_table(pa.table({"problem_id": names, "score": scores, "reward": rewards}), folder / "graded.parquet")
    return dict(zip(commands, run_many(folder, list(commands.values())), strict=True))


def test_its_numbers_are_the_pools(done: dict[str, Done], folder: Path) -> None:
    assert done["table"].returncode == 0, done["table"].stderr
    pool = read_pool(folder / "countdown-verifier.parquet")
    rewards, scores = np.array(pool.rewards()), np.array(pool.scores())
    (row,) = csv.DictReader((folder / "found" / "adaptive.csv").open())
    reward, draws = adaptive_best_of_n(rewards, scores, 8, float(row["stop_at"]), round_size=2)
    assert row["k"] == "4"
    assert float(row["reward"]) == pytest.approx(reward.mean())
    assert float(row["draws"]) == pytest.approx(draws.mean())
    three, four = (best_of_k(rewards, scores, k).mean() for k in (3, 4))
    assert 3 < draws.mean() <= 4
    assert float(row["fixed"]) == pytest.approx(three + (draws.mean() - 3) * (four - three))
    assert (folder / "found" / "adaptive.png").stat().st_size > 10_000
    assert f"{100 * reward.mean():.1f}" in done["table"].stdout


def test_a_verifier_that_is_never_wrong_stops_at_the_first_right_answer(done: dict[str, Done], folder: Path) -> None:
    assert "never wrong would save" in done["never wrong"].stderr
    pool = read_pool(folder / "oracle.parquet")
    _, draws = adaptive_best_of_n(np.array(pool.rewards()), np.array(pool.scores()), 8, 1.0)
    assert f"Stopping at a score of 1 takes {draws.mean():.1f} draws in place of 8" in done["never wrong"].stdout
    assert "stop at: no more is drawn for a problem once a sample has this score" in done["never wrong"].stdout
    rows = re.findall(r"^ *\d+ +([\d.]+) +[\d.]+ +", done["never wrong"].stdout, flags=re.MULTILINE)
    assert set(rows) == {"1"}, "no row for a score that every sample has"
    assert ", 0.0 points against" in " ".join(done["never wrong"].stdout.split())


def test_graded_rewards_are_numbers(done: dict[str, Done], folder: Path) -> None:
    said = done["graded"].stdout
    assert done["graded"].returncode == 0, done["graded"].stderr
    assert "reward" in said
    assert not re.search("points|, %", said)
    values = [float(row["reward"]) for row in csv.DictReader((folder / "graded" / "adaptive.csv").open())]
    assert max(values) > 1
    assert all(f"{value:.4g}" in said for value in values), "and no hundred times as much"


def test_the_score_in_use(done: dict[str, Done]) -> None:
    assert len(json.loads(done["in use"].stdout)["candidates"]) == 3
    assert (done["a round alone"].returncode, "give stop_at, too" in done["a round alone"].stderr) == (2, True)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, done: dict[str, Done], folder: Path) -> None:
    assert done[name].returncode == 2
    assert REFUSED[name][2] in " ".join(done[name].stderr.split())
    assert not (folder / "refused").exists()
