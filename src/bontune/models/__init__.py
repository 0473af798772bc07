"""Models: the tiny ones that ship with the package, folders, and ids on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bontune.base.client import why_unreachable
from bontune.base.errors import BontuneError, nearest
from bontune.models import gguf

if TYPE_CHECKING:
    import torch

_SHIPPED = {"countdown-tiny": "countdown_tiny", "programs-tiny": "programs_tiny"}
_BUILT = {"tiny-gemma2": "bontune.models.tiny_gemma2"}
"""Models that are built when they are loaded, because random weights need no file."""
_VERIFIERS = {"countdown-verifier": "countdown_verifier", "countdown-verifier-rough": "countdown_verifier_rough"}
"""Shipped sequence classifiers; see :mod:`bontune.models.classifiers`."""
_ABOUT = {
    "countdown-tiny": "Writes sums for the task countdown: good, but unsure.",
    "programs-tiny": "Writes short Python functions for the task programs: good, but unsure.",
    "tiny-gemma2": "Random weights in Gemma 2's architecture, built when it is loaded: for trying recipes out.",
    "countdown-verifier": "A reward model for the task countdown.",
    "countdown-verifier-rough": "A reward model for the task countdown that makes mistakes.",
}
_MODEL_FILES = ("config.json", "adapter_config.json")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)


def shipped() -> list[str]:
    """Return the names of the models that come with the package.

    Example:
        >>> shipped()
        ['countdown-tiny', 'programs-tiny', 'tiny-gemma2']
    """
    return sorted([*_SHIPPED, *_BUILT])


def describe() -> dict[str, str]:
    """Return each model and verifier that comes with the package, with a sentence about it."""
    return dict(_ABOUT)


def is_shipped(name: str) -> bool:
    """Return whether a name is a model or a verifier that comes with the package."""
    return name in _SHIPPED or name in _VERIFIERS or name in _BUILT


def resolve(name_or_path: str | Path) -> str:
    """Return the folder or GGUF file from which a model is read; a name that is neither shipped nor local is a hub id.

    The folder of a training run stands for the model that it has written. A shipped name wins over a folder of the same
    name; write ``./countdown-tiny`` for the folder.

    Raises:
        BontuneError: a local path that does not exist or contains no model, or a misspelt shipped name.
    """
    name = str(name_or_path)
    if folder := _SHIPPED.get(name) or _VERIFIERS.get(name):
        return str(Path(__file__).parent / folder)
    if name in _BUILT:
        return name
    path = Path(name).expanduser()
    if name and path.is_dir():
        return str(_model_folder(path, name))
    if gguf.is_gguf(name):
        gguf.check_file(name, path)
        return str(path)
    if name and path.exists():
        raise BontuneError(
            f"{name} is a file; give the folder with config.json in it, a GGUF file, a hub id, or {_shipped_text()}."
        )
    is_path = isinstance(name_or_path, Path) or name.startswith((".", "/", "~", "runs/")) or "\\" in name
    if is_path or not name or name.count("/") > 1:
        raise BontuneError(
            f"There is no model folder {name!r}; give a folder, a hub id (owner/name), or {_shipped_text()}."
        )
    near = nearest(name, [*shipped(), *_VERIFIERS], 0.75)
    if near:  # refused here, because without a network the hub's client tries for most of a minute
        raise BontuneError(f"There is no model {name!r}, did you mean {near!r}?")
    return name


def _model_folder(path: Path, name: str) -> Path:
    if any((path / file).is_file() for file in _MODEL_FILES):
        return path
    if any((path / "model" / file).is_file() for file in _MODEL_FILES):
        return path / "model"
    if (path / "recipe.yaml").is_file():
        raise BontuneError(
            f"The run in {name} has written no model yet: `bontune train {name}` resumes it and finishes it."
        )
    raise BontuneError(f"The folder {name} contains no model: it has no config.json.")


def check_reachable(where: str) -> None:
    """Refuse a hub id that was not fetched before and cannot be fetched now, without the hub client's long retries.

    Raises:
        BontuneError: the model is not in the cache, and the hub cannot be reached.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(where).exists() or any(isinstance(try_to_load_from_cache(where, file), str) for file in _MODEL_FILES):
        return
    why = why_unreachable()
    if why is not None:
        raise BontuneError(
            f"There is no folder {where!r}, and as a hub id it cannot be fetched, because {why}; give a folder, or "
            f"{_shipped_text()}."
        )


