"""What the page of a pool lets a reader browse: an index of the problems, and each problem's samples, packed.

The index is small and is read at once. The samples of a problem are packed alone (gzip, base64), so that a browser
unpacks only those that a reader opens. Completions that are the same are stored once, with their number.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from markupsafe import Markup

import bontune.metrics as metrics
from bontune.base.errors import BontuneError
from bontune.metrics import Interval
from bontune.metrics.evaluation import Evaluation, evaluate_pool, share_families
from bontune.pools import compare
from bontune.pools.chance import with_chance
from bontune.pools.compare import Difference
from bontune.pools.pool import Pool
from bontune.report.numbers import (
    decimals,
    family_unit,
    interval_text,
    metric_writer,
    points,
    split_metric,
    typographic,
    unit_of,
)
from bontune.report.sentences import TABLE_KS, has_chance
from bontune.report.tables import Cell, Table, interval_columns, measured_cell

MAX_PACKED_BYTES = 11_000_000
"""Most bytes that all pools of a page may take together; longer texts are cut until they fit."""
CUTS = (None, 50_000, 20_000, 10_000, 5_000, 3_000, 2_000, 1_400, 1_000, 700, 500, 300, 150, 80)
"""Characters that a text may keep, tried in turn; the last is taken in any case."""
HEAD = 160
"""Characters that the index shows of a prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Browsable:
    """One pool as the page holds it."""

    index: dict[str, Any]
    """Columns of P values each, and what is true of the whole pool; see :func:`problem_index`."""
    packed: list[str]
    """The samples of each problem, base64 of gzip of JSON."""
    cut: int | None
    """Characters that texts were cut to; None if they are whole."""


def browsable(
    name: str, pool: Pool, max_bytes: int = MAX_PACKED_BYTES, scale: metrics.RewardScale | None = None
) -> Browsable:
    """Pack a pool for the page.

    Args:
        name: what the page calls it.
        pool: any.
        max_bytes: what its samples may take.
        scale: of the rewards of all pools of the page; None: of this one alone.
    """
    packed, cut = pack(problem_details(pool), max_bytes)
    return Browsable(index={"name": name, "cut": cut, **problem_index(pool, scale)}, packed=packed, cut=cut)


def pack(details: Sequence[dict[str, Any]], max_bytes: int) -> tuple[list[str], int | None]:
    """Each problem's samples packed, with texts whole if that takes at most ``max_bytes``, else cut.

    Returns:
        What was packed, and what texts were cut to.
    """
    packed: list[str] = []
    for cut in CUTS:
        packed, size = [], 0
        for detail in details:
            packed.append(_packed(detail if cut is None else _shortened(detail, cut)))
            size += len(packed[-1])
            if size > max_bytes and cut != CUTS[-1]:
                break
        else:
            return packed, cut
    raise AssertionError("the last cut is taken in any case")


def problem_index(pool: Pool, scale: metrics.RewardScale | None = None) -> dict[str, Any]:
    """List what problems can be sorted and filtered by, a column each.

    ``right``: mean reward; ``most``: highest; ``pick``: what the verifier's choice among all samples earns, the mean
    over ties (null without a verifier that errs); ``vote``: the same of the most frequent answer; ``errors``:
    completions that could not be graded; ``distinct``: different completions.
    """
    scale = metrics.reward_scale([pool.columns["reward"]]) if scale is None else scale
    rewards = np.array(pool.rewards(scale))
    num_samples = rewards.shape[1]
    scores, answers, levels = pool.scores(), pool.answers(), pool.levels()
    heads = [_text(pool.asked(place)) for place in range(len(rewards))]
    texts = pool.columns.get("completion")
    return {
        "samples": num_samples,
        "binary": scale.is_binary,
        "id": pool.problem_ids,
        "level": None if all(level is None for level in levels) else [_scalar(level) for level in levels],
        "head": [_ending(head) for head in heads],
        "right": rewards.mean(1).tolist(),
        "most": rewards.max(1).tolist(),
        "distinct": None if texts is None else [len({_text(text) for text in row}) for row in texts],
        "pick": None if scores is None else _picked(rewards, np.array(scores)),
        "vote": None if answers is None else _voted(rewards, answers),
        "errors": [sum(r is None or math.isnan(r) for r in row) for row in pool.columns["reward"]],
    }


