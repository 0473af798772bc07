"""What ``bontune compare`` and ``bontune sweep`` find, as tables for the terminal and as rows for CSV and JSON.

The tables and the rows hold the same numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bontune.base.text import temperature_text
from bontune.metrics import Interval
from bontune.pools.compare import FEWEST_PROBLEMS, Comparison, Difference, Outcome
from bontune.pools.pool import SUFFIXES
from bontune.report.numbers import (
    change_writer,
    decimals,
    ends_text,
    interval_text,
    metric_writer,
    percent,
    points,
    unit_of,
)
from bontune.report.sentences import has_chance, setting_text
from bontune.report.tables import Cell, Table, interval_columns, measured_cell
from bontune.scaling import Choice, Grid, Law, LawVerdict, Study, advise, advise_all, metric_name

Row: TypeAlias = dict[str, Any]
_ACROSS, _LEVELS_ACROSS = 3, 2
"""Differences beside each other: what 80 columns hold."""
_TWO = decimals(2)


# ---- a sweep: rows ----


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
            **interval_columns(law.a, "a"),
            **interval_columns(law.b, "b"),
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
        row.update(interval_columns(smoothed.get(row["n"], nothing) if is_of_law else nothing, "law_temperature"))
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
            **interval_columns(choice.value, "value"),
            "largest_n": study.ns[-1],
            **interval_columns(choice.gain if choice.best < len(study.ns) - 1 else _zero(), "loss_at_largest"),
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
                **interval_columns(budget.choice.value, "value"),
                "reference_temperature": reference[0],
                "reference_n": reference[1],
                **interval_columns(budget.choice.gain, "gain"),
            }
        )
    return rows


def sweep_json(study: Study, origin: Mapping[str, Any]) -> str:
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


def _grids(study: Study) -> list[Grid]:
    return [study.passes] if study.bests is None else [study.passes, study.bests]


def _optima(study: Study, grid: Grid, group: str, num_problems: int, ns: Sequence[int]) -> list[Row]:
    return [
        {
            "group": group,
            "num_problems": num_problems,
            "metric": grid.metric,
            "n": n,
            **interval_columns(choice.label_interval(study.temperatures), "temperature"),
            "may_be_best": choice.possible(study.temperatures),
            **interval_columns(choice.value, "value"),
            "reference_temperature": study.temperatures[choice.reference],
            **interval_columns(choice.gain, "gain"),
        }
        for n, choice in zip(ns, grid.over_t_N, strict=True)
    ]


def _zero() -> Interval:
    return Interval(value=0.0, low=0.0, high=0.0)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- a sweep: tables ----


def sweep_tables(study: Study) -> Iterator[Table]:
    """The grids, the laws, the best temperatures, the best N, and the budgets."""
    for grid in _grids(study):
        yield _grid_table(study, grid)
    yield _law_table(study)
    yield _optimum_table(study)
    if study.groups:
        yield _group_table(study)
    if study.bests is not None:
        yield _best_n_table(study, study.bests)
    if study.budgets:
        yield _budget_table(study)


def _grid_table(study: Study, grid: Grid) -> Table:
    rows = []
    for i, t in enumerate(study.temperatures):
        marks = ["*" if c.best == i else "~" if c.is_possible_C[i] else " " for c in grid.over_t_N]
        cells = [f"{percent(float(grid.means_TN[i, j]))}{mark}" for j, mark in enumerate(marks)]
        rows.append([temperature_text(t), *cells])
    return Table(
        title=f"{metric_name(grid, 'N')}, %",
        caption=f"{study.num_problems} problems × {study.num_samples} samples or more; "
        "* highest of its column, ~ not clearly below it",
        columns=["T", *(f"N={n}" for n in study.ns)],
        rows=rows,
    )


def _law_table(study: Study) -> Table:
    return Table(
        title="pass@N = exp(a N^b)",
        caption="misses by: largest distance between law and measurement, in points of pass@N",
        columns=["T", "a", "b", "R²", "misses by", "law"],
        rows=[[temperature_text(t), *_law_cells(law)] for t, law in zip(study.temperatures, study.laws, strict=True)],
        words={"law"},
    )


def _law_cells(law: Law) -> list[Cell | str]:
    note = f"; without N = {', '.join(map(str, law.left_out))} (0 or 100 %)" if law.left_out else ""
    if law.verdict is LawVerdict.NOT_FITTED:
        return ["–", "–", "–", "–", law.verdict.value + note]
    r_squared = "–" if math.isnan(law.r_squared) else f"{law.r_squared:.4f}"
    misses = f"{percent(law.deviation)} (N={law.deviation_at})"
    return [measured_cell(law.a, _TWO), measured_cell(law.b, _TWO), r_squared, misses, law.verdict.value + note]


def _optimum_table(study: Study) -> Table:
    grid, t = study.main, study.temperatures
    has_law = study.surface is not None and grid.metric == "pass"
    by_law = {o.n: o.temperature for o in study.surface.optima} if study.surface is not None and has_law else {}
    value = f"{metric_name(grid, 'N')}, %"
    return Table(
        title="best temperature for each N",
        caption="by the law: intervals as if it held" if has_law else "",
        columns=["N", "T*", "not clearly worse", *(["T* by the law"] if has_law else []), value, "gain over"],
        rows=[
            [
                str(n),
                temperature_text(t[choice.best]),
                ", ".join(map(temperature_text, choice.possible(t))),
                *([measured_cell(by_law[n], _TWO)] if has_law else []),
                measured_cell(choice.value, percent),
                _gain(choice, f"T={temperature_text(t[choice.reference])}"),
            ]
            for n, choice in zip(study.ns, grid.over_t_N, strict=True)
        ],
        words={"not clearly worse", "T* by the law", value, "gain over"},
    )


def _group_table(study: Study) -> Table:
    ns, t = study.groups[0].ns, study.temperatures
    shown = ns if len(ns) <= 4 else tuple(dict.fromkeys(ns[round(i * (len(ns) - 1) / 3)] for i in range(4)))
    columns = [f"N={n}" for n in shown]
    rows = []
    for group in study.groups:
        choices = [group.grid.over_t_N[group.ns.index(n)] for n in shown]
        cells = [f"{temperature_text(t[c.best])} [{_range_text(c.possible(t))}]" for c in choices]
        rows.append([group.name, str(group.num_problems), *cells])
    return Table(
        title="best temperature by difficulty",
        caption=f"by {study.difficulty}; in brackets: those not clearly worse",
        columns=["problems", "count", *columns],
        rows=rows,
        words={"problems", *columns},
    )


def _best_n_table(study: Study, grid: Grid) -> Table:
    loss = f"loss by N={study.ns[-1]}"
    rows: list[list[Cell | str]] = []
    for t, choice in zip(study.temperatures, grid.over_n_T, strict=True):
        is_last = choice.best == len(study.ns) - 1
        rows.append(
            [
                temperature_text(t),
                str(study.ns[choice.best]),
                ", ".join(map(str, choice.possible(study.ns))),
                measured_cell(choice.value, percent),
                "none" if is_last else measured_cell(choice.gain, percent),
            ]
        )
    return Table(
        title="best N at each temperature, under the verifier",
        columns=["T", "N*", "not clearly worse", "best-of-N, %", loss],
        rows=rows,
        words={"not clearly worse", "best-of-N, %", loss},
    )


def _budget_table(study: Study) -> Table:
    value = f"{metric_name(study.main, 'N')}, %"
    rows: list[list[Cell | str]] = []
    for budget in study.budgets:
        t, n = budget.pairs_C[budget.choice.best]
        other_t, other_n = budget.pairs_C[budget.choice.reference]
        than = f"T={temperature_text(study.temperatures[other_t])}, N={other_n}"
        best = temperature_text(study.temperatures[t])
        cells = [measured_cell(budget.choice.value, percent), _gain(budget.choice, than)]
        rows.append([f"{budget.tokens:g}", best, str(n), *cells])
    return Table(
        title="best pair for a budget of tokens per problem",
        caption="completions only: the prompt is not counted",
        columns=["tokens", "T*", "N*", value, "gain over"],
        rows=rows,
        words={value, "gain over"},
    )


def _gain(choice: Choice, than: str) -> Cell:
    ends = ends_text(choice.gain, points)
    return Cell(text=f"{than} by {points(choice.gain.value)}", ends=f"[{ends}]" if ends else "")


def _range_text(temperatures: Sequence[float]) -> str:
    ends = dict.fromkeys((temperature_text(temperatures[0]), temperature_text(temperatures[-1])))
    return "–".join(ends)


# ---- a comparison: tables ----


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """Budgets down and models across, a table for each family of metrics; then the levels."""
    families = list(dict.fromkeys(difference.family for difference in comparison.differences))
    where = setting_text(comparison.sampled)
    num_problems = comparison.differences[0].num_problems
    for family in families:
        rows = [difference for difference in comparison.differences if difference.family == family]
        title = f"{family}@k{f', {where}' if where else ''}"
        what = "percent, and differences in points" if rows[0].is_share else "rewards, and their differences"
        caption = f"{what} with 95 % intervals, paired over {num_problems} problems"
        caption += f"; no interval over fewer than {FEWEST_PROBLEMS}" if num_problems < FEWEST_PROBLEMS else ""
        caption += "; T: each one's own" if comparison.sampled.own_temperatures else ""
        yield from _difference_tables(title, "k", rows, [difference.k for difference in rows], caption)
    yield from _chance_tables(comparison)
    if comparison.by_level:
        rows = list(comparison.by_level)
        title = f"{rows[0].metric} by difficulty{f', {where}' if where else ''}"
        caption = "level 1 is the easiest"
        if any(difference.low is None for difference in rows):
            caption += f"; no interval over fewer than {FEWEST_PROBLEMS} problems"
        yield from _difference_tables(title, "level", rows, [difference.level for difference in rows], caption)


def _chance_tables(comparison: Comparison) -> Iterator[Table]:
    """What of each model's pass@k lies above chance, a few models a table; none where there is no chance to see."""
    levels, above = comparison_curves(comparison, "chance"), comparison_curves(comparison, "above")
    names = [name for name, curve in levels.items() if curve]
    labels, where = _labels(list(levels)), setting_text(comparison.sampled)
    for start in range(0, len(names), _ACROSS):
        shown = names[start : start + _ACROSS]
        yield Table(
            title=f"pass@k − chance@k{f', {where}' if where else ''}",
            caption="points with 95 % intervals; in parentheses chance@k, the percent that guessing solves",
            columns=["k", *(labels[name] for name in shown)],
            rows=[
                [str(k), *(f"{interval_text(above[n][k], points)} ({percent(levels[n][k].value)})" for n in shown)]
                for k in levels[shown[0]]
            ],
        )


