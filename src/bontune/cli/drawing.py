"""Drawing pools on a command line: signals, a progress bar, and what is said at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.base.progress import Bar
from bontune.base.settings import apply_overrides
from bontune.base.signals import StopSignals
from bontune.engines.contract import SamplingOptions
from bontune.models import quiet_libraries
from bontune.pools.draw import DrawProgress, PoolRequest, check_names, draw_missing, draw_pool
from bontune.tasks import usual_length


def model_and_task(arguments: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """Take the words of MODEL TASK [KEY=VALUE]... apart.

    Raises:
        BontuneError: one of the two is missing, or they are pools.
    """
    if len(arguments) < 2 or "=" in arguments[1]:
        raise BontuneError(f"A sweep needs a model and a task, got {' '.join(arguments)}.")
    if any(argument.endswith((".parquet", ".jsonl")) for argument in arguments[:2]):
        raise BontuneError(f"{arguments[0]} {arguments[1]} are no model and task; for pools give --pools.")
    return arguments[0], arguments[1], arguments[2:]


def pool_request(
    model: str,
    task: str,
    options: Sequence[str],
    *,
    samples: int,
    max_new_tokens: int | None,
    top_p: float,
    temperature: float = 1.0,
    **given: Any,
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
        given: the other fields of the request.

    Raises:
        BontuneError: an option is not ``key=value``, or a name is that of nothing.
    """
    length = usual_length(task) if max_new_tokens is None else max_new_tokens
    sampling = SamplingOptions(num_samples=samples, max_new_tokens=length, temperature=temperature, top_p=top_p)
    request = PoolRequest(model=model, task=task, task_options=apply_overrides({}, options), sampling=sampling, **given)
    check_names(request)
    return request


def draw_with_progress(request: PoolRequest, out: Path) -> None:
    """Draw one pool with a progress bar; warnings go to stderr, the result to stdout.

    Raises:
        Interrupted: a signal; what was drawn is kept.
        RunStopped: not one completion could be graded; the pool is kept.
    """
    quiet_libraries()
    with _bar() as (bar, show), StopSignals(bar.tick) as signals:
        try:
            drawn = draw_pool(request, out, poll=signals.poll, on_progress=show)
        except Interrupted:
            partial = out.with_name(out.name + ".partial.jsonl")
            print(f"stopped by a signal; the same command continues with {partial}", file=sys.stderr)
            raise
    print(f"{drawn.path}: {drawn.num_problems} problems × {request.sampling.num_samples} samples")
    if errors := drawn.grader_errors:
        num_drawn = drawn.num_problems * request.sampling.num_samples
        if len(errors) == num_drawn:
            raise RunStopped(
                f"Not one of {num_drawn} completions could be graded ({errors[0]}): mend the grader, "
                f"remove {drawn.path} and draw again."
            )
        print(f"warning: {len(errors)} completions could not be graded, the first: {errors[0]}", file=sys.stderr)
    for warning in drawn.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def draw_all_with_progress(wanted: Mapping[Path, PoolRequest]) -> None:
    """Draw each pool that is not there yet; what is drawn is said on stderr.

    Raises:
        BontuneError: a pool that is there was drawn otherwise; nothing has been drawn then.
    """

    def draw(request: PoolRequest, path: Path) -> None:
        print(f"{request.model} at T = {request.sampling.temperature:g}", file=sys.stderr)
        draw_with_progress(request, path)

    draw_missing(wanted, draw, lambda path: print(f"{path} is already there", file=sys.stderr))


@contextmanager
def _bar() -> Iterator[tuple[Bar, Callable[[DrawProgress], None]]]:
    """A bar that is moved by the number of completions that are there."""
    is_begun = False

    def show(now: DrawProgress) -> None:
        nonlocal is_begun
        if not is_begun and (now.num_done or now.num_completions):
            more = f", and {now.num_completions} completions of others" if now.num_completions else ""
            print(f"{now.num_done} of {now.num_problems} problems are already there{more}", file=sys.stderr)
        if not is_begun:
            bar.follow(now.measure)
        is_begun = True

    with Bar("sampling", unit="completions") as bar:
        yield bar, show
