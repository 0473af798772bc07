"""What is compared: run folders, models and pools, and the pools that are drawn for the first two."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import bontune.metrics as metrics
import bontune.tasks as tasks
from bontune.base.errors import BontuneError
from bontune.base.problems import contents_digest
from bontune.base.settings import differing
from bontune.base.text import temperature_text
from bontune.config import Recipe, TaskSection, VerifierSection, is_run, load_recipe
from bontune.engines.contract import SamplingOptions
from bontune.models import resolve
from bontune.objectives.budgets import as_budgets
from bontune.pools.compare import check_ks
from bontune.pools.draw import PoolRequest
from bontune.pools.pool import Pool
from bontune.pools.read import is_pool_file, read_pool
from bontune.tasks.base import grader_code_of

_ALIKE = ("temperature", "split", "verifier", "max_new_tokens", "top_p")
"""Settings of pools that make a difference which is not the models'."""
Pools = Mapping[float | None, Mapping[str, Pool]]
"""Temperature → what is compared → its pool; None: pools as they were drawn, at whatever temperature."""


class Kind(Enum):
    """What an argument is."""

    RUN = "a run"
    MODEL = "a model"
    POOL = "a pool"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrant:
    """One of the things to compare."""

    name: str
    """Name as it was given, the path tidied."""
    kind: Kind
    """Kind of the argument."""
    recipe: Recipe | None = None
    """Recipe of a run; None for pools and models."""

    @property
    def model(self) -> str:
        """What to sample from; not for pools."""
        return str(Path(self.name) / "model") if self.kind is Kind.RUN else self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawOptions:
    """How pools of runs and models are drawn; none of it is for pools that are given."""

    samples: int = 64
    """Completions per problem."""
    temperature: str = "1.0"
    """One temperature, or several with commas."""
    split: str | None = None
    """Split of the task; None: ``test``, or ``validation`` where the task has no test."""
    limit: int | None = None
    """Number of problems, the first of the split; None: all."""
    seed: int = 0
    """Seed for sampling, the same for all."""
    verifier: str | None = None
    """Verifier; None: the first run's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawPlan:
    """What is drawn, from the first run's recipe and the options."""

    task: TaskSection
    """Task of the first run."""
    split: str
    """Split of the problems that are compared."""
    chosen_on: str
    """The split by which own temperatures are chosen."""
    temperatures: tuple[float, ...]
    """Temperatures, ascending."""
    verifier: str
    """Verifier, as ``bontune sample`` takes it."""
    max_new_tokens: int
    """Longest completion."""
    trained_ns: tuple[tuple[int, ...], ...]
    """Every N that each run was trained for, ascending."""
    drawing: DrawOptions
    """Options of the command line."""
    solved_at: float | None = None
    """Reward from which on a sample counts as solved, by the first run's recipe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """Pools of the same problems, ready to be compared."""

    measured: Pools
    """Pools that are compared; for each temperature in the order of the arguments."""
    chosen_on: Pools
    """Pools by which each one's own temperature is chosen; empty where there is one temperature."""
    ks: list[int]
    """Budgets to report, ascending."""
    num_samples: int
    """Samples per problem of the smallest pool."""
    plan: DrawPlan | None
    """How pools were drawn; None if all were given."""


