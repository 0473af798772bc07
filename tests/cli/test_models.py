"""``bontune models``: the list, and pruning with its refusals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import tiny
from bontune.models import describe, is_shipped, load_model, shipped
from commands import run_many


def test_every_shipped_model_is_listed(tmp_path: Path) -> None:
    (done,) = run_many(tmp_path, [["models"]], columns=120)
    assert {line.split()[0] for line in done.stdout.splitlines()} == describe().keys() >= set(shipped())
    assert all(map(is_shipped, describe()))


def test_a_vocabulary_is_pruned_to_files(tmp_path: Path) -> None:
    tokenizer = tiny.byte_level()
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    tiny.model("llama", vocab_size=len(tokenizer), **ids).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(json.dumps({"q": "the father", "a": 48.0}).encode()))
    (tmp_path / "notes.txt").write_text("Natalia sold clips")
    prune = ["models", "prune", "model", "--data", "rows.jsonl.gz"]
    done, again, absent, typo = run_many(
        tmp_path,
        [
            [*prune, "--data", "notes.txt", "-o", "runs/pruned"],
            [*prune, "-o", "model"],
            [*prune, "--data", "nots.txt", "-o", "other"],
            ["models", "prune", "countdown-tini", "--data", "notes.txt", "-o", "other"],
        ],
        columns=120,
    )
    assert done.returncode == 0, done.stderr
    model, pruned = load_model(tmp_path / "runs" / "pruned")
    kept, parameters, checked, written = done.stdout.splitlines()
    assert kept == f"{len(pruned)} of {len(tokenizer)} tokens are kept."
    assert f"{sum(p.numel() for p in model.parameters()):,} now (" in parameters
    assert checked.startswith("All 3 texts have the same tokens as before; the largest difference of a logit is ")
    assert written == "runs/pruned holds the model."
    assert {"Ġfather", "ĠNatalia", "Natalia", "48"} & tokenizer.get_vocab().keys() <= pruned.get_vocab().keys()
    for refused, phrase in [(again, "exists already"), (absent, "did you mean 'notes.txt'"), (typo, "countdown-tiny")]:
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: ")
        assert phrase in refused.stderr
    assert not (tmp_path / "other").exists()
