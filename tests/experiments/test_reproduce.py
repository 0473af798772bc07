"""Contract of the whole, in miniature:

1. claims.json says what the pieces say, by a second way to compute it, and the pieces what the pools say; all arms had
   as many generations;
2. a second run does no work; --report-only needs no work folder; another setting is refused and loses nothing; a
   training that fails costs what rests on it and no more;
3. the real command, killed (-9), stopped (SIGTERM: 143) and started again, ends with the same bytes as all jobs one
   after the other in one process; two at a time are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from scipy.stats import t as student

from bontune.base.errors import BontuneError, RunStopped
from bontune.experiments.command import run_reproduce
from bontune.experiments.figure_parts import arm_looks
from bontune.experiments.run import Runner
from bontune.experiments.suite import Suite, load_suite
from commands import run_many
from training.run_driver import ENVIRONMENT, wait_for

DEADLINE_S = 900.0
KS = [1, 2, 4, 8]
TEMPERATURES = [1.0, 1.4]
SUITE: dict[str, Any] = {
    "title": "Small",
    "base": "countdown",
    "metric": "pass@8",
    "seeds": 2,
    "evaluations": 4,
    "recipe": {
        "training": {"steps": 4, "prompts_per_step": 8, "warmup": 0, "first_step_kl": None, "device": "cpu"},
        "sampling": {"samples": 16},
        "kl": {"steps": 4, "delay": 0},
    },
    "measuring": {
        "samples": 16,
        "ks": KS,
        "temperatures": TEMPERATURES,
        "validation_problems": 8,
        "test_problems": 12,
        "other_verifiers": {"votes": "majority"},
    },
    "arms": {
        "base": {"label": "base model"},
        "bon_rl": {
            "label": "ours",
            "recipe": {"objective": {"name": "bon_rl", "n": 4}},
            "lr": [3e-4],
            "select": "pass@4",
        },
        "rl": {"label": "RL", "recipe": {"objective": {"name": "rloo", "n": 1}}, "lr": [2e-4, 5e-4]},
        "rl_kept": {"label": "RL, chosen by pass@8", "like": "rl", "select": "pass@8"},
    },
    "claims": [
        {"id": "more", "claim": "Ours beats RL.", "paper": 7, "a": "bon_rl", "b": "rl", "metric": "pass@8", "goal": 1},
        {"id": "kept", "claim": "However RL is chosen.", "a": "bon_rl", "b": "rl_kept", "metric": "pass@8"},
        {"id": "less", "claim": "RL loses.", "a": "rl", "b": "base", "metric": "pass@4", "sign": -1},
        {"id": "votes", "claim": "Votes gain.", "a": "bon_rl", "b": "base", "metric": "votes:best@8"},
        {
            "id": "ratio",
            "claim": "As good, sooner.",
            "kind": "generations",
            "b": "rl",
            "metric": "pass@8",
            "ladder": {"bon_rl": 1.0},
        },
    ],
}


@dataclass(frozen=True)
class Place:
    """Where a suite is run."""

    folder: Path

    @property
    def arguments(self) -> list[str]:
        return ["reproduce", "small.yaml", "--out", "out", "--work", "work", "--workers", "2"]

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self) -> subprocess.Popen[bytes]:
        with open(self.folder / "said.txt", "ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "bontune", *self.arguments],
                cwd=self.folder,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def numbers(self) -> dict[str, bytes]:
        """Every file that must not depend on how often the command was stopped."""
        files = [self.out / "claims.json", *self.out.rglob("*.csv")]
        files.remove(self.out / "provenance.csv")  # it says the command, which names the suite's file
        return {str(path.relative_to(self.out)): path.read_bytes() for path in files}

    def everything(self) -> dict[str, tuple[str, int]]:
        """Content and time of every piece, and of every log of a job."""
        files = [*(self.out / "pieces").rglob("*"), *self.folder.glob("work/*/log.txt")]
        return {
            str(path.relative_to(self.folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in files
            if path.is_file()
        }

    def reproduce(self, *overrides: str, is_report_only: bool = False) -> None:
        """The command, in this process."""
        run_reproduce(
            str(self.folder / "small.yaml"),
            overrides,
            out=self.out,
            work=self.folder / "work",
            arms=None,
            workers=1,
            is_report_only=is_report_only,
        )


def place(folder: Path) -> Place:
    (folder / "small.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    return Place(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The whole, from beginning to end: all jobs one after the other, in this process, which has imported it all."""
    here = place(tmp_path_factory.mktemp("undisturbed"))
    runner = Runner(load_suite(str(here.folder / "small.yaml")), here.out, here.folder / "work")
    threads, rounds = torch.get_num_threads(), 0
    torch.set_num_threads(1)  # as jobs do
    while jobs := runner.jobs():
        rounds += 1
        assert rounds <= 4, "jobs are asked for that were done"
        for job in jobs:
            job.function(**job.arguments)
    torch.set_num_threads(threads)
    here.reproduce(is_report_only=True)
    return here