def problem_details(pool: Pool) -> list[dict[str, Any]]:
    """List prompt, reference and samples of each problem; samples that are alike are one, with their number.

    A sample is [completion, number, reward, verdict, answer, highest score, lowest score, reason, stop reason, tokens].
    The ones that the verifier likes best come first; without a verifier, the most frequent.
    """
    columns = pool.columns
    num_samples = len(columns["reward"][0])
    nothing = [None] * num_samples
    scores = pool.scores()
    details = []
    for place in range(len(pool.problem_ids)):
        named = {
            name: columns[name][place] if name in columns else nothing
            for name in ("completion", "reward", "verdict", "answer", "reason", "stop_reason", "num_tokens")
        }
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for sample in range(num_samples):
            reward = named["reward"][sample]
            values = {name: _text(column[sample]) for name, column in named.items() if name != "reward"}
            reward = None if reward is None or math.isnan(reward) else float(reward)
            score = None if scores is None else scores[place][sample]
            key = (reward, *values.values())
            group = groups.setdefault(
                key,
                [
                    values["completion"],
                    0,
                    reward,
                    values["verdict"],
                    values["answer"],
                    score,
                    score,
                    values["reason"],
                    values["stop_reason"],
                    values["num_tokens"],
                ],
            )
            group[1] += 1
            if score is not None:
                group[5], group[6] = max(group[5], score), min(group[6], score)
        ordered = sorted(groups.values(), key=lambda group: (-math.inf if group[5] is None else -group[5], -group[1]))
        for group in ordered:  # JSON has no infinity
            group[5], group[6] = _stated(group[5]), _stated(group[6])
        reference = _text(columns["reference"][place][0]) if "reference" in columns else ""
        details.append({"prompt": _text(pool.asked(place)), "reference": reference, "samples": ordered})
    return details


def as_json_element(value: object) -> Markup:
    """JSON that is safe inside ``<script type="application/json">``: no ``<`` is left to end or open anything.

    >>> str(as_json_element("</script>"))
    '"\\\\u003c/script>"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _packed(detail: dict[str, Any]) -> str:
    text = json.dumps(detail, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), compresslevel=6, mtime=0)).decode("ascii")


def _shortened(detail: dict[str, Any], cut: int) -> dict[str, Any]:
    """With every text cut to so many characters, and a note of how many are left out."""

    def short(value: Any) -> Any:
        if not isinstance(value, str) or len(value) <= cut:
            return value
        return f"{value[:cut]}… ({len(value) - cut:,} more characters are in the pool)"

    samples = [[short(value) for value in sample] for sample in detail["samples"]]
    return {"prompt": short(detail["prompt"]), "reference": short(detail["reference"]), "samples": samples}


def _picked(rewards: np.ndarray, scores: np.ndarray) -> list[float] | None:
    """None where the scores are the rewards: an oracle's choice is right wherever one can be."""
    if np.array_equal(np.where(np.isneginf(scores), rewards, scores), rewards):
        return None
    picked: list[float] = metrics.best_of_k(rewards, scores, rewards.shape[1]).tolist()
    return picked


def _voted(rewards: np.ndarray, answers: list[list[Any]]) -> list[float]:
    voted: list[float] = metrics.majority_at_k(answers, rewards, rewards.shape[1]).tolist()
    return voted


def _ending(text: str) -> str:
    """The end of a prompt, where the question is (few-shot prompts begin alike)."""
    line = " ".join(text.split())
    return line if len(line) <= HEAD else f"…{line[-HEAD:]}"


