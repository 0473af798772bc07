"""What the figures of a suite share: a colour and marker for each arm, panels, labels beside lines, PNG with CSV."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bontune.base.files import write_whole
from bontune.base.text import as_csv
from bontune.experiments.families import Family
from bontune.experiments.results import Results
from bontune.experiments.suite import BASE, Suite, main_arms
from bontune.metrics import Interval
from bontune.report.canvas import HAIRLINE, INK, QUIET, SMALL_PT, TITLE_PT, apart, dress, percent_axis, save
from bontune.report.numbers import counted, typographic

# Dark enough to be read as text on white; the first two are those of Best-of-N RL and plain RL in every other figure.
_COLOURS = ("#0072b2", "#c75000", "#00795a", "#a83c78", "#6f4aa8", "#85661a", "#6e2c1b", "#5d7a00")
_MARKERS = ("o", "^", "D", "v", "P", "X", "<", ">", "*")
_LABEL_GAP_IN, _EDGE_IN = 0.22, 0.12
_LINE_IN = SMALL_PT / 72 * 1.25
"""Height of a line of a label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A picture with the numbers that are in it."""

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
class Drawing:
    """A picture before it is written."""

    name: str
    """Name of the picture's files, without ending."""
    title: str
    """Title: what is shown, not what was found."""
    caption: str
    """Caption: conditions and intervals."""
    canvas: Canvas
    """The picture itself."""
    rows: list[dict[str, Any]]
    """The numbers in it, all with the same keys."""

    def write(self, out: Path) -> Figure:
        """Write NAME.png and NAME.csv, each whole or not at all.

        Raises:
            BontuneError: a file cannot be written.
        """
        table = write_whole(out / f"{self.name}.csv", as_csv(self.rows), "table")
        png = save(self.canvas, out / f"{self.name}.png", self.title, f"{self.title}. {self.caption}")
        return Figure(name=self.name, title=self.title, caption=self.caption, png=png, csv=table)


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How an arm is drawn, the same in every figure of a suite."""

    colour: str
    """Colour, as matplotlib takes it."""
    marker: str
    """Marker that tells lines apart without colour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of a picture, with its label."""

    label: str
    """Label beside the end of the line."""
    style: Style
    """Colour and marker of the line."""
    x: list[float]
    """X position of each point."""
    y: list[Interval]
    """Value at each point, a fraction between 0 and 1."""


def styles(suite: Suite) -> dict[str, Style]:
    """A look for each arm: grey for the base model, a colour of its own for each main arm; the others share colours."""
    main = [arm for arm in main_arms(suite) if arm != BASE]
    names = main + [arm for arm in suite.arms if arm != BASE and arm not in main]
    looks = {
        name: Style(colour=_COLOURS[i % len(_COLOURS)], marker=_MARKERS[i % len(_MARKERS)])
        for i, name in enumerate(names)
    }
    return looks | {BASE: Style(colour="#5b6673", marker="s")}


def label_of(suite: Suite, arm: str, width: int = 25) -> str:
    """An arm's label on lines of that many letters."""
    return "\n".join(textwrap.wrap(" ".join(suite.arms[arm].label.split()), width)) or arm


def over(results: Results) -> str:
    """What the intervals of a suite are over: with one seed, they leave out what differs between trainings."""
    return "over problems and training runs" if results.suite.seeds > 1 else "over problems"


def scope(results: Results, arms: Sequence[str], data: str = "test") -> str:
    """Suite, number of problems and of training runs, as captions begin.

    Such as ``Countdown, 250 test problems, 5 seeds each``.
    """
    trained = [arm for arm in arms if arm != BASE]
    counts = [len(results.evaluations(arm, data, 1.0)) for arm in trained]
    counts = [count for count in counts if count]
    problems = {"test": "test problem", "validation": "validation problem", "harder": "harder problem"}[data]
    parts = [results.suite.title, counted(len(results.problems(data)), problems)]
    if counts and min(counts) == max(counts):
        parts.append(counted(max(counts), "seed") + " for each trained arm")
    elif counts:
        parts.append(f"{min(counts)} to {max(counts)} seeds for a trained arm")
    return ", ".join(parts)


