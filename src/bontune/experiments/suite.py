"""A suite: the arms that are trained and compared, what they are measured by, and the claims that are put to the test.

Suites are YAML files; the shipped ones lie in ``suites/``. All arms start from one recipe and one model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError
from pydantic import NonNegativeFloat as NotNegative
from pydantic import NonNegativeInt as NotNegativeInt

from bontune.base.errors import BontuneError, nearest
from bontune.base.settings import apply_overrides, choose_size, explain, merged, read_yaml
from bontune.config import Recipe, Section, read_recipe

SUITES = Path(__file__).parent / "suites"
BASE = "base"
"""The arm that is not trained."""
MOST_LINES = 7
"""Most lines in a picture in which each line has a label."""


class Arm(Section):
    """One way to train."""

    label: str
    """Name of the arm, for people."""
    recipe: dict[str, Any] = {}
    """Keys that the arm changes in the suite's recipe."""
    lr: list[PositiveFloat] = []
    """Learning rates to choose from; empty: the recipe's."""
    select: str = "pass@1"
    """The metric on validation that chooses learning rate and checkpoint: what the arm is trained for."""
    like: str | None = None
    """Another arm whose runs this one shares, to choose from them by another metric."""
    tier: PositiveInt = 1
    """Arms of a lower tier are run first."""
    seeds: PositiveInt | None = None
    """Fewer seeds than the suite's."""


class Claim(Section):
    """A statement of the paper, or of ours, that the suite measures."""

    id: str
    """Name of the claim in ``claims.json``."""
    claim: str
    """The claim in words."""
    paper: float | None = None
    """The paper's number, in points; a ratio for ``generations``."""
    paper_on: str = ""
    """Model and task that the paper measured on."""
    kind: Literal["difference", "every_k", "generations"] = "difference"
    """``difference``: ``a`` minus ``b`` in ``metric``; ``every_k``: the smallest such difference over all measured k up
    to the metric's; ``generations``: the share of ``b``'s generations with which the arms of ``ladder``, that have more
    and more of them, reach what ``b`` ends with."""
    a: str = ""
    """An arm."""
    b: str
    """An arm."""
    metric: str
    """Metric that the claim is about, such as ``pass@32``; ``own:best@32`` is under the verifier that learned along in
    the run, ``own:base:best@32`` is what that verifier makes of the base model."""
    against: str = ""
    """Another metric of the same runs of ``a`` that is subtracted, in place of ``metric`` of ``b``."""
    ladder: dict[str, PositiveFloat] = {}
    """Arm → its generations as a share of ``b``'s, rising; only for ``generations``."""
    sign: Literal[1, -1] = 1
    """−1: the claim is that ``a`` is below ``b``."""
    margin: NotNegative = 0.0
    """Points by which ``a`` may be below ``b``: the claim is that it is not worse by more than these."""
    at_one_temperature: bool = False
    """Whether the claim is about one setting for every k, so that both arms are measured at T = 1 only."""
    goal: float | None = None
    """The value that we want at least (with ``sign`` −1 and for ``generations``: at most)."""


class Measuring(Section):
    """How every model is measured."""

    samples: PositiveInt = 64
    """M, completions per problem."""
    ks: list[PositiveInt] = Field(default=[1, 2, 4, 8, 16, 32, 64], min_length=1)
    """Budgets k at which every model is measured."""
    temperatures: list[PositiveFloat] = Field(default=[0.6, 0.8, 1.0, 1.2, 1.4], min_length=1)
    """Temperatures to choose from, for each arm, on validation; 1.0 is among them."""
    validation: str = "validation"
    """Split of the task that learning rates, checkpoints and temperatures are chosen on."""
    validation_problems: PositiveInt | None = 200
    """Number of problems of that split; null: all."""
    test: str = "test"
    """Split of the task that is reported."""
    test_problems: PositiveInt | None = None
    """Number of problems of that split; null: all."""
    test_task: dict[str, Any] | None = None
    """Changes to the training task that make the one that is reported, such as another name; null: none."""
    harder: dict[str, Any] | None = None
    """Changes to that task that make a harder held-out distribution of it."""
    harder_problems: PositiveInt | None = None
    """Number of problems of its test split; null: all."""
    verifier: str = "oracle"
    """Verifier that picks in best@k, as ``bontune sample`` takes it."""
    other_verifiers: dict[str, str] = {}
    """Other verifiers, by name: they tell what a model is worth under a verifier that it was not trained for."""
    votes: bool = False
    """Whether the vote of k samples is measured, too: majority@k."""
    checkpoint: Literal["best", "last"] = "best"
    """Which model of a run is measured: the best on validation by what the arm is trained for, the untrained one
    included, or the last, where the validation problems are too few to choose by."""


