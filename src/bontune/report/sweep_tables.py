"""A sweep as rows (for JSON and CSV) and as tables on the terminal: the same numbers in each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from rich.table import Table

import bontune.base.text as tables
from bontune.base.text import temperature_text
from bontune.metrics import Interval
from bontune.report.numbers import percent, points
from bontune.scaling import Choice, Grid, Law, LawVerdict, Study, advise, advise_all, metric_name

Row: TypeAlias = dict[str, Any]


def grid_rows(study: Study) -> list[Row]:
    """Every metric at every temperature and N."""
    return [
        {
            "metric": grid.metric,
            "temperature": t,
            "n": n,
            "value": float(grid.means_TN[i, j]),
            "low": float(grid.low_TN[i, j]),
            "high": float(grid.high_TN[i, j]),
        }
        for grid in _grids(study)
        for i, t in enumerate(study.temperatures)
        for j, n in enumerate(study.ns)
    ]


def fit_rows(study: Study) -> list[Row]:
    """The law at every temperature."""
    return [
        {
            "temperature": t,
            **_columns("a", law.a),
            **_columns("b", law.b),
            "r_squared": law.r_squared,
            "deviation": law.deviation,
            "deviation_at_n": law.deviation_at,
            "verdict": law.verdict.value,
            "n_left_out": list(law.left_out),
        }
        for t, law in zip(study.temperatures, study.laws, strict=True)
    ]


def optimum_rows(study: Study) -> list[Row]:
    """The best temperature for each N: of all problems for every metric, and by difficulty."""
    rows = [row for grid in _grids(study) for row in _optima(study, grid, "all", study.num_problems, study.ns)]
    for group in study.groups:
        rows += _optima(study, group.grid, group.name, group.num_problems, group.ns)
    smoothed = {} if study.surface is None else {o.n: o.temperature for o in study.surface.optima}
    nothing = Interval(value=math.nan, low=math.nan, high=math.nan)
    for row in rows:
        is_of_law = row["group"] == "all" and row["metric"] == "pass"
        row.update(_columns("law_temperature", smoothed.get(row["n"], nothing) if is_of_law else nothing))
    return rows


def best_n_rows(study: Study) -> list[Row]:
    """The best N at each temperature under the verifier, and what the largest N loses against it."""
    if study.bests is None:
        return []
    return [
        {
            "temperature": t,
            "n": study.ns[choice.best],
            "may_be_best": choice.possible(study.ns),
            **_columns("value", choice.value),
            "largest_n": study.ns[-1],
            **_columns("loss_at_largest", choice.gain if choice.best < len(study.ns) - 1 else _zero()),
        }
        for t, choice in zip(study.temperatures, study.bests.over_n_T, strict=True)
    ]


def budget_rows(study: Study) -> list[Row]:
    """The best pair of temperature and N within each budget of tokens."""
    rows = []
    for budget in study.budgets:
        pairs = [(study.temperatures[t], n) for t, n in budget.pairs_C]
        best, reference = pairs[budget.choice.best], pairs[budget.choice.reference]
        rows.append(
            {
                "tokens": budget.tokens,
                "metric": study.main.metric,
                "temperature": best[0],
                "n": best[1],
                "may_be_best": [list(pair) for pair, ok in zip(pairs, budget.choice.is_possible_C, strict=True) if ok],
                **_columns("value", budget.choice.value),
                "reference_temperature": reference[0],
                "reference_n": reference[1],
                **_columns("gain", budget.choice.gain),
            }
        )
    return rows


def as_json(study: Study, origin: Mapping[str, Any]) -> str:
    """Everything, with null for what has no value.

    Args:
        study: of a sweep.
        origin: where the pools come from.
    """
    surface = study.surface
    tree = {
        **origin,
        "temperatures": list(study.temperatures),
        "n": list(study.ns),
        "num_problems": study.num_problems,
        "num_samples": study.num_samples,
        "metric": study.main.metric,
        "is_verifier_perfect": study.bests is None,
        "advice": advise_all(study),
        "advice_by_n": {str(n): advise(study, n) for n in study.ns},
        "grid": grid_rows(study),
        "fit": fit_rows(study),
        "surface": None
        if surface is None
        else {
            "degree": surface.degree,
            "log_minus_a": list(surface.alpha),
            "b": list(surface.b),
            "centre": surface.centre,
            "scale": surface.scale,
            "left_out_error": surface.error,
            "left_out_worst_error": surface.worst_error,
            "left_out_error_by_degree": {str(d): e for d, e in surface.errors_by_degree.items()},
        },
        "optimum": optimum_rows(study),
        "best_n": best_n_rows(study),
        "difficulty": study.difficulty,
        "budgets": budget_rows(study),
        "mean_tokens": None if study.tokens_T is None else list(study.tokens_T),
    }
    return json.dumps(_without_nan(tree), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as CSV; lists joined by spaces, pairs in them by colons, nothing for what has no value."""
    return tables.as_csv([{name: _cell(value) for name, value in row.items()} for row in rows])


