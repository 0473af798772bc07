"""The figures of a sweep: pass@N by temperature and N, the law, best-of-N under a verifier, and T*(N)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

from bontune.base.text import temperature_text
from bontune.report.figure import Plot, bare, k_axis, margins, new, percent_axis, styled, title
from bontune.report.numbers import capitalized, percent
from bontune.report.style import HAIRLINE, INK, QUIET, Family
from bontune.scaling import Grid, LawVerdict, Study, listed, metric_name

_BEST, _LAW = Family.ONE_SAMPLE.colour, Family.BEST_OF_N.colour
_LEGEND_LINES = 16


@styled()
def draw_grid(study: Study, grid: Grid) -> Plot:
    """Draw a metric at every temperature and N as a heat map, with the best temperature for each N."""
    num_t, num_n = grid.means_TN.shape
    figure = new(max(4.6, 1.2 + 0.72 * num_n), max(2.6, 1.35 + 0.42 * num_t))
    axes = figure.add_subplot()
    margins(figure, left=0.75, right=0.15)
    colour = colormaps["Blues"]
    low, high = float(grid.means_TN.min()), float(grid.means_TN.max())
    shade_TN = 0.05 + 0.85 * (grid.means_TN - low) / max(high - low, 1e-9)
    axes.imshow(colour(shade_TN), aspect="auto", origin="lower", interpolation="nearest")
    for n, choice in enumerate(grid.over_t_N):
        for t in range(num_t):
            is_best = choice.best == t
            text = percent(float(grid.means_TN[t, n]))
            axes.text(
                n,
                t,
                text,
                ha="center",
                va="center",
                fontweight="bold" if is_best else "normal",
                color="white" if shade_TN[t, n] > 0.55 else INK,
            )
            if choice.is_possible_C[t]:
                _outline(axes, n, t, is_best)
    axes.set_xticks(range(num_n), [str(n) for n in study.ns])
    axes.set_yticks(range(num_t), [temperature_text(t) for t in study.temperatures])
    bare(axes)
    axes.set_xlabel("N, samples per problem")
    axes.set_ylabel("temperature")
    name = metric_name(grid, "N")
    text = name if grid.metric == "pass" else capitalized(name)
    title(axes, f"{text} by temperature and N, in %", "thick: highest for its N; thin: not clearly lower")
    return Plot(figure=figure, title=f"{name} by temperature and N", description=_describe_grid(study, grid, name))


@styled()
def draw_laws(study: Study) -> Plot:
    """Draw pass@N against N at each temperature with its law, plain and where the law is a straight line."""
    figure = new(9.2, 4.5)
    plain, straight = figure.subplots(1, 2)
    margins(figure, right=1.3)
    figure.subplots_adjust(wspace=0.26)
    colours = temperature_colours(study.temperatures)
    ns = np.array(study.ns, dtype=float)
    fine = np.geomspace(ns[0], ns[-1], 100)
    for t, law in enumerate(study.laws):
        measured = study.passes.means_TN[t]
        is_inside = (measured > 0) & (measured < 1)
        style: dict[str, Any] = {"color": colours[t], "linewidth": 1.3, "zorder": 2}
        dots: dict[str, Any] = {"color": colours[t], "marker": "o", "markersize": 4, "linestyle": "", "zorder": 3}
        plain.plot(ns, measured, **dots)
        straight.plot(ns[is_inside], -np.log(measured[is_inside]), **dots)
        if law.verdict is LawVerdict.NOT_FITTED:
            continue
        dashes = (0, (2, 2)) if law.verdict is LawVerdict.FAILS else "-"
        plain.plot(fine, law.pass_at(fine), linestyle=dashes, **style)
        straight.plot(fine, -np.log(law.pass_at(fine)), linestyle=dashes, **style)
    for axes in (plain, straight):
        k_axis(axes, study.ns)
    percent_axis(plain.yaxis)
    straight.set_yscale("log")
    straight.yaxis.set_minor_formatter(NullFormatter())
    straight.yaxis.set_minor_locator(NullLocator())
    _decimal_ticks(straight)
    fails = any(law.verdict is LawVerdict.FAILS for law in study.laws)
    note = "dots: measured; lines: exp(a N^b)" + ("; dashed: it fails" if fails else "")
    title(plain, "pass@N and its law", note)
    title(straight, "−log pass@N", "both axes logarithmic: the law is a straight line")
    _legend(figure, straight, study.temperatures, colours)
    return Plot(figure=figure, title="pass@N and its law at each temperature", description=_describe_laws(study))


@styled()
def draw_bests(study: Study) -> Plot:
    """Draw best-of-N under the verifier against N at each temperature, its peak marked.

    Raises:
        ValueError: the study has no scores of a verifier that errs.
    """
    if study.bests is None:
        raise ValueError("The study has no best-of-N: its pools hold no scores of a verifier that errs.")
    figure = new(7.2, 4.4)
    axes = figure.add_subplot()
    margins(figure, right=1.3)
    colours = temperature_colours(study.temperatures)
    grid = study.bests
    for t, choice in enumerate(grid.over_n_T):
        axes.plot(study.ns, grid.means_TN[t], color=colours[t], linewidth=1.6, zorder=2)
        axes.fill_between(study.ns, grid.low_TN[t], grid.high_TN[t], color=colours[t], alpha=0.07, linewidth=0)
        falls = not choice.is_possible_C[-1]
        axes.plot(
            study.ns[choice.best],
            grid.means_TN[t, choice.best],
            marker="o",
            markersize=7,
            color=colours[t],
            markerfacecolor=colours[t] if falls else "white",
            markeredgewidth=1.6,
            zorder=3,
        )
    k_axis(axes, study.ns)
    percent_axis(axes.yaxis)
    title(
        axes,
        "Best-of-N under the verifier",
        "circles: the peak, filled if the last N is clearly below it; bands: 95 % intervals",
    )
    _legend(figure, axes, study.temperatures, colours)
    parts = [
        f"T = {temperature_text(t)} peaks at N = {study.ns[c.best]} with {percent(c.value.value)} % and has "
        f"{percent(float(grid.means_TN[i, -1]))} % at N = {study.ns[-1]}"
        for i, (t, c) in enumerate(zip(study.temperatures, grid.over_n_T, strict=True))
    ]
    description = f"Line chart of best-of-N against N at each temperature: {'; '.join(parts)}."
    return Plot(figure=figure, title="Best-of-N under the verifier", description=description)


@styled()
def draw_optimum(study: Study) -> Plot:
    """Draw the best temperature against N, of all problems and by difficulty."""
    has_groups = bool(study.groups)
    figure = new(10.4 if has_groups else 5.8, 4.2)
    panels = figure.subplots(1, 2 if has_groups else 1, squeeze=False, width_ratios=[1, 1.15] if has_groups else [1])
    margins(figure)
    _draw_optimum(panels[0, 0], study)
    if has_groups:
        figure.subplots_adjust(wspace=0.42)
        _draw_groups(panels[0, 1], study)
    t = study.temperatures
    parts = [f"N = {n}: {listed(c.possible(t), t)}" for n, c in zip(study.ns, study.main.over_t_N, strict=True)]
    for group in study.groups:
        parts += [
            f"{group.name}, N = {n}: T = {temperature_text(t[c.best])}"
            for n, c in zip(group.ns, group.grid.over_t_N, strict=True)
        ]
    description = f"Best temperature by N. {'; '.join(parts)}."
    return Plot(figure=figure, title="Best temperature for each N", description=description)


def temperature_colours(temperatures: Sequence[float]) -> list[str]:
    """Colour temperatures from blue (cold) to red (hot), darkened for thin lines on white."""
    places = np.linspace(0.06, 0.94, len(temperatures))
    return [to_hex(0.82 * np.array(colormaps["turbo"](place)[:3])) for place in places]


def _draw_optimum(axes: Axes, study: Study) -> None:
    grid, t = study.main, study.temperatures
    for n, choice in zip(study.ns, grid.over_t_N, strict=True):
        possible = choice.possible(t)
        axes.plot([n] * len(possible), possible, color=HAIRLINE, linewidth=5, solid_capstyle="round", zorder=1)
        axes.plot([n] * len(possible), possible, color=QUIET, marker="_", markersize=7, linestyle="", zorder=2)
        axes.plot(n, t[choice.best], color=_BEST, marker="o", markersize=7, zorder=4)
    note = "dots: highest measured; grey: not clearly lower"
    if study.surface is not None and grid.metric == "pass":
        optima = study.surface.optima
        axes.plot(study.ns, [o.temperature.value for o in optima], color=_LAW, linewidth=1.6, zorder=3)
        low, high = ([getattr(o.temperature, end) for o in optima] for end in ("low", "high"))
        axes.fill_between(study.ns, low, high, color=_LAW, alpha=0.13, linewidth=0)
        note += "; blue: by the law, 95 %"
    k_axis(axes, study.ns)
    room = 0.06 * (t[-1] - t[0])
    axes.set_ylim(t[0] - room, t[-1] + room)
    axes.yaxis.set_major_locator(FixedLocator(list(t) if len(t) <= 12 else list(t[:: -(-len(t) // 8)])))
    axes.yaxis.set_major_formatter(lambda value, _: temperature_text(value))
    title(axes, f"Best temperature for {metric_name(grid, 'N')}", note)


def _draw_groups(axes: Axes, study: Study) -> None:
    """A table of T*, coloured by it; those that are not clear are light."""
    groups, t = study.groups, study.temperatures
    ns, colours = groups[0].ns, temperature_colours(study.temperatures)
    for row, group in enumerate(groups):
        for column, choice in enumerate(group.grid.over_t_N):
            possible = choice.possible(t)
            is_clear = len(possible) == 1
            shade, alpha = colours[choice.best], 0.9 if is_clear else 0.22
            axes.add_patch(Rectangle((column - 0.47, row - 0.44), 0.94, 0.88, facecolor=shade, alpha=alpha))
            colour = "white" if is_clear and _is_dark(shade) else INK
            axes.text(
                column,
                row - 0.12,
                temperature_text(t[choice.best]),
                ha="center",
                va="center",
                fontsize=10,
                fontweight="bold",
                color=colour,
            )
            ends = (
                temperature_text(possible[0])
                if is_clear
                else f"{temperature_text(possible[0])}–{temperature_text(possible[-1])}"
            )
            axes.text(column, row + 0.24, ends, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xlim(-0.5, len(ns) - 0.5)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xticks(range(len(ns)), [str(n) for n in ns])
    axes.set_yticks(range(len(groups)), [f"{group.name}\n{group.num_problems} problems" for group in groups])
    bare(axes)
    axes.set_xlabel("N, samples per problem")
    title(axes, "The same by difficulty", "small: those that may be best; dark: only one")


def _is_dark(colour: str) -> bool:
    return float(np.array(to_rgb(colour)) @ [0.299, 0.587, 0.114]) < 0.55


def _outline(axes: Axes, n: int, t: int, is_best: bool) -> None:
    inset = 0.47 if is_best else 0.46
    axes.add_patch(
        Rectangle(
            (n - inset, t - inset),
            2 * inset,
            2 * inset,
            fill=False,
            edgecolor=_BEST,
            linewidth=2.4 if is_best else 0.9,
            linestyle="-",
        )
    )


def _decimal_ticks(axes: Axes) -> None:
    """1, 2 and 5 times powers of ten inside the range."""
    low, high = axes.get_ylim()
    ticks = [m * 10.0**e for e in range(-9, 4) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))


def _legend(figure: Figure, axes: Axes, temperatures: Sequence[float], colours: Sequence[str]) -> None:
    """Temperatures from hot to cold, beside the last panel; of many, some."""
    step = -(-len(temperatures) // _LEGEND_LINES)
    handles = [Line2D([], [], color=colour, linewidth=2.6) for colour in colours[::-step]]
    names = [f"T = {temperature_text(t)}" for t in temperatures[::-step]]
    box = axes.get_position()
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=(box.x1 + 0.012, box.y1 + 0.02))


def _describe_grid(study: Study, grid: Grid, name: str) -> str:
    t = study.temperatures
    parts = [
        f"N = {n}: highest {percent(choice.value.value)} % at T = {temperature_text(t[choice.best])}, "
        f"{listed(choice.possible(t), t)} not clearly lower"
        for n, choice in zip(study.ns, grid.over_t_N, strict=True)
    ]
    return f"Heat map of {name} at {len(t)} temperatures and {len(study.ns)} N. {'; '.join(parts)}."


def _describe_laws(study: Study) -> str:
    parts = []
    for t, law in zip(study.temperatures, study.laws, strict=True):
        if law.verdict is LawVerdict.NOT_FITTED:
            parts.append(f"T = {temperature_text(t)} not fitted")
        else:
            parts.append(
                f"T = {temperature_text(t)}: a = {law.a.value:.2f}, b = {law.b.value:.2f}, off by at most "
                f"{percent(law.deviation)} points, {law.verdict.value}"
            )
    return f"Measured pass@N and the law exp(a N^b) at each temperature. {'; '.join(parts)}."
