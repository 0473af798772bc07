"""Contract of suites that measure votes, on a run of a few steps:

1. majority@k of a run and of the base model is what its pool says;
2. an arm of an objective of votes chooses its checkpoint by it, any other arm may not;
3. claims, tables and pictures have it.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

import bontune.metrics as metrics
from bontune.base.errors import BontuneError
from bontune.experiments.figures_arms import frontier_figure
from bontune.experiments.results import Results
from bontune.experiments.store import Store
from bontune.experiments.suite import load_suite
from bontune.pools.read import read_pool
from experiments.whole import run_whole, written

SUITE: dict[str, Any] = {
    "title": "Votes",
    "base": "countdown",
    "metric": "majority@8",
    "seeds": 1,
    "evaluations": 2,
    "recipe": {
        "training": {"steps": 2, "prompts_per_step": 8, "warmup": 0, "first_step_kl": None, "device": "cpu"},
        "sampling": {"samples": 12},
        "kl": {"start": 0.1, "end": 0.1, "steps": 2, "delay": 0},
    },
    "measuring": {
        "samples": 16,
        "ks": [1, 8],
        "temperatures": [1.0],
        "validation_problems": 12,
        "test_problems": 20,
        "votes": True,
    },
    "arms": {
        "base": {"label": "base model"},
        "majority": {
            "label": "vote",
            "recipe": {"objective": {"name": "majority_vote", "n": 8}},
            "lr": [1e-4],
            "select": "majority@8",
        },
        "rl": {"label": "RL", "recipe": {"objective": {"name": "rloo", "n": 1}}, "lr": [1e-4], "select": "pass@1"},
    },
    "claims": [{"id": "vote", "claim": "V.", "a": "majority", "b": "base", "metric": "majority@8"}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_whole(tmp_path_factory.mktemp("votes"), SUITE).parent


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("arm", ["base", "majority", "rl"])
def test_votes_are_those_of_the_pool(folder: Path, arm: str) -> None:
    of_base = folder / "work" / "base" / "pools" / "model" / "test-T1.parquet"
    pool = read_pool(next((folder / "work").glob(f"{arm}*/pools/*/test-T1.parquet"), of_base))  # of step 0 where kept
    suite = load_suite(str(folder / "suite.yaml"))
    measured = Results(suite, Store(folder / "out", suite)).by_seed(arm, "test", 1.0)[0].means()
    for k in (1, 8):
        votes = metrics.majority_at_k(pool.columns["answer"], np.asarray(pool.rewards()), k)
        assert measured[f"majority@{k}"] == pytest.approx(votes.mean(), abs=1e-4)
    assert measured["majority@1"] == pytest.approx(measured["pass@1"], abs=1e-4)


def test_only_an_objective_of_votes_is_chosen_by_them(folder: Path, tmp_path: Path) -> None:
    (trial,) = (folder / "work").glob("majority*/metrics.jsonl")
    assert "majority@8" in trial.read_text()
    arms = SUITE["arms"] | {"rl": SUITE["arms"]["rl"] | {"select": "majority@8"}}
    with pytest.raises(BontuneError, match="names the metric 'majority@8'"):
        load_suite(str(written(tmp_path, SUITE | {"arms": arms})))
    measuring = SUITE["measuring"] | {"votes": False}
    with pytest.raises(BontuneError, match="names the metric 'majority@8'"):
        load_suite(str(written(tmp_path, SUITE | {"measuring": measuring})))


def test_claims_tables_and_pictures_have_them(folder: Path) -> None:
    (claim,) = json.loads((folder / "out" / "claims.json").read_text())
    assert claim["metric"] == "majority@8"
    assert claim["low"] <= claim["measured"] <= claim["high"]
    assert "majority@8, own best T" in (folder / "out" / "README.md").read_text()
    drawn = {(row["arm"], row["metric"]) for row in rows(folder / "out" / "figures" / "curves.csv")}
    assert {("base", "majority@8"), ("majority", "majority@8"), ("rl", "majority@8"), ("rl", "pass@8")} <= drawn
    by_n = rows(folder / "out" / "figures" / "n_prime.csv")
    assert {(row["n_prime"], row["arm"], row["metric"]) for row in by_n if row["k"] == "8"} == {
        ("1", "rl", "majority@8"),
        ("8", "majority", "majority@8"),
    }
    suite = load_suite(str(folder / "suite.yaml"))
    drawing = frontier_figure(Results(suite, Store(folder / "out", suite)))
    assert drawing is not None
    texts = [text.get_text() for text in drawing.figure.findobj(Text)]
    assert "problems solved by the most frequent answer of 8 (majority@8)" in texts
