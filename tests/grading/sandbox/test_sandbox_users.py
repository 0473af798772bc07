"""Isolation as other users have it: root with an interpreter that others can read, and an ordinary user.

These need root, to become someone else, and a Python of the system's; the package itself is imported from here. Where
either is missing they are skipped: then the other tests already run as an ordinary user.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pyseccomp
import pytest

import bontune
from bontune.grading.sandbox.outside.isolation import ISOLATING

SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY = 65534
_DRIVER = """
import json, os, sys
from bontune.grading.sandbox.outside.check import Checkers
from bontune.grading.sandbox.outside.check import Program
source = "import os, sys, colorsys\\ndef f(): return os.getuid(), sys.prefix, os.getgroups(), open('a', 'w').write('x')"
check = "def check(f):\\n    assert f() == (%r, %r, f()[2], 1), f()"
results = {}
for name in sys.argv[1:]:
    pool = Checkers(name)  # raises where an attack gets through
    expected = (int(os.environ["EXPECTED_UID"]), sys.base_prefix)
    program = Program(source=source, entry_point="f", check=check % expected, timeout_s=20.0)
    results[name] = pool.check([program] * 2, num_workers=1)[1].reason
    pool.close()
print(json.dumps(results))
"""

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone else")


@pytest.mark.parametrize("uid", [0, NOBODY], ids=["root", "nobody"])
@pytest.mark.parametrize("backend", ISOLATING)
def test_every_attack_is_stopped_and_the_uid_is_nobodys(backend: str, uid: int) -> None:
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"there is no {SYSTEM_PYTHON}")
    packages = [str(Path(bontune.__file__).parents[1]), str(Path(pyseccomp.__file__).parent)]
    environment = {"PYTHONPATH": ":".join(packages), "PATH": "/usr/bin:/bin", "HOME": "/", "EXPECTED_UID": str(NOBODY)}
    driver = subprocess.run(
        [SYSTEM_PYTHON, "-B", "-c", _DRIVER, backend],
        user=uid,
        group=uid,
        extra_groups=[],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "Permission denied" in driver.stderr or "ModuleNotFoundError" in driver.stderr or "SyntaxError" in driver.stderr:
        pytest.skip(f"the system's Python cannot import the package: {driver.stderr.splitlines()[-1]}")
    if "cannot be started" in driver.stderr or "not installed" in driver.stderr or "offers no" in driver.stderr:
        pytest.skip(driver.stderr.splitlines()[-1])
    assert driver.returncode == 0, driver.stderr
    assert json.loads(driver.stdout) == {backend: ""}
