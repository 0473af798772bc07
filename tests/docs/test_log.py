"""The log's table of contents names every entry, in order, and each of its links leads to that entry."""

from __future__ import annotations

import re

from pages import PAGES

LOG = PAGES["docs/LOG.md"]


def anchor(heading: str) -> str:
    """The anchor that GitHub and MyST give to a heading: lower case, hyphens for spaces, no punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_entry_is_in_the_contents_and_every_link_resolves() -> None:
    headings = re.findall(r"^## (.*)$", LOG, flags=re.MULTILINE)
    links = re.findall(r"^\* \[(.*)\]\(#(.*)\)$", LOG, flags=re.MULTILINE)
    expected = [(heading, anchor(heading)) for heading in headings]
    assert links[: len(headings)] == expected, "the contents should be:\n" + "\n".join(
        f"* [{heading}](#{link})" for heading, link in expected
    )
    assert len({link for _, link in expected}) == len(headings), "two entries have one anchor"


def test_every_entry_begins_with_its_date() -> None:
    for heading in re.findall(r"^## (.*)$", LOG, flags=re.MULTILINE):
        assert re.match(r"20\d\d-\d\d-\d\d: ", heading), heading
