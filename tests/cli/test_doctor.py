"""``bontune doctor``: what holds here, in words and as an exit status."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from bontune.base.errors import BontuneError
from bontune.cli import app
from bontune.grading.sandbox.outside.check import sandbox_name
from bontune.grading.sandbox.outside.isolation import ISOLATING


def run_doctor() -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    return result.exit_code, result.output


def test_it_says_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BONTUNE_SANDBOX", raising=False)
    status, output = run_doctor()
    for name in ("bontune", "torch", "transformers", "device", *ISOLATING):
        assert name in output
    try:
        chosen = sandbox_name()
    except BontuneError:
        assert status == 1
        assert "No isolation holds" in output
    else:
        assert status == 0
        assert f"Programs run in {chosen}." in output


def test_a_wish_that_does_not_hold_is_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("BONTUNE_SANDBOX", "bubblewrap")
    monkeypatch.setenv("PATH", str(tmp_path))
    status, output = run_doctor()
    assert status == 1
    assert "bwrap is not installed" in output
    assert "apt install bubblewrap" in output
    assert "BONTUNE_SANDBOX=bubblewrap does not hold here" in output


def test_unsafe_is_said_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONTUNE_SANDBOX", "unsafe")
    assert "without isolation" in run_doctor()[1]
