"""``bontune objectives``: the table of objectives, for people."""

from __future__ import annotations

import dataclasses
import inspect

from rich.console import Console

from bontune.base.text import field_docstrings, without_markup
from bontune.cli.recipes import print_names
from bontune.config import ObjectiveSection
from bontune.objectives.table import ROWS


def list_objectives() -> None:
    """Print every objective with the sentence that says what it trains for."""
    print_names({row.name: row.summary for row in ROWS})


def show_objective(name: str) -> None:
    """Print what an objective trains for, its source, its function's documentation, and its options.

    Raises:
        BontuneError: no objective has that name.
    """
    row = ObjectiveSection(name=name).row()
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(f"{row.name}: {row.summary}")
    console.print(f"Source: {row.source}")
    if row.takes_budgets:
        console.print("Takes one N, or several with weights: objective.n={1: 0.5, 16: 0.5}.")
    texts = field_docstrings(row.options)
    for field in dataclasses.fields(row.options):
        default = "null" if field.default is None else field.default
        console.print(f"  objective.{field.name}={default}  {without_markup(texts[field.name])}")
    console.print()
    console.print(without_markup(inspect.getdoc(row.function) or ""))
