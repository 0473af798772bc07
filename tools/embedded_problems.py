"""What the scripts share that draw embedded problems: one way to draw an index, and one to write a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any


def below(rng: Random, bound: int) -> int:
    """Uniform in 0..bound-1 from ``random()``, the one method whose sequence Python promises to keep."""
    return int(rng.random() * bound)


def as_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as compact JSON lines."""
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()


def write_problems(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as gzipped JSON lines, the same bytes each time: without a name and a time inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(as_lines(rows), compresslevel=9, mtime=0))
