"""Fixed seeds for generated cases: a test that fails fails again. And files in an order that suits two workers."""

import gc

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")

LONGEST = ("training", "experiments", "grading", "docs", "engines", "cli")
"""Folders with the files that take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker is left alone with one at the end."""

    def place(item: pytest.Item) -> int:
        folder = item.nodeid.removeprefix("tests/").partition("/")[0]
        return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not look at these million objects again and again."""
    gc.collect()
    gc.freeze()
