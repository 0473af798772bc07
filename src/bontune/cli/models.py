"""``bontune models``: list the models that ship with the package, and prune a model's vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bontune.base.errors import BontuneError
from bontune.cli.terminal import PlainTyper, print_names

models_app = PlainTyper(
    help="List the models that ship with the package, or prune a model's vocabulary.", invoke_without_command=True
)


@models_app.callback()
def list_models(context: typer.Context) -> None:
    """List the models that ship with the package, or prune a model's vocabulary."""
    if context.invoked_subcommand is None:
        from bontune.models import describe

        print_names(describe())


@models_app.command("prune")
def prune_model(
    model: Annotated[str, typer.Argument(help="The model: a folder, a GGUF file or a hub id.")],
    data: Annotated[
        list[Path],
        typer.Option(
            "--data", help="Keep the tokens of this file (a text, .jsonl, .json, .csv, .parquet); repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write this folder, which must not exist yet.")],
) -> None:
    """Write a copy of a model with only the tokens that a corpus uses, which is smaller and faster.

    All texts and numbers in the files count; bytes, special tokens and the chat template's tokens are kept as well.
    Before anything is written it is checked that the corpus has the same tokens as before, and the same logits. Other
    texts lose nothing, but may be split into smaller tokens.

    Example: bontune models prune model.gguf --data train.jsonl --data test.jsonl.gz -o pruned
    """
    from bontune.models import quiet_libraries, resolve
    from bontune.tasks.reading import read_texts

    resolve(model)
    if out.exists():
        raise BontuneError(f"{out} exists already; name a folder that does not.")
    texts = [text for path in data for text in read_texts(path)]
    quiet_libraries()
    from bontune.models.prune import prune_vocabulary

    done = prune_vocabulary(model, texts, out, is_quiet=False)
    print(f"{done.num_tokens:,} of {done.num_tokens_before:,} tokens are kept.")
    print(
        f"Parameters: {done.num_parameters_before:,} before, {done.num_parameters:,} now "
        f"({done.num_bytes / 1e6:,.0f} MB)."
    )
    print(
        f"All {done.num_texts:,} texts have the same tokens as before; the largest difference of a logit is "
        f"{done.largest_difference:.1g}."
    )
    print(f"{out} holds the model.")
