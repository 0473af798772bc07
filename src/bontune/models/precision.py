"""The number format of a model's weights: the one it was saved in, and the one that a CPU computes in."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

import bontune.models as models
from bontune.models.adapter_folders import outer_base

_SAFETENSORS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def saved_dtype(name_or_path: str | Path) -> torch.dtype | None:
    """The dtype in which a model's weights are stored; None if that cannot be told without loading it.

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
    files = [path for path in sorted(Path(where).glob("*.safetensors")) if not path.name.startswith("adapter_")]
    if files:  # the first part of a large model speaks for the others
        with safe_open(files[0], framework="pt") as opened:
            kinds = {_SAFETENSORS.get(opened.get_slice(name).get_dtype()) for name in opened.keys()}  # noqa: SIM118
        return kinds.pop() if len(kinds) == 1 else None
    try:
        config = AutoConfig.from_pretrained(where)
    except Exception:  # an edge: loading will say what is wrong with the model
        return None
    found: Any = config.dtype or config.get_text_config().dtype
    return found if isinstance(found, torch.dtype) else None


def cpu_dtype(name_or_path: str | Path) -> torch.dtype | None:
    """The dtype in which a CPU should compute a model: float32 where it has no units for the saved one, else None.

    Warns:
        UserWarning: if that differs from the saved one.
    """
    saved = saved_dtype(name_or_path)
    if saved not in (torch.bfloat16, torch.float16) or (saved is torch.bfloat16 and _has_bfloat16_units()):
        return None
    kind = str(saved).removeprefix("torch.")
    warnings.warn(
        f"{name_or_path} is stored in {kind}, which this CPU has no units for: it is computed in float32, several "
        "times faster.",
        stacklevel=3,
    )
    return torch.float32


def _has_bfloat16_units() -> bool:
    return any("bf16" in name and bool(has) for name, has in _capabilities().items())


def _capabilities() -> dict[str, Any]:
    """What the CPU can do, as far as torch tells (2.9 or newer)."""
    return getattr(torch.cpu, "get_capabilities", dict)()