# ---- numbers ----


def curve(results: Results, arm: str, family: str, data: str) -> list[tuple[int, Interval]]:
    """A metric for every k at T = 1; nothing if it is not measured."""
    levels = [(k, results.level(arm, f"{family}@{k}", data, 1.0)) for k in results.suite.measuring.ks]
    return [(k, level.interval) for k, level in levels if level is not None]


def gain_curve(results: Results, arm: str, family: str, data: str) -> list[tuple[int, Interval]]:
    """The same as a difference to the base model."""
    found = [(k, results.difference(arm, BASE, f"{family}@{k}", data, 1.0)) for k in results.suite.measuring.ks]
    return [(k, interval) for k, interval in found if interval is not None]


def fraction_columns(interval: Interval) -> dict[str, float]:
    """Columns of a CSV."""
    return {
        "fraction": round(interval.value, 6),
        "low_fraction": round(interval.low, 6),
        "high_fraction": round(interval.high, 6),
    }


def points_columns(interval: Interval) -> dict[str, float]:
    """Columns of a CSV, of a difference of fractions."""
    return {
        "difference_points": round(100 * interval.value, 4),
        "low_points": round(100 * interval.low, 4),
        "high_points": round(100 * interval.high, 4),
    }


# ---- drawing ----


def draw_line(axes: Axes, line: Line, *, has_band: bool = True) -> None:
    """A line with its markers and its band."""
    values, colour = [y.value for y in line.y], line.style.colour
    if has_band:
        low, high = [y.low for y in line.y], [y.high for y in line.y]
        axes.fill_between(line.x, low, high, color=colour, alpha=0.08, linewidth=0, zorder=1)
    axes.plot(
        line.x,
        values,
        color=colour,
        marker=line.style.marker,
        markersize=5,
        linewidth=1.7,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=3,
    )


def k_axis(axes: Axes, ks: Sequence[int], name: str) -> None:
    """The measured k on a logarithmic axis."""
    axes.set_xscale("log", base=2)
    margin = (ks[-1] / ks[0]) ** 0.03 if ks[-1] > ks[0] else 1.5
    axes.set_xlim(ks[0] / margin, ks[-1] * margin)
    axes.xaxis.set_major_locator(FixedLocator(list(ks)))
    axes.xaxis.set_major_formatter(FixedFormatter([str(k) for k in ks]))
    axes.xaxis.set_minor_locator(NullLocator())
    x_name(axes, name)


def x_name(axes: Axes, name: str) -> None:
    """What is along the bottom."""
    axes.set_xlabel(name, fontsize=SMALL_PT, color=QUIET, labelpad=5)


def points_axis(axis: Axis) -> None:
    """Tick labels of fractions as signed points."""
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda fraction, _: signed(fraction, ".3g")))


def signed(fraction: float, form: str = ".1f") -> str:
    """A difference in points with its sign.

    >>> signed(0.0831), signed(-0.02), signed(0.0)
    ('+8.3', '−2.0', '0.0')
    """
    text = typographic(f"{100 * fraction:+{form}}")
    return text.lstrip("+−") if not float(text.replace("−", "-")) else text


def zero_line(axes: Axes, *, is_vertical: bool = False) -> None:
    """The base model, of which differences are shown."""
    (axes.axvline if is_vertical else axes.axhline)(0.0, color=QUIET, linewidth=1.1, zorder=2)


def panel(axes: Axes, note: str, *, is_difference: bool = False) -> None:
    """Dress a panel of fractions and say over it what it shows."""
    dress(axes)
    (points_axis if is_difference else percent_axis)(axes.yaxis)
    if is_difference:
        zero_line(axes)
    axes.annotate(
        note,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 9),
        textcoords="offset points",
        fontsize=SMALL_PT,
        color=QUIET,
        va="baseline",
        annotation_clip=False,
    )


