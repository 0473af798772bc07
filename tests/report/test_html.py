"""The pages stand alone, escape what they are given, and say what the numbers say and no more."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bontune.base.errors import BontuneError
from bontune.metrics import Interval
from bontune.pools.compare import Difference
from bontune.report.curves import draw_curves
from bontune.report.page import picture
from bontune.report.run_page import write_run_report
from bontune.report.sentences import Summary
from bontune.report.suite_page import write_suite_page

HOSTILE = "</code></pre><script>alert('x')</script><img src=\"http://evil.example/x.png\" onerror=alert(1)>{{ 7 * 7 }}"
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """What a page holds: tags with their attributes, text outside of style, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def assert_stands_alone(page: Page) -> None:
    assert {"script", "link", "iframe", "object", "embed", "base", "form"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "data", "background", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def assert_accessible(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    assert all(len(attributes["alt"] or "") > 20 for attributes in page.all("img"))


NAN = float("nan")


def at(value: float, low: float = NAN, high: float = NAN) -> Interval:
    return Interval(value=value, low=low, high=high)


def summary_with(low: float, diff: float, high: float) -> Summary:
    is_known = not math.isnan(low)
    pair = Difference(
        a="bon_rl",
        b="base",
        metric="pass@32",
        value=diff,
        low=low if is_known else None,
        high=high if is_known else None,
    )
    return Summary(
        models={
            "base": {"pass@1": at(0.138, 0.12, 0.15), "pass@32": at(0.677, 0.65, 0.7)},
            "rloo": {"pass@32": at(0.616)},
            "bon_rl": {"pass@32": at(0.743)},
        },
        differences=[pair],
        n=16,
        samples=64,
        problems=500,
        settings={"objective": {"name": "bon_rl", "n": 16}, "lora": None, "on": True},
    )


COLOURS = {"base": "#111111", "rloo": "#222222", "bon_rl": "#333333"}


def suite_page(summary: Summary, folder: Path, figures: dict[str, Path] | None = None) -> Page:
    pictures = [picture(path, heading=name, caption="") for name, path in (figures or {}).items()]
    page = Page(write_suite_page("Suite", summary, pictures, folder / "new" / "suite.html", colours=COLOURS))
    assert_stands_alone(page)
    assert_accessible(page)
    assert not re.search(r"\b(nan|None|inf)\b", page.text)
    return page


def test_the_table_has_the_colours_of_the_figures(tmp_path: Path) -> None:
    suite_page(summary_with(0.03, 0.066, 0.1), tmp_path)
    dots = re.findall(r'background:(#\w+)"></span>([^<]+)<', (tmp_path / "new" / "suite.html").read_text())
    assert dots == [("#111111", "Base model"), ("#222222", "Plain RL"), ("#333333", "Best-of-N RL")]


def test_the_first_sentence_gives_the_numbers(tmp_path: Path) -> None:
    text = suite_page(summary_with(0.03, 0.066, 0.1), tmp_path).text
    assert (
        "With 32 samples, Best-of-N-aware training solved 74.3 % of the problems; "
        "the base model 67.7 %, plain RL 61.6 %."
    ) in text
    assert "With one sample, the base model solved 13.8 % of the problems." in text
    assert "64 samples of each of 500 problems" in text
    assert "They do not say how far it would move with another training run." in text
    assert "Best-of-N training aimed at N = 16." in text


@pytest.mark.parametrize(
    ("bounds", "sentence", "mark"),
    [
        (
            (0.03, 0.066, 0.1),
            "Best-of-N-aware training solved 6.6 percentage points more than the base model "
            "(95 % interval +3.0 to +10.0).",
            "better",
        ),
        (
            (-0.09, -0.05, -0.01),
            "Best-of-N-aware training solved 5.0 percentage points fewer than the base model "
            "(95 % interval −9.0 to −1.0).",
            "worse",
        ),
        (
            (-0.01, 0.02, 0.05),
            "No clear difference between Best-of-N-aware training and the base model: +2.0 points, "
            "95 % interval −1.0 to +5.0.",
            None,
        ),
        (
            (float("nan"), 0.02, 0.05),
            "Best-of-N-aware training and the base model differ by +2.0 points; without an interval, maybe by chance.",
            None,
        ),
    ],
    ids=["better", "worse", "unclear", "no interval"],
)
def test_a_difference_is_claimed_only_if_its_interval_excludes_zero(
    tmp_path: Path, bounds: tuple[float, float, float], sentence: str, mark: str | None
) -> None:
    page = suite_page(summary_with(*bounds), tmp_path)
    assert sentence in page.text
    assert [item.get("class") or None for item in page.all("li")] == [mark]


def test_the_sentence_speaks_of_the_trained_n_where_it_is_compared(tmp_path: Path) -> None:
    summary = summary_with(0.03, 0.066, 0.1)
    more = Difference(a="bon_rl", b="base", metric="pass@16", value=0.1, low=0.0, high=0.2)
    models = {**summary.models, "bon_rl": {"pass@32": at(0.743), "pass@16": at(0.6)}}
    summary = dataclasses.replace(summary, models=models, differences=[*summary.differences, more])
    assert (
        "With 16 samples, Best-of-N-aware training solved 60.0 % of the problems." in suite_page(summary, tmp_path).text
    )


@pytest.mark.parametrize(
    "summary",
    [
        Summary(models={}),
        Summary(models={"base": {}}, n={1: 0.5, 16: 0.5}, problems=3),
        Summary(models={"x": {"majority@8": at(0.5)}}, seeds=3),
    ],
    ids=["empty", "nothing in it", "other metric"],
)
def test_a_page_comes_out_whatever_is_missing(tmp_path: Path, summary: Summary) -> None:
    text = suite_page(summary, tmp_path).text
    assert ("On majority@8, x reached 50.0 %." if "x" in summary.models else "Nothing was measured") in text


def test_a_figure_is_inside_the_page_with_its_description(tmp_path: Path) -> None:
    png = draw_curves({"base": {1: at(0.138), 32: at(0.677)}}).save(tmp_path / "pass.png")
    page = suite_page(summary_with(0.03, 0.066, 0.1), tmp_path, {"pass_at_k": png})
    (image,) = page.all("img")
    assert base64.b64decode((image["src"] or "").partition(",")[2]) == png.read_bytes()
    assert "base model 13.8 % at k = 1 and 67.7 % at k = 32" in (image["alt"] or "")
    (tmp_path / "no.png").write_text("no picture")
    for figure, message in ((tmp_path / "no.png", "it is not a PNG file"), (tmp_path / "none.png", "No such file")):
        with pytest.raises(BontuneError, match=message):
            suite_page(Summary(models={}), tmp_path, {"x": figure})


def test_everything_of_a_comparison_is_escaped(tmp_path: Path) -> None:
    png = draw_curves({HOSTILE: {1: at(0.5)}}).save(tmp_path / "pass.png")
    summary = Summary(
        models={HOSTILE: {"pass@1": at(0.5), HOSTILE: at(0.5)}},
        differences=[Difference(a=HOSTILE, b="base", metric="pass@1", value=0.1, low=0.0, high=0.2)],
        settings={HOSTILE: HOSTILE, "list": [HOSTILE]},
    )
    page = suite_page(summary, tmp_path, {HOSTILE: png})
    assert page.text.count("{{ 7 * 7 }}") >= 6


def run_folder(tmp_path: Path, metrics: str | None, recipe: str | None = "model: countdown-tiny\n") -> Path:
    folder = tmp_path / "countdown <b>"
    folder.mkdir()
    if metrics is not None:
        (folder / "metrics.jsonl").write_text(metrics, encoding="utf-8")
    if recipe is not None:
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return folder


def run_page(folder: Path) -> Page:
    path = write_run_report(folder)
    assert path == folder / "report.html"
    page = Page(path)
    assert_stands_alone(page)
    assert_accessible(page)
    assert "countdown <b>" in page.text
    return page


def evaluation(step: int, value: float, interval: list[float] | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "eval", "step": step, "metrics": {"pass@1": 0.1, "pass@32": value, "length": 11.25}}
    return row if interval is None else {**row, "intervals": {"pass@32": interval}}


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_run_with_a_torn_last_line(tmp_path: Path) -> None:
    seconds = {"sample": 0.2, "update": 0.3}
    rows = [
        {"kind": "step", "step": step, "reward": 0.2, "grader_errors": 1, "tokens_per_s": 5000.0, "seconds": seconds}
        for step in range(1, 41)
    ]
    metrics = lines(*rows, evaluation(0, 0.6, [0.57, 0.63]), evaluation(40, 0.7, [0.67, 0.73])) + '{"kind": "st'
    folder = run_folder(tmp_path, metrics)
    (folder / "summary.json").write_text('{"steps": 40, "best": {"pass@32": 0.7}}')
    page = run_page(folder)
    assert "pass@32 rose from 60.0 % at step 0 to 70.0 % at step 40; the 95 % intervals do not overlap." in page.text
    assert "40 steps in 20 s, 5,000 tokens per second (median)." in page.text
    assert "The grader failed on 40 completions" in page.text
    assert "[67.0–73.0]" in page.text
    assert "11.25" in page.text
    assert "best.pass@32" in page.text
    assert "20.0 % at step 1 to 20.0 % at step 40" in (page.all("img")[0]["alt"] or "")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [evaluation(0, 0.7), evaluation(9, 0.6)],
            "fell from 70.0 % at step 0 to 60.0 % at step 9; without intervals,",
        ),
        (
            [evaluation(0, 0.6, [0.5, 0.7]), evaluation(9, 0.65, [0.6, 0.7])],
            "no clear difference, as the 95 % intervals",
        ),
        ([evaluation(0, 0.6), evaluation(9, 0.6)], "pass@32 was 60.0 % at step 0 and at step 9"),
        ([evaluation(9, 0.6)], "pass@32 was 60.0 % at step 9."),
        ([{"kind": "step", "step": 7}], "Training has reached step 7; nothing is evaluated yet."),
        ([{"kind": "eval", "step": 1, "metrics": {"pass@1": float("nan")}}], "No step is recorded yet."),
    ],
    ids=["fell", "overlap", "same", "one", "none", "not finite"],
)
def test_the_first_sentence_of_a_run(tmp_path: Path, rows: list[dict[str, Any]], sentence: str) -> None:
    assert sentence in run_page(run_folder(tmp_path, lines(*rows))).text


