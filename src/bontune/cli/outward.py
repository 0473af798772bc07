"""Commands that lead out of the package: use Best-of-N with few draws, share a model, train elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bontune.cli import options as given


def adaptive(
    pools: Annotated[
        list[Path],
        typer.Argument(
            metavar="POOL [POOL]",
            help="A pool with scores; scores to stop at are chosen on it, measured on the second.",
        ),
    ],
    n: Annotated[
        int | None, typer.Option("-n", min=2, help="Draw N at most; default: half of the samples.", show_default=False)
    ] = None,
    round_size: Annotated[
        int, typer.Option("--round", min=1, help="Draw this many at a time before the verifier looks.")
    ] = 1,
    k: given.Budgets = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write numbers and a picture here.")] = Path("adaptive"),
) -> None:
    """Measure how many draws it saves to stop as soon as the verifier's score is high enough.

    Example: bontune adaptive validation.parquet test.parquet -n 32 --round 4
    """
    from bontune.cli.adaptive import run_adaptive

    run_adaptive(pools, n=n, round_size=round_size, ks=k, out=out)


def answer(
    model: given.Model,
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from standard input.")],
    verifier: Annotated[
        str, typer.Option(help="Pick with this verifier: majority, a reward model, file.py:function, or a judge.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="Draw N candidates.")] = 32,
    stop_at: Annotated[
        float | None,
        typer.Option(help="Draw no more once a candidate has this score; N is then the most.", show_default=False),
    ] = None,
    round_size: Annotated[
        int | None,
        typer.Option(
            "--round", min=1, help="With --stop-at, draw this many at a time; default: N / 8.", show_default=False
        ),
    ] = None,
    temperature: given.Temperature = 1.0,
    top_p: given.TopP = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="End a candidate after this many tokens.")] = 512,
    stop: Annotated[list[str] | None, typer.Option(help="End a candidate at this text; may be repeated.")] = None,
    seed: given.Seed = 0,
    shows_all: Annotated[bool, typer.Option("--all", help="Show every candidate.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print winner, candidates and scores as JSON.")] = False,
) -> None:
    """Answer one prompt by Best-of-N: draw N candidates and let the verifier pick one.

    Prints the winner, and the candidates beside it.

    Example: bontune answer countdown-tiny --verifier countdown-verifier -n 32 --max-new-tokens 24 "11,13,7,1:18="
    """
    from bontune.cli.answer import run_answer

    run_answer(
        model,
        prompt,
        verifier=verifier,
        n=n,
        stop_at=stop_at,
        round_size=round_size,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        stop=stop or [],
        seed=seed,
        shows_all=shows_all,
        is_json=is_json,
    )


def push(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hugging Face hub.")],
    what: Annotated[str, typer.Option(help="Upload this part of the run: model, adapter, or best/METRIC.")] = "model",
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
) -> None:
    """Upload a trained model to the Hugging Face hub, with a model card made from its run.

    Example: bontune push runs/a me/my-model
    """
    from bontune.training.model_card import push

    typer.echo(push(run, repository, is_private=private, what=what))


def export(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (`bontune recipes`), a YAML file, or a run folder.")],
    overrides: given.KeyValues = None,
    to: Annotated[
        str, typer.Option("--to", help="Write for this trainer: trl, a YAML file; verl, a shell script.")
    ] = "trl",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write this file; default: print.", show_default=False)
    ] = None,
) -> None:
    """Write a recipe for TRL or verl, which train on clusters.

    What has no counterpart there is said in comments at the top.

    Example: bontune export gemma2-2b-math-bon-rl-s --to verl -o train.sh
    """
    from bontune.base.files import replace_file
    from bontune.config import load_recipe

    settings = load_recipe(recipe, overrides or [])
    from bontune.integrations.export import export_recipe

    text = export_recipe(settings, to)
    if out is None:
        typer.echo(text, nl=False)
    else:
        replace_file(out, text)
        typer.echo(f"{out} is for {to}.")
