"""``bestofn sample``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from bestofn.commands.common import best_device, quiet_libraries
from bestofn.config import apply_overrides
from bestofn.errors import BestofnError, Interrupted
from bestofn.sampling.samples import SamplingOptions


def run_sample(
    model_name: str, task_name: str, task_options: Sequence[str], drawing: SamplingOptions, *,
    out: Path, split: str, limit: int | None, verifier: str, seed: int,
) -> None:  # fmt: skip
    """``bestofn sample``: collect a pool, or go on with one that was begun."""
    import dataclasses

    from bestofn.models import load_model
    from bestofn.sampling.collect import collect
    from bestofn.sampling.pool import PoolWriter, rows_of
    from bestofn.sampling.prompts import has_chat_template, prompt_of, stop_of
    from bestofn.sampling.transformers import TransformersSampler, encode_prompts
    from bestofn.tasks import load_task
    from bestofn.training.interrupts import StopSignals
    from bestofn.verifiers import load_verifier

    task = load_task(task_name, **apply_overrides({}, task_options))
    judge = load_verifier("python", verifier) if ":" in verifier else load_verifier(verifier)
    problems = task.problems(split)[:limit]
    if not problems:
        raise BestofnError(f"Split {split!r} of task {task_name} has no problems.")
    settings: dict[str, Any] = {
        "model": model_name, "task": task_name, "task_options": list(task_options), "split": split, "limit": limit,
        "verifier": judge.name, "seed": seed, **dataclasses.asdict(drawing),
    }  # fmt: skip
    writer = PoolWriter(out, settings)
    quiet_libraries()
    model, tokenizer = load_model(model_name, device=best_device())
    uses_chat = has_chat_template(tokenizer)
    options = dataclasses.replace(drawing, stop=stop_of(task, problems, uses_chat))
    # All fit, or none is drawn.
    encode_prompts(model, tokenizer, [prompt_of(p, uses_chat) for p in problems], options.max_new_tokens)
    if writer.done:
        print(f"{len(writer.done)} of {len(problems)} problems are already there", file=sys.stderr)
    batch_size = max(1, min(64, 4096 // options.num_samples))
    # A batch is drawn again as a whole if a problem of it is missing: in other company the last bits would differ.
    groups = [problems[start : start + batch_size] for start in range(0, len(problems), batch_size)]
    left = [problem for group in groups if any(p.id not in writer.done for p in group) for problem in group]
    with StopSignals() as signals:
        batches = collect(
            TransformersSampler(model, tokenizer), task, judge, left, options,
            key=(seed, "pool"), batch_size=batch_size, poll=signals.poll,
        )  # fmt: skip
        try:
            total = -(-len(left) // batch_size)
            for graded in track(batches, total=total, description="sampling", console=Console(stderr=True)):
                writer.add(rows_of(graded))
        except Interrupted:
            writer.close()
            print(f"stopped by a signal; the same command continues with {writer.partial}", file=sys.stderr)
            raise
    num_errors = writer.finish(problem.id for problem in problems)
    print(f"{out}: {len(problems)} problems × {options.num_samples} samples")
    if num_errors:
        print(f"warning: {num_errors} completions could not be graded (verdict grader_error)", file=sys.stderr)