def _difference_tables(
    title: str, key: str, differences: Sequence[Difference], keys: Sequence[int | None], caption: str
) -> Iterator[Table]:
    """The differences of all models, a few models a table."""
    by_key: dict[int | None, dict[str, Difference]] = {}
    for at, difference in zip(keys, differences, strict=True):
        by_key.setdefault(at, {})[difference.a] = difference
    is_share, reference = differences[0].is_share, differences[0].b
    names = list(dict.fromkeys(difference.a for difference in differences))
    labels = _labels([reference, *names])
    is_level = key == "level"
    across = _LEVELS_ACROSS if is_level or differences[0].a_temperature is not None else _ACROSS
    write, write_change = metric_writer(is_share), change_writer(is_share)
    for start in range(0, len(names), across):
        shown = names[start : start + across]
        rows = []
        for at, by_name in by_key.items():
            first = by_name[shown[0]]
            counts = [str(first.num_problems)] if is_level else []
            cells = [interval_text(by_name[n], write_change) + _at(by_name[n].a_temperature) for n in shown]
            rows.append([str(at), *counts, write(first.b_value) + _at(first.b_temperature), *cells])
        heads = [f"{labels[name]} − {labels[reference]}" for name in shown]
        columns = [key, *(["problems"] if is_level else []), f"{labels[reference]}, {unit_of(is_share)}", *heads]
        yield Table(title=title, caption=caption, columns=columns, rows=rows)


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Each name's last part, without a pool's ending; the whole names where two would be the same.

    >>> _labels(["runs/a", "pools/b.parquet"]), _labels(["x/a", "y/a"])
    ({'runs/a': 'a', 'pools/b.parquet': 'b'}, {'x/a': 'x/a', 'y/a': 'y/a'})
    """
    short = {name: Path(name).stem if name.endswith(SUFFIXES) else Path(name).name or name for name in names}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}


def _at(temperature: float | None) -> str:
    return "" if temperature is None else f" T {temperature_text(temperature)}"


# ---- a comparison: rows ----


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every difference as plain data."""
    sampled = comparison.sampled
    return [
        {
            "setting": setting_text(sampled) or "as drawn",
            "run": d.a,
            "reference": d.b,
            "metric": d.family,
            "k": d.k,
            "level": d.level,
            "problems": d.num_problems,
            "run_value": d.a_value,
            "reference_value": d.b_value,
            "difference": d.value,
            "low": d.low,
            "high": d.high,
            "band_low": None if d.band is None else d.band.low,
            "band_high": None if d.band is None else d.band.high,
            "verdict": (Outcome.UNCLEAR if d.outcome is Outcome.UNKNOWN else d.outcome).value,
            "run_temperature": sampled.temperature if d.a_temperature is None else d.a_temperature,
            "reference_temperature": (sampled.temperature if d.b_temperature is None else d.b_temperature),
        }
        for d in (*comparison.differences, *comparison.by_level)
    ]


