"""``bontune objectives``: the table of objectives, for people."""

from __future__ import annotations

import dataclasses
import inspect

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bontune.base.fields import field_docstrings
from bontune.config import ObjectiveSection
from bontune.objectives.table import ROWS


def list_objectives() -> None:
    """Print every objective with the sentence that says what it trains for."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for row in ROWS:
        table.add_row(row.name, Text(row.summary))
    Console(highlight=False).print(table)


def show_objective(name: str) -> None:
    """Print what an objective trains for, its source, its function's documentation, and its options.

    Raises:
        BontuneError: no objective has that name.
    """
    row = ObjectiveSection(name=name).row()
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(f"{row.name}: {row.summary}")
    console.print(f"Source: {row.source}")
    texts = field_docstrings(row.options)
    for field in dataclasses.fields(row.options):
        default = "null" if field.default is None else field.default
        console.print(f"  objective.{field.name}={default}  {texts[field.name]}")
    console.print()
    console.print(inspect.getdoc(row.function) or "")
