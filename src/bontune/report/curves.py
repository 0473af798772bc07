"""Curves against k: pass@k, or another metric, of several models, pools or ways of picking."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from matplotlib.axes import Axes

from bontune.base.errors import BontuneError
from bontune.metrics import Interval
from bontune.report.figure import HAIR, Curve, Plot, draw_curve, k_axis, k_ticks, label_ends, new, percent_axis, styled
from bontune.report.figure import title as write_title
from bontune.report.numbers import percent
from bontune.report.style import QUIET, Look, heading, label, looks, shortened

_NARROW_IN = 5.0
"""A figure below that width has fewer ticks and shorter lines of labels."""
PASS_TITLE = "Problems solved by at least one of k samples"
Curves = Mapping[str, Mapping[float, Interval] | Mapping[int, Interval]]
"""Model → k → value with its interval (NaN: none)."""


@styled()
def draw_curves(
    curves: Curves,
    *,
    trained_for: Sequence[int] = (),
    title: str = PASS_TITLE,
    is_share: bool = True,
    size: tuple[float, float] = (7.2, 4.4),
    colours: Mapping[str, str] | None = None,
    name: str = "Problems solved by number of samples",
    chance: Curves = MappingProxyType({}),
) -> Plot:
    """Draw a metric against k for each model, with its 95 % band.

    Args:
        curves: model → k → its value. Points without a finite value are left out.
        trained_for: each N that training was for, as a vertical line; not drawn outside the measured k.
        title: what is drawn, if not pass@k.
        is_share: values are fractions 0..1, shown in percent.
        size: width and height in inches.
        colours: of each model; those that it does not name have their usual one.
        name: title that a file of the figure carries.
        chance: chance level of each model that has one, as a dashed line in the model's colour.

    Raises:
        BontuneError: no curve has a point.
    """
    kept = {name: _finite(points) for name, points in curves.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        raise BontuneError("There is nothing to draw: no pass@k curve has a finite value.")
    every_k = sorted({k for points in kept.values() for k in points})
    is_narrow = size[0] < _NARROW_IN
    ticks = k_ticks(every_k)[:: -2 if is_narrow else -1][::-1]
    usual = looks(dict.fromkeys(kept))
    lines = [
        Curve(
            label=_end_label(name, points, is_share, 17 if is_narrow else 99),
            look=Look(colour=(colours or {}).get(name, usual[name].colour), marker=usual[name].marker),
            x=list(points),
            y=list(points.values()),
            marked=[k in ticks or bool(k % 1) for k in points],
        )
        for name, points in kept.items()
    ]
    guessed = {name: points for name in kept if (points := _finite(chance.get(name, {})))}
    figure = new(*size)
    axes = figure.add_subplot()
    for curve in lines:
        draw_curve(axes, curve, band=0.15)
    levels = [_draw_chance(axes, guessed[n], line.look) for n, line in zip(kept, lines, strict=True) if n in guessed]
    k_axis(axes, every_k, "k, samples per problem", ticks)
    _scale_values(axes, [y for curve in (*lines, *levels) for y in curve.y], is_share)
    label_ends(figure, (axes, [*lines, *levels]))
    marked = [n for n in trained_for if every_k[0] <= n <= every_k[-1]]
    for n in marked:
        _mark_trained_n(axes, every_k, n, "N =" if is_narrow else "trained for N =")
    notes = ["bands: 95 % intervals"] if any(math.isfinite(y.low) for curve in lines for y in curve.y) else []
    write_title(axes, title, "; ".join([*notes, *(["dashed: chance level"] if guessed else [])]))
    return Plot(figure=figure, title=name, description=_description(kept, marked, title, is_share, guessed))


def _draw_chance(axes: Axes, points: Mapping[float, Interval], look: Look) -> Curve:
    """Draw a chance level, and return it with its label."""
    axes.plot(list(points), [y.value for y in points.values()], color=look.colour, linestyle=(0, (3, 2)), marker="")
    return Curve(label=_chance_label(points), look=look, x=list(points), y=list(points.values()))


def _finite(points: Mapping[float, Interval] | Mapping[int, Interval]) -> dict[float, Interval]:
    """The points that can be drawn, k ascending."""
    by_k = sorted((float(k), interval) for k, interval in points.items())
    return {k: interval for k, interval in by_k if math.isfinite(interval.value)}


def _end_label(name: str, points: Mapping[float, Interval], is_share: bool, width: int) -> str:
    k = list(points)[-1]
    lines = "\n".join(textwrap.wrap(shortened(heading(name)), width))
    return f"{lines}\n{_with_unit(points[k].value, is_share)} at k = {round(k, 1):g}"


def _chance_label(points: Mapping[float, Interval]) -> str:
    return f"chance {_with_unit(list(points.values())[-1].value, is_share=True)}"


def _with_unit(value: float, is_share: bool) -> str:
    return f"{percent(value)} %" if is_share else f"{value:.3g}"


def _scale_values(axes: Axes, values: Sequence[Interval], is_share: bool) -> None:
    """Begin the vertical axis at 0 where that is near, and end it at 100 % at most."""
    numbers = [x for y in values for x in (y.value, y.low, y.high) if math.isfinite(x)]
    low, high = min(numbers), max(numbers)
    room = max(0.06 * (high - low), 0.01)
    axes.set_ylim(
        0.0 if 0 <= low < 0.3 else low - room, min(high + room, 1.005) if is_share and high <= 1 else high + room
    )
    if is_share:
        percent_axis(axes.yaxis)


def _mark_trained_n(axes: Axes, every_k: Sequence[float], n: int, words: str) -> None:
    is_left = n * n <= every_k[0] * every_k[-1]
    axes.axvline(n, **HAIR)
    axes.annotate(
        f"{words} {n}",
        (n, 0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(6 if is_left else -6, 7),
        textcoords="offset points",
        ha="left" if is_left else "right",
        color=QUIET,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def _description(
    curves: Mapping[str, Mapping[float, Interval]],
    marked: Sequence[int],
    title: str,
    is_share: bool,
    chance: Mapping[str, Mapping[float, Interval]],
) -> str:
    parts = []
    for name, points in curves.items():
        *_, last = points
        first = next(iter(points))
        text = f"{label(name)} {_with_unit(points[first].value, is_share)} at k = {first:g}"
        if last > first:
            text += f" and {_with_unit(points[last].value, is_share)} at k = {round(last, 1):g}"
        if name in chance:
            text += f" ({_chance_label(chance[name])}, dashed)"
        parts.append(text)
    trained = "".join(f" A vertical line marks N = {n}, for which training was done." for n in marked)
    what = "of the share of problems solved by at least one of k samples" if title == PASS_TITLE else f"({title})"
    return f"Line chart {what}: {'; '.join(parts)}.{trained}"