# ---- 1: a second way to compute it ----


class Pieces:
    """The pieces, read by nothing of ours."""

    def __init__(self, here: Place) -> None:
        self.folder = here.out / "pieces"

    def trial(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / name / "trial.json").read_text()))

    def rate(self, arm: str) -> str:
        """As in the name of its folder: the best evaluation of seed 0 by the arm's own metric."""
        runs, select = SUITE["arms"][arm].get("like", arm), SUITE["arms"][arm].get("select", "pass@1")
        best = {
            f"{lr:g}": max(row[select] for row in self.trial(f"{runs}-lr{lr:g}-seed0")["history"])
            for lr in SUITE["arms"][runs]["lr"]
        }
        return max(best, key=lambda lr: best[lr])

    def columns(self, arm: str, seed: int, data: str, t: float) -> dict[str, list[Any]]:
        runs, select = SUITE["arms"][arm].get("like", arm), SUITE["arms"][arm].get("select", "pass@1")
        folder = "base/model" if arm == "base" else f"{runs}-lr{self.rate(arm)}-seed{seed}/{select}"
        return dict(pq.read_table(self.folder / folder / f"{data}-T{t:g}.parquet").to_pydict())

    def own_t(self, arm: str, metric: str) -> float:
        means = {t: float(np.mean(self.columns(arm, 0, "validation", t)[metric])) for t in TEMPERATURES}
        return max(sorted(means), key=lambda t: means[t])

    def values(self, arm: str, metric: str, t: float) -> np.ndarray:
        """(S, P), by the ids of the problems."""
        rows = []
        for seed in range(1 if arm == "base" else 2):
            columns = self.columns(arm, seed, "test", t)
            rows.append([value for _, value in sorted(zip(columns["problem"], columns[metric], strict=True))])
        return np.array(rows, dtype=np.float64)


def welch(a_SP: np.ndarray, b_SP: np.ndarray) -> tuple[float, float, float]:
    """Difference in points with its interval: the three variances written out."""
    parts = [(np.var(a_SP.mean(0) - b_SP.mean(0), ddof=1) / a_SP.shape[1], a_SP.shape[1] - 1)]
    parts += [(np.var(x.mean(1), ddof=1) / len(x), len(x) - 1) for x in (a_SP, b_SP) if len(x) > 1]
    total = sum(v for v, _ in parts)
    if total < 1e-24:  # two models that are the same
        return 0.0, 0.0, 0.0
    half = student.ppf(0.975, total**2 / sum(v * v / df for v, df in parts)) * math.sqrt(total)
    value = a_SP.mean() - b_SP.mean()
    return 100 * value, 100 * (value - half), 100 * (value + half)


def pass_at_k(rewards: list[float], k: int) -> float:
    wrong = sum(reward == 0 for reward in rewards)
    return 1 - math.comb(wrong, k) / math.comb(len(rewards), k)


def test_claims_are_what_the_pieces_say(undisturbed: Place) -> None:
    pieces = Pieces(undisturbed)
    rows = {row["id"]: row for row in json.loads((undisturbed.out / "claims.json").read_text())}
    assert list(rows) == [claim["id"] for claim in SUITE["claims"]]
    for claim in SUITE["claims"]:
        row, metric = rows[claim["id"]], claim["metric"]
        assert (row["claim"], row["paper"], row["metric"]) == (claim["claim"], claim.get("paper"), metric)
        a, b = claim.get("a", "bon_rl"), claim["b"]
        own = [pieces.own_t(arm, metric) for arm in (a, b)]
        assert row["own_temperatures"] == own
        assert row["seeds"] == [2, 1 if b == "base" else 2]
        if claim["id"] == "ratio":
            means = [pieces.values(arm, metric, pieces.own_t(arm, metric)).mean() for arm in ("base", "bon_rl", "rl")]
            base, ours, rival = means
            ratio = None if base >= rival else (rival - base) / (ours - base) if ours >= rival else None
            assert row["measured"] == (None if ratio is None else pytest.approx(ratio, abs=6e-4))
            assert row["unit"] == "ratio"
            continue
        for at, (t_a, t_b) in ((row, own), (row["at_temperature_1"], (1.0, 1.0))):
            wanted = welch(pieces.values(a, metric, t_a), pieces.values(b, metric, t_b))
            assert [at[name] for name in ("measured", "low", "high")] == pytest.approx(wanted, abs=6e-4)
        assert row["holds"] == (row["high"] < 0 if claim.get("sign") == -1 else row["low"] > 0)
        assert row["reaches_goal"] == (None if "goal" not in claim else row["measured"] >= claim["goal"])


