"""What the pages show runs: commands and Python as written, and every other command line parses."""

from __future__ import annotations

import contextlib
import re
import shlex
from typing import Any

import pytest
import typer

import bontune.models as models
from bontune.cli import app
from bontune.config import load_recipe
from bontune.experiments.suite import load_suite
from bontune.objectives.table import TABLE
from bontune.tasks import names, options
from commands import Done, run_in_one
from pages import PAGES, Example, blocks, examples, joined_lines

RUN = [page for page in PAGES if examples(page) and not page.startswith("docs/extend/")]
COMMAND = re.compile(r"(?:\$ )?(?:(?:torchrun|accelerate launch|python)\b.* -m )?(bontune .*?)(?: > \S+)?(?:\s+#.*)?")
"""Matches a command line of ours, also one that is started in several processes."""
LINES = [
    (page, found[1])
    for page in PAGES
    for block in [*blocks(page, "sh"), *blocks(page, "console")]
    for line in joined_lines(block)
    if (found := COMMAND.fullmatch(line))
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Example, Done]]]:
    """Run all pages in one process, each in a folder of its own: the imports take longer than all the rest."""
    folder, found = tmp_path_factory.mktemp("pages"), {page: examples(page) for page in RUN}
    commands: list[list[str] | str] = []
    for page, shown in found.items():
        own = folder / page.replace("/", "_")
        own.mkdir()
        commands += [f"import os; os.chdir({str(own)!r})", *(example.command for example in shown)]
    results = iter(run_in_one(folder, commands, columns=120))
    by_page = {}
    for page, shown in found.items():
        next(results)
        by_page[page] = [(example, next(results)) for example in shown]
    return by_page


@pytest.mark.parametrize("page", RUN)
def test_what_a_page_shows_runs(page: str, done: dict[str, list[tuple[Example, Done]]]) -> None:
    for example, result in done[page]:
        example.check(result)


def test_the_trainer_trains_with_a_reward_and_a_verifier_of_ones_own(done: Any) -> None:
    trained, used, mathematics, graded = (result.stdout for _, result in done["docs/how-to/python.md"])
    assert "'steps': 10" in trained
    winner, score, num_candidates = used.split()
    assert num_candidates == "32"
    assert float(score) > 0, "a right one is among them, and the verifier knows it"
    assert eval(winner) == 18
    # Two samples are worth 1. The one with the best score wins all C(7, 3) = 35 of the 70 subsets that hold it; the
    # other beats a single sample only, so it wins no subset of 4.
    assert "0.5000" in mathematics
    assert graded.split() == ["True", "42"]


def parse(line: str) -> tuple[str, dict[str, Any]]:
    """The command that a line names, with its parameters; a line that is none fails as it would in a shell."""
    command: Any = typer.main.get_command(app)
    name, *arguments = shlex.split(line)
    with contextlib.ExitStack() as contexts:
        while True:
            context = contexts.enter_context(command.make_context(name, list(arguments)))
            rest = [*getattr(context, "_protected_args", []), *context.args]
            if not hasattr(command, "resolve_command") or not rest:
                return name, context.params
            word, command, arguments = command.resolve_command(context, rest)
            name = f"{name} {word}"


def test_lines_were_found() -> None:
    used = {parse(line)[0].split()[1] for _, line in LINES}
    assert used >= {
        "train",
        "sample",
        "eval",
        "report",
        "sweep",
        "compare",
        "reproduce",
        "verify",
        "answer",
        "quickstart",
    }


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_line_is_one(page: str, line: str) -> None:
    name, given = parse(line)
    if page.startswith("docs/extend/"):
        return  # of the copy that the page changes
    if name in ("bontune train", "bontune export", "bontune recipes show") and not is_made(given.get("recipe")):
        recipe = load_recipe(given.get("recipe") or given["name"], given["overrides"] or [])
        task = {option.name for option in options(recipe.task.name)}
        assert recipe.task.options().keys() <= task
        assert is_named(recipe.model)
    elif name == "bontune reproduce":
        assert load_suite(given["suite"], given["overrides"] or []).arms
    elif name in ("bontune sample", "bontune tasks show"):
        task_name = given.get("task") or given["name"]
        assert task_name in names()
        known = {option.name for option in options(task_name)}
        assert {word.partition("=")[0].partition(".")[0] for word in given["options"] or []} <= known
    elif name == "bontune objectives show":
        assert given["name"] in TABLE
    for model in (given.get("model"), given.get("verifier")):
        assert model is None or is_named(model), f"{page}: there is no {model}"


def is_made(name: str | None) -> bool:
    """Whether a name is that of a folder or file that the reader has made: runs and recipes of one's own."""
    return name is not None and ("/" in name or name.endswith((".yaml", ".yml")))


def is_named(name: str) -> bool:
    """Whether a name without a path or an address is one that ships with the package; RECIPE and its like stand for
    any."""
    shipped = {*models.shipped(), "countdown-verifier", "countdown-verifier-rough", "oracle", "majority"}
    return name in shipped or name.isupper() or any(mark in name for mark in "/:")


def test_the_reward_server_of_a_page_names_a_task() -> None:
    text = "\n".join(PAGES.values())
    found = re.findall(r"-m bontune\.integrations\.verl_reward (\w+)", text)
    assert found
    assert set(found) <= set(names())