def gather(
    arguments: Sequence[str],
    drawing: DrawOptions,
    ks: str | None,
    out: Path,
    *,
    draw: Callable[[Mapping[Path, PoolRequest]], None],
    warn: Callable[[str], None],
) -> Gathered:
    """Check everything that can be checked, then draw what is missing into ``out/pools``.

    Args:
        arguments: run folders, pools, and models by name; the first is what the others are compared with.
        drawing: how pools of runs and models are drawn.
        ks: budgets such as ``1,4,16``; None: powers of two and the first run's N.
        out: folder of the comparison.
        draw: draws pools that are not there yet, such as :func:`bontune.pools.draw.draw_missing`.
        warn: called with a sentence about what may be in a difference besides the models.

    Raises:
        BontuneError: what is given cannot be compared; nothing has been drawn then.
        RunStopped, Interrupted: drawing had to stop; the same command resumes.
    """
    if len(arguments) < 2:
        raise BontuneError(f"A comparison needs two runs, pools or models at least, got {' '.join(arguments)}.")
    entrants = [_entrant(argument) for argument in arguments]
    names = [entrant.name for entrant in entrants]
    if len(set(names)) < len(names):
        raise BontuneError(f"{next(name for name in names if names.count(name) > 1)} is given twice.")
    given = {entrant.name: read_pool(Path(entrant.name)) for entrant in entrants if entrant.kind is Kind.POOL}
    plan = _plan(entrants, drawing, given)
    num_samples = min([len(p.columns["reward"][0]) for p in given.values()] + ([drawing.samples] if plan else []))
    budgets = _budgets(ks, num_samples, plan)
    _check_given(given)
    drawn: dict[str, Pools] = {}
    if plan is not None:
        drawn = _draw([entrant for entrant in entrants if entrant.kind is not Kind.POOL], plan, out, draw)
    if plan is not None and not given:
        measured: Pools = drawn[plan.split]
        chosen_on: Pools = drawn[plan.chosen_on] if len(plan.temperatures) > 1 else {}
    else:
        of_name = given | dict(drawn[plan.split][plan.temperatures[0]] if plan is not None else {})
        measured, chosen_on = {None: {name: of_name[name] for name in names}}, {}
    _warn([*measured.values(), *chosen_on.values()], warn)
    return Gathered(measured=measured, chosen_on=chosen_on, ks=budgets, num_samples=num_samples, plan=plan)


def _entrant(argument: str) -> Entrant:
    """What an argument is; it is not read yet."""
    if argument.startswith(("http://", "https://")):
        raise BontuneError(f"{argument} is a server: draw a pool from it with `bontune sample`, then compare pools.")
    path = Path(argument)
    name = str(path)
    if is_pool_file(path):
        return Entrant(name=name, kind=Kind.POOL)
    if is_run(path):
        if not (path / "recipe.yaml").is_file():
            raise BontuneError(f"The run folder {name} holds no recipe.yaml, so what to evaluate it on is not known.")
        if not (path / "model").is_dir():
            raise BontuneError(
                f"{name} holds no model/: the run is not finished; `bontune train {name}` goes on with it."
            )
        resolve(path / "model")
        return Entrant(name=name, kind=Kind.RUN, recipe=load_recipe(str(path)))
    if path.is_dir() and not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
        raise BontuneError(f"{name} is neither a run (no recipe.yaml) nor a model (no config.json).")
    if not path.exists() and len(path.parts) > 1 and path.parent.is_dir():
        raise BontuneError(f"There is nothing at {name}: give a run folder, a pool (.parquet or .jsonl), or a model.")
    resolve(argument)
    return Entrant(name=argument if not path.exists() else name, kind=Kind.MODEL)


