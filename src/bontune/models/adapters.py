"""LoRA adapters (peft): added to a model, merged into a copy, written, and read from folders; copies of models."""

from __future__ import annotations

import copy
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from bontune.base.errors import BontuneError, did_you_mean

ADAPTER_CONFIG = "adapter_config.json"


def is_adapted(model: Any) -> bool:
    """Return whether a model is a peft model."""
    return hasattr(model, "get_base_model")


def add_lora(
    model: Any, *, r: int, alpha: float, targets: str | Sequence[str], layers: Sequence[int] | None = None
) -> Any:
    """Add low-rank adapters to a model (Hu et al., arXiv 2106.09685) and freeze its own weights.

    Args:
        model: a causal LM.
        r: rank.
        alpha: the adapters' update is multiplied by alpha / r.
        targets: names of the modules to adapt, or ``all-linear``.
        layers: decoder layers that get adapters, counted from 0; None: all, and modules outside the layers.

    Returns:
        The peft model; the adapters' weights are drawn from torch's global generator.

    Raises:
        BontuneError: a name is that of no module, or of a module that takes no adapter; or the model lacks a layer.
    """
    from peft import LoraConfig, get_peft_model

    chosen = check_targets(model, targets, layers)
    options: dict[str, Any] = {}
    if layers is not None:
        # peft refuses layers together with all-linear, and adapts a head that is named although it is in no layer. The
        # list of layers is named, because others, such as experts, have numbers as well.
        if targets == "all-linear":
            targets = sorted({name.rpartition(".")[2] for name in chosen})
        named = [targets] if isinstance(targets, str) else targets
        targets = [t for t in named if any(f".{name}".endswith(f".{t}") for name in chosen)]
        pattern = decoder_layers(model)[0].rpartition(".")[2]
        options = {"layers_to_transform": list(layers), "layers_pattern": [pattern]}
    if targets != "all-linear":
        targets = [targets] if isinstance(targets, str) else list(targets)
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM", **options)
    with of_tied_layers_at_ease():
        return get_peft_model(model, config)


@contextmanager
def of_tied_layers_at_ease() -> Iterator[None]:
    """Silence peft's warnings about an adapter on one of two tied layers, which merging unties here.

    Its warning about a property of transformers that peft reads under an old name is silenced as well.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            message=".*(tie_word_embeddings|save_embedding_layers|Could not find a config|is_gradient_checkpointing).*",
        )
        yield


def decoder_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """Return the list of a model's decoder layers, with its name.

    Args:
        model: a causal LM, or a peft model around one, whose names are returned then.

    Raises:
        BontuneError: the model has no list of its layers.
    """
    core = model.get_base_model() if is_adapted(model) else model
    count = core.config.get_text_config().num_hidden_layers
    decoder = core.get_decoder()
    lists = [m for m in decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    name = next((name for name, module in model.named_modules() if lists and module is lists[0]), None)
    if name is None:
        raise BontuneError(f"training.lora.layers: {type(core).__name__} has no list of its layers; leave layers out.")
    return name, lists[0]


def check_targets(model: Any, targets: str | Sequence[str], layers: Sequence[int] | None = None) -> list[str]:
    """Return the names of the modules that adapters would be added to.

    Args:
        model, targets, layers: as for :func:`add_lora`.

    Raises:
        BontuneError: a name is that of no module, or of a module that takes no adapter; or the model lacks a layer.
    """
    chosen = _named_targets(model, targets)
    if layers is None:
        return chosen
    pattern, existing = decoder_layers(model)
    outside = [layer for layer in layers if layer >= len(existing)]
    if outside:
        raise BontuneError(
            f"training.lora.layers: the model has no layer {outside[0]}; its layers are 0 to {len(existing) - 1}."
        )
    starts = tuple(f"{pattern}.{layer}." for layer in layers)
    inside = [name for name in chosen if name.startswith(starts)]
    if not inside:
        raise BontuneError(
            "training.lora: none of the targets is in the chosen layers; choose other targets or layers."
        )
    return inside


def _named_targets(model: Any, targets: str | Sequence[str]) -> list[str]:
    """Return the names of the modules that ``targets`` names, in all layers and outside."""
    from transformers.pytorch_utils import Conv1D

    modules = {name: module for name, module in model.named_modules() if name}
    adaptable = (nn.Linear, nn.Embedding, nn.Conv1d, Conv1D)
    if targets == "all-linear":
        head = model.get_output_embeddings()
        return [name for name, m in modules.items() if isinstance(m, (nn.Linear, Conv1D)) and m is not head]
    names = sorted({name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, adaptable)})
    there_are = f"there are {', '.join(names)}, and all-linear"
    if not targets:
        raise BontuneError(f"training.lora.targets must name at least one module; {there_are}.")
    chosen = []
    for target in [targets] if isinstance(targets, str) else targets:
        matches = [name for name in modules if name == target or name.endswith(f".{target}")]
        if not matches:
            hint = did_you_mean(target, names)
            raise BontuneError(f"training.lora.targets: the model has no module {target!r}{hint}; {there_are}.")
        wrong = next((modules[name] for name in matches if not isinstance(modules[name], adaptable)), None)
        if wrong is not None:
            raise BontuneError(
                f"training.lora.targets: {target!r} is a {type(wrong).__name__}, which takes no adapter; {there_are}."
            )
        chosen += matches
    return chosen


def merged_copy(model: Any) -> Any:
    """Return a plain model that computes the same as a peft model, which does not change.

    Only weights that an adapter changes are copied, others are shared. Where an adapter is on one of two tied
    layers, they are untied: the other layer keeps the weights that it has in the peft model.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    changed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, BaseTunerLayer)
        for parameter in module.parameters()
    }
    shared = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in changed}
    merged = copy.deepcopy(model, {**left_states(model), **shared})
    _untie_layers(merged)
    with of_tied_layers_at_ease():
        return merged.merge_and_unload()