class Suite(Section):
    """Everything about a suite."""

    title: str
    """Heading of the suite's pages."""
    base: str
    """Recipe that all arms start from."""
    recipe: dict[str, Any] = {}
    """Keys that the suite changes in that recipe."""
    metric: str
    """Metric that the pictures lead with, such as ``pass@32``."""
    seeds: PositiveInt = 5
    """Training runs of each arm with the chosen learning rate; seed 0 is the one that chose it."""
    measuring: Measuring = Measuring()
    """How every model is measured."""
    arms: dict[str, Arm]
    """Arms by name, in the order of the tables."""
    claims: list[Claim] = []
    """Claims, in the order of the statement."""
    main: list[str] = []
    """Arms of the pictures with few lines, measured at every T; empty: those of the first tier."""
    learned: list[str] = []
    """Arms whose distributions of answers are compared, from the pools of seed 0; the base model first."""
    frontier: list[str] = []
    """Arms that the picture of pass@1 against the suite's metric names; empty: the main ones."""
    evaluations: NotNegativeInt = 4
    """Evaluations on validation during a training, from which the best checkpoint is chosen."""

    def trained(self) -> dict[str, Arm]:
        """The arms that have runs of their own."""
        return {name: arm for name, arm in self.arms.items() if name != BASE and arm.like is None}

    def runs_of(self, name: str) -> str:
        """The arm whose runs an arm uses."""
        return self.arms[name].like or name

    def selections(self, name: str) -> list[str]:
        """The metrics by which checkpoints of a trained arm's runs are kept."""
        arms = [arm for other, arm in self.arms.items() if self.runs_of(other) == name]
        return list(dict.fromkeys(arm.select for arm in arms))

    def rates(self, name: str) -> list[float]:
        """The learning rates of a trained arm."""
        return list(self.arms[name].lr) or [float(self.tree(name)["training"]["lr"])]

    def num_seeds(self, name: str) -> int:
        """Seeds of an arm; the base model has one."""
        return 1 if name == BASE else min(self.arms[self.runs_of(name)].seeds or self.seeds, self.seeds)

    def own_metrics(self) -> list[str]:
        """The metrics for which each arm's own best temperature is measured with all seeds."""
        claimed = [claim.metric for claim in self.claims if not claim.at_one_temperature]
        return list(dict.fromkeys([self.metric, *claimed]))

    def tree(self, name: str) -> dict[str, Any]:
        """Build the recipe of an arm as a tree, without seed, folder and learning rate of a run.

        Raises:
            BontuneError: the recipe is refused; the message names the arm.
        """
        tree = merged(read_recipe(self.base), self.recipe)
        if name != BASE:
            tree = merged(tree, self.arms[self.runs_of(name)].recipe)
        try:
            return Recipe.from_dict(tree).model_dump(mode="json")
        except BontuneError as error:
            raise BontuneError(f"arms.{name}: {error}") from None

    def run_recipe(self, name: str, lr: float, seed: int, run: str) -> Recipe:
        """The recipe of one run of a trained arm."""
        tree = self.tree(name)
        tree["training"]["lr"] = lr
        every = -(-tree["training"]["steps"] // max(self.evaluations, 1))
        tree["training"]["checkpoint_every"] = min(every, tree["training"]["checkpoint_every"] or every)
        tree["eval"] |= {
            "every": every,
            "task": None,
            "split": self.measuring.validation,
            "problems": self.measuring.validation_problems,
            "samples": self.measuring.samples,
            "k": self.measuring.ks,
            "temperature": 1.0,
            "keep": self.selections(name),
        }
        return Recipe.from_dict(tree | {"seed": seed, "run": run})


def main_arms(suite: Suite) -> list[str]:
    """The arms of pictures with few lines: those of ``suite.main``.

    Where it names none: the first tier, without arms that share another's runs or are only rungs of a claim's ladder.
    """
    if suite.main:
        return suite.main[:MOST_LINES]
    first = next(iter(suite.trained()), None)
    left_out = {arm for claim in suite.claims for arm in claim.ladder} | {
        name for name, arm in suite.arms.items() if arm.like is not None
    }
    lowest = min(arm.tier for arm in suite.arms.values())
    chosen = [
        name
        for name, arm in suite.arms.items()
        if name in (BASE, first) or (arm.tier == lowest and name not in left_out)
    ]
    return chosen[:MOST_LINES]


def shipped_suites() -> list[str]:
    """Names of the suites in the package."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(source: str, overrides: Iterable[str] = ()) -> Suite:
    """Read a suite and apply ``key=value`` overrides, such as ``seeds=2``, ``recipe.training.steps=50``.

    Args:
        source: a shipped name or a YAML file.
        overrides: values are YAML; in a suite with sizes, ``size=NAME`` chooses one.

    Raises:
        BontuneError: no such suite, broken YAML, an unknown key, or arms and claims that do not fit together.
    """
    path = SUITES / f"{source}.yaml" if source in shipped_suites() else Path(source)
    if not path.is_file():
        near = nearest(source, shipped_suites())
        hint = f" Did you mean {near!r}?" if near else ""
        raise BontuneError(f"No suite {source!r}: neither a file nor one of {', '.join(shipped_suites())}.{hint}")
    try:
        suite = Suite.model_validate(apply_overrides(*choose_size(read_yaml(path), overrides)))
    except ValidationError as error:
        see = f"{SUITES / 'countdown.yaml'} is a whole one."
        raise BontuneError(explain(Suite, error, "suite", see)) from None
    _check(suite)
    return suite


def _check(suite: Suite) -> None:
    """Names that refer to each other, metrics that are measured, recipes that are valid."""
    arms, measuring = suite.arms, suite.measuring
    if BASE not in arms:
        raise BontuneError(f"A suite has an arm {BASE!r}, the model before training.")
    if 1.0 not in measuring.temperatures:
        raise BontuneError("measuring.temperatures needs 1.0: every comparison is made there, too.")
    if max(measuring.ks) > measuring.samples:
        raise BontuneError(f"measuring.ks asks for {max(measuring.ks)} of measuring.samples = {measuring.samples}.")
    metrics = [f"{family}@{k}" for family in ("pass", "best") for k in measuring.ks]
    votes = [f"majority@{k}" for k in measuring.ks if measuring.votes]
    names = [*measuring.other_verifiers, "own", "own:base"]
    others = [f"{name}:best@{k}" for name in names for k in measuring.ks]
    claimed = [metric for claim in suite.claims for metric in (claim.metric, claim.against) if metric]
    used = [(metric, metrics + votes + others) for metric in (suite.metric, *claimed)]
    for name in suite.arms:  # others are not measured during training, and votes only where the objective needs answers
        has_votes = measuring.votes and Recipe.from_dict(suite.tree(name)).objective.row().needs_answers
        used.append((arms[name].select, metrics + votes if has_votes else metrics))
    for metric, known in used:
        if not set(metric.split("+")) <= set(known):
            raise BontuneError(f"The suite names the metric {metric!r}; with its measuring.ks there are {known}.")
    base = arms[BASE]
    if base.recipe or base.lr or base.like is not None:
        raise BontuneError(f"arms.{BASE} is the model before training: it takes no recipe, lr or like.")
    for name, arm in arms.items():
        if re.fullmatch(r"[\w.-]+", name) is None or name.startswith("."):
            raise BontuneError(f"The arm {name!r} has folders of that name: letters, digits, '_', '-' and '.' only.")
        if arm.like is not None and (arm.like not in suite.trained() or arm.recipe or arm.lr):
            raise BontuneError(f"arms.{name}.like must name an arm with runs of its own, and replaces recipe and lr.")
    for claim in suite.claims:
        if claim.kind == "generations" and not claim.ladder:
            raise BontuneError(f"The claim {claim.id} is about generations: it needs a ladder of arms.")
        if claim.metric.startswith("own:") and not (claim.at_one_temperature and claim.against):
            raise BontuneError(
                f"The claim {claim.id} is about a run's own verifier, which others are not measured under: it needs "
                "`against`, a metric of the same run, and at_one_temperature: true."
            )
        named = [claim.b, *(claim.ladder if claim.kind == "generations" else [claim.a])]
        for name in named:
            if name not in arms:
                raise BontuneError(f"The claim {claim.id} names the arm {name!r}; there are {', '.join(arms)}.")
    for key, named in (("main", suite.main), ("learned", suite.learned), ("frontier", suite.frontier)):
        for name in named:
            if name not in arms:
                raise BontuneError(f"The suite's {key} names the arm {name!r}; there are {', '.join(arms)}.")
    for name in suite.trained():
        suite.run_recipe(name, suite.rates(name)[0], 0, "runs/check")
    for claim in suite.claims:
        _check_ladder(suite, claim)


def _check_ladder(suite: Suite, claim: Claim) -> None:
    """The shares rise and are those of the recipes, also where overrides have changed how long some arms train."""
    shares = list(claim.ladder.values())
    if shares != sorted(set(shares)):
        raise BontuneError(f"The ladder of the claim {claim.id} must rise, got {shares}.")
    for name, share in claim.ladder.items():
        actual = _num_sampled(suite, name) / _num_sampled(suite, claim.b)
        if not 0.95 < actual / share < 1.05:
            raise BontuneError(
                f"The claim {claim.id} says that {name} has {share:g} of {claim.b}'s generations, but by the recipes "
                f"it has {actual:.3g}: change arms.{name}.recipe, the ladder, or leave the claim out (claims=[])."
            )


def _num_sampled(suite: Suite, name: str) -> int:
    """Completions that a run of an arm samples."""
    tree = suite.tree(name)
    return int(tree["training"]["steps"] * tree["training"]["prompts_per_step"] * tree["sampling"]["samples"])
