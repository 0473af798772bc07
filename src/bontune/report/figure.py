"""Figures: new ones, saved ones (PNG or SVG with a description inside), axes, titles, curves and their labels.

A picture is drawn inside :func:`styled`, which dresses whatever is made in it by ``bontune.mplstyle``; code that draws
names a size or a colour only where it means something. There is no pyplot: each figure is its own object, and
:func:`styled` lets one thread draw at a time, so that a trainer or a server may draw from any.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bontune.base.files import write_whole
from bontune.metrics import Interval
from bontune.report.numbers import points, typographic
from bontune.report.style import HAIRLINE, QUIET, Look

TITLE_PT, TEXT_PT = 11, 9
LINE_IN = TEXT_PT / 72 * 1.25
"""Height of a line of text."""
HAIR: dict[str, Any] = {"color": HAIRLINE, "linewidth": 1.0, "linestyle": (0, (4, 3)), "zorder": 1}
"""How a line that marks a place is drawn."""
_STYLE = rc_params_from_file(str(Path(__file__).parent / "bontune.mplstyle"), use_default_template=False)
_LOCK = threading.RLock()
_GAP_IN, _EDGE_IN = 0.22, 0.12
_MOST_TICKS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line of a figure, with its label."""

    label: str
    """Label beside the end of the line."""
    look: Look
    """Colour and marker of the line."""
    x: Sequence[float]
    """X position of each point, ascending."""
    y: Sequence[Interval]
    """Value at each point with its interval; NaN for an end that there is not."""
    marked: Sequence[bool] = field(default=())
    """Whether each point has a marker; empty: all have."""


# ---- files ----


@contextmanager
def styled() -> Iterator[None]:
    """Dress all figures that are drawn inside, by ``bontune.mplstyle``; also a decorator: ``@styled()``."""
    with _LOCK, rc_context(_STYLE):
        yield


def new(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A figure that is drawn, with its title and its content in words."""

    figure: Figure
    """The figure itself."""
    title: str
    """Title that a PNG carries."""
    description: str
    """What the figure shows, in words and numbers: the alternative text of a page."""

    def png(self) -> bytes:
        """The figure as a PNG with its title and description inside, in 128 colours: a third of the bytes."""
        drawn, small = io.BytesIO(), io.BytesIO()
        with styled():
            self.figure.savefig(drawn, format="png", metadata={"Title": self.title, "Description": self.description})
        with Image.open(drawn, formats=("PNG",)) as image:
            texts = PngInfo()
            for name in ("Title", "Description"):
                texts.add_itxt(name, image.info[name])
            quantized = _in_few_colours(np.asarray(image.convert("RGB")))
            quantized.save(small, format="png", optimize=True, dpi=image.info["dpi"], pnginfo=texts)
        return small.getvalue()

    def svg(self) -> bytes:
        """The figure as SVG, the same bytes each time; its letters are paths, so that it looks the same anywhere."""
        svg = io.BytesIO()
        with styled():
            self.figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        return svg.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the PNG, whole or not at all; missing parent folders are made.

        Raises:
            BontuneError: the file cannot be written.
        """
        return write_whole(path, self.png(), "figure")


def _in_few_colours(pixels_HW3: NDArray[np.uint8]) -> Image.Image:
    """Keep the 128 most frequent colours exactly; every other one, of an edge, becomes the nearest of them.

    Pillow's own mapping to a palette looks at six bits of a colour, so that white would not stay white.
    """
    codes_HW = pixels_HW3.astype(np.int64) @ np.array([65536, 256, 1])
    codes, place_HW, counts = np.unique(codes_HW, return_inverse=True, return_counts=True)
    colours_C3 = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)
    kept_K3 = colours_C3[np.argsort(-counts, kind="stable")[:128]]
    nearest_C = np.array([np.square(kept_K3 - colour).sum(-1).argmin() for colour in colours_C3], dtype=np.uint8)
    image = Image.fromarray(nearest_C[place_HW].reshape(codes_HW.shape))
    image.putpalette(kept_K3.astype(np.uint8).tobytes())
    return image


