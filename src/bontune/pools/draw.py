"""``bontune sample``."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.base.overrides import apply_overrides
from bontune.engines.contract import Poll, SamplingOptions
from bontune.engines.prompts import has_chat_template, prompt_of, stop_of
from bontune.models import best_device, quiet_libraries
from bontune.pools.pool import PoolWriter, Rows, problem_rows, rows_of

if TYPE_CHECKING:
    import bontune.tasks.base as tasks
    from bontune.base.problems import Problem
    from bontune.engines.openai import OpenAIEngine
    from bontune.verifiers import Verifier


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """How a server is asked; see :class:`bontune.engines.openai.OpenAIEngine`."""

    served_model: str | None = None
    """Its model's name there."""
    api: str = "auto"
    """``auto``, ``chat`` or ``completions``."""
    concurrency: int = 32
    """Requests at a time."""
    timeout_s: float = 600.0
    """For a whole request."""
    tries: int = 8
    """For each request."""
    choices: int = 1
    """Completions per request."""
    has_logprobs: bool = False
    """Ask for log-probabilities."""
    extra: str | None = None
    """More fields of a request, as JSON."""


def run_sample(
    model_name: str,
    task_name: str,
    task_options: Sequence[str],
    drawing: SamplingOptions,
    serving: Serving | None = None,
    *,
    out: Path,
    split: str,
    limit: int | None,
    verifier: str,
    seed: int,
) -> None:
    """``bontune sample``: collect a pool, or go on with one that was begun."""
    from bontune.base.signals import StopSignals
    from bontune.tasks import load_task
    from bontune.verifiers import verifier_from_text

    serving = serving or Serving()
    is_served = model_name.startswith(("http://", "https://"))
    if not is_served and serving != Serving():
        given = [f.name for f in dataclasses.fields(Serving) if getattr(serving, f.name) != f.default]
        raise BontuneError(f"{model_name} is no server's address (http://…), but {given[0]} is for servers.")
    task = load_task(task_name, **apply_overrides({}, task_options))
    judge = verifier_from_text(verifier)
    problems = task.problems(split)[:limit]
    if not problems:
        raise BontuneError(f"Split {split!r} of task {task_name} has no problems.")
    settings: dict[str, Any] = {
        "model": model_name,
        "task": task_name,
        "task_options": list(task_options),
        "split": split,
        "limit": limit,
        "verifier": judge.name,
        "seed": seed,
        **dataclasses.asdict(drawing),
    }
    source = _Served(model_name, serving) if is_served else _Local(model_name)
    # A task that runs programs: what they ran in belongs to the result.
    notes = source.notes | ({"isolation": task.isolation} if hasattr(task, "isolation") else {})
    with PoolWriter(out, settings | source.settings, notes) as writer, StopSignals() as signals:
        try:
            drawn = source.rows(task, judge, problems, drawing, seed, writer, signals.poll)
            if writer.done or writer.drawn:
                num_more = sum(map(len, writer.drawn.values()))
                more = f", and {num_more} completions of others" if num_more else ""
                print(f"{len(writer.done)} of {len(problems)} problems are already there{more}", file=sys.stderr)
            with closing(drawn), _progress(len(problems), source) as advance:
                for rows in drawn:
                    writer.add([rows])
                    advance(len(writer.done))
        except Interrupted:
            print(f"stopped by a signal; the same command continues with {writer.partial}", file=sys.stderr)
            raise
        except (BontuneError, RunStopped) as error:
            if not writer.partial.exists():
                raise
            kept = f"what was drawn is kept in {writer.partial}: the same command continues"
            raise type(error)(f"{str(error).rstrip('.')}; {kept}.") from error
        num_errors = writer.finish(problem.id for problem in problems)
    print(f"{out}: {len(problems)} problems × {drawing.num_samples} samples")
    if num_errors:
        print(f"warning: {num_errors} completions could not be graded (verdict grader_error)", file=sys.stderr)
    if warning := source.warning():
        print(f"warning: {warning}", file=sys.stderr)


