"""What every figure shares: palette, text sizes, grid, and a PNG that carries its own description.

No pyplot and no global state: each figure is its own object, so that a trainer or a server may draw from any thread.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bontune.base.files import write_whole

DPI = 160
TITLE_PT, TEXT_PT, SMALL_PT = 11, 10, 9
INK, QUIET, HAIRLINE, GRID = "#1f2933", "#5b6673", "#9aa5b1", "#e6eaee"

# Grey, and Okabe and Ito's vermilion (a shade darker) and blue, for the three models of the quickstart. The others are
# dark enough to be read as text on white (4.5 : 1); markers tell lines apart without colour.
_FIXED_COLOURS = {"base": "#5b6673", "rloo": "#c75000", "rl": "#c75000", "bon_rl": "#0072b2"}
_OTHER_COLOURS = ("#00795a", "#a83c78", "#6f4aa8", "#85661a", "#6e2c1b", "#5d7a00")
_FIXED_MARKERS = {"base": "s", "rloo": "^", "rl": "^", "bon_rl": "o"}
_OTHER_MARKERS = ("D", "v", "P", "X", "<", ">", "*")
_LONGEST_NAME = 28


def colours(names: Iterable[str], objectives: Mapping[str, str] | None = None) -> dict[str, str]:
    """A colour for each name, the same for the same name in every figure and on every page.

    Names without a colour of their own have the colour of what they were trained by, if they are the first to have it:
    plain RL orange, Best-of-N blue. Others get one by their checksum; where two of a figure collide, the later moves
    on.

    Args:
        names: of models or runs.
        objectives: what they were trained by, as far as it is known.
    """
    fixed = dict(_FIXED_COLOURS)
    names = list(dict.fromkeys(names))
    for name in names:
        colour = _FIXED_COLOURS.get(_role((objectives or {}).get(name, "")))
        taken = {fixed[other] for other in names if other in fixed}
        if name not in fixed and colour is not None and colour not in taken:
            fixed[name] = colour
    return _assign(names, fixed, _OTHER_COLOURS)


def _role(objective: str) -> str:
    """What a model is called in the fixed colours that was trained by this objective; empty where it has none."""
    if objective.startswith("bon") or objective in ("pkpo", "passk_training"):
        return "bon_rl"
    return "rl" if objective in ("reinforce", "rloo", "grpo", "dr_grpo", "maxrl") else ""


def markers(names: Iterable[str]) -> dict[str, str]:
    """A marker for each name, so that lines can be told apart without colour."""
    return _assign(names, _FIXED_MARKERS, _OTHER_MARKERS)


def shortened(name: str) -> str:
    """A name that fits into a figure: on one line, its middle left out if it is long."""
    name = " ".join(name.split())
    half = (_LONGEST_NAME - 1) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of that many inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | os.PathLike[str], title: str, description: str) -> Path:
    """Write the figure as a PNG with its title and description inside, whole or not at all.

    Raises:
        BontuneError: the file cannot be written.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Title": title, "Description": description})
    return write_whole(path, png.getvalue(), "figure")


def as_svg(figure: Figure) -> bytes:
    """Draw the figure as SVG, the same bytes each time; its letters are paths, so that it looks the same anywhere."""
    svg = io.BytesIO()
    with rc_context({"svg.hashsalt": "bontune", "svg.fonttype": "path"}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return svg.getvalue()


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


def dress(axes: Axes) -> None:
    """Only what carries meaning: a base line, light horizontal grid lines, quiet tick labels."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(HAIRLINE)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="both", colors=QUIET, labelsize=SMALL_PT, length=0, pad=5)
    axes.tick_params(axis="x", length=3, color=HAIRLINE)


def percent_axis(axis: Axis) -> None:
    """Tick labels of fractions as percent."""
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:.3g} %"))


def _assign(names: Iterable[str], fixed: Mapping[str, str], others: Sequence[str]) -> dict[str, str]:
    taken: set[int] = set()
    assigned: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if name in fixed:
            assigned[name] = fixed[name]
            continue
        place = zlib.crc32(name.encode("utf-8", "surrogatepass")) % len(others)
        while place in taken and len(taken) < len(others):
            place = (place + 1) % len(others)
        taken.add(place)
        assigned[name] = others[place]
    return assigned
