"""The figures are real PNG files that show something, whatever is missing from the numbers, and describe themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from bontune.base.errors import BontuneError
from bontune.report.canvas import colours, markers, shortened
from bontune.report.panels import smoothed
from bontune.report.plots import _apart, _ticks, plot_pass_at_k, plot_training_curves

KS = [1, 2, 4, 8, 16, 32, 64]


def curve(start: float, step: float) -> dict[str, list[float]]:
    values = [start + step * place for place in range(len(KS))]
    return {"k": KS, "value": values, "low": [v - 0.03 for v in values], "high": [v + 0.03 for v in values]}


def steps(count: int) -> list[dict[str, object]]:
    return [
        {"kind": "step", "step": step, "reward": 0.1 + 0.001 * step, "pass_at_n": 0.6, "kl": 0.01, "entropy": 1.2}
        for step in range(1, count + 1)
    ]


def ink(path: Path) -> float:
    """The share of pixels that are not white."""
    pixels = matplotlib.image.imread(path)[..., :3]
    return float((pixels.min(axis=-1) < 0.9).mean())


def description(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.info["Description"])


def has_colour(path: Path, colour: str) -> bool:
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    pixels = np.round(255 * matplotlib.image.imread(path)[..., :3])
    return bool((np.abs(pixels - wanted).max(axis=-1) <= 2).any())


def test_pass_at_k_shows_every_model_in_its_colour(tmp_path: Path) -> None:
    models = {"base": curve(0.1, 0.1), "rloo": curve(0.2, 0.07), "bon_rl": curve(0.15, 0.11)}
    path = plot_pass_at_k(models, tmp_path / "new" / "pass.png", mark_n=16)
    assert matplotlib.image.imread(path).shape[1] >= 1100
    assert ink(path) > 0.01
    assert all(has_colour(path, colour) for colour in colours(models).values())
    assert "plain RL 20.0 % at k = 1 and 62.0 % at k = 64" in description(path)
    assert "marks N = 16" in description(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["pass.png"], "a partial file was left behind"


def test_pass_at_k_draws_what_is_there(tmp_path: Path) -> None:
    holes = {"k": [1, 2, 4], "value": [0.2, float("nan"), 0.4], "low": [None, None, 0.3], "high": [None, None, 0.5]}
    bare = {"k": [4, 1], "value": [0.5, 0.3]}
    path = plot_pass_at_k({"base": holes, "$\\frac{$ <b>": bare}, tmp_path / "holes.png", mark_n=1000)
    assert ink(path) > 0.01
    assert "N = 1000" not in description(path)
    assert "30.0 % at k = 1 and 50.0 % at k = 4" in description(path)
    assert ink(plot_pass_at_k({"base": {"k": [1], "value": [0.0]}}, tmp_path / "one.png", mark_n=1)) > 0.005


def test_pass_at_k_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match="as many values as k, got 2 k, 1 values"):
        plot_pass_at_k({"base": {"k": [1, 2], "value": [0.5]}}, tmp_path / "x.png")
    with pytest.raises(BontuneError, match="nothing to draw"):
        plot_pass_at_k({"base": {"k": [1], "value": [float("nan")]}}, tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(BontuneError, match="cannot write the figure"):
        plot_pass_at_k({"base": curve(0.1, 0.1)}, tmp_path / "file" / "x.png")


def test_training_curves_of_several_runs(tmp_path: Path) -> None:
    runs = {"rloo": steps(60), "bon_rl": steps(60)}
    path = plot_training_curves(runs, tmp_path / "training.png")
    assert ink(path) > 0.01
    assert all(has_colour(path, colour) for colour in colours(runs).values())
    assert "KL to the anchor: plain RL 0.01 at step 1 to 0.01 at step 60, Best-of-N RL" in description(path)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"kind": "step", "step": 1}],
        [{"kind": "step", "step": 1, "reward": float("nan"), "kl": float("inf"), "entropy": None}],
        [{"kind": "step", "step": 3, "reward": -2.5}, {"kind": "step"}, {"kind": "eval", "step": 3, "metrics": {}}],
        [{"kind": "step", "step": step, "reward": 1.0, "pass_at_n": 0.0} for step in range(20)],
    ],
    ids=["empty", "no values", "not finite", "other scale", "constant"],
)
def test_training_curves_draw_what_is_there(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = plot_training_curves({"a$b": rows}, tmp_path / "training.png")
    assert ink(path) > 0.005
    assert "nan" not in description(path)


def test_a_resumed_step_counts_once(tmp_path: Path) -> None:
    rows = [{"kind": "step", "step": 1, "kl": 5.0}, {"kind": "step", "step": 1, "kl": 7.0}]
    assert "KL to the anchor: base model 7 at step 1." in description(
        plot_training_curves({"base": rows}, tmp_path / "x.png")
    )


def test_a_name_keeps_its_colour_and_names_differ() -> None:
    names = ["base", "rloo", "bon_rl", "grpo", "pkpo", "mine"]
    assert len(set(colours(names).values())) == len(set(markers(names).values())) == len(names)
    assert colours(["bon_rl"])["bon_rl"] == colours(names)["bon_rl"]
    assert colours(["grpo"])["grpo"] == colours(["base", "grpo"])["grpo"]
    assert len(colours(str(place) for place in range(50))) == 50


def test_labels_stay_apart_inside_the_axes_and_in_order() -> None:
    placed = _apart({"a": 0.50, "b": 0.51, "c": 0.52, "d": 0.9}, gap=0.1, low=0.0, high=1.0)
    assert placed == pytest.approx({"a": 0.41, "b": 0.51, "c": 0.61, "d": 0.9})
    placed = _apart({"a": 1.0, "b": 0.99}, gap=0.1, low=0.0, high=1.0)
    assert placed == pytest.approx({"a": 1.0, "b": 0.9})


def test_ticks_are_the_measured_k_and_thin_out_when_there_are_many() -> None:
    assert _ticks(np.array(KS, dtype=float)) == KS
    assert _ticks(np.arange(1.0, 65.0)) == KS
    assert _ticks(np.arange(1.0, 67.0)) == [1, 2, 4, 8, 16, 32, 66]
    assert _ticks(np.array([5.0])) == [5]


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    for size in (1, 2, 5, 8, 9, 100):
        np.testing.assert_allclose(smoothed(np.full(size, 0.3)), np.full(size, 0.3))


def test_long_names_are_shortened_on_one_line() -> None:
    assert shortened("plain\nname") == "plain name"
    assert len(shortened("x" * 100)) <= 28


def test_drawing_needs_no_pyplot(tmp_path: Path) -> None:
    """pyplot keeps every figure alive and chooses a backend: a trainer that draws must not start it."""
    had_pyplot = "matplotlib.pyplot" in sys.modules
    plot_pass_at_k({"base": curve(0.1, 0.1)}, tmp_path / "x.png")
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot
