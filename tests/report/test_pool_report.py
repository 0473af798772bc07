"""The page of pools, in a real browser where there is one: it opens fast, loads nothing, and nothing in it runs.

Interaction is tested by scripts that act on the page as its reader would and report what they find, and by real keys.
"""

from __future__ import annotations

import base64
import csv
import gzip
import json
import math
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import bontune.metrics as metrics
import browser
from bontune.base.errors import BontuneError
from bontune.pools.pool import RENDERED, Pool
from bontune.report.pool_data import CUTS, as_json_element, browsable, pack, problem_details
from bontune.report.pool_page import write_pool_report

needs_browser = pytest.mark.skipif(browser.COMMAND is None, reason="needs Chromium or Chrome")

HOSTILE = [
    "</script><script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\u202egnorw si siht\u202c <b>bold</b> \u2066 \x00\x1b[31m",
    "<!--<script>",
    "W" * 200_000 + "end of the long one",
]


def make_pool(
    num_problems: int,
    num_samples: int,
    *,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    texts: Sequence[str] = (),
    is_oracle: bool = False,
    rate: float = 1.0,
) -> Pool:
    """A pool drawn at random: problem p is solved at a rate that falls with p, never by the last fifth."""
    rng = random.Random(seed)
    names = (
        "prompt",
        "reference",
        "level",
        "completion",
        "answer",
        "reward",
        "score",
        "verdict",
        "reason",
        "stop_reason",
        "num_tokens",
    )
    columns: dict[str, list[list[Any]]] = {name: [] for name in names}
    for p in range(num_problems):
        chance = max(0.0, rate * (0.8 - p / num_problems))
        rewards = [float(rng.random() < chance) for _ in range(num_samples)]
        answers = [f"a{p}" if r else f"w{rng.randrange(9)}" for r in rewards]
        drawn = [f"I think that {answer} is it" for answer in answers]
        drawn[: len(texts)] = texts
        scores = rewards if is_oracle else [round(r + rng.gauss(0, 0.8), 3) for r in rewards]
        row = {
            "prompt": [f"Question {p}: how much is {p} + {p}?"] * num_samples,
            "reference": [f"a{p}"] * num_samples,
            "level": [1 + p % 3] * num_samples,
            "completion": drawn,
            "answer": answers,
            "reward": rewards,
            "score": scores,
            "verdict": ["passed" if r else "failed" for r in rewards],
            "reason": [""] * num_samples,
            "stop_reason": ["end"] * num_samples,
            "num_tokens": [7] * num_samples,
        }
        for name, values in row.items():
            columns[name].append(values)
    ids = [f"problem {p}" for p in range(num_problems)]
    return Pool(problem_ids=ids, columns=columns, settings=settings or {})


def page_of(folder: Path, pools: dict[str, Pool]) -> Path:
    return write_pool_report(pools, folder / "report.html", csv_folder=folder / "report_csv")


def play(page: Path, folder: Path, script: str) -> dict[str, Any]:
    """What a script reports of the page, by calling ``report(name, value)``; nothing else is loaded, nothing fails."""
    with browser.Browser(folder) as chromium:
        chromium.open(page)
        results: dict[str, Any] = json.loads(chromium.run(PLAYER.replace("SCRIPT", script)))
        assert chromium.complaints == []
        assert {url for url in chromium.requests if not url.startswith("data:")} == {page.as_uri()}
    assert "error" not in results, results["error"]
    return results


PLAYER = """
(async () => {
  const results = {};
  const report = (name, value) => { results[name] = value; };
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];
  const texts = (selector, of = document) => all(selector, of).map((node) => node.textContent.trim());
  const until = async (test) => {
    for (let i = 0; i < 1000 && !test(); i++) await new Promise((done) => setTimeout(done, 10));
    if (!test()) throw new Error(`never true: ${test}`);
  };
  const press = (node) => { node.focus(); node.click(); };
  const choose = (id, value) => {
    const field = document.getElementById(id);
    if (field.type === "checkbox") field.checked = value; else field.value = value;
    field.dispatchEvent(new Event(id === "search" ? "input" : "change", { bubbles: true }));
  };
  const status = () => document.getElementById("status").textContent;
  const listed = () => texts("#list .opener");
  try {
    SCRIPT
  } catch (error) {
    results.error = String(error);
  }
  return JSON.stringify(results);
})()
"""


