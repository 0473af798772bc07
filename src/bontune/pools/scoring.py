"""Score a pool's completions with another verifier; restartable at any moment."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bontune.base.errors import BontuneError, Interrupted
from bontune.base.files import write_whole
from bontune.base.signals import Poll
from bontune.base.text import cell_text
from bontune.models import weights_digest
from bontune.pools.collect import score_all
from bontune.pools.journal import Journal
from bontune.pools.pool import SUFFIXES, Pool, grades_of, problems_of, storable_score
from bontune.pools.read import problem_name, read_pool, read_rows
from bontune.verifiers import Verifier, verifier_from_text
from bontune.verifiers.load import options_from_text, verifier_digest

BATCH_COMPLETIONS = 1024
"""Completions that are scored between two looks at signals, in whole problems: what a kill can cost."""
Tell = Callable[[int, int], None]
"""Called with the number of problems that are scored, and of all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredPool:
    """A pool, and what another verifier says of it."""

    pool: Pool
    """The pool as it was."""
    scores: list[list[float]]
    """The verifier's scores, P × M."""
    verifier: Verifier
    """The verifier."""


def score_pool(
    path: Path,
    spec: str,
    out: Path,
    *,
    poll: Poll | None = None,
    on_progress: Tell | None = None,
    on_interrupt: Tell | None = None,
) -> ScoredPool:
    """Write a pool with another verifier's scores, or resume one that was begun.

    Scores are on disk as they come, in ``OUT.partial.jsonl``; the same call resumes from there.

    Args:
        path: a pool with prompts and completions.
        spec: the verifier; see :func:`bontune.verifiers.verifier_from_text`.
        out: file of the scored pool, ``.parquet`` or ``.jsonl``.
        poll: called between batches; what it raises ends the work, and what was scored is kept.
        on_progress: called before each batch and at the end.
        on_interrupt: called when ``poll`` has raised :class:`Interrupted`.

    Raises:
        BontuneError: no pool, no prompts or completions in it, no such verifier, the output cannot be written, or
            scores of another pool or verifier are there.
        RunStopped: the verifier failed; the scores that there are stay.
        Interrupted: from ``poll``.
    """
    if out.suffix not in SUFFIXES:
        raise BontuneError(f"A pool ends in .parquet or .jsonl, got {out.name!r}.")
    if out.exists():
        raise BontuneError(f"{out} is already there: delete it or give another name.")
    pool = read_pool(path)
    problems_of(pool, path)  # refused before a verifier is loaded
    verifier = verifier_from_text(spec)
    with _journal(path, spec, out) as journal:
        known = {entry["problem_id"]: entry["scores"] for entry in journal.entries()}
        try:
            _score(pool, path, verifier, journal, known, poll, on_progress)
        except Interrupted:
            if on_interrupt is not None:
                on_interrupt(len(known), len(pool.problem_ids))
            raise
        scores = [known[name] for name in pool.problem_ids]
        _write(path, out, pool, scores, verifier.name)
        journal.path.unlink()
    return ScoredPool(pool=pool, scores=scores, verifier=verifier)


@contextlib.contextmanager
def _journal(path: Path, spec: str, out: Path) -> Iterator[Journal]:
    """Open the journal of this pool's scores by this verifier; what is missing of its folder is made."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BontuneError(f"The folder {out.parent} cannot be made: {error.strerror}.") from None
    name, options = options_from_text(spec)
    contents = {"the pool": weights_digest(str(path)), "what the verifier names": verifier_digest(name, **options)}
    settings = {"verifier": spec, "contents": contents}
    journal = Journal(out.with_name(out.name + ".partial.jsonl"), settings, {})
    try:
        yield journal
    finally:
        journal.close()


def _score(
    pool: Pool,
    path: Path,
    verifier: Verifier,
    journal: Journal,
    known: dict[str, list[float]],
    poll: Poll | None,
    on_progress: Tell | None,
) -> None:
    """Score what is not known yet, and keep it in the journal."""
    problems, texts, grades = problems_of(pool, path), pool.columns["completion"], grades_of(pool)
    left = [i for i, name in enumerate(pool.problem_ids) if name not in known]
    size = max(1, BATCH_COMPLETIONS // len(texts[0]))
    for start in range(0, len(left), size):
        part = left[start : start + size]
        if on_progress is not None:
            on_progress(len(known), len(problems))
        if poll is not None:
            poll()
        found = score_all(verifier, [problems[i] for i in part], [texts[i] for i in part], [grades[i] for i in part])
        for i, scores in zip(part, found, strict=True):
            known[pool.problem_ids[i]] = scores
            journal.append({"problem_id": pool.problem_ids[i], "scores": scores})
    if on_progress is not None:
        on_progress(len(known), len(problems))


def _write(path: Path, out: Path, pool: Pool, scores: list[list[float]], verifier: str) -> None:
    """Write the same rows in the same order, with the scores; −∞ is null."""
    rows, settings = read_rows(path)
    left = {name: iter(row) for name, row in zip(pool.problem_ids, scores, strict=True)}
    column = [storable_score(next(left[problem_name(row["problem_id"])])) for row in rows]
    if out.suffix == ".jsonl":
        scored = [row | {"score": s} for row, s in zip(rows, column, strict=True)]
        data = "".join(json.dumps(row, default=_text) + "\n" for row in scored).encode()
    else:
        table = pq.read_table(path) if path.suffix == ".parquet" else _table(rows, path)
        values = pa.array(column, pa.float64())
        place = table.schema.get_field_index("score")
        table = table.append_column("score", values) if place < 0 else table.set_column(place, "score", values)
        about = json.dumps(settings | {"verifier": verifier})
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"bontune": about}), buffer, compression="zstd")
        data = buffer.getvalue()
    write_whole(out, data, "pool")


def _text(value: Any) -> str:
    """What JSON does not know, such as a date, as its text."""
    return cell_text(value) or str(value)


def _table(rows: list[Any], path: Path) -> pa.Table:
    """The rows of a JSONL file as a table with all their columns; pyarrow alone takes those of the first row."""
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return pa.table({name: [row.get(name) for row in rows] for name in names})
    except (pa.ArrowException, OverflowError) as error:
        raise BontuneError(
            f"{path} cannot be written as Parquet ({' '.join(str(error).split())[:200]}): give an --out that ends in "
            ".jsonl."
        ) from None
