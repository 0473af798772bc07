"""The figures of a suite show what is measured, whatever is missing, and their CSV files hold the numbers."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bontune.base.errors import BontuneError
from bontune.experiments.claims import judge
from bontune.experiments.figure_parts import Figure, arm_label, arm_looks
from bontune.experiments.figures_curves import arms_by_n
from bontune.experiments.figures_training import write_figures
from bontune.experiments.results import OWN, Results
from bontune.experiments.store import Measurement, Store, SuiteRun, verifiers
from bontune.experiments.suite import BASE, Suite, load_suite, main_arms
from bontune.metrics.evaluation import Evaluation, evaluate_pool
from bontune.report.figure import apart

NAMES = ["curves", "frontier", "gains", "temperature", "n_prime", "harder", "verifiers", "draws", "training"]
ABILITY = {
    "base": 0.9,
    "bon_rl": 1.75,
    "rl": 1.35,
    "bon_rl_v": 1.6,
    "rl_v": 1.2,
    "winner": 1.5,
    "eighth": 1.25,
    "quarter": 1.55,
    "n4": 1.65,
    "n32": 1.6,
    "short": 1.1,
}
VERIFIED = {"bon_rl_v": 0.04, "rl_v": 0.05}
"""How much rarer a verifier's mistakes are on an arm."""
SUITE: dict[str, Any] = {
    "title": "Countdown",
    "base": "countdown",
    "metric": "pass@8",
    "seeds": 2,
    "measuring": {
        "samples": 16,
        "ks": [1, 2, 4, 8, 16],
        "temperatures": [1.0, 1.4],
        "validation_problems": 40,
        "harder": {"hard": True},
        "harder_problems": 40,
        "test_problems": 40,
        "verifier": "countdown-verifier",
        "other_verifiers": {"votes": "majority"},
    },
    "arms": {
        "base": {"label": "base model"},
        "bon_rl": {
            "label": "BoN-RL-S, exact, all samples (ours)",
            "select": "pass@8",
            "lr": [6e-4, 1e-3],
            "recipe": {"objective": {"name": "bon_rl", "n": 16}},
        },
        "rl": {"label": "RL, N′ = 1", "recipe": {"objective": {"name": "rloo", "n": 1}}},
        "bon_rl_v": {
            "label": "BoN-RL-V, exact (ours)",
            "select": "best@8",
            "recipe": {
                "objective": {"name": "bon_rl", "n": 16},
                "verifier": {"name": "reward_model", "path": "countdown-verifier"},
            },
        },
        "rl_v": {
            "label": "RL on the verifier's score, N′ = 1",
            "select": "best@1",
            "recipe": {
                "objective": {"name": "rloo", "n": 1, "reward": "verifier"},
                "verifier": {"name": "reward_model", "path": "countdown-verifier"},
            },
        },
        "winner": {
            "label": "BoN-RL-S, one winner per prompt (paper)",
            "select": "pass@8",
            "recipe": {"objective": {"name": "bon_rl", "n": 32, "draw": "winner"}, "sampling": {"samples": 32}},
        },
        "eighth": {
            "label": "ours, an eighth of the generations",
            "select": "pass@8",
            "recipe": {"objective": {"name": "bon_rl", "n": 16}, "training": {"steps": 25}},
        },
        "quarter": {
            "label": "ours, a quarter of the generations",
            "select": "pass@8",
            "recipe": {"objective": {"name": "bon_rl", "n": 16}, "training": {"steps": 50}},
        },
        "n4": {
            "label": "BoN-RL-S, N′ = 4",
            "tier": 2,
            "select": "pass@4",
            "recipe": {"objective": {"name": "bon_rl", "n": 4}},
        },
        "n32": {
            "label": "BoN-RL-S, N′ = 32",
            "tier": 2,
            "select": "pass@16",
            "recipe": {
                "objective": {"name": "bon_rl", "n": 32},
                "sampling": {"samples": 64},
                "training": {"prompts_per_step": 16},
            },
        },
        "short": {"label": "the same, chosen by pass@1", "like": "bon_rl", "tier": 2},
    },
    "claims": [
        {"id": "more", "claim": "Ours is above RL.", "a": "bon_rl", "b": "rl", "metric": "pass@8"},
        {
            "id": "fewer",
            "claim": "Fewer generations are enough.",
            "kind": "generations",
            "b": "winner",
            "metric": "pass@8",
            "ladder": {"eighth": 0.125, "quarter": 0.25, "bon_rl": 1.0},
        },
    ],
}


