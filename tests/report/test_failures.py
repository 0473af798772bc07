"""Why samples are wrong: the shares are counted, and reasons of one kind are one row."""

from __future__ import annotations

from typing import Any

from bontune.pools.pool import Pool
from bontune.report.failures import FEWEST, MOST_REASONS, endings_note, reason_table


def pool_of(settings: dict[str, Any] | None = None, **columns: list[list[Any]]) -> Pool:
    return Pool(problem_ids=["a", "b"], columns=columns, settings=settings or {})


def test_samples_that_were_cut_off_or_have_no_answer_are_counted() -> None:
    stops = [["length", "length", "end"], ["length", "stop", "end"]]
    answers = [["1", None, None], [None, None, "2"]]
    both = pool_of({"max_new_tokens": 16}, stop_reason=stops, answer=answers)
    assert endings_note(both) == (
        "50 % of the samples were cut off at 16 tokens, and in 67 % the grader found no answer."
    )
    assert endings_note(pool_of(stop_reason=stops)) == "50 % of the samples were cut off at the limit of tokens."
    assert endings_note(pool_of(answer=answers)) == "In 67 % of the samples the grader found no answer."
    for silent in (
        pool_of(reward=[[0.0], [1.0]]),
        pool_of(stop_reason=[["end"], ["stop"]], answer=[["1"], ["2"]]),
        pool_of(answer=[[None], [None]]),  # a grader that gives none
    ):
        assert endings_note(silent) == ""


def test_reasons_of_one_kind_are_counted_together() -> None:
    reasons = [
        ["loading it raised NameError: name 'x' is not defined", "loading it raised NameError: name 'y' is not …"],
        ["an assertion failed at line 7 of the test", "an assertion failed at line 12 of the test: it's wrong"],
        ["3/4 is not 12", "", "noted"],
    ]
    verdicts = [["failed"] * 2, ["failed"] * 2, ["failed", "passed", "passed"]]
    table = reason_table("mine", pool_of(reason=reasons, verdict=verdicts))
    assert table is not None
    assert table.caption == "mine: why samples did not pass; shares are of all 7."
    assert list(table.rows) == [
        ["loading it raised NameError", "28.6"],
        ["an assertion failed at line … of the test", "28.6"],
        ["… is not …", "14.3"],
    ]


def test_rare_reasons_are_one_row_and_no_reasons_no_table() -> None:
    letters = "abcdefghijklm"
    reasons = [[f"wrong in {letter}" for i, letter in enumerate(letters) for _ in range(30 - i)] + ["once"]]
    verdicts = [["failed"] * len(reasons[0])]
    table = reason_table("", pool_of(reason=reasons, verdict=verdicts))
    assert table is not None
    assert len(table.rows) == MOST_REASONS + 1
    rest = 1 - sum(30 - i for i in range(MOST_REASONS)) / len(reasons[0])
    assert table.rows[-1] == ["other reasons", f"{100 * rest:.1f}"]
    passed = pool_of(reason=[["fine"]], verdict=[["passed"]])
    rare = [f"only {chr(ord('一') + i)}" for i in range(int(1 / FEWEST) + 1)]
    for without in (passed, pool_of(reason=[rare], verdict=[["failed"] * len(rare)]), pool_of(reward=[[0.0]])):
        assert reason_table("", without) is None