def _plan(entrants: Sequence[Entrant], drawing: DrawOptions, given: Mapping[str, Pool]) -> DrawPlan | None:
    """How to draw the pools of runs and models; None if all that is compared are pools.

    Raises:
        BontuneError: there is no run to say how, runs of different tasks, or options that cannot be used.
    """
    if all(entrant.kind is Kind.POOL for entrant in entrants):
        for option in dataclasses.fields(DrawOptions):
            if getattr(drawing, option.name) != option.default:
                raise BontuneError(f"--{option.name} is for runs and models; pools are compared as they were drawn.")
        return None
    runs = [(entrant.name, entrant.recipe) for entrant in entrants if entrant.recipe is not None]
    if not runs:
        model = next(entrant.name for entrant in entrants if entrant.kind is Kind.MODEL)
        raise BontuneError(
            f"{model} is a model, and no run is given whose recipe says on which task to sample it: give one, or pools "
            "of `bontune sample`."
        )
    first, recipe = runs[0]
    task = _task_of(recipe)
    for name, other in runs[1:]:
        if not _is_same(task, _task_of(other)):
            raise BontuneError(
                f"{first} is of task {_task_text(task)} and {name} of {_task_text(_task_of(other))}: only runs of the "
                "same task can be compared."
            )
    for name, pool in given.items():
        if pool.settings.get("task", task.name) != task.name:
            raise BontuneError(f"{first} is of task {task.name} and {name} of {pool.settings['task']}.")
    temperatures = _temperatures(drawing.temperature)
    if given and len(temperatures) > 1:
        raise BontuneError(f"{next(iter(given))} was drawn at one temperature: give one --temperature, or no pools.")
    loaded = tasks.load_task(task.name, **task.options())
    split = drawing.split or next((name for name in ("test", "validation") if name in loaded.splits), None)
    if split is None:
        raise BontuneError(f"Task {task.name} has only the splits {', '.join(loaded.splits)}: give one with --split.")
    references = {problem.id: problem.reference for problem in loaded.problems(split)[: drawing.limit]}
    for name, pool in given.items():
        _check_problems(f"split {split} of {task.name}", references, name, _references(pool))
    return DrawPlan(
        task=task,
        split=split,
        chosen_on="validation" if "validation" in loaded.splits else split,
        temperatures=temperatures,
        verifier=drawing.verifier or _verifier_text(first, recipe.verifier),
        max_new_tokens=recipe.sampling.max_new_tokens,
        drawing=drawing,
        trained_ns=tuple(tuple(sorted(as_budgets(run.objective.n_at()))) for _, run in runs),
        solved_at=recipe.eval.solved_at,
    )


def _task_of(recipe: Recipe) -> TaskSection:
    """The task that a run is evaluated on."""
    return recipe.eval.task or recipe.task


def _is_same(one: TaskSection, other: TaskSection) -> bool:
    """Whether two tasks have the same name, and options that differ only in names of files that hold the same."""
    if one.name != other.name or one.options() == other.options():
        return one.name == other.name
    return not differing(*map(_with_contents, (one, other)))


def _with_contents(task: TaskSection) -> dict[str, Any]:
    loaded = tasks.load_task(task.name, **task.options())
    problems = [problem for split in loaded.splits for problem in loaded.problems(split)]
    contents = {"the problems": contents_digest(problems), "the grader's code": grader_code_of(loaded)}
    return {"task_options": task.options(), "contents": contents}


def _task_text(task: TaskSection) -> str:
    return " ".join([task.name, *(f"{key}={value}" for key, value in task.options().items())])


def _verifier_text(run: str, section: VerifierSection) -> str:
    """A recipe's verifier as ``--verifier`` takes it."""
    if section.prompt is not None:
        raise BontuneError(f"The judge of {run} has a prompt of its own: name the verifier to compare by, --verifier.")
    if section.name == "endpoint":
        return f"{section.url}#{section.model}" if section.model else str(section.url)
    return section.path or section.function or section.name


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        values = sorted(float(part) for part in text.split(","))
    except ValueError:
        values = [math.nan]
    if not all(0 < value < math.inf for value in values):
        raise BontuneError(f"--temperature takes numbers above 0, like 1.0 or 0.6,0.8,1.0, got {text!r}.")
    if len({f"{value:g}" for value in values}) < len(values):  # pools are named so
        raise BontuneError(f"--temperature names one twice: {text}.")
    return tuple(values)


def _budgets(ks: str | None, num_samples: int, plan: DrawPlan | None) -> list[int]:
    """The k to report, ascending: those of ``--k``, else powers of two and each N the first run was trained for."""
    chosen = check_ks(ks, num_samples)
    if chosen is None:
        chosen = metrics.default_ks(num_samples)
        if plan is not None:
            chosen += [n for n in plan.trained_ns[0] if n <= num_samples]
    return sorted(set(chosen))


def _check_given(given: Mapping[str, Pool]) -> None:
    """Whether pools are of the same task and problems."""
    if not given:
        return
    (first, ours), *others = given.items()
    for name, pool in others:
        tasks = [p.settings.get("task") for p in (ours, pool)]
        if None not in tasks and tasks[0] != tasks[1]:
            raise BontuneError(f"{first} is of task {tasks[0]} and {name} of {tasks[1]}.")
        _check_problems(first, _references(ours), name, _references(pool))


