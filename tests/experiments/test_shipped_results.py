"""What README and docs say of the measured results is what the results in the checkout say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import draw_sizes
import pytest

from bontune.experiments.run import Runner
from bontune.experiments.suite import BASE, load_suite
from bontune.models import is_shipped

ROOT = Path(__file__).parents[2]
RESULTS = sorted(path.parent for path in (ROOT / "results").glob("*/claims.json"))
SIZES = {39_776: "sizes/40k", 155_968: "countdown", 617_600: "sizes/617k"}
"""Number of parameters → results of a model of that size."""
PAGES = [ROOT / "README.md", ROOT / "docs" / "paper.md"]


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_the_claims_are_those_of_the_suite(folder: Path) -> None:
    rows = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    assert [row["id"] for row in rows] == [claim.id for claim in load_suite(folder.name).claims]
    for row in rows:
        assert {"id", "claim", "paper", "measured", "low", "high", "holds"} <= set(row)
        if row["measured"] is not None and row["low"] is not None:
            assert row["low"] <= row["measured"]


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_the_suite_is_finished_as_the_code_is_today(folder: Path, tmp_path: Path) -> None:
    """Its pieces are of today's settings, and nothing is left to do."""
    suite = load_suite(folder.name)
    if not is_shipped(suite.tree(BASE)["model"]):
        pytest.skip("the suite's model and data are not in the checkout")
    runner = Runner(suite, folder, tmp_path / "work")
    runner.store.check_all()
    assert runner.jobs() == []


def test_the_line_through_the_sizes_is_that_of_their_results(tmp_path: Path) -> None:
    folders = {number: ROOT / "results" / name for number, name in SIZES.items()}
    for folder in folders.values():
        rows = {row["id"]: row for row in json.loads((folder / "claims.json").read_text(encoding="utf-8"))}
        assert {claim.id for claim in load_suite("sizes").claims} <= rows.keys()
        assert min(rows["bon_vs_rl_pass32"]["seeds"]) >= 3
    draw_sizes.main([f"{number}={folder}" for number, folder in folders.items()] + ["--out", str(tmp_path)])
    assert (tmp_path / "sizes.csv").read_bytes() == (ROOT / "results" / "sizes" / "sizes.csv").read_bytes()


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (["results/countdown"], "not PARAMETERS=FOLDER"),
        (["0=results/countdown"], "not PARAMETERS=FOLDER"),
        (["1=nowhere"], "not PARAMETERS=FOLDER"),
        (["1=results/countdown", "1=results/sizes/40k"], "1 parameters are given twice"),
        (["1=results/votes"], "lacks measurements of base, rl, bon_rl in pass@32"),
    ],
)
def test_what_is_no_line_is_refused(
    results: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit):
        draw_sizes.main([*results, "--out", str(tmp_path)])
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_rows_of_claims_are_copied_as_they_are(page: Path) -> None:
    """A row of a page that ends with a verdict stands in a statement of results; no number is typed by hand."""
    stated = {line for folder in RESULTS for line in (folder / "README.md").read_text(encoding="utf-8").splitlines()}
    rows = re.findall(r"^\|.*\*\*(?:holds|does not hold|not measured yet)\*\* \|$", page.read_text("utf-8"), re.M)
    assert rows, "the page has such rows"
    assert [row for row in rows if row not in stated] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_and_pages_are_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
