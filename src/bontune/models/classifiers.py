"""Sequence classifiers: models with one number, or one per label, for a whole text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import bontune.models as models
from bontune.base.errors import BontuneError
from bontune.models.adapters import AdapterFile, adapter_folder, is_of_classifier, load_merged, whole_model_of
from bontune.models.gguf import is_gguf
from bontune.models.precision import cpu_dtype

if TYPE_CHECKING:
    import torch


def load_classifier(
    name_or_path: str | Path, *, dtype: str | torch.dtype = "auto", new_head: bool = False
) -> tuple[Any, Any]:
    """Load a sequence classifier and its tokenizer.

    Args:
        name_or_path: a shipped name, a folder in Hugging Face format, or a hub id; an adapter is merged into its base.
        dtype: dtype of the weights; "auto": as they were saved, but float32 if the CPU has no arithmetic of it.
        new_head: add a new head with one label to the model, which may be a causal language model or an encoder; its
            weights are drawn from torch's global generator.

    Returns:
        (model, tokenizer): the model in evaluation mode, on the CPU.

    Raises:
        BontuneError: there is no such model, it cannot be read, or, without ``new_head``, it has no trained head.
    """
    where = models.resolve(name_or_path)
    models.check_reachable(where)
    if dtype == "auto":
        dtype = cpu_dtype(name_or_path) or dtype
    try:
        model, missing = _read(where, dtype, num_labels=1 if new_head else None)
        tokenizer = _read_tokenizer(where)
    except BontuneError:
        raise
    except Exception as error:  # hub, files and weights fail in many types, tokenizers even in bare Exception
        raise BontuneError(models._load_failure(str(name_or_path), where, error)) from error
    if missing and not new_head:
        raise BontuneError(
            f"{name_or_path} is not a verifier: it contains no trained {sorted(missing)[0]}; fit one on it "
            f"with `bontune verify fit POOL --model {name_or_path} --out FOLDER`."
        )
    return model.eval(), tokenizer


def _read(where: str, dtype: str | torch.dtype, *, num_labels: int | None) -> tuple[Any, set[str]]:
    """Return a classifier with adapters merged in, and the names of weights that are in no file.

    ``num_labels`` None keeps the number of labels.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification

    options: dict[str, Any] = {} if num_labels is None else {"num_labels": num_labels, "ignore_mismatched_sizes": True}
    adapter = adapter_folder(where)
    if adapter is not None and is_of_classifier(adapter):
        file = AdapterFile.in_folder(adapter)
        with whole_model_of(adapter) as base:
            model, missing = _read(models.resolve(base), dtype, num_labels=file.num_labels() or num_labels)
        merged = load_merged(model, adapter, _read_tokenizer(where) if models.has_tokenizer(adapter) else None)
        missing -= file.shapes.keys()
        return merged, missing
    with models.without_bars():
        if adapter is None and not is_gguf(where):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                where, dtype=dtype, output_loading_info=True, **options
            )
        else:
            plain = models._read(where, dtype, needs_tokenizer=False)[0]
            plain.config.num_labels = num_labels or 1
            kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(plain.config)]
            model, report = kind.from_pretrained(
                None, config=plain.config, state_dict=plain.state_dict(), dtype=dtype, output_loading_info=True
            )
    return model, set(report["missing_keys"])


def _read_tokenizer(where: str) -> Any:
    """Load the tokenizer of a model's folder, or the base model's for an adapter without its own."""
    adapter = adapter_folder(where)
    if adapter is not None and not models.has_tokenizer(adapter):
        with whole_model_of(adapter) as base:
            return _read_tokenizer(models.resolve(base))
    return models._read_tokenizer(where if adapter is None else str(adapter))