@needs_browser
def test_sorting_filters_search_and_samples(tmp_path: Path) -> None:
    pool = make_pool(120, 8)
    pool.columns["completion"][77][3] = "the Needle in the haystack"
    page = page_of(tmp_path, {"mine": pool})
    results = play(
        page,
        tmp_path,
        """
      const table = all(".sortable table")[0];
      const buttons = all("thead button", table);
      report("every header is a button", buttons.length === table.tHead.rows[0].cells.length);
      press(buttons[0]); press(buttons[0]);
      report("sort", [table.tHead.rows[0].cells[0].getAttribute("aria-sort"), texts("tbody th", table)]);
      report("said", document.getElementById("announce").textContent);
      press(buttons[1]);
      report("sort others", [texts("tbody th", table), all("[aria-sort]", table).length]);
      report("first page", [listed().length, status()]);
      press(document.getElementById("more"));
      report("second page", [listed().length, document.activeElement.textContent]);
      choose("show", "none"); report("none", [listed(), status()]);
      choose("show", "pick"); report("pick", listed());
      choose("level", "2"); report("pick and level", listed());
      choose("show", "all"); choose("level", "");
      choose("search", "QUESTION 77:"); await until(() => listed().length === 1); report("search", listed());
      choose("search", "needle"); await until(() => listed().length === 0);
      choose("deep", true); await until(() => listed().length === 1); report("deep search", listed());
      const opener = all("#list .opener")[0];
      press(opener);
      await until(() => all(".detail li").length > 0);
      report("open", [opener.getAttribute("aria-expanded"),
        document.getElementById(opener.getAttribute("aria-controls")) !== null, texts(".detail pre")]);
      press(opener);
      report("closed", [opener.getAttribute("aria-expanded"), all(".detail").length]);
      choose("search", ""); await until(() => listed().length === 50);
      const right = all("#list thead button").find((button) => button.textContent === "Right");
      press(right); press(right);
      report("most right", [right.parentNode.getAttribute("aria-sort"), texts("#list tbody td:nth-of-type(2)")]);
    """,
    )
    assert results["every header is a button"]
    assert results["sort"] == ["descending", ["8", "4", "2", "1"]]
    assert results["said"] == "Sorted by k, descending"
    assert results["sort others"] == [["1", "2", "4", "8"], 1]  # pass@k grows with k
    assert results["first page"] == [50, "120 of 120 problems."]
    assert results["second page"] == [100, "problem 50"]
    rewards, scores = pool.rewards(), pool.scores()
    unsolved = [p for p in range(120) if max(rewards[p]) == 0]
    assert results["none"] == [[f"problem {p}" for p in unsolved[:50]], f"{len(unsolved)} of 120 problems."]
    assert scores is not None
    chosen = [rewards[p][scores[p].index(max(scores[p]))] for p in range(120)]
    wrong = [p for p in range(120) if max(rewards[p]) == 1 and chosen[p] == 0]
    assert 3 < len(wrong) < 50
    assert results["pick"] == [f"problem {p}" for p in wrong]
    assert results["pick and level"] == [f"problem {p}" for p in wrong if 1 + p % 3 == 2]
    assert results["search"] == results["deep search"] == ["problem 77"]
    assert results["open"][:2] == ["true", True]
    assert {pool.columns["prompt"][77][0], "a77", *pool.columns["completion"][77]} == set(results["open"][2])
    assert results["closed"] == ["false", 0]
    most = sorted((int(sum(row)) for row in rewards), reverse=True)
    assert results["most right"] == ["descending", [f"{count} of 8" for count in most[:50]]]


