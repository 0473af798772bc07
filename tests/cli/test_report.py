"""``bontune report``: runs, pools and the folder of a sweep; what cannot be reported is refused in one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError
from bontune.cli.report import report_on


def write_pool(path: Path, num_problems: int = 4, **more: Any) -> Path:
    rows = [
        {"problem_id": f"p{p}", "reward": float(s <= p), "completion": f"try {s}", **more}
        for p in range(num_problems)
        for s in range(4)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_run(folder: Path, final: float, lr: float = 0.1, width: float = 0.02) -> Path:
    folder.mkdir()
    rows: list[dict[str, Any]] = [
        {"kind": "step", "step": s, "reward": 0.1 * s, "kl": 0.0, "entropy": 1.0, "seconds": {"sample": 1.0}}
        for s in range(1, 4)
    ]
    for step, value in ((0, 0.2), (3, final)):
        rows.append(
            {
                "kind": "eval",
                "step": step,
                "metrics": {"pass@1": value / 2, "pass@8": value},
                "intervals": {"pass@8": [value - width, value + width]},
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "recipe.yaml").write_text(f"model: m\ntraining:\n  lr: {lr}\n", encoding="utf-8")
    return folder


def read(path: Path) -> str:
    text = path.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    return re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_a_run_is_reported_into_its_folder_or_where_it_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0.6)
    report_on([run], None, None, None)
    report_on([run], tmp_path / "new" / "page.html", None, None)
    page = read(run / "report.html")
    assert page == read(tmp_path / "new" / "page.html")
    assert "pass@8 rose from 20.0 % at step 0 to 60.0 % at step 3" in page


@pytest.mark.parametrize(
    ("final", "reading"),
    [(0.61, "no clear difference, as the 95 % intervals overlap"), (0.7, "not all of the 95 % intervals overlap")],
)
def test_runs_stand_side_by_side(tmp_path: Path, final: float, reading: str) -> None:
    runs = [write_run(tmp_path / "a", 0.6), write_run(tmp_path / "b<i>", final, lr=0.2)]
    report_on(runs, tmp_path / "page.html", None, None)
    page = read(tmp_path / "page.html")
    last = f"{100 * final:.1f} % for b&lt;i&gt; ({100 * final - 2:.1f}–{100 * final + 2:.1f})"
    assert f"At the last evaluation, pass@8 is 60.0 % for a (58.0–62.0), {last}; {reading}." in page
    assert re.search(r"training\.lr</th>\s*<td class=\"number\">0.1</td>\s*<td class=\"number\">0.2</td>", page)
    assert ">model<" not in page  # the recipes agree in it
    assert 'alt="Line charts over the training steps' in page
    assert "<script" not in page


def test_pools_and_the_folder_that_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = write_pool(Path("sweep/one.jsonl")), write_pool(Path("sweep/other.jsonl"))
    write_pool(Path("sweep/third.jsonl.partial.jsonl"))
    report_on([one], None, None, None)
    assert read(Path("report.html")).count("<h1>Pool one</h1>") == 1
    assert sorted(path.name for path in Path("report_csv").iterdir()) == ["curves.csv", "problems.csv"]
    report_on([Path("sweep")], None, None, "1,4")
    assert "<h1>Pools one, other</h1>" in read(Path("sweep/report.html"))
    assert Path("sweep/report_csv/differences.csv").is_file()
    report_on([one, other], Path("x.html"), Path("numbers"), None)
    assert Path("numbers/differences.csv").is_file()
    assert not Path("x_csv").exists()
    report_on([one, write_pool(Path("b/one.jsonl"))], Path("y.html"), None, None)
    assert f"<h1>Pools {one}, b/one.jsonl</h1>" in read(Path("y.html"))


def test_what_cannot_be_reported(tmp_path: Path) -> None:
    pool, run = write_pool(tmp_path / "pool.jsonl"), write_run(tmp_path / "run", 0.5)
    (tmp_path / "empty").mkdir()
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([tmp_path / "none"], {}, "There is no pool at"),
        ([tmp_path / "empty"], {}, "is neither a run nor a sweep"),
        ([pool, run], {}, "report them apart"),
        ([pool, pool], {}, "is given twice"),
        ([run, run], {}, "is given twice"),
        ([pool], {"out": tmp_path / "page.pdf"}, "--out ends in .html"),
        ([run], {"k": "1"}, "--csv and --k are for pools"),
        ([pool], {"k": "5"}, "--k 5 is more than the 4 samples"),
        ([pool], {"k": "x"}, "--k takes numbers like"),
        ([pool], {"out": pool / "page.html"}, "Cannot write the"),
    ]
    for paths, options, message in cases:
        given = {"out": tmp_path / "out" / "page.html", "csv": None, "k": None} | options
        with pytest.raises(BontuneError, match=message):
            report_on(paths, **given)
        assert not (tmp_path / "out").exists()
