"""A comparison in words, as tables on the terminal, and as rows for CSV and JSON: the same numbers in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from bontune.base.text import temperature_text
from bontune.pools.compare import FEWEST_PROBLEMS, Comparison, Difference, Outcome, Sampled
from bontune.pools.pool import SUFFIXES
from bontune.report.numbers import capitalized, of_points, signed, unit_of, written

_NO_CLAIM = (Outcome.UNCLEAR, Outcome.UNKNOWN)
_ACROSS, _LEVELS_ACROSS = 3, 2
"""Differences beside each other: what 80 columns hold."""


def findings(comparison: Comparison, *, k: int, verifier: str, is_alone: bool = True) -> list[str]:
    """What the numbers say, in a few sentences for each model: at ``k``, at the smallest budget, and over all of them.

    Args:
        comparison: what was found; of several families of metrics the last is spoken about.
        k: the budget to speak about first.
        verifier: what picks, for the metrics ``best@k``.
        is_alone: there is no other comparison, at another temperature, to tell this one from.
    """
    family = comparison.differences[-1].family
    found: dict[str, list[Difference]] = {}
    for difference in comparison.differences:
        if difference.family == family:
            found.setdefault(difference.a, []).append(difference)
    where = "" if is_alone else setting_text(comparison.sampled)
    joint = ", at" if comparison.sampled.own_temperatures else " and"
    start = f"{capitalized(where)}{joint}" if where else "At"
    picked = f", picked by {verifier}," if family == "best" else ""
    return [f"{start} N = {k}{picked} {_sentence(of, k)} {_by_budget(of)}".strip() for of in found.values()]


def setting_text(sampled: Sampled) -> str:
    """How the models were sampled, for a title; empty for pools."""
    if sampled.own_temperatures:
        return "each at its own best temperature"
    return "" if sampled.temperature is None else f"at T = {temperature_text(sampled.temperature)}"


def _sentence(of: Sequence[Difference], k: int) -> str:
    """Say how a model compares at ``k`` and at the smallest budget."""
    main, first = next(difference for difference in of if difference.k == k), of[0]
    own = ""
    if main.a_temperature is not None and main.b_temperature is not None:
        ours, theirs = temperature_text(main.a_temperature), temperature_text(main.b_temperature)
        own = f", both at T = {ours}" if ours == theirs else f", T = {ours} against {theirs}"
    unit = of_points(main.is_share)
    if main.outcome is Outcome.UNKNOWN:
        text = f"the difference between {main.a} and {main.b} is {_signed(main)}{unit}{own}: {main.why_unknown}"
    elif main.outcome is Outcome.UNCLEAR:
        text = f"there is no clear difference between {main.a} and {main.b} ({_signed(main)}{unit}{own})"
    else:
        verb = "solves" if main.is_share else "scores"
        text = f"{main.a} {verb} {_size(main)}{unit} {_word(main)} than {main.b} {_span(main)}{own}"
    if first.k == k or all(difference.outcome in _NO_CLAIM for difference in of):
        return f"{text}."
    if first.outcome in _NO_CLAIM:
        said = "there is no interval" if first.outcome is Outcome.UNKNOWN else "there is no clear difference"
        return f"{text}; at N = {first.k} {said} ({_signed(first)})."
    return f"{text}; at N = {first.k}, {_size(first)} {_word(first)} {_span(first)}."


def _by_budget(of: Sequence[Difference]) -> str:
    """Say where a model is ahead and where behind, by the band; empty if :func:`_sentence` has said all there is."""
    if len(of) < 3 or all(difference.outcome_of_all is Outcome.UNKNOWN for difference in of):
        return ""
    return f"Over all N at once: {ranges([(d.k, d.outcome_of_all) for d in of], is_graded=not of[0].is_share)}."


def ranges(outcomes: Sequence[tuple[int, Outcome]], *, is_graded: bool = False) -> str:
    """``clearly more up to N = 4; no clear difference at N = 8; clearly fewer from N = 16 on``.

    Args:
        outcomes: (k, what a difference amounts to by a band over all k), k ascending.
        is_graded: say "less" for "fewer".
    """
    runs: list[tuple[Outcome, list[int]]] = []
    for k, outcome in outcomes:
        if not runs or runs[-1][0] is not outcome:
            runs.append((outcome, []))
        runs[-1][1].append(k)
    parts = []
    for number, (outcome, ks) in enumerate(runs):
        is_unclear = outcome in _NO_CLAIM
        less = "less" if is_graded and outcome is Outcome.FEWER else outcome.value
        name = "no interval" if outcome is Outcome.UNKNOWN else "no clear difference"
        name = name if is_unclear else f"clearly {less}"
        if len(runs) == 1:
            where = "at any N" if is_unclear else "at every N"
        elif len(ks) == 1:
            where = f"at N = {ks[0]}"
        elif number == 0:
            where = f"up to N = {ks[-1]}"
        elif number == len(runs) - 1:
            where = f"from N = {ks[0]} on"
        else:
            where = f"from N = {ks[0]} to {ks[-1]}"
        parts.append(f"{name} {where}")
    return "; ".join(parts)


def _word(difference: Difference) -> str:
    is_less = difference.outcome is Outcome.FEWER and not difference.is_share
    return "less" if is_less else difference.outcome.value


def _size(difference: Difference) -> str:
    return written(abs(difference.value), is_share=difference.is_share)


def _span(difference: Difference) -> str:
    """The interval of :func:`_size`; only for differences that exclude 0."""
    ends = sorted((abs(difference.low or 0.0), abs(difference.high or 0.0)))
    low, high = (written(end, is_share=difference.is_share) for end in ends)
    return f"[{low}, {high}]"


def _signed(difference: Difference) -> str:
    """``+0.4 [-1.2, +2.1]``; without an interval where there is none."""
    numbers = [difference.value] if difference.low is None else [difference.value, difference.low, difference.high]
    value, *ends = (signed(x, is_share=difference.is_share) for x in numbers if x is not None)
    return f"{value} [{', '.join(ends)}]" if ends else value


def terminal_tables(comparison: Comparison) -> Iterator[Table]:
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
        yield from _tables(title, "k", rows, [difference.k for difference in rows], caption)
    if comparison.by_level:
        rows = list(comparison.by_level)
        title = f"{rows[0].metric} by difficulty{f', {where}' if where else ''}"
        levels = [difference.level for difference in rows]
        caption = "level 1 is the easiest"
        if any(difference.low is None for difference in rows):
            caption += f"; no interval over fewer than {FEWEST_PROBLEMS} problems"
        yield from _tables(title, "level", rows, levels, caption)


def _tables(
    title: str, key: str, rows: Sequence[Difference], keys: Sequence[int | None], caption: str
) -> Iterator[Table]:
    """The differences of all models, a few models a table."""
    cells: dict[int | None, dict[str, Difference]] = {}
    for at, row in zip(keys, rows, strict=True):
        cells.setdefault(at, {})[row.a] = row
    names = list(dict.fromkeys(row.a for row in rows))
    labels = _labels([rows[0].b, *names])
    across = _LEVELS_ACROSS if key == "level" or rows[0].a_temperature is not None else _ACROSS
    for start in range(0, len(names), across):
        shown = names[start : start + across]
        table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
        table.add_column(key, justify="right")
        if key == "level":
            table.add_column("problems", justify="right")
        table.add_column(f"{labels[rows[0].b]}, {unit_of(rows[0].is_share)}", justify="right", overflow="fold")
        for name in shown:
            title_of = f"{labels[name]} − {labels[rows[0].b]}"
            table.add_column(title_of, justify="right", overflow="fold")
        for at, of_name in cells.items():
            first = of_name[shown[0]]
            counts = [str(first.num_problems)] if key == "level" else []
            own = _at(first.b_temperature)
            differences = [_signed(of_name[name]) + _at(of_name[name].a_temperature) for name in shown]
            value = written(first.b_value, is_share=first.is_share)
            table.add_row(str(at), *counts, value + own, *differences)
        yield table


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Each name's last part, without a pool's ending; the whole names where two would be the same.

    >>> _labels(["runs/a", "pools/b.parquet"]), _labels(["x/a", "y/a"])
    ({'runs/a': 'a', 'pools/b.parquet': 'b'}, {'x/a': 'x/a', 'y/a': 'y/a'})
    """
    short = {name: Path(name).stem if name.endswith(SUFFIXES) else Path(name).name or name for name in names}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}


