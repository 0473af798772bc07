"""Commands of the package, one after the other in one process: the imports take longer than all that is tested."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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
    """Run commands one after the other, on a terminal of that width, in a process that starts in ``folder``.

    A command is the list of arguments to ``bontune``, or a text of Python.

    Returns:
        The status and the output of each command.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": str(columns)}
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        cwd=folder,
        env=environment,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    results = json.loads(done.stdout)
    assert len(results) == len(commands)
    return [subprocess.CompletedProcess(c, *result) for c, result in zip(commands, results, strict=True)]
