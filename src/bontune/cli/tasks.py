"""``bontune tasks show``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bontune.base.errors import BontuneError, RunStopped, did_you_mean
from bontune.base.settings import apply_overrides
from bontune.base.text import without_markup
from bontune.tasks import Problem, Task, load_task
from bontune.tasks import options as options_of
from bontune.tasks.benchmark import Benchmark

MAX_FAILURES_SHOWN = 20


def show_problem(
    name: str,
    options: Sequence[str],
    split: str,
    *,
    index: int = 0,
    problem_id: str | None = None,
    form: str = "both",
    is_checked: bool = False,
) -> None:
    """Print a problem as a model sees it, its reference, and the task's splits and options.

    Args:
        name: of the task.
        options: of the task, as ``key=value``.
        split: which problems.
        index: which of them, from 0.
        problem_id: the problem of this id instead.
        form: ``base``: the text to continue; ``chat``: the conversation; ``both``: what there is.
        is_checked: grade every reference of the split.

    Raises:
        BontuneError: no such task, option, split or problem.
        RunStopped: a reference does not pass.
    """
    task = load_task(name, **apply_overrides({}, options))
    problems = task.problems(split)
    problem = _chosen(problems, split, index, problem_id)
    if form == "chat" and not problem.messages:
        raise BontuneError(f"task {task.name} offers no conversation here, only a text; see --format base")
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    sizes = ", ".join(f"{other} {len(task.problems(other))}" for other in task.splits)
    console.print(f"{task.name}, split {split}: {len(problems)} problems (splits: {sizes})")
    level = "" if problem.level is None else f", level {problem.level}"
    _print(console, f"problem {problems.index(problem)}: {problem.id}{level}", "")
    if form != "chat":
        ends = f", which ends at {' or '.join(map(repr, task.stop))}" if task.stop else ""
        _print(console, f"prompt, a text to continue{ends}", problem.prompt)
    if form != "base":
        for message in problem.messages:
            _print(console, f"conversation, {message['role']}", message["content"])
    _print(console, "reference", problem.reference)
    _print_options(console, name)
    if is_checked:
        _check(console, task, problems)


def _chosen(problems: Sequence[Problem], split: str, index: int, problem_id: str | None) -> Problem:
    if problem_id is not None:
        for problem in problems:
            if problem.id == problem_id:
                return problem
        hint = did_you_mean(problem_id, [problem.id for problem in problems])
        raise BontuneError(f"split {split} has no problem {problem_id!r}{hint}")
    if index >= len(problems):
        raise BontuneError(f"split {split} has {len(problems)} problems; --index goes to {len(problems) - 1}")
    return problems[index]


def _print(console: Console, title: str, text: str) -> None:
    console.print(Text(f"── {title}", style="bold cyan"))
    if text:
        console.print(Text(text))


def _print_options(console: Console, name: str) -> None:
    found = options_of(name)
    if not found:
        return
    _print(console, "options (key=value)", "")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for option in found:
        given = f"{option.name}={option.default}" if option.default else f"{option.name} (must be given)"
        table.add_row(Text(given), Text(without_markup(option.summary)))
    console.print(table, soft_wrap=False)


def _check(console: Console, task: Task, problems: Sequence[Problem]) -> None:
    """Grade references; a task of rows has its reference as text, which is taken as the completion."""
    _print(console, "references", "")
    if isinstance(task, Benchmark):
        failures = task.failures(problems)
    else:
        rows = task.grade(problems, [[problem.reference] for problem in problems])
        graded = [(problem, grade) for problem, (grade,) in zip(problems, rows, strict=True)]
        failures = [(problem, grade) for problem, grade in graded if not grade.reward > 0]
    for problem, grade in failures[:MAX_FAILURES_SHOWN]:
        console.print(f"{problem.id}: {grade.verdict.value}: {grade.reason}")
    console.print(f"{len(problems) - len(failures)} of {len(problems)} pass")
    if failures:
        raise RunStopped(f"{len(failures)} of {len(problems)} references of task {task.name} do not pass")
