"""Paired differences against a second computation.

1. Every difference, by family, k and level, is the mean of what enumeration of all subsets gives, problem by problem;
   problems may come in any order.
2. Its interval is that of the theory for many problems, and says "more" or "fewer" only if it excludes 0.
3. Own temperatures are chosen on the problems they are to be chosen on, and on no others.
4. What is said in words is what the numbers say, whichever way they came out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bontune.metrics.evaluation import Evaluation, evaluate_pool
from bontune.pools.compare import (
    Comparison,
    Outcome,
    Sampled,
    aligned,
    at_own_best,
    compare,
    differences,
    families_of,
    main_budget,
)
from bontune.report.result_tables import comparison_curves, comparison_rows, comparison_tables, comparison_tree
from bontune.report.sentences import comparison_sentences

KS = [1, 2, 4]
NUM_SAMPLES = 6


def first_correct(rewards: Sequence[float], scores: Sequence[float], k: int) -> float:
    """best@k by enumeration: the mean over all subsets of the mean reward of those with the highest score."""
    values = []
    for subset in itertools.combinations(range(len(rewards)), k):
        best = max(scores[i] for i in subset)
        values.append(np.mean([rewards[i] for i in subset if scores[i] == best]))
    return float(np.mean(values))


def any_correct(rewards: Sequence[float], scores: Sequence[float], k: int) -> float:
    return float(
        np.mean([max(rewards[i] for i in subset) for subset in itertools.combinations(range(len(rewards)), k)])
    )


def pool(seed: int, rate: float, num_problems: int = 40) -> tuple[list[str], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rewards = (rng.random((num_problems, NUM_SAMPLES)) < rate).astype(float)
    scores = rng.integers(0, 3, rewards.shape).astype(float)
    order = rng.permutation(num_problems)
    return [f"p{i}" for i in order], rewards, scores


def evaluation(ids: list[str], rewards: np.ndarray, scores: np.ndarray | None = None) -> Evaluation:
    return evaluate_pool(ids, rewards.tolist(), KS, scores_PM=None if scores is None else scores.tolist())


def test_every_difference_is_what_enumeration_gives() -> None:
    pools = {"a": pool(0, 0.3), "b": pool(1, 0.5), "c": pool(2, 0.1)}
    levels = {f"p{i}": 1 + i % 4 // 3 for i in range(40)}  # 30 of level 1, 10 of level 2
    levels["p3"] = 3  # one alone, and 9 of level 2
    measured = Sampled(temperature=1.0, evaluations={name: evaluation(*of) for name, of in pools.items()})
    families = families_of(list(measured.evaluations.values()))
    assert families == ["pass", "best"]
    found = compare(measured, families, KS, k=2, levels=levels)
    functions: dict[str, Callable[..., float]] = {"pass": any_correct, "best": first_correct}

    def by_problem(name: str, family: str, k: int) -> dict[str, float]:
        ids, rewards, scores = pools[name]
        return {p: functions[family](r, s, k) for p, r, s in zip(ids, rewards, scores, strict=True)}

    expected = [(n, f, k, None) for n in "bc" for f in families for k in KS]
    expected += [(n, "best", 2, level) for n in "bc" for level in (1, 2, 3)]
    every = (*found.differences, *found.by_level)
    assert [(d.a, d.family, d.k, d.level) for d in every] == expected
    for d in every:
        ours, theirs = by_problem(d.a, d.family, d.k), by_problem("a", d.family, d.k)
        of = [p for p in ours if d.level is None or levels[p] == d.level]
        assert d.num_problems == len(of)
        assert d.a_value == pytest.approx(np.mean([ours[p] for p in of]))
        assert d.b_value == pytest.approx(np.mean([theirs[p] for p in of]))
        assert d.value == pytest.approx(np.mean([ours[p] - theirs[p] for p in of]))
        if d.level in (2, 3):  # 9 problems and 1
            assert (d.low, d.high, d.outcome) == (None, None, Outcome.UNKNOWN)
        else:
            assert d.low is not None
            assert d.high is not None
            assert d.low <= d.value <= d.high
    rows = comparison_rows(found)
    assert [row["difference"] for row in rows] == [d.value for d in every]
    assert {row["setting"] for row in rows} == {"at T = 1.0"}
    assert {row["run_temperature"] for row in rows} == {1.0}
    assert list(comparison_curves(found, "best")["b"].values())[1].value == pytest.approx(
        np.mean(list(by_problem("b", "best", 2).values()))
    )
    assert [len(table.rows) for table in comparison_tables(found)] == [3, 3, 3]


def test_intervals_are_those_of_the_paired_mean() -> None:
    rng = np.random.default_rng(5)
    hardness = rng.random((2000, 1))
    draws = [(rng.random((2000, NUM_SAMPLES)) < hardness + shift).astype(float) for shift in (0.0, 0.0, 0.04, -0.04)]
    ids = [f"p{i}" for i in range(2000)]
    evaluations = {name: evaluation(ids, rewards) for name, rewards in zip("abcd", draws, strict=True)}
    found = compare(Sampled(temperature=None, evaluations=evaluations), ["pass"], [1], k=1)
    assert found.by_level == ()
    for d, rewards in zip(found.differences, draws[1:], strict=True):
        paired = rewards.mean(-1) - draws[0].mean(-1)
        half = 1.96 * paired.std() / np.sqrt(len(paired))
        assert d.low == pytest.approx(paired.mean() - half, abs=0.05 * half)
        assert d.high == pytest.approx(paired.mean() + half, abs=0.05 * half)
        # without the pairing it would be wider: the problems' hardness would count
        assert half < 0.7 * 1.96 * np.sqrt(rewards.mean(-1).var() + draws[0].mean(-1).var()) / np.sqrt(len(paired))
    assert [d.outcome for d in found.differences] == [Outcome.UNCLEAR, Outcome.MORE, Outcome.FEWER]


def test_own_temperatures_are_chosen_on_other_problems() -> None:
    ids = [f"p{i}" for i in range(30)]
    rates = {0.5: {"a": 0.2, "b": 0.6}, 1.0: {"a": 0.5, "b": 0.3}}

    def drawn(seed: int, rates_T: dict[float, dict[str, float]]) -> dict[float, dict[str, Evaluation]]:
        return {
            t: {name: evaluation(*pool(seed + i, rate, 30)[:2]) for i, (name, rate) in enumerate(of.items())}
            for t, of in rates_T.items()
        }

    test = drawn(10, {0.5: rates[1.0], 1.0: rates[0.5]})  # the other way round: whoever looks at these chooses wrongly
    validation = drawn(20, rates)
    metrics = ["pass@1", "pass@4"]
    measured = at_own_best(test, validation, metrics)
    assert measured.own_temperatures == {"a": dict.fromkeys(metrics, 1.0), "b": dict.fromkeys(metrics, 0.5)}
    for name, t in (("a", 1.0), ("b", 0.5)):
        at_best = measured.evaluations[name]
        assert set(at_best.values) == set(metrics)
        assert set(at_best.problem_ids) == set(ids)
        wanted = dict(zip(test[t][name].problem_ids, test[t][name].values["pass@4"], strict=True))
        assert dict(zip(at_best.problem_ids, at_best.values["pass@4"], strict=True)) == wanted
    found = compare(measured, ["pass"], [1, 4], k=4)
    assert [(d.a_temperature, d.b_temperature) for d in found.differences] == [(0.5, 1.0)] * 2
    (sentence,) = comparison_sentences(found, k=4, verifier="oracle", is_alone=False)
    assert sentence.startswith("Each at its own best temperature, at N = 4 ")
    assert "T = 0.5 against 1.0" in sentence
    assert comparison_tree(found, [sentence])["own_temperatures"]["b"] == {"pass@1": 0.5, "pass@4": 0.5}

    tied = {t: {"a": evaluation(ids, np.ones((30, NUM_SAMPLES)))} for t in (1.0, 0.5)}
    assert at_own_best(tied, tied, ["pass@1"]).own_temperatures == {"a": {"pass@1": 0.5}}, "the lowest of equals"


def test_families_are_what_all_have() -> None:
    ids, rewards, scores = pool(0, 0.4)
    binary, oracle = evaluation(ids, rewards), evaluation(ids, rewards, rewards)
    verified = evaluation(ids, rewards, scores)
    assert families_of([binary, verified]) == ["pass"], "one has no scores"
    assert families_of([oracle, oracle]) == ["pass"], "the pick of an oracle is pass@k"
    assert families_of([oracle, verified]) == ["pass", "best"]
    graded = evaluation(ids, rewards / 2)
    assert families_of([graded, binary]) == []
    renamed = aligned([graded, binary])
    assert families_of(renamed) == ["max"]
    assert renamed[1].values["max@2"].tolist() == binary.values["pass@2"].tolist()


def found_with(by_k: dict[int, tuple[float, float]], family: str = "pass") -> Comparison:
    """A comparison of 200 problems in which b − a has this mean and spread at each k."""
    ids = [f"p{i}" for i in range(200)]
    half = np.resize([1.0, -1.0], 200)
    a = Evaluation(problem_ids=ids, values={f"{family}@{k}": np.full(200, 0.5) for k in by_k})
    b = Evaluation(
        problem_ids=ids, values={f"{family}@{k}": 0.5 + mean + spread * half for k, (mean, spread) in by_k.items()}
    )
    return compare(Sampled(temperature=1.0, evaluations={"a": a, "b": b}), [family], list(by_k), k=max(by_k))


@pytest.mark.parametrize(
    ("by_k", "family", "sentence"),
    [
        (
            {1: (-0.104, 1e-4), 4: (0.0, 0.1), 16: (0.067, 1e-4)},
            "pass",
            "At N = 16 b solves 6.7 points more than a [6.7, 6.7]; at N = 1, 10.4 fewer [10.4, 10.4]. "
            "Over all N at once: clearly fewer at N = 1; no clear difference at N = 4; clearly more at N = 16.",
        ),
        (
            {1: (0.0, 0.1), 2: (0.0, 0.1), 16: (-0.25, 1e-4)},
            "max",
            "At N = 16 b scores 0.25 less than a [0.25, 0.25]; at N = 1 there is no clear difference "
            "(0 [-0.014, +0.014]). Over all N at once: no clear difference up to N = 2; clearly less at N = 16.",
        ),
        (
            {1: (0.1, 1e-4), 2: (0.1, 1e-4), 4: (0.2, 1e-4)},
            "best",
            "At N = 4, picked by judge, b solves 20.0 points more than a [20.0, 20.0]; at N = 1, 10.0 more "
            "[10.0, 10.0]. Over all N at once: clearly more at every N.",
        ),
        (
            {1: (0.0, 0.1), 2: (0.0, 0.1), 4: (0.0, 0.1)},
            "pass",
            "At N = 4 there is no clear difference between b and a (0.0 [-1.4, +1.4] points). "
            "Over all N at once: no clear difference at any N.",
        ),
        ({8: (0.1, 1e-4)}, "pass", "At N = 8 b solves 10.0 points more than a [10.0, 10.0]."),
        (
            {1: (0.0, 0.0), 2: (0.1, 0.0), 4: (0.2, 0.0)},
            "pass",
            "At N = 4 the difference between b and a is +20.0 points: it is the same on all 200 problems, so that "
            "there is no interval. Over all N at once: no clear difference at N = 1; no interval from N = 2 on.",
        ),
    ],
)
def test_the_sentence_says_what_the_numbers_say(
    by_k: dict[int, tuple[float, float]], family: str, sentence: str
) -> None:
    (said,) = comparison_sentences(found_with(by_k, family), k=max(by_k), verifier="judge")
    assert said == sentence


@pytest.mark.parametrize("num_problems", [1, 2, 5, 9])
def test_nothing_is_claimed_of_a_few_problems(num_problems: int) -> None:
    ids = [f"p{i}" for i in range(num_problems)]
    wrong, right = (evaluation(ids, np.full((num_problems, NUM_SAMPLES), value)) for value in (0.0, 1.0))
    found = compare(Sampled(temperature=None, evaluations={"a": wrong, "b": right}), ["pass"], KS, k=4)
    for d in found.differences:
        assert (d.value, d.low, d.high, d.band, d.num_problems) == (1.0, None, None, None, num_problems)
        assert (d.outcome, d.outcome_of_all) == (Outcome.UNKNOWN, Outcome.UNKNOWN)
    assert {row["verdict"] for row in comparison_rows(found)} == {"unclear"}
    (said,) = comparison_sentences(found, k=4, verifier="oracle")
    assert "+100.0 points" in said
    assert "too few to say more, 10 at least are needed" in said
    assert not re.search("more than|clearly|Over all", said)


def test_ten_problems_have_an_interval_unless_all_differ_alike() -> None:
    ids, rewards = [f"p{i}" for i in range(10)], np.zeros((10, NUM_SAMPLES))
    before, some, all_alike = rewards, rewards.copy(), rewards + 1
    some[:9] = 1
    sampled = {name: evaluation(ids, of) for name, of in (("a", before), ("b", some), ("c", all_alike), ("d", before))}
    b, c, d = differences(sampled, ["pass@1"])
    assert b.outcome is Outcome.MORE
    assert (c.value, c.low, c.band, c.outcome) == (1.0, None, None, Outcome.UNKNOWN)
    assert (d.value, d.low, d.outcome) == (0.0, None, Outcome.UNCLEAR)
    assert "the same on all 10 problems" in c.why_unknown


@pytest.mark.parametrize(
    ("ks", "trained_n", "num_samples", "expected"),
    [([1, 4, 16], 16, 16, 16), ([1, 4, 16, 64], None, 64, 16), ([1, 4], 16, 64, 4), ([8], None, 8, 8)],
)
def test_the_budget_to_speak_about(ks: list[int], trained_n: int | None, num_samples: int, expected: int) -> None:
    assert main_budget(ks, trained_n=trained_n, num_samples=num_samples) == expected
