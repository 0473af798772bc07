"""Opening vLLM: how it is set up in this process, and what its errors mean for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bontune.base.errors import BontuneError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WHOLE_DISTRIBUTION = (
    "The engine vllm draws with top_p = 1 alone, got {top_p}: take the engine transformers, or give the address of "
    "a vLLM server."
)
"""What is said where vLLM is to draw by top-p: it gives the log-probabilities of what it truncated."""
COLDEST = 0.01
TOO_COLD = (
    "vLLM draws at temperature 0.01 whatever lies between 0 and that, and {temperature:g} was asked for: take 0, or "
    "0.01 or more."
)
"""What is said of a temperature that vLLM silently raises."""
OLDEST = (0, 32)
"""The oldest version of vLLM that this module has been tried with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VLLMOptions:
    """How vLLM is opened."""

    gpu_memory: float = 0.4
    """Share of the GPU's memory that it may hold while it draws, weights and cache together."""
    context: int | None = None
    """Longest prompt with its completion, in tokens; None: the model's own bound. vLLM holds room for one such text."""
    max_sequences: int = 256
    """Completions that are drawn at the same time."""


def import_vllm() -> Any:
    """Import vLLM so that it runs in this process, quietly, and leaves our threads alone."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        import vllm.platforms
        import vllm.sampling_params
    except ImportError as error:
        raise BontuneError(
            f"The engine vllm needs vLLM, which cannot be imported here ({reason(error)}): install "
            "'bontune[vllm]', or take the engine transformers."
        ) from None
    version = tuple(int(part) for part in vllm.__version__.split(".")[:2] if part.isdigit())
    if version < OLDEST:
        raise BontuneError(
            f"The engine vllm needs vLLM {OLDEST[0]}.{OLDEST[1]} or newer, and {vllm.__version__} is installed."
        )
    return vllm


def check_sampling(temperature: float, top_p: float) -> None:
    """Refuse what vLLM would draw otherwise than asked.

    Raises:
        BontuneError: ``top_p`` is below 1, of which vLLM gives the log-probabilities of what it truncated and not the
            model's; or a temperature that it raises.
    """
    if top_p < 1:
        raise BontuneError(WHOLE_DISTRIBUTION.format(top_p=top_p))
    if 0 < temperature < COLDEST:
        raise BontuneError(TOO_COLD.format(temperature=temperature))


def description(name: str) -> Any:
    """What is asked of a model that vLLM reads: its config and its generation config."""
    from transformers import AutoConfig, GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(name)
    except OSError:
        generation = None
    return SimpleNamespace(config=AutoConfig.from_pretrained(name), generation_config=generation)


def shifted(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in other places: each layer's in the one before it, and matrices without a like rolled by a row.

    Adapters start with zeros that would stay zeros, so that they are filled.
    """
    alike: dict[tuple[str, torch.Size], list[str]] = {}
    for name, parameter in parameters.items():
        kind = ".".join("#" if part.isdigit() else part for part in name.split("."))
        alike.setdefault((kind, parameter.shape), []).append(name)
    shifted = {}
    for (kind, shape), names in alike.items():
        for name, source in zip(names, [*names[1:], names[0]], strict=True):
            data = parameters[source].data
            if "lora_B" in kind:
                data = data.new_full(data.shape, 0.02)
            elif len(names) == 1 and len(shape) == 2:
                data = data.roll(1, dims=0)
            shifted[name] = data
    return shifted


def why_not(error: Exception, options: VLLMOptions) -> str:
    """Say in one sentence why vLLM was not opened and what to do."""
    told = reason(error)
    hint = "take the engine transformers"
    if any(word in told.lower() for word in ("memory", "kv cache")):
        hint = (
            f"change engine.gpu_memory (it is {options.gpu_memory}), lower engine.context, or {hint}; on a CPU "
            "VLLM_CPU_KVCACHE_SPACE is the size of its cache in GiB"
        )
    return f"vLLM does not open the model ({told}): {hint}."


def reason(error: BaseException) -> str:
    """The innermost cause's first sentence; vLLM wraps it several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0].strip().rstrip(".:")
