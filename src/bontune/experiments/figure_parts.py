"""What the figures of a suite share: arms' looks and labels, captions, columns, a plot with its numbers as CSV."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import figure as mpl
from matplotlib.axes import Axes

from bontune.base.files import write_whole
from bontune.experiments.results import Results
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.metrics import Interval
from bontune.report.figure import Curve, Plot, percent_axis, points_axis, title, zero_line
from bontune.report.numbers import counted
from bontune.report.style import Family, Look, family_of, looks
from bontune.report.tables import as_csv

Points = Sequence[tuple[float, Interval]]
"""x → a value with its interval, x ascending."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A picture on disk with the numbers that are in it."""

    name: str
    """Name of the picture's files, without ending."""
    title: str
    """Title: what is shown, not what was found."""
    caption: str
    """Caption: conditions and intervals."""
    png: Path
    """The picture itself."""
    csv: Path
    """The numbers; the header says whether they are fractions or points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuitePlot:
    """A picture before it is written, with the numbers that are in it."""

    name: str
    """Name of the picture's files, without ending."""
    title: str
    """Title: what is shown, not what was found."""
    caption: str
    """Caption: conditions and intervals."""
    figure: mpl.Figure
    """The picture itself."""
    rows: list[dict[str, Any]]
    """The numbers in it, all with the same keys."""

    def write(self, out: Path) -> Figure:
        """Write NAME.png and NAME.csv, each whole or not at all.

        Raises:
            BontuneError: a file cannot be written.
        """
        csv = write_whole(out / f"{self.name}.csv", as_csv(self.rows), "table")
        plot = Plot(figure=self.figure, title=self.title, description=f"{self.title}. {self.caption}")
        png = plot.save(out / f"{self.name}.png")
        return Figure(name=self.name, title=self.title, caption=self.caption, png=png, csv=csv)


# ---- arms ----


def arm_family(suite: Suite, arm: str) -> Family | None:
    """The family of an arm, by its recipe."""
    return Family.BASE if arm == BASE else family_of(suite.tree(arm))


def arm_looks(suite: Suite, arms: Iterable[str] = ()) -> dict[str, Look]:
    """The looks of arms: of the main ones, the same in every figure of them; of others, by what the figure shows.

    Args:
        suite: has the arms.
        arms: all of a figure; none: the main ones.
    """
    main, shown = main_arms(suite), [BASE, *arms]
    return looks({arm: arm_family(suite, arm) for arm in (main if set(shown) <= set(main) else dict.fromkeys(shown))})


def arm_label(suite: Suite, arm: str, width: int = 25) -> str:
    """An arm's label on lines of that many letters."""
    return "\n".join(textwrap.wrap(" ".join(suite.arms[arm].label.split()), width)) or arm


def arm_curves(results: Results, points: Mapping[str, Points]) -> list[Curve]:
    """The curves of arms, those without a point left out."""
    look = arm_looks(results.suite, points)
    return [
        Curve(label=arm_label(results.suite, arm), look=look[arm], x=[x for x, _ in xy], y=[y for _, y in xy])
        for arm, xy in points.items()
        if xy
    ]


def base_curve(results: Results) -> Curve:
    """The zero line of differences to the base model, for its label."""
    look = arm_looks(results.suite)[BASE]
    last, zero = float(results.suite.measuring.ks[-1]), Interval(value=0.0, low=0.0, high=0.0)
    return Curve(label=results.suite.arms[BASE].label, look=look, x=[last], y=[zero])


# ---- numbers ----


def levels_by_k(results: Results, arm: str, family: str, data: str = "test") -> list[tuple[int, Interval]]:
    """A metric for every k at T = 1; nothing if it is not measured."""
    levels = [(k, results.level(arm, f"{family}@{k}", data, 1.0)) for k in results.suite.measuring.ks]
    return [(k, level.interval) for k, level in levels if level is not None]


def gains_by_k(results: Results, arm: str, family: str, data: str = "test") -> list[tuple[int, Interval]]:
    """The difference of a metric to the base model's, for every k at T = 1; nothing if it is not measured."""
    gains = [(k, results.difference(arm, BASE, f"{family}@{k}", data, 1.0)) for k in results.suite.measuring.ks]
    return [(k, interval) for k, interval in gains if interval is not None]


def arm_columns(results: Results, arm: str) -> dict[str, Any]:
    """The columns of a CSV that name an arm."""
    return {"arm": arm, "label": results.suite.arms[arm].label}


def seed_column(results: Results, arm: str, data: str = "test") -> dict[str, Any]:
    """The column of a CSV with the number of training runs measured at T = 1."""
    return {"seeds": len(results.evaluations(arm, data, 1.0))}


def fraction_columns(interval: Interval) -> dict[str, float]:
    """The columns of a CSV of a fraction."""
    return {
        "fraction": round(interval.value, 6),
        "low_fraction": round(interval.low, 6),
        "high_fraction": round(interval.high, 6),
    }


def points_columns(interval: Interval) -> dict[str, float]:
    """The columns of a CSV of a difference of fractions."""
    return {
        "difference_points": round(100 * interval.value, 4),
        "low_points": round(100 * interval.low, 4),
        "high_points": round(100 * interval.high, 4),
    }


# ---- words ----


def over(results: Results) -> str:
    """Say what the intervals of a suite are over: with one seed, they leave out what differs between trainings."""
    return "over problems and training runs" if results.suite.seeds > 1 else "over problems"


def scope(results: Results, arms: Sequence[str], data: str = "test") -> str:
    """Suite, number of problems and of training runs, as captions begin.

    Such as ``Countdown, 250 test problems, 5 seeds for each trained arm``.
    """
    counts = [len(results.evaluations(arm, data, 1.0)) for arm in arms if arm != BASE]
    counts = [count for count in counts if count]
    parts = [results.suite.title, counted(len(results.problems(data)), f"{data} problem")]
    if counts and min(counts) == max(counts):
        parts.append(counted(max(counts), "seed") + " for each trained arm")
    elif counts:
        parts.append(f"{min(counts)} to {max(counts)} seeds for a trained arm")
    return ", ".join(parts)


def panel(axes: Axes, note: str, *, is_difference: bool = False) -> None:
    """Make the vertical axis one of fractions or of their differences, and say over the panel what it shows."""
    (points_axis if is_difference else percent_axis)(axes.yaxis)
    if is_difference:
        zero_line(axes)
    title(axes, "", note)