def margins(canvas: Canvas, *, left: float = 0.62, right: float = 0.2, bottom: float = 0.58, top: float = 0.72) -> None:
    """Margins of the figure in inches."""
    width, height = canvas.get_size_inches()
    canvas.subplots_adjust(left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - top / height)


def headline(canvas: Canvas, title: str) -> None:
    """The title, at the upper left."""
    width, height = canvas.get_size_inches()
    place = (_EDGE_IN / width, 1 - 0.14 / height)
    canvas.text(*place, title, fontsize=TITLE_PT, fontweight="bold", color=INK, va="top")


def family_legend(canvas: Canvas, families: Sequence[Family]) -> None:
    """The colours of families of methods, in a row or two along the bottom."""
    handles = [Line2D([], [], color=family.colour, marker="o", markersize=6, linewidth=0) for family in families]
    canvas.legend(
        handles=handles,
        labels=[family.value for family in families],
        loc="lower left",
        bbox_to_anchor=(0.005, 0.0),
        ncols=min(len(families), 4),
        frameon=False,
        fontsize=SMALL_PT,
        labelcolor=QUIET,
        handletextpad=0.1,
        columnspacing=1.0,
    )


def name_ends(canvas: Canvas, *named: tuple[Axes, Sequence[Line]]) -> None:
    """Each line's label right of its panel, in the line's colour, beside its end as far as others leave room.

    The margins are made as wide as the longest label; call it last.

    Args:
        canvas: the picture.
        named: panels at the right edge with their lines.
    """
    width, height = canvas.get_size_inches()
    texts = [[_text(canvas, line) for line in lines] for _, lines in named]
    widest = max(text.get_window_extent().width for row in texts for text in row) / canvas.dpi
    margins(canvas, right=widest + _LABEL_GAP_IN + _EDGE_IN)
    for (axes, lines), row in zip(named, texts, strict=True):
        box = axes.get_position()
        ends = [_place(canvas, axes, line.x[-1], line.y[-1].value) for line in lines]
        heights = [(line.label.count("\n") + 1) * _LINE_IN / height + 0.012 for line in lines]
        left = box.x1 + _LABEL_GAP_IN / width
        places = apart([y for _, y in ends], heights, box.y0, box.y1)
        for text, line, (end_x, end_y), y in zip(row, lines, ends, places, strict=True):
            text.set_position((left, y))
            canvas.add_artist(
                Line2D(
                    [end_x, left - 0.03 / width],
                    [end_y, y],
                    transform=canvas.transFigure,
                    color=line.style.colour,
                    linewidth=0.7,
                    alpha=0.6,
                )
            )


def _text(canvas: Canvas, line: Line) -> Text:
    return canvas.text(
        0, 0, line.label, fontsize=SMALL_PT, color=line.style.colour, va="center", linespacing=1.1, parse_math=False
    )


def _place(canvas: Canvas, axes: Axes, x: float, y: float) -> tuple[float, float]:
    """A place in a panel as shares of the picture."""
    axes.autoscale_view()  # which is put off until something asks for limits; the transformation does not
    across, up = canvas.transFigure.inverted().transform(axes.transData.transform((x, y)))
    return float(across), float(up)


def style_columns(results: Results, arm: str) -> dict[str, str]:
    """The columns that name an arm."""
    return {"arm": arm, "label": results.suite.arms[arm].label}


def lines_of(results: Results, found: Mapping[str, Sequence[tuple[float, Interval]]]) -> list[Line]:
    """Lines of arms, those without a point left out."""
    looks = styles(results.suite)
    return [
        Line(label=label_of(results.suite, arm), style=looks[arm], x=[x for x, _ in points], y=[y for _, y in points])
        for arm, points in found.items()
        if points
    ]


HAIR: Mapping[str, Any] = {"color": HAIRLINE, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1}
"""A line that marks a place."""
