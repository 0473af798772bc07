"""Writing of model folders, whole or not at all; the written weights are read back and compared."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

import bontune.models as models
from bontune.base.errors import RunStopped
from bontune.base.files import use_umask
from bontune.models import without_bars
from bontune.models.adapters import adapter_folder, is_adapted, merged_copy, save_adapter


def save_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    base: str | None = None,
    adapter: Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a plain Hugging Face folder; adapters are merged in a copy, and also written to their own folder.

    Args:
        model: a causal LM, or a peft model around one; it does not change.
        tokenizer: its tokenizer, written into each folder.
        folder: the folder to write, or to replace.
        base: name of the base model in the adapter's config; None: the name that it has already.
        adapter: the adapter's folder, inside ``folder`` or elsewhere; None: no adapter is written.
        dtype: dtype of the written weights; None: as they are.

    Raises:
        RunStopped: the written folder does not contain the weights when it is read back.
        OSError: the folder cannot be written.
    """
    plain = merged_copy(model) if is_adapted(model) else model
    temporary = _temporary(folder)
    state = {name: _as_written(tensor, dtype) for name, tensor in plain.state_dict().items()}
    with without_bars(), _savable(plain) as generation:
        plain.save_pretrained(temporary, state_dict=state)
    if generation is not None:
        (temporary / "generation_config.json").write_text(generation.to_json_string(), encoding="utf-8")
    if dtype is not None:
        _name_dtype(temporary / "config.json", dtype)
    tokenizer.save_pretrained(temporary)
    _check_written(plain, state, temporary)
    if is_adapted(model) and adapter is not None:
        is_inside = adapter.parent == folder
        part = temporary / adapter.name if is_inside else _temporary(adapter)
        save_adapter(model, part, base)
        tokenizer.save_pretrained(part)
        if not is_inside:
            _put_in_place(part, adapter)
    _put_in_place(temporary, folder)


def lasting_base(name: str, merged: Path) -> str:
    """Return a name of an adapter's base model that stays valid when it is read from another folder.

    Args:
        name: of the model that is trained.
        merged: folder for the merged base where the model is itself an adapter, which peft cannot stack; see
            :func:`write_base`.
    """
    if name in models.shipped():
        return name
    where = models.resolve(name)
    if adapter_folder(where) is not None:
        return str(merged.resolve())
    return str(Path(where).resolve()) if Path(where).exists() else name


def write_base(name: str, base: str | None, dtype: torch.dtype | None) -> None:
    """Write the merged base model where the model that is trained is itself an adapter, unless it exists already.

    Args:
        name: of the model that is trained.
        base: the result of :func:`lasting_base`; None: a loaded model, for which nothing is written.
        dtype: dtype of the weights; None: as they are.
    """
    if base is None or name in models.shipped() or Path(base).is_dir() or adapter_folder(models.resolve(name)) is None:
        return
    model, tokenizer = models.load_model(name, dtype=dtype or "auto")
    save_model(model, tokenizer, Path(base))


@contextmanager
def _savable(model: Any) -> Iterator[Any]:
    """Replace a generation config that transformers reads but refuses to write; give that config, or None.

    Some well-known models have a temperature beside ``do_sample=False``, for example.
    """
    own: Any = getattr(model, "generation_config", None)
    try:
        if own is not None:
            own.validate(strict=True)
    except ValueError:
        model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id)
        try:
            yield own
        finally:
            model.generation_config = own
    else:
        yield None


def _as_written(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _temporary(folder: Path) -> Path:
    path = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    shutil.rmtree(path, ignore_errors=True)
    return path


def _name_dtype(path: Path, dtype: torch.dtype) -> None:
    """Set the dtype of the weights in a config, and in the parts of a composite one."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    for part in (tree, *(value for value in tree.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def _put_in_place(temporary: Path, folder: Path) -> None:
    use_umask(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def _check_written(model: Any, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Load the folder as a user would, and compare each weight."""
    with without_bars():
        written = type(model).from_pretrained(folder, dtype="auto").state_dict()
    for name, tensor in state.items():
        if name not in written or not torch.equal(written[name].to(tensor.dtype), tensor.cpu()):
            raise RunStopped(
                f"The model in {folder} does not contain the weights {name} as they were trained; it is "
                "left there, and the run can be resumed from its checkpoints."
            )
