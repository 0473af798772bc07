"""The chance level of a pool on disk: its answers graded against the references of its other problems."""

from __future__ import annotations

import dataclasses
from collections import Counter
from fractions import Fraction

from bontune.metrics import RewardScale, chance_parts, chance_parts_of_pairs
from bontune.metrics.evaluation import Evaluation
from bontune.objectives.inputs import FloatArray
from bontune.pools.pool import Pool
from bontune.tasks import answer_keys
from bontune.tasks.base import AnswerKeys
from bontune.tasks.ways import WayKeys

LEAST_AGREEMENT = 0.9
"""Share of the samples that are right, or have the reference's key, that must be both for the keys to be believed."""


def with_chance(evaluation: Evaluation, pool: Pool, scale: RewardScale) -> Evaluation:
    """Add ``chance@k`` and ``above@k``, pass@k minus chance@k, for every pass@k of an evaluation.

    A problem's value is its part in the pool's level (:func:`bontune.metrics.chance_parts`), so that means, intervals
    over problems and paired differences are those of the level.

    Args:
        evaluation: of the pool.
        pool: with answers, references, and the task that it was drawn on.
        scale: by which the evaluation was made.

    Returns:
        The evaluation with these metrics, or with the reason why there are none; as it was if it has no pass@k.
    """
    ks = [int(name.removeprefix("pass@")) for name in evaluation.values if name.startswith("pass@")]
    if not ks or scale.solved_at is None:
        return evaluation
    keys = _keys(pool)
    if isinstance(keys, str):
        parts: dict[int, FloatArray] | str = keys
    else:
        parts = _of_ways(pool, keys, scale, ks) if isinstance(keys, WayKeys) else _of_answers(pool, keys, scale, ks)
    if isinstance(parts, str):
        return dataclasses.replace(evaluation, why_no_chance=parts)
    values = {name: v for name, v in evaluation.values.items() if name.startswith("pass@")}
    values |= {f"chance@{k}": parts[k] for k in ks}
    values |= {f"above@{k}": evaluation.values[f"pass@{k}"] - parts[k] for k in ks}
    return dataclasses.replace(evaluation, values=values | evaluation.values)


def needs_texts(pool: Pool) -> bool:
    """Whether the chance level of a pool depends on prompts and completions, and not on answers alone."""
    return isinstance(_keys(pool), WayKeys)


def _keys(pool: Pool) -> AnswerKeys | WayKeys | str:
    """How the pool's task compares, or why it has no chance level."""
    task = pool.settings.get("task")
    if task is None:
        return "the pool does not say which task graded it"
    keys = answer_keys(str(task), pool.settings.get("task_options") or {})
    if keys is None:
        return f"the grader of the task {task} is not known to compare answers with references"
    if len(pool.problem_ids) < 2:
        return "there is one problem only"
    return keys


def _of_answers(pool: Pool, keys: AnswerKeys, scale: RewardScale, ks: list[int]) -> dict[int, FloatArray] | str:
    """Return each problem's part in the level where references accept answers, or why there is none."""
    if not {"answer", "reference"} <= pool.columns.keys():
        return "the pool holds no answers or no references"
    of_answer = {answer: keys.answer(answer) for row in pool.columns["answer"] for answer in row if answer is not None}
    answers = [[None if answer is None else of_answer[answer] for answer in row] for row in pool.columns["answer"]]
    firsts = [row[0] for row in pool.columns["reference"]]
    references = [None if reference is None else keys.reference(reference) for reference in firsts]
    accepted = [
        [answer is not None and answer == reference for answer in row]
        for row, reference in zip(answers, references, strict=True)
    ]
    if not _is_graded_so(accepted, pool, scale):
        return "the rewards do not follow from answers and references"
    return chance_parts(answers, references, ks)


def _of_ways(pool: Pool, keys: WayKeys, scale: RewardScale, ks: list[int]) -> dict[int, FloatArray] | str:
    """Return the same where problems accept chains of equations whose operands they supply."""
    if not {"prompt", "completion", "reference"} <= pool.columns.keys():
        return "the pool holds no prompts, completions or references"
    supplied = [keys.numbers(row[0] or "") for row in pool.columns["prompt"]]
    with_answer: dict[Fraction, list[int]] = {}
    for index, row in enumerate(pool.columns["reference"]):
        if row[0] is not None and (answer := keys.answer(row[0])) is not None:
            with_answer.setdefault(answer, []).append(index)
    ways = {text: keys.way(text) for row in pool.columns["completion"] for text in row if text is not None}
    accepted: Counter[tuple[int, int]] = Counter()
    own = []
    for owner, texts in enumerate(pool.columns["completion"]):
        accepting = {
            text: {other for other in with_answer.get(way.result, ()) if way.operands <= supplied[other]}
            for text in set(texts)
            if text is not None and (way := ways[text]) is not None
        }
        own.append([owner in accepting.get(text, ()) for text in texts])
        accepted.update((owner, other) for text in texts for other in accepting.get(text, ()) if other != owner)
    if not _is_graded_so(own, pool, scale):
        return "the rewards do not follow from completions, prompts and references"
    owners, others = [owner for owner, _ in accepted], [other for _, other in accepted]
    sizes = [len(texts) for texts in pool.columns["completion"]]
    return chance_parts_of_pairs(owners, others, list(accepted.values()), sizes, ks)


def _is_graded_so(accepted_PM: list[list[bool]], pool: Pool, scale: RewardScale) -> bool:
    """Whether what the keys accept for the pool's own problems is what its rewards call solved."""
    assert scale.solved_at is not None
    both = either = 0
    for row, rewards in zip(accepted_PM, pool.columns["reward"], strict=True):
        for is_accepted, reward in zip(row, rewards, strict=True):
            is_solved = reward is not None and reward >= scale.solved_at  # NaN is not
            both, either = both + (is_accepted and is_solved), either + (is_accepted or is_solved)
    return both >= LEAST_AGREEMENT * either
