"""The figures and tables of a sweep show something whatever the sweep is, and say what they show."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bontune.base.errors import BontuneError
from bontune.report.result_tables import (
    best_n_rows,
    budget_rows,
    fit_rows,
    grid_rows,
    optimum_rows,
    sweep_json,
    sweep_tables,
)
from bontune.report.sweep_figures import draw_bests, draw_grid, draw_laws, draw_optimum, temperature_colours
from bontune.report.tables import as_csv
from bontune.scaling import Study, SweepPool, study


def made(
    temperatures: tuple[float, ...], *, p: int = 60, m: int = 16, rate: float | None = None, errs: bool = True
) -> Study:
    rng = np.random.default_rng(0)
    pools = []
    for t in temperatures:
        rates = np.full(p, rate) if rate is not None else rng.beta(0.6, 1.5 + t**2, p)
        rewards = (rng.random((p, m)) < rates[:, None]).astype(float)
        scores = np.where(rewards == 1, 1.0, np.where(rng.random((p, m)) < 0.08 * t, 2.0, 0.0))
        pools.append(
            SweepPool(
                temperature=t,
                problem_ids=[str(i) for i in range(p)],
                rewards_PM=rewards,
                tokens=8 + t,
                scores_PM=scores if errs else None,
            )
        )
    return study(pools, num_resamples=200)


STUDIES: dict[str, Callable[[], Study]] = {
    "usual": lambda: made((0.4, 0.7, 1.0, 1.3)),
    "clear": lambda: made((0.2, 1.0, 3.0), p=400),
    "two temperatures": lambda: made((0.5, 1.0), errs=False),
    "never solved": lambda: made((0.5, 1.0, 1.5, 2.0), rate=0.0),
    "always solved": lambda: made((0.5, 1.0, 1.5, 2.0), rate=1.0),
    "one problem": lambda: made((0.5, 1.0), p=1, m=4),
    "one sample": lambda: made((0.5, 1.0), m=1),
    "many": lambda: made(tuple(0.1 * i for i in range(1, 21)), p=20, m=256),
}


@pytest.fixture(scope="module", params=STUDIES)
def result(request: pytest.FixtureRequest) -> Study:
    return STUDIES[request.param]()


def description(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.info["Description"])


def figures(result: Study, folder: Path) -> list[Path]:
    paths = [
        draw_grid(result, result.passes).save(folder / "pass.png"),
        draw_laws(result).save(folder / "laws.png"),
        draw_optimum(result).save(folder / "optimum.png"),
    ]
    if result.bests is not None:
        paths += [
            draw_grid(result, result.bests).save(folder / "best.png"),
            draw_bests(result).save(folder / "bests.png"),
        ]
    return paths


def test_figures_draw_what_is_there(result: Study, tmp_path: Path) -> None:
    for path in figures(result, tmp_path / "new"):
        text = description(path)
        assert "nan" not in text
        assert any(f"{t:.1f}" in text for t in result.temperatures), text
        assert matplotlib.image.imread(path).shape[1] < 4000


def test_figures_stay_within_their_edges(tmp_path: Path) -> None:
    """Nothing is cut off: a margin of white all round."""
    for path in figures(made((0.4, 0.7, 1.0, 1.3)), tmp_path):
        pixels = matplotlib.image.imread(path)[..., :3].min(axis=-1)
        border = np.concatenate(
            [pixels[:4].ravel(), pixels[-4:].ravel(), pixels[:, :4].ravel(), pixels[:, -4:].ravel()]
        )
        assert (border > 0.95).all(), path


def test_descriptions_say_the_numbers(tmp_path: Path) -> None:
    result = made((0.4, 0.7, 1.0, 1.3))
    t = result.temperatures
    last = result.passes.over_t_N[-1]
    text = description(draw_grid(result, result.passes).save(tmp_path / "x.png"))
    assert f"N = 16: highest {100 * last.value.value:.1f} % at T = {t[last.best]:.1f}" in text
    text = description(draw_laws(result).save(tmp_path / "x.png"))
    assert f"T = 1.0: a = {result.laws[2].a.value:.2f}, b = {result.laws[2].b.value:.2f}" in text
    assert result.bests is not None
    peak = result.bests.over_n_T[3]
    text = description(draw_bests(result).save(tmp_path / "x.png"))
    assert f"T = 1.3 peaks at N = {result.ns[peak.best]} with {100 * peak.value.value:.1f} %" in text
    assert "hardest third, N = 8: T = " in description(draw_optimum(result).save(tmp_path / "x.png"))


def test_what_cannot_be_drawn_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no best-of-N"):
        draw_bests(made((0.5, 1.0), errs=False))
    (tmp_path / "file").write_text("")
    with pytest.raises(BontuneError, match="Cannot write the figure"):
        draw_laws(made((0.5, 1.0))).save(tmp_path / "file" / "x.png")


def test_temperatures_have_colours_of_their_own() -> None:
    for count in (1, 2, 7, 20):
        assert len(set(temperature_colours(list(range(count))))) == count


def test_tables_print_and_files_read_back(result: Study) -> None:
    console = Console(file=io.StringIO(), width=120, record=True)
    for table in sweep_tables(result):
        console.print(table.terminal())
    text = console.export_text()
    assert "nan" not in text
    assert "best temperature for each N" in text
    tree = json.loads(sweep_json(result, {"model": "m"}))
    assert tree["model"] == "m"
    assert tree["advice"]
    assert len(tree["grid"]) == len(result.temperatures) * len(result.ns) * (1 if result.bests is None else 2)
    for rows in (grid_rows(result), fit_rows(result), optimum_rows(result), budget_rows(result), best_n_rows(result)):
        if rows:
            read = list(csv.DictReader(io.StringIO(as_csv(rows))))
            assert len(read) == len(rows)
            assert "nan" not in as_csv(rows)


def test_the_files_hold_the_numbers_of_the_study() -> None:
    result = made((0.4, 0.7, 1.0, 1.3))
    assert result.bests is not None
    for row in grid_rows(result):
        grid = result.passes if row["metric"] == "pass" else result.bests
        i, j = result.temperatures.index(row["temperature"]), result.ns.index(row["n"])
        assert (row["value"], row["low"]) == (grid.means_TN[i, j], grid.low_TN[i, j])
    rows = [row for row in optimum_rows(result) if row["group"] == "all" and row["metric"] == "best"]
    for row, choice in zip(rows, result.bests.over_t_N, strict=True):
        assert row["temperature"] == result.temperatures[choice.best]
        assert row["may_be_best"] == choice.possible(result.temperatures)
        assert row["gain"] == choice.gain.value
    lost = [row["loss_at_largest"] for row in best_n_rows(result)]
    means = result.bests.means_TN
    np.testing.assert_allclose(lost, means.max(-1) - means[:, -1], atol=1e-12)