def made_suite(folder: Path, **changes: Any) -> Suite:
    """The suite of these tests, through a file as any other."""
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(SUITE | changes, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return load_suite(str(path))


def pool(arm: str, seed: int, what: Measurement, num_problems: int, suite: Suite) -> Evaluation:
    """Rewards from a beta-binomial, scores of verifiers that err: all metrics come from one pool, as they would."""
    shape = np.random.default_rng(["test", "validation", "harder"].index(what.data))
    ability = ABILITY.get(arm, 1.0) * (0.4 if what.data == "harder" else 1.0)
    ability *= 1 - 0.25 * (what.temperature - (0.8 if arm.startswith("rl") else 1.0)) ** 2
    easy = shape.beta(0.35, 1.1, num_problems)
    noise = np.random.default_rng([seed, list(ABILITY).index(arm), round(10 * what.temperature)])
    rates = np.clip(1 - (1 - easy) ** (ability * (1 + 0.03 * noise.standard_normal())) + 0.02 * ability, 0, 1)
    rewards = (noise.random((num_problems, suite.measuring.samples)) < rates[:, None]).astype(float)
    values: dict[str, np.ndarray] = {}
    for place, name in enumerate(verifiers(suite)):
        mistaken = noise.random(rewards.shape) < 0.08 + 0.04 * place - VERIFIED.get(arm, 0.0) * (place == 0)
        scores = np.where(mistaken, 1.5, rewards) + 0.1 * noise.random(rewards.shape)
        ids = [f"{what.data}-{i}" for i in range(num_problems)]
        scored = evaluate_pool(ids, rewards, suite.measuring.ks, scores_PM=scores).values
        values |= {f"{name}:{key}": v for key, v in scored.items() if key.startswith("best@")} if name else scored
    return Evaluation(problem_ids=ids, values=values)


def fill(store: Store, arm: str, lr: float, seed: int, *, is_whole: bool = True) -> None:
    """The pieces of one run, as a run of the suite leaves them; seed 0 has all temperatures."""
    suite, run = store.suite, SuiteRun(arm=arm, lr=lr, seed=seed)
    if arm != BASE:
        recipe = suite.run_recipe(arm, lr, seed, "run")
        steps = recipe.training.steps
        level = ABILITY[arm] * (1 + 0.02 * seed - 100 * abs(lr - 6e-4))
        history = []
        for step in range(recipe.eval.every, steps + 1, recipe.eval.every):
            share = (step / 200) ** 0.5
            history.append(
                {"step": step}
                | {
                    f"{family}@{k}": 0.35 + 0.1 * math.log2(k) + 0.1 * share * (level - 0.5)
                    for family in ("pass", "best")
                    for k in suite.measuring.ks
                }
            )
        kept = {metric: {"step": steps, "value": history[-1][metric]} for metric in suite.selections(arm)}
        generations = steps * recipe.training.prompts_per_step * recipe.sampling.samples
        trial = {
            "arm": arm,
            "lr": lr,
            "seed": seed,
            "steps": steps,
            "generations": generations,
            "kept": kept,
            "history": history,
        }
        store.write_trial(run, trial)
    if not is_whole:
        return
    counts = {
        "validation": suite.measuring.validation_problems,
        "test": suite.measuring.test_problems,
        "harder": suite.measuring.harder_problems,
    }
    for data, count in counts.items():
        for t in suite.measuring.temperatures:
            what = Measurement(data=data, temperature=t)
            for select in suite.selections(arm) if arm != BASE else [""]:
                found = pool(arm, seed, what, count or 40, suite)
                store.write_measurement(run, select, what, found)


def filled(folder: Path, suite: Suite, arms: list[str] | None = None, seeds: int | None = None) -> Results:
    """Results of a suite, of these arms and as many seeds."""
    store = Store(folder / "results", suite)
    for arm in suite.trained() if arms is None else [arm for arm in arms if arm != BASE]:
        for lr in suite.rates(arm):
            fill(store, arm, lr, 0)
        lr = Results(suite, store).chosen_rate(arm)
        assert lr is not None
        for seed in range(1, min(suite.num_seeds(arm), seeds or 99)):
            fill(store, arm, lr, seed)
    if arms is None or BASE in arms:
        fill(store, BASE, 0.0, 0)
    return Results(suite, store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Everything is measured."""
    folder = tmp_path_factory.mktemp("whole")
    return filled(folder, made_suite(folder))


@pytest.fixture(scope="module")
def figures(whole: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    """Its figures."""
    return {figure.name: figure for figure in write_figures(whole, tmp_path_factory.mktemp("figures") / "new")}


def rows(figure: Figure, **wanted: object) -> list[dict[str, str]]:
    """Rows of a figure's CSV with these values."""
    found = list(csv.DictReader(figure.csv.read_text(encoding="utf-8").splitlines()))
    return [row for row in found if all(row[key] == str(value) for key, value in wanted.items())]


def test_every_figure_is_drawn_within_its_edges_and_says_what_it_shows(figures: dict[str, Figure]) -> None:
    assert list(figures) == NAMES
    for figure in figures.values():
        pixels = matplotlib.image.imread(figure.png)[..., :3].min(axis=-1)
        edges = (pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:])
        assert all((edge > 0.95).all() for edge in edges), figure.name
        assert (pixels < 0.9).mean() > 0.01, figure.name
        with Image.open(figure.png) as image:
            assert image.info["Title"] == figure.title
            assert figure.caption in image.info["Description"]
        assert "nan" not in figure.csv.read_text()
        assert "seed" in figure.caption
        assert "40 " in figure.caption
        assert "T = 1" in figure.caption or "best T" in figure.caption
    assert not list(figures["curves"].png.parent.glob(".*"))


def test_the_curves_are_the_means_of_what_was_measured(whole: Results, figures: dict[str, Figure]) -> None:
    for name, data in (("curves", "test"), ("harder", "harder")):
        for arm in main_arms(whole.suite):
            values = whole.values(arm, "pass@4", data, 1.0)
            (row,) = rows(figures[name], arm=arm, metric="pass@4")
            assert values is not None
            assert float(row["fraction"]) == pytest.approx(values.mean(), abs=1e-6)
            assert float(row["low_fraction"]) < float(row["fraction"]) < float(row["high_fraction"])
            assert int(row["seeds"]) == (1 if arm == BASE else 2)
    assert {row["metric"].split("@")[0] for row in rows(figures["curves"])} == {"pass", "best"}


def test_differences_are_in_points_and_paired_by_problem(whole: Results, figures: dict[str, Figure]) -> None:
    base = whole.values(BASE, "pass@8", "test", 1.0)
    for arm in whole.arms[1:]:
        values = whole.values(arm, "pass@8", "test", 1.0)
        assert values is not None
        assert base is not None
        (row,) = rows(figures["gains"], arm=arm, at="temperature 1")
        assert float(row["difference_points"]) == pytest.approx(100 * (values.mean() - base.mean()), abs=1e-3)
        (own,) = rows(figures["gains"], arm=arm, at="own temperature")
        assert float(own["temperature"]) == whole.own_temperature(arm, "pass@8")
    values, base = (whole.values(arm, "votes:best@8", "test", 1.0) for arm in ("bon_rl_v", BASE))
    assert values is not None
    assert base is not None
    (row,) = rows(figures["verifiers"], arm="bon_rl_v", selected_by="votes")
    assert float(row["difference_points"]) == pytest.approx(100 * (values.mean() - base.mean()), abs=1e-3)


def test_the_temperatures_are_those_of_seed_0(whole: Results, figures: dict[str, Figure]) -> None:
    marked = rows(figures["temperature"], arm="rl", metric="pass@8", is_own_temperature=True)
    assert [float(row["temperature"]) for row in marked] == [whole.own_temperature("rl", "pass@8")]
    what = Measurement(data="test", temperature=1.4)
    measured = whole.store.measured(whole.runs("rl")[0], "pass@1", what)
    assert measured is not None
    (row,) = rows(figures["temperature"], arm="rl", metric="best@8", temperature=1.4)
    assert float(row["fraction"]) == pytest.approx(measured.values["best@8"].mean(), abs=1e-6)


def test_the_frontier_has_every_arm_with_one_sample_and_with_many(whole: Results, figures: dict[str, Figure]) -> None:
    assert {row["arm"] for row in rows(figures["frontier"])} == set(whole.arms)
    for arm in whole.arms:
        for metric in ("pass@1", "pass@8"):
            values = whole.values(arm, metric, "test", 1.0)
            (row,) = rows(figures["frontier"], arm=arm, metric=metric)
            assert values is not None
            assert float(row["fraction"]) == pytest.approx(values.mean(), abs=1e-6)
            assert int(row["seeds"]) == len(values)


def test_the_arms_by_n_differ_in_n_alone(whole: Results, figures: dict[str, Figure]) -> None:
    assert arms_by_n(whole) == {1: "rl", 4: "n4", 16: "bon_rl", 32: "n32"}
    assert {row["arm"] for row in rows(figures["n_prime"])} == {"rl", "n4", "bon_rl", "n32"}
    assert "N′ = 32: 16 prompts × 64 samples a step." in figures["n_prime"].caption
    assert figures["n_prime"].caption.count("samples a step") == 1


def test_the_crossing_is_that_of_the_claim(whole: Results, figures: dict[str, Figure]) -> None:
    verdict = next(verdict for verdict in judge(whole) if verdict.claim.kind == "generations")
    assert verdict.own is not None
    found = rows(figures["draws"])
    assert [row["arm"] for row in found if row["is_rival"] == "True"] == ["winner"]
    for key, value in (("crossing_share", verdict.own.value), ("crossing_high_share", verdict.own.high)):
        assert {row[key] for row in found} == {str(round(value, 6)) if math.isfinite(value) else ""}
    level = whole.level("quarter", "pass@8", "test", OWN)
    assert level is not None
    (row,) = rows(figures["draws"], arm="quarter")
    assert float(row["fraction"]) == pytest.approx(level.interval.value, abs=1e-6)
    assert float(row["share_of_generations"]) == 0.25


def test_training_is_told_in_generations_for_each_seed(whole: Results, figures: dict[str, Figure]) -> None:
    run = whole.runs("rl")[1]
    trial = whole.trial(run)
    assert trial is not None
    found = rows(figures["training"], arm="rl", seed=1)
    assert len(found) == 1 + len(trial["history"])  # from the base model on
    assert int(found[-1]["generations"]) == trial["generations"]
    assert float(found[-1]["fraction"]) == pytest.approx(trial["history"][-1]["pass@8"], abs=1e-6)


def test_what_is_not_measured_is_left_out(tmp_path: Path) -> None:
    suite = made_suite(tmp_path)
    results = Results(suite, Store(tmp_path / "results", suite))
    assert write_figures(results, tmp_path / "nothing") == []
    assert not (tmp_path / "nothing").exists()
    fill(results.store, BASE, 0.0, 0)
    only_base = Results(suite, results.store)
    assert [figure.name for figure in write_figures(only_base, tmp_path / "base")] == ["curves", "temperature"]
    fill(results.store, "rl", suite.rates("rl")[0], 0, is_whole=False)  # trained, not measured yet
    fill(results.store, "bon_rl", 6e-4, 0)  # one of its two learning rates
    begun = Results(suite, results.store)
    assert [figure.name for figure in write_figures(begun, tmp_path / "begun")] == ["curves", "temperature", "training"]


def test_without_a_verifier_there_is_one_panel_and_no_matrix(tmp_path: Path) -> None:
    measuring = SUITE["measuring"] | {"verifier": "oracle", "other_verifiers": {}, "harder": None}
    suite = made_suite(tmp_path, measuring=measuring)
    results = filled(tmp_path, suite, arms=[BASE, "rl"], seeds=1)
    found = {figure.name: figure for figure in write_figures(results, tmp_path / "figures")}
    assert list(found) == ["curves", "gains", "temperature", "training"]
    assert {row["metric"] for row in rows(found["temperature"])} == {"pass@8"}


def test_a_folder_that_cannot_be_written_is_said(whole: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BontuneError, match="Cannot write the table"):
        write_figures(whole, tmp_path / "file")


def test_arms_are_told_apart(tmp_path: Path) -> None:
    suite = made_suite(tmp_path)
    main = main_arms(suite)
    assert main == ["base", "bon_rl", "rl", "bon_rl_v", "rl_v", "winner"]  # no rungs, no second tier
    looks = arm_looks(suite)
    assert len({looks[arm].colour for arm in main}) == len({looks[arm].marker for arm in main}) == len(main)
    assert len(set(arm_looks(suite, suite.arms).values())) == len(suite.arms)
    assert max(len(line) for line in arm_label(suite, "winner").splitlines()) <= 25


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 2)), min_size=1, max_size=8))
def test_labels_are_moved_apart_and_no_further(wanted: list[tuple[float, float]]) -> None:
    """No overlap, in order, inside; and what overlaps nothing stays where it is."""
    centres, heights = [centre for centre, _ in wanted], [height for _, height in wanted]
    high = 10 + sum(heights)
    placed = apart(centres, heights, 0.0, high)
    boxes = sorted(zip(placed, heights, strict=True))
    assert all(a + p / 2 <= b - q / 2 + 1e-9 for (a, p), (b, q) in pairwise(boxes))
    assert boxes[0][0] - boxes[0][1] / 2 >= -1e-9
    assert boxes[-1][0] + boxes[-1][1] / 2 <= high + 1e-9
    # Least squares: shifting any run of touching labels as one does not come nearer to what was wanted.
    order = sorted(range(len(centres)), key=lambda i: (centres[i], i))
    for first, last in ((i, j) for i in range(len(order)) for j in range(i, len(order))):
        for step in (-1e-4, 1e-4):
            moved = list(placed)
            for i in order[first : last + 1]:
                moved[i] += step
            ends = [(moved[i] - heights[i] / 2, moved[i] + heights[i] / 2) for i in order]
            fits = ends[0][0] >= 0 and ends[-1][1] <= high and all(a[1] <= b[0] + 1e-12 for a, b in pairwise(ends))
            if fits:
                assert cost(moved, centres) >= cost(placed, centres) - 1e-9


def cost(placed: list[float], centres: list[float]) -> float:
    """How far labels are from where they are wanted."""
    return sum((a - b) ** 2 for a, b in zip(placed, centres, strict=True))
