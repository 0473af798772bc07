"""What a user's function raised is said with the file and line of the user's own code."""

from __future__ import annotations

from pathlib import Path

import pytest

from bontune.base.errors import BontuneError
from bontune.base.user_code import load_function, what_was_raised

SOURCE = """import json
import helper_of_a_grader
def plainly(row, text):
    raise ValueError("not so\\nat all")
def silently(row, text):
    assert text == "x"
def by_a_helper(row, text):
    return helper_of_a_grader.fails(row)
def by_a_library(row, text):
    return json.loads("{")
"""


SAID = {
    "plainly": "ValueError: not so at all (mine.py, line 4)",
    "silently": "AssertionError (mine.py, line 6)",
    "by_a_helper": "KeyError: 'answr' (helper_of_a_grader.py, line 2)",
    "by_a_library": "(mine.py, line 10)",
}


def test_the_line_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "helper_of_a_grader.py").write_text("def fails(row):\n    return row['answr']\n")
    (tmp_path / "elsewhere").mkdir()
    for name, said in SAID.items():
        monkeypatch.chdir(tmp_path)
        function = load_function(f"mine.py:{name}", what="grader")
        with pytest.raises((ValueError, AssertionError, KeyError)) as caught:
            function({"answer": "1"}, "y")
        assert what_was_raised(caught.value).endswith(said)
        monkeypatch.chdir("elsewhere")
        assert str(tmp_path / said.rpartition("(")[2].partition(",")[0]) in what_was_raised(caught.value)


def test_what_fails_while_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import json\n\nlimit = int('many')\n")
    with pytest.raises(BontuneError, match=r"cannot be imported: ValueError: invalid .* \(mine.py, line 3\)\."):
        load_function("mine.py:grade", what="grader")


def test_what_no_line_of_the_users_raised_is_said_without_one() -> None:
    assert what_was_raised(OSError("disk")) == "OSError: disk"
