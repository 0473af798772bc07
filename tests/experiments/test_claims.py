"""Claims: numbers against second implementations, and a claim holds when its interval says so, for no other reason."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bontune.experiments.claims import Judged, _crossing, judge
from bontune.experiments.results import OWN, Results
from bontune.experiments.statement import described, statement
from bontune.experiments.store import SuiteRun
from bontune.experiments.suite import BASE, Claim
from bontune.metrics import Interval
from experiments.synthetic import NUM_PROBLEMS, put, put_trial, small

CLAIMS: list[dict[str, Any]] = [
    {
        "id": "more",
        "claim": "More.",
        "paper": 7.0,
        "paper_on": "MATH",
        "a": "ours",
        "b": "rl",
        "metric": "pass@8",
        "goal": 5.0,
    },
    {
        "id": "less",
        "claim": "Less.",
        "paper": -1.8,
        "a": "rl",
        "b": BASE,
        "metric": "votes:best@8",
        "sign": -1,
        "goal": -2.0,
    },
    {
        "id": "fewer",
        "claim": "Fewer.",
        "kind": "generations",
        "b": "rl",
        "metric": "pass@8",
        "ladder": {"half": 0.5, "ours": 1.0},
        "goal": 0.75,
    },
]


def measured(folder: Path, levels: dict[str, float], spread: float = 0.02, claims: Any = None) -> Results:
    """Arms with these levels on the test problems; a problem's difficulty is shared, runs and pairs differ a little."""
    suite, store = small(folder, claims=CLAIMS if claims is None else claims)
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 0.2, NUM_PROBLEMS)
    for arm, level in levels.items():
        rates = suite.rates(arm) if arm != BASE else [0.0]
        for lr in rates if arm != BASE else []:
            put_trial(store, SuiteRun(arm=arm, lr=lr), pass_1=lr, pass_8=lr)
        for seed in range(suite.num_seeds(arm)):
            run = SuiteRun(arm=arm, lr=max(rates), seed=seed) if arm != BASE else SuiteRun(arm=BASE)
            for t in (0.6, 1.0):
                values = level + 0.1 * (t == 0.6) + difficulty + rng.normal(0, spread / 2)
                put(store, run, "test", t, values + rng.normal(0, spread, NUM_PROBLEMS))
                if seed == 0:
                    put(store, run, "validation", t, np.full(10, level + 0.1 * (t == 0.6)))
    return Results(suite, store)


LEVELS = {BASE: 0.50, "half": 0.54, "ours": 0.60, "rl": 0.52}


def rows_of(results: Results) -> dict[str, dict[str, Any]]:
    rows = [verdict.row() for verdict in judge(results)]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    for row in rows:
        assert {"id", "claim", "paper", "measured", "low", "high", "holds"} <= set(row)
    return {row["id"]: row for row in rows}


def test_differences(tmp_path: Path) -> None:
    results = measured(tmp_path, LEVELS)
    rows = rows_of(results)
    for name, a, b, metric in (("more", "ours", "rl", "pass@8"), ("less", "rl", BASE, "votes:best@8")):
        for row, t in ((rows[name], 0.6), (rows[name]["at_temperature_1"], 1.0)):
            sides = [results.values(arm, metric, "test", t) for arm in (a, b)]
            assert sides[0] is not None
            assert sides[1] is not None
            assert row["measured"] == pytest.approx(100 * (sides[0].mean() - sides[1].mean()), abs=6e-4)
            found = results.difference(a, b, metric, "test", t)
            assert found is not None
            assert [row["low"], row["high"]] == pytest.approx([100 * found.low, 100 * found.high], abs=6e-4)
    assert rows["more"]["holds"] is True
    assert rows["more"]["reaches_goal"] is True
    assert (rows["more"]["unit"], rows["more"]["seeds"], rows["more"]["own_temperatures"]) == (
        "points",
        [3, 3],
        [0.6] * 2,
    )
    assert rows["less"]["holds"] is False
    assert rows["less"]["reaches_goal"] is False
    assert rows["less"]["seeds"] == [3, 1]


def test_the_smallest_gain_over_every_k(tmp_path: Path) -> None:
    """At each resample the smallest of the differences; here pass@1, since every metric of `put` is 0.001 more."""
    claim = {"id": "every", "claim": "At every k.", "kind": "every_k", "a": "ours", "b": "rl", "metric": "pass@8"}
    results = measured(tmp_path, LEVELS, claims=[claim, claim | {"id": "one", "at_one_temperature": True}])
    rows = rows_of(results)
    differences = [results.difference("ours", "rl", f"pass@{k}", "test", 1.0) for k in (1, 8)]
    smallest = min((d for d in differences if d is not None), key=lambda d: d.value)
    assert rows["one"]["measured"] == pytest.approx(100 * smallest.value, abs=6e-4)
    assert rows["one"]["own_temperatures"] == [1.0, 1.0]
    assert rows["every"]["own_temperatures"] == [0.6, 0.6]
    assert rows["every"]["at_temperature_1"] == {key: rows["one"][key] for key in ("measured", "low", "high")}
    # Whatever the interval's method, it is about as wide as that of one difference: a bootstrap and Student's t.
    width = rows["one"]["high"] - rows["one"]["low"]
    assert 0.3 < width / (100 * (smallest.high - smallest.low)) < 1.2
    assert rows["one"]["low"] < rows["one"]["measured"] < rows["one"]["high"]