@needs_browser
def test_another_pool_is_browsed_beside_the_first(tmp_path: Path) -> None:
    first, other = make_pool(40, 4, seed=1), make_pool(40, 4, seed=2, rate=0.5)
    for rows in (other.problem_ids, *other.columns.values()):
        rows.reverse()
    results = play(
        page_of(tmp_path, {"a": first, "b": other}),
        tmp_path,
        """
      choose("pool", "1");
      report("listed", [listed(), texts("#list thead th"), texts("#list tbody td:nth-of-type(3)")]);
      choose("show", "gained"); report("gained", listed());
      choose("show", "lost"); report("lost", listed());
      press(all("#list .opener")[0]);
      await until(() => all(".detail li").length > 0);
      report("samples", texts(".detail ol pre"));
      choose("pool", "0"); report("back", [document.getElementById("show").value, listed()[0], all(".detail").length]);
    """,
    )
    right = {
        name: {id: int(sum(row)) for id, row in zip(pool.problem_ids, pool.rewards(), strict=True)}
        for name, pool in (("a", first), ("b", other))
    }
    names, headers, beside = results["listed"]
    assert names == other.problem_ids
    assert headers[:4] == ["Problem", "Level", "Right", "Right in a"]
    assert beside == [f"{right['a'][name]} of 4" for name in names]
    assert results["gained"] == [name for name in names if right["b"][name] and not right["a"][name]]
    lost = [name for name in names if right["a"][name] and not right["b"][name]]
    assert results["lost"] == lost
    assert set(results["samples"]) == set(other.columns["completion"][names.index(lost[0])])
    assert results["back"] == ["all", "problem 0", 0]


@needs_browser
def test_everything_is_reached_and_worked_by_keys(tmp_path: Path) -> None:
    page = page_of(tmp_path, {"mine": make_pool(8, 4)})
    focused = "document.activeElement.textContent.trim() || document.activeElement.id"
    with browser.Browser(tmp_path) as chromium:
        chromium.open(page)

        def tab_to(name: str) -> None:
            for _ in range(60):
                chromium.press("Tab")
                if chromium.run(focused) == name:
                    return
            raise AssertionError(f"{name} takes no focus")

        tab_to("k")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert chromium.run(outline) == "solid"
        sorted_by = "document.querySelector('.sortable th').getAttribute('aria-sort')"
        first = "document.querySelector('.sortable tbody th').textContent"
        assert (chromium.run(sorted_by), chromium.run(first)) == (None, "1")
        chromium.press("Enter")
        assert (chromium.run(sorted_by), chromium.run(first)) == ("ascending", "1")
        chromium.press("Space")
        assert (chromium.run(sorted_by), chromium.run(first)) == ("descending", "4")
        tab_to("problem 1")
        assert chromium.run(outline) == "solid"
        chromium.press("Enter")
        assert chromium.run("document.activeElement.getAttribute('aria-expanded')") == "true"
        chromium.run(
            "new Promise((done) => { const look = () => document.querySelector('.detail pre') ? done() : "
            "setTimeout(look, 10); look(); })"
        )
        chromium.press("Tab")
        assert "Question 1" in chromium.run(focused)
        assert chromium.complaints == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_and_nothing_is_wider_than_a_telephone(tmp_path: Path, scheme: str) -> None:
    pools = {name: make_pool(8, 4, texts=HOSTILE[4:], rate=rate) for name, rate in (("a", 1.0), ("b", 0.5))}
    with browser.Browser(tmp_path) as chromium:
        chromium.open(page_of(tmp_path, pools), width=400, scheme=scheme)
        opened = "new Promise((done) => { document.querySelector('.opener').click(); const look = () => "
        chromium.run(opened + "document.querySelector('.detail pre') ? done() : setTimeout(look, 10); look(); })")
        assert chromium.run("document.documentElement.scrollWidth") <= 400
        colours = json.loads(
            chromium.run("""JSON.stringify([...document.querySelectorAll("body *")]
            .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()))
            .filter((node) => node.getClientRects().length && !/^(script|option|title)$/i.test(node.tagName))
            .map((node) => getComputedStyle(node)[node instanceof SVGElement ? "fill" : "color"]))""")
        )
        paper = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert len(set(colours)) > 4
    for colour in set(colours):
        assert contrast(colour, paper) >= 4.5, (colour, paper)


