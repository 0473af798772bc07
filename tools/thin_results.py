"""Leave in a finished suite's pieces what its tables, figures and claims are made from; a repository holds those.

    python tools/thin_results.py results/countdown countdown

Every metric stays where all are reported: on the test problems at T = 1. At other temperatures and on validation
problems pass@1 stays with the metrics that temperatures are chosen by, and of a run's own evaluations the suite's
metric. ``bontune reproduce SUITE --report-only`` writes the same tables, figures and claims before and after.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bontune.experiments.store import TRIAL, Pieces
from bontune.experiments.suite import Suite, load_suite
from bontune.metrics.evaluation import Evaluation

UNREPORTED = ("level", "auc")


def thin(pieces: Pieces, suite: Suite) -> None:
    """Drop from every piece what nothing is made from, and pack them again."""
    for name in sorted(pieces.names()):
        if name.endswith(TRIAL):
            trial = dict(pieces.trial(name) or {})
            shown = ("step", suite.metric)
            trial["history"] = [{key: row[key] for key in shown if key in row} for row in trial["history"]]
            pieces.write_trial(name, trial)
        elif (piece := pieces.measurement(name)) is not None:
            is_reported = "/validation-" not in name and piece.settings["temperature"] == 1.0
            values = {
                metric: v
                for metric, v in piece.evaluation.values.items()
                if (
                    metric.rpartition(":")[2] not in UNREPORTED
                    if is_reported
                    else metric in ("pass@1", *suite.own_metrics())
                )
            }
            evaluation = Evaluation(problem_ids=piece.evaluation.problem_ids, values=values)
            pieces.write_measurement(name, piece._replace(evaluation=evaluation))
    pieces.pack()


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 2 or not (Path(arguments[0]) / "pieces.jsonl").is_file():
        sys.exit("usage: python tools/thin_results.py FOLDER SUITE, where FOLDER holds the results of a finished suite")
    thin(Pieces(Path(arguments[0])), load_suite(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
