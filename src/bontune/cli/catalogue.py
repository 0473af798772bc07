"""``bontune recipes``, ``objectives`` and ``tasks``: list what ships with the package, and show one of it."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from bontune.base.errors import BontuneError, RunStopped, did_you_mean
from bontune.base.text import field_docstrings, without_markup
from bontune.cli import options as shared
from bontune.cli.terminal import PlainTyper, console, print_names

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bontune.tasks import Problem, Task

recipes_app = PlainTyper(
    help="List the recipes that ship with the package, show one, or explain the keys.", invoke_without_command=True
)
objectives_app = PlainTyper(help="List the objectives, or show one and its options.", invoke_without_command=True)
tasks_app = PlainTyper(help="List the tasks that ship with the package, or show one.", invoke_without_command=True)

MAX_FAILURES_SHOWN = 20


# ---- recipes ----


@recipes_app.callback()
def list_recipes(context: typer.Context) -> None:
    """List the recipes that ship with the package, show one, or explain the keys."""
    if context.invoked_subcommand is not None:
        return
    from bontune.config import RECIPES, shipped_recipes

    lines = {name: (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0] for name in shipped_recipes()}
    print_names({name: line.removeprefix("#").strip() for name, line in lines.items()})


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A shipped recipe, a YAML file, or a run folder.")],
    overrides: shared.KeyValues = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also say what each key means.")] = False,
) -> None:
    """Print a recipe with every key and its value."""
    from bontune.config import Recipe, load_recipe

    recipe = load_recipe(name, overrides or [])
    text = recipe.to_yaml()
    if not explain:
        print(text, end="")
        return
    meanings = {key: meaning for key, _, meaning in keys_of(Recipe)}
    options = field_docstrings(recipe.objective.row().options)
    meanings |= {f"objective.{key}": without_markup(meaning) for key, meaning in options.items()}
    parents: list[str] = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        parents = [*parents[: len(indent) // 2], line.strip().partition(":")[0]]
        meaning = meanings.get(".".join(parents)) if not line.lstrip().startswith("-") else None
        if meaning:
            print("\n".join(textwrap.wrap(meaning, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")))
        print(line)


@recipes_app.command("keys")
def list_keys(
    prefix: Annotated[str, typer.Argument(help="Only keys that begin with this, such as `training.`.")] = "",
) -> None:
    """Print the keys of a recipe with their defaults and what they mean.

    Example: bontune recipes keys training.lora
    """
    import yaml
    from pydantic import BaseModel

    from bontune.config import Recipe

    keys = list(keys_of(Recipe))
    matches = [row for row in keys if row[0].startswith(prefix)]
    if not matches:
        hint = did_you_mean(prefix, [key for key, _, _ in keys], 0.5)
        raise BontuneError(f"No key of a recipe begins with {prefix!r}{hint}.")
    for key, default, meaning in matches:
        value = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("...\n").strip()
        console().print(Text.assemble((key, "bold"), f" = {text}"))
        console().print(Text(f"  {meaning}"))
    for section, command in (("objective", "objectives"), ("task", "tasks")):
        if section.startswith(prefix) or prefix.startswith(section):
            console().print(f"More keys of {section} depend on its name: `bontune {command} show NAME`.")


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted key, default, meaning) of a section and of the sections within it."""
    from pydantic import BaseModel

    for name, field in section.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        default = field.get_default(call_default_factory=True)
        if inner is None or prefix or default is None:
            yield prefix + name, default, without_markup(" ".join((field.description or "").split()))
        if inner is not None and not (prefix and inner.__name__ == "TaskSection"):
            yield from keys_of(inner, f"{prefix}{name}.")


# ---- objectives ----


@objectives_app.callback()
def list_objectives(context: typer.Context) -> None:
    """List the objectives, or show one and its options."""
    if context.invoked_subcommand is None:
        from bontune.objectives.table import ROWS

        print_names({row.name: row.summary for row in ROWS})


@objectives_app.command("show")
def show_objective_row(
    name: Annotated[str, typer.Argument(help="The objective's name; `bontune objectives` lists them.")],
) -> None:
    """Print what an objective trains for, its source, its mathematics, and its keys in a recipe."""
    from bontune.config import ObjectiveSection

    row = ObjectiveSection(name=name).row()
    meanings = field_docstrings(row.options)
    lines = [f"{row.name}: {row.summary}", f"Source: {row.source}"]
    if row.takes_budgets:
        lines.append("Takes one N, or several with weights: objective.n={1: 0.5, 16: 0.5}.")
    for field in dataclasses.fields(row.options):
        default = "null" if field.default is None else field.default
        lines.append(f"  objective.{field.name}={default}  {without_markup(meanings[field.name])}")
    width = console().width
    print("\n".join(wrapped_line for line in lines for wrapped_line in _wrapped(line, width)))
    print()
    print(_flowing(without_markup(inspect.getdoc(row.function) or ""), width))


