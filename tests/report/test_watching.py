"""Pages that are made when somebody looks: a run while it trains, the runs of a folder, samples over training."""

from __future__ import annotations

import html
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from bontune import Recipe, Trainer
from bontune.base.errors import BontuneError
from bontune.cli.report import report_on
from bontune.report.numbers import points
from bontune.report.run_page import samples_over_training
from bontune.report.runs_page import page_of, runs_in
from bontune.training.read_log import read_samples


def make_run(folder: Path, objective: str, steps: int = 4, n: Any = None) -> None:
    Trainer(
        Recipe.from_dict(
            {
                "objective": {"name": objective, "n": n or 1},
                "sampling": {"samples": 8, "max_new_tokens": 12},
                "training": {"steps": steps, "prompts_per_step": 2, "device": "cpu", "checkpoint_every": 1},
                "eval": {"every": 1, "samples": 8, "k": [1, 4], "problems": 5},
                "run": str(folder),
            }
        ),
        is_quiet=True,
    ).train()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "best <of> n", "bon_rl", n={1: [1, 0.25], 4: [0, 0.75]})
    make_run(folder / "plain", "rloo", steps=2)
    return folder


def test_the_same_problems_are_shown_at_each_evaluation(runs: Path) -> None:
    rows = read_samples(runs / "best <of> n")
    assert {row["step"] for row in rows} == {0, 1, 2, 3, 4}
    problems = [[row["problem"] for row in rows if row["step"] == step] for step in range(5)]
    assert problems == [problems[0]] * 5
    assert len(problems[0]) == 3
    assert all(len(row["completions"]) == 4 for row in rows)
    shown = samples_over_training(rows)
    assert [part["problem"] for part in shown] == problems[0]
    assert [at["step"] for at in shown[0]["at"]] == [0, 1, 2, 4]
    page = page_of(runs / "best <of> n", "/")
    assert page is not None
    assert "What it writes" in page
    assert rows[0]["prompt"] in page


def test_a_resumed_run_writes_no_sample_twice(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "plain", run)
    whole = read_samples(run)
    shutil.rmtree(run / "checkpoints" / "step_000002")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    Trainer(Recipe.from_dict(recipe | {"run": str(run)}), is_quiet=True).train()
    assert read_samples(run) == whole


def test_the_index_has_a_row_for_each_run_with_its_numbers(runs: Path) -> None:
    page = page_of(runs, "/")
    assert page is not None
    assert "best &lt;of&gt; n" in page
    assert 'content="10"' in page
    for name in ("bon_rl", "rloo", "1 (25 %) and 4 (75 %)", "4 of 4, finished", "2 of 2, finished", "pass@4"):
        assert name in page
    last = [json.loads(line) for line in (runs / "plain" / "metrics.jsonl").read_text().splitlines()][-1]
    assert f"{100 * last['metrics']['pass@4']:.1f} %" in page
    assert page_of(runs, "/best%20%3Cof%3E%20n") == page_of(runs / "best <of> n", "/")
    own = page_of(runs, "/best%20%3Cof%3E%20n")
    assert own is not None
    assert "Trained for several N at once: 1 (25 %) and 4 (75 %)." in html.unescape(own).replace("\xa0", " ")
    assert page_of(runs, "/nothing") is None


def test_a_report_of_a_folder_of_runs_links_their_pages(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_on([runs])
    assert capsys.readouterr().out == f"{runs / 'index.html'}\n"
    page = (runs / "index.html").read_text()
    links = re.findall('href="([^"]+)"', page)
    assert sorted(links) == ["best%20%3Cof%3E%20n/report.html", "plain/report.html"]
    assert all((runs / unquote(link)).is_file() for link in links)
    assert 'http-equiv="refresh"' not in page


def test_it_is_served_while_it_trains_and_ends_on_a_signal(runs: Path) -> None:
    command = [sys.executable, "-m", "bontune", "watch", str(runs), "--port", "0"]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        address = served.stdout.readline().split()[0]
        with urllib.request.urlopen(address + "plain") as reply:
            assert "Run plain" in reply.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + "nothing")
    finally:
        served.send_signal(signal.SIGTERM)
        assert served.wait(20) == 143


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    assert runs_in(tmp_path) == []
    with pytest.raises(BontuneError, match="holds no run"):
        page_of(tmp_path, "/")


def test_gains_are_the_paired_differences_to_the_first_evaluation(runs: Path) -> None:
    run = runs / "best <of> n"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert "gains" not in evaluations[0]
    for row in evaluations[1:]:
        for name, (value, low, high) in row["gains"].items():
            assert value == pytest.approx(row["metrics"][name] - evaluations[0]["metrics"][name], abs=1e-12)
            assert low <= value <= high
    page = page_of(run, "/")
    assert page is not None
    value, low, high = evaluations[-1]["gains"]["pass@4"]
    assert f"pass@4 {points(value)} [{points(low)}, {points(high)}]" in page
    assert "the change lies between" in page


HOLDS = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_page_tells_running_from_stopped_and_finished(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    shutil.copytree(runs / "plain", run)

    def said() -> str:
        pages = [page_of(run, "/"), page_of(run.parent, "/")]
        form = r"(\w+), last step at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
        found = {re.findall(form, page or "")[0].lower() for page in pages}
        (one,) = found
        return one

    assert said() == "finished"
    (run / "summary.json").unlink()
    assert said() == "stopped"
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(run / ".lock")], stdout=subprocess.PIPE) as training:
        assert training.stdout is not None
        assert training.stdout.readline() == b"held\n"
        assert said() == "running"
        training.send_signal(signal.SIGKILL)
        training.wait()
    assert said() == "stopped"
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["training"]["steps"] = 50  # a finished run that was given more, and killed
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (run / "summary.json").write_text("{}")
    assert said() == "stopped"