def terminal_tables(study: Study) -> Iterator[Table]:
    """The grids, the laws, the best temperatures, the best N, and the budgets."""
    for grid in _grids(study):
        yield _grid_table(study, grid)
    yield _law_table(study)
    yield _optimum_table(study)
    if study.groups:
        yield _group_table(study)
    if study.bests is not None:
        yield _best_n_table(study)
    if study.budgets:
        yield _budget_table(study)


def _grid_table(study: Study, grid: Grid) -> Table:
    table = _table(
        f"{metric_name(grid, 'N')}, %",
        f"{study.num_problems} problems × {study.num_samples} samples or "
        "more; * highest of its column, ~ not clearly below it",
    )
    table.add_column("T", justify="right")
    for n in study.ns:
        table.add_column(f"N={n}", justify="right")
    for i, t in enumerate(study.temperatures):
        cells = []
        for j, choice in enumerate(grid.over_t_N):
            mark = "*" if choice.best == i else "~" if choice.is_possible_C[i] else " "
            cells.append(f"{percent(float(grid.means_TN[i, j]))}{mark}")
        table.add_row(temperature_text(t), *cells)
    return table


def _law_table(study: Study) -> Table:
    table = _table(
        "pass@N = exp(a N^b)", "misses by: largest distance between law and measurement, in points of pass@N"
    )
    for name in ("T", "a", "b", "R²", "misses by", "law"):
        table.add_column(name, justify="left" if name == "law" else "right")
    for t, law in zip(study.temperatures, study.laws, strict=True):
        table.add_row(temperature_text(t), *_law_cells(law))
    return table


def _law_cells(law: Law) -> list[str]:
    note = f"; without N = {', '.join(map(str, law.left_out))} (0 or 100 %)" if law.left_out else ""
    if law.verdict is LawVerdict.NOT_FITTED:
        return ["–", "–", "–", "–", law.verdict.value + note]
    r_squared = "–" if math.isnan(law.r_squared) else f"{law.r_squared:.4f}"
    return [
        _bounds(law.a, 1, ".2f"),
        _bounds(law.b, 1, ".2f"),
        r_squared,
        f"{percent(law.deviation)} (N={law.deviation_at})",
        law.verdict.value + note,
    ]


def _optimum_table(study: Study) -> Table:
    grid, smoothed = study.main, {} if study.surface is None else {o.n: o.temperature for o in study.surface.optima}
    is_pass = grid.metric == "pass"
    table = _table("best temperature for each N", "by the law: intervals as if it held" if is_pass and smoothed else "")
    for name in (
        "N",
        "T*",
        "not clearly worse",
        *(("T* by the law",) if is_pass and smoothed else ()),
        f"{metric_name(grid, 'N')}, %",
        "gain over",
    ):
        table.add_column(name, justify="right" if name in ("N", "T*") else "left")
    for n, choice in zip(study.ns, grid.over_t_N, strict=True):
        by_law = [_bounds(smoothed[n], 1, ".2f")] if is_pass and smoothed else []
        possible = ", ".join(map(temperature_text, choice.possible(study.temperatures)))
        table.add_row(
            str(n),
            temperature_text(study.temperatures[choice.best]),
            possible,
            *by_law,
            _bounds(choice.value, 100, ".1f"),
            _gain(choice, f"T={temperature_text(study.temperatures[choice.reference])}"),
        )
    return table


