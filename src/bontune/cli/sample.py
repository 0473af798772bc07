"""``bontune sample``, and how a command line becomes pools."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.base.progress import Bar
from bontune.base.signals import StopSignals
from bontune.cli import options as shared
from bontune.cli.terminal import PlainTyper, warn

if TYPE_CHECKING:
    from bontune.engines.openai import Serving
    from bontune.pools.draw import DrawProgress, PoolRequest


def sample_pool(
    model: shared.Model,
    task: shared.TaskName,
    options: shared.KeyValues = None,
    out: shared.PoolOut = Path("pool.parquet"),
    samples: shared.Samples = 64,
    temperature: shared.Temperature = 1.0,
    top_p: shared.TopP = 1.0,
    max_new_tokens: shared.MaxNewTokens = None,
    split: shared.Split = "test",
    limit: shared.Limit = None,
    shard: shared.Shard = None,
    verifier: shared.Verifier = "oracle",
    seed: shared.Seed = 0,
    engine: shared.Engine = "auto",
    served_model: shared.ServedModel = None,
    api: shared.Api = "auto",
    concurrency: shared.Concurrency = 32,
    timeout: shared.Timeout = 600,
    tries: shared.Tries = 8,
    choices: shared.Choices = 1,
    logprobs: shared.Logprobs = False,
    extra: shared.Extra = None,
) -> None:
    """Draw N completions per problem, grade and score them, and write them as a pool.

    A stopped command goes on where it was when it is given again. KEY=VALUE are options of the task. A server's
    key is read from OPENAI_API_KEY.

    Examples: bontune sample countdown-tiny countdown -o pools/base.parquet

    bontune sample http://127.0.0.1:8000/v1 jsonl data=mine.jsonl -n 16 --max-new-tokens 512
    """
    serving = serving_from_options(served_model, api, concurrency, timeout, tries, choices, logprobs, extra)
    request = pool_request(
        model,
        task,
        options or [],
        samples=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        split=split,
        limit=limit,
        shard=shard,
        verifier=verifier,
        seed=seed,
        serving=serving,
        engine=engine,
    )
    draw_with_progress(request, out)


pools_app = PlainTyper(help="Put the shards of a pool together.", no_args_is_help=True)


@pools_app.callback()
def pools() -> None:
    """Put the shards of a pool together."""


@pools_app.command("merge")
def merge_shards(
    parts: Annotated[list[Path], typer.Argument(help="The shards, all of them, in any order.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write this pool, .parquet.")],
) -> None:
    """Write the pool that one machine would have drawn.

    Example: bontune pools merge pools/part-*.parquet -o pools/all.parquet
    """
    from bontune.pools.merge import merge_pools

    num_problems, num_samples = merge_pools(parts, out)
    print(f"{out}: {num_problems} problems × {num_samples} samples")


# ---- requests from command lines ----


def serving_from_options(
    served_model: str | None,
    api: str,
    concurrency: int,
    timeout_s: float = 600,
    tries: int = 8,
    choices: int = 1,
    has_logprobs: bool = False,
    extra: str | None = None,
) -> Serving:
    """Say how a server is asked.

    Raises:
        BontuneError: ``extra`` is no JSON object, or a setting is one that a server does not take.
    """
    from bontune.engines.openai import Serving

    try:
        fields = json.loads(extra or "{}")
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise BontuneError(f'--extra takes fields as JSON, like {{"top_k": 20}}, got {extra!r}.')
    return Serving(
        served_model=served_model,
        api=api,
        concurrency=concurrency,
        timeout_s=timeout_s,
        tries=tries,
        choices=choices,
        has_logprobs=has_logprobs,
        extra=fields,
    )


def pool_request(
    model: str,
    task: str,
    options: Sequence[str],
    *,
    samples: int,
    max_new_tokens: int | None,
    top_p: float,
    temperature: float = 1.0,
    shard: str | None = None,
    **fields: Any,
) -> PoolRequest:
    """Say as a request what a command line asks for.

    Args:
        model: the model's name, folder or address.
        task: the task's name.
        options: options of the task, as ``key=value``.
        samples: completions per problem.
        max_new_tokens: longest completion; None: what is usual for the task.
        top_p: share of the probability that is sampled from.
        temperature: sampling temperature.
        shard: which of several shards to draw, as ``i/n``.
        fields: the other fields of the request.

    Raises:
        BontuneError: an option is not ``key=value``, or there is no such model, task or verifier.
    """
    from bontune.base.settings import apply_overrides
    from bontune.engines.contract import SamplingOptions
    from bontune.pools.draw import PoolRequest, check_names
    from bontune.pools.merge import shard_from_text
    from bontune.tasks import usual_length

    length = usual_length(task) if max_new_tokens is None else max_new_tokens
    request = PoolRequest(
        model=model,
        task=task,
        task_options=apply_overrides({}, options),
        sampling=SamplingOptions(num_samples=samples, max_new_tokens=length, temperature=temperature, top_p=top_p),
        shard=None if shard is None else shard_from_text(shard),
        **fields,
    )
    check_names(request)
    return request


# ---- drawing, with a progress bar ----


def draw_with_progress(request: PoolRequest, out: Path) -> None:
    """Draw one pool; progress and warnings go to stderr, the result to stdout.

    Raises:
        Interrupted: a signal arrived; what was drawn is kept.
        RunStopped: not one completion could be graded; the pool is kept.
    """
    from bontune.models import quiet_libraries
    from bontune.pools.draw import draw_pool

    quiet_libraries()
    with _bar() as (bar, show), StopSignals(bar.tick) as signals:
        try:
            pool = draw_pool(request, out, poll=signals.poll, on_progress=show)
        except Interrupted:
            partial = out.with_name(out.name + ".partial.jsonl")
            print(f"stopped by a signal; the same command continues with {partial}", file=sys.stderr)
            raise
    print(f"{pool.path}: {pool.num_problems} problems × {request.sampling.num_samples} samples")
    if errors := pool.grader_errors:
        num_completions = pool.num_problems * request.sampling.num_samples
        if len(errors) == num_completions:
            raise RunStopped(
                f"Not one of {num_completions} completions could be graded ({errors[0]}): mend the grader, "
                f"remove {pool.path} and draw again."
            )
        warn(f"{len(errors)} completions could not be graded, the first: {errors[0]}")
    for warning in pool.warnings:
        warn(warning)


def draw_all_with_progress(requests: Mapping[Path, PoolRequest]) -> None:
    """Draw each pool that is not there yet, and name each on stderr.

    Raises:
        BontuneError: a pool that is there was drawn with other settings; nothing has been drawn then.
    """
    from bontune.pools.draw import draw_missing

    def draw(request: PoolRequest, path: Path) -> None:
        print(f"{request.model} at T = {request.sampling.temperature:g}", file=sys.stderr)
        draw_with_progress(request, path)

    draw_missing(requests, draw, lambda path: print(f"{path} is already there", file=sys.stderr))


@contextmanager
def _bar() -> Iterator[tuple[Bar, Callable[[DrawProgress], None]]]:
    """Open a progress bar that follows the number of completions."""
    has_begun = False

    def show(now: DrawProgress) -> None:
        nonlocal has_begun
        if not has_begun and (now.num_done or now.num_completions):
            more = f", and {now.num_completions} completions of others" if now.num_completions else ""
            print(f"{now.num_done} of {now.num_problems} problems are already there{more}", file=sys.stderr)
        if not has_begun:
            bar.follow(now.measure)
        has_begun = True

    with Bar("sampling", unit="completions") as bar:
        yield bar, show
