"""LoRA adapters (peft): put on a model, merged into a copy of it, and written."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from bontune.base.errors import BontuneError
from bontune.base.suggest import did_you_mean
from bontune.models.copies import left_states

ADAPTER_CONFIG = "adapter_config.json"


def is_adapted(model: Any) -> bool:
    """Whether a model is a peft model around another."""
    return hasattr(model, "get_base_model")


def add_lora(model: Any, *, r: int, alpha: float, targets: str | Sequence[str]) -> Any:
    """Put low-rank adapters on a model (Hu et al., arXiv 2106.09685); everything else of it is frozen.

    Args:
        model: a causal LM.
        r: rank.
        alpha: the adapters' update is multiplied by alpha / r.
        targets: names of the modules to adapt, or ``all-linear``.

    Returns:
        The peft model; the adapters' weights come from torch's global generator.

    Raises:
        BontuneError: a name is that of no module, or of a module that takes no adapter.
    """
    from peft import LoraConfig, get_peft_model

    check_targets(model, targets)
    if targets != "all-linear":
        targets = [targets] if isinstance(targets, str) else list(targets)
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
    with of_tied_layers_at_ease():
        return get_peft_model(model, config)


@contextmanager
def of_tied_layers_at_ease() -> Iterator[None]:
    """Silence peft about an adapter on one of two tied layers, which is no problem here: merging parts them.

    And about a property of transformers that peft asks for by its old name.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            message=".*(tie_word_embeddings|save_embedding_layers|Could not find a config|is_gradient_checkpointing).*",
        )
        yield


def check_targets(model: Any, targets: str | Sequence[str]) -> list[str]:
    """The names of the modules that adapters would sit on.

    Args:
        model, targets: as for :func:`add_lora`.

    Raises:
        BontuneError: a name is that of no module, or of a module that takes no adapter.
    """
    from transformers.pytorch_utils import Conv1D

    modules = {name: module for name, module in model.named_modules() if name}
    able = (nn.Linear, nn.Embedding, nn.Conv1d, Conv1D)
    if targets == "all-linear":
        head = model.get_output_embeddings()
        return [name for name, m in modules.items() if isinstance(m, (nn.Linear, Conv1D)) and m is not head]
    known = sorted({name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, able)})
    there_are = f"there are {', '.join(known)}, and all-linear"
    if not targets:
        raise BontuneError(f"training.lora.targets: name at least one module; {there_are}.")
    chosen = []
    for target in [targets] if isinstance(targets, str) else targets:
        found = [name for name in modules if name == target or name.endswith(f".{target}")]
        if not found:
            hint = did_you_mean(target, known)
            raise BontuneError(f"training.lora.targets: the model has no module {target!r}{hint}; {there_are}.")
        wrong = next((modules[name] for name in found if not isinstance(modules[name], able)), None)
        if wrong is not None:
            raise BontuneError(
                f"training.lora.targets: {target!r} is a {type(wrong).__name__}, which takes no adapter; {there_are}."
            )
        chosen += found
    return chosen


def merged_copy(model: Any) -> Any:
    """A plain model that computes what a peft model computes; the given one is not touched.

    Only weights that an adapter changes are copied, others are shared. Where an adapter sits on one of two tied
    layers, they are parted: the other one keeps the weights that it has in the peft model.
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
    _part_tied_layers(merged)
    with of_tied_layers_at_ease():
        return merged.merge_and_unload()


def _part_tied_layers(model: Any) -> None:
    """Give an adapted layer whose weight is another module's, too, a weight of its own."""
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
    """Write an adapter's folder; ``base`` names the model that it belongs to, None: as it is called already."""
    named = {key: config.base_model_name_or_path for key, config in model.peft_config.items()}
    try:
        for config in model.peft_config.values():
            config.base_model_name_or_path = base or config.base_model_name_or_path
        # Of our own adapters the base's embedding is as it was; peft would look for its size on the hub.
        with of_tied_layers_at_ease():
            model.save_pretrained(folder, save_embedding_layers="auto" if base is None else False)
    finally:
        for key, config in model.peft_config.items():
            config.base_model_name_or_path = named[key]
