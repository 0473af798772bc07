"""The chance level in suites: it is measured, shown where every run of an arm has it, and missed nowhere else."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bontune.experiments.claims import judge
from bontune.experiments.figures_curves import success_figure
from bontune.experiments.results import Results, arm_rows
from bontune.experiments.statement import statement
from bontune.experiments.store import BASE_SELECT, Measurement, Store, SuiteRun
from bontune.experiments.suite import BASE
from bontune.experiments.work import evaluate
from bontune.metrics import chance_parts
from bontune.metrics.evaluation import Evaluation
from bontune.pools.pool import Pool
from experiments.synthetic import NUM_PROBLEMS, put_trial, small

RUNS = [SuiteRun(arm=BASE), SuiteRun(arm="ours", lr=1e-3), SuiteRun(arm="ours", lr=1e-3, seed=1)]
AT_1 = Measurement(data="test", temperature=1.0)


def filled(folder: Path, with_chance: list[SuiteRun], level: float = 0.2) -> tuple[Results, dict[SuiteRun, np.ndarray]]:
    """A suite with the base model and two runs of one arm; the parts of some of them in the chance level."""
    suite, store = small(folder)
    rng = np.random.default_rng(1)
    for lr in suite.rates("ours"):
        put_trial(store, SuiteRun(arm="ours", lr=lr), pass_1=0.1, pass_8=0.5 - lr)
    parts = {}
    for run in RUNS:
        solved = rng.random(NUM_PROBLEMS)
        values = {"pass@1": solved / 2, "pass@8": solved, "best@1": solved / 2, "best@8": solved}
        if run in with_chance:
            parts[run] = (level * rng.uniform(0.5, 1.5, NUM_PROBLEMS)).astype(np.float32).astype(np.float64)
            values |= {"chance@1": parts[run] / 4, "chance@8": parts[run]}
        found = Evaluation(problem_ids=[f"p{i}" for i in range(NUM_PROBLEMS)], values=values)
        store.write_measurement(run, BASE_SELECT if run.arm == BASE else "pass@8", AT_1, found)
    return Results(suite, store), parts


def text_of(results: Results, folder: Path) -> str:
    return statement(results, judge(results), [], folder, "bontune reproduce small")


def test_the_statement_tables_and_figure_hold_the_level(tmp_path: Path) -> None:
    results, parts = filled(tmp_path, RUNS)
    text = text_of(results, tmp_path)
    assert "| arm | pass@8, T = 1 | chance@8, T = 1 | above chance, points |" in text
    level = 100 * np.mean([parts[RUNS[1]].mean(), parts[RUNS[2]].mean()])
    (line,) = [line for line in text.splitlines() if line.startswith("| ours |") and line.count("|") == 5]
    passed, chance, above = (float(cell.split()[0]) for cell in line.split("|")[2:5])
    assert chance == pytest.approx(level, abs=0.051)
    assert above == pytest.approx(passed - chance, abs=0.11)
    rows = {(row["arm"], row["metric"]): row["value"] for row in arm_rows(results)}
    assert rows["ours", "chance@8"] == pytest.approx(level)
    plot = success_figure(results)
    assert plot is not None
    written = plot.write(tmp_path)
    assert "dashed: what guessing solves" in written.caption
    (row,) = [row for row in csv.DictReader(written.csv.open()) if row["metric"] == "chance@8"]
    assert row["arm"] == BASE
    assert float(row["fraction"]) == pytest.approx(parts[RUNS[0]].mean(), abs=1e-6)


@pytest.mark.parametrize(("with_chance", "level"), [([], 0.2), ([RUNS[1]], 0.2), (RUNS, 0.0001)])
def test_pieces_without_it_are_as_they_were(tmp_path: Path, with_chance: list[SuiteRun], level: float) -> None:
    """None, one seed of two, or nearly nothing: neither the statement nor the figure mentions it."""
    results, _ = filled(tmp_path, with_chance, level)
    assert "chance@" not in text_of(results, tmp_path)
    plot = success_figure(results)
    assert plot is not None
    assert "dashed" not in plot.caption
    assert all(row["metric"].startswith("pass@") for row in plot.rows)
    assert ("ours", "chance@8") in {(row["arm"], row["metric"]) for row in arm_rows(results)} or with_chance != RUNS


def test_a_measurement_has_it_and_packed_pieces_keep_it(tmp_path: Path) -> None:
    suite, store = small(tmp_path, "measuring.other_verifiers={}")
    rng = np.random.default_rng(0)
    references = [str(x) for x in rng.integers(4, size=12)]
    answers = [[str(x) for x in row] for row in rng.integers(6, size=(12, 16))]
    rewards = [[float(a == r) for a in row] for row, r in zip(answers, references, strict=True)]
    columns = {"answer": answers, "reward": rewards, "reference": [[r] * 16 for r in references]}
    pool = Pool(problem_ids=[f"p{i}" for i in range(12)], columns=columns, settings={"task": "gsm8k"})
    found = evaluate(suite, pool, tmp_path / "pool.parquet")
    parts = chance_parts(answers, references, [1, 8])
    np.testing.assert_array_equal(found.values["chance@8"], parts[8])
    assert not any(name.startswith("above") for name in found.values), "it follows from the two"
    store.write_measurement(RUNS[0], BASE_SELECT, AT_1, found)
    store.pieces.pack()
    read = Store(tmp_path / "out", suite).measured(RUNS[0], BASE_SELECT, AT_1)
    assert read is not None
    for k in (1, 8):
        np.testing.assert_array_equal(read.values[f"chance@{k}"], parts[k].astype(np.float32))
