"""Adapters (peft) as they lie on disk: which folder holds one, the model it belongs to, and the two merged."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from bontune.base.errors import BontuneError
from bontune.models.adapters import ADAPTER_CONFIG, merged_copy, of_tied_layers_at_ease

_SAFE, _PICKLED = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
"""Before each name in an adapter's file."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter; a config beside its weights, or a whole model, does not make it another."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return False
    return not (folder / "config.json").is_file() or any((folder / name).is_file() for name in (_SAFE, _PICKLED))


def adapter_folder(where: str) -> Path | None:
    """The folder of an adapter, of one on the hub as well, which is fetched; None if ``where`` is another model."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from transformers.utils import cached_file

    if Path(where).is_dir():
        return Path(where) if is_adapter(Path(where)) else None
    config, own = (isinstance(try_to_load_from_cache(where, name), str) for name in ("config.json", ADAPTER_CONFIG))
    if config and not own:
        return None  # a model that was fetched before: the hub need not be asked
    quiet = ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors")
    if cached_file(where, ADAPTER_CONFIG, **dict.fromkeys((*quiet, "_raise_exceptions_for_gated_repo"), False)) is None:
        return None
    return Path(snapshot_download(where, allow_patterns=["adapter_*", "*token*", "*.model", "vocab*", "merges.txt"]))


def base_of(folder: Path) -> str:
    """The model that an adapter belongs to; a relative folder counts from here, or else from the adapter's folder.

    Raises:
        BontuneError: the adapter does not say.
    """
    named = _config(folder).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise BontuneError(
            f"{folder / ADAPTER_CONFIG} does not say which model it adapts: write its folder or hub id there as "
            "base_model_name_or_path."
        )
    beside = folder / named
    return str(beside) if not Path(named).is_dir() and beside.is_dir() else named


def outer_base(where: str) -> str | None:
    """The base model of an adapter that lies elsewhere; None for any other model, and where both lie in one folder."""
    folder = adapter_folder(where)
    base = None if folder is None else base_of(folder)
    return None if folder is None or base is None or _is_same(base, folder) else base


def _is_same(base: str, folder: Path) -> bool:
    return Path(base).is_dir() and os.path.samefile(base, folder)


@contextmanager
def whole_model_of(folder: Path) -> Iterator[str]:
    """The base model of an adapter as a name to load; one in the adapter's own folder is shown without the adapter."""
    base = base_of(folder)
    if not _is_same(base, folder):
        yield base
        return
    with tempfile.TemporaryDirectory() as alone:
        for path in folder.iterdir():
            if path.is_file() and not path.name.startswith("adapter_"):
                (Path(alone) / path.name).symlink_to(path.resolve())
        yield alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What an adapter's file holds, by name."""

    shapes: dict[str, tuple[int, ...]]
    """Shape of each tensor."""

    @classmethod
    def in_folder(cls, folder: Path) -> Held:
        """Read the names and shapes; the tensors stay on disk."""
        if (folder / _SAFE).is_file():
            with safe_open(folder / _SAFE, framework="pt") as opened:
                shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        else:
            state = torch.load(folder / _PICKLED, map_location="meta", weights_only=True)
            shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        return cls(shapes={name.removeprefix(_PREFIX): shape for name, shape in shapes.items()})

    def num_tokens(self, model: Any) -> int | None:
        """Size of the vocabulary of the model that was adapted; None if no tensor tells."""
        ends = [model.get_input_embeddings(), model.get_output_embeddings()]
        names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
        for name, shape in self.shapes.items():
            owner = next((owner for owner in names if name.startswith(f"{owner}.")), None)
            part = "" if owner is None else name.removeprefix(f"{owner}.")
            if (part.endswith("weight") and "lora_" not in part) or part.startswith("lora_B."):
                return shape[0]
            if part.startswith("lora_embedding_A"):
                return shape[-1]
        return None

    def num_labels(self) -> int | None:
        """Number of labels of the head that was trained with the adapter; None if the file has no head."""
        heads = [n for n in self.shapes if n.endswith("weight") and "lora_" not in n and HEADS & {*n.split(".")}]
        return self.shapes[heads[-1]][0] if heads else None


HEADS = {"score", "classifier", "classification_head", "out_proj", "summary"}
"""What sequence classifiers call their heads."""


def is_of_classifier(folder: Path) -> bool:
    """Whether an adapter was made on a sequence classifier."""
    task = _config(folder).get("task_type")
    return bool(task == "SEQ_CLS") if task else Held.in_folder(folder).num_labels() is not None


def load_merged(model: Any, folder: Path, tokenizer: Any = None) -> Any:
    """The plain model that an adapter's folder makes of its base model.

    Args:
        model: the base; it gets rows for tokens that were added before the adapter was made.
        folder: of the adapter.
        tokenizer: the adapter's own, if its folder has one.

    Raises:
        BontuneError: an adapter of a kind that cannot be merged into weights.

    Warns:
        UserWarning: tokens were added, and the adapter does not hold what was learned of them.
    """
    from peft import PeftConfig, PeftModel

    kind = PeftConfig.from_pretrained(str(folder))
    _add_tokens(model, folder, tokenizer)
    refused = BontuneError(
        f"The adapter in {folder} is of the kind {getattr(kind.peft_type, 'value', kind.peft_type)}, which cannot be "
        "merged into the weights of a model; take one that can be, such as LoRA."
    )
    if kind.is_prompt_learning:
        raise refused
    with of_tied_layers_at_ease():
        adapted = PeftModel.from_pretrained(model, str(folder))
    try:
        return merged_copy(adapted).requires_grad_(True)
    except (NotImplementedError, AttributeError):  # peft's way of saying that this kind has no such method
        raise refused from None


def _add_tokens(model: Any, folder: Path, tokenizer: Any) -> None:
    """Make the vocabulary of a base model as large as it was when the adapter was made."""
    now = int(model.get_input_embeddings().weight.shape[0])
    held = Held.in_folder(folder).num_tokens(model)
    wanted = held if held is not None else max(now, 0 if tokenizer is None else len(tokenizer))
    if wanted == now:
        return
    if held is None:
        warnings.warn(
            f"The tokenizer of the adapter in {folder} has {wanted - now} tokens more than its base model, and the "
            "adapter does not hold their embeddings: they are the mean of the others.",
            stacklevel=4,
        )
    with torch.random.fork_rng(devices=[]):  # rows that are not held begin about the mean, the same ones each time
        torch.manual_seed(0)
        model.resize_token_embeddings(wanted, mean_resizing=held is None)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BontuneError(f"{folder / ADAPTER_CONFIG} does not say which model it adapts.") from error
    if not isinstance(found, dict):
        raise BontuneError(f"{folder / ADAPTER_CONFIG} does not say which model it adapts.")
    return found
