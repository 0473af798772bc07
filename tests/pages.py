"""The pages of the documentation as tests see them: their blocks of code, in order.

``console``: lines after ``$`` are run; the lines below one are what it prints, with … for anything.
``python``: is run; if its first line is a comment with a file's name, it is saved under that name instead.
``sh``: is only parsed. ``diff``: is applied to a copy of the source.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from commands import Done, run_in_one

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted(path for path in DOCS.rglob("*.md") if not {"_build", "reference"} & {*path.relative_to(DOCS).parts}),
    ]
}
BLOCK = re.compile(r"^```(console|python|sh|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Example:
    """Something that a page says can be run."""

    text: str
    """What the page shows, for messages."""
    command: list[str] | str
    """The arguments to ``bontune``, or Python."""
    expected: list[str] = field(default_factory=list)
    """The lines that it prints, with … for anything; empty: any."""

    def check(self, done: Done) -> None:
        """Compare what happened with what the page says."""
        assert done.returncode == 0, f"{self.text}\n{done.stdout}\n{done.stderr}"
        if self.expected:
            pattern = re.escape("\n".join(self.expected)).replace("…", ".*")
            shown = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
            assert re.fullmatch(pattern, shown, re.DOTALL), f"{self.text}\nprinted\n{shown}\n{done.stderr}"


def blocks(page: str, kind: str) -> list[str]:
    """The blocks of one kind on a page."""
    return [text for found, text in BLOCK.findall(PAGES[page]) if found == kind]


def examples(page: str) -> list[Example]:
    """Everything that runs on a page, in order."""
    found: list[Example] = []
    for kind, text in BLOCK.findall(PAGES[page]):
        if kind == "python":
            found.append(_python(text))
        elif kind == "console":
            for line in joined_lines(text):
                if line.startswith("$ "):
                    found.append(Example(text=line, command=_command(line.removeprefix("$ "))))
                else:
                    found[-1].expected.append(line)
    return found


def _python(text: str) -> Example:
    name = re.match(r"# (\S+\.py)\n", text)
    return Example(text=text, command=f"open({name[1]!r}, 'w').write({text!r})" if name else text)


def _command(line: str) -> list[str] | str:
    name, *arguments = shlex.split(line)
    if name == "bontune":
        return arguments
    if arguments[:2] == ["-m", "pytest"]:
        return f"import pytest; raise SystemExit(pytest.main({arguments[2:]!r}))"
    assert name in ("ls", "python"), f"{line}: an example runs bontune, ls or python"
    line = re.sub(r"^python", shlex.quote(sys.executable), line)
    return f"import subprocess; print(subprocess.check_output({line!r}, shell=True, text=True))"


def joined_lines(text: str) -> list[str]:
    """The lines of a block, those that end in a backslash joined with the next."""
    return re.sub(r"\\\n\s*", "", text).splitlines()


def run_page(page: str, folder: Path) -> list[tuple[Example, Done]]:
    """Run everything on a page, in order, in one folder."""
    found = examples(page)
    return list(zip(found, run_in_one(folder, [example.command for example in found], columns=120), strict=True))
