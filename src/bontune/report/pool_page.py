"""The page of one or several pools: what came out, curves, differences, and every problem with its samples.

One file that loads nothing. Its script is the only one that its content security policy allows, by hash; completions
travel as packed JSON and are shown as text, so that nothing a model wrote can run or change the page.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

import bontune.scaling as scaling
from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.base.settings import differing
from bontune.base.text import temperature_text
from bontune.metrics import Interval, RewardScale, reward_scale
from bontune.metrics.evaluation import MEANINGS
from bontune.pools import compare
from bontune.pools.compare import Difference, Outcome
from bontune.pools.pool import Pool
from bontune.report.curves import draw_curves
from bontune.report.failures import endings_note, reason_table
from bontune.report.numbers import (
    NOT_MEASURED,
    change_writer,
    counted,
    ends_text,
    metric_writer,
    percent,
    points_unit,
    split_metric,
    typographic,
)
from bontune.report.page import Picture, drawing, facts, picture, write_page
from bontune.report.pool_data import (
    FAMILY_LABELS,
    MAX_PACKED_BYTES,
    EvaluatedPool,
    are_of_same_problems,
    as_json_element,
    browsable,
    curve_rows,
    level_rows,
    level_table,
    main_family,
    number_table,
    pool_difference_rows,
    pool_differences,
    pool_evaluation,
    problem_sheet,
    shown_differences,
    shown_families,
)
from bontune.report.result_tables import Row, grid_rows, optimum_rows
from bontune.report.sentences import MARKS, READINGS, chance_notes, difference_ends, has_chance, ranges, scale_note
from bontune.report.sweep_figures import draw_bests, draw_grid, draw_optimum
from bontune.report.tables import Cell, Table, as_csv, measured_cell
from bontune.training.read_log import finite

_ASSETS = Path(__file__).parent
_BANDS = "Bands: 95 % intervals over problems."
_NARROW = (3.7, 3.9)
"""Inches of a chart on a telephone."""


def write_pool_report(
    pools: Mapping[str, Pool],
    path: str | os.PathLike[str],
    *,
    csv_folder: str | os.PathLike[str],
    ks: Sequence[int] | None = None,
    solved_at: float | None = None,
) -> Path:
    """Write the page of pools, and the numbers behind its figures and tables as CSV.

    Several pools of the same problems are compared with the first, paired by problem; if they differ in temperature
    and in nothing else, there is a map of temperature and N.

    Args:
        pools: name → pool, one or more.
        path: of the page; missing parent folders are made.
        csv_folder: for ``curves.csv``, ``problems.csv`` and, where there is such a table, ``differences.csv``,
            ``levels.csv``, ``temperatures.csv`` and ``optimum.csv``.
        ks: budgets; default: powers of two.
        solved_at: reward from which on a sample counts as solved; see :func:`bontune.metrics.reward_scale`.

    Returns:
        The path.

    Raises:
        BontuneError: a k beyond the samples, a pool that cannot be evaluated, or a file that cannot be written.
    """
    scale = reward_scale((pool.columns["reward"] for pool in pools.values()), solved_at)
    measured = [pool_evaluation(name, pool, ks, scale) for name, pool in pools.items()]
    differences = pool_differences(measured) if are_of_same_problems(measured) else []
    sweep = sweep_part(measured, scale)
    _write_sheets(measured, differences, sweep, Path(csv_folder))
    budget = MAX_PACKED_BYTES // len(measured)
    browse = [browsable(one.name, one.pool, budget, scale) for one in measured]
    script = (_ASSETS / "pool_report.js").read_text(encoding="utf-8")
    context = {
        "title": f"Best-of-N report: {', '.join(pools)}",
        "heading": f"{'Pool' if len(pools) == 1 else 'Pools'} {', '.join(pools)}",
        "headline": headline(measured),
        "choices": _choices(measured[0]) if len(measured) == 1 else "",
        "findings": _findings(measured, differences),
        "notes": [*_notes(measured), *([note] if (note := scale_note(scale)) else [])],
        "sweep": sweep,
        "charts": _charts(measured),
        "numbers": [number_table(one) for one in measured],
        "differences": _difference_table(shown_differences(differences)) if differences else None,
        "reasons": [grid for one in measured if (grid := reason_table(one.name, one.pool)) is not None],
        "levels": [grid for one in measured if (grid := level_table(one)) is not None],
        "settings": [(one.name, facts(one.pool.settings)) for one in measured if one.pool.settings],
        "reading": _reading(measured),
        "csv_folder": Path(csv_folder).name,
        "pools": [(one.index["name"], as_json_element(one.index), as_json_element(one.packed)) for one in browse],
        "style": Markup((_ASSETS / "pool_report.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    }
    return write_page("pool.html.jinja", path, context)


def headline(measured: Sequence[EvaluatedPool]) -> str:
    """Say what was measured and what came out, in one sentence with intervals."""
    first = measured[0]
    if len(measured) == 1:
        return f"{_size(first)}: {_outcome(first)}."
    sizes = {_size(one) for one in measured}
    drawn = f"{counted(len(measured), 'pool')} of {_size(first) if len(sizes) == 1 else 'different sizes'}"
    family = main_family(measured)
    shared = sorted(set.intersection(*(set(one.points(family)) for one in measured)))
    if not shared:
        return f"{drawn}, without a budget k that all of them have."
    k = shared[-1]
    values = [f"{_value(one, family, k)} for {one.name}" for one in measured]
    listed = ", ".join(values) if len(values) <= 4 else f"from {_extremes(measured, family, k)}"
    return f"{drawn}: {family}@{k} is {listed} (95 % intervals)."


def _size(one: EvaluatedPool) -> str:
    return f"{counted(one.num_samples, 'sample')} of each of {counted(len(one.pool.problem_ids), 'problem')}"


def _outcome(one: EvaluatedPool) -> str:
    """``one sample solves 13.8 % (95 % interval 12.1–15.6), and at least one of 64 solves 71.2 % (…)``."""
    first, last = one.ks[0], one.ks[-1]
    if one.base == "max":
        parts = [
            f"the highest reward of {counted(k, 'sample')} is {_value(one, 'max', k, k == first)} on average"
            for k in dict.fromkeys((first, last))
        ]
    else:
        start = "one sample solves" if first == 1 else f"at least one of {first} solves"
        parts = [f"{start} {_value(one, 'pass', first, True)}"]
        parts += [f"at least one of {last} solves {_value(one, 'pass', last)}"] if last > first else []
    return ", and ".join(parts)


def _choices(one: EvaluatedPool) -> str:
    """Say what picking one of all samples yields; empty if nothing picks."""
    last = one.ks[-1]
    who = {"best": "the verifier's choice", "majority": "the most frequent answer"}
    parts = [
        f"{name} {'is right for' if one.is_share(family) else 'earns'} {_value(one, family, last)}"
        for family, name in who.items()
        if family in one.families and last > 1
    ]
    return f"Among {last}, {', and '.join(parts)}." if parts else ""


def _value(one: EvaluatedPool, family: str, k: int, is_first: bool = False) -> str:
    """A metric with its unit and interval; the first of a sentence says that it is one."""
    interval, is_share = one.points(family)[k], one.is_share(family)
    write = percent if is_share else lambda x: f"{x:.3g}"
    ends = ends_text(interval, write, "–" if is_share else " to ")
    name = "95 % interval " if is_first else ""
    return f"{write(interval.value)}{' %' if is_share else ''}" + (f" ({name}{ends})" if ends else "")


def _extremes(measured: Sequence[EvaluatedPool], family: str, k: int) -> str:
    ordered = sorted(measured, key=lambda one: one.points(family)[k].value)
    low, high = ordered[0], ordered[-1]
    return f"{_value(low, family, k)} for {low.name} to {_value(high, family, k)} for {high.name}"


def _findings(measured: Sequence[EvaluatedPool], differences: Sequence[Difference]) -> list[dict[str, str]]:
    """The differences at the largest budget, of the metric of the headline."""
    family = main_family(measured)
    of_family = [entry for entry in differences if split_metric(entry.metric)[0] == family]
    largest = max((split_metric(entry.metric)[1] or 0 for entry in of_family), default=0)
    chosen = [entry for entry in of_family if split_metric(entry.metric)[1] == largest]
    over_all = _over_all(measured, family) if differences else {}
    return [
        {"text": f"{_sentence(entry)}{over_all.get(entry.a, '')}", "mark": MARKS[entry.outcome]} for entry in chosen
    ]


def _over_all(measured: Sequence[EvaluatedPool], family: str) -> dict[str, str]:
    """Pool → where it is ahead of the first and where behind, by a band that holds at every k together."""
    first, *others = measured
    sentences = {}
    for other in others:
        ks = [k for k in first.ks if k in first.points(family) and k in other.points(family)]
        if len(ks) < 3:  # the sentences about single budgets say it
            continue
        both = {first.name: first.evaluation, other.name: other.evaluation}
        outcomes = [(entry.k, entry.outcome_of_all) for entry in compare.over_budgets(both, family, ks)]
        if any(outcome is not Outcome.UNKNOWN for _, outcome in outcomes):
            is_graded = not first.is_share(family)
            sentences[other.name] = f" Over all N at once: {ranges(outcomes, is_graded=is_graded)}."
    return sentences


def _sentence(entry: Difference) -> str:
    by, unit = typographic(change_writer(entry.is_share)(entry.value)), points_unit(entry.is_share)
    if entry.outcome is Outcome.UNKNOWN:
        return f"{entry.a}: {entry.metric} differs from {entry.b}'s by {by}{unit}: {entry.why_unknown}."
    ends = difference_ends(entry)
    span = f" (95 % interval {ends})" if ends else ""
    if entry.outcome is Outcome.UNCLEAR:
        return f"{entry.a}: no clear difference from {entry.b} in {entry.metric}, {by}{unit}{span}."
    direction = "higher" if entry.outcome is Outcome.MORE else "lower"
    size = metric_writer(entry.is_share)(abs(entry.value))
    return f"{entry.a}: {entry.metric} is {size}{unit} {direction} than {entry.b}'s{span}."


def _notes(measured: Sequence[EvaluatedPool]) -> list[str]:
    notes = []
    for one in measured:
        settings = one.pool.settings
        if "model" in settings and "task" in settings:
            temperature = settings.get("temperature")
            at = f" at temperature {temperature:g}" if isinstance(temperature, (int, float)) else ""
            notes.append(
                f"{one.name}: drawn from {settings['model']}{at}; task {settings['task']}, {settings.get('split')} "
                f"split; verifier: {settings.get('verifier')}."
            )
        if one.pool.num_grader_errors:
            notes.append(
                f"{one.name}: {counted(one.pool.num_grader_errors, 'completion')} could not be graded; they count as "
                "wrong."
            )
        if ending := endings_note(one.pool):
            notes.append(f"{one.name}: {ending}")
    notes += map(typographic, chance_notes({one.name: (one.evaluation, one.intervals) for one in measured}))
    if not are_of_same_problems(measured):
        notes.append("The pools hold different problems: there are no paired differences.")
    return notes


def _charts(measured: Sequence[EvaluatedPool]) -> list[Picture]:
    """Draw all metrics of selection of one pool in one figure; of several pools, a figure for each metric."""
    families = shown_families(measured)
    if len(measured) == 1:
        one = measured[0]
        charts = []
        for is_share in (True, False):  # shares and rewards have an axis each
            chosen = [family for family in families if one.is_share(family) == is_share]
            curves = {f"{family}@k": one.points(family) for family in chosen}
            caption = f"{'; '.join(f'{family}@k: {FAMILY_LABELS[family]}' for family in chosen)}. {_BANDS}"
            name = "What selection yields" + ("" if is_share or len(chosen) == len(families) else ", in rewards")
            chance = {"pass@k": _chance(one)} if "pass" in chosen else {}
            charts += [_chart(curves, name, caption, is_share=is_share, chance=chance)] if chosen else []
        return charts
    return [
        _chart(
            {one.name: one.points(family) for one in measured if one.points(family)},
            f"{family}@k, {FAMILY_LABELS[family]}",
            _BANDS,
            is_share=measured[0].is_share(family),
            chance={one.name: _chance(one) for one in measured} if family == "pass" else {},
        )
        for family in families
    ]


def _chance(one: EvaluatedPool) -> dict[int, Interval]:
    """The chance level at each k; empty where there is none, or none to see."""
    return one.points("chance") if has_chance(one.intervals) else {}


def _chart(
    curves: Mapping[str, Mapping[int, Interval]],
    heading: str,
    caption: str,
    *,
    is_share: bool,
    chance: Mapping[str, Mapping[int, Interval]],
) -> Picture:
    plot = draw_curves(curves, title=heading, is_share=is_share, chance=chance)
    short = heading.partition(", ")[0]
    narrow = draw_curves(curves, title=short, is_share=is_share, chance=chance, size=_NARROW)
    plot = dataclasses.replace(plot, description=f"{plot.description} The table below holds every number.")
    chart = drawing(plot, heading=heading, caption=caption)
    return dataclasses.replace(chart, narrow=drawing(narrow, heading="", caption="").source)


def _difference_table(differences: Sequence[Difference]) -> Table:
    caption = (
        "Paired by problem; shares in percentage points, graded rewards as numbers. A difference counts as better or "
        "worse only if its 95 % interval excludes 0."
    )
    unknown = next((entry for entry in differences if entry.outcome is Outcome.UNKNOWN), None)
    caption += f" No interval: {unknown.why_unknown}." if unknown is not None else ""
    return Table(
        caption=caption,
        columns=["Difference", "Metric", "Value", "95 % interval", "Reading"],
        rows=[
            [
                f"{entry.a} − {entry.b}",
                f"{entry.metric}, {'points' if entry.is_share else 'reward'}",
                typographic(change_writer(entry.is_share)(entry.value)),
                difference_ends(entry) or NOT_MEASURED,
                READINGS[entry.outcome],
            ]
            for entry in differences
        ],
    )


def _reading(measured: Sequence[EvaluatedPool]) -> list[str]:
    families = {family for one in measured for family in one.families}
    notes = [
        "Every value is the mean over all subsets of k of a problem's samples, then over the problems: unbiased for "
        "each k up to the number of samples, and steady up to about half of it.",
        "Intervals are over problems: how far a number may move with other problems of the same kind.",
    ]
    if any(map(_chance, measured)):
        notes.append(
            f"chance@k: {MEANINGS['chance']}; above@k: {MEANINGS['above']}. Intervals of both are over problems, each "
            "taken as one that is guessed for and as one whose reference is hit."
        )
    if any(one.points("all") for one in measured):
        notes.append(f"all@k: {MEANINGS['all']}: how far one answer can be relied on.")
    if "best" in families:
        notes += [f"{family}@k: {MEANINGS[family]}." for family in ("gap", "drop")]
    elif any(one.pool.scores() is not None for one in measured):
        notes.append("The verifier's scores are the rewards themselves, so its choice is right wherever one can be.")
    return notes


def _write_sheets(
    measured: Sequence[EvaluatedPool], differences: Sequence[Difference], sweep: SweepPart | None, folder: Path
) -> None:
    sheets: dict[str, list[dict[str, Any]]] = {
        "curves": curve_rows(measured),
        "differences": pool_difference_rows(differences),
        "problems": list(problem_sheet(measured)),
        "levels": [row for one in measured for row in level_rows(one)],
    }
    sheets |= sweep.sheets if sweep is not None else {}
    for name, rows in sheets.items():
        if rows:
            write_whole(folder / f"{name}.csv", as_csv(rows).encode("utf-8", errors="replace"), "numbers")


SHARED = ("model", "task", "task_options", "split", "verifier", "top_p", "max_new_tokens")
"""Settings in which the pools of a sweep agree, so that temperature is the one thing that differs."""


def setting_differences(one: Pool, other: Pool) -> list[str]:
    """The settings in which two pools of a sweep differ and must not; a file under another path may hold the same."""
    ours, theirs = ({name: pool.settings.get(name) for name in (*SHARED, "contents")} for pool in (one, other))
    return [name for name in dict.fromkeys(n.split(".")[0] for n in differing(ours, theirs)) if name != "contents"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPart:
    """The part of a page that shows a sweep."""

    advice: list[str]
    """Sentences that say which temperature to use."""
    figures: list[Picture]
    """The figures, the map of T and N first."""
    tables: list[Table]
    """The tables with the numbers of the map."""
    sheets: dict[str, list[Row]]
    """Rows of each CSV file beside the page, by the name of the file."""


def sweep_part(pools: Sequence[EvaluatedPool], scale: RewardScale) -> SweepPart | None:
    """The study of pools that differ in temperature and in nothing else; None of any others.

    Args:
        pools: one for each temperature.
        scale: of their rewards: samples are solved or not in a sweep.

    Raises:
        BontuneError: a figure cannot be drawn.
    """
    study = _study(pools, scale)
    if study is None:
        return None
    grids = [study.passes] if study.bests is None else [study.passes, study.bests]
    figures = [
        picture(draw_grid(study, grid), heading=f"{scaling.metric_name(grid, 'N')} by temperature and N")
        for grid in grids
    ]
    if study.bests is not None:
        figures.append(picture(draw_bests(study), heading="Where more samples stop to help"))
    figures.append(picture(draw_optimum(study), heading="The best temperature for each N"))
    return SweepPart(
        advice=[typographic(line) for line in scaling.advise_all(study)],
        figures=figures,
        tables=[_table(study, grid) for grid in grids],
        sheets={"temperatures": grid_rows(study), "optimum": optimum_rows(study)},
    )


def _study(pools: Sequence[EvaluatedPool], scale: RewardScale) -> scaling.Study | None:
    temperatures = [measured.pool.settings.get("temperature") for measured in pools]
    is_sweep = len(pools) > 1 and all(isinstance(t, (int, float)) and t > 0 for t in temperatures)
    if not is_sweep or len(set(temperatures)) < len(pools):
        return None
    if any(setting_differences(pools[0].pool, measured.pool) for measured in pools):
        return None
    ns = sorted(set.intersection(*(set(measured.ks) for measured in pools)))
    if not ns:
        return None
    try:
        return scaling.study([swept_pool(float(m.pool.settings["temperature"]), m.pool, scale) for m in pools], ns=ns)
    except BontuneError:  # rewards that are not 0 and 1, or other problems: no sweep, but pools to report all the same
        return None


def swept_pool(temperature: float, pool: Pool, scale: RewardScale) -> scaling.SweepPool:
    """A pool of a sweep: 1 for what counts as solved and 0 for all else, where the scale says so."""
    rewards, scores = np.array(pool.rewards(scale)), pool.scores()
    tokens = [count for row in pool.columns.get("num_tokens", []) for count in row]
    is_known = bool(tokens) and all(finite(count) is not None for count in tokens)
    return scaling.SweepPool(
        temperature=temperature,
        problem_ids=pool.problem_ids,
        rewards_PM=rewards if scale.solved_at is None else scale.solved(rewards),
        scores_PM=None if scores is None else np.array(scores),
        tokens=float(np.mean(tokens)) if is_known else None,
        levels_P=pool.levels(),
    )


def _table(study: scaling.Study, grid: scaling.Grid) -> Table:
    rows: list[list[Cell | str]] = []
    for i, t in enumerate(study.temperatures):
        values = [
            Interval(value=float(value), low=float(low), high=float(high))
            for value, low, high in zip(grid.means_TN[i], grid.low_TN[i], grid.high_TN[i], strict=True)
        ]
        rows.append([temperature_text(t), *(measured_cell(value, percent, "–") for value in values)])
    return Table(
        caption=f"{scaling.metric_name(grid, 'N')} in percent, with 95 % intervals.",
        columns=["Temperature", *(f"N = {n}" for n in study.ns)],
        rows=rows,
    )