def _text(value: object) -> str:
    """Any value of a pool as text; empty if there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _scalar(value: object) -> int | float | str | None:
    if value is None or isinstance(value, (int, str)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def _stated(score: float | None) -> float | str | None:
    """A score as JSON can hold it."""
    return score if score is None or math.isfinite(score) else "−∞" if score < 0 else "∞"


Row: TypeAlias = dict[str, Any]

FAMILIES = ("pass", "max", "best", "majority", "weighted")
"""Families of metrics that say what selection yields, in the order of figures and tables."""
FAMILY_LABELS = {
    "pass": "some sample is right",
    "max": "the highest reward of k",
    "best": "the verifier's choice",
    "majority": "the most frequent answer",
    "weighted": "the vote weighted by the verifier",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedPool:
    """One pool with its metrics."""

    name: str
    """Name of the pool on the page."""
    pool: Pool
    """The pool: completions with rewards and scores."""
    evaluation: Evaluation
    """Every metric of every problem."""
    intervals: Mapping[str, Interval]
    """Metric → mean with its interval."""

    @property
    def num_samples(self) -> int:
        """Samples per problem, M."""
        return len(self.pool.columns["reward"][0])

    @property
    def families(self) -> list[str]:
        """The families that say something: best@k only under a verifier that errs."""
        present = {split_metric(metric)[0] for metric in self.intervals}
        if "gap" not in present:
            present -= {"best", "weighted"}
        return [family for family in FAMILIES if family in present]

    @property
    def ks(self) -> list[int]:
        """The budgets k, ascending."""
        return sorted({k for metric in self.intervals if (k := split_metric(metric)[1]) is not None})

    @property
    def base(self) -> str:
        """``pass``, or ``max`` where nothing says which rewards count as solved."""
        return "pass" if "pass" in self.families else "max"

    def points(self, family: str) -> dict[int, Interval]:
        """k → the metric of a family."""
        return {k: self.intervals[f"{family}@{k}"] for k in self.ks if f"{family}@{k}" in self.intervals}

    def is_share(self, family: str) -> bool:
        """Check whether a family of metrics is a share of problems, which is written in percent."""
        return family in share_families(self.intervals)

    def cell(self, family: str, interval: Interval) -> Cell:
        """A value of a family as an entry of a table."""
        is_share = self.is_share(family)
        if family == "above":
            return measured_cell(interval, lambda value: typographic(points(value)), " to ")
        return measured_cell(interval, metric_writer(is_share), "–" if is_share else " to ")


def pool_evaluation(
    name: str, pool: Pool, ks: Sequence[int] | None = None, scale: metrics.RewardScale | None = None
) -> EvaluatedPool:
    """Evaluate a pool; budgets are powers of two by default.

    Args:
        name: what the page calls it.
        pool: any.
        ks: budgets.
        scale: of all pools of the page; None: of this one alone.

    Raises:
        BontuneError: a k beyond the samples, or what cannot be evaluated (such as answers that cannot be compared).
    """
    scale = metrics.reward_scale([pool.columns["reward"]]) if scale is None else scale
    num_samples = len(pool.columns["reward"][0])
    budgets = metrics.default_ks(num_samples) if ks is None else sorted(set(ks))
    if max(budgets) > num_samples:
        raise BontuneError(f"k = {max(budgets)} is more than the {num_samples} samples per problem of {name}.")
    try:
        evaluation = evaluate_pool(
            pool.problem_ids,
            pool.columns["reward"],
            budgets,
            scores_PM=pool.scores(),
            answers_PM=pool.answers(),
            is_full=True,
            scale=scale,
        )
    except ValueError as error:
        raise BontuneError(f"{name} cannot be evaluated: {error}") from None
    evaluation = with_chance(evaluation, pool, scale)
    return EvaluatedPool(name=name, pool=pool, evaluation=evaluation, intervals=evaluation.intervals())


def number_table(measured: EvaluatedPool) -> Table:
    """k down, metrics across."""
    families = [*measured.families, *(f for f in ("all", "gap", "drop") if measured.points(f))]
    if has_chance(measured.intervals):
        families[1:1] = ["chance", "above"]
    points = {family: measured.points(family) for family in families}
    rest = [interval_text(i, decimals(2), "–") for m, i in measured.intervals.items() if "@" not in m]
    names = [m for m in measured.intervals if "@" not in m]
    caption = f"{measured.name}: with 95 % intervals." if measured.name else "With 95 % intervals."
    if rest:
        listed = ", ".join(f"{name} {text}" for name, text in zip(names, rest, strict=True))
        caption += f" Over all samples of a problem: {listed}."
    return Table(
        caption=caption,
        columns=["k", *(f"{family}@k, {family_unit(family, measured.is_share(family))}" for family in families)],
        rows=[[str(k), *(measured.cell(family, points[family][k]) for family in families)] for k in measured.ks],
    )


def level_rows(measured: EvaluatedPool) -> list[Row]:
    """The metrics of selection by the task's level; empty without levels."""
    levels = measured.pool.levels()
    distinct = {level for level in levels if level is not None}
    if len(distinct) < 2:
        return []
    first, last = measured.ks[0], measured.ks[-1]
    chosen = [f"{measured.base}@{first}", *(f"{family}@{last}" for family in measured.families if last > first)]
    rows = []
    for level in sorted(distinct, key=lambda level: (isinstance(level, str), level)):
        members = np.array([value == level for value in levels])
        for metric in chosen:
            interval = metrics.bootstrap_interval(measured.evaluation.values[metric][members])
            rows.append(
                {
                    "pool": measured.name,
                    "level": level,
                    "problems": int(members.sum()),
                    "metric": metric,
                    **interval_columns(interval),
                }
            )
    return rows


