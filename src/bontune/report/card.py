"""The model card of a trained model: what it was trained for, on what, and what that bought."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bontune.base.errors import BontuneError
from bontune.config import Recipe, read_recipe
from bontune.objectives.budgets import Budgets, in_words
from bontune.training.evaluation import BestSteps
from bontune.training.read_log import METRICS


def model_card(recipe: Recipe, evaluations: Sequence[Mapping[str, Any]], *, kept: str | None = None) -> str:
    """The card as Markdown with the hub's metadata on top.

    Args:
        recipe: of the run.
        evaluations: the rows of its evaluations in ``metrics.jsonl``, the first from before training.
        kept: the metric of ``eval.keep`` by which the model is the best of the run; None: it is that of the last step.
    """
    after = evaluations[-1] if evaluations and kept is None else _kept_row(recipe, evaluations, kept)
    objective = recipe.objective.name
    row = recipe.objective.row()
    is_path = Path(recipe.model).exists()
    metadata: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["bontune", "best-of-n", objective],
    }
    if "/" in recipe.model and not is_path:
        metadata["base_model"] = recipe.model
    base = Path(recipe.model).name if is_path else recipe.model
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False).strip(),
        "---",
        "",
        f"# {Path(recipe.run).name}",
        "",
        f"{base}, fine-tuned by `{objective}` on the task `{recipe.task.name}`" + _use(recipe.objective.n_at()),
        "",
        f"* **Objective**: {row.summary} {row.source}",
        f"* **Verifier in training**: `{recipe.verifier.name}`",
        f"* **Training**: {recipe.training.steps} steps of {recipe.training.prompts_per_step} prompts with "
        f"{recipe.sampling.samples} samples each, at temperature {recipe.sampling.temperature:g}",
    ]
    if kept is not None and after is not None:
        lines.append(f"* **This model**: that of step {after['step']}, the best evaluation of the run by {kept}")
    measured = [] if after is None or len(evaluations) < 2 else _measured(recipe, evaluations[0], after)
    return "\n".join([*lines, *measured]) + "\n"


def _kept_row(recipe: Recipe, evaluations: Sequence[Mapping[str, Any]], kept: str | None) -> Mapping[str, Any] | None:
    """The evaluation at which the best model by a metric was kept, found as the run has found it."""
    best = BestSteps(recipe)
    found = None
    for row in evaluations:
        if kept in best.note(row["step"], row["metrics"]):
            found = row
    return found


def _use(n: Budgets) -> str:
    """How the model is to be sampled, as the end of a sentence."""
    if isinstance(n, Mapping):
        return f", to be used with N = {in_words(n)} samples, of which a verifier picks one."
    return f", to be used with Best-of-{n}: draw {n} answers and let a verifier pick one." if n > 1 else "."


def _measured(recipe: Recipe, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    split = recipe.eval.split or "validation, or test where there is none"
    lines = [
        "",
        "## What training changed",
        "",
        f"Held-out problems (split: {split}), {recipe.eval.samples} samples each at temperature "
        f"{recipe.eval.temperature:g}; in brackets 95 % intervals over problems.",
        "",
        f"| metric | before (step {before['step']}) | after (step {after['step']}) |",
        "|---|---|---|",
    ]
    for name in after["metrics"]:
        if "@" in name and name in before["metrics"]:
            lines.append(f"| {name} | {_written(before, name)} | {_written(after, name)} |")
    return lines


def _written(row: Mapping[str, Any], name: str) -> str:
    value, span = row["metrics"][name], row.get("intervals", {}).get(name)
    return f"{value:.3f}" + (f" [{span[0]:.3f}, {span[1]:.3f}]" if span else "")


def push(run: Path, repository: str, *, is_private: bool = False, what: str = "model") -> str:
    """Upload what a finished run has written to the Hugging Face hub, with its model card.

    Args:
        run: the run's folder.
        repository: ``owner/name``; made if it is not there.
        is_private: of a new repository.
        what: ``model``, ``adapter``, or a kept model such as ``best/pass@16``, or its adapter.

    Returns:
        The address of the repository.

    Raises:
        BontuneError: the run has not written that, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = run / what
    if not folder.is_dir():
        raise BontuneError(f"{run} has no {what}: let `bontune train {run}` finish, or name what it has written.")
    recipe = Recipe.from_dict(read_recipe(str(run)))
    rows = [json.loads(line) for line in (run / METRICS).read_text(encoding="utf-8").splitlines()]
    parts = Path(what).parts
    kept = parts[1] if len(parts) > 1 and parts[0] == "best" else None
    card = model_card(recipe, [row for row in rows if row["kind"] == "eval"], kept=kept)
    (folder / "README.md").write_text(card, encoding="utf-8")
    api = HfApi()
    try:
        api.create_repo(repository, private=is_private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Trained with bontune")
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        cause = str(error).strip().partition("\n")[0]
        raise BontuneError(
            f"{folder} could not be uploaded to {repository}: {cause}; log in with `hf auth login`, and see that the "
            "name is yours."
        ) from error
    return f"{api.endpoint}/{repository}"
