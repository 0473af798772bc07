"""Draw a pool: a task's problems, an engine's completions, their grades and scores; restartable at any moment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.problems import Problem, contents_digest
from bontune.base.progress import Measure
from bontune.base.settings import differing
from bontune.base.signals import Poll
from bontune.engines.contract import (
    DrawingCount,
    Engine,
    SamplingOptions,
    StopReason,
    StreamingEngine,
    check_vllm_sampling,
)
from bontune.engines.openai import Serving
from bontune.engines.opening import is_address, open_engine
from bontune.engines.prompts import asks_chat, digest_as_rendered, prompts_of, stop_of
from bontune.models import resolve, weights_digest
from bontune.pools.collect import collect, collect_streamed
from bontune.pools.pool import RENDERED, PoolWriter, Rows, problem_rows, rows_of
from bontune.pools.read import read_pool
from bontune.tasks import Task, check_options, load_task
from bontune.tasks.base import grader_code_of, isolation_of
from bontune.verifiers import Verifier, verifier_from_text
from bontune.verifiers.load import options_from_text
from bontune.verifiers.load import verifier_digest as verifier_contents

ROWS_AT_A_TIME = 4096
"""Completions of a batch in this process; a batch is drawn again as a whole if one of its problems is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolRequest:
    """Everything that decides a pool."""

    model: str
    """A shipped model, a folder, a hub id, or a server's address."""
    task: str
    """Name of the task."""
    sampling: SamplingOptions
    """How completions are drawn; the stop strings follow from the task and the engine."""
    task_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task."""
    split: str = "test"
    """Split of the task."""
    limit: int | None = None
    """Number of problems, the first of the split; None: all."""
    shard: tuple[int, int] | None = None
    """(i, n): the i-th of n shards, every n-th problem; None: all."""
    verifier: str = "oracle"
    """Verifier that scores; see :func:`bontune.verifiers.verifier_from_text`."""
    seed: int = 0
    """Seed for sampling; the same seed draws the same completions where the engine has seeds."""
    serving: Serving = field(default_factory=Serving)
    """How a server is asked."""
    engine: str = "auto"
    """What draws; see :func:`bontune.engines.opening.open_engine`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawProgress:
    """How far a drawing is."""

    num_problems: int
    """Problems of the pool."""
    num_done: int
    """Problems that are complete."""
    num_completions: int
    """Completions of other problems that an earlier start has left."""
    measure: Callable[[], Measure]
    """Tells how many completions are there now, of all, and what else people should know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnPool:
    """A finished pool on disk."""

    path: Path
    """The pool's file."""
    num_problems: int
    """Number of problems."""
    grader_errors: Sequence[str]
    """Why each completion that could not be graded was not."""
    warnings: Sequence[str]
    """Sentences about what looks wrong with the pool."""


def draw_pool(
    request: PoolRequest,
    out: Path,
    *,
    poll: Poll | None = None,
    on_progress: Callable[[DrawProgress], None] | None = None,
) -> DrawnPool:
    """Draw a pool, or resume one that was begun.

    Args:
        request: what to draw.
        out: file of the pool, ``.parquet`` or ``.jsonl``.
        poll: called between pieces of work; what it raises ends the drawing, and what was drawn is kept.
        on_progress: called at the beginning, and whenever a problem is complete.

    Raises:
        BontuneError: the pool is already there, was begun otherwise, or something of the request cannot be.
        RunStopped: the grader, the verifier, the server or the disk failed; the same request continues.
    """
    check_names(request)
    task = load_task(request.task, **request.task_options)
    verifier = verifier_from_text(request.verifier)
    problems = task.problems(request.split)[: request.limit]
    if not problems:
        raise BontuneError(f"Split {request.split!r} of task {request.task} has no problems.")
    everything, problems = problems, _shard_of(problems, request, out)
    PoolWriter.check_free(out)
    engine = _opened(request)
    options = dataclasses.replace(request.sampling, stop=stop_of(task, problems, asks_chat(engine, problems)))
    settings, notes = _settings(request, task, everything, verifier, engine, options)
    num_alike = 0
    with PoolWriter(out, settings, notes) as writer:
        told = _Told(engine, len(problems), options, writer)
        tell = told.to(on_progress)

        try:
            drawn = _rows(engine, task, verifier, problems, options, request.seed, writer, poll)
            tell()
            with closing(drawn):
                for rows in drawn:
                    writer.add([rows])
                    num_alike += len({row["completion"] for row in rows}) == 1
                    tell()
        except (BontuneError, RunStopped) as error:
            if not writer.partial.exists():
                raise
            kept = f"what was drawn is kept in {writer.partial}: the same command continues."
            error.args = (f"{str(error).rstrip('.')}; {kept}",)  # a kind of error may take other arguments
            raise
        errors = writer.finish(problem.id for problem in problems)
    is_streaming = isinstance(engine, StreamingEngine)
    is_greedy = is_streaming and num_alike == len(problems) and options.temperature > 0 and options.num_samples >= 4
    refused = [*_refused(engine, out), *engine.left_out()] if isinstance(engine, StreamingEngine) else []
    return DrawnPool(
        path=out,
        num_problems=len(problems),
        grader_errors=errors,
        warnings=[*((_ALL_ALIKE,) if is_greedy else ()), *refused],
    )