def _references(pool: Pool) -> dict[str, Any]:
    """Problem → its reference, None where the pool has none."""
    return dict.fromkeys(pool.problem_ids) | column_of(pool, "reference")


def _check_problems(first: str, ours: Mapping[str, Any], name: str, theirs: Mapping[str, Any]) -> None:
    """Whether two hold the same problems; problems of the same id but another reference are others."""
    if ours.keys() != theirs.keys():
        raise BontuneError(
            f"{first} and {name} hold different problems ({len(ours)} and {len(theirs)}, "
            f"{len(ours.keys() & theirs.keys())} of them in both): a paired comparison needs the same."
        )
    for problem, reference in theirs.items():
        if None not in (reference, ours[problem]) and reference != ours[problem]:
            raise BontuneError(
                f"{first} and {name} hold different problems: the reference of {problem} is {ours[problem]!r} in one "
                f"and {reference!r} in the other."
            )


def column_of(pool: Pool, name: str) -> dict[str, Any]:
    """Problem → the value of its first sample, where it has one."""
    rows = pool.columns.get(name, [])
    return {problem: row[0] for problem, row in zip(pool.problem_ids, rows, strict=bool(rows)) if row[0] is not None}


def _draw(
    entrants: Sequence[Entrant], plan: DrawPlan, out: Path, draw: Callable[[Mapping[Path, PoolRequest]], None]
) -> dict[str, Pools]:
    """Split → temperature → name → its pool, drawn where it is not there yet."""

    splits = dict.fromkeys([plan.split, plan.chosen_on] if len(plan.temperatures) > 1 else [plan.split])
    paths: dict[tuple[float, str, str], Path] = {}
    wanted = {}
    for entrant in entrants:
        # A run that was trained again gets a new pool: its weights are part of the name.
        stem = "-".join(part for part in (_file_name(entrant.name), _weights_hash(entrant.model)) if part)
        for split in splits:
            for temperature in plan.temperatures:
                path = out / "pools" / f"{stem}-{_file_name(split)}-T{temperature_text(temperature)}.parquet"
                paths[temperature, split, entrant.name] = path
                sampling = SamplingOptions(
                    num_samples=plan.drawing.samples, max_new_tokens=plan.max_new_tokens, temperature=temperature
                )
                wanted[path] = PoolRequest(
                    model=entrant.model,
                    task=plan.task.name,
                    task_options=plan.task.options(),
                    sampling=sampling,
                    split=split,
                    limit=plan.drawing.limit,
                    verifier=plan.verifier,
                    seed=plan.drawing.seed,
                )
    draw(wanted)
    pools: dict[str, dict[float | None, dict[str, Pool]]] = {split: {} for split in splits}
    for (temperature, split, name), path in paths.items():
        pools[split].setdefault(temperature, {})[name] = read_pool(path)
    return dict(pools)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[-80:]


def _weights_hash(model: str) -> str:
    """A short hash of a model's folder or GGUF file; empty for one of the hub, whose name stands for it."""
    place = Path(resolve(model))
    if not place.exists():
        return ""
    digest = hashlib.sha256()
    for path in sorted(path for path in (place.iterdir() if place.is_dir() else [place]) if path.is_file()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as file:
            while chunk := file.read(2**22):
                digest.update(chunk)
    return digest.hexdigest()[:8]


def _warn(compared: Sequence[Mapping[str, Pool]], warn: Callable[[str], None]) -> None:
    """Say what may be in the difference besides the models."""
    for of_name in compared:
        (first, ours), *others = of_name.items()
        for name, pool in of_name.items():
            if note := pool.ungraded(name):
                warn(note)
        for name, pool in others:
            for setting in _ALIKE:
                values = [p.settings.get(setting) for p in (ours, pool)]
                if None not in values and values[0] != values[1]:
                    warn(
                        f"{first} and {name} were drawn with {setting} {values[0]} and {values[1]}: their difference "
                        "is not that of the models alone"
                    )
    every = [pool for of_name in compared for pool in of_name.values()]
    if any(pool.settings.get("verifier") == "majority" for pool in every):
        warn("the votes were counted over all samples of a problem, which flatters best@k at smaller k")
