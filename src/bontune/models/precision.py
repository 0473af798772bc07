"""Number formats: the dtype of saved weights, the dtype of computation on a CPU, and reproducible operations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

import bontune.models as models
from bontune.base.errors import BontuneError
from bontune.models.adapters import outer_base
from bontune.models.gguf import is_gguf

_SAFETENSORS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def saved_dtype(name_or_path: str | Path) -> torch.dtype | None:
    """Return the dtype in which a model's weights are stored; None if only loading the model would tell.

    Raises:
        BontuneError: there is no such model folder.
    """
    from transformers import AutoConfig

    if str(name_or_path) in models.shipped():
        return torch.float32
    where = models.resolve(name_or_path)
    models.check_reachable(where)
    base = outer_base(where)
    if base is not None:
        return saved_dtype(base)
    if is_gguf(where):
        return torch.float32  # to which its weights are dequantised
    files = [path for path in sorted(Path(where).glob("*.safetensors")) if not path.name.startswith("adapter_")]
    if files:  # the first part of a large model represents the others
        with safe_open(files[0], framework="pt") as opened:
            kinds = {_SAFETENSORS.get(opened.get_slice(name).get_dtype()) for name in opened.keys()}  # noqa: SIM118
        return kinds.pop() if len(kinds) == 1 else None
    try:
        config = AutoConfig.from_pretrained(where)
    except Exception:  # loading will raise a better message
        return None
    dtype: Any = config.dtype or config.get_text_config().dtype
    return dtype if isinstance(dtype, torch.dtype) else None


def cpu_dtype(name_or_path: str | Path) -> torch.dtype | None:
    """Return float32 if the CPU has no units for a model's saved dtype and should compute in it; else None.

    Warns:
        UserWarning: the model is computed in float32.
    """
    saved = saved_dtype(name_or_path)
    if saved not in (torch.bfloat16, torch.float16) or (saved is torch.bfloat16 and _has_bfloat16_units()):
        return None
    name = str(saved).removeprefix("torch.")
    warnings.warn(
        f"{name_or_path} is stored in {name}, which this CPU has no units for: it is computed in float32, several "
        "times faster.",
        stacklevel=3,
    )
    return torch.float32


def check_trainable(name_or_path: str | Path) -> None:
    """Refuse a model whose weights are stored quantised, which training can neither change nor save.

    Raises:
        BontuneError: the model's config says that its weights are quantised.
    """
    from transformers import PreTrainedConfig

    name = str(name_or_path)
    if name in models.shipped() or is_gguf(where := models.resolve(name)):
        return
    models.check_reachable(where)
    base = outer_base(where)
    if base is not None:
        check_trainable(base)
        return
    try:
        config, _ = PreTrainedConfig.get_config_dict(where)
    except Exception:  # loading will raise a better message
        return
    settings = config.get("quantization_config")
    if not isinstance(settings, dict) or settings.get("dequantize"):
        return
    method = settings.get("quant_method") or "a method that its config does not name"
    raise BontuneError(
        f"The weights of {name} are quantised ({method}) and cannot be trained: take the model as it was before, or "
        "load it with transformers, call model.dequantize() and save it to a folder."
    )


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Let a CPU compute bitwise the same in every run with the same number of threads, while the context lasts.

    Threads add up the gradient of ``x[indices]``, which some models need (mixtures of experts), in any order; torch
    then uses operations with a fixed order, and warns where it has none. A GPU is left unchanged: there the ordered
    operations are slower, and cuBLAS needs another setting.
    """
    if device.type != "cpu":
        yield
        return
    memory: Any = torch.utils.deterministic  # this module is untyped
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled


def _has_bfloat16_units() -> bool:
    return any("bf16" in name and bool(has) for name, has in _capabilities().items())


def _capabilities() -> dict[str, Any]:
    """Return the CPU's capabilities, as far as torch reports them (2.9 or newer)."""
    return getattr(torch.cpu, "get_capabilities", dict)()