def _at(temperature: float | None) -> str:
    return "" if temperature is None else f" T {temperature_text(temperature)}"


def rows_of(comparison: Comparison) -> list[dict[str, Any]]:
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


def curves_of(comparison: Comparison, family: str) -> dict[str, dict[str, list[float]]]:
    """Model → its curve over k with its band, as :func:`bontune.report.curves.plot_pass_at_k` takes them."""
    curves: dict[str, dict[str, list[float]]] = {}
    for name, values in comparison.values.items():
        of_family = {int(m.partition("@")[2]): i for m, i in values.items() if m.partition("@")[0] == family}
        curves[name] = {
            "k": [float(k) for k in of_family],
            "value": [i.value for i in of_family.values()],
            "low": [i.low for i in of_family.values()],
            "high": [i.high for i in of_family.values()],
        }
    return curves


def tree_of(comparison: Comparison, sentences: Sequence[str]) -> dict[str, Any]:
    """Everything about one comparison, for JSON."""
    sampled = comparison.sampled
    temperatures: Mapping[str, Mapping[str, float]] = sampled.own_temperatures
    families = list(dict.fromkeys(difference.family for difference in comparison.differences))
    return {
        "temperature": sampled.temperature,
        "own_temperatures": {name: dict(of) for name, of in temperatures.items()} or None,
        "findings": list(sentences),
        "differences": rows_of(comparison),
        "curves": {family: curves_of(comparison, family) for family in families},
    }
