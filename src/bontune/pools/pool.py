"""Sample pools on disk: one row per completion, Parquet or JSONL, for pandas and for ``bontune eval``.

A pool is collected into ``POOL.partial.jsonl`` (one line per problem, appended and fsynced; before it, one per answer
of a server) and becomes ``POOL`` in one rename when it is complete, so a killed collection continues where it was and
a finished pool is never half there. ``POOL.lock`` keeps a second process out.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.files import sync, sync_folder
from bontune.base.problems import Problem
from bontune.engines.contract import Completion, StopReason
from bontune.grading.verdict import Grade, Verdict
from bontune.pools.collect import Graded
from bontune.pools.journal import Journal

if TYPE_CHECKING:
    from bontune.metrics import RewardScale

COLUMNS = (
    "problem_id",
    "sample",
    "prompt",
    "reference",
    "level",
    "completion",
    "answer",
    "reward",
    "score",
    "verdict",
    "reason",
    "logprob",
    "num_tokens",
    "stop_reason",
    "messages",
)
"""Of a pool, in order. ``reward`` is null where the grader failed; ``score``, the verifier's, is null for −∞ (last).
``messages``: the problem as a conversation, JSON, null where it has none."""
SUFFIXES = (".parquet", ".jsonl")
RENDERED = "the prompts as the model's chat template writes them (it may hold the day's date)"
"""Name of a hash in the settings of a pool that a model in this process drew from conversations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A pool in memory: P problems × M samples, as lists of lists."""

    problem_ids: list[str]
    """Ids of the P problems."""
    columns: dict[str, list[list[Any]]]
    """Column → P × M values."""
    settings: dict[str, Any]
    """Settings that the pool was drawn with (empty for pools of other origin)."""

    def rewards(self, scale: RewardScale | None = None) -> list[list[float]]:
        """P × M rewards; what could not be graded counts as the lowest of them, 0 at most, and never as correct.

        Args:
            scale: of all pools that are compared; None: of this one alone.
        """
        from bontune.metrics import reward_scale  # with torch, which names and shapes of pools can do without

        scale = reward_scale([self.columns["reward"]]) if scale is None else scale
        return scale.filled(self.columns["reward"])

    def scores(self) -> list[list[float]] | None:
        """P × M scores of the verifier, None without; a completion that has none comes last."""
        if "score" not in self.columns:
            return None
        return [[-math.inf if s is None or math.isnan(s) else float(s) for s in row] for row in self.columns["score"]]

    def answers(self) -> list[list[Any]] | None:
        """P × M answers, None where a completion gives none; None if no completion gives one."""
        rows = [[None if _is_gap(answer) else answer for answer in row] for row in self.columns.get("answer", [])]
        return rows if any(answer is not None for row in rows for answer in row) else None

    def levels(self) -> list[int | float | str | None]:
        """The difficulty of each problem, as its first sample has it; None where there is none."""
        rows = self.columns.get("level", [[None]] * len(self.problem_ids))
        return [
            None if _is_gap(level) else level if isinstance(level, (int, float, str)) else str(level)
            for level, *_ in rows
        ]

    def asked(self, place: int) -> str | None:
        """What the model was asked: the problem's text, or its conversation where that is known to have been sent.

        Args:
            place: of the problem.

        Returns:
            A text; of several turns each with its role. None if the pool does not say.
        """
        turns = self.columns["messages"][place][0] if "messages" in self.columns else None
        if isinstance(turns, str) and RENDERED in self.settings.get("contents", {}):
            said = json.loads(turns)
            texts = [turn["content"] if len(said) == 1 else f"{turn['role']}: {turn['content']}" for turn in said]
            return "\n\n".join(texts)
        return self.columns["prompt"][place][0] if "prompt" in self.columns else None

    @property
    def num_grader_errors(self) -> int:
        """Completions that could not be graded."""
        return len(self._grader_errors())

    def ungraded(self, name: object) -> str | None:
        """Say how many completions could not be graded, and why the first of them; None if all could.

        Args:
            name: what the pool is called in the sentence.

        Raises:
            BontuneError: none could, so that every number about the pool would be an empty 0.
        """
        reasons = self._grader_errors()
        if not reasons:
            return None
        why = f" ({reasons[0]})" if reasons[0] else ""
        if len(reasons) == sum(map(len, self.columns["reward"])):
            raise BontuneError(f"{name}: not one of {len(reasons)} completions could be graded{why}; mend the grader.")
        counted = "1 completion" if len(reasons) == 1 else f"{len(reasons)} completions"
        return f"{name}: {counted} could not be graded{why}; what cannot be graded counts as wrong"

    def _grader_errors(self) -> list[str]:
        """Why each completion without a reward has none; empty texts if the pool does not say."""
        rewards = self.columns["reward"]
        reasons = self.columns.get("reason") or [[None] * len(row) for row in rewards]
        return [
            reason if isinstance(reason, str) else ""
            for row, whys in zip(rewards, reasons, strict=True)
            for reward, reason in zip(row, whys, strict=True)
            if reward is None or math.isnan(reward)
        ]


def _is_gap(value: Any) -> bool:
    """Whether an optional column holds nothing here: null, or NaN, as pandas writes it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


