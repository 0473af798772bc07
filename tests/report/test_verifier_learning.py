"""What the models learned: the rows against a direct count, the groups against luck, and the figure."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from bontune.base.errors import BontuneError
from bontune.metrics import answer_distribution
from bontune.pools.learned import METRICS, learned_rows, rank_names
from bontune.pools.pool import Pool
from bontune.report.answer_figures import draw_learned
from bontune.report.tables import as_csv

NUM_ANSWERS = 12
Rows = list[dict[str, Any]]


def made(*, sharpness: float, seed: int, p: int = 60, m: int = 32, has_scores: bool = False) -> Pool:
    """P problems of random difficulty; answer "0" is right, and a sharper model spreads over fewer answers."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(0)
    logits = world.normal(size=(p, NUM_ANSWERS))
    logits[:, 0] += world.normal(scale=2, size=p)
    chances = np.exp(sharpness * logits)
    drawn = np.array([rng.choice(NUM_ANSWERS, size=m, p=row / row.sum()) for row in chances])
    columns: dict[str, Any] = {
        "answer": [[None if a == 1 else str(a) for a in row] for row in drawn.tolist()],
        "reward": (drawn == 0).astype(float).tolist(),
    }
    if has_scores:
        columns["score"] = rng.normal(size=(p, m)).tolist()
    return Pool(problem_ids=[f"p{i}" for i in range(p)], columns=columns, settings={})


def reordered(pool: Pool, places: list[int]) -> Pool:
    columns = {name: [rows[i] for i in places] for name, rows in pool.columns.items()}
    return Pool(problem_ids=[pool.problem_ids[i] for i in places], columns=columns, settings={})


def row_of(rows: Rows, model: str, group: str, metric: str) -> dict[str, Any]:
    (found,) = (row for row in rows if (row["model"], row["group"], row["metric"]) == (model, group, metric))
    return found


@pytest.fixture(scope="module")
def pools() -> dict[str, Pool]:
    return {
        "base": made(sharpness=1.0, seed=1),
        "rloo": made(sharpness=3.0, seed=2),
        "bon_rl": made(sharpness=0.6, seed=3),
    }


@pytest.fixture(scope="module")
def rows(pools: dict[str, Pool]) -> Rows:
    return learned_rows(pools)


def test_rows_are_means_over_the_second_half_of_problems_grouped_by_the_first(
    pools: dict[str, Pool], rows: Rows
) -> None:
    rates = np.array(pools["base"].rewards())[:, ::2].mean(-1)
    groups = {"easy": rates >= 0.25, "hard": (rates < 0.25) & (rates > 0), "unsolved": rates == 0, "all": rates >= 0}
    means: dict[tuple[str, str], np.ndarray] = {}
    for name, pool in pools.items():
        found = answer_distribution(
            [row[1::2] for row in pool.columns["answer"]], np.array(pool.rewards())[:, 1::2], num_drawn=16, num_ranks=6
        )
        for metric in METRICS:
            if metric != "chosen":
                means[name, metric] = getattr(found, f"{metric}_P")
        for place, rank in enumerate(rank_names()):
            means[name, f"rank_{rank}"] = found.ranked_PR[:, place]
            means[name, f"rank_{rank}_correct"] = found.ranked_correct_PR[:, place]
    assert len(rows) == len(means) * len(groups)
    for row in rows:
        is_in = groups[row["group"]]
        values, base = means[row["model"], row["metric"]][is_in], means["base", row["metric"]][is_in]
        assert (row["num_problems"], row["num_samples"], row["num_drawn"]) == (is_in.sum(), 16, 16)
        assert row["value"] == pytest.approx(values.mean())
        assert row["low"] <= row["value"] <= row["high"]
        if row["model"] == "base":
            assert row["difference"] is row["difference_low"] is row["difference_high"] is None
        else:
            assert row["difference"] == pytest.approx((values - base).mean())
            assert row["difference_low"] <= row["difference"] + 1e-12
            assert row["difference_high"] >= row["difference"] - 1e-12


def test_a_sharper_model_gives_fewer_answers(rows: Rows) -> None:
    for metric, sign in (("entropy", -1), ("distinct", -1), ("top", 1), ("coverage", 1), ("rank_rest", -1)):
        sharper, softer = (row_of(rows, name, "all", metric) for name in ("rloo", "bon_rl"))
        assert min(sign * sharper["difference_low"], sign * sharper["difference_high"]) > 0, metric
        assert max(sign * softer["difference_low"], sign * softer["difference_high"]) < 0, metric


def test_the_same_model_again_has_not_changed_on_easy_or_hard_problems() -> None:
    """Measured by the samples that sort the problems, the first model would look better on easy ones by luck alone."""
    gaps, naive = [], []
    for seed in range(12):
        first, again = (made(sharpness=0.7, seed=100 * seed + k, p=80, m=16) for k in (1, 2))
        found = learned_rows({"first": first, "again": again})
        gaps.append(row_of(found, "again", "easy", "correct")["difference"])
        rates = np.array(first.rewards()).mean(-1)
        naive.append((np.array(again.rewards()).mean(-1) - rates)[rates >= 0.25].mean())
    assert np.mean(naive) < -0.02, "otherwise there is nothing to avoid"
    assert abs(np.mean(gaps)) < 0.4 * abs(np.mean(naive))