def test_the_share_of_generations(tmp_path: Path) -> None:
    """Value by hand; interval against a bootstrap written anew, with other random numbers."""
    levels = {BASE: 0.50, "half": 0.60, "ours": 0.70, "rl": 0.64}
    results = measured(tmp_path, levels, spread=0.05)
    row = rows_of(results)["fewer"]
    found = {arm: results.values(arm, "pass@8", "test", OWN) for arm in levels}
    values = {arm: v for arm, v in found.items() if v is not None}

    def crossing(means: dict[str, float]) -> float:
        return float(np.interp(means["rl"], [means[BASE], means["half"], means["ours"]], [0.0, 0.5, 1.0]))

    means = {arm: float(v.mean()) for arm, v in values.items()}
    assert means[BASE] < means["half"] < means["rl"] < means["ours"]
    assert row["measured"] == pytest.approx(crossing(means), abs=6e-4)
    rng = np.random.default_rng(12345)
    shares = []
    for _ in range(4000):
        weights = rng.multinomial(NUM_PROBLEMS, np.full(NUM_PROBLEMS, 1 / NUM_PROBLEMS)) / NUM_PROBLEMS
        drawn = {}
        for arm, v in values.items():
            of_runs = rng.multinomial(len(v), np.full(len(v), 1 / len(v))) / len(v)
            drawn[arm] = float(of_runs @ v @ weights)
        assert drawn[BASE] < drawn["half"] < drawn["ours"]
        shares.append(crossing(drawn))
    low, high = np.quantile(shares, [0.025, 0.975])
    width = high - low
    assert row["low"] == pytest.approx(low, abs=0.1 * width)
    assert row["high"] == pytest.approx(high, abs=0.1 * width)
    assert (row["unit"], row["holds"], row["reaches_goal"]) == ("ratio", row["high"] < 1, True)


def test_a_ladder_that_never_gets_there(tmp_path: Path) -> None:
    results = measured(tmp_path, LEVELS | {"rl": 0.9})
    row = rows_of(results)["fewer"]
    assert (row["measured"], row["low"], row["high"], row["holds"], row["reaches_goal"]) == (
        None,
        None,
        None,
        False,
        False,
    )
    text = statement(results, judge(results), [], tmp_path, "bontune reproduce small")
    assert "| never [never, never] | never [never, never] | ≤ 0.75, not reached | **does not hold** |" in text


def test_a_rival_that_gained_nothing_is_no_ones_success(tmp_path: Path) -> None:
    row = rows_of(measured(tmp_path, LEVELS | {"rl": 0.4}))["fewer"]
    assert (row["measured"], row["high"], row["holds"], row["reaches_goal"]) == (None, None, False, False)


@pytest.mark.parametrize(
    ("ladder", "start", "target", "share"),
    [
        ([(0.25, 0.70), (1.0, 0.76)], 0.66, 0.68, 0.125),
        ([(0.25, 0.70), (1.0, 0.76)], 0.66, 0.70, 0.25),
        ([(0.25, 0.70), (1.0, 0.76)], 0.66, 0.73, 0.625),
        ([(0.25, 0.70), (1.0, 0.76)], 0.66, 0.76, 1.0),
        ([(0.25, 0.70), (1.0, 0.76)], 0.66, 0.7601, math.inf),
        ([(0.25, 0.70), (1.0, 0.76)], 0.66, 0.60, math.inf),  # the base model is there
        ([(0.25, 0.70), (1.0, 0.76)], 0.66, 0.66, math.inf),
        ([(0.25, 0.60), (1.0, 0.76)], 0.66, 0.70, 0.71875),  # falls first
        ([(0.25, 0.80), (1.0, 0.60)], 0.66, 0.70, 0.0714285714),  # the first time counts
        ([(0.5, 0.7), (1.0, 0.7), (2.0, 0.8)], 0.6, 0.75, 1.5),  # rests
    ],
)
def test_crossings_by_hand(ladder: list[tuple[float, float]], start: float, target: float, share: float) -> None:
    assert _crossing(ladder, start, target) == pytest.approx(share)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 1))
def test_crossings_are_the_first_on_the_line(reached: list[float], target: float) -> None:
    shares = [float(i) for i in range(len(reached))]
    found = _crossing(list(zip(shares[1:], reached[1:], strict=True)), reached[0], target)
    if max(reached) < target or reached[0] >= target:
        assert found == math.inf
        return
    grid = np.linspace(0, shares[-1], 2001)
    line = np.interp(grid, shares, reached)
    assert np.interp(found, shares, reached) == pytest.approx(target, abs=1e-9)
    assert (line[grid < found - 1e-9] < target).all()


