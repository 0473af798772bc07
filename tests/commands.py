"""Commands of the package, one after the other."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import processes

Done = subprocess.CompletedProcess[str]


MANY = """
import contextlib, io, json, sys, traceback
import bontune.cli
results = []
for given in json.load(sys.stdin):
    status, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if isinstance(given, str):
                exec(compile(given, "example", "exec"), {"__name__": "__main__"})
            else:
                sys.argv = ["bontune", *given]
                bontune.cli.main()
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            status = 1
            traceback.print_exc()
    results.append([status, out.getvalue(), err.getvalue()])
json.dump(results, sys.stdout)
"""


def run_many(folder: Path, commands: Sequence[list[str] | str], columns: int = 80) -> list[Done]:
    """Run commands one after the other, on a terminal of that width, each in a process that starts in ``folder``.

    A command is the list of arguments to ``bontune``, or a text of Python.

    Returns:
        The status and the output of each command.
    """
    environment = os.environ | processes.SETTINGS | {"COLUMNS": str(columns)}
    return [processes.run(command, cwd=folder, env=environment) for command in commands]


def run_in_one(
    folder: Path, commands: Sequence[list[str] | str], columns: int = 80, *, is_fresh: bool = False
) -> list[Done]:
    """Run commands as :func:`run_many` does, but in one process: what one leaves behind is there for the next.

    ``is_fresh``: in an interpreter that has imported nothing before.
    """
    environment, given = os.environ | processes.SETTINGS | {"COLUMNS": str(columns)}, json.dumps(commands)
    if is_fresh:
        command = [sys.executable, "-c", MANY]
        done = subprocess.run(command, cwd=folder, env=environment, input=given, capture_output=True, text=True)
    else:
        done = processes.run(MANY, cwd=folder, env=environment, text=given)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == len(commands)
    return [subprocess.CompletedProcess(c, *result) for c, result in zip(commands, results, strict=True)]