# ---- axes ----


def margins(figure: Figure, *, left: float = 0.62, right: float = 0.2, bottom: float = 0.58, top: float = 0.72) -> None:
    """Set the margins of the figure in inches."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - top / height)


def widest(figure: Figure, texts: Sequence[Any]) -> float:
    """Width of the widest of some texts of the figure, in inches."""
    return float(max(text.get_window_extent().width for text in texts) / figure.dpi)


def title(axes: Axes, text: str, note: str = "") -> None:
    """Write a title over a panel, and a quiet note between the two."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(text, (0, 1), xytext=(0, 24), fontsize=TITLE_PT, fontweight="bold", va="baseline", **place)
    axes.annotate(note, (0, 1), xytext=(0, 9), color=QUIET, va="baseline", **place)


def figure_title(figure: Figure, text: str) -> None:
    """Write the title of the whole figure, at its upper left."""
    width, height = figure.get_size_inches()
    place = (_EDGE_IN / width, 1 - 0.14 / height)
    figure.text(*place, text, fontsize=TITLE_PT, fontweight="bold", va="top")


def k_axis(
    axes: Axes, ks: Sequence[float], name: str = "N, samples per problem", ticks: Sequence[float] | None = None
) -> None:
    """Make the horizontal axis one of numbers of samples: logarithmic, with ticks at those that were measured."""
    first, last = float(ks[0]), float(ks[-1])
    margin = (last / first) ** 0.03 if last > first else 1.5
    axes.set_xscale("log", base=2)
    axes.set_xlim(first / margin, last * margin)
    ticks = k_ticks(ks) if ticks is None else ticks
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{k:g}" for k in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(name)


def k_ticks(ks: Sequence[float] | np.ndarray) -> list[float]:
    """The ticks of an axis of measured k, ascending.

    They are the measured k; of many, the powers of two among them and the last, none too close to its neighbour. If
    some k are means, they are all powers of two in their range.
    """
    every_k = np.asarray(ks, dtype=float)
    powers = 2.0 ** np.arange(64)
    if (every_k % 1).any():
        return [float(k) for k in powers if every_k[0] <= k <= every_k[-1]]
    few = every_k if every_k.size <= _MOST_TICKS else every_k[np.isin(every_k, powers)]
    ticks = [float(every_k[-1])]
    nearest = np.log2(every_k[-1] / every_k[0]) / 20
    for k in few[::-1]:
        if np.log2(ticks[0] / k) > nearest:
            ticks.insert(0, float(k))
    return ticks


def percent_axis(axis: Axis) -> None:
    """Write the fractions of an axis in percent."""
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:.3g} %"))


def points_axis(axis: Axis) -> None:
    """Write the differences of fractions on an axis in points, with their signs."""
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(
        FuncFormatter(lambda fraction, _: typographic(f"{100 * fraction:+.3g}") if fraction else "0")
    )


def zero_line(axes: Axes, *, is_vertical: bool = False) -> None:
    """Mark 0, from which differences are shown."""
    (axes.axvline if is_vertical else axes.axhline)(0.0, color=QUIET, linewidth=1.1, zorder=2)


def bare(axes: Axes) -> None:
    """Leave nothing of the axes but their labels, for panels that are tables of coloured cells."""
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def points_text(fraction: float) -> str:
    """A difference in points with its sign, as figures and pages write it.

    >>> points_text(0.0831), points_text(-0.02), points_text(0.0)
    ('+8.3', '−2.0', '0.0')
    """
    return typographic(points(fraction))


# ---- curves ----


