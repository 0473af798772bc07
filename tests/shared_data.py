"""Where the public data sets lie that some tests read: ``BONTUNE_DATA``, or ``shared/data`` beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("BONTUNE_DATA") or Path(__file__).resolve().parents[1].parent / "shared" / "data")
ABSENT = f"the public data sets are not in {DATA} (BONTUNE_DATA says where)"


def needs(name: str = "") -> pytest.MarkDecorator:
    """Skip a test where a file of the data sets, or all of them, are absent."""
    return pytest.mark.skipif(not (DATA / name).exists(), reason=ABSENT)


def require(name: str) -> Path:
    """The path of a file of the data sets; a test that asks for one that is absent is skipped."""
    if not (DATA / name).is_file():
        pytest.skip(ABSENT)
    return DATA / name