def _flowing(docstring: str, width: int) -> str:
    """Fit a docstring to a width: paragraphs flow; an indented line stays one, and hangs where it is too long."""
    lines: list[str] = []
    for line in docstring.splitlines():
        depth, before = _depth(line), _depth(lines[-1]) if lines and lines[-1] else -1
        is_prose = depth == before == 0 and not lines[-1].endswith(":") and not re.match(r">>>|\[|\(", line)
        if line and lines and lines[-1] and (is_prose or depth >= 8 > before > 0):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(wrapped_line for line in lines for wrapped_line in _wrapped(line, width))


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _wrapped(line: str, width: int) -> list[str]:
    """Break a line between words; the following lines are four columns deeper, unless it is one of a paragraph."""
    deeper = " " * (_depth(line) + 4) if _depth(line) or line.startswith(">>>") else ""
    return textwrap.wrap(line, width, subsequent_indent=deeper, break_on_hyphens=False) or [""]


# ---- tasks ----


@tasks_app.callback()
def list_tasks(context: typer.Context) -> None:
    """List the tasks that ship with the package, or show one."""
    if context.invoked_subcommand is None:
        from bontune.tasks import describe

        print_names(describe())


@tasks_app.command("show")
def show_task(
    name: shared.TaskName,
    options: shared.KeyValues = None,
    split: shared.Split = "test",
    index: Annotated[int, typer.Option(min=0, help="Show this problem of the split, counted from 0.")] = 0,
    problem_id: Annotated[str | None, typer.Option("--id", help="Show the problem with this id instead.")] = None,
    form: Annotated[
        Literal["both", "base", "chat"],
        typer.Option("--format", help="Show the text for base models, the chat messages, or both."),
    ] = "both",
    check: Annotated[bool, typer.Option("--check", help="Also grade every reference of the split.")] = False,
) -> None:
    """Print a problem as a model sees it, its reference, and the task's splits and options.

    KEY=VALUE are options of the task.

    Example: bontune tasks show math data=DATA --index 3 --format chat
    """
    from bontune import tasks
    from bontune.base.settings import apply_overrides

    values = apply_overrides({}, options or [])
    required = [option.name for option in tasks.options(name) if not option.default]
    if required and not values:
        print(f"{name}: {tasks.describe()[name]}")
        _print_options(name)
        print(f"To see a problem, give {', '.join(f'{key}=…' for key in required)}.")
        return
    task = tasks.load_task(name, **values)
    problems = task.problems(split)
    problem = _chosen(problems, split, index, problem_id)
    if form == "chat" and not problem.messages:
        raise BontuneError(f"Task {task.name} offers no conversation here, only a text; see --format base.")
    sizes = ", ".join(f"{other} {len(task.problems(other))}" for other in task.splits)
    print(f"{task.name}, split {split}: {len(problems)} problems (splits: {sizes})")
    level = "" if problem.level is None else f", level {problem.level}"
    _print_part(f"problem {problems.index(problem)}: {problem.id}{level}")
    if form != "chat":
        ends = f", which ends at {' or '.join(map(repr, task.stop))}" if task.stop else ""
        _print_part(f"prompt, a text to continue{ends}", problem.prompt)
    if form != "base":
        for message in problem.messages:
            _print_part(f"conversation, {message['role']}", message["content"])
    _print_part("reference", problem.reference)
    _print_options(name)
    if check:
        _check(task, problems)


def _chosen(problems: Sequence[Problem], split: str, index: int, problem_id: str | None) -> Problem:
    """Find the problem that was asked for.

    Raises:
        BontuneError: the split has no such problem.
    """
    if problem_id is not None:
        for problem in problems:
            if problem.id == problem_id:
                return problem
        hint = did_you_mean(problem_id, [problem.id for problem in problems])
        raise BontuneError(f"Split {split} has no problem {problem_id!r}{hint}.")
    if index >= len(problems):
        raise BontuneError(f"Split {split} has {len(problems)} problems; --index goes to {len(problems) - 1}.")
    return problems[index]


def _print_part(title: str, text: str = "") -> None:
    """Print a title, and a text exactly as it is."""
    console().print(Text(f"── {title}", style="bold cyan"), soft_wrap=True)
    if text:
        console().print(Text(text), soft_wrap=True)


def _print_options(name: str) -> None:
    from bontune import tasks

    options = tasks.options(name)
    if options:
        _print_part("options (key=value)")
        print_names(
            (f"{o.name}={o.default}" if o.default else f"{o.name} (must be given)", without_markup(o.summary))
            for o in options
        )


def _check(task: Task, problems: Sequence[Problem]) -> None:
    """Grade references; a task of rows has its reference as text, which is taken as the completion.

    Raises:
        RunStopped: a reference does not pass.
    """
    from bontune.tasks.benchmark import Benchmark

    _print_part("references")
    if isinstance(task, Benchmark):
        failures = task.failures(problems)
    else:
        rows = task.grade(problems, [[problem.reference] for problem in problems])
        graded = [(problem, grade) for problem, (grade,) in zip(problems, rows, strict=True)]
        failures = [(problem, grade) for problem, grade in graded if not grade.reward > 0]
    for problem, grade in failures[:MAX_FAILURES_SHOWN]:
        print(f"{problem.id}: {grade.verdict.value}: {grade.reason}")
    print(f"{len(problems) - len(failures)} of {len(problems)} pass")
    if failures:
        raise RunStopped(f"{len(failures)} of {len(problems)} references of task {task.name} do not pass.")
