"""README stays short: one table, one picture, and what people do, each with its commands and its page."""

import json
import re

from pages import PAGES, ROOT

README = PAGES["README.md"]


def test_it_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 125
    assert len(re.findall(r"^\|(?:---\|)+$", README, flags=re.MULTILINE)) == 1
    assert len(re.findall(r"!\[", README)) == 1


def test_the_first_screen_says_what_it_is_measured_on() -> None:
    top = "\n".join(README.splitlines()[:25])
    assert "156 thousand parameters" in top
    assert "nothing here has been run on a GPU yet" in top


def test_five_claims_stand_alone_and_the_paper_page_has_them_all() -> None:
    claims = re.findall(r"^\| (.*?) \| .*\*\* \|$", README, flags=re.MULTILINE)
    assert len(claims) == 5
    assert all(not re.match(r"(It|Its|So|They|He|She)\b", claim) for claim in claims)
    page = PAGES["docs/paper.md"]
    for suite in ("countdown", "programs"):
        rows = json.loads((ROOT / "results" / suite / "claims.json").read_text(encoding="utf-8"))
        assert [row["claim"] for row in rows if f"| {row['claim']} |" not in page] == []


def test_it_asks_for_the_python_that_the_package_asks_for() -> None:
    oldest = re.search(r'requires-python = ">=(3\.\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert oldest is not None
    assert f"Python {oldest[1]} or newer" in README


def test_what_people_do_is_there_with_its_commands_and_its_page() -> None:
    commands = set(re.findall(r"^bontune ([a-z]+)", README, flags=re.MULTILINE))
    assert {"train", "sample", "eval", "report", "verify", "answer", "reproduce"} <= commands
    for page in ("train", "sample", "evaluate", "verifier", "reproduce", "python"):
        assert f"](docs/how-to/{page}.md)" in README
