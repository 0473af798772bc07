"""`bontune adaptive` as a user meets it: on pools that were really drawn, and then in use with the score it found."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bontune.cli import main
from bontune.metrics import adaptive_best_of_n, best_of_k
from bontune.pools.read import read_pool


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["bontune", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pools")
    with pytest.MonkeyPatch.context() as patch:
        for verifier in ("countdown-verifier", "majority"):
            drawn = ["sample", "countdown-tiny", "countdown", "-n", "16", "--limit", "40", "--verifier", verifier]
            assert run([*drawn, "-o", str(folder / f"{verifier}.parquet")], patch) == 0
    return folder


def test_its_numbers_are_the_pools(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "countdown-verifier.parquet"
    assert run(["adaptive", str(path), "-n", "8", "--round", "2", "-o", str(tmp_path)], monkeypatch) == 0
    printed = capsys.readouterr().out
    pool = read_pool(path)
    rewards, scores = np.array(pool.rewards()), np.array(pool.scores())
    (row,) = csv.DictReader((tmp_path / "adaptive.csv").open())
    reward, draws = adaptive_best_of_n(rewards, scores, 8, float(row["stop_at"]), round_size=2)
    assert row["k"] == "4"
    assert float(row["reward"]) == pytest.approx(reward.mean())
    assert float(row["draws"]) == pytest.approx(draws.mean())
    three, four = (best_of_k(rewards, scores, k).mean() for k in (3, 4))
    assert 3 < draws.mean() <= 4
    assert float(row["fixed"]) == pytest.approx(three + (draws.mean() - 3) * (four - three))
    assert (tmp_path / "adaptive.png").stat().st_size > 10_000
    assert f"{100 * reward.mean():.1f}" in printed


def test_the_score_in_use(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["answer", "countdown-tiny", "--verifier", "countdown-verifier", "--max-new-tokens", "24", "--json"]
    stopping = ["-n", "12", "--stop-at", "-100", "--round", "3"]
    assert run([*asked, *stopping, "11,13,7,1:18="], monkeypatch) == 0
    assert len(json.loads(capsys.readouterr().out)["candidates"]) == 3


@pytest.mark.parametrize(
    ("pools", "options", "message"),
    [
        (["majority"], [], "are votes"),
        (["countdown-verifier"] * 3, [], "got 3"),
        (["countdown-verifier"], ["-n", "32"], "16 samples per problem, got 32"),
        (["countdown-verifier"], ["-n", "4", "--round", "4"], "nothing to stop"),
        (["countdown-verifier"], ["-n", "8", "--round", "4", "--k", "2"], "between a round of 4 and N = 8"),
        (["no-such"], [], "no pool"),
    ],
)
def test_what_is_refused(
    folder: Path,
    tmp_path: Path,
    pools: list[str],
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = [str(folder / f"{name}.parquet") for name in pools]
    assert run(["adaptive", *paths, *options, "-o", str(tmp_path / "out")], monkeypatch) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
