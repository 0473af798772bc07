"""Arguments and options that several commands share, so that one word means one thing in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bontune.base.errors import BontuneError


def _server(text: str, *names: str) -> Any:
    """Declare an option that matters only where the model is a server."""
    return typer.Option(*names, help=text, rich_help_panel="Options for servers")


RecipeSource = Annotated[
    str, typer.Argument(help="A shipped recipe (`bontune recipes`), a YAML file, or a run folder.")
]
KeyValues = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change, as key=value.", show_default=False)
]
Model = Annotated[
    str,
    typer.Argument(
        help="The model: a shipped one, a folder, a GGUF file, a hub id, or a server such as http://host/v1."
    ),
]
TaskName = Annotated[str, typer.Argument(help="The task's name; `bontune tasks` lists them.")]

Samples = Annotated[int, typer.Option("--samples", "-n", help="Draw this many completions per problem.")]
Temperature = Annotated[float, typer.Option("--temperature", "-t", help="Sample at this temperature; 0 is greedy.")]
TopP = Annotated[float, typer.Option(help="Sample from the smallest set of tokens with this probability.")]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(help="End a completion after this many tokens; the task sets the default.", show_default=False),
]
Split = Annotated[str, typer.Option(help="Take the problems of this split.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Take only the first problems, this many.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Seed for sampling; the same seed draws the same completions.")]
Budgets = Annotated[
    str | None, typer.Option("--k", help="Report these numbers of samples, such as 1,4,16; default: powers of two.")
]
SolvedAt = Annotated[
    float | None,
    typer.Option(
        help="Count a sample as solved from this reward on; default: 1, or the larger of two values.",
        show_default=False,
    ),
]
Verifier = Annotated[
    str,
    typer.Option(
        help="Score completions with this verifier: oracle, majority, a reward model (name, folder or hub id), "
        "file.py:function, or http://host/v1#model."
    ),
]
ResultsFolder = Annotated[Path, typer.Option("--out", "-o", help="Write pools, numbers and pictures here.")]

Shard = Annotated[
    str | None,
    typer.Option(
        help="Draw the i-th of n shards, as i/n; `bontune pools merge` puts them together.", show_default=False
    ),
]
PoolOut = Annotated[Path, typer.Option("--out", "-o", help="Write this pool: .parquet or .jsonl.")]
Engine = Annotated[
    str, typer.Option(help="Draw with transformers or vllm (a GPU's engine; pip install 'bontune[vllm]').")
]
ServedModel = Annotated[str | None, _server("Name of the model on the server; default: the only one it serves.")]
Api = Annotated[str, _server("Call this API: chat, completions, or auto (chat where a problem has messages).")]
Concurrency = Annotated[int, _server("Keep this many requests in flight, to each server.")]
Timeout = Annotated[float, _server("Give up on a request after this many seconds.")]
Tries = Annotated[int, _server("Send a failing request at most this many times.")]
Choices = Annotated[int, _server("Ask for this many completions in one request (the field n).")]
Logprobs = Annotated[bool, _server("Ask the server for log-probabilities.", "--logprobs")]
Extra = Annotated[str | None, _server('Add these fields to each request, as JSON such as {"top_k": 20}.')]


def require_there(paths: Sequence[Path]) -> None:
    """Refuse a path at which nothing is, before libraries are loaded that take seconds.

    Raises:
        BontuneError: there is no file and no folder at one of the paths.
    """
    for path in paths:
        if not path.exists():
            raise BontuneError(f"There is no pool at {path}.")
