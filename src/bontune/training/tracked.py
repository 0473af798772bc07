"""What trackers get beside numbers: samples that people can read, and the page of the finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("step", "problem", "prompt", "completion", "verdict")


def log_samples(accelerator: Any, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log the samples of an evaluation as a table.

    Args:
        accelerator: holds the trackers.
        step: of the evaluation.
        rows: see :mod:`bontune.training.shown_samples`.
    """
    table = [
        [step, row["problem"], row["prompt"], completion["text"], completion["verdict"]]
        for row in rows
        for completion in row["completions"]
    ]
    for tracker in accelerator.trackers:
        if tracker.name == "wandb":
            tracker.log_table("samples", columns=list(COLUMNS), data=table, step=step)
        elif tracker.name == "trackio":
            import trackio  # type: ignore[import-not-found, unused-ignore]

            tracker.log({"samples": trackio.Markdown(_as_markdown(table))}, step=step)
        elif tracker.name == "tensorboard":
            tracker.tracker.add_text("samples", _as_markdown(table), step)


def log_report(accelerator: Any, page: Path, step: int) -> None:
    """Log the page of a run where a tracker shows pages; TensorBoard gets the place of the file."""
    html = page.read_text(encoding="utf-8")
    for tracker in accelerator.trackers:
        if tracker.name == "wandb":
            import wandb  # type: ignore[import-not-found, import-untyped, unused-ignore]

            tracker.log({"report": wandb.Html(html, inject=False)}, step=step)
        elif tracker.name == "trackio":
            import trackio

            tracker.log({"report": trackio.Html(html)}, step=step)
        elif tracker.name == "tensorboard":
            tracker.tracker.add_text("report", f"The report is in {page}.", step)


def _as_markdown(table: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in table:
        cells = (str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
