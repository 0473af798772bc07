"""Writes the pages of the reference from the code: commands, recipes, objectives, tasks, verifiers, public names."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import typer
import yaml
from pydantic import BaseModel

import bontune.grading
import bontune.metrics
import bontune.objectives
from bontune import tasks
from bontune.base.text import field_docstrings
from bontune.cli import app
from bontune.config import RECIPES, Recipe, TaskSection, VerifierSection, shipped_recipes
from bontune.experiments.suite import shipped_suites
from bontune.objectives.table import ROWS, Objective
from bontune.verifiers.load import ROWS as VERIFIERS

PUBLIC = {
    "bontune": ["Recipe", "load_recipe", "Trainer", "BestOfN", "load_model", "load_task", "task_from_rows"],
    "bontune.objectives": bontune.objectives.__all__,
    "bontune.metrics": bontune.metrics.__all__,
    "bontune.grading": ["math_equal", "extract_answer", "check_program", "Outcome"],
}
"""The names that a program may rely on, by the module that it imports them from."""
CONTRACTS = [
    "bontune.base.problems.Problem",
    "bontune.grading.verdict.Grade",
    "bontune.grading.verdict.Verdict",
    "bontune.tasks.base.Task",
    "bontune.tasks.base.HasDemonstrations",
    "bontune.verifiers.base.Verifier",
    "bontune.engines.contract.Engine",
    "bontune.engines.contract.Limits",
    "bontune.engines.contract.SamplingOptions",
    "bontune.engines.contract.Samples",
    "bontune.objectives.table.Objective",
    "bontune.objectives.batch.Batch",
    "bontune.objectives.batch.Sources",
]
"""What an extension implements or is given."""


def write_reference(folder: Path) -> None:
    """Write every page of the reference into a folder; a page whose text is the same is left as it is."""
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The pages of the reference by name, as Markdown for MyST."""
    parts = {
        "commands": _commands(),
        "recipes": _recipes(),
        "objectives": _objectives(),
        "tasks": _tasks(),
        "verifiers": _verifiers(),
        "python": _python(),
    }
    return {name: "\n\n".join(blocks) + "\n" for name, blocks in parts.items()}


# ---- Markdown ----


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(text: object) -> str:
    return f"`{text}`"


def _words(text: str | None) -> str:
    """A docstring as Markdown: code in single backticks, each paragraph on one line."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text or ""))
    joined = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    joined = re.sub(r":(?:func|class|meth|mod|attr|data):`([^`]+)`", r"`\1`", joined)
    return joined.replace("``", "`").replace("*", "\\*")


def _autodoc(directive: str, name: str, *options: str) -> str:
    lines = [f".. {directive}:: {name}", *(f"   {option}" for option in options)]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```"


# ---- commands ----


def _commands() -> list[str]:
    blocks = ["# Commands", "`bontune COMMAND --help` prints the same."]
    for name, command in walk(typer.main.get_command(app), "bontune"):
        blocks += [f"## `{name}`", f"```text\n{_usage(name, command)}\n```"]
        blocks += [_help(command)] if command.help else []
        parameters = [p for p in command.params if not getattr(p, "hidden", False) and p.help]
        arguments = [(_code(_shown(p)), p.help) for p in parameters if p.param_type_name == "argument"]
        options = [
            (", ".join(map(_code, p.opts)), _default(p), p.help) for p in parameters if p.param_type_name == "option"
        ]
        blocks += [_table(("argument", "meaning"), arguments)] if arguments else []
        blocks += [_table(("option", "default", "meaning"), options)] if options else []
    return blocks


def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name: a group's commands come after the group."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    if command.invoke_without_command and name != "bontune":
        yield name, command
    for word, part in command.commands.items():
        yield from walk(part, f"{name} {word}")


def _usage(name: str, command: Any) -> str:
    arguments = [_shown(p) for p in command.params if p.param_type_name == "argument"]
    return " ".join([name, *arguments, "[OPTIONS]"])


def _shown(argument: Any) -> str:
    if argument.metavar:
        return str(argument.metavar)
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    return "" if option.default is None or option.default is False else _code(option.default)


def _help(command: Any) -> str:
    """The help text; its examples become one block of code."""
    paragraphs = [re.sub(r"^Examples?: (?=bontune )", "", text) for text in _words(command.help).split("\n\n")]
    examples = [text for text in paragraphs if text.startswith("bontune ")]
    blocks = [text for text in paragraphs if text not in examples]
    return "\n\n".join([*blocks, *(["```text\n" + "\n".join(examples) + "\n```"] if examples else [])])


# ---- recipes ----


def _recipes() -> list[str]:
    blocks = [
        "# Recipes and their keys",
        "A recipe says everything about a training run. `bontune recipes show NAME` prints one whole, and "
        "`bontune train NAME section.key=value` changes a key. An unknown key is an error that names the nearest one.",
        "## Shipped recipes",
        _table(("name", "what it trains"), [(_code(name), _first_line(name)) for name in shipped_recipes()]),
        "## Keys",
        *_keys(Recipe),
    ]
    suites = ", ".join(map(_code, shipped_suites()))
    return [*blocks, "## Suites", f"`bontune reproduce` knows {suites}, or takes your own YAML file."]


def _first_line(recipe: str) -> str:
    first = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("#").strip()


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """A table of the model's own keys, then the sections in it; one that may be null is a key, too."""
    rows, sections = [], []
    for name, field in model.model_fields.items():
        section, default = _section_of(field.annotation), field.get_default(call_default_factory=True)
        if section is None or default is None:
            rows.append((_code(prefix + name), _default_of(default), _words(field.description)))
        if section is not None and not (prefix and section is TaskSection):  # its keys are shown under `task`
            sections.append((name, section))
    if rows:
        yield _table(("key", "default", "meaning"), rows)
    for name, section in sections:
        yield f"### `{prefix}{name}`"
        yield _words(section.__doc__)
        yield from _keys(section, f"{prefix}{name}.")


