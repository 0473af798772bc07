"""The effect against the size of the model: ``python tools/draw_sizes.py NUMBER=RESULTS … --out FOLDER``.

Each argument is a number of parameters and the results that a suite with the arms ``base``, ``rl`` and ``bon_rl`` left
for a model of that size, such as ``155968=results/countdown``. Writes ``sizes.png`` and ``sizes.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from bontune.experiments.figure_parts import SuitePlot, panel
from bontune.metrics import Interval
from bontune.report.figure import Curve, draw_curve, figure_title, label_ends, new, styled
from bontune.report.style import Family, Look, looks

METRIC = "pass@32"
_LOOKS = looks({"base": Family.BASE, "rl": Family.ONE_SAMPLE, "bon_rl": Family.BEST_OF_N})
LEVELS = {
    "base": ("base model", _LOOKS["base"]),
    "rl": ("plain RL", _LOOKS["rl"]),
    "bon_rl": ("Best-of-N RL (ours)", _LOOKS["bon_rl"]),
}
"""Arms of the left panel."""
GAINS = {
    "bon_vs_rl_pass32": ("ours − plain RL", Look(colour="#00795a", marker="D")),
    "bon_vs_base_pass32": ("ours − base", _LOOKS["bon_rl"]),
    "rl_vs_base_pass32": ("plain RL − base", _LOOKS["rl"]),
}
"""Claims of the right panel."""


def levels(folder: Path) -> dict[str, dict[str, float]]:
    """Arm → value, low and high of the metric on the test problems at T = 1, in percent."""
    with open(folder / "arms.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["data"], row["metric"]) == ("test", METRIC)]
    return {
        row["arm"]: {name: float(row[name]) for name in ("value", "low", "high")}
        for row in rows
        if row["arm"] in LEVELS and float(row["temperature"]) == 1.0
    }


def gains(folder: Path) -> dict[str, dict[str, float]]:
    """Claim → value, low and high in points, each arm at its own best temperature."""
    rows = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    return {
        row["id"]: {"value": row["measured"], "low": row["low"], "high": row["high"]}
        for row in rows
        if row["id"] in GAINS and row["measured"] is not None
    }


@styled()
def draw(folders: dict[int, Path]) -> SuitePlot:
    """Two panels against the number of parameters: pass@32 of the arms, and the differences between them."""
    found = {"levels": {n: levels(f) for n, f in folders.items()}, "gains": {n: gains(f) for n, f in folders.items()}}
    figure = new(10.6, 4.5)
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.75})
    for axes, name, shown in ((left, "levels", LEVELS), (right, "gains", GAINS)):
        lines = [
            Curve(
                label=label,
                look=look,
                x=[float(n) for n in folders],
                y=[Interval(**{k: v / 100 for k, v in found[name][n][key].items()}) for n in folders],
            )
            for key, (label, look) in shown.items()
        ]
        for line in lines:
            draw_curve(axes, line)
        _size_axis(axes, list(folders))
        is_difference = name == "gains"
        panel(axes, f"{METRIC}, points" if is_difference else f"{METRIC} at T = 1", is_difference=is_difference)
        label_ends(figure, (axes, lines))
    title = f"{METRIC} against the size of the model"
    figure_title(figure, title)
    rows: list[dict[str, Any]] = [
        {"parameters": n, "what": key, "unit": "percent" if name == "levels" else "points", **values}
        for name, of_size in found.items()
        for n, of_key in of_size.items()
        for key, values in of_key.items()
    ]
    return SuitePlot(
        name="sizes",
        title=title,
        caption="Problems and trainings as in the results of each size. Left: at T = 1; right: each arm at its own "
        "best temperature, chosen on validation. Bands: 95 % intervals over problems and trainings.",
        figure=figure,
        rows=rows,
    )


def _size_axis(axes: Axes, sizes: list[int]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{n / 1000:.0f} k" for n in sizes]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("parameters")


def main(arguments: list[str] | None = None) -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description="Draw the effect against the size of the model.")
    parser.add_argument("results", nargs="+", metavar="PARAMETERS=FOLDER", help="a size and its results")
    parser.add_argument("--out", type=Path, required=True, help="folder of sizes.png and sizes.csv")
    options = parser.parse_args(arguments)
    folders: dict[int, Path] = {}
    for text in options.results:
        number, _, name = text.partition("=")
        folder = Path(name)
        if not number.isdecimal() or int(number) == 0 or not (folder / "claims.json").is_file():
            parser.error(f"{text} is not PARAMETERS=FOLDER with the results of a suite in the folder")
        if int(number) in folders:
            parser.error(f"{number} parameters are given twice")
        if levels(folder).keys() != LEVELS.keys() or gains(folder).keys() != GAINS.keys():
            parser.error(f"{folder} lacks measurements of {', '.join(LEVELS)} in {METRIC}: its suite is not finished")
        folders[int(number)] = folder
    figure = draw(dict(sorted(folders.items()))).write(options.out)
    print(f"saved to {figure.png} and {figure.csv}")


if __name__ == "__main__":
    main()
