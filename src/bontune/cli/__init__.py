"""The commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bontune.base.errors import BontuneError
from bontune.cli.groups import KeyValues, recipes_app, tasks_app, verify_app

app = typer.Typer(
    name="bontune",
    help="Fine-tune a language model for the way it will be sampled: draw N, let a verifier pick one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(recipes_app, name="recipes")
app.add_typer(tasks_app, name="tasks")
app.add_typer(verify_app, name="verify")


def _server(text: str, *names: str) -> Any:
    """An option that is for servers only."""
    return typer.Option(*names, help=text, rich_help_panel="Servers")


def _print_version(value: bool) -> None:
    if value:
        from bontune import __version__

        typer.echo(f"bontune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the runs, the summary, the report and the pictures.")] = Path(
        "runs/quickstart"
    ),
    full: Annotated[bool, typer.Option("--full", help="Longer training and three seeds.")] = False,
) -> None:
    """Train the embedded model by plain RL and for Best-of-N, and show the difference: offline, CPU, minutes."""
    from bontune.experiments.quickstart import run_quickstart

    run_quickstart(out, is_full=full)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (`bontune recipes`), a YAML file, or a run folder.")],
    overrides: KeyValues = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print samples, memory and time to expect; train nothing.")] = (
        False
    ),
) -> None:
    """Train by a recipe; continues by itself if the run folder holds a checkpoint.

    Example: bontune train countdown run=runs/a training.steps=50
    """
    if plan:
        from bontune.cli.plan import run_plan

        run_plan(recipe, overrides or [])
        return
    from bontune.cli.train import run_train

    run_train(recipe, overrides or [])


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="A shipped model, a folder, a hub id, or a server's http://host/v1.")],
    task: Annotated[str, typer.Argument(help="A task (`bontune tasks`).")],
    options: KeyValues = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The pool: .parquet or .jsonl.")] = Path("pool.parquet"),
    samples: Annotated[int, typer.Option("--samples", "-n", help="Completions per prompt.")] = 64,
    temperature: Annotated[float, typer.Option("--temperature", "-t", help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus.")] = 1.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest completion, in tokens; default: 24 to 512, by task.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="Which problems.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    verifier: Annotated[
        str,
        typer.Option(
            help="oracle, majority, a reward model (name, folder, hub id), file.py:function, http://…/v1#model."
        ),
    ] = "oracle",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    served_model: Annotated[str | None, _server("Its model's name; default: the only one it has.")] = None,
    api: Annotated[str, _server("auto (chat for problems with messages), chat, or completions.")] = "auto",
    concurrency: Annotated[int, _server("Requests at a time.")] = 32,
    timeout: Annotated[float, _server("Seconds for a whole request.")] = 600,
    tries: Annotated[int, _server("For each request.")] = 8,
    choices: Annotated[int, _server("Completions per request (n).")] = 1,
    logprobs: Annotated[bool, _server("Ask for log-probabilities.", "--logprobs")] = False,
    extra: Annotated[str | None, _server('More fields of each request, as JSON: {"top_k": 20}.')] = None,
) -> None:
    """Draw a pool of completions per prompt, graded; restartable. KEY=VALUE are options of the task.

    Examples: bontune sample countdown-tiny countdown -o pools/base.parquet

    bontune sample http://127.0.0.1:8000/v1 jsonl data=mine.jsonl -n 16 --max-new-tokens 512; a server's key is read
    from OPENAI_API_KEY.
    """
    from bontune.base.overrides import apply_overrides
    from bontune.cli.drawing import draw_with_progress
    from bontune.engines.contract import SamplingOptions
    from bontune.engines.opening import Serving
    from bontune.pools.draw import PoolRequest
    from bontune.tasks import usual_length

    length = usual_length(task) if max_new_tokens is None else max_new_tokens
    request = PoolRequest(
        model=model,
        task=task,
        task_options=apply_overrides({}, options or []),
        sampling=SamplingOptions(num_samples=samples, max_new_tokens=length, temperature=temperature, top_p=top_p),
        split=split,
        limit=limit,
        verifier=verifier,
        seed=seed,
        serving=Serving(
            served_model=served_model,
            api=api,
            concurrency=concurrency,
            timeout_s=timeout,
            tries=tries,
            choices=choices,
            has_logprobs=logprobs,
            extra=_json_object(extra),
        ),
    )
    draw_with_progress(request, out)


def _json_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BontuneError(f'--extra takes fields as JSON, like {{"top_k": 20}}, got {text!r}.')
    return value


@app.command("eval")
def evaluate(
    pools: Annotated[list[Path], typer.Argument(help="Pools of `bontune sample`; more than one are compared.")],
    k: Annotated[str | None, typer.Option("--k", help="Budgets, like 1,4,16; default: powers of two.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write it as .json or .csv.")] = None,
) -> None:
    """Every metric of a pool for every k, with 95 % intervals; paired differences between pools."""
    from bontune.cli.evaluate import run_eval

    run_eval(pools, k, out)


@app.command()
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RUN... | POOL... | SWEEP", help="Run folders, pools, or the folder of a sweep."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page; default: report.html, in the folder if one is given.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Folder for the numbers of pools; default: report_csv beside the page.")
    ] = None,
    k: Annotated[str | None, typer.Option("--k", help="Budgets, like 1,4,16; default: powers of two.")] = None,
) -> None:
    """One self-contained HTML page: of pools with every problem and its samples, of a sweep, or of runs.

    Pools of the same problems are compared with the first. Example: bontune report pools/base.parquet -o base.html
    """
    from bontune.cli.report import run_report

    run_report(paths, out, csv, k)


@app.command()
def sweep(
    arguments: Annotated[
        list[str], typer.Argument(metavar="MODEL TASK [KEY=VALUE]... | --pools POOL POOL...", show_default=False)
    ],
    pools: Annotated[bool, typer.Option("--pools", help="The arguments are pools, one for each temperature.")] = False,
    temperatures: Annotated[str, typer.Option(help="Like 0.5,0.8,1.2 or 0.4,0.6,...,1.6.")] = "0.4,0.6,...,1.6",
    samples: Annotated[int, typer.Option("--samples", "-n", help="Completions per prompt.")] = 64,
    split: Annotated[str, typer.Option(help="Which problems.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    verifier: Annotated[str, typer.Option(help="What scores: oracle, majority, a reward model, file.py:function.")] = (
        "oracle"
    ),
    top_p: Annotated[float, typer.Option(help="Nucleus.")] = 1.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest completion, in tokens; default: 24 to 512, by task.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    k: Annotated[str | None, typer.Option("--k", help="The N, like 1,4,16; default: powers of two.")] = None,
    budgets: Annotated[str | None, typer.Option(help="Tokens per problem, like 100,1000; default: doubling.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pools, numbers and pictures.")] = Path("sweep"),
    served_model: Annotated[str | None, _server("Its model's name; default: the only one it has.")] = None,
    api: Annotated[str, _server("auto (chat for problems with messages), chat, or completions.")] = "auto",
    concurrency: Annotated[int, _server("Requests at a time.")] = 32,
) -> None:
    """Co-scaling of N and temperature: a pool per temperature, the law of pass@N, T*(N), the best pair for a budget.

    Restartable; pools that are there are kept. Example: bontune sweep countdown-tiny countdown --limit 200 -o sweep

    bontune sweep --pools a.parquet b.parquet
    """
    from bontune.cli.sweep import request_from_arguments, run_sweep, study_pools
    from bontune.engines.opening import Serving

    if pools:
        study_pools([Path(path) for path in arguments], out=out, ks=k, budgets=budgets)
        return
    request = request_from_arguments(
        arguments,
        split=split,
        limit=limit,
        verifier=verifier,
        seed=seed,
        num_samples=samples,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        serving=Serving(served_model=served_model, api=api, concurrency=concurrency),
    )
    run_sweep(request, temperatures, out=out, ks=k, budgets=budgets)


@app.command()
def reproduce(
    suite: Annotated[str, typer.Argument(help="countdown, programs, math, humaneval, or a YAML file.")],
    overrides: KeyValues = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the results; default: results/SUITE.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of the training runs; default: runs/reproduce/SUITE.")
    ] = None,
    arms: Annotated[str | None, typer.Option(help="Only these, like bon_rl,rl; default: all.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes at a time; default: one per core.")] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing: tables and pictures of what is there.")
    ] = False,
) -> None:
    """The paper's experiments: every arm trained and measured alike, with intervals, claim by claim.

    Restartable at any point; results are kept as they come. KEY=VALUE change the suite.

    Examples: bontune reproduce countdown

    bontune reproduce math recipe.model=google/gemma-2-2b recipe.task.data=DATA seeds=3
    """
    from bontune.experiments.command import run_reproduce

    run_reproduce(suite, overrides or [], out=out, work=work, arms=arms, workers=workers, is_report_only=report_only)


@app.command()
def compare(
    arguments: Annotated[
        list[str], typer.Argument(metavar="RUN|POOL|MODEL", help="The first is what the others are compared with.")
    ],
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Completions per prompt.")] = 64,
    temperature: Annotated[
        str, typer.Option("--temperature", "-t", help="One, or several like 0.6,0.8,1.0: then at each one's best too.")
    ] = "1.0",
    split: Annotated[
        str | None, typer.Option(help="Which problems; default: test, else validation.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    verifier: Annotated[
        str | None, typer.Option(help="What picks the best of k; default: the first run's.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws, the same for all.")] = 0,
    k: Annotated[str | None, typer.Option("--k", help="Budgets, like 1,4,16; default: powers of two.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for pools, numbers and pictures.")] = Path(
        "runs/compare"
    ),
) -> None:
    """Which run is better for Best-of-N, at which N, and is it more than noise: paired differences, 95 % intervals.

    Of run folders and models pools are drawn, on the task of the first run; restartable, pools that are there are kept.
    Pools are compared as they are.

    Example: bontune compare runs/a runs/b countdown-tiny --limit 200
    """
    from bontune.cli.compare import run_compare
    from bontune.cli.compare_pools import Drawing

    drawing = Drawing(samples=samples, temperature=temperature, split=split, limit=limit, seed=seed, verifier=verifier)
    run_compare(arguments, drawing, ks=k, out=out)


@app.command()
def answer(
    model: Annotated[str, typer.Argument(help="A shipped model, a folder, a hub id, or a server's http://host/v1.")],
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from the input.")],
    verifier: Annotated[str, typer.Option(help="What picks: majority, a reward model, file.py:function, a judge.")],
    n: Annotated[int, typer.Option("-n", min=1, help="N, candidates.")] = 32,
    temperature: Annotated[float, typer.Option("--temperature", "-t", help="Of the draws.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest candidate, in tokens.")] = 512,
    stop: Annotated[list[str] | None, typer.Option(help="String that ends a candidate; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    shows_all: Annotated[bool, typer.Option("--all", help="Show every candidate.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print winner, candidates and scores as JSON.")] = False,
) -> None:
    """Best-of-N in use: draw N candidates, let the verifier pick one; prints the winner, and beside it the candidates.

    Example: bontune answer countdown-tiny --verifier countdown-verifier -n 32 --max-new-tokens 24 "11,13,7,1:18="
    """
    from bontune.cli.answer import run_answer

    run_answer(
        model,
        prompt,
        verifier=verifier,
        n=n,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        stop=stop or [],
        seed=seed,
        shows_all=shows_all,
        is_json=is_json,
    )


@app.command()
def doctor() -> None:
    """Say what holds on this machine: device, versions, isolation for model-written programs.

    Exit status 0 if an isolation holds, 1 if not.
    """
    from bontune.cli.doctor import run_doctor

    if not run_doctor():
        raise typer.Exit(1)


def main() -> None:
    """Entry point: errors in one sentence, and an exit status that says which kind."""
    from bontune.base.errors import BontuneError, Interrupted, RunStopped

    try:
        app()
    except BontuneError as error:
        _fail(str(error), 2)
    except RunStopped as error:
        _fail(str(error), 1)
    except Interrupted:
        sys.exit(143)
    except BrokenPipeError:  # `bontune eval … | head`
        sys.stderr.close()
        sys.exit(141)


def _fail(message: str, status: int) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(status)
