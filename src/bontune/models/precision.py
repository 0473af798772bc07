"""How a model's numbers are kept and computed: the format of its weights, and whether a run can be repeated."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

import bontune.models as models
from bontune.models.adapters import outer_base

_SAFETENSORS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def saved_dtype(name_or_path: str | Path) -> torch.dtype | None:
    """Return the dtype in which a model's weights are stored; None if that cannot be told without loading it.

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


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """While the context lasts, a CPU computes bitwise the same in every run that has as many threads.

    Several threads add the gradient of ``x[indices]`` up in any order, which some models need (mixtures of experts);
    torch then takes the operation that keeps an order, and warns where it has none. A GPU is left as it is: there the
    ordered operations are slower, and cuBLAS wants a setting of its own.
    """
    if device.type != "cpu":
        yield
        return
    memory: Any = torch.utils.deterministic  # which knows no types
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
    """What the CPU can do, as far as torch tells (2.9 or newer)."""
    return getattr(torch.cpu, "get_capabilities", dict)()
