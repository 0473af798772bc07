"""The figures of a suite: those of the paper, each a PNG with its numbers as CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bontune.experiments.figure_parts import Drawing, Figure
from bontune.experiments.figures_arms import draw_frontier, draw_gains, draw_refit, draw_temperature, draw_verifiers
from bontune.experiments.figures_curves import draw_curves, draw_harder, draw_n_prime
from bontune.experiments.figures_training import draw_draws, draw_training
from bontune.experiments.results import Results

__all__ = ["Figure", "write_figures"]

FIGURES: tuple[Callable[[Results], Drawing | None], ...] = (
    draw_curves,
    draw_frontier,
    draw_gains,
    draw_temperature,
    draw_n_prime,
    draw_harder,
    draw_verifiers,
    draw_refit,
    draw_draws,
    draw_training,
)
"""All figures, in the order of a page."""


def write_figures(results: Results, out: Path) -> list[Figure]:
    """Draw what can be drawn of what is measured.

    Args:
        results: of a suite; may be incomplete: a figure without all it needs is left out.
        out: folder of the files; made if it is not there.

    Returns:
        The figures that were written, in order.

    Raises:
        BontuneError: a file cannot be written, or a piece on disk is damaged or of other settings.
    """
    drawings = (draw(results) for draw in FIGURES)
    return [drawing.write(out) for drawing in drawings if drawing is not None]