class _Local:
    """A model in this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}

    def rows(
        self,
        task: tasks.Task,
        judge: Verifier,
        problems: Sequence[Problem],
        drawing: SamplingOptions,
        seed: int,
        writer: PoolWriter,
        poll: Poll,
    ) -> Generator[Rows, None, None]:
        """The rows of each problem that is not there yet. The model is loaded and all prompts are checked first."""
        from bontune.engines.transformers import TransformersEngine, encode_prompts
        from bontune.models import load_model
        from bontune.pools.collect import collect

        quiet_libraries()
        model, tokenizer = load_model(self.name, device=best_device())
        uses_chat = has_chat_template(tokenizer)
        options = dataclasses.replace(drawing, stop=stop_of(task.stop, problems, uses_chat))
        # All fit, or none is drawn.
        encode_prompts(model, tokenizer, [prompt_of(p, uses_chat) for p in problems], options.max_new_tokens)
        batch_size = max(1, min(64, 4096 // options.num_samples))
        # A batch is drawn again as a whole if a problem of it is missing: in other company the last bits would differ.
        groups = [problems[start : start + batch_size] for start in range(0, len(problems), batch_size)]
        left = [problem for group in groups if any(p.id not in writer.done for p in group) for problem in group]
        batches = collect(
            TransformersEngine(model, tokenizer),
            task,
            judge,
            left,
            options,
            key=(seed, "pool"),
            batch_size=batch_size,
            poll=poll,
        )
        return (rows for graded in batches for rows in rows_of(graded))

    def status(self) -> str:
        """What stands beside the progress bar."""
        return ""

    def warning(self) -> str | None:
        """What looks wrong about the pool."""
        return None


class _Served:
    """A server."""

    def __init__(self, address: str, serving: Serving) -> None:
        from bontune.engines.openai import OpenAIEngine

        self.engine: OpenAIEngine = OpenAIEngine(
            address,
            serving.served_model,
            api=serving.api,
            concurrency=serving.concurrency,
            timeout_s=serving.timeout_s,
            num_tries=serving.tries,
            choices=serving.choices,
            has_logprobs=serving.has_logprobs,
            extra=_json_object(serving.extra),
        )
        # Under another address the same model may go on with the pool.
        self.settings: dict[str, Any] = {
            "model": self.engine.model,
            "api": serving.api,
            "choices": serving.choices,
            "logprobs": serving.has_logprobs,
            "extra": self.engine.extra,
        }
        self.notes: dict[str, Any] = {"server": self.engine.endpoint.url}
        self._started = time.monotonic()
        self._is_sampled = False
        self._num_samples_of_problem = 0

    def rows(
        self,
        task: tasks.Task,
        judge: Verifier,
        problems: Sequence[Problem],
        drawing: SamplingOptions,
        seed: int,
        writer: PoolWriter,
        poll: Poll,
    ) -> Generator[Rows, None, None]:
        """The rows of each problem that is not there yet, as they are complete."""
        from bontune.pools.collect import collect_served

        self.engine.endpoint.models()  # nobody there: said at once, not after all tries
        if self.engine.api == "chat":
            problems = [
                p if p.messages else dataclasses.replace(p, messages=({"role": "user", "content": p.prompt},))
                for p in problems
            ]
        options = dataclasses.replace(drawing, stop=stop_of(task.stop, problems, self.engine.uses_chat))
        finished = collect_served(
            self.engine,
            task,
            judge,
            [p for p in problems if p.id not in writer.done],
            options,
            key=(seed, "pool"),
            known=writer.drawn,
            keep=writer.keep,
            poll=poll,
        )
        try:
            for problem, completions, grades, scores in finished:
                self._is_sampled |= len({completion.text for completion in completions}) > 1
                self._num_samples_of_problem = len(completions) if drawing.temperature > 0 else 0
                yield problem_rows(problem, completions, grades, scores)
        finally:
            self.engine.close()

    def status(self) -> str:
        """What stands beside the progress bar."""
        seconds, done = max(time.monotonic() - self._started, 1e-3), self.engine.progress
        parts = [f"{done.num_samples / seconds:.1f} samples/s"]
        if done.num_tokens:
            parts.append(f"{done.num_tokens / seconds:.0f} tokens/s")
        if self.engine.endpoint.num_retries:
            parts.append(f"{self.engine.endpoint.num_retries} retries")
        return ", ".join(parts)

    def warning(self) -> str | None:
        """What looks wrong about the pool."""
        if self._is_sampled or self._num_samples_of_problem < 4:
            return None
        return (
            "all samples of a problem are the same, for every problem: the server may decode greedily whatever the "
            "temperature, or draw all choices of a request with one seed"
        )


def _json_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BontuneError(f'--extra takes fields as JSON, like {{"top_k": 20}}, got {text!r}.')
    return value


class _Status(ProgressColumn):
    def __init__(self, source: _Local | _Served) -> None:
        super().__init__()
        self._source = source

    def render(self, task: Task) -> Text:
        """Read anew at each refresh: requests go on while a problem is graded."""
        return Text(self._source.status())


@contextmanager
def _progress(num_problems: int, source: _Local | _Served) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, moved by the number of problems that are there."""
    columns = (
        TextColumn("sampling"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        _Status(source),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        bar = progress.add_task("sampling", total=num_problems)
        yield lambda num_done: progress.update(bar, completed=num_done)