@pytest.mark.parametrize("metrics", [None, "", "\n", '{"kind": "st'])
def test_a_run_that_has_just_begun_gets_a_report(tmp_path: Path, metrics: str | None) -> None:
    folder = run_folder(tmp_path, metrics, recipe=None)
    (folder / "summary.json").write_text('{"torn": ')
    page = run_page(folder)
    assert "No step is recorded yet." in page.text
    assert "no recipe.yaml" in page.text
    assert page.all("img") == []


def test_everything_of_a_run_is_escaped(tmp_path: Path) -> None:
    step = {"kind": "step", "step": 1, "seconds": {HOSTILE: 1.0}}
    metrics = lines(step, {"kind": "eval", "step": 1, "metrics": {HOSTILE: 0.5}})
    folder = run_folder(tmp_path, metrics, recipe=f"model: {HOSTILE}\n")
    (folder / "summary.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    page = run_page(folder)
    assert f"model: {HOSTILE}" in page.text
    assert page.text.count("{{ 7 * 7 }}") >= 5


def test_what_is_no_run_folder_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match="There is no run folder"):
        write_run_report(tmp_path / "none")
    with pytest.raises(BontuneError, match="line 1 is not a JSON object"):
        write_run_report(run_folder(tmp_path, '{"torn\n{"step": 1}\n'))
