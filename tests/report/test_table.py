"""What the terminal shows, at every width, and how a metrics file is read."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from bontune.base.errors import BontuneError
from bontune.metrics import Interval
from bontune.pools.compare import Difference, Outcome
from bontune.report.numbers import duration, interval_text, percent, points, sorted_metrics
from bontune.report.sentences import Summary, difference_ends
from bontune.report.suite_page import score_table
from bontune.report.tables import Cell, Table, as_csv, measured_cell
from bontune.training.read_log import bounds, finite, read_json, read_metrics, rows_of_kind, series

NAN = float("nan")


def summary_of(
    values: dict[str, dict[str, float]], intervals: dict[str, dict[str, list[float]]] | None = None
) -> Summary:
    """A summary of these values, with an interval where there is one."""
    ends = intervals or {}
    return Summary(
        models={
            model: {
                metric: Interval(
                    value=value,
                    low=ends.get(model, {}).get(metric, [NAN, NAN])[0],
                    high=ends.get(model, {}).get(metric, [NAN, NAN])[1],
                )
                for metric, value in row.items()
            }
            for model, row in values.items()
        },
        n=16,
        samples=64,
        problems=500,
    )


VALUES = {
    "base": {"pass@1": 0.138, "pass@2": 0.2, "pass@4": 0.31, "pass@16": 0.55, "pass@32": 0.677, "pass@64": 0.75},
    "bon_rl": {"pass@1": 0.15, "pass@16": 0.6, "pass@32": 0.743, "pass@64": 0.8},
}
DIFFERENCES = [
    Difference(a="bon_rl", b="base", metric="pass@32", value=0.066, low=0.03, high=0.1),
    Difference(a="bon_rl", b="base", metric="pass@1", value=0.012, low=-0.01, high=0.03),
    Difference(a="base", b="bon_rl", metric="pass@64", value=-0.05, low=-0.07, high=-0.03),
    Difference(a="bon_rl", b="base", metric="pass@16", value=0.05, low=None, high=None),
]


def shown(table: Table, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table.terminal())
    return console.file.getvalue()  # type: ignore[attr-defined]


def line_with(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_models_are_rows_and_cells_carry_intervals_in_percent() -> None:
    text = shown(score_table(summary_of(VALUES, {"base": {"pass@1": [0.12, 0.157], "pass@32": [0.65, 0.7]}})))
    assert "500 problems, 64 samples each" in text
    assert line_with(text, "Model").split() == ["Model", "pass@1", "pass@4", "pass@16", "pass@32", "pass@64"]
    assert "13.8 [12.0–15.7]" in line_with(text, "Base model")
    assert "67.7 [65.0–70.0]" in line_with(text, "Base model")
    assert line_with(text, "Best-of-N RL").split() == ["Best-of-N", "RL", "15.0", "–", "60.0", "74.3", "80.0"]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_number_is_cut_on_a_narrow_terminal(width: int) -> None:
    intervals = {model: {metric: [0.1, 0.9] for metric in row} for model, row in VALUES.items()}
    text = shown(score_table(summary_of(VALUES, intervals)), width)
    assert "…" not in text
    assert text.count("[10.0–90.0]") == 9


@pytest.mark.parametrize("width", [40, 60, 80])
def test_no_word_of_a_title_or_a_heading_is_broken(width: int) -> None:
    table = Table(
        title="Problems solved with k samples, by temperature",
        caption="percent, with intervals of confidence",
        columns=["temperature", "solved", "difference"],
        rows=[["1.0", Cell(text="74.3", ends="[71.7, 78.3]"), "+8.1 [+5.7, +10.4]"]],
    )
    words = shown(table, width).split()
    for text in (table.title, table.caption, *table.columns):
        assert set(text.split()) <= set(words), text


def test_one_table_is_markdown_too() -> None:
    table = Table(columns=["arm", "pass@1"], rows=[["base", Cell(text="74.3", ends="[71.7, 78.3]")]], words={"arm"})
    assert table.markdown() == ["| arm | pass@1 |", "| --- | ---: |", "| base | 74.3 [71.7, 78.3] |"]


def test_rows_as_csv_hold_lists_and_nothing_for_nan() -> None:
    assert as_csv([{"a": [1.0, 2.5], "b": [[1, 2], [3, 4]], "c": NAN}]) == "a,b,c\n1 2.5,1:2 3:4,\n"


def test_a_difference_is_better_or_worse_only_where_the_interval_excludes_zero() -> None:
    assert [entry.outcome for entry in DIFFERENCES] == [Outcome.MORE, Outcome.UNCLEAR, Outcome.FEWER, Outcome.UNKNOWN]
    assert difference_ends(DIFFERENCES[0]) == "+3.0 to +10.0"
    assert Difference(a="x", b="y", metric="pass@1", value=0.1, low=0.0, high=0.2).outcome is Outcome.UNCLEAR


def test_an_interval_that_is_not_wider_than_its_number_is_left_out() -> None:
    exact = Interval(value=1.0, low=1.0, high=1.0)
    assert interval_text(exact, percent) == "100.0"
    assert measured_cell(exact, percent) == Cell(text="100.0")
    assert interval_text(Interval(value=0.5, low=NAN, high=NAN), percent) == "50.0"


def test_markup_in_a_name_is_shown_as_it_is() -> None:
    text = shown(score_table(summary_of({"[red]x[/red]": {"pass@1": 0.5}})))
    assert "[red]x[/red]" in text


def test_an_empty_summary_is_an_empty_table() -> None:
    assert "Model" in shown(score_table(Summary(models={})))


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = '{"kind": "step", "step": 1, "note": "é"}\n\n{"kind": "eval", "step": 1}\n'.encode()
    for torn in (b"", b'{"kind": "st', b"12", b'{"note": "\xc3', b"\x00\x00\x00\n"):
        path.write_bytes(whole + torn)
        assert [row["kind"] for row in read_metrics(path)] == ["step", "eval"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(BontuneError, match="line 2 is not a JSON object"):
        read_metrics(path)
    with pytest.raises(BontuneError, match="cannot read the metrics"):
        read_metrics(tmp_path / "none.jsonl")
    assert read_json(path) is None
    assert read_json(tmp_path / "none.json") is None


def test_rows_come_by_step_and_a_repeated_step_counts_once() -> None:
    rows = [{"kind": "step", "step": step, "kl": kl} for step, kl in [(2, 0.2), (1, 0.1), (2, 0.3), (3, None)]]
    assert [row["step"] for row in rows_of_kind([*rows, {"kind": "eval", "step": 9}], "step")] == [1, 2, 3]
    at, values = series(rows, "kl")
    assert at.tolist() == [1, 2]
    assert values.tolist() == [0.1, 0.3]


def test_only_finite_numbers_are_numbers() -> None:
    assert [finite(value) for value in (1, 0.5, "1", None, True, float("nan"), float("inf"), 10**400)] == [
        1.0,
        0.5,
        *[None] * 6,
    ]
    assert bounds([0.1, None]) is None
    assert bounds(0.1) is None
    assert bounds((0.3, 0.1)) == (0.1, 0.3)


def test_wording() -> None:
    assert [points(value) for value in (0.05, -0.05, 0.0004, -0.0004)] == ["+5.0", "-5.0", "0.0", "0.0"]
    assert sorted_metrics(["b@2", "a@16", "a@4", "b@1", "a@4"]) == ["b@1", "b@2", "a@4", "a@16"]
    assert [duration(value) for value in (0.42, 59.6, 210, 7500)] == ["0.4 s", "1 min", "3 min 30 s", "2 h 5 min"]
