"""What several commands need."""

from __future__ import annotations


def quiet_libraries() -> None:
    """No progress bars of other libraries between ours."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def best_device() -> str:
    """The first GPU, or the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
