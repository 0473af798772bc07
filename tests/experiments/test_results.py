"""From pieces to choices and numbers, against numpy, whatever is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bontune.base.errors import BontuneError
from bontune.experiments.results import OWN, Results, arm_rows, choice_rows, provenance_rows
from bontune.experiments.store import Measurement, SuiteRun
from bontune.experiments.suite import BASE
from experiments.synthetic import NUM_PROBLEMS, SMALL, fill, measurement_path, put, put_trial, small

RATES = {"ours": 1e-3, "rl": 2e-3, "half": 3e-4}
SEEDS = {"ours": 3, "rl": 3, "half": 2}


def half_rate(folder: Path) -> float:
    return small(folder)[0].rates("half")[0]


def complete(folder: Path) -> tuple[Results, dict[tuple[str, int, float], np.ndarray]]:
    """Everything is there; rl has the higher rate by either metric."""
    suite, store = small(folder)
    rates = RATES | {"half": suite.rates("half")[0]}
    made = fill(store, rates, SEEDS)
    for arm, chosen in rates.items():
        for lr in suite.rates(arm):
            put_trial(store, SuiteRun(arm=arm, lr=lr), pass_1=0.1 + (lr == chosen), pass_8=0.1 + (lr == chosen))
    return Results(suite, store), made


# ---- choices ----


def test_the_learning_rate_is_chosen_by_what_the_arm_is_for(tmp_path: Path) -> None:
    suite, store = small(tmp_path)
    assert Results(suite, store).chosen_rate("ours") is None
    put_trial(store, SuiteRun(arm="rl", lr=1e-3), pass_1=0.5, pass_8=0.6)
    assert Results(suite, store).chosen_rate("rl") is None, "not all are run"
    assert Results(suite, store).runs("rl") == []
    put_trial(store, SuiteRun(arm="rl", lr=2e-3), pass_1=0.4, pass_8=0.9)
    put_trial(store, SuiteRun(arm="rl", lr=2e-3, seed=1), pass_1=0.9, pass_8=0.9)  # chooses nothing
    results = Results(suite, store)
    assert (results.chosen_rate("rl"), results.chosen_rate("kept"), results.chosen_rate(BASE)) == (1e-3, 2e-3, 0.0)
    assert results.runs("kept") == [SuiteRun(arm="rl", lr=2e-3, seed=seed) for seed in range(3)]
    assert results.runs("rl") == [SuiteRun(arm="rl", lr=1e-3, seed=seed) for seed in range(3)]
    assert results.runs(BASE) == [SuiteRun(arm=BASE)]
    put_trial(store, SuiteRun(arm="ours", lr=1e-3), pass_1=0.1, pass_8=0.7)
    put_trial(store, SuiteRun(arm="ours", lr=2e-3), pass_1=0.9, pass_8=0.7)
    assert Results(suite, store).chosen_rate("ours") == 1e-3, "of equal ones the first"
    chosen = [(row["arm"], row["value"]) for row in choice_rows(results) if row["choice"] == "lr" and row["is_chosen"]]
    assert chosen[-2:] == [("rl", 1e-3), ("kept", 2e-3)]


def test_the_temperature_is_chosen_with_seed_0_on_validation_alone(tmp_path: Path) -> None:
    suite, store = small(tmp_path)
    for lr in suite.rates("ours"):
        put_trial(store, SuiteRun(arm="ours", lr=lr), pass_8=lr)
    first, second = (SuiteRun(arm="ours", lr=2e-3, seed=seed) for seed in (0, 1))
    put(store, second, "validation", 0.6, np.full(10, 0.9))  # another seed's
    put(store, second, "validation", 1.0, np.full(10, 0.0))
    put(store, first, "test", 0.6, np.full(10, 0.9))  # other problems'
    put(store, first, "test", 1.0, np.full(10, 0.0))
    put(store, SuiteRun(arm="ours", lr=1e-3), "validation", 0.6, np.full(10, 0.9))  # another rate's
    put(store, first, "validation", 1.0, np.full(10, 0.5))
    assert Results(suite, store).own_temperature("ours", "pass@8") is None
    assert Results(suite, store).values("ours", "pass@8", "test", OWN) is None
    put(store, first, "validation", 0.6, np.full(10, 0.4))
    assert Results(suite, store).own_temperature("ours", "pass@8") == 1.0
    put(store, first, "validation", 0.6, np.full(10, 0.5))
    assert Results(suite, store).own_temperature("ours", "pass@8") == 0.6, "of equal ones the lowest"


# ---- numbers ----


def test_numbers(tmp_path: Path) -> None:
    results, made = complete(tmp_path)
    assert results.arms == [BASE, "ours", "rl", "kept", "half"]
    for arm, num_seeds in {BASE: 1, **SEEDS}.items():
        for place, metric in enumerate(["pass@1", "pass@8"]):
            for t in (0.6, 1.0):
                wanted = np.stack([made[arm, seed, t] for seed in range(num_seeds)]) + 0.001 * place
                values = results.values(arm, metric, "test", t)
                assert values is not None
                assert values == pytest.approx(wanted, abs=1e-6)
                level = results.level(arm, metric, "test", t)
                assert level is not None
                assert (level.num_seeds, level.temperature) == (num_seeds, t)
                assert level.interval.value == pytest.approx(wanted.mean())
                found = results.difference(arm, "rl", metric, "test", t)
                theirs = np.stack([made["rl", seed, t] for seed in range(3)]) + 0.001 * place
                assert found is not None
                assert found.value == pytest.approx(wanted.mean() - theirs.mean(), abs=1e-6)
    assert results.values("kept", "pass@8", "test", 1.0) == pytest.approx(results.values("rl", "pass@8", "test", 1.0))
    own = {arm: results.own_temperature(arm, "pass@8") for arm in ("ours", "rl")}
    by_own = [results.values(arm, "pass@8", "test", t or 0.0) for arm, t in own.items()]
    found = results.difference("ours", "rl", "pass@8", "test", OWN)
    assert found is not None
    assert by_own[0] is not None
    assert by_own[1] is not None
    assert found.value == pytest.approx(by_own[0].mean() - by_own[1].mean())


def test_problems_are_paired_by_their_ids(tmp_path: Path) -> None:
    """The same numbers in another order on disk, in one seed of one arm, change nothing."""
    results, made = complete(tmp_path)
    wanted = results.difference("ours", "rl", "pass@1")
    values = made["ours", 2, 1.0]
    order = np.random.default_rng(0).permutation(NUM_PROBLEMS).tolist()
    put(results.store, SuiteRun(arm="ours", lr=1e-3, seed=2), "test", 1.0, values, order=order)
    shuffled = Results(results.suite, results.store)
    found = shuffled.difference("ours", "rl", "pass@1")
    assert wanted is not None
    assert found is not None
    assert (found.low, found.value, found.high) == pytest.approx((wanted.low, wanted.value, wanted.high), abs=1e-6)
    assert shuffled.by_seed("ours", "test", 1.0)[2].problem_ids == [f"p{i}" for i in range(NUM_PROBLEMS)]


def test_other_problems_are_refused(tmp_path: Path) -> None:
    results, _ = complete(tmp_path)
    put(results.store, SuiteRun(arm="rl", lr=2e-3, seed=1), "test", 1.0, np.zeros(NUM_PROBLEMS - 1))
    with pytest.raises(BontuneError, match=r"rl-lr0.002-seed1 was measured on other problems \(test-T1.parquet\)"):
        Results(results.suite, results.store).difference("ours", "rl", "pass@1")


def test_what_is_missing_is_missing(tmp_path: Path) -> None:
    results, made = complete(tmp_path)
    what = Measurement(data="test", temperature=1.0)
    measurement_path(results.store, SuiteRun(arm="ours", lr=1e-3, seed=1), "pass@8", what).unlink()
    measurement_path(results.store, SuiteRun(arm="half", lr=half_rate(tmp_path)), "pass@1", what).unlink()
    measurement_path(results.store, SuiteRun(arm="half", lr=half_rate(tmp_path), seed=1), "pass@1", what).unlink()
    left = Results(results.suite, results.store)
    assert left.arms == [BASE, "ours", "rl", "kept"]
    assert list(left.by_seed("ours", "test", 1.0)) == [0, 2]
    level = left.level("ours", "pass@1")
    assert level is not None
    assert level.num_seeds == 2
    assert level.interval.value == pytest.approx(np.mean([made["ours", seed, 1.0] for seed in (0, 2)]))
    assert left.level("half", "pass@1") is None
    assert left.difference("ours", "half", "pass@1") is None
    assert left.level("ours", "pass@1", "harder") is None
    assert left.problems("test") == [f"p{i}" for i in range(NUM_PROBLEMS)]
    assert left.problems("harder") == []
    told = {(row["arm"], row["metric"], row["temperature"]): row["seeds"] for row in arm_rows(left)}
    assert told["ours", "pass@8", 1.0] == 2
    assert not any(row["arm"] == "half" for row in arm_rows(left))


def test_tables(tmp_path: Path) -> None:
    results, made = complete(tmp_path)
    rows = arm_rows(results)
    values = {(row["arm"], row["metric"]): row["value"] for row in rows if not row["is_own_best"]}
    for arm, num_seeds in {BASE: 1, **SEEDS}.items():
        wanted = 100 * np.mean([made[arm, seed, 1.0] for seed in range(num_seeds)])
        assert values[arm, "pass@1"] == pytest.approx(wanted, abs=1e-4)
    own = {(row["arm"], row["metric"]) for row in rows if row["is_own_best"]}
    assert ("half", "pass@8") in own
    assert ("half", "pass@1") not in own, "other seeds are not measured there"


def test_every_row_says_what_made_it(tmp_path: Path) -> None:
    results, _ = complete(tmp_path)
    results.store.origin["command"] = "bontune reproduce small"
    for seed in range(3):
        put_trial(results.store, SuiteRun(arm="ours", lr=1e-3, seed=seed), pass_8=1.0)
    rows = {(row["arm"], row["seed"]): row for row in provenance_rows(Results(results.suite, results.store))}
    assert {("base", 0), ("ours", 0), ("ours", 2), ("rl", 0)} <= rows.keys()
    recipes = {rows["ours", seed]["recipe"] for seed in range(3)}
    assert len(recipes) == 3, "the seed is part of a recipe"
    assert {len(recipe) for recipe in recipes} == {16}
    for row in rows.values():
        assert len(row["commit"].removesuffix("-dirty")) == 40 or row["commit"].startswith("bontune ")
    assert rows["ours", 1]["command"] == "bontune reproduce small"


def test_a_base_model_that_is_not_measured(tmp_path: Path) -> None:
    suite, store = small(tmp_path)
    results = Results(suite, store)
    assert results.arms == []
    assert results.problems("test") == []
    assert results.difference("ours", BASE, "pass@1") is None
    assert arm_rows(results) == choice_rows(results) == []
    assert [(row["arm"], row["commit"]) for row in provenance_rows(results)] == [(BASE, "")]
    assert SMALL["seeds"] == 3


def test_graded_rewards_are_refused_in_a_sentence(tmp_path: Path) -> None:
    suite, store = small(tmp_path)
    put(store, SuiteRun(arm=BASE), "test", 1.0, np.zeros(5))
    results = Results(suite, store)
    with pytest.raises(BontuneError, match=r"rewards are graded: it has .*, not the max@8"):
        results.level(BASE, "max@8")