def weights_digest(name: str) -> str:
    """Hash a local model's weights or a file, or else the name; results of other weights are recognised by it."""
    from bontune.models.adapters import is_adapter, outer_base

    try:
        path = Path(resolve(name))
    except BontuneError:
        path = Path(name)
    total = hashlib.sha256()
    base = outer_base(str(path)) if is_adapter(path) else None
    if base is not None:
        total.update(weights_digest(base).encode())
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path] if path.is_file() else []
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                total.update(block)
    if not files:
        total.update(name.encode())
    return total.hexdigest()[:16]


def load_model(
    name_or_path: str | Path, *, dtype: str | torch.dtype | None = None, device: str | torch.device | None = None
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Args:
        name_or_path: a shipped name, a folder in Hugging Face format (a model, an adapter, or a training run), a GGUF
            file, or a hub id. An adapter is merged into its base model; a GGUF file's weights are dequantised.
        dtype: dtype of the weights, such as ``"bfloat16"``; None: as they were saved, but float32 on a CPU without
            arithmetic of the saved dtype, which is several times slower there, and for a GGUF file.
        device: device of the weights; None: the CPU.

    Returns:
        (model, tokenizer): the model in evaluation mode; the tokenizer pads on the left and has a padding token (the
        end token where it had none).

    Raises:
        BontuneError: there is no such model, or it cannot be fetched or read.

    Warns:
        UserWarning: a half-precision model is computed in float32.

    Example:
        >>> model, tokenizer = load_model("countdown-tiny")
        >>> tokenizer.decode(tokenizer("3,7,2,9:48=")["input_ids"])
        '3,7,2,9:48='
    """
    from bontune.models.precision import cpu_dtype

    if dtype is not None:
        dtype = _checked_dtype(dtype)
    elif str(device or "cpu") == "cpu":
        dtype = cpu_dtype(name_or_path)
    model, tokenizer = _read(name_or_path, "auto" if dtype is None else dtype)
    _set_padding(tokenizer, name_or_path)
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0  # RWKV would divide its weights in place, also for training and saving
    if device is not None:
        model = model.to(device)
    return model.eval(), tokenizer


def load_tokenizer(name_or_path: str | Path) -> Any:
    """Load the tokenizer of a folder, a GGUF file or a hub id, without the model; see :func:`load_model`.

    Raises:
        BontuneError: there is no tokenizer, or it cannot be fetched or read.
    """
    where = resolve(name_or_path)
    check_reachable(where)
    try:
        tokenizer = _read_tokenizer(where)
    except Exception as error:  # any type, as in _read
        raise BontuneError(_load_failure(str(name_or_path), where, error)) from error
    _set_padding(tokenizer, name_or_path)
    return tokenizer


def _set_padding(tokenizer: Any, name: str | Path) -> None:
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise BontuneError(f"The tokenizer of {name} has neither a padding nor an end token; set one of them.")
        tokenizer.pad_token = tokenizer.eos_token


def _read_tokenizer(where: str) -> Any:
    """Load a tokenizer; AutoTokenizer would replace the splitting rules of some complete ones by their model type's."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    loader = PreTrainedTokenizerFast if _has_own_tokenizer(Path(where)) else AutoTokenizer
    folder, options = gguf.source_of(where)
    return loader.from_pretrained(folder, **options)


def _read(name_or_path: str | Path, dtype: torch.dtype | str, *, needs_tokenizer: bool = True) -> tuple[Any, Any]:
    """Load model and tokenizer without changes; the tokenizer may be None where it is not needed."""
    from transformers import AutoModelForCausalLM

    from bontune.models.adapters import adapter_folder, is_of_classifier, load_merged, whole_model_of

    if str(name_or_path) in _BUILT:
        model, tokenizer = import_module(_BUILT[str(name_or_path)]).build()
        return (model if dtype == "auto" else model.to(dtype)), tokenizer
    if str(name_or_path) in _VERIFIERS:
        raise BontuneError(f"{name_or_path} is a verifier, which scores texts and writes none; take {_shipped_text()}.")
    where = resolve(name_or_path)
    check_reachable(where)
    model = tokenizer = None
    try:
        adapter = adapter_folder(where)
        folder = adapter or Path(where)
        has_own = has_tokenizer(folder)
        if adapter is not None and is_of_classifier(adapter):
            raise BontuneError(f"{name_or_path} is an adapter of a verifier, which scores texts and writes none.")
        if adapter is not None:
            with whole_model_of(adapter) as base:
                model, tokenizer = _read(base, dtype, needs_tokenizer=needs_tokenizer and not has_own)
        if needs_tokenizer and tokenizer is None and folder.is_dir() and not has_own:
            raise BontuneError(
                f"The folder {name_or_path} contains a model without its tokenizer: save that there, too "
                "(tokenizer.save_pretrained)."
            )
        if has_own or (needs_tokenizer and tokenizer is None):
            tokenizer = _read_tokenizer(str(folder) if has_own else where)
        if adapter is not None:
            model = load_merged(model, adapter, tokenizer if has_own else None)
        else:
            source, options = gguf.weights_source_of(where)
            with without_bars(), gguf.without_bar(where):
                model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    except BontuneError:
        raise
    except Exception as error:  # hub, files and weights fail in many types, tokenizers even in bare Exception
        raise BontuneError(_load_failure(str(name_or_path), where, error)) from error
    return model, tokenizer


def _checked_dtype(dtype: str | torch.dtype) -> torch.dtype | str:
    """Turn a dtype's name into the torch dtype; ``"auto"`` stays as it is."""
    import torch

    if dtype == "auto":
        return dtype
    value = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise BontuneError(f"dtype must be auto, float32, bfloat16 or float16, got {dtype!r}.")
    return value


def _load_failure(name: str, where: str, error: Exception) -> str:
    """Return a sentence that says what could not be loaded and why."""
    cause = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    if gguf.is_gguf(where):
        return gguf.load_failure(name, cause)
    if Path(where).is_dir():
        return f"The model in {name} cannot be loaded: {type(error).__name__}: {cause}."
    return (
        f"There is no folder {name!r}, and as a hub id it could not be fetched: {cause}; "
        f"give a folder, a hub id (owner/name), or {_shipped_text()}."
    )


def _shipped_text() -> str:
    return "the shipped " + ", ".join(shipped())


def has_tokenizer(folder: Path) -> bool:
    """Return whether a local folder contains a tokenizer."""
    return any((folder / file).is_file() for file in _TOKENIZER_FILES)


def _has_own_tokenizer(folder: Path) -> bool:
    """Return whether a folder's tokenizer.json is declared complete, so that it needs no model family's class."""
    config = folder / "tokenizer_config.json"
    if not config.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    tokenizer_class = json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class")
    return tokenizer_class in ("TokenizersBackend", "PreTrainedTokenizerFast")


@contextmanager
def without_bars() -> Iterator[None]:
    """Switch transformers' progress bars off while the context lasts."""
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if had_bars:
            logging.enable_progress_bar()


def quiet_libraries() -> None:
    """Switch other libraries' progress bars and warnings off.

    Libraries that are not loaded yet read environment variables, because loading them takes seconds.
    """
    if {"transformers", "huggingface_hub"} & sys.modules.keys():
        import transformers

        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
    else:
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    for library in ("transformers", "peft"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)


def best_device() -> str:
    """Return the first GPU, or the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
