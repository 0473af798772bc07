"""``bontune doctor``: what this machine offers, and what it lacks."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.table import Table
from rich.text import Text

from bontune.base.signals import num_cores
from bontune.cli.terminal import console

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "numpy", "math-verify", "pyseccomp")


def report_on_machine() -> None:
    """Report the device, the versions, and whether model-written programs can be isolated here.

    The exit status is 0 if they can, and 1 if not.
    """
    console().print(_machine())
    table, names = _isolations()
    console().print(table)
    if not _print_choice(names):
        raise typer.Exit(1)


def _machine() -> Table:
    import bontune

    table = Table("", "", title="machine", show_header=False, title_justify="left")
    table.add_row("bontune", bontune.__version__)
    table.add_row("python", f"{platform.python_version()} ({sys.executable})")
    for name in _PACKAGES:
        table.add_row(name, _version(name))
    table.add_row("system", f"{platform.system()} {platform.release()}, {platform.machine()}")

    table.add_row("cores", str(num_cores()))
    table.add_row("device", _device())
    return table


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu (no GPU that torch can use)"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"cuda:{index} {name}" for index, name in enumerate(names))


def _isolations() -> tuple[Table, list[str]]:
    """Try every isolation.

    Returns:
        The table, and the names of the isolations that hold.
    """
    from bontune.grading.sandbox.outside.check import examine
    from bontune.grading.sandbox.outside.isolation import BACKENDS, ISOLATING

    table = Table("isolation", "holds", "attacks", "what it is, or how to get it", title="model-written programs")
    table.title_justify = "left"
    holding = []
    for name in ISOLATING:
        backend = BACKENDS[name]
        found = examine(name)
        if isinstance(found, str):
            table.add_row(name, Text("no", style="red"), found, backend.how_to_get)
            continue
        checker, attacks = found
        checker.close()
        broken = [attack for attack in attacks if not attack.is_stopped]
        if broken:
            said = "; ".join(f"could {attack.name}: {attack.detail}" for attack in broken)
            table.add_row(name, Text("no", style="red"), said, backend.how_to_get)
        else:
            holding.append(name)
            table.add_row(name, Text("yes", style="green"), f"all {len(attacks)} stopped", backend.summary)
    return table, holding


def _print_choice(holding: list[str]) -> bool:
    wanted = os.environ.get("BONTUNE_SANDBOX", "auto")
    if wanted == "unsafe":
        console().print(
            "BONTUNE_SANDBOX=unsafe: programs run without isolation, and every result says so.", style="red"
        )
    elif wanted != "auto" and wanted not in holding:
        console().print(f"BONTUNE_SANDBOX={wanted} does not hold here.", style="red")
    elif holding:
        console().print(f"Programs run in {holding[0] if wanted == 'auto' else wanted}.", style="bold")
    else:
        console().print("No isolation holds: programs are refused unless BONTUNE_SANDBOX=unsafe is set.", style="red")
    return bool(holding) and (wanted in ("auto", "unsafe") or wanted in holding)
