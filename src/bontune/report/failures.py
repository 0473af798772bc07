"""Why the samples of a pool are wrong: how many were cut off or hold no answer, and the grader's commonest reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bontune.engines.contract import StopReason
from bontune.grading.verdict import Verdict
from bontune.pools.pool import Pool
from bontune.report.numbers import capitalized, percent
from bontune.report.tables import Table

MOST_REASONS = 8
"""Rows of the table of reasons; what is rarer is one row more."""
LONGEST_REASON = 100
"""Characters of a reason that are shown."""
FEWEST = 0.01
"""Share of the samples below which a reason is too rare for a row."""

_DETAIL = re.compile(r"'[^']*'|\"[^\"]*\"|\S*\d\S*")


def endings_note(pool: Pool) -> str:
    """Say which share of the samples was cut off, and in which no answer was found; empty where neither is known.

    A pool without any answer says nothing of answers: its grader may give none.
    """
    parts = []
    stops = _values(pool.columns.get("stop_reason"))
    if stops and (cut := stops.count(StopReason.LENGTH.value)):
        limit = pool.settings.get("max_new_tokens")
        at = f" at {limit} tokens" if isinstance(limit, int) else " at the limit of tokens"
        parts.append(f"{percent(cut / len(stops), 0)} % of the samples were cut off{at}")
    answers = _values(pool.answers())
    missing = sum(answer is None for answer in answers)
    if missing:
        of = "" if parts else " of the samples"
        parts.append(f"in {percent(missing / len(answers), 0)} %{of} the grader found no answer")
    return f"{capitalized(', and '.join(parts))}." if parts else ""


def reason_table(name: str, pool: Pool) -> Table | None:
    """Count the reasons for which samples did not pass, the commonest first; None where there are no reasons.

    Reasons that differ only in numbers, in quoted texts and in what follows a colon are one.
    """
    columns = pool.columns
    if "reason" not in columns or "verdict" not in columns:
        return None
    verdicts, reasons = _values(columns["verdict"]), _values(columns["reason"])
    found = Counter(
        _general(reason)
        for verdict, reason in zip(verdicts, reasons, strict=True)
        if verdict != Verdict.PASSED.value and isinstance(reason, str) and reason
    )
    shown = [(reason, n) for reason, n in found.most_common(MOST_REASONS) if n >= FEWEST * len(reasons)]
    if not shown:
        return None
    rest = found.total() - sum(n for _, n in shown)
    rows = [*shown, *([("other reasons", rest)] if rest else [])]
    return Table(
        caption=f"{name}: why samples did not pass; shares are of all {len(reasons):,}.",
        columns=["Reason", "Samples, %"],
        rows=[[reason, percent(n / len(reasons))] for reason, n in rows],
    )


def _values(column: list[list[Any]] | None) -> list[Any]:
    def each() -> Iterator[Any]:
        for row in column or ():
            yield from row

    return list(each())


def _general(reason: str) -> str:
    """A reason without what differs from sample to sample."""
    text = " ".join(_DETAIL.sub("…", reason.partition(": ")[0]).split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