def _section_of(annotation: Any) -> type[BaseModel] | None:
    kinds = [annotation, *typing.get_args(annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _default_of(value: object) -> str:
    return _code(yaml.safe_dump(value, default_flow_style=True, width=200).removesuffix("...\n").strip())


# ---- objectives ----


def _objectives() -> list[str]:
    blocks = [
        "# Objectives",
        "`objective.name` takes one of these names. The options are keys of the recipe's section `objective`, beside "
        "`n` and `reward`. The derivations stand in [the estimators](../estimators.md).",
        _table(
            ("name", "what it does", "source"),
            [(f"[`{row.name}`](#{_anchor(row.name)})", row.summary, _source(row)) for row in ROWS],
        ),
    ]
    for row in ROWS:
        blocks += [f"({_anchor(row.name)})=\n## `{row.name}`", row.summary, f"*Source:* {_source(row)}. {_needs(row)}"]
        options = list(_options(row.options))
        blocks += [_table(("option", "values", "default", "meaning"), options)] if options else []
        blocks += [_autodoc("autofunction", f"{row.function.__module__}.{row.function.__name__}", ":no-index:")]
    return blocks


def _anchor(name: str) -> str:
    return f"objective-{name.replace('_', '-')}"


def _source(row: Objective) -> str:
    return row.source.replace("docs/estimators.md", "[the estimators](../estimators.md)")


def _needs(row: Objective) -> str:
    names = {"own": "the policy's samples", "reference": "the anchor's samples", "demonstrated": "demonstrations"}
    text = f"Trains on {' and '.join(names[source] for source in row.sources)}."
    text += "" if row.takes_any_reward else " Rewards must be 0 or 1."
    return f"{text} `n` may be [several budgets with weights](../every-n.md)." if row.takes_budgets else text


def _options(options: type) -> Iterator[tuple[str, str, str, str]]:
    hints, meanings = typing.get_type_hints(options), field_docstrings(options)
    for field in dataclasses.fields(options):
        yield _code(field.name), _values(hints[field.name]), _default_of(field.default), _words(meanings[field.name])


def _values(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(map(_code, typing.get_args(hint)))
    names = {bool: "true, false", int: "whole number", float: "number", type(None): "null", list[float]: "numbers"}
    return " or ".join(names.get(kind) or _values(kind) for kind in typing.get_args(hint) or (hint,))


# ---- tasks and verifiers ----


def _tasks() -> list[str]:
    blocks = ["# Tasks", "Options are `KEY=VALUE` of `bontune sample` and keys of the recipe's section `task`."]
    classes = {name.lower(): getattr(tasks, name) for name in tasks.__all__}
    for name in tasks.names():
        about = inspect.getdoc(classes[name]) if name in classes else tasks.describe()[name]
        blocks += [f"## `{name}`", _words(about).split("\n\nArgs:")[0]]
        rows = [
            (_code(option.name), _code(option.default) if option.default else "required", _words(option.summary))
            for option in tasks.options(name)
        ]
        blocks += [_table(("option", "default", "meaning"), rows)] if rows else []
    return blocks


def _verifiers() -> list[str]:
    return [
        "# Verifiers",
        "A recipe names its verifier in the section `verifier`:",
        _table(
            ("key", "default", "meaning"),
            [
                (_code(f"verifier.{name}"), _default_of(field.default), _words(field.description))
                for name, field in VerifierSection.model_fields.items()
            ],
        ),
        "On a command line, one word after `--verifier` says the same:",
        _autodoc("autofunction", "bontune.verifiers.load.verifier_from_text", ":no-index:"),
        "## What each one does",
        _table(("verifier", "its score"), [(_code(row.name), row.summary) for row in VERIFIERS]),
        _autodoc("autoclass", "bontune.verifiers.base.Oracle", ":no-index:"),
        _autodoc("autoclass", "bontune.verifiers.base.Majority", ":no-index:"),
        _autodoc("autoclass", "bontune.verifiers.base.FunctionVerifier", ":no-index:"),
        _autodoc("autoclass", "bontune.verifiers.reward_model.RewardModel", ":no-index:"),
        _autodoc("autoclass", "bontune.verifiers.judge.Judge", ":no-index:"),
    ]


# ---- public names ----


def _python() -> list[str]:
    blocks = ["# Python", "These names are stable: a later version keeps them and what they mean."]
    for module, names in PUBLIC.items():
        blocks += [f"## `{module}`", *(_documented(f"{module}.{name}") for name in names)]
    where = "[where to add something](../architecture.md#where-to-add-something)"
    blocks += ["## Contracts", f"An extension implements these, or is given them; see {where}."]
    return [*blocks, *map(_documented, CONTRACTS)]


def _documented(path: str) -> str:
    module, _, name = path.rpartition(".")
    value = getattr(import_module(module), name)
    if not isinstance(value, type):
        return _autodoc("autofunction" if callable(value) else "autodata", path)
    if issubclass(value, BaseModel):  # its keys are on the page of recipes
        return _autodoc("autoclass", f"{path}()", ":members:", f":exclude-members: {', '.join(value.model_fields)}")
    return _autodoc("autoclass", path, ":members:")
