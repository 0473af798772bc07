"""Tables: one :class:`Table` that becomes a table in the terminal, Markdown or HTML, and rows that become CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import rich.table
from rich import box
from rich.console import Group
from rich.text import Text

from bontune.report.numbers import Measured, Writer, ends_text

if TYPE_CHECKING:  # metrics load torch, and the command line tables without them
    from bontune.metrics import Interval

_LONGEST_WORD = 24
_STYLES = {"better": "green", "worse": "red", "": ""}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One entry of a table, where it is more than a text."""

    text: str
    """The number or words as written."""
    ends: str = ""
    """The interval of the number, in brackets; it is quieter than the number, and may go below it."""
    mark: str = ""
    """``better`` or ``worse``, which is green or red; empty: neither."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table with a header for each column, and for each row in the first column."""

    columns: Sequence[str]
    """Column headers, the one of the row headers first."""
    rows: Sequence[Sequence[Cell | str]]
    """The rows, each with an entry for every column."""
    title: str = ""
    """Title over the table in the terminal."""
    caption: str = ""
    """Says what the numbers are."""
    words: Collection[str] = ()
    """Columns that hold words, which begin at the left; numbers end at the right."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Row header → the colour that it has in the figures."""

    def cells(self) -> list[list[Cell]]:
        """The rows, with a text as a cell of its own."""
        return [[Cell(text=entry) if isinstance(entry, str) else entry for entry in row] for row in self.rows]

    def terminal(self) -> Group:
        """The table for the terminal; title and caption are as wide as the terminal, and no word is broken there."""
        table = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for place, name in enumerate(self.columns):
            texts = [name, *(f"{row[place].text} {row[place].ends}" for row in self.cells())]
            longest = max(len(word) for text in texts for word in text.split())
            justify: Any = "left" if name in self.words else "right"
            table.add_column(Text(name), justify=justify, min_width=min(longest, _LONGEST_WORD), overflow="fold")
        for row in self.cells():
            table.add_row(*(_terminal_text(cell) for cell in row))
        title, caption = Text(self.title, style="table.title"), Text(self.caption, style="table.caption")
        return Group(*([title] if self.title else []), table, *([caption] if self.caption else []))

    def markdown(self) -> list[str]:
        """The table as lines of Markdown."""
        rules = ["---" if name in self.words else "---:" for name in self.columns]
        rows = [[f"{cell.text} {cell.ends}".strip() for cell in row] for row in self.cells()]
        return [f"| {' | '.join(row)} |" for row in (self.columns, rules, *rows)]


def measured_cell(measured: Measured | None, write: Writer, between: str = ", ", missing: str = "–") -> Cell:
    """A number with its interval."""
    if measured is None:
        return Cell(text=missing)
    ends = ends_text(measured, write, between)
    return Cell(text=write(measured.value), ends=f"[{ends}]" if ends else "")


def interval_columns(interval: Interval, name: str = "") -> dict[str, float]:
    """The columns of a CSV of a number with its interval: ``value``, ``low``, ``high``, or those of a name.

    >>> from bontune.metrics import Interval
    >>> interval_columns(Interval(value=0.6, low=0.5, high=0.7), "gain")
    {'gain': 0.6, 'gain_low': 0.5, 'gain_high': 0.7}
    """
    value, start = (name, f"{name}_") if name else ("value", "")
    return {value: interval.value, f"{start}low": interval.low, f"{start}high": interval.high}


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV, the first row's keys as the header.

    Lists are joined by spaces, pairs in them by colons; what has no value (NaN, None) is empty.

    >>> as_csv([{"k": 1, "value": 0.5, "low": math.nan, "possible": [0.8, 1.0]}])
    'k,value,low,possible\\n1,0.5,,0.8 1\\n'
    """
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _csv_value(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _terminal_text(cell: Cell) -> Text:
    text = Text(cell.text, style=_STYLES[cell.mark])
    return text.append(f" {cell.ends}", style="dim") if cell.ends else text


def _csv_value(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(":".join(f"{part:g}" for part in x) if isinstance(x, list) else f"{x:g}" for x in value)
    return "" if isinstance(value, float) and math.isnan(value) else value