def verdict(low: float, value: float, high: float, **claim: Any) -> Judged:
    settings = Claim.model_validate({"id": "c", "claim": "C.", "a": "x", "b": "y", "metric": "pass@8"} | claim)
    interval = Interval(value=value, low=low, high=high)
    at_1 = Interval(value=-value, low=-high, high=-low)
    return Judged(claim=settings, own=interval, at_1=at_1, num_seeds=(5, 5), temperatures=(1.0, 1.0))


@pytest.mark.parametrize(
    ("interval", "claim", "holds", "reaches_goal"),
    [
        ((0.1, 3.0, 6.0), {}, True, None),
        ((0.0, 3.0, 6.0), {}, False, None),
        ((-0.1, 3.0, 6.0), {"goal": 3.0}, False, True),
        ((0.1, 2.9, 6.0), {"goal": 3.0}, True, False),
        ((-6.0, -3.0, -0.1), {}, False, None),
        ((-6.0, -3.0, -0.1), {"sign": -1}, True, None),
        ((-6.0, -3.0, 0.0), {"sign": -1, "goal": -3.0}, False, True),
        ((-6.0, -2.9, -1.0), {"sign": -1, "goal": -3.0}, True, False),
        ((0.1, 3.0, 6.0), {"sign": -1}, False, None),
        ((-0.9, 0.1, 1.1), {"margin": 1.0, "goal": -1.0}, True, True),
        ((-1.0, 0.1, 1.1), {"margin": 1.0}, False, None),
        ((-2.4, -1.2, 0.3), {"margin": 1.0, "goal": -1.0}, False, False),
        ((0.1, 0.2, 0.9), {"kind": "generations", "goal": 0.2}, True, True),
        ((0.1, 0.3, 1.0), {"kind": "generations", "goal": 0.2}, False, False),
        ((0.1, 0.3, math.inf), {"kind": "generations", "goal": 0.5}, False, True),
    ],
)
def test_holding_and_goals(
    interval: tuple[float, float, float], claim: dict[str, Any], holds: bool, reaches_goal: bool | None
) -> None:
    found = verdict(*interval, **claim)
    assert (found.holds, found.reaches_goal) == (holds, reaches_goal)
    row = json.loads(json.dumps(found.row(), allow_nan=False))
    assert (row["holds"], row["reaches_goal"]) == (holds, reaches_goal)
    assert row["high"] == (None if math.isinf(interval[2]) else interval[2])


def test_what_is_not_measured_neither_holds_nor_fails(tmp_path: Path) -> None:
    results = measured(tmp_path, {BASE: 0.5, "ours": 0.6})
    for row in rows_of(results).values():
        assert (row["measured"], row["holds"], row["reaches_goal"]) == (None, None, None)
        assert row["at_temperature_1"] == {"measured": None, "low": None, "high": None}
    text = statement(results, judge(results), [], tmp_path, "bontune reproduce small")
    assert text.count("**not measured yet**") == 3
    assert "Not complete yet: nothing of rl, kept, half. The command goes on with them." in text


@pytest.mark.parametrize(
    ("kind", "interval", "text"),
    [
        ("difference", Interval(value=-0.001, low=-2.8, high=0.04), "0.0 [-2.8, 0.0]"),
        ("difference", Interval(value=3.96, low=2.05, high=5.94), "+4.0 [+2.0, +5.9]"),
        ("generations", Interval(value=0.785, low=0.5, high=math.inf), "0.79 [0.50, never]"),
    ],
)
def test_how_numbers_are_written(kind: Any, interval: Interval, text: str) -> None:
    claim = Claim(id="c", claim="C.", a="a", b="b", metric="pass@8", kind=kind)
    judged = Judged(claim=claim, own=interval, at_1=None, num_seeds=(5, 1), temperatures=(None, None))
    assert described(judged, interval) == text


def test_the_statement_says_what_was_measured(tmp_path: Path) -> None:
    results = measured(tmp_path, LEVELS)
    rows = rows_of(results)
    text = statement(results, judge(results), [], tmp_path, "bontune reproduce small 'claims=[]'")
    more = rows["more"]
    assert f"| More. | +7 (MATH) | {more['measured']:+.1f} [{more['low']:+.1f}, {more['high']:+.1f}]" in text
    assert "| ≥ 5, reached | **holds** |" in text
    assert "| ≤ -2, not reached | **does not hold** |" in text
    assert "Not complete yet" not in text
    assert f"on {NUM_PROBLEMS} test problems with 16 samples each" in text
    assert "trains on 12,288 generations unless" in text
    level = results.level("ours", "pass@8", "test", OWN)
    assert level is not None
    assert "| ours | 0.002 | 3 | " in text
    assert f"{100 * level.interval.value:.1f} [" in text
    assert "(T = 0.6)" in text
