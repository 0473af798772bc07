"""Several processes that train as one: what they send each other, and what happens when one of them is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bontune.base.errors import RunStopped

NUMBERS_IN_A_MESSAGE = 2**24
"""Numbers that processes send each other at once, when they sum their gradients."""
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL error", "Timed out waiting")
"""Words of gloo and NCCL for a process that does not answer."""


@contextmanager
def one_of_several(accelerator: Any) -> Iterator[None]:
    """Say in one sentence that another process of the run is gone, instead of what the network says of it.

    Raises:
        RunStopped: another process has ended.
    """
    try:
        yield
    except RunStopped:
        raise
    except RuntimeError as error:
        if accelerator.num_processes > 1 and any(words in str(error) for words in LOST):
            raise RunStopped(
                f"Another of the {accelerator.num_processes} processes of this run has ended; what it said last, or "
                "the system's log, tells why. Start the same command again: it goes on from the last checkpoint."
            ) from None
        raise


def sum_gradients(accelerator: Any, grads: Sequence[Tensor]) -> None:
    """Sum gradients over all processes in place, many small ones in one message."""
    bucket: list[Tensor] = []
    num_waiting = 0

    def send() -> None:
        if bucket:
            whole = accelerator.reduce(torch.cat([grad.reshape(-1) for grad in bucket]), reduction="sum")
            for grad, part in zip(bucket, whole.split([grad.numel() for grad in bucket]), strict=True):
                grad.copy_(part.view_as(grad))
            bucket.clear()

    for grad in grads:
        is_full = num_waiting + grad.numel() > NUMBERS_IN_A_MESSAGE
        if bucket and (is_full or grad.dtype != bucket[0].dtype):
            send()
            num_waiting = 0
        bucket.append(grad)
        num_waiting += grad.numel()
    send()


def sum_over_processes(accelerator: Any, values: list[float]) -> list[float]:
    """Sum each value over all processes, in float64."""
    total = accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), reduction="sum")
    return total.tolist()
