"""The figures are real PNG files that show something, whatever is missing from the numbers, and describe themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from bontune.base.errors import BontuneError
from bontune.metrics import Interval
from bontune.report.curves import draw_curves
from bontune.report.figure import apart, k_ticks
from bontune.report.run_figures import PANELS, draw_training, smoothed
from bontune.report.style import looks, shortened

KS = [1, 2, 4, 8, 16, 32, 64]


def curve(start: float, step: float) -> dict[int, Interval]:
    values = [start + step * place for place in range(len(KS))]
    return {k: Interval(value=v, low=v - 0.03, high=v + 0.03) for k, v in zip(KS, values, strict=True)}


def bare(*points: tuple[float, float]) -> dict[float, Interval]:
    """A curve without intervals."""
    return {k: Interval(value=value, low=float("nan"), high=float("nan")) for k, value in points}


def colours(names: Iterable[str]) -> dict[str, str]:
    return {name: look.colour for name, look in looks(dict.fromkeys(names)).items()}


def steps(count: int) -> list[dict[str, object]]:
    return [
        {"kind": "step", "step": step, "reward": 0.1 + 0.001 * step, "pass_at_n": 0.6, "kl": 0.01, "entropy": 1.2}
        for step in range(1, count + 1)
    ]


def description(path: Path) -> str:
    with Image.open(path) as image:
        return str(image.info["Description"])


def has_colour(path: Path, colour: str) -> bool:
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    pixels = np.round(255 * matplotlib.image.imread(path)[..., :3])
    return bool((np.abs(pixels - wanted).max(axis=-1) <= 2).any())


def test_pass_at_k_shows_every_model_in_its_colour(tmp_path: Path) -> None:
    models = {"base": curve(0.1, 0.1), "rloo": curve(0.2, 0.07), "bon_rl": curve(0.15, 0.11)}
    plot = draw_curves(models, trained_for=[16])
    figure, text = plot.figure, plot.description
    (axes,) = figure.axes
    *lines, mark = axes.lines
    for line, (name, drawn) in zip(lines, models.items(), strict=True):
        assert line.get_xdata().tolist() == KS
        assert line.get_ydata().tolist() == [interval.value for interval in drawn.values()]
        assert line.get_color() == colours(models)[name]
    assert mark.get_xdata() == [16, 16]
    assert len(axes.collections) == len(models), "a band for each"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [str(k) for k in KS]
    assert axes.get_xlabel() == "k, samples per problem"
    labels = [label.get_text() for label in figure.texts]
    assert labels == ["Base model\n70.0 % at k = 64", "Plain RL\n62.0 % at k = 64", "Best-of-N RL\n81.0 % at k = 64"]
    assert "plain RL 20.0 % at k = 1 and 62.0 % at k = 64" in text
    assert "marks N = 16" in text
    path = plot.save(tmp_path / "new" / "pass.png")
    assert matplotlib.image.imread(path).shape[1] >= 1100
    assert all(has_colour(path, colour) for colour in colours(models).values())
    assert description(path) == text
    assert [entry.name for entry in path.parent.iterdir()] == ["pass.png"], "a partial file was left behind"


def test_pass_at_k_draws_what_is_there() -> None:
    holes = bare((1, 0.2), (2, float("nan"))) | {4: Interval(value=0.4, low=0.3, high=0.5)}
    plot = draw_curves({"base": holes, "$\\frac{$ <b>": bare((4, 0.5), (1, 0.3))}, trained_for=[1000])
    text = plot.description
    assert [line.get_xydata().tolist() for line in plot.figure.axes[0].lines] == [
        [[1, 0.2], [4, 0.4]],
        [[1, 0.3], [4, 0.5]],
    ]
    assert "N = 1000" not in text
    assert "30.0 % at k = 1 and 50.0 % at k = 4" in text
    one = draw_curves({"base": bare((1, 0.0))}, trained_for=[1])
    assert one.figure.axes[0].lines[0].get_xydata().tolist() == [[1, 0]]
    rewards = draw_curves({"best@k": bare((1, -3.5), (2, 12.0))}, title="Rewards", is_share=False)
    assert "best@k -3.5 at k = 1 and 12 at k = 2" in rewards.description
    assert not any("%" in tick.get_text() for tick in rewards.figure.axes[0].get_yticklabels())


def test_a_figure_as_svg_is_the_same_each_time() -> None:
    first, again = (draw_curves({"base": curve(0.1, 0.1)}).svg() for _ in range(2))
    assert first == again
    root = ElementTree.fromstring(first)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not any("href" in key and not value.startswith("#") for node in root.iter() for key, value in node.items())


def test_pass_at_k_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match="nothing to draw"):
        draw_curves({"base": bare((1, float("nan")))})
    (tmp_path / "file").write_text("")
    with pytest.raises(BontuneError, match="Cannot write the figure"):
        draw_curves({"base": curve(0.1, 0.1)}).save(tmp_path / "file" / "x.png")


def test_training_curves_of_several_runs(tmp_path: Path) -> None:
    runs = {"rloo": steps(60), "bon_rl": steps(60)}
    path = draw_training(runs).save(tmp_path / "training.png")
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
    text = description(draw_training({"a$b": rows}).save(tmp_path / "training.png"))
    assert "nan" not in text
    assert all(text.count(panel.title) == 1 for panel in PANELS), "a quantity without values is named, too"


def test_a_resumed_step_counts_once(tmp_path: Path) -> None:
    rows = [{"kind": "step", "step": 1, "kl": 5.0}, {"kind": "step", "step": 1, "kl": 7.0}]
    assert "KL to the anchor: base model 7 at step 1." in description(
        draw_training({"base": rows}).save(tmp_path / "x.png")
    )


def test_a_name_keeps_its_colour_and_names_differ() -> None:
    names = ["base", "rloo", "bon_rl", "grpo", "pkpo", "mine"]
    assert (
        len(set(colours(names).values()))
        == len({look.marker for look in looks(dict.fromkeys(names)).values()})
        == len(names)
    )
    assert colours(["bon_rl"])["bon_rl"] == colours(names)["bon_rl"]
    assert colours(["grpo"])["grpo"] == colours(["base", "grpo"])["grpo"]
    assert len(colours(str(place) for place in range(50))) == 50


def test_labels_stay_apart_inside_the_axes_and_in_order() -> None:
    placed = apart([0.50, 0.51, 0.52, 0.9], [0.1] * 4, 0.0, 1.0)
    assert placed == pytest.approx([0.41, 0.51, 0.61, 0.9])
    assert apart([1.0, 0.99], [0.1, 0.1], 0.0, 1.0) == pytest.approx([0.95, 0.85])


def test_ticks_are_the_measured_k_and_thin_out_when_there_are_many() -> None:
    assert k_ticks(np.array(KS, dtype=float)) == KS
    assert k_ticks(np.arange(1.0, 65.0)) == KS
    assert k_ticks(np.arange(1.0, 67.0)) == [1, 2, 4, 8, 16, 32, 66]
    assert k_ticks(np.array([5.0])) == [5]
    assert k_ticks(np.array([2.1, 7.9, 16.0])) == [4, 8, 16], "means are no ticks"


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    for size in (1, 2, 5, 8, 9, 100):
        np.testing.assert_allclose(smoothed(np.full(size, 0.3)), np.full(size, 0.3))


def test_long_names_are_shortened_on_one_line() -> None:
    assert shortened("plain\nname") == "plain name"
    assert len(shortened("x" * 100)) <= 28


def test_drawing_needs_no_pyplot(tmp_path: Path) -> None:
    """pyplot keeps every figure alive and chooses a backend: a trainer that draws must not start it."""
    had_pyplot = "matplotlib.pyplot" in sys.modules
    draw_curves({"base": curve(0.1, 0.1)}).save(tmp_path / "x.png")
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot
