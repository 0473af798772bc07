"""README stays short: one table, one picture, and what people do, each with its commands and its page."""

import json
import re

from pages import PAGES, ROOT
from test_architecture import FLOORS

README = PAGES["README.md"]


def test_it_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 150
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
    shown = re.search(r"<!-- claims -->\n(.*?)<!-- /claims -->", README, flags=re.DOTALL)
    assert shown is not None
    assert [line for line in shown[1].splitlines() if line not in page] == [], "copy the rows from docs/paper.md"


def test_the_tree_has_every_room_from_the_ground_up() -> None:
    listed = re.search(r"```text\n(.*?)```", README, flags=re.DOTALL)
    assert listed is not None
    rooms = [line.split()[0] for line in listed[1].splitlines()]
    assert set(rooms) == {path.parent.name for path in (ROOT / "src" / "bontune").glob("*/__init__.py")}
    floors = [FLOORS[room] for room in rooms]
    assert floors == sorted(floors)


def test_the_limits_promise_no_model_that_is_split_over_processes() -> None:
    assert "each holding the whole model" in README
    assert "training.shard" not in README


def test_it_asks_for_the_python_that_the_package_asks_for() -> None:
    oldest = re.search(r'requires-python = ">=(3\.\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert oldest is not None
    assert f"Python {oldest[1]} or newer" in README


def test_what_people_do_is_there_with_its_commands_and_its_page() -> None:
    commands = set(re.findall(r"^bontune ([a-z]+)", README, flags=re.MULTILINE))
    assert {"train", "sample", "eval", "report", "verify", "answer", "reproduce"} <= commands
    for page in ("train", "sample", "evaluate", "verifier", "reproduce", "python"):
        assert f"](docs/how-to/{page}.md)" in README