def test_problems_are_matched_by_id_and_samples_cut_to_the_fewest(pools: dict[str, Pool], rows: Rows) -> None:
    order = np.random.default_rng(0).permutation(60).tolist()
    assert learned_rows(pools | {"rloo": reordered(pools["rloo"], order)}) == rows
    long = {name: [[*row, *row] for row in column] for name, column in pools["bon_rl"].columns.items()}
    more = Pool(problem_ids=pools["bon_rl"].problem_ids, columns=long, settings={})
    assert learned_rows(pools | {"bon_rl": more}) == rows


def test_the_choice_of_a_verifier_is_measured_where_every_pool_has_one() -> None:
    one, other = (made(sharpness=1.0, seed=seed, p=10, has_scores=True) for seed in (1, 2))
    assert row_of(learned_rows({"a": one, "b": other}), "b", "all", "chosen")["num_problems"] == 10
    without = made(sharpness=1.0, seed=1, p=10)
    oracle = Pool(problem_ids=one.problem_ids, columns=one.columns | {"score": one.columns["reward"]}, settings={})
    for second in (without, oracle):
        assert "chosen" not in {row["metric"] for row in learned_rows({"a": one, "b": second})}


def test_what_cannot_be_compared_is_said(pools: dict[str, Pool], tmp_path: Path) -> None:
    base = pools["base"]
    silent = Pool(problem_ids=base.problem_ids, columns={"reward": base.columns["reward"]}, settings={})
    mute = Pool(problem_ids=base.problem_ids, columns=base.columns | {"answer": [[None] * 32] * 60}, settings={})
    single = made(sharpness=1.0, seed=1, m=1)
    cases: list[tuple[dict[str, Pool], dict[str, Any], str]] = [
        ({}, {}, "at least one pool"),
        ({"base": base, "x": silent}, {}, "pool of x holds no answers"),
        ({"base": mute}, {}, "pool of base holds no answers"),
        ({"base": base, "x": reordered(base, [0, 1])}, {}, "different problems \\(p2 is in the first only"),
        ({"base": reordered(base, [0, 1]), "x": base}, {}, "different problems \\(x has more"),
        ({"base": single}, {}, "two samples"),
        ({"base": base}, {"easy_from": 0}, "easy_from must be above 0"),
        ({"base": base}, {"num_drawn": 0}, "num_drawn must be at least 1"),
    ]
    for given, options, message in cases:
        with pytest.raises(BontuneError, match=message):
            learned_rows(given, **options)
    with pytest.raises(BontuneError, match="nothing to draw"):
        draw_learned([])


def test_rows_read_back_as_csv(rows: Rows) -> None:
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert len(read) == len(rows)
    assert [float(line["value"]) for line in read] == [row["value"] for row in rows]
    assert {line["difference"] for line in read if line["model"] == "base"} == {""}


def test_the_figure_says_its_numbers_and_keeps_its_edges(rows: Rows, tmp_path: Path) -> None:
    path = draw_learned(rows).save(tmp_path / "new" / "learned.png")
    with Image.open(path) as image:
        text = str(image.info["Description"])
    top = row_of(rows, "rloo", "hard", "top")["value"]
    assert f"plain RL on hard problems: {100 * top:.1f} % on the most frequent answer" in text
    pixels = matplotlib.image.imread(path)[..., :3].min(axis=-1)
    border = np.concatenate([pixels[:4].ravel(), pixels[-4:].ravel(), pixels[:, :4].ravel(), pixels[:, -4:].ravel()])
    assert (border > 0.95).all()
    assert 0.02 < (pixels < 0.9).mean() < 0.5


def constant(reward: float) -> Pool:
    return Pool(problem_ids=["a", "b"], columns={"answer": [["1"] * 4] * 2, "reward": [[reward] * 4] * 2}, settings={})


@pytest.mark.parametrize(
    "given",
    [
        {"base": constant(0.0)},
        {"base": constant(1.0), "rloo": constant(0.0)},
        {f"a model with a long name and ${i}$" * 2: made(sharpness=1.0, seed=i, p=6, m=4) for i in range(9)},
    ],
    ids=["nothing solved", "all solved", "nine models"],
)
def test_a_figure_of_whatever_there_is(given: dict[str, Pool], tmp_path: Path) -> None:
    path = draw_learned(learned_rows(given)).save(tmp_path / "x.png")
    assert (matplotlib.image.imread(path)[..., :3].min(axis=-1) < 0.9).mean() > 0.005
    with Image.open(path) as image:
        assert "nan" not in str(image.info["Description"])
