"""Checkpoints, which are whole or not there.

A checkpoint is a folder ``step_000123``: tensors as safetensors, everything else as JSON, no pickle. It is written as
``.tmp-…``, each file fsynced, ``MANIFEST.json`` (name, size and SHA-256 of each file) last, then renamed: the final
name says it is complete. ``latest`` is computed, not stored. A damaged newest one is reported and the one before used.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bontune.base.errors import BontuneError, RunStopped
from bontune.base.files import replace_file, sync, use_umask
from bontune.base.problems import Problem, contents_digest
from bontune.base.settings import differing
from bontune.config import Recipe
from bontune.models import weights_digest
from bontune.tasks.base import Task, grader_code_of
from bontune.verifiers import load as verifiers

MANIFEST = "MANIFEST.json"


class DamagedCheckpoint(UserWarning):
    """A checkpoint did not match its manifest and was passed over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The content of a checkpoint: named groups of tensors, and plain values."""

    tensors: dict[str, dict[str, Tensor]]
    """Groups of tensors by the name of their file, such as ``policy``, ``anchor`` and ``optimizer``."""
    state: dict[str, Any]
    """Plain values, such as the step, the running P_fail and the best evaluations."""
    identity: Identity
    """What decides the run; see :mod:`bontune.training.checkpoint`."""


def save(folder: Path, step: int, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write ``folder/step_{step}`` unless it exists, and remove the oldest checkpoints beyond ``keep``.

    Raises:
        RunStopped: the checkpoint cannot be written (full disk, no permission); older ones are untouched.
    """
    final = folder / f"step_{step:06d}"
    if final.exists():
        return final
    temporary = folder / f".tmp-step_{step:06d}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".tmp-*"):  # of a process that was killed; the run's lock says it is no other's
            shutil.rmtree(leftover)
        temporary.mkdir()
        for stem, tensors in checkpoint.tensors.items():
            path = temporary / f"{stem}.safetensors"
            save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, path)
            sync(path)
        replace_file(temporary / "state.json", json.dumps(checkpoint.state), is_synced=True)
        files = sorted(path for path in temporary.iterdir())
        manifest = {
            "step": step,
            "identity": checkpoint.identity,
            "versions": versions(),
            "files": {path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in files},
        }
        use_umask(temporary)
        replace_file(temporary / MANIFEST, json.dumps(manifest, indent=1), is_synced=True)
        sync(temporary)
        os.replace(temporary, final)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise RunStopped(
            f"The checkpoint of step {step} could not be written to {folder}: {reason}; earlier ones are intact: "
            "free some space and start the same command again."
        ) from error
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step_{old:06d}")
    return final


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, ascending."""
    found = (path.name.removeprefix("step_") for path in folder.glob("step_*") if path.is_dir())
    return sorted(int(name) for name in found if name.isdigit())


def load_latest(folder: Path, identity: Identity) -> Checkpoint | None:
    """The newest undamaged checkpoint, or None if there is none.

    A finished run may go on to more steps; what is returned then has the identity of the run that it was.

    Warns:
        DamagedCheckpoint: for each newer one that does not match its manifest.

    Raises:
        BontuneError: the checkpoint belongs to a run with other settings, data, code or weights.
        RunStopped: checkpoints exist, but all are damaged.
    """
    damaged = []
    for step in reversed(steps(folder)):
        path = folder / f"step_{step:06d}"
        try:
            manifest = verify(path)
        except ValueError as error:
            damaged.append(path.name)
            warnings.warn(
                f"Checkpoint {path} is damaged ({error}); using the one before.", DamagedCheckpoint, stacklevel=2
            )
            continue
        _check_identity(path, step, manifest.get("identity"), identity)
        tensors = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return Checkpoint(tensors=tensors, state=state, identity=manifest["identity"])
    if damaged:
        raise RunStopped(
            f"All checkpoints in {folder} are damaged ({', '.join(damaged)}): move them away to start anew."
        )
    return None


def _check_identity(path: Path, step: int, saved: Identity | None, now: Identity) -> None:
    if saved is None:
        raise BontuneError(
            f"{path} was made by an earlier version, which this one cannot go on from: choose another run=…."
        )
    now = json.loads(json.dumps(now))  # as it was written
    changed = changed_settings(saved, now)
    if changed and grown_from(saved, now, step) is None:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        hint = "" if STEPS not in saved or saved[STEPS] == now.get(STEPS) else " (a finished run may get more steps)"
        raise BontuneError(
            f"{path} was made with other settings: {'; '.join(changed[:3])}{more}{hint}. Put that back, or choose "
            "another run=…."
        )


def set_aside_after(folder: Path, step: int) -> None:
    """Rename the damaged checkpoints of later steps, so that they do not count as kept and can be written anew."""
    for later in steps(folder):
        if later > step:
            path = folder / f"step_{later:06d}"
            shutil.rmtree(folder / f"damaged_{path.name}", ignore_errors=True)
            os.replace(path, folder / f"damaged_{path.name}")


def verify(path: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest, and return the manifest.

    Raises:
        ValueError: a file is missing or differs.
    """
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{MANIFEST} is missing or unreadable") from error
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{name} is missing")
        if file.stat().st_size != expected["size"]:
            raise ValueError(f"{name} has {file.stat().st_size} bytes instead of {expected['size']}")
        if _sha256(file) != expected["sha256"]:
            raise ValueError(f"{name} has another SHA-256 than when it was written")
    return manifest


