"""README stays short: one table, one picture, and what people do, each with its commands and its page."""

import re

from pages import PAGES

README = PAGES["README.md"]


def test_it_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 125
    assert len(re.findall(r"^\|(?:---\|)+$", README, flags=re.MULTILINE)) == 1
    assert len(re.findall(r"!\[", README)) == 1


def test_what_people_do_is_there_with_its_commands_and_its_page() -> None:
    commands = set(re.findall(r"^bontune ([a-z]+)", README, flags=re.MULTILINE))
    assert {"train", "sample", "eval", "report", "verify", "answer", "reproduce"} <= commands
    for page in ("train", "sample", "evaluate", "verifier", "reproduce", "python"):
        assert f"](docs/how-to/{page}.md)" in README
