"""Which model of a run a suite measures: at a ruinous rate the untrained one is the best, and the last is another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError
from bontune.experiments.results import Results
from bontune.experiments.store import Store
from bontune.experiments.suite import load_suite
from bontune.pools.read import read_pool
from experiments.whole import run_whole

SUITE: dict[str, Any] = {
    "title": "Checkpoints",
    "base": "countdown",
    "metric": "pass@8",
    "seeds": 1,
    "evaluations": 2,
    "recipe": {
        "training": {"steps": 3, "prompts_per_step": 8, "warmup": 0, "first_step_kl": None, "device": "cpu"},
        "sampling": {"samples": 12},
        "kl": {"start": 0.0, "end": 0.0, "steps": 3, "delay": 0},
    },
    "measuring": {"samples": 8, "ks": [1, 8], "temperatures": [1.0], "validation_problems": 12, "test_problems": 12},
    "arms": {
        "base": {"label": "base model"},
        "rl": {"label": "RL", "recipe": {"objective": {"name": "rloo", "n": 1}}, "lr": [0.1], "select": "pass@1"},
    },
    "claims": [{"id": "rl", "claim": "R.", "a": "rl", "b": "base", "metric": "pass@8"}],
}


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_model_of_the_chosen_checkpoint_is_measured(checkpoint: str, tmp_path: Path) -> None:
    out = run_whole(tmp_path, SUITE | {"measuring": SUITE["measuring"] | {"checkpoint": checkpoint}})
    suite = load_suite(str(tmp_path / "suite.yaml"))
    results = Results(suite, Store(out, suite))
    base, trained = (results.by_seed(arm, "test", 1.0)[0].means() for arm in ("base", "rl"))
    assert base["pass@8"] > 0.2
    (trial,) = (results.store.trial(run) for run in results.runs("rl"))
    assert trial is not None
    kept = trial["kept"]["pass@1"]
    history = {row["step"]: row["pass@1"] for row in trial["history"]}
    assert history[3] < history[0] == max(history.values())
    assert (kept["step"], kept["value"]) == ((0, history[0]) if checkpoint == "best" else (3, history[3]))
    if checkpoint == "best":
        assert trained == base
    else:
        (pool,) = (tmp_path / "work").glob("rl*/pools/pass@1/test-T1.parquet")
        assert read_pool(pool).settings["model"].endswith("/model")
        assert trained["pass@8"] < base["pass@8"]
    text = (out / "README.md").read_text(encoding="utf-8")
    assert ("of each run the last step is measured" in text) == (checkpoint == "last")
    changed = SUITE["measuring"] | {"checkpoint": "last" if checkpoint == "best" else "best"}
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE | {"measuring": changed}))
    other = load_suite(str(tmp_path / "suite.yaml"))
    with pytest.raises(BontuneError, match="other settings"):
        Store(out, other).check_all()