def test_the_summary_is_what_the_pieces_say(undisturbed: Place) -> None:
    summary, pieces = json.loads((undisturbed.out / "summary.json").read_text()), Pieces(undisturbed)
    assert list(summary["models"]) == ["base", "bon_rl", "rl"], "an arm with another's runs is left out"
    for arm, row in summary["models"].items():
        for metric, value in row.items():
            assert value == pytest.approx(pieces.values(arm, metric, 1.0).mean())
    claims = [claim for claim in SUITE["claims"] if claim["id"] in ("more", "less", "votes")]
    for claim, row in zip(claims, summary["differences"], strict=True):
        a, b = (pieces.values(claim[side], claim["metric"], 1.0) for side in ("a", "b"))
        assert [100 * row[key] for key in ("diff", "low", "high")] == pytest.approx(welch(a, b))
    page = (undisturbed.out / "report.html").read_text()
    looks = arm_looks(Suite.model_validate(SUITE))
    shown = [looks[arm].colour for arm in summary["models"]]
    assert re.findall(r'class="dot" style="background:(#\w+)"', page) == shown, "the table's colours are the figures'"
    assert "data:image/png;base64," in page
    assert f"{100 * summary['models']['bon_rl']['pass@8']:.1f}" in page


def test_pieces_are_what_the_pools_say(undisturbed: Place) -> None:
    pools = sorted(undisturbed.folder.glob("work/*/pools/*/*.parquet"))
    names = {str(path.relative_to(undisturbed.folder / "work")) for path in pools}
    rate, kept = Pieces(undisturbed).rate("rl"), Pieces(undisturbed).rate("rl_kept")
    chosen = [("bon_rl-lr0.0003-seed0", "pass@4"), (f"rl-lr{rate}-seed0", "pass@1"), (f"rl-lr{kept}-seed0", "pass@8")]
    models, wanted = {("base", 0): undisturbed.out / "pieces/base/model"}, {"base/pools/model/test-T1.parquet"}
    for run, select in chosen:
        step = json.loads((undisturbed.out / "pieces" / run / "trial.json").read_text())["kept"][select]["step"]
        same, folder = ("base" if step == 0 else run, step), undisturbed.out / "pieces" / run / select
        if same in models:  # measured once, as what it is: the base model, or what another metric kept
            for file in ("test-T1.parquet", "validation-T1.parquet"):
                mine, theirs = (pq.read_table(place / file).to_pydict() for place in (folder, models[same]))
                assert str(mine) == str(theirs)  # NaN is NaN
        else:
            models[same] = folder
            wanted.add(f"{run}/pools/{select}/test-T1.parquet")
    assert names == wanted, "seed 0's on the test problems at T = 1 are kept, and no others"
    for path in pools:
        rewards: dict[str, list[float]] = {}
        for row in pq.read_table(path).to_pylist():
            rewards.setdefault(row["problem_id"], []).append(row["reward"])
        run, _, select, file = path.relative_to(undisturbed.folder / "work").parts
        columns = pq.read_table(undisturbed.out / "pieces" / run / select / file).to_pydict()
        assert columns["problem"] == list(rewards)
        assert len(rewards) == 12
        for k in KS:
            assert columns[f"pass@{k}"] == pytest.approx([pass_at_k(row, k) for row in rewards.values()], abs=1e-6)
    assert len({path.read_bytes() for path in pools}) == len(pools), "models differ"
    folders = (undisturbed.out / "pieces" / name for name in ("base/model", "bon_rl-lr0.0003-seed1/pass@4"))
    base, trained = (pq.read_table(folder / "test-T1.parquet").to_pydict()["pass@1"] for folder in folders)
    assert base != trained, "its best checkpoint is a later one"