Rows = list[dict[str, Any]]
"""The M rows of one problem."""


def rows_of(graded: Graded) -> list[Rows]:
    """The pool rows of graded samples, P lists of M."""
    completions = graded.samples.completions()
    return [
        problem_rows(problem, drawn, grades, scores)
        for problem, drawn, grades, scores in zip(
            graded.problems, completions, graded.grades, graded.scores, strict=True
        )
    ]


def problem_rows(
    problem: Problem, completions: Sequence[Completion], grades: Sequence[Grade], scores: Sequence[float]
) -> Rows:
    """The pool rows of one problem's M completions."""
    messages = json.dumps([dict(turn) for turn in problem.messages], ensure_ascii=False) if problem.messages else None
    return [
        {
            "problem_id": problem.id,
            "sample": i,
            "prompt": problem.prompt,
            "reference": problem.reference,
            "level": problem.level,
            "completion": completion.text,
            "answer": grade.answer,
            "reward": None if math.isnan(grade.reward) else grade.reward,
            "score": storable_score(score),
            "verdict": grade.verdict.value,
            "reason": grade.reason,
            "logprob": completion.logprob,
            "num_tokens": completion.num_tokens,
            "stop_reason": completion.stop.value,
            "messages": messages,
        }
        for i, (completion, grade, score) in enumerate(zip(completions, grades, scores, strict=True))
    ]


def storable_score(score: float) -> float | None:
    """A score as JSON can hold it, in the same order: null for −∞, the largest float for +∞."""
    return None if score == -math.inf else min(score, sys.float_info.max)