def _untie_layers(model: Any) -> None:
    """Give an adapted layer that shares its weight with another module its own copy."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        weight = module._parameters.get("weight")
        if weight is not None:
            owners.setdefault(id(weight), []).append(module)
    is_parted = False
    for module in model.modules():
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else None
        weight = None if base is None else base._parameters.get("weight")
        if base is not None and weight is not None and len(owners[id(weight)]) > 1:
            owners[id(weight)].remove(base)
            base.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            is_parted = True
    if is_parted:
        config = model.get_base_model().config
        for part in {id(c): c for c in (config, config.get_text_config())}.values():
            part.tie_word_embeddings = False


def save_adapter(model: Any, folder: Path, base: str | None) -> None:
    """Write an adapter's folder; ``base`` names its base model, None keeps the name in the adapter's config."""
    names = {key: config.base_model_name_or_path for key, config in model.peft_config.items()}
    try:
        for config in model.peft_config.values():
            config.base_model_name_or_path = base or config.base_model_name_or_path
        # Our own adapters do not change the base's embedding; peft would look for its size on the hub.
        with of_tied_layers_at_ease():
            model.save_pretrained(folder, save_embedding_layers="auto" if base is None else False)
    finally:
        for key, config in model.peft_config.items():
            config.base_model_name_or_path = names[key]


def copy_with(model: Any, parameters: Mapping[int, nn.Parameter]) -> Any:
    """Return a copy of a model with other parameters; buffers are shared, tied layers stay tied.

    Args:
        model: the original, which does not change.
        parameters: the new parameter for the ``id`` of each old one.
    """
    shared = {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, {**left_states(model), **parameters, **shared})


def left_states(model: nn.Module) -> dict[int, Tensor]:
    """Return tensors that the last forward pass stored in a model's modules, without their graph, by ``id``.

    Some recurrent layers (RecurrentGemma's) keep their state as an attribute; with a graph it could not be copied.
    """
    values = (value for module in model.modules() for value in vars(module).values())
    return {id(value): value.detach() for value in values if isinstance(value, Tensor) and value.grad_fn is not None}


def linear_only(model: nn.Module) -> set[int]:
    """Return the ``id`` of each parameter that only linear layers use, without embeddings tied to one of them."""
    linear: set[int] = set()
    other: set[int] = set()
    for module in model.modules():
        (linear if isinstance(module, nn.Linear) else other).update(id(p) for p in module.parameters(recurse=False))
    return linear - other


_SAFE, _PICKLED = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
"""Prefix of each name in an adapter's file."""


def is_adapter(folder: Path) -> bool:
    """Return whether a folder contains an adapter, also if a config or a whole model lies beside its weights."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return False
    return not (folder / "config.json").is_file() or any((folder / name).is_file() for name in (_SAFE, _PICKLED))


def adapter_folder(where: str) -> Path | None:
    """Return the folder of an adapter, which is fetched if it is on the hub; None if ``where`` is another model."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from transformers.utils import cached_file

    if Path(where).exists():  # a folder, or a GGUF file
        return Path(where) if is_adapter(Path(where)) else None
    config, own = (isinstance(try_to_load_from_cache(where, name), str) for name in ("config.json", ADAPTER_CONFIG))
    if config and not own:
        return None  # a model in the cache: no request to the hub is needed
    quiet = ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors")
    if cached_file(where, ADAPTER_CONFIG, **dict.fromkeys((*quiet, "_raise_exceptions_for_gated_repo"), False)) is None:
        return None
    return Path(snapshot_download(where, allow_patterns=["adapter_*", "*token*", "*.model", "vocab*", "merges.txt"]))


def base_of(folder: Path) -> str:
    """Return an adapter's base model; a relative path counts from the working directory or the adapter's folder.

    Raises:
        BontuneError: the adapter's config names no base model.
    """
    name = _config(folder).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise BontuneError(
            f"{folder / ADAPTER_CONFIG} does not say which model it adapts: write its folder or hub id there as "
            "base_model_name_or_path."
        )
    beside = folder / name
    return str(beside) if not Path(name).exists() and beside.exists() else name


def outer_base(where: str) -> str | None:
    """Return the base model of an adapter if it lies elsewhere; None for any other model, or one in the same folder."""
    folder = adapter_folder(where)
    base = None if folder is None else base_of(folder)
    return None if folder is None or base is None or _is_same(base, folder) else base


def _is_same(base: str, folder: Path) -> bool:
    return Path(base).is_dir() and os.path.samefile(base, folder)


@contextmanager
def whole_model_of(folder: Path) -> Iterator[str]:
    """Give an adapter's base model as a name to load; a base in the adapter's folder is linked without the adapter."""
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
class AdapterFile:
    """The names and shapes of the tensors in an adapter's file."""

    shapes: dict[str, tuple[int, ...]]
    """Shape of each tensor."""

    @classmethod
    def in_folder(cls, folder: Path) -> AdapterFile:
        """Read names and shapes; the tensors stay on the disk."""
        if (folder / _SAFE).is_file():
            with safe_open(folder / _SAFE, framework="pt") as opened:
                shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        else:
            state = torch.load(folder / _PICKLED, map_location="meta", weights_only=True)
            shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        return cls(shapes={name.removeprefix(_PREFIX): shape for name, shape in shapes.items()})

    def num_tokens(self, model: Any) -> int | None:
        """Return the vocabulary size of the adapted model; None if it follows from no tensor."""
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
        """Return the number of labels of the head in the adapter's file; None if the file has no head."""
        heads = [n for n in self.shapes if n.endswith("weight") and "lora_" not in n and HEADS & {*n.split(".")}]
        return self.shapes[heads[-1]][0] if heads else None


HEADS = {"score", "classifier", "classification_head", "out_proj", "summary"}
"""Names of the heads of sequence classifiers."""


def is_of_classifier(folder: Path) -> bool:
    """Return whether an adapter belongs to a sequence classifier."""
    task = _config(folder).get("task_type")
    return bool(task == "SEQ_CLS") if task else AdapterFile.in_folder(folder).num_labels() is not None


def load_merged(model: Any, folder: Path, tokenizer: Any = None) -> Any:
    """Return a plain model with an adapter merged into its base model.

    Args:
        model: the base model, which is extended by tokens that were added before the adapter was made.
        folder: the adapter's folder.
        tokenizer: the adapter's own tokenizer, if its folder has one.

    Raises:
        BontuneError: this kind of adapter cannot be merged into weights.

    Warns:
        UserWarning: tokens were added, and the adapter does not contain their embeddings.
    """
    from peft import PeftConfig, PeftModel

    kind = PeftConfig.from_pretrained(str(folder))
    _add_tokens(model, folder, tokenizer)
    refusal = BontuneError(
        f"The adapter in {folder} is of the kind {getattr(kind.peft_type, 'value', kind.peft_type)}, which cannot be "
        "merged into the weights of a model; take one that can be, such as LoRA."
    )
    if kind.is_prompt_learning:
        raise refusal
    with of_tied_layers_at_ease():
        adapted = PeftModel.from_pretrained(model, str(folder))
    try:
        return merged_copy(adapted).requires_grad_(True)
    except (NotImplementedError, AttributeError):  # peft raises these if the kind has no such method
        raise refusal from None


def _add_tokens(model: Any, folder: Path, tokenizer: Any) -> None:
    """Make the vocabulary of a base model as large as it was when the adapter was made."""
    now = int(model.get_input_embeddings().weight.shape[0])
    size = AdapterFile.in_folder(folder).num_tokens(model)
    target = size if size is not None else max(now, 0 if tokenizer is None else len(tokenizer))
    if target == now:
        return
    if size is None:
        warnings.warn(
            f"The tokenizer of the adapter in {folder} has {target - now} tokens more than its base model, and the "
            "adapter does not contain their embeddings: they are the mean of the others.",
            stacklevel=4,
        )
    with torch.random.fork_rng(devices=[]):  # rows without saved weights start near the mean, the same each time
        torch.manual_seed(0)
        model.resize_token_embeddings(target, mean_resizing=size is None)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BontuneError(f"{folder / ADAPTER_CONFIG} does not say which model it adapts.") from error
    if not isinstance(config, dict):
        raise BontuneError(f"{folder / ADAPTER_CONFIG} does not say which model it adapts.")
    return config
