"""Contract of measuring a run under the verifier that learned along in it, on a run too short for that verifier to
change: then its own verifier is the shipped one, and every number has a twin.

1. `own:` metrics are those of the suite's verifier, of the run and of the base model;
2. a claim `against` another metric of the same run is the run minus that metric, paired;
3. tables, claims and statement are written with them.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from bontune.experiments.figures_curves import refit_figure
from bontune.experiments.results import Results
from bontune.experiments.store import Store
from bontune.experiments.suite import Suite, load_suite
from experiments.whole import run_whole

SUITE: dict[str, Any] = {
    "title": "Own",
    "base": "countdown",
    "metric": "pass@8",
    "seeds": 2,
    "evaluations": 4,
    "recipe": {
        "training": {"steps": 8, "prompts_per_step": 16, "warmup": 0, "first_step_kl": None, "device": "cpu"},
        "sampling": {"samples": 16},
        "kl": {"start": 0.1, "end": 0.1, "steps": 8, "delay": 0},
    },
    "measuring": {
        "samples": 16,
        "ks": [1, 8],
        "temperatures": [1.0],
        "validation_problems": 24,
        "test_problems": 12,
        "harder": {"hard": True},
        "harder_problems": 4,
        "verifier": "countdown-verifier",
    },
    "arms": {
        "base": {"label": "base model"},
        "along": {
            "label": "learns along",
            "recipe": {
                "objective": {"name": "rloo", "n": 1},
                "verifier": {"name": "reward_model", "path": "countdown-verifier", "refit": {"every": 4}},
            },
            "lr": [8e-4],
            "select": "pass@1",
        },
        "still": {
            "label": "stays as it is",
            "recipe": {
                "objective": {"name": "rloo", "n": 1},
                "verifier": {"name": "reward_model", "path": "countdown-verifier"},
            },
            "lr": [8e-4],
            "select": "pass@1",
            "seeds": 1,
        },
        "other": {
            "label": "another",
            "recipe": {"objective": {"name": "rloo", "n": 1}},
            "lr": [8e-4],
            "select": "pass@1",
            "seeds": 1,
        },
    },
    "claims": [
        {"id": "shipped", "claim": "S.", "a": "along", "b": "base", "metric": "best@8", "at_one_temperature": True},
        {
            "id": "own",
            "claim": "O.",
            "a": "along",
            "b": "base",
            "metric": "own:best@8",
            "against": "own:base:best@8",
            "at_one_temperature": True,
        },
    ],
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_whole(tmp_path_factory.mktemp("own"), SUITE)


def rows(out: Path, name: str) -> list[dict[str, str]]:
    with open(out / name, newline="") as file:
        return list(csv.DictReader(file))


def test_own_metrics_are_those_of_the_same_verifier(out: Path) -> None:
    suite = load_suite(str(out.parent / "suite.yaml"))
    results = Results(suite, Store(out, suite))
    own = {arm: results.by_seed(arm, "test", 1.0) for arm in ("along", "base")}
    for seed in (0, 1):
        found, base = (own[arm][place].means() for arm, place in (("along", seed), ("base", 0)))
        for k in (1, 8):
            assert found[f"own:best@{k}"] == pytest.approx(found[f"best@{k}"])
            assert found[f"own:base:best@{k}"] == pytest.approx(base[f"best@{k}"])
    assert own["along"][1].means()["best@8"] != own["base"][0].means()["best@8"], "it is another model"


def test_a_claim_against_another_metric_of_the_run(out: Path) -> None:
    shipped, own = json.loads((out / "claims.json").read_text())
    assert own["measured"] == pytest.approx(shipped["measured"], abs=0.01)
    assert own["low"] < own["measured"] < own["high"]
    assert (own["seeds"], own["own_temperatures"]) == ([2, 2], [1.0, 1.0])


def test_everything_is_written(out: Path) -> None:
    harder = {row["metric"] for row in rows(out, "arms.csv") if row["data"] == "harder"}
    assert "own:best@8" in harder
    assert "own:base:best@8" not in harder, "the base model is scored on the test problems alone"
    statement = (out / "README.md").read_text()
    assert "| learns along | 2 |" in statement.partition("## From which k on")[2]
    assert (out / "report.html").is_file()


def _arms_of(axes: Axes) -> list[Any]:
    return [
        line for line in axes.get_lines() if len(np.atleast_1d(line.get_xdata())) == 2 and line.get_marker() != "None"
    ]


def _bands_of(axes: Axes) -> list[Any]:
    return list(axes.collections)


def test_the_figure_shows_both_verifiers_and_the_same_training_without(out: Path) -> None:
    found = rows(out / "figures", "refit.csv")
    own = {row["k"]: row for row in found if row["selected_by"] == "own"}
    shipped = {row["k"]: row for row in found if row["selected_by"] == "countdown-verifier" and row["arm"] == "along"}
    assert own.keys() == shipped.keys() == {"1", "8"}
    for k, row in own.items():  # the verifier did not change in so short a run
        assert float(row["difference_points"]) == pytest.approx(float(shipped[k]["difference_points"]), abs=1e-3)
        assert float(row["low_points"]) < float(row["difference_points"]) < float(row["high_points"])
    assert {row["arm"] for row in found} == {"along", "still"}, "an arm for another verifier is not in it"
    suite = Suite.model_validate(SUITE)
    drawing = refit_figure(Results(suite, Store(out, suite)))
    assert drawing is not None
    assert "of arms with 2 seeds" in drawing.caption
    lines, bands = ([len(kind(axes)) for axes in drawing.figure.axes] for kind in (_arms_of, _bands_of))
    assert (lines, bands) == ([1, 2], [1, 1]), "an arm with fewer seeds has no band"
    assert (out / "figures" / "refit.png").is_file()