def comparison_curves(comparison: Comparison, family: str) -> dict[str, dict[int, Interval]]:
    """Model → k → its value with its interval, as :func:`bontune.report.curves.draw_curves` takes them.

    Of a chance level that is nearly 0 there is no curve.
    """
    is_hidden = family in ("chance", "above") and not any(map(has_chance, comparison.values.values()))
    return {
        name: {
            int(metric.partition("@")[2]): interval
            for metric, interval in values.items()
            if metric.partition("@")[0] == family and not is_hidden
        }
        for name, values in comparison.values.items()
    }


def comparison_tree(comparison: Comparison, sentences: Sequence[str]) -> dict[str, Any]:
    """Everything about one comparison, for JSON."""
    sampled = comparison.sampled
    temperatures: Mapping[str, Mapping[str, float]] = sampled.own_temperatures
    families = [*dict.fromkeys(difference.family for difference in comparison.differences), "chance", "above"]
    curves = {family: comparison_curves(comparison, family) for family in families}
    return {
        "temperature": sampled.temperature,
        "own_temperatures": {name: dict(chosen) for name, chosen in temperatures.items()} or None,
        "findings": list(sentences),
        "differences": comparison_rows(comparison),
        "curves": {
            family: {name: curve_tree(curve) for name, curve in by_name.items()}
            for family, by_name in curves.items()
            if any(by_name.values())
        },
    }


def curve_tree(curve: Mapping[int, Interval]) -> dict[str, list[float]]:
    """A curve over k as plain data, for JSON."""
    return {
        "k": [float(k) for k in curve],
        "value": [i.value for i in curve.values()],
        "low": [i.low for i in curve.values()],
        "high": [i.high for i in curve.values()],
    }