def versions() -> dict[str, str]:
    """Versions of the packages that wrote a checkpoint; only under equal ones is a resumed run bitwise equal."""
    packages = ("bontune", "torch", "transformers", "accelerate")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield an optimizer's state as tensors named ``parameter/key``.

    Args:
        optimizer: AdamW, or another that keeps numbers and tensors for each parameter.
        module: the module whose parameters the optimizer updates; names them.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            yield f"{names[id(parameter)]}/{key}", value.detach() if isinstance(value, Tensor) else torch.tensor(value)


def load_optimizer(optimizer: torch.optim.Optimizer, module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` took out, on each parameter's device (AdamW's step stays on the CPU)."""
    parameters = dict(module.named_parameters())
    for name, tensor in tensors.items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        optimizer.state[parameter][key] = tensor if key == "step" else tensor.to(parameter.device)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


Identity: TypeAlias = dict[str, Any]
"""Settings by their dotted names, and hashes of contents by what people call them."""
STEPS = "training.steps"


def identity_of(recipe: Recipe, tasks: Sequence[Task], problems: Mapping[str, Sequence[Problem]]) -> Identity:
    """Everything that decides a run.

    Args:
        recipe: its settings.
        tasks: the tasks that grade.
        problems: by what they are for, such as training and evaluation.
    """
    contents = {f"the problems for {what}": contents_digest(part) for what, part in problems.items()}
    contents["the weights of the model"] = weights_digest(recipe.model)
    contents["what the verifier names"] = verifiers.verifier_digest(recipe.verifier.name, **recipe.verifier.options())
    contents["the grader's code"] = "-".join(grader_code_of(task) for task in tasks)
    return recipe.deciding() | contents


def digest(identity: Identity) -> str:
    """Hash of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def changed_settings(saved: Identity, now: Identity) -> list[str]:
    """Say in a few words each what is not as it was; a file under another name is, if it holds the same."""
    return [
        f"{name} changed"
        if name.startswith(("the ", "what "))
        else f"{name} {now.get(name)!r}, was {saved.get(name)!r}"
        for name in differing(saved, now)
    ]


def grown_from(saved: Identity, now: Identity, step: int) -> int | None:
    """The number of steps that a finished run had, if it now has more and nothing else changed; else None."""
    old, new = saved.get(STEPS, 0), now.get(STEPS, 0)
    return old if step == old < new and not differing(saved | {STEPS: new}, now) else None
