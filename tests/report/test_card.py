"""The model card says what the run says, and what is uploaded is the model with its card."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi

from bontune import Recipe, Trainer
from bontune.base.errors import BontuneError
from bontune.report.card import model_card, push


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    tree = {
        "objective": {"name": "bon_rl", "n": 4},
        "sampling": {"samples": 8, "max_new_tokens": 12},
        "training": {"steps": 2, "prompts_per_step": 2, "device": "cpu"},
        "eval": {"every": 1, "samples": 8, "k": [1, 4], "problems": 5},
        "run": str(folder),
    }
    Trainer(Recipe.from_dict(tree), is_quiet=True).train()
    return folder


def test_the_card_has_the_runs_numbers(run: Path) -> None:
    recipe = Recipe.from_dict(yaml.safe_load((run / "recipe.yaml").read_text()))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    card = model_card(recipe, evaluations)
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["bontune", "best-of-n", "bon_rl"],
    }
    assert "countdown-tiny, fine-tuned by `bon_rl` on the task `countdown`, to be used with Best-of-4" in body
    first, last = evaluations[0]["metrics"]["pass@4"], evaluations[-1]["metrics"]["pass@4"]
    (line,) = [line for line in body.splitlines() if line.startswith("| pass@4 |")]
    assert f"| {first:.3f} [" in line
    assert f"| {last:.3f} [" in line
    hub = model_card(recipe.model_copy(update={"model": "google/gemma-2-2b"}), [])
    assert yaml.safe_load(hub.split("---\n")[1])["base_model"] == "google/gemma-2-2b"
    assert "What training changed" not in hub
    several = recipe.model_copy(update={"objective": recipe.objective.model_copy(update={"n": {1: 0.5, 4: 0.5}})})
    assert "with N = 1 (50 %) and 4 (50 %) samples, of which a verifier picks one." in model_card(several, [])


@pytest.mark.parametrize("what", ["best/pass@1", "best/pass@1/adapter"])
def test_the_card_of_a_kept_model_has_the_numbers_of_its_own_step(
    what: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equally good evaluations the earliest was kept; the last step was worse."""
    recipe = Recipe.from_dict(yaml.safe_load((run / "recipe.yaml").read_text()) | {"run": str(tmp_path)})
    recipe = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"keep": ["pass@1", "pass@4"]})})
    values = [(0.2, 0.5), (0.312, 0.4), (0.312, 0.6), (0.0, 0.3)]
    rows = [
        {"kind": "eval", "step": step, "metrics": {"pass@1": one, "pass@4": four, "best@4": four}, "intervals": {}}
        for step, (one, four) in enumerate(values)
    ]
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / what).mkdir(parents=True)
    for name in ("create_repo", "upload_folder"):
        monkeypatch.setattr(HfApi, name, lambda *given, **named: None)
    push(tmp_path, "me/mine", what=what)
    card = (tmp_path / what / "README.md").read_text()
    assert "| metric | before (step 0) | after (step 1) |" in card
    assert "| pass@1 | 0.200 | 0.312 |" in card
    assert "that of step 1, the best evaluation of the run by pass@1" in card
    last = model_card(recipe, rows)
    assert "| pass@1 | 0.200 | 0.000 |" in last
    assert "best evaluation" not in last


def test_what_is_uploaded_is_the_model_with_its_card(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    for name in ("create_repo", "upload_folder"):
        real = inspect.signature(getattr(HfApi, name))

        def record(*given: Any, _name: str = name, _real: inspect.Signature = real, **named: Any) -> None:
            calls.append((_name, dict(_real.bind(*given, **named).arguments)))

        monkeypatch.setattr(HfApi, name, record)
    assert push(run, "me/mine", is_private=True).endswith("/me/mine")
    (made, repository), (sent, folder) = calls
    assert (made, repository["repo_id"], repository["private"]) == ("create_repo", "me/mine", True)
    assert (sent, folder["folder_path"]) == ("upload_folder", run / "model")
    files = {path.name for path in (run / "model").iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= files


def test_what_cannot_be_uploaded_is_said(run: Path) -> None:
    with pytest.raises(BontuneError, match="has no adapter: let `bontune train"):
        push(run, "me/mine", what="adapter")
    with pytest.raises(BontuneError, match="could not be uploaded to not a name"):
        push(run, "not a name")
