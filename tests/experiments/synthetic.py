"""Pieces of a suite with made-up numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bontune.experiments.store import BASE_SELECT, Measurement, Store, SuiteRun
from bontune.experiments.suite import BASE, Suite, load_suite
from bontune.metrics.evaluation import Evaluation

NUM_PROBLEMS = 40
SMALL: dict[str, Any] = {
    "title": "Small",
    "base": "countdown",
    "metric": "pass@8",
    "seeds": 3,
    "recipe": {"training": {"steps": 12}},
    "measuring": {
        "samples": 16,
        "ks": [1, 8],
        "temperatures": [0.6, 1.0],
        "test_problems": NUM_PROBLEMS,
        "other_verifiers": {"votes": "majority"},
    },
    "arms": {
        "base": {"label": "base model"},
        "ours": {"label": "ours", "lr": [1e-3, 2e-3], "select": "pass@8"},
        "rl": {"label": "RL", "recipe": {"objective": {"name": "rloo", "n": 1}}, "lr": [1e-3, 2e-3]},
        "kept": {"label": "RL by pass@8", "like": "rl", "select": "pass@8"},
        "half": {"label": "half", "recipe": {"training": {"steps": 6}}, "seeds": 2},
    },
}
SELECTS = {"base": [BASE_SELECT], "ours": ["pass@8"], "rl": ["pass@1", "pass@8"], "half": ["pass@1"]}


def small(folder: Path, *overrides: str, **changes: Any) -> tuple[Suite, Store]:
    """The suite, through a file as any other, and an empty store."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False), encoding="utf-8")
    suite = load_suite(str(path), overrides)
    return suite, Store(folder / "out", suite)


def trial_path(store: Store, run: SuiteRun) -> Path:
    """The single file of a run's account."""
    return store.pieces.path(store.trial_name(run))


def measurement_path(store: Store, run: SuiteRun, select: str, what: Measurement) -> Path:
    """The single file of a measurement."""
    return store.pieces.path(store.measurement_name(run, select, what))


def put_trial(store: Store, run: SuiteRun, **kept: float) -> None:
    """How a run went: the best value by each metric, at the last step."""
    account = {
        "arm": run.arm,
        "lr": run.lr,
        "seed": run.seed,
        "steps": 12,
        "generations": 12 * 32 * 32,
        "versions": {},
        "history": [],
        "kept": {name.replace("_", "@"): {"step": 12, "value": v} for name, v in kept.items()},
    }
    store.write_trial(run, account)


def put(
    store: Store,
    run: SuiteRun,
    data: str,
    t: float,
    values: np.ndarray,
    *,
    select: str | None = None,
    order: list[int] | None = None,
) -> np.ndarray:
    """A measurement: all metrics have these values, and 0.001 more for each further one; problems p0, p1, …"""
    names = ["pass@1", "pass@8", "best@1", "best@8", "votes:best@1", "votes:best@8"]
    what = Measurement(data=data, temperature=t)
    columns = {name: values + 0.001 * i for i, name in enumerate(names)}
    ids = [f"p{i}" for i in range(len(values))]
    if order is not None:
        ids, columns = [ids[i] for i in order], {name: v[order] for name, v in columns.items()}
    found = Evaluation(problem_ids=ids, values=columns)
    for chosen in SELECTS[run.arm] if select is None else [select]:
        store.write_measurement(run, chosen, what, found)
    return values


def fill(store: Store, rates: dict[str, float], num_seeds: dict[str, int]) -> dict[tuple[str, int, float], np.ndarray]:
    """Everything there is to measure of some arms: (arm, seed, T) → values of pass@1 on the test problems."""
    rng = np.random.default_rng(0)
    made: dict[tuple[str, int, float], np.ndarray] = {}
    for place, arm in enumerate((BASE, *rates)):
        for seed in range(num_seeds.get(arm, 1)):
            run = SuiteRun(arm=arm, lr=rates[arm], seed=seed) if arm != BASE else SuiteRun(arm=BASE)
            for t in (0.6, 1.0):
                noise = rng.random(NUM_PROBLEMS) * 0.5
                put(store, run, "test", t, noise + 0.05 * place + 0.01 * seed)
                made[arm, seed, t] = (noise + 0.05 * place + 0.01 * seed).astype(np.float32).astype(np.float64)
                if seed == 0:
                    put(store, run, "validation", t, noise[:10])
    return made
