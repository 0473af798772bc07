"""The commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from bontune.base.errors import BontuneError, Interrupted, RunStopped
from bontune.base.signals import leaving_at_once
from bontune.base.text import never_fail_to_print
from bontune.cli import options as given
from bontune.cli import outward
from bontune.cli.groups import objectives_app, pools_app, recipes_app, tasks_app, verify_app
from bontune.cli.plain_help import PlainTyper

app = PlainTyper(
    name="bontune",
    help="Fine-tune a language model for the way it will be sampled: draw N, let a verifier pick one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(recipes_app, name="recipes")
app.add_typer(objectives_app, name="objectives")
app.add_typer(tasks_app, name="tasks")
app.add_typer(verify_app, name="verify")
app.add_typer(pools_app, name="pools")


def _print_version(value: bool) -> None:
    if value:
        from bontune import __version__

        typer.echo(f"bontune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Write the runs, the summary and the report into this folder.")] = Path(
        "runs/quickstart"
    ),
    full: Annotated[bool, typer.Option("--full", help="Train longer and with three seeds.")] = False,
) -> None:
    """Train the embedded model by plain RL and for Best-of-N, and show the difference.

    Runs offline on a CPU in a few minutes.
    """
    from bontune.experiments.command import run_quickstart

    run_quickstart(out, is_full=full)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (`bontune recipes`), a YAML file, or a run folder.")],
    overrides: given.KeyValues = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the samples and memory to expect, and train nothing.")] = (
        False
    ),
) -> None:
    """Train a model as a recipe says.

    A run folder that holds a checkpoint is continued.

    Example: bontune train countdown run=runs/a training.steps=50
    """
    from bontune.cli.train import named_recipe, run_train

    settings = named_recipe(recipe, overrides or [])
    if plan:
        from bontune.cli.plan import run_plan

        run_plan(settings)
    else:
        run_train(settings)


@app.command()
def sample(
    model: given.Model,
    task: given.TaskName,
    options: given.KeyValues = None,
    out: given.PoolOut = Path("pool.parquet"),
    samples: given.Samples = 64,
    temperature: given.Temperature = 1.0,
    top_p: given.TopP = 1.0,
    max_new_tokens: given.MaxNewTokens = None,
    split: given.Split = "test",
    limit: given.Limit = None,
    shard: given.Shard = None,
    verifier: given.Verifier = "oracle",
    seed: given.Seed = 0,
    engine: given.Engine = "auto",
    served_model: given.ServedModel = None,
    api: given.Api = "auto",
    concurrency: given.Concurrency = 32,
    timeout: given.Timeout = 600,
    tries: given.Tries = 8,
    choices: given.Choices = 1,
    logprobs: given.Logprobs = False,
    extra: given.Extra = None,
) -> None:
    """Draw N completions per problem, grade and score them, and write them as a pool.

    A stopped command goes on where it was when it is given again. KEY=VALUE are options of the task. A server's
    key is read from OPENAI_API_KEY.

    Examples: bontune sample countdown-tiny countdown -o pools/base.parquet

    bontune sample http://127.0.0.1:8000/v1 jsonl data=mine.jsonl -n 16 --max-new-tokens 512
    """
    from bontune.cli.drawing import draw_with_progress, pool_request
    from bontune.engines.openai import Serving
    from bontune.pools.merge import shard_from_text

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
        shard=None if shard is None else shard_from_text(shard),
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
        engine=engine,
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
    pools: Annotated[list[Path], typer.Argument(help="Pools; the first is what the others are compared with.")],
    k: given.Budgets = None,
    solved_at: given.SolvedAt = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the numbers to this .json or .csv.")] = (
        None
    ),
) -> None:
    """Print every metric of a pool with 95 % intervals, and paired differences between pools."""
    from bontune.cli.evaluate import run_eval

    run_eval(pools, k, out, solved_at)


@app.command()
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN... | RUNS | POOL... | SWEEP", help="Run folders, a folder of runs, pools, or a sweep's folder."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write this page; default: report.html, in a given folder.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write the pools' numbers here; default: report_csv beside the page.")
    ] = None,
    k: given.Budgets = None,
    solved_at: given.SolvedAt = None,
) -> None:
    """Write one HTML page about pools and their samples, a sweep, or runs.

    Pools of the same problems are compared with the first. Example: bontune report pools/base.parquet -o base.html
    """
    from bontune.cli.report import run_report

    run_report(paths, out, csv, k, solved_at)


@app.command()
def watch(
    path: Annotated[Path, typer.Argument(metavar="RUN | FOLDER", help="A run folder, or a folder that holds runs.")],
    port: Annotated[int, typer.Option(help="Serve at this port of this machine; 0: any free one.")] = 8123,
) -> None:
    """Show a run while it trains, or all runs of a folder, as a page that keeps itself up to date.

    Example: bontune watch runs
    """
    from bontune.report.run_page import serve

    serve(path, port, on_ready=lambda address: typer.echo(f"{address}  (Ctrl-C ends it)"))


@app.command()
def sweep(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL TASK [KEY=VALUE]... | --pools POOL POOL...",
            help="A model, a task and its options; or, with --pools, two or more pools.",
            show_default=False,
        ),
    ],
    pools: Annotated[bool, typer.Option("--pools", help="Study these pools, one for each temperature.")] = False,
    temperatures: Annotated[
        str, typer.Option(help="Draw at these temperatures: 0.5,0.8,1.2 or 0.4,0.6,...,1.6.")
    ] = "0.4,0.6,...,1.6",
    samples: given.Samples = 64,
    split: given.Split = "test",
    limit: given.Limit = None,
    verifier: given.Verifier = "oracle",
    top_p: given.TopP = 1.0,
    max_new_tokens: given.MaxNewTokens = None,
    seed: given.Seed = 0,
    k: given.Budgets = None,
    budgets: Annotated[
        str | None, typer.Option(help="Give advice for these budgets in tokens per problem, such as 100,1000.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write pools, numbers and pictures here.")] = Path("sweep"),
    served_model: given.ServedModel = None,
    api: given.Api = "auto",
    concurrency: given.Concurrency = 32,
) -> None:
    """Measure how pass@N and best-of-N depend on N and temperature, and advise on both.

    Draws a pool per temperature; a stopped sweep goes on, and pools that are there are kept.

    Examples: bontune sweep countdown-tiny countdown --limit 200 -o sweep

    bontune sweep --pools a.parquet b.parquet
    """
    from bontune.cli.drawing import model_and_task, pool_request
    from bontune.engines.openai import Serving

    if pools:
        from bontune.cli.sweep import study_pools

        study_pools([Path(path) for path in arguments], out=out, ks=k, budgets=budgets)
        return
    request = pool_request(
        *model_and_task(arguments),
        samples=samples,
        max_new_tokens=max_new_tokens,
        top_p=top_p,
        split=split,
        limit=limit,
        verifier=verifier,
        seed=seed,
        serving=Serving(served_model=served_model, api=api, concurrency=concurrency),
    )
    from bontune.cli.sweep import run_sweep

    run_sweep(request, temperatures, out=out, ks=k, budgets=budgets)


@app.command()
def reproduce(
    suite: Annotated[
        str,
        typer.Argument(help="A suite (quickstart, countdown, programs, sizes, votes, math, humaneval) or a YAML file."),
    ],
    overrides: given.KeyValues = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write results here; default: results/SUITE.")] = None,
    work: Annotated[Path | None, typer.Option(help="Train in this folder; default: runs/reproduce/SUITE.")] = None,
    arms: Annotated[str | None, typer.Option(help="Run only these arms, such as bon_rl,rl; default: all.")] = None,
    workers: Annotated[int | None, typer.Option(help="Use this many processes; default: one per core.")] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; write tables and pictures of what is there.")
    ] = False,
) -> None:
    """Run an experiment of the paper: train every arm, measure all alike, and check each claim.

    A stopped suite goes on where it was; results are kept as they come. KEY=VALUE change the suite.

    Examples: bontune reproduce countdown

    bontune reproduce math recipe.model=google/gemma-2-2b recipe.task.data=DATA seeds=3
    """
    from bontune.experiments.command import run_reproduce

    run_reproduce(suite, overrides or [], out=out, work=work, arms=arms, workers=workers, is_report_only=report_only)


@app.command()
def compare(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|POOL|MODEL", help="Runs, pools or models; the first is what the others are compared with."
        ),
    ],
    samples: given.Samples = 64,
    temperature: Annotated[
        str,
        typer.Option(
            "--temperature", "-t", help="Sample at this temperature; several, as 0.6,0.8,1.0, give each one its best."
        ),
    ] = "1.0",
    split: Annotated[
        str | None,
        typer.Option(help="Take the problems of this split; default: test, else validation.", show_default=False),
    ] = None,
    limit: given.Limit = None,
    verifier: Annotated[
        str | None,
        typer.Option(help="Pick the best of k with this verifier; default: the first run's.", show_default=False),
    ] = None,
    seed: given.Seed = 0,
    k: given.Budgets = None,
    solved_at: given.SolvedAt = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write pools, numbers and pictures here.")] = Path(
        "runs/compare"
    ),
) -> None:
    """Say which run is better for Best-of-N, at which N, and whether that is more than noise.

    For runs and models, pools are drawn on the first run's task; pools that are there are kept. Pools are compared as
    they are. Differences are paired over problems, with 95 % intervals.

    Example: bontune compare runs/a runs/b countdown-tiny --limit 200
    """
    from bontune.cli.compare import run_compare
    from bontune.pools.entrants import DrawOptions

    options = DrawOptions(
        samples=samples, temperature=temperature, split=split, limit=limit, seed=seed, verifier=verifier
    )
    run_compare(arguments, options, ks=k, out=out, solved_at=solved_at)


for command in (outward.adaptive, outward.answer, outward.push, outward.export):
    app.command()(command)


@app.command()
def doctor() -> None:
    """Report the device, the versions, and whether model-written programs can be isolated here.

    The exit status is 0 if they can, and 1 if not.
    """
    from bontune.cli.doctor import run_doctor

    if not run_doctor():
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; an error becomes one sentence and an exit status that tells its kind."""
    never_fail_to_print()
    warnings.showwarning = _show_warning
    try:
        with leaving_at_once():
            app()
    except BontuneError as error:
        _fail(str(error), 2)
    except RunStopped as error:
        _fail(str(error), 1)
    except Interrupted as stop:
        sys.exit(stop.status)
    except BrokenPipeError:  # `bontune eval … | head`
        sys.stderr.close()
        sys.exit(141)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
    """Show people the sentence of a warning, and not the line of code that it comes from."""
    typer.echo(f"warning: {message}", err=True)


def _fail(message: str, status: int) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(status)