def contrast(first: str, second: str) -> float:
    """Of two colours as the browser writes them, by WCAG 2: 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@needs_browser
def test_what_a_model_wrote_is_text_and_no_more(tmp_path: Path) -> None:
    pool = make_pool(3, 8, texts=HOSTILE)
    pool.problem_ids[0] = HOSTILE[0]
    for sample in range(8):
        pool.columns["prompt"][1][sample] = HOSTILE[1]
        pool.columns["answer"][1][sample] = pool.columns["reason"][1][sample] = HOSTILE[2]
    page = page_of(tmp_path, {HOSTILE[1]: pool, "other </title><script>document.title='owned'</script>": pool})
    results = play(
        page,
        tmp_path,
        """
      const title = document.title;
      for (const opener of all("#list .opener")) opener.click();
      await until(() => all(".detail ol").length === 3);
      const blocks = texts(".detail ol pre");
      report("elements", all(".detail *").map((node) => node.localName));
      report("inert", all(".detail img, .detail script, .detail b, .detail [onerror]").length);
      report("blocks", blocks.map((text) => text.slice(0, 80)));
      report("lengths", blocks.map((text) => text.length));
      const long = all(".detail button.plain").find((button) => button.textContent.startsWith("Show all 200"));
      const block = long.previousSibling;
      press(long);
      report("whole", [block.textContent.endsWith("end of the long one"), document.activeElement === block]);
      report("wide", document.documentElement.scrollWidth <= innerWidth);
      report("title", document.title === title && !title.startsWith("owned"));
    """,
    )
    assert results["inert"] == 0
    assert set(results["elements"]) <= {"dl", "dt", "dd", "pre", "ol", "li", "div", "span", "strong", "button"}
    assert HOSTILE[0][:80] in results["blocks"]
    assert HOSTILE[1][:80] in results["blocks"]
    assert "⟦U+202E⟧gnorw si siht⟦U+202C⟧ <b>bold</b> ⟦U+2066⟧ ⟦U+0000⟧⟦U+001B⟧[31m" in results["blocks"]
    assert max(results["lengths"]) < 1300
    assert results["whole"] == [True, True]
    assert results["wide"]
    assert results["title"]
    assert page.read_text(encoding="utf-8").count("<script") == 5  # two for each pool, and the page's own
    assert all(text not in page.read_text(encoding="utf-8") for text in HOSTILE)


@needs_browser
def test_a_large_pool_opens_fast_and_is_small(tmp_path: Path, record_property: Any) -> None:
    pool = make_pool(500, 64)
    rng = random.Random(1)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))).decode() for _ in range(3000)]
    for row in pool.columns["completion"]:
        row[:] = [" ".join(rng.choices(words, k=60)) for _ in row]  # 32,000 texts, none alike: 13 MB
    page = write_pool_report({"large": pool}, tmp_path / "p.html", csv_folder=tmp_path / "csv", ks=[1, 64])
    assert page.stat().st_size < 15e6
    with browser.Browser(tmp_path) as chromium:
        chromium.open(page)
        ready_ms = int(chromium.run("document.documentElement.dataset.readyMs"))
        openers = chromium.run("document.querySelectorAll('.opener').length")
    record_property("ready_ms", ready_ms)
    print(f"500 × 64: {page.stat().st_size / 1e6:.1f} MB, usable after {ready_ms} ms")
    assert openers == 50
    assert ready_ms < 20_000  # far from the 2 s of a machine at rest: this one may be busy


@needs_browser
def test_the_page_works_without_its_script_and_says_so_where_it_cannot_unpack(tmp_path: Path) -> None:
    page = page_of(tmp_path, {"mine": make_pool(6, 4)})
    results = play(
        page,
        tmp_path,
        """
      delete window.DecompressionStream;
      all("#list .opener")[0].click();
      await until(() => texts(".detail")[0].includes("cannot unpack"));
      report("said", texts(".detail"));
    """,
    )
    assert "DecompressionStream" in results["said"][0]
    source = page.read_text(encoding="utf-8")
    assert "<noscript>" in source
    assert "4 samples of each of 6 problems: one sample solves" in source.replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_stands_alone_and_can_be_read_aloud(tmp_path: Path) -> None:
    settings = {"model": "m", "task": "t", "split": "test", "verifier": "v"}
    pools = {
        f"T{t}": make_pool(30, 8, seed=i, settings={**settings, "temperature": t}, rate=1 / t)
        for i, t in enumerate((0.5, 1.0, 1.5))
    }
    source = page_of(tmp_path, pools).read_text(encoding="utf-8")
    tags = re.findall(r"<[a-z][^>]*>", re.sub(r"<script.*?</script>|<style>.*?</style>", "", source, flags=re.DOTALL))
    for tag in tags:
        assert not re.search(r"\son\w+=", tag)
        assert all(
            value.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,", "#"))
            for value in re.findall(r'\s(?:src|href)="(.*?)"', tag)
        )
    assert not re.search(r"url\((?!data:image)|@import", source)
    assert "default-src 'none'" in source
    assert source.count("<h1>") == source.count("<main>") == source.count("<nav") == 1
    ids = re.findall(r'\sid="(.*?)"', source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#(.*?)"|aria-labelledby="(.*?)"', source)) <= {(i, "") for i in ids} | {
        ("", i) for i in ids
    }
    assert all(re.search(r'scope="(row|col)"', tag) for tag in tags if tag.startswith("<th "))
    assert sum(tag.startswith("<table") for tag in tags) == sum(tag.startswith("<caption") for tag in tags)
    assert all(len(re.findall(r'alt="(.*?)"', tag)[0]) > 40 for tag in tags if tag.startswith("<img"))
    assert any('alt="Line chart' in tag for tag in tags if tag.startswith("<img"))
    for field in ("select", "input"):
        labelled = re.findall(rf"<label[^>]*>[^<]*(?:<{field}[^>]*>)", source)
        assert len(labelled) == sum(tag.startswith(f"<{field}") for tag in tags)


def test_sentences_tables_and_csv_hold_the_numbers_of_the_pools(tmp_path: Path) -> None:
    first, other = make_pool(40, 8, seed=1), make_pool(40, 8, seed=2, rate=0.4)
    source = page_of(tmp_path, {"a": first, "b": other}).read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    best = {name: metrics.best_of_k(pool.rewards(), pool.scores(), 8) for name, pool in (("a", first), ("b", other))}
    means = {name: metrics.bootstrap_interval(values) for name, values in best.items()}
    written = {
        name: f"{100 * i.value:.1f} % ({100 * i.low:.1f}–{100 * i.high:.1f}) for {name}" for name, i in means.items()
    }
    assert f"2 pools of 8 samples of each of 40 problems: best@8 is {written['a']}, {written['b']}" in source
    paired = metrics.paired_difference(best["b"], best["a"])
    assert paired.high < 0
    assert f"b: best@8 is {-100 * paired.value:.1f} points lower than a&#39;s (95 % interval" in source
    pairs = [[metrics.best_of_k(p.rewards(), p.scores(), k) for p in (other, first)] for k in (1, 2, 4, 8)]
    assert all(i.high < 0 for i in metrics.simultaneous_band([ours - theirs for ours, theirs in pairs]))
    assert "Over all N at once: clearly fewer at every N." in source
    folder = tmp_path / "report_csv"
    assert sorted(path.name for path in folder.iterdir()) == [
        "curves.csv",
        "differences.csv",
        "levels.csv",
        "problems.csv",
    ]
    sheets = {path.stem: list(csv.DictReader(path.open(encoding="utf-8"))) for path in folder.iterdir()}
    row = next(row for row in sheets["differences"] if row["metric"] == "best@8")
    assert (row["pool"], row["minus"], float(row["diff"])) == ("b", "a", paired.value)
    row = next(row for row in sheets["curves"] if (row["pool"], row["metric"], row["k"]) == ("b", "best", "8"))
    assert [float(row[name]) for name in ("value", "low", "high")] == [
        means["b"].value,
        means["b"].low,
        means["b"].high,
    ]
    assert [float(row["best@8"]) for row in sheets["problems"]] == [*best["a"], *best["b"]]
    assert {row["level"] for row in sheets["levels"]} == {"1", "2", "3"}
    everywhere = metrics.bootstrap_interval(metrics.pass_hat_k(first.rewards(), 2))
    row = next(row for row in sheets["curves"] if (row["pool"], row["metric"], row["k"]) == ("a", "all", "2"))
    assert float(row["value"]) == everywhere.value
    assert "all@k: share of problems that each of k samples solves" in source
    header, *lines = re.findall(r"<tr>.*?</tr>", source[source.index(">all@k, %<") - 600 :], re.DOTALL)
    column = re.findall(r"<th[^>]*>([^<]+)", header).index("all@k, %")
    line = next(line for line in lines if re.search(r"<th[^>]*>2<", line))
    assert f"{100 * everywhere.value:.1f}" in re.findall(r"<t[hd].*?</t[hd]>", line, re.DOTALL)[column]


def test_pools_of_different_temperatures_get_a_map_and_others_do_not(tmp_path: Path) -> None:
    def source(**changes: Any) -> str:
        pools = {}
        for t in (0.5, 1.0):
            settings = {"model": "m", "temperature": t} | (changes if t == 1.0 else {})
            pools[f"T{t}"] = make_pool(20, 4, seed=int(2 * t), settings=settings)
        return page_of(tmp_path, pools).read_text(encoding="utf-8")

    page = source()
    assert "Heat map of pass@N at 2 temperatures" in page
    assert "Heat map of best-of-N at 2 temperatures" in page
    assert (tmp_path / "report_csv" / "temperatures.csv").is_file()
    assert "Heat map" not in source(model="another")
    assert "Heat map" not in source(temperature=0.5)
    different = {"a": make_pool(20, 4), "b": make_pool(21, 4)}
    source_of_different = page_of(tmp_path, different).read_text(encoding="utf-8")
    assert "The pools hold different problems" in source_of_different
    assert "Over all N at once" not in source_of_different


def test_an_oracle_graded_rewards_and_bare_pools(tmp_path: Path) -> None:
    oracle = page_of(tmp_path, {"o": make_pool(10, 4, is_oracle=True)}).read_text(encoding="utf-8")
    assert "The verifier&#39;s scores are the rewards themselves" in oracle
    assert "best@k: " not in oracle
    graded = make_pool(10, 4)
    graded.columns["reward"] = [[0.25 * r + 2 + i % 2 for r in row] for i, row in enumerate(graded.columns["reward"])]
    graded.columns["reward"][0][0] = None
    text = page_of(tmp_path, {"g": graded}).read_text(encoding="utf-8")
    mean = sum(map(sum, graded.rewards())) / 40
    assert f"4 samples of each of 10 problems: the highest reward of 1 sample is {mean:.3g} (95 % interval" in (
        text.replace("\N{NO-BREAK SPACE}", " ")
    )
    assert "1 completion could not be graded" in text
    worse = make_pool(10, 4, rate=0.0)
    worse.columns["reward"] = [[0.25 * r for r in row] for row in worse.columns["reward"]]
    two = (
        page_of(tmp_path, {"g": graded, "worse": worse}).read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    )
    assert "Over all N at once: clearly less at every N." in two
    bare = Pool(problem_ids=["x", "y"], columns={"reward": [[1.0], [0.0]]}, settings={})
    assert "1 sample of each of 2 problems: one sample solves 50.0" in (
        page_of(tmp_path, {"bare": bare}).read_text(encoding="utf-8")
    )


def test_samples_that_are_alike_are_stored_once_and_none_is_lost() -> None:
    pool = make_pool(12, 32)
    pool.columns["score"][0][:2] = [None, math.inf]
    unpacked = [json.loads(gzip.decompress(base64.b64decode(text))) for text in browsable("x", pool).packed]
    for place, detail in enumerate(unpacked):
        keys = [(sample[0], sample[2], sample[4]) for sample in detail["samples"]]
        assert len(keys) == len(set(keys))
        names = ("completion", "reward", "answer")
        drawn = sorted(zip(*(pool.columns[name][place] for name in names), strict=True))
        assert (
            sorted(key for key, sample in zip(keys, detail["samples"], strict=True) for _ in range(sample[1])) == drawn
        )
    assert unpacked[0]["samples"][0][5] == "∞"


def test_the_prompt_is_what_the_model_was_asked() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    for said, sent in ((turns, "system: Be brief.\n\nuser: 1 + 1?"), (turns[1:], "1 + 1?")):
        columns = {
            "reward": [[1.0]],
            "completion": [["2"]],
            "prompt": [["Question: 1 + 1?\nAnswer:"]],
            "messages": [[json.dumps(said)]],
        }
        settings = {"contents": {RENDERED: "b5f2"}}
        pool = Pool(problem_ids=["a"], columns=columns, settings=settings)
        assert problem_details(pool)[0]["prompt"] == sent
        base = Pool(problem_ids=["a"], columns=columns, settings={"contents": {}})
        assert problem_details(base)[0]["prompt"] == "Question: 1 + 1?\nAnswer:"


@pytest.mark.parametrize("max_bytes", [10**9, 60_000, 3_000, 1])
def test_texts_are_cut_only_as_far_as_they_must_be(max_bytes: int) -> None:
    rng = random.Random(0)
    pool = make_pool(4, 4)
    for row in pool.columns["completion"]:
        row[:] = ["".join(chr(rng.randrange(33, 126)) for _ in range(20_000)) for _ in row]
    details = problem_details(pool)
    packed, cut = pack(details, max_bytes)
    size = sum(map(len, packed))
    assert size <= max_bytes or cut == CUTS[-1]
    if cut is not None:
        looser = CUTS[CUTS.index(cut) - 1]
        texts = json.loads(gzip.decompress(base64.b64decode(packed[0])))["samples"]
        assert all(
            text[0].startswith(pool_text[:cut])
            for text, pool_text in zip(texts, [s[0] for s in details[0]["samples"]], strict=True)
        )
        whole = [{**d, "samples": [[s[0][:looser], *s[1:]] for s in d["samples"]]} for d in details]
        assert sum(map(len, pack(whole, 10**9)[0])) > max_bytes
    else:
        assert json.loads(gzip.decompress(base64.b64decode(packed[0]))) == details[0]


def test_json_in_a_script_element_cannot_end_it() -> None:
    for text in (*HOSTILE[:4], "\ud800", "\u2028"):
        element = str(as_json_element({text: [text]}))
        assert "<" not in element
        assert element.isascii()
        assert json.loads(element) == {text: [text]}


def test_a_budget_beyond_the_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match="k = 5 is more than the 4 samples per problem of mine"):
        write_pool_report({"mine": make_pool(2, 4)}, tmp_path / "p.html", csv_folder=tmp_path, ks=[1, 5])
    assert os.listdir(tmp_path) == []


def test_gaps_in_optional_columns_are_no_level_no_answer_and_no_text(tmp_path: Path) -> None:
    pool = make_pool(12, 4)
    nan = float("nan")
    pool.columns["level"] = [[(1, 2.0, nan, None)[p % 4]] * 4 for p in range(12)]
    for name in ("answer", "reason", "verdict", "completion", "prompt", "reference", "num_tokens", "stop_reason"):
        if name in pool.columns:
            rows = pool.columns[name]
            pool.columns[name] = [[nan] * 4 if p % 3 == 0 else row for p, row in enumerate(rows)]
    text = page_of(tmp_path, {"gaps": pool, "whole": make_pool(12, 4, seed=3)}).read_text(encoding="utf-8")
    rows = list(csv.DictReader((tmp_path / "report_csv" / "levels.csv").open(encoding="utf-8")))
    assert {(row["level"], row["problems"]) for row in rows if row["pool"] == "gaps"} == {("1", "3"), ("2.0", "3")}
    assert ">nan<" not in text.lower()
    words = make_pool(3, 2)
    words.columns["level"] = [["easy"] * 2, [["a", "list"]] * 2, [3] * 2]
    assert "by the task&#39;s level" in page_of(tmp_path, {"w": words}).read_text(encoding="utf-8")


def test_a_binary_pool_beside_a_graded_one_has_differences(tmp_path: Path) -> None:
    binary, graded = make_pool(12, 4, seed=1), make_pool(12, 4, seed=2)
    rewards = enumerate(graded.columns["reward"])
    graded.columns["reward"] = [[r * (1 + (i + p) % 3) / 2 for i, r in enumerate(row)] for p, row in rewards]
    page_of(tmp_path, {"binary": binary, "graded": graded})
    rows = list(csv.DictReader((tmp_path / "report_csv" / "differences.csv").open(encoding="utf-8")))
    for k in (1, 2, 4):
        (row,) = [row for row in rows if row["metric"] == f"max@{k}"]
        ours, theirs = (metrics.max_at_k(pool.rewards(), k) for pool in (graded, binary))
        assert float(row["diff"]) == pytest.approx((ours - theirs).mean())
    assert not [row for row in rows if row["metric"].startswith("pass")]