def test_all_arms_had_as_many_generations(undisturbed: Place) -> None:
    trials = [json.loads(path.read_text()) for path in undisturbed.out.glob("pieces/*/trial.json")]
    assert {trial["generations"] for trial in trials} == {4 * 8 * 16}
    seeds = {(trial["arm"], trial["seed"]) for trial in trials}
    assert seeds == {("bon_rl", 0), ("bon_rl", 1), ("rl", 0), ("rl", 1)}
    for trial in trials:
        assert [row["step"] for row in trial["history"]] == [0, 1, 2, 3, 4]
        for metric, kept in trial["kept"].items():
            best = max(trial["history"], key=lambda row, by=metric: row[by])
            assert (kept["step"], kept["value"]) == (best["step"], best[metric])


# ---- 2: again ----


def test_a_second_run_does_no_work_and_packs_the_pieces(
    undisturbed: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, numbers = Place(tmp_path / "here"), undisturbed.numbers()
    shutil.copytree(undisturbed.folder, here.folder)
    logs = {path: path.stat().st_mtime_ns for path in here.folder.glob("work/*/log.txt")}
    started = time.time_ns()
    here.reproduce()
    assert "Ours beats RL." in capsys.readouterr().out
    assert (here.out / "claims.json").stat().st_mtime_ns > started
    assert here.numbers() == numbers
    assert sorted(path.name for path in here.out.glob("pieces*")) == ["pieces.jsonl", "pieces.parquet"]
    packed = {path.name: path.read_bytes() for path in here.out.glob("pieces*")}
    here.reproduce()
    assert {path.name: path.read_bytes() for path in here.out.glob("pieces*")} == packed
    assert here.numbers() == numbers
    assert {path: path.stat().st_mtime_ns for path in here.folder.glob("work/*/log.txt")} == logs
    names = [json.loads(line)["piece"] for line in (here.out / "pieces.jsonl").read_text().splitlines()]
    files = [path for path in undisturbed.out.glob("pieces/**/*") if path.is_file()]
    assert names == sorted(str(path.relative_to(undisturbed.out / "pieces")) for path in files)


@pytest.mark.parametrize(
    ("override", "piece", "what"),
    [
        ("measuring.test_problems=13", "base/model/test-T1.parquet", "problems"),
        ("recipe.training.steps=5", "trial.json", "recipe"),
        ("arms.rl_kept.select=pass@2", "rl-lr0.0002-seed0/trial.json", "recipe"),
        ("measuring.verifier=majority", "base/model/validation-T1.parquet", "verifiers"),
    ],
)
def test_another_setting_is_refused_and_loses_nothing(undisturbed: Place, override: str, piece: str, what: str) -> None:
    before, numbers = undisturbed.everything(), undisturbed.numbers()
    for is_report_only in (False, True):
        with pytest.raises(BontuneError) as refused:
            undisturbed.reproduce(override, is_report_only=is_report_only)
        said = str(refused.value)
        assert "was made with other settings (not the same: " in said
        assert "pieces/" in said
        if not is_report_only:
            assert what in said
            assert piece in said
        assert "\n" not in said
    assert undisturbed.everything() == before
    assert undisturbed.numbers() == numbers


def test_a_report_needs_no_work_folder(undisturbed: Place) -> None:
    numbers = undisturbed.numbers()
    shutil.move(undisturbed.folder / "work", undisturbed.folder / "elsewhere")
    try:
        undisturbed.reproduce(is_report_only=True)
        assert undisturbed.numbers() == numbers
        assert not (undisturbed.folder / "work").exists()
    finally:
        shutil.move(undisturbed.folder / "elsewhere", undisturbed.folder / "work")


def test_work_of_other_settings_is_not_taken_for_ours(undisturbed: Place, tmp_path: Path) -> None:
    """A new --out with an old --work: pools and trainings there may be of other problems, or of other weights."""
    suite = load_suite(str(undisturbed.folder / "small.yaml"), ["measuring.test_problems=5"])
    runner = Runner(suite, tmp_path / "out", undisturbed.folder / "work")
    (job,) = (job for job in runner.jobs() if job.name == "measure base")
    with pytest.raises(BontuneError, match=r"holds work of other settings \(not the same: problems\)"):
        job.function(**job.arguments)
    path = undisturbed.folder / "work" / "bon_rl-lr0.0003-seed0" / "settings.json"
    settings = path.read_bytes()
    path.write_text(json.dumps(json.loads(settings) | {"weights": {"countdown-tiny": "others"}}))
    try:
        (job,) = (job for job in runner.jobs() if job.name.startswith("train bon_rl"))
        with pytest.raises(BontuneError, match=r"other settings \(not the same: weights\): give another --work"):
            job.function(**job.arguments)
    finally:
        path.write_bytes(settings)
    assert not list((tmp_path / "out").rglob("*.json"))


def test_what_is_lost_is_made_again(undisturbed: Place) -> None:
    """A torn account of a run and a deleted measurement: the training's folder and the kept pool are still there."""
    here, numbers = undisturbed, undisturbed.numbers()
    trial = here.out / "pieces" / "bon_rl-lr0.0003-seed0" / "trial.json"
    piece = here.out / "pieces" / "bon_rl-lr0.0003-seed0" / "pass@4" / "test-T1.parquet"
    other = here.out / "pieces" / "bon_rl-lr0.0003-seed1" / "pass@4" / "test-T1.parquet"
    content = piece.read_bytes()
    trial.write_bytes(trial.read_bytes()[:100])
    piece.unlink()
    other.unlink()
    runner = Runner(load_suite(str(here.folder / "small.yaml")), here.out, here.folder / "work")
    while jobs := runner.jobs():
        assert {job.place for job in jobs} <= {"bon_rl-lr0.0003-seed0", "bon_rl-lr0.0003-seed1"}
        for job in jobs:
            job.function(**job.arguments)
    here.reproduce(is_report_only=True)
    assert piece.read_bytes() == content
    assert here.numbers() == numbers


def test_a_failing_training_costs_only_what_rests_on_it(
    undisturbed: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Place(tmp_path / "here")
    shutil.copytree(undisturbed.folder, here.folder)
    broken, lost = (
        here.out / "pieces" / "bon_rl-lr0.0003-seed0",
        here.out / "pieces" / "rl-lr0.0002-seed0" / "trial.json",
    )
    settings = here.folder / "work" / broken.name / "settings.json"
    content = settings.read_bytes()
    settings.write_text("{}")
    shutil.rmtree(broken)
    lost.unlink()
    with pytest.raises(
        RunStopped, match=r"^train bon_rl-lr0.0003-seed0 failed: .* other settings .*tries the rest again"
    ):
        here.reproduce()
    assert lost.exists()
    assert "the others go on" in capsys.readouterr().err
    assert "Not complete yet" in (here.out / "README.md").read_text()
    settings.write_bytes(content)
    here.reproduce()
    assert here.numbers() == undisturbed.numbers()


# ---- 3: stopped in the middle ----


def jobs_of(here: Place) -> list[int]:
    """The processes of jobs that work in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_ours = entry.name.isdigit() and (entry / "cwd").resolve() == here.folder.resolve()
        except OSError:
            continue
        if is_ours:
            found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_killed_and_stopped_it_ends_with_the_same_bytes(undisturbed: Place, tmp_path: Path) -> None:
    here = place(tmp_path)

    def steps() -> bool:
        return any('"step"' in path.read_text() for path in here.folder.glob("work/*/metrics.jsonl"))

    def pools() -> bool:
        return bool(list(here.folder.glob("work/*/pools/*/*.partial.jsonl"))) and len(trials()) >= 3

    def trials() -> list[Path]:
        return list(here.out.glob("pieces/*/trial.json"))

    for condition, number, code in ((steps, signal.SIGKILL, -9), (pools, signal.SIGTERM, 143)):
        process = here.start()  # the second while jobs of the first may still be saving
        try:
            wait_for(lambda: condition() or process.poll() is not None, condition.__name__, DEADLINE_S)  # noqa: B023
            assert process.poll() is None, here.said()
            if number == signal.SIGTERM:
                (second,) = run_many(here.folder, [here.arguments])
                assert second.returncode == 2
                assert "Another process works in out" in second.stderr
                assert process.poll() is None, "the first does not notice"
            process.send_signal(number)
            assert process.wait(60) == code
        finally:
            process.kill()
    assert not jobs_of(here)
    assert not (here.out / "claims.json").exists()
    assert here.said().count("stopped by a signal; the same command goes on from there") == 1
    process = here.start()
    try:
        assert process.wait(DEADLINE_S) == 0, here.said()
    finally:
        process.kill()
    assert "Traceback" not in here.said()
    assert here.numbers() == undisturbed.numbers()