def draw_curve(axes: Axes, curve: Curve, *, band: float = 0.08) -> None:
    """Draw a line with its markers, and its band with that opacity (0: none)."""
    values, colour = [y.value for y in curve.y], curve.look.colour
    if band:
        low, high = [y.low for y in curve.y], [y.high for y in curve.y]
        axes.fill_between(curve.x, low, high, color=colour, alpha=band, linewidth=0, zorder=1)
    shown = [place for place, is_marked in enumerate(curve.marked) if is_marked] if curve.marked else None
    line: dict[str, Any] = {"markevery": shown, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 3}
    axes.plot(curve.x, values, color=colour, marker=curve.look.marker, **line)


def ring(axes: Axes, x: float, y: float, colour: str) -> None:
    """Draw a ring around a point that was chosen or trained for."""
    axes.plot(x, y, marker="o", markersize=12, markerfacecolor="none", markeredgewidth=1.4, color=colour, zorder=4)


def label_ends(figure: Figure, *panels: tuple[Axes, Sequence[Curve]]) -> None:
    """Write each curve's label right of its panel, in the curve's colour, beside its end as far as others leave room.

    The margins are made as wide as the longest label; call it last.

    Args:
        figure: the picture.
        panels: panels at the right edge with their curves.
    """
    texts = [
        [figure.text(0, 0, c.label, color=c.look.colour, va="center", linespacing=1.1) for c in curves]
        for _, curves in panels
    ]
    margins(figure, right=widest(figure, [text for row in texts for text in row]) + _GAP_IN + _EDGE_IN)
    for (axes, curves), row in zip(panels, texts, strict=True):
        ends = [place_in(figure, axes, curve.x[-1], curve.y[-1].value) for curve in curves]
        place_labels(figure, axes, row, ends)


def place_labels(figure: Figure, axes: Axes, texts: Sequence[Any], ends: Sequence[tuple[float, float]]) -> None:
    """Put texts in a column right of a panel, none over another, each with a thin line to its point.

    Args:
        figure: the picture.
        axes: the panel.
        texts: texts of the figure.
        ends: the point of each, as shares of the figure.
    """
    width, height = figure.get_size_inches()
    box = axes.get_position()
    left = box.x1 + _GAP_IN / width
    heights = [(text.get_text().count("\n") + 1) * LINE_IN / height + 0.012 for text in texts]
    places = apart([y for _, y in ends], heights, box.y0, box.y1)
    for text, (end_x, end_y), y in zip(texts, ends, places, strict=True):
        text.set_position((left, y))
        line = {"transform": figure.transFigure, "color": text.get_color(), "linewidth": 0.7, "alpha": 0.6}
        figure.add_artist(Line2D([end_x, left - 0.03 / width], [end_y, y], **line))


def place_in(figure: Figure, axes: Axes, x: float, y: float) -> tuple[float, float]:
    """A point of a panel as shares of the figure."""
    axes.autoscale_view()  # which is put off until something asks for limits; the transformation does not
    across, up = figure.transFigure.inverted().transform(axes.transData.transform((x, y)))
    return float(across), float(up)


def apart(centres: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Move things as little as possible, in least squares, so that none overlap and all lie in a range.

    Where they do not all fit they begin at the lower end. This is isotonic regression, by pooling neighbours.

    >>> apart([1.0, 5.0], [1.0, 1.0], 0.0, 10.0)
    [1.0, 5.0]
    >>> apart([4.0, 4.0], [2.0, 2.0], 0.0, 10.0)
    [3.0, 5.0]
    """
    order = sorted(range(len(centres)), key=lambda i: centres[i])
    offsets, total = {}, 0.0
    for i in order:
        offsets[i] = total + heights[i] / 2
        total += heights[i]
    pools: list[tuple[float, list[int]]] = []
    for i in order:
        mean, members = centres[i] - offsets[i], [i]
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean = (mean * len(members) + other * len(others)) / (len(members) + len(others))
            members = others + members
        pools.append((mean, members))
    placed = {i: max(min(mean, high - total), low) + offsets[i] for mean, members in pools for i in members}
    return [placed[i] for i in range(len(centres))]
