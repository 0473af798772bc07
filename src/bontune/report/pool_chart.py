"""A line chart as SVG inside the page: sharp in print, and in the page's own colours, light or dark.

Colours are classes (``c0`` … ``c7``) that the page's style sheet defines; markers tell lines apart without colour.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bontune.metrics import Interval
from bontune.report.canvas import shortened
from bontune.report.wording import percent

NUM_COLOURS = 8
_WIDTH, _HEIGHT = 800, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 256, 14, 46
_LABEL_GAP = 36
_MOST_TICKS = 6
_FEWEST_TICKS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One line."""

    name: str
    """What it is."""
    points: dict[int, Interval]
    """k → value with its interval."""
    colour: int
    """Place in the palette, the same for the same thing in every chart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A figure of the page."""

    heading: str
    """Over it."""
    caption: str
    """Below it."""
    svg: Markup
    """The drawing, which carries its own description."""


def line_chart(curves: Sequence[Curve], *, heading: str, caption: str, is_share: bool) -> Chart:
    """Draw curves against k, on a logarithmic axis, with their bands.

    Args:
        curves: one or more, each with a point at least.
        heading, caption: over and below it.
        is_share: values are fractions and shown in percent.
    """
    ks = sorted({k for curve in curves for k in curve.points})
    ends = [end for curve in curves for i in curve.points.values() for end in (i.low, i.high, i.value)]
    ticks = _ticks(min(ends), max(ends), is_share)
    # Multiples of the step, so that the end of a band may lie beyond the last.
    bottom, top = min(ticks[0], *ends), max(ticks[-1], *ends)

    def x(k: float) -> float:
        share = 0.5 if len(ks) == 1 else (math.log(k) - math.log(ks[0])) / (math.log(ks[-1]) - math.log(ks[0]))
        return _LEFT + 12 + share * (_WIDTH - _LEFT - _RIGHT - 24)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    def shown(value: float) -> str:
        return f"{100 * value:.3g} %" if is_share else f"{value:.3g}"

    parts: list[Markup] = []
    for tick in ticks:
        parts.append(_of('<path class="grid" d="M{} {}H{}"/>', _LEFT, y(tick), _WIDTH - _RIGHT))
        parts.append(_of('<text class="tick end" x="{}" y="{}">{}</text>', _LEFT - 8, y(tick) + 4, shown(tick)))
    for k in ks:
        parts.append(_of('<text class="tick middle" x="{}" y="{}">{}</text>', x(k), _HEIGHT - _BOTTOM + 18, k))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(_of('<text class="tick middle" x="{}" y="{}">k, samples per problem</text>', middle, _HEIGHT - 8))
    for curve in curves:
        parts += _drawn(curve, [(x(k), y(i.value), y(i.low), y(i.high)) for k, i in sorted(curve.points.items())])
    last = {place: max(curve.points) for place, curve in enumerate(curves)}
    heights = _apart([y(curve.points[last[place]].value) for place, curve in enumerate(curves)])
    for place, (curve, height) in enumerate(zip(curves, heights, strict=True)):
        value = curve.points[last[place]].value
        number = f"{percent(value)} %" if is_share else f"{value:.3g}"
        parts.append(
            _of(
                '<text class="name c{}" x="{}" y="{}">{}</text><text class="tick" x="{}" y="{}">{} at k = {}</text>',
                curve.colour % NUM_COLOURS,
                _WIDTH - _RIGHT + 8,
                height - 2,
                shortened(curve.name),
                _WIDTH - _RIGHT + 8,
                height + 12,
                number,
                last[place],
            )
        )
    described = describe(curves, is_share)
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>').format(
        _WIDTH, _HEIGHT, described, heading, Markup("\n").join(parts)
    )
    return Chart(heading=heading, caption=caption, svg=svg)


def describe(curves: Sequence[Curve], is_share: bool) -> str:
    """What a chart shows, in words and numbers."""
    parts = []
    for curve in curves:
        first, last = min(curve.points), max(curve.points)
        values = [curve.points[k].value for k in (first, last)]
        texts = [f"{percent(value)} %" if is_share else f"{value:.3g}" for value in values]
        rest = f", {texts[1]} at k = {last}" if last > first else ""
        parts.append(f"{curve.name}: {texts[0]} at k = {first}{rest}")
    return f"Line chart over k. {'; '.join(parts)}. The table below holds every number."


def _drawn(curve: Curve, places: Sequence[tuple[float, float, float, float]]) -> list[Markup]:
    colour = curve.colour % NUM_COLOURS
    upper = [f"{x:.1f},{high:.1f}" for x, _, _, high in places]
    lower = [f"{x:.1f},{low:.1f}" for x, _, low, _ in reversed(places)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
    return [
        _of('<polygon class="band c{}" points="{}"/>', colour, " ".join(upper + lower)),
        _of('<polyline class="line c{}" points="{}"/>', colour, line),
        *(_of('<path class="mark c{}" d="{}"/>', colour, _marker(colour, x, y)) for x, y, _, _ in places),
    ]


def _marker(kind: int, x: float, y: float) -> str:
    """Circle, square, diamond, triangle up and down, cross, and two narrow diamonds, as a path."""
    if kind == 0:
        return f"M{x - 4:.1f},{y:.1f}a4,4 0 1 0 8,0a4,4 0 1 0 -8,0z"
    shapes: dict[int, list[tuple[float, float]]] = {
        1: [(-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)],
        2: [(0, -5), (5, 0), (0, 5), (-5, 0)],
        3: [(0, -5), (4.5, 4), (-4.5, 4)],
        4: [(0, 5), (4.5, -4), (-4.5, -4)],
        5: [(-4, -1.5), (4, -1.5), (4, 1.5), (-4, 1.5)],
        6: [(0, -6), (2.5, 0), (0, 6), (-2.5, 0)],
        7: [(-1.5, -4), (1.5, -4), (1.5, 4), (-1.5, 4)],
    }
    return "M" + "L".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in shapes[kind]) + "z"


def _ticks(low: float, high: float, is_share: bool) -> list[float]:
    """Round values that span the range; from 0 where it is near."""
    if is_share and low < 0.35:
        low = 0.0
    span = max(high - low, 0.02 if is_share else 0.02 * max(abs(low), abs(high)) or 1.0)
    rough = 10 ** math.floor(math.log10(span / _MOST_TICKS))
    step = next(rough * m for m in (1, 2, 2.5, 5, 10, 20) if span / (rough * m) <= _MOST_TICKS)
    first = math.floor(low / step + 1e-9)
    last = math.ceil((low + span) / step - 1e-9)
    if is_share and high <= 1:
        last = min(last, math.floor(1 / step + 1e-9))
    first = min(first, last - _FEWEST_TICKS + 1)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _apart(heights: Sequence[float]) -> list[float]:
    """Labels moved as little as a pass down and a pass up need for them to be ``_LABEL_GAP`` apart."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    gap = min(_LABEL_GAP, (_HEIGHT - 40) / max(len(heights), 1))
    placed = dict(enumerate(heights))
    for before, place in itertools.pairwise(order):
        placed[place] = max(placed[place], placed[before] + gap)
    lowest = _HEIGHT - 24.0
    for place in reversed(order):
        placed[place] = min(placed[place], lowest)
        lowest = placed[place] - gap
    return [placed[place] for place in range(len(heights))]


def _of(template: str, *values: object) -> Markup:
    """A piece of SVG with its values escaped, places to a tenth of a pixel."""
    return Markup(template).format(*(f"{value:.1f}" if isinstance(value, float) else value for value in values))
