"""GGUF files as models: transformers reads them, with their weights dequantised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
"""First bytes of every such file."""


def is_gguf(where: str | Path) -> bool:
    """Return whether a model is named by a GGUF file."""
    return str(where).lower().endswith(SUFFIX)


def check_file(name: str, path: Path) -> None:
    """Refuse what cannot be loaded as a GGUF file, before libraries are loaded that take seconds.

    Args:
        name: the file as the user named it.
        path: its path.

    Raises:
        BontuneError: there is no such file, its content is of another format, or the package gguf is missing.
    """
    if not path.is_file():
        raise BontuneError(f"There is no GGUF file {name!r}; give the path of one, or a folder, or a hub id.")
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise BontuneError(f"{name} cannot be read: {error.strerror}.") from error
    if start != _MAGIC:
        raise BontuneError(f"{name} is no GGUF file, because it does not begin with GGUF; fetch or convert it again.")
    if find_spec("gguf") is None:
        raise BontuneError(f"{name} needs the package gguf, which is not installed: pip install 'bontune[gguf]'.")


def source_of(where: str) -> tuple[str, dict[str, Any]]:
    """Return the folder and the options with which ``from_pretrained`` reads a config or a tokenizer.

    Args:
        where: a resolved model: a GGUF file, a folder, or a hub id.
    """
    if not is_gguf(where):
        return where, {}
    path = Path(where)
    return str(path.parent), {"gguf_file": path.name}


def weights_source_of(where: str) -> tuple[str, dict[str, Any]]:
    """Return the folder and the options with which ``from_pretrained`` reads a model; see :func:`source_of`.

    Raises:
        BontuneError: the installed transformers is too old to dequantise a GGUF file.
    """
    folder, options = source_of(where)
    if not options:
        return folder, options
    try:
        from transformers import GgufConfig
    except ImportError:
        raise BontuneError(
            f"{where} needs transformers 5.17 or newer, which dequantises GGUF files: pip install 'bontune[gguf]'."
        ) from None
    # Without dequantize the model keeps packed weights, which can be neither trained nor saved.
    return folder, {**options, "quantization_config": GgufConfig(dequantize=True, **options)}


@contextmanager
def without_bar(where: str) -> Iterator[None]:
    """Silence the bar of a GGUF file's dequantisation, which transformers' own switch does not reach, in a context.

    Args:
        where: a resolved model; nothing is changed for one that is no GGUF file.
    """
    if not is_gguf(where):
        yield
        return
    from transformers import modeling_gguf_pytorch_utils as reading

    theirs = reading.tqdm
    reading.tqdm = partial(theirs, disable=True)
    try:
        yield
    finally:
        reading.tqdm = theirs


def load_failure(name: str, cause: str) -> str:
    """Return a sentence that says why a GGUF file cannot be loaded.

    Args:
        name: the file as the user named it.
        cause: the library's message, without its full stop.
    """
    if "architecture" in cause or "not supported" in cause:
        return (
            f"The GGUF file {name} is of an architecture that transformers does not read ({cause}); take the model's "
            "Hugging Face folder."
        )
    return f"The GGUF file {name} cannot be read ({cause}); it may be cut short, so fetch it again."