def check_names(request: PoolRequest) -> None:
    """Look up the names of a request, which takes no library that is slow to load.

    Raises:
        BontuneError: there is no such model, task, option or verifier.
    """
    check_options(request.task, request.task_options)
    _, options = options_from_text(request.verifier)
    for model in (request.model, options.get("path")):
        if model is not None and ":" not in model:  # an address, or the name of an engine before the model's
            resolve(model)


def _opened(request: PoolRequest) -> Engine:
    if request.engine == "vllm":  # before it is opened, which takes long
        check_vllm_sampling(request.sampling.temperature, request.sampling.top_p)
    return open_engine(request.model, serving=request.serving, engine=request.engine)


def _shard_of(problems: list[Problem], request: PoolRequest, out: Path) -> list[Problem]:
    """The problems that this machine draws."""
    if request.shard is None:
        return problems
    number, num_shards = request.shard
    if number > len(problems):
        raise BontuneError(f"Shard {number}/{num_shards} of {len(problems)} problems is empty: take fewer shards.")
    if out.suffix != ".parquet":
        raise BontuneError(f"A shard ends in .parquet, got {out.name!r}.")
    return problems[number - 1 :: num_shards]


def _settings(
    request: PoolRequest,
    task: Task,
    problems: Sequence[Problem],
    verifier: Verifier,
    engine: Engine,
    options: SamplingOptions,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides the pool, as it is really used; and what is only noted beside it."""
    settings: dict[str, Any] = {
        "model": request.model,
        "task": request.task,
        "task_options": dict(request.task_options),
        "split": request.split,
        "limit": request.limit,
        "verifier": verifier.name,
        "seed": request.seed,
        **({} if request.shard is None else {"shard": "{}/{}".format(*request.shard)}),
        **dataclasses.asdict(options),
        **engine.origin(),
        "contents": _contents(request, task, problems),
    }
    rendered = digest_as_rendered(engine, problems)
    if rendered is not None:
        settings["contents"] |= {RENDERED: rendered}
    # A task that runs programs: what they ran in belongs to the result.
    isolation = isolation_of(task)
    notes = {} if isolation is None else {"isolation": isolation}
    return settings, notes | (engine.notes() if isinstance(engine, StreamingEngine) else {})


def _contents(request: PoolRequest, task: Task, problems: Sequence[Problem]) -> dict[str, str]:
    """Hashes of what the names in a request stand for: a file or a folder may change and keep its name."""
    found = {
        "the problems": contents_digest(problems),
        "the grader's code": grader_code_of(task),
        "the model's weights": "" if is_address(request.model) else weights_digest(request.model),
    }
    name, options = options_from_text(request.verifier)
    return found | {"what the verifier names": verifier_contents(name, **options)}


class _Told:
    """What is told of a drawing."""

    def __init__(self, engine: Engine, num_problems: int, options: SamplingOptions, writer: PoolWriter) -> None:
        self.engine, self.num_problems, self.writer = engine, num_problems, writer
        m = options.num_samples
        kept = len(writer.done) * m + self._num_completions()
        self.count = DrawingCount(engine, num_problems * m, longest=options.max_new_tokens, kept=kept)

    def to(self, on_progress: Callable[[DrawProgress], None] | None) -> Callable[[], None]:
        return (lambda: None) if on_progress is None else lambda: on_progress(self.now())

    def now(self) -> DrawProgress:
        return DrawProgress(
            num_problems=self.num_problems,
            num_done=len(self.writer.done),
            num_completions=self._num_completions(),
            measure=self.measure,
        )

    def measure(self) -> Measure:
        more = self.engine.status() if isinstance(self.engine, StreamingEngine) else ""
        note = ", ".join(part for part in (self.count.note(), more) if part)
        return Measure(self.count.done, self.count.total, self.count.share, note)

    def _num_completions(self) -> int:
        return sum(map(len, self.writer.drawn.values()))


def _refused(engine: StreamingEngine, out: Path) -> Sequence[str]:
    """Say how many problems the server would not answer."""
    pool = read_pool(out)
    rows = zip(pool.problem_ids, pool.columns["stop_reason"], strict=True)
    names = [name for name, stops in rows if StopReason.REFUSED.value in stops]
    if not names:
        return ()
    told = f" ({engine.refusal})" if engine.refusal else ""
    return (
        f"the server refused {len(names)} of {len(pool.problem_ids)} problems, {', '.join(names[:3])}"
        f"{' …' if len(names) > 3 else ''}{told}; their completions are empty and count as the grader grades them",
    )


_ALL_ALIKE = (
    "all samples of a problem are the same, for every problem: the server may decode greedily whatever the "
    "temperature, or draw all choices of a request with one seed"
)


def _rows(
    engine: Engine,
    task: Task,
    verifier: Verifier,
    problems: Sequence[Problem],
    options: SamplingOptions,
    seed: int,
    writer: PoolWriter,
    poll: Poll | None,
) -> Generator[Rows, None, None]:
    """The rows of each problem that is not there yet, as they are complete; all prompts are checked first."""
    key = (seed, "pool")
    if isinstance(engine, StreamingEngine):
        return _streamed(engine, task, verifier, problems, options, key, writer, poll)
    engine.check(prompts_of(engine, problems), options.max_new_tokens)
    size = max(1, min(64, ROWS_AT_A_TIME // options.num_samples))
    # A batch is drawn again as a whole if a problem of it is missing: in other company the last bits would differ.
    groups = [problems[start : start + size] for start in range(0, len(problems), size)]
    left = [problem for group in groups if any(p.id not in writer.done for p in group) for problem in group]
    batches = collect(engine, task, verifier, left, options, key=key, batch_size=size, poll=poll)
    return (rows for graded in batches for rows in rows_of(graded))


def _streamed(
    engine: StreamingEngine,
    task: Task,
    verifier: Verifier,
    problems: Sequence[Problem],
    options: SamplingOptions,
    key: tuple[object, ...],
    writer: PoolWriter,
    poll: Poll | None,
) -> Generator[Rows, None, None]:
    engine.check(prompts_of(engine, problems), options.max_new_tokens)
    problems = [engine.as_asked(problem) for problem in problems if problem.id not in writer.done]
    finished = collect_streamed(
        engine, task, verifier, problems, options, key=key, known=writer.drawn, keep=writer.keep, poll=poll
    )
    try:
        for problem, completions, grades, scores in finished:
            yield problem_rows(problem, completions, grades, scores)
    finally:
        engine.close()


def draw_missing(
    wanted: Mapping[Path, PoolRequest], draw: Callable[[PoolRequest, Path], object], on_kept: Callable[[Path], None]
) -> None:
    """Draw each pool that is not there yet.

    Args:
        wanted: what each file should hold.
        draw: draws one, such as :func:`draw_pool`.
        on_kept: called with each file that is there already.

    Raises:
        BontuneError: one that is there was drawn otherwise; nothing has been drawn then.
    """
    kept = [path for path in wanted if path.exists()]
    for path in kept:
        _check_kept(path, wanted[path])
    for path, request in wanted.items():
        if path in kept:
            on_kept(path)
        else:
            draw(request, path)


def _check_kept(path: Path, request: PoolRequest) -> None:
    """Whether a finished pool is the one that would be drawn."""
    sampling = dataclasses.asdict(request.sampling)
    del sampling["stop"]  # follows from the others
    wanted: dict[str, Any] = {
        "task": request.task,
        "task_options": dict(request.task_options),
        "split": request.split,
        "limit": request.limit,
        "seed": request.seed,
        **sampling,
    }
    if not is_address(request.model):  # a server's pool names the model behind the address
        wanted["model"] = request.model
    if not is_address(request.verifier):  # and a judge's the model that judges
        wanted["verifier"] = request.verifier
    settings = read_pool(path, has_texts=False).settings
    if "contents" in settings:  # not in pools of earlier versions
        task = load_task(request.task, **request.task_options)
        wanted["contents"] = _contents(request, task, task.problems(request.split)[: request.limit])
    kept = {name: settings.get(name) for name in wanted}
    if "contents" in settings:  # others than those of today are not known here
        kept["contents"] = {name: settings["contents"].get(name) for name in wanted["contents"]}
    changed = differing(kept, json.loads(json.dumps(wanted)))
    for name in dict.fromkeys(name.split(".")[0] for name in changed):
        if name != "contents":
            raise BontuneError(
                f"{path} was drawn with {name} {settings.get(name)!r}, not {wanted.get(name)!r}: delete it or give "
                "another --out."
            )
    if changed:
        told = " and ".join(name.removeprefix("contents.") for name in changed)
        raise BontuneError(f"{path} was drawn before {told} changed: delete it or give another --out.")
