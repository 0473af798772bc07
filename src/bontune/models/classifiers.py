"""Sequence classifiers: models with one number, or one per label, for a whole text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import bontune.models as models
from bontune.base.errors import BontuneError
from bontune.models.precision import cpu_dtype

if TYPE_CHECKING:
    import torch


def load_classifier(
    name_or_path: str | Path, *, dtype: str | torch.dtype = "auto", new_head: bool = False
) -> tuple[Any, Any]:
    """Load a sequence classifier and its tokenizer.

    Args:
        name_or_path: a shipped name, a folder in Hugging Face format, or a hub id.
        dtype: of the weights; "auto": as they were saved, but float32 where the CPU has no arithmetic of that kind.
        new_head: put a fresh head with one label on the model, which may be a causal language model or an encoder; its
            weights come from torch's global generator.

    Returns:
        (model, tokenizer): the model in evaluation mode, on the CPU.

    Raises:
        BontuneError: there is no such model, it cannot be read, or, without ``new_head``, it has no trained head.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

    where = models.resolve(name_or_path)
    models.check_reachable(where)
    if dtype == "auto":
        dtype = cpu_dtype(name_or_path) or dtype
    options: dict[str, Any] = {"num_labels": 1, "ignore_mismatched_sizes": True} if new_head else {}
    try:
        loader = PreTrainedTokenizerFast if models._has_own_tokenizer(Path(where)) else AutoTokenizer
        tokenizer = loader.from_pretrained(where)
        with models.without_bars():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                where, dtype=dtype, output_loading_info=True, **options
            )
    except Exception as error:  # an edge: hub, files and weights fail in many types, tokenizers even in bare Exception
        raise BontuneError(models._load_failure(str(name_or_path), where, error)) from error
    if report["missing_keys"] and not new_head:
        raise BontuneError(
            f"{name_or_path} is no verifier: it holds no trained {sorted(report['missing_keys'])[0]}; make one of it "
            f"with `bontune verify fit POOL --model {name_or_path} --out FOLDER`."
        )
    return model.eval(), tokenizer
