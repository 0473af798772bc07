"""Problems that ship with the package: one file of JSON lines for each kind, drawn by the scripts in ``tools/``."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError
from bontune.tasks.reading import FilePath

FOLDER = Path(__file__).with_name("data")
SPLITS = ("train", "validation", "test")
"""Splits of every embedded task."""


def embedded_file(task: str, seed: int, is_hard: bool, data: FilePath | None) -> Path:
    """The file that an embedded task reads its problems from.

    Raises:
        BontuneError: problems of another seed are asked for, ``data`` is no file, or is given beside another option.
    """
    if data is not None:
        if seed or is_hard:
            raise BontuneError(f"Task {task}: data holds problems that are drawn already: leave out seed and hard.")
        if not Path(data).is_file():
            raise BontuneError(f"Task {task}: there is no file {str(data)!r}; tools/{task}_problems.py writes one.")
        return Path(data)
    if seed:
        raise BontuneError(
            f"Task {task}: only the problems of seed 0 ship, got seed={seed}; in the source tree, "
            f"`python tools/{task}_problems.py {task}-{seed}.jsonl.gz --seed {seed}` draws others: "
            "give the file as data=…."
        )
    return FOLDER / f"{task}{'-hard' if is_hard else ''}.jsonl.gz"


def read_embedded(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file of problems; :func:`readable_problems` says what is wrong with one that is none."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@contextmanager
def readable_problems(path: Path) -> Iterator[None]:
    """Turn what a damaged file of problems, or a file of other rows, raises into one sentence."""
    try:
        yield
    except (OSError, EOFError, ValueError, LookupError, TypeError) as error:
        raise BontuneError(f"{path} is no file of problems ({type(error).__name__}: {error}): draw it anew.") from None