class PoolWriter:
    """Collects problems one by one, restartable; one process at a time."""

    def __init__(self, path: Path, settings: Mapping[str, Any], notes: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            path: ends in .parquet or .jsonl.
            settings: how the pool is drawn; a partial pool drawn otherwise is not continued.
            notes: more to remember, which may change between start and continuation, such as a server's address.

        Raises:
            BontuneError: another ending, the pool is already there or cannot be written, another process collects it,
                or a partial pool has other settings.
        """
        self.check_free(path)
        self.path = path
        self.settings = dict(settings)
        self.notes = dict(notes or {})
        self.partial = path.with_name(path.name + ".partial.jsonl")
        self.done: set[str] = set()
        self.drawn: dict[str, dict[int, Completion]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BontuneError(f"The folder {path.parent} cannot be made: {error.strerror}.") from None
        if not os.access(path.parent, os.W_OK):
            raise BontuneError(f"The folder {path.parent} may not be written to: give another --out.")
        self._journal = Journal(self.partial, self.settings, self.notes)
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def check_free(path: Path) -> None:
        """Whether a pool can be written there.

        Raises:
            BontuneError: another ending, or it is already there.
        """
        if path.suffix not in SUFFIXES:
            raise BontuneError(f"A pool ends in .parquet or .jsonl, got {path.name!r}.")
        if path.exists():
            raise BontuneError(f"{path} is already there: delete it or give another name.")

    def __enter__(self) -> PoolWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recover(self) -> None:
        """Problems that are already there, and completions of others."""
        if self.path.exists():  # finished by another process between our first look and the lock
            raise BontuneError(f"{self.path} is already there: delete it or give another name.")
        for number, entry in enumerate(self._journal.entries(), start=2):
            try:
                if "rows" in entry:
                    name = entry["rows"][0]["problem_id"]
                    self.done.add(name)
                    self.drawn.pop(name, None)
                elif entry["problem_id"] not in self.done:
                    known = self.drawn.setdefault(entry["problem_id"], {})
                    for sample in entry["samples"]:
                        known.setdefault(sample.pop("sample"), _completion(sample))
            except (KeyError, IndexError, TypeError, ValueError, AttributeError):
                raise BontuneError(f"{self.partial} is damaged at line {number}: delete it to start anew.") from None

    def keep(self, problem_id: str, completions: Mapping[int, Completion]) -> None:
        """Append completions of a problem that is not complete yet, by sample; on disk when this returns.

        Any thread may call it.

        Raises:
            RunStopped: they cannot be written; what was there stays.
        """
        samples = [{"sample": i, **dataclasses.asdict(completion)} for i, completion in completions.items()]
        self._journal.append({"problem_id": problem_id, "samples": samples})

    def add(self, problem_rows: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        """Append problems, each with all its samples, unless they are there already; on disk when this returns.

        Raises:
            RunStopped: it cannot be written; what was there stays.
        """
        for rows in problem_rows:
            if rows[0]["problem_id"] not in self.done:
                self._journal.append({"rows": list(rows)})
                self.done.add(rows[0]["problem_id"])

    def finish(self, order: Iterable[str]) -> list[str]:
        """Write the whole pool in the given order of problems and remove the partial one.

        Returns:
            Why each completion that could not be graded was not.

        Raises:
            RunStopped: it cannot be written; the partial one stays.
        """
        entries: dict[str, Rows] = {}
        for entry in self._journal.entries():
            if "rows" in entry:
                entries.setdefault(entry["rows"][0]["problem_id"], entry["rows"])
        rows = [row for name in order for row in entries[name]]
        temporary = self.path.with_name(f".tmp-{self.path.name}")
        try:
            if self.path.suffix == ".parquet":
                _write_parquet(temporary, rows, self.settings | self.notes)
            else:
                with open(temporary, "w", encoding="utf-8") as out:
                    out.writelines(json.dumps(row) + "\n" for row in rows)
            sync(temporary)  # before the partial pool, its only other copy, goes
            os.replace(temporary, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunStopped(
                f"{self.path} could not be written: {error.strerror}; free some space and run the same command again."
            ) from error
        else:
            self.partial.unlink()
        finally:
            self.close()
        return [row["reason"] for row in rows if row["reward"] is None]

    def close(self) -> None:
        """Leave the partial pool for later."""
        self._journal.close()


def _completion(sample: Mapping[str, Any]) -> Completion:
    return Completion(**{**sample, "stop": StopReason(sample["stop"])})


def _write_parquet(path: Path, rows: list[dict[str, Any]], settings: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number, integer = pa.string(), pa.float64(), pa.int64()
    types = {
        "sample": integer,
        "level": integer,
        "num_tokens": integer,
        "reward": number,
        "score": number,
        "logprob": number,
    }
    schema = pa.schema(
        [(name, types.get(name, text)) for name in COLUMNS], metadata={"bontune": json.dumps(dict(settings))}
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def problems_of(pool: Pool, path: Path) -> list[Problem]:
    """The problems of a pool, as far as it tells.

    Raises:
        BontuneError: it has no prompts or no completions.
    """
    for name in ("prompt", "completion"):
        if name not in pool.columns or not all(isinstance(x, str) for row in pool.columns[name] for x in row):
            raise BontuneError(f"{path} has no column {name!r} with a text in every row; a verifier reads both.")
    first = {name: [row[0] for row in rows] for name, rows in pool.columns.items()}
    nothing = [None] * len(pool.problem_ids)
    return [
        Problem(id=name, prompt=prompt, reference=str(reference or ""), level=level, messages=_messages(messages, path))
        for name, prompt, reference, level, messages in zip(
            pool.problem_ids,
            first["prompt"],
            first.get("reference", nothing),
            first.get("level", nothing),
            first.get("messages", nothing),
            strict=True,
        )
    ]


def _messages(value: Any, path: Path) -> tuple[dict[str, str], ...]:
    """A conversation as a list of turns, or as JSON text."""
    try:
        turns = json.loads(value) if isinstance(value, str) else value or []
        return tuple({"role": str(turn["role"]), "content": str(turn["content"])} for turn in turns)
    except (ValueError, TypeError, KeyError):
        raise BontuneError(
            f"{path}: messages must be a list of turns with role and content, got {value!r:.80}."
        ) from None


def grades_of(pool: Pool) -> list[list[Grade]]:
    """The grades that a pool holds: what the oracle and votes go by."""
    answers = pool.columns.get("answer") or [[None] * len(row) for row in pool.columns["reward"]]
    return [
        [
            Grade(reward=math.nan, verdict=Verdict.GRADER_ERROR)
            if reward is None or math.isnan(reward)
            else Grade(
                reward=reward,
                verdict=Verdict.PASSED if reward > 0 else Verdict.FAILED,
                answer=None if answer is None else str(answer),
            )
            for reward, answer in zip(*row, strict=True)
        ]
        for row in zip(pool.columns["reward"], answers, strict=True)
    ]