def _group_table(study: Study) -> Table:
    table = _table("best temperature by difficulty", f"by {study.difficulty}; in brackets: those not clearly worse")
    table.add_column("problems")
    table.add_column("count", justify="right")
    ns = study.groups[0].ns
    shown = ns if len(ns) <= 4 else tuple(dict.fromkeys(ns[round(i * (len(ns) - 1) / 3)] for i in range(4)))
    for n in shown:
        table.add_column(f"N={n}")
    for group in study.groups:
        choices = [group.grid.over_t_N[group.ns.index(n)] for n in shown]
        cells = [
            f"{temperature_text(study.temperatures[c.best])} [{_ends(c.possible(study.temperatures))}]" for c in choices
        ]
        table.add_row(group.name, str(group.num_problems), *cells)
    return table


def _best_n_table(study: Study) -> Table:
    assert study.bests is not None
    table = _table("best N at each temperature, under the verifier", "")
    for name in ("T", "N*", "not clearly worse", "best-of-N, %", f"loss by N={study.ns[-1]}"):
        table.add_column(name, justify="right" if name in ("T", "N*") else "left")
    for t, choice in zip(study.temperatures, study.bests.over_n_T, strict=True):
        is_last = choice.best == len(study.ns) - 1
        loss = "none" if is_last else _bounds(choice.gain, 100, ".1f")
        table.add_row(
            temperature_text(t),
            str(study.ns[choice.best]),
            ", ".join(map(str, choice.possible(study.ns))),
            _bounds(choice.value, 100, ".1f"),
            loss,
        )
    return table


def _budget_table(study: Study) -> Table:
    table = _table("best pair for a budget of tokens per problem", "completions only: the prompt is not counted")
    for name in ("tokens", "T*", "N*", f"{metric_name(study.main, 'N')}, %", "gain over"):
        table.add_column(name, justify="right" if name in ("tokens", "T*", "N*") else "left")
    for budget in study.budgets:
        t, n = budget.pairs_C[budget.choice.best]
        other_t, other_n = budget.pairs_C[budget.choice.reference]
        table.add_row(
            f"{budget.tokens:g}",
            temperature_text(study.temperatures[t]),
            str(n),
            _bounds(budget.choice.value, 100, ".1f"),
            _gain(budget.choice, f"T={temperature_text(study.temperatures[other_t])}, N={other_n}"),
        )
    return table


def _table(title: str, caption: str) -> Table:
    return Table(title=title, caption=caption or None, title_justify="left", caption_justify="left")


def _grids(study: Study) -> list[Grid]:
    return [study.passes] if study.bests is None else [study.passes, study.bests]


def _optima(study: Study, grid: Grid, group: str, num_problems: int, ns: Sequence[int]) -> list[Row]:
    return [
        {
            "group": group,
            "num_problems": num_problems,
            "metric": grid.metric,
            "n": n,
            **_columns("temperature", choice.label_interval(study.temperatures)),
            "may_be_best": choice.possible(study.temperatures),
            **_columns("value", choice.value),
            "reference_temperature": study.temperatures[choice.reference],
            **_columns("gain", choice.gain),
        }
        for n, choice in zip(ns, grid.over_t_N, strict=True)
    ]


def _columns(name: str, interval: Interval) -> Row:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _zero() -> Interval:
    return Interval(value=0.0, low=0.0, high=0.0)


def _bounds(interval: Interval, scale: int, digits: str) -> str:
    value, low, high = (format(scale * x, digits) for x in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def _gain(choice: Choice, than: str) -> str:
    return f"{than} by {points(choice.gain.value)} [{points(choice.gain.low)}, {points(choice.gain.high)}]"


def _ends(values: Sequence[float]) -> str:
    return (
        temperature_text(values[0])
        if len(values) == 1
        else f"{temperature_text(values[0])}–{temperature_text(values[-1])}"
    )


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(":".join(f"{part:g}" for part in x) if isinstance(x, list) else f"{x:g}" for x in value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