def level_table(measured: EvaluatedPool) -> Table | None:
    """The metrics of :func:`level_rows` as a table; None without levels."""
    by_level: dict[Any, list[Cell | str]] = {}
    columns: dict[str, None] = {}
    for row in level_rows(measured):
        family = split_metric(row["metric"])[0]
        columns[f"{row['metric']}, {unit_of(measured.is_share(family))}"] = None
        cells = by_level.setdefault(row["level"], [str(row["level"]), str(row["problems"])])
        interval = Interval(value=row["value"], low=row["low"], high=row["high"])
        cells.append(measured.cell(family, interval))
    if not by_level:
        return None
    caption = f"{measured.name}: by the task's level of difficulty, with 95 % intervals."
    return Table(caption=caption, columns=["Level", "Problems", *columns], rows=list(by_level.values()))


def shown_families(measured: Sequence[EvaluatedPool]) -> list[str]:
    """Families that say something of one pool at least: beside a verifier that errs, an oracle's best@k does."""
    return [family for family in FAMILIES if any(family in one.families for one in measured)]


def main_family(measured: Sequence[EvaluatedPool]) -> str:
    """Choose the family to compare first: best@k if all have a verifier and one of them errs, else pass@k or max@k."""
    has_best = "best" in shown_families(measured) and all(one.points("best") for one in measured)
    return "best" if has_best else measured[0].base


def are_of_same_problems(pools: Sequence[EvaluatedPool]) -> bool:
    """Check whether the pools hold the same problems, so that paired differences exist."""
    return all(set(other.evaluation.problem_ids) == set(pools[0].evaluation.problem_ids) for other in pools[1:])


def pool_differences(pools: Sequence[EvaluatedPool]) -> list[Difference]:
    """Each pool against the first, paired by problem, in every metric of selection that both have."""
    metrics = [f"{family}@{k}" for family in shown_families(pools) for k in pools[0].points(family)]
    return compare.differences({pool.name: pool.evaluation for pool in pools}, metrics)


def shown_differences(differences: Sequence[Difference]) -> list[Difference]:
    """Choose the differences that are worth a row: at the budgets of tables, and at the largest."""
    largest = max((split_metric(d.metric)[1] or 0 for d in differences), default=0)
    return [d for d in differences if split_metric(d.metric)[1] in {*TABLE_KS, largest}]


def curve_rows(pools: Sequence[EvaluatedPool]) -> list[Row]:
    """List every metric of every pool as rows of a CSV file."""
    rows = []
    for measured in pools:
        for metric, interval in measured.intervals.items():
            family, k = split_metric(metric)
            rows.append({"pool": measured.name, "metric": family, "k": k, **interval_columns(interval)})
    return rows


def pool_difference_rows(differences: Sequence[Difference]) -> list[Row]:
    """List differences as rows of a CSV file."""
    return [
        {
            "pool": entry.a,
            "minus": entry.b,
            "metric": entry.metric,
            "diff": entry.value,
            "low": math.nan if entry.low is None else entry.low,
            "high": math.nan if entry.high is None else entry.high,
        }
        for entry in differences
    ]


def problem_sheet(pools: Sequence[EvaluatedPool]) -> Iterator[Row]:
    """A row for each problem of each pool, for CSV: every metric, empty where a pool does not have it.

    The chance level is left out: it is that of a pool, and has parts of problems only.
    """
    every = dict.fromkeys(metric for measured in pools for metric in measured.evaluation.values)
    names = [metric for metric in every if split_metric(metric)[0] not in ("chance", "above")]
    for measured in pools:
        levels = measured.pool.levels()
        values = measured.evaluation.values
        for place, problem in enumerate(measured.evaluation.problem_ids):
            yield {
                "pool": measured.name,
                "problem_id": problem,
                "level": levels[place],
                "samples": measured.num_samples,
                **{name: float(values[name][place]) if name in values else math.nan for name in names},
            }
